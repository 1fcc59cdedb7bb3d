"""Switching and the atlas of modes, on chains and paths whose switches were made by hand."""

import numpy as np
import pytest
import xarray as xr

from dpgmm import InputError, atlas, draws, switching
from dpgmm.draws import affinity
from dpgmm.draws.components import Components
from dpgmm.labels import modes

pytestmark = pytest.mark.quick("labels")

K = 4


def components(shape, noise=0.02, dim=2, seed=5):
    """Three visible components well apart and an empty one that wanders."""
    rng = np.random.default_rng(seed)
    weights = np.broadcast_to([0.5, 0.3, 0.2, 1e-6], (*shape, K))
    centres = np.array([-6.0, 0.0, 6.0, 0.0])[:, None] * np.ones(dim)
    means = centres + noise * rng.normal(size=(*shape, K, dim))
    means[..., 3, :] = 10 * rng.normal(size=(*shape, dim))
    covariances = np.broadcast_to(np.eye(dim), (*shape, K, dim, dim))
    return [weights.copy(), means, covariances.copy()]


def permute(arrays, orders):
    """new[k] = old[order[k]] for orders (chain, draw, K)."""
    take = lambda a: np.take_along_axis(a, orders.reshape(*orders.shape, *[1] * (a.ndim - 3)), axis=2)
    return [take(a) for a in arrays]


def group(arrays, state="draw"):
    dims = ("component",), ("component", "dim"), ("component", "dim", "dim_")
    names = "weights", "means", "covariances"
    return xr.Dataset({n: (("chain", state, *d), a) for n, d, a in zip(names, dims, arrays, strict=True)})


def tree(arrays, log_joint=None, **groups):
    shape = arrays[0].shape[:2]
    stats = {
        "log_joint": log_joint if log_joint is not None else np.zeros(shape),
        "active_components": np.full(shape, 3),
    }
    stats = xr.Dataset({n: (("chain", "draw"), v) for n, v in stats.items()})
    return xr.DataTree.from_dict({"posterior": group(arrays), "sample_stats": stats, **groups})


def orders(*by_chain):
    return np.array(by_chain)


SAME, SWAP, EMPTY = [0, 1, 2, 3], [1, 0, 2, 3], [0, 3, 2, 1]


def test_no_switch_is_counted_where_there_is_none():
    [found] = switching(tree(components((2, 50))))
    assert found.per_1000 == 0
    assert found.different_pairs == 0
    assert found.labellings == 1
    assert found.entropy == 0


@pytest.mark.parametrize("dim", [1, 2])
def test_every_planted_switch_is_counted(dim):
    """Chain 0 swaps two components at three steps of 100; chain 1 never; chain 2 is chain 1 under another labelling."""
    at = np.zeros((3, 101), int)
    at[0, 20:50], at[0, 80:], at[2] = 1, 1, 1
    arrays = permute(components((3, 101), dim=dim), np.array([SAME, SWAP])[at])
    [found] = switching(tree(arrays))
    np.testing.assert_allclose(found.per_chain, [30.0, 0.0, 0.0])
    # Pair (1, 2) always differs; 0 differs from 1 where it is swapped, 51 of 101, and from 2 elsewhere.
    assert found.different_pairs == pytest.approx((101 + 101) / 303)
    assert found.labellings == 2
    assert found.min_weight == 0.01
    share = (51 + 101) / 303
    assert found.entropy == pytest.approx(-(share * np.log2(share) + (1 - share) * np.log2(1 - share)))


def test_empty_components_may_do_as_they_like():
    """An empty label that trades places with another empty label, or is born elsewhere, is no switch."""
    arrays = components((1, 60))
    arrays[0][..., 1] = 1e-7
    at = np.arange(60) % 2
    [found] = switching(tree(permute(arrays, np.array([SAME, EMPTY])[at][None])))
    assert found.per_1000 == 0


def test_a_birth_elsewhere_is_no_switch():
    arrays = components((1, 2))
    arrays[0][0, 0], arrays[0][0, 1] = [0.5, 0.3, 0.2, 0.0], [0.5, 0.3, 0.0, 0.2]
    arrays[1][0, 1, 3] = 20.0
    [found] = switching(tree(arrays))
    assert found.per_1000 == 0


def test_paths_are_counted_by_steps():
    arrays = permute(components((2, 11)), np.array([SAME, SWAP])[np.array([[0] * 5 + [1] * 6, [0] * 11])])
    path = group(arrays, "snapshot").assign(loss=(("chain", "step"), np.ones((2, 100))))
    path = path.assign_coords(snapshot_step=("snapshot", np.arange(11) * 10))
    of_draws, along = switching(tree([a[:, -1:] for a in arrays], optimisation=path))
    assert np.isnan(of_draws.per_1000)
    assert of_draws.different_pairs == 1
    np.testing.assert_allclose(along.per_chain, [10.0, 0.0])
    assert along.steps_between == 10


def test_no_visible_component_is_refused():
    with pytest.raises(InputError, match=r"no component of the draws has a weight of 0\.9 or more: lower min_weight"):
        switching(tree(components((1, 3))), min_weight=0.9)


