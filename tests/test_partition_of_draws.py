"""dpgmm.partition on labelled draws: anybody's allocations, our Gaussian components, samples of many observations."""

import numpy as np
import pytest
import xarray as xr

import dpgmm
from dpgmm import InputError, draws, partitions
from dpgmm.data import Dataset
from dpgmm.partitions import similarity

CHAINS, DRAWS, N = 2, 30, 12
TRUE = np.repeat([0, 1, 2], N // 3)
CENTRES = np.array([-10.0, 0.0, 10.0])


def labels(seed=0, offset=0):
    """Draws of TRUE with some noise, under other names in every draw."""
    rng = np.random.default_rng(seed)
    clean = np.where(rng.random((CHAINS, DRAWS, N)) < 0.9, TRUE, rng.integers(0, 3, (CHAINS, DRAWS, N)))
    names = np.stack([rng.permutation(3) for _ in range(CHAINS * DRAWS)]).reshape(CHAINS, DRAWS, 3)
    return np.take_along_axis(names, clean, axis=2) + offset


def gaussian_tree(points=None, point_weights=None):
    """Three far components, switching in every draw."""
    rng = np.random.default_rng(1)
    order = np.stack([rng.permutation(3) for _ in range(CHAINS * DRAWS)]).reshape(CHAINS, DRAWS, 3)
    points = CENTRES[TRUE] + np.linspace(-1, 1, N) if points is None else points
    posterior = xr.Dataset(
        {
            "weights": (("chain", "draw", "component"), np.full((CHAINS, DRAWS, 3), 1 / 3)),
            "means": (("chain", "draw", "component", "dim"), CENTRES[order][..., None]),
            "covariances": (("chain", "draw", "component", "dim", "dim_"), np.ones((CHAINS, DRAWS, 3, 1, 1))),
        }
    )
    return xr.DataTree.from_dict(
        {"posterior": posterior, "observed_data": draws.observed(Dataset(points, point_weights))}
    )


@pytest.mark.parametrize("loss", ["vi", "vi_lb", "binder"])
def test_draws_are_brought_into_one_form_once(loss, monkeypatch):
    seen, by_first_appearance = [], similarity._by_first_appearance
    monkeypatch.setattr(
        similarity, "_by_first_appearance", lambda rows: (seen.append(rows.shape), by_first_appearance(rows))[1]
    )
    dataset = xr.Dataset({"allocations": (("chain", "draw", "obs"), labels())})
    dpgmm.partition(dataset, loss, starts=1, workers=1)
    assert seen.count((CHAINS * DRAWS, N)) == 1


def test_our_names_and_what_the_result_holds():
    values = labels()
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"allocations": (("chain", "draw", "obs"), values)})})
    found, flat = dpgmm.partition(tree), values.reshape(-1, N)
    np.testing.assert_array_equal(found.partition, TRUE)
    assert (found.units, found.loss.name, found.num_clusters) == ("bits", "vi", 3)
    assert found.expected_loss == partitions.expected_loss(flat, TRUE)
    assert found.similarity.dims == ("obs", "obs_")
    np.testing.assert_array_equal(found.similarity, partitions.similarity_matrix(flat))
    np.testing.assert_array_equal(found.uncertainty, partitions.allocation_uncertainty(found.similarity.values, TRUE))
    assert float(found.contribution.sum()) == pytest.approx(found.expected_loss)
    assert found.credible_ball.radius == partitions.credible_ball(flat, TRUE).radius
    assert float(found.cluster_counts.sum()) == pytest.approx(1)
    assert float(found.cluster_counts.sel(clusters=3)) == np.mean(partitions.num_clusters(flat) == 3)
    np.testing.assert_array_equal(found.observations, np.arange(N))
    assert found.notes == ("allocations are the variable 'allocations'", "all 12 observations")
    with pytest.raises(AttributeError):
        found.num_clusters = 4