def test_affinity_is_the_integral():
    """The closed form against quadrature of sqrt(N N') in one dimension."""
    x = np.linspace(-40, 40, 40_001)
    normal = lambda m, v: np.exp(-0.5 * (x - m) ** 2 / v) / np.sqrt(2 * np.pi * v)
    one = Components(np.array([[1.0]]), np.array([[[0.3]]]), np.array([[[[2.0]]]]))
    other = Components(np.array([[1.0]]), np.array([[[1.9]]]), np.array([[[[0.5]]]]))
    integral = np.trapezoid(np.sqrt(normal(0.3, 2.0) * normal(1.9, 0.5)), x)
    np.testing.assert_allclose(affinity.affinities(one, other)[0, 0, 0], integral, rtol=1e-8)


def test_variances_are_compared_as_the_matrices_that_they_stand_for():
    rng = np.random.default_rng(2)
    one, other = (
        Components(rng.dirichlet(np.ones(3), 2), rng.normal(size=(2, 3, 4)), rng.gamma(2.0, size=(2, 3, 4)))
        for _ in range(2)
    )
    np.testing.assert_allclose(
        affinity.affinities(one, other), affinity.affinities(one.full(), other.full()), rtol=1e-10
    )


def test_many_dimensions_are_compared_by_variances_and_that_is_said():
    few, many = (group(components((2, 3), dim=dim)) for dim in (affinity.LARGEST, affinity.LARGEST + 1))
    assert affinity.by_variances(few) is None
    assert "51 dimensions are too many for correlations" in affinity.by_variances(many)
    for dataset, axes in ((few, 5), (many, 4)):
        states = affinity.heaviest(dataset)
        assert states.components.covariances.ndim == axes
        np.testing.assert_allclose(affinity.match(states.at(0), states.at(0), K).affinity, 1, rtol=1e-9)


def test_atlas_tells_another_name_from_another_mode():
    """Chains 0 to 2 are one mode in two labellings; chain 3 has moved a component, and is worse by five nats."""
    arrays = components((4, 30), noise=0.1)
    arrays[1][3, :, 1] += 3.0
    log_joint = np.zeros((4, 30)) - np.array([0, 0, 0, 5])[:, None]
    chain = np.array([SAME, SWAP, SWAP, SAME])[:, None]
    found = atlas(tree(permute(arrays, np.broadcast_to(chain, (4, 30, K))), log_joint))
    np.testing.assert_array_equal(found.mode, [0, 0, 0, 1])
    np.testing.assert_array_equal(found.labelling, [0, 1, 1, 0])
    np.testing.assert_allclose(found.table["log joint"], [0, -5])
    np.testing.assert_allclose(found.table["basin"], [0.75, 0.25])
    np.testing.assert_array_equal(found.table["labellings"], [2, 1])


def test_the_spread_of_a_posterior_is_no_mode():
    """Two halves of one wide chain lie further apart than `SAME` and are one mode; two tight chains there are two."""
    wide = components((2, 60), noise=1.2)
    tight = [np.repeat(a[:, :1], 60, axis=1) for a in wide]
    assert atlas(tree(tight)).distance[0, 1] > modes.SAME
    assert len(atlas(tree(wide)).table) == 1
    assert len(atlas(tree(tight)).table) == 2


def test_a_mixture_is_like_itself_whatever_is_cut_off():
    arrays = components((1, 5))
    arrays[0][..., 2], arrays[0][..., 0] = 0.04, 0.66
    kept = affinity.heaviest(group(arrays), min_weight=0.05).at(0)
    np.testing.assert_allclose(affinity.match(kept, kept, K).affinity, 1, rtol=1e-12)


def test_many_pairs_in_many_dimensions():
    """So many at once never came back from one compiled call."""
    shape, dim, num, rng = (3600,), 5, 12, np.random.default_rng(5)
    lower = np.eye(dim) + 0.1 * np.tril(rng.normal(size=(*shape, num, dim, dim)))
    weights, means = np.full((*shape, num), 1 / num), 5 * rng.normal(size=(*shape, num, dim))
    mixtures = affinity.Heaviest(
        np.broadcast_to(np.arange(num), (*shape, num)), Components(weights, means, lower @ np.swapaxes(lower, -1, -2))
    )
    found = affinity.match(mixtures, mixtures, num)
    np.testing.assert_allclose(found.affinity, 1, rtol=1e-9)
    np.testing.assert_array_equal(found.labels, mixtures.labels)


def test_a_restart_that_broke_is_not_the_best():
    arrays = components((2, 20))
    log_joint = np.zeros((2, 20))
    log_joint[0] = np.nan
    arrays[2][0] = 0.0
    broken = tree(arrays, log_joint)
    assert draws.best_chain(broken) == 1
    assert atlas(broken).mode[1] == 0


def test_atlas_ignores_labels():
    arrays = components((3, 20), noise=0.3)
    shuffled = permute(arrays, np.random.default_rng(6).permuted(np.broadcast_to(np.arange(K), (3, 20, K)), axis=-1))
    before, after = atlas(tree(arrays)), atlas(tree(shuffled))
    np.testing.assert_array_equal(before.mode, after.mode)
    np.testing.assert_allclose(before.distance, after.distance, atol=1e-12)