@pytest.mark.parametrize(
    ("dims", "shape", "options"),
    [
        (("chain", "draw", "z_dim_0"), (CHAINS, DRAWS, N), {}),
        (("draw", "i"), (CHAINS * DRAWS, N), {}),
        (("i", "sample"), (CHAINS * DRAWS, N), {"sample_dims": ("sample",)}),
    ],
)
def test_names_of_pymc_and_stan_and_missing_dimensions(dims, shape, options):
    values = labels(offset=1).astype(float).reshape(shape)
    values = values.T if dims[0] == "i" else values
    found = dpgmm.partition(xr.Dataset({"z": (dims, values)}), "binder", allocations="z", **options)
    np.testing.assert_array_equal(found.partition, TRUE)
    assert found.credible_ball.loss.name == "binder"
    group = xr.DataTree.from_dict({"warmup": xr.Dataset({"z": (dims, values)})})
    again = dpgmm.partition(group, "binder", allocations="z", group="warmup", **options)
    np.testing.assert_array_equal(again.similarity, found.similarity)


def test_labels_permuted_in_every_draw_change_nothing():
    rng, values = np.random.default_rng(5), labels()
    permuted = np.stack([rng.permutation(7)[row] for row in values.reshape(-1, N)]).reshape(values.shape)
    of = lambda v: dpgmm.partition(xr.Dataset({"allocations": (("chain", "draw", "obs"), v)}), "nvi")
    one, two = of(values), of(permuted)
    for name in ("partition", "similarity", "uncertainty", "cluster_counts"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert one.expected_loss == pytest.approx(two.expected_loss, abs=1e-14)


def test_streamed_from_gaussian_components():
    found = dpgmm.partition(gaussian_tree(), seed=4)
    np.testing.assert_array_equal(found.partition, TRUE)
    assert found.expected_loss == 0
    assert found.notes[0] == "allocations are drawn from the Gaussian components, seed 4"
    np.testing.assert_array_equal(found.similarity, dpgmm.partition(gaussian_tree(), seed=4).similarity)


@pytest.mark.parametrize(
    ("loss", "ball"), [("vi_lb", "vi"), ("omari", "binder"), ("omari_approx", "binder"), ("id", "id")]
)
def test_losses_that_are_no_metric_get_the_ball_of_one_that_is(loss, ball):
    found = dpgmm.partition(xr.Dataset({"allocations": (("chain", "draw", "obs"), labels())}), loss, starts=2)
    assert (found.loss.name, found.credible_ball.loss.name) == (loss, ball)


def test_a_sample_of_many_observations_says_which():
    found = dpgmm.partition(gaussian_tree(), limit=7, seed=2)
    assert found.notes[1] == "7 of 12 observations, at random without replacement"
    assert len(set(found.observations)) == 7
    np.testing.assert_array_equal(found.partition.obs, found.observations)
    np.testing.assert_array_equal(found.partition, partitions.canonical(TRUE[found.observations]))
    given = dpgmm.partition(xr.Dataset({"allocations": (("chain", "draw", "obs"), labels())}), limit=7, seed=2)
    np.testing.assert_array_equal(given.observations, found.observations)
    wanted = partitions.similarity_matrix(labels().reshape(-1, N)[:, given.observations])
    np.testing.assert_array_equal(given.similarity, wanted)


def test_weighted_points_count_as_often_as_they_weigh():
    whole = np.tile([1.0, 3.0, 0.0, 2.0], 3)
    found = dpgmm.partition(gaussian_tree(point_weights=whole))
    np.testing.assert_array_equal(found.observations, np.repeat(np.arange(N), whole.astype(int)))
    np.testing.assert_array_equal(found.partition, TRUE[found.observations])
    assert "each as often as its weight says" in found.notes[1]
    sampled = dpgmm.partition(gaussian_tree(point_weights=whole * 1.5), limit=50)
    assert sampled.notes[1] == "27 observations, sampled by their weights from 12 points of total 27"
    assert not set(sampled.observations) & set(np.flatnonzero(whole == 0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dpgmm.partition(xr.Dataset({"z": ("draw", [1])})), "no variable 'allocations' \\(found z\\)"),
        (
            lambda: dpgmm.partition(gaussian_tree(), group="prior"),
            "no group 'prior' \\(found posterior, observed_data\\)",
        ),
        (lambda: dpgmm.partition(gaussian_tree(), limit=0), "limit is 0"),
        (lambda: dpgmm.partition(gaussian_tree(), seed=-1), "seed is -1"),
        (
            lambda: dpgmm.partition(xr.Dataset({"z": (("a", "b"), [[1]])}), allocations="z"),
            "z has dimensions \\('a', 'b'\\).*sample_dims",
        ),
        (lambda: dpgmm.partition(gaussian_tree(), "no"), "no loss 'no'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
