"""relabel() on trees and Datasets: ours, PyMC's, Stan's; labels of the input do not matter; nothing else is touched."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as hs

import dpgmm
from dpgmm import diagnostics, relabelling
from dpgmm.errors import InputError
from dpgmm.relabelling import Relabelling, agreement

DATA = Path(__file__).parent / "data"
CHAINS, DRAWS, K, N = 2, 30, 3, 60
CENTRES = np.array([-6.0, 0.0, 5.0])
INVARIANT = ("stephens", "ecr", "ecr_iterative_1", "ecr_iterative_2", "pra", "aic", "data_based", "sjw", "transport")


def simulated(dim=1, seed=0):
    """Points, and weights, means, covariances of draws scattered about three components, all in one labelling."""
    rng = np.random.default_rng(seed)
    centres = CENTRES[:, None] * (1.0 + np.arange(dim)) / dim
    points = centres[rng.choice(K, N, p=[0.45, 0.35, 0.2])] + rng.normal(size=(N, dim))
    shape = CHAINS, DRAWS, K
    means = centres + 0.2 * rng.normal(size=(*shape, dim))
    lower = np.eye(dim) + 0.1 * np.tril(rng.normal(size=(*shape, dim, dim)))
    return points, rng.dirichlet([30, 20, 10], size=shape[:2]), means, lower @ np.swapaxes(lower, -1, -2)


def shuffled(arrays, seed=1):
    """The same draws with labels at random, and the permutations that did it."""
    order = np.random.default_rng(seed).permuted(np.broadcast_to(np.arange(K), (CHAINS, DRAWS, K)), axis=-1)
    return [np.take_along_axis(a, order.reshape(order.shape + (1,) * (a.ndim - 3)), axis=2) for a in arrays], order


def tree(points, weights, means, covariances):
    rng = np.random.default_rng(5)
    component = ("chain", "draw", "component")
    posterior = xr.Dataset(
        {
            "weights": (component, weights),
            "means": ((*component, "dim"), means),
            "covariances": ((*component, "dim", "dim_"), covariances),
            "concentration": (("chain", "draw"), rng.gamma(2, size=weights.shape[:2])),
        },
        coords={"chain": np.arange(len(weights)), "draw": np.arange(weights.shape[1])},
    )
    stats = {n: (("chain", "draw"), rng.normal(size=weights.shape[:2])) for n in ("log_joint", "total_log_likelihood")}
    groups = {
        "posterior": posterior,
        "sample_stats": xr.Dataset(stats),
        "observed_data": xr.Dataset(
            {"points": (("obs", "dim"), points), "point_weights": ("obs", np.ones(len(points)))}
        ),
        "optimisation": xr.Dataset({"weights": (("chain", "snapshot", "component"), rng.random((CHAINS, 4, K)))}),
    }
    return xr.DataTree.from_dict(groups, name="draws")


def of_one_labelling(dim=1):
    points, *arrays = simulated(dim)
    return tree(points, *arrays)


def of_random_labels(dim=1, seed=1):
    points, *arrays = simulated(dim)
    return tree(points, *shuffled(arrays, seed)[0])


def aligned(means):
    """Whether every component stays within its own blob: no two neighbouring centres are closer than 5."""
    return np.ptp(np.asarray(means), axis=(0, 1)).max() < 2


# Our schema.


@pytest.mark.parametrize("method", INVARIANT)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=hs.integers(0, 2**32 - 1))
def test_labels_of_the_input_do_not_matter(method, seed):
    """The same draws in two labellings come out the same to the last bit, but for one permutation of the components."""
    results = [dpgmm.relabel(draws, method) for draws in (of_one_labelling(), of_random_labels(seed=seed))]
    one, other = (r.draws["posterior"].to_dataset() for r in results)
    assert aligned(one["means"])
    order = [int(np.flatnonzero(one["means"].values[0, 0, :, 0] == m)[0]) for m in other["means"].values[0, 0, :, 0]]
    for name in ("weights", "means", "covariances"):
        np.testing.assert_array_equal(one[name].values[:, :, order], other[name].values)
    np.testing.assert_allclose(results[0].objective, results[1].objective, rtol=1e-9)


@pytest.mark.parametrize("method", [*INVARIANT, "user"])
def test_what_has_no_labels_stays_to_the_last_bit(method):
    draws = of_random_labels(dim=2)
    before = draws.copy(deep=True)
    truth = np.argsort(shuffled([], seed=1)[1], axis=-1)
    result = dpgmm.relabel(draws, method, **({"permutations": truth} if method == "user" else {}))
    assert isinstance(result, Relabelling)
    xr.testing.assert_identical(draws, before)
    was, now = diagnostics.invariants(draws), diagnostics.invariants(result.draws)
    assert was.keys() == now.keys()
    for name in was:
        np.testing.assert_array_equal(was[name], now[name], err_msg=name)
    assert result.draws.attrs["relabelled"] == method
    for group in ("sample_stats", "observed_data", "optimisation"):
        xr.testing.assert_identical(result.draws[group].to_dataset(), draws[group].to_dataset())
    q = result.permutations
    assert q.dims == ("chain", "draw", "component")
    for name in ("weights", "means", "covariances"):
        old, new = draws["posterior"][name], result.draws["posterior"][name]
        assert (new.dims, new.dtype) == (old.dims, old.dtype)
        for chain, draw in itertools.product(range(CHAINS), range(0, DRAWS, 7)):
            np.testing.assert_array_equal(new.values[chain, draw], old.values[chain, draw][q.values[chain, draw]])
    assert aligned(result.draws["posterior"]["means"])


def test_all_methods_agree_where_there_is_nothing_to_argue_about():
    draws = of_random_labels()
    results = {method: dpgmm.relabel(draws, method) for method in INVARIANT}
    table = agreement(results)
    assert table.dims == ("result", "other")
    np.testing.assert_array_equal(table, 1.0)
    spoilt = results["aic"].permutations.values.copy()
    spoilt[0, 0] = spoilt[0, 0, [1, 0, 2]]
    share = agreement({"aic": results["aic"].permutations, "spoilt": spoilt}).sel(result="aic", other="spoilt")
    np.testing.assert_allclose(share, 1 - 1 / (CHAINS * DRAWS))


def test_reference_case_through_the_front_door():
    """R's permutations and objectives from a tree in our schema; allocations are a variable and are relabelled too."""
    with np.load(DATA / "five_components.npz") as file:
        case = {name: file[name] for name in file}
    expected = json.loads((DATA / "five_components.json").read_text())
    means, variances, weights = np.moveaxis(case["parameters"], -1, 0)
    draws = tree(case["x"][:, None], weights[None], means[None, ..., None], variances[None, ..., None, None])
    del draws["optimisation"]
    posterior = draws["posterior"].to_dataset().assign(z=(("chain", "draw", "obs"), case["allocations"][None]))
    draws["posterior"].dataset = posterior
    draws["sample_stats"].dataset = xr.Dataset({"log_likelihood": (("chain", "draw"), case["log_likelihood"][None])})
    results = {m: dpgmm.relabel(draws, m, allocations="z") for m in INVARIANT}
    for method in ("aic", "pra", "data_based", "stephens"):
        np.testing.assert_array_equal(results[method].permutations[0], case[f"perm_{method}"], err_msg=method)
    assert results["ecr"].objective == expected["ecr"]["agreement"]
    assert results["ecr"].ties == expected["ecr"]["draws_with_tied_optimum"]
    assert results["ecr_iterative_1"].objective == expected["ecr_iterative_1"]["agreement_with_own_mode"]
    assert results["ecr_iterative_2"].objective == expected["ecr_iterative_2"]["agreement"]
    assert int((results["ecr"].parked > 0).sum()) == 50
    new = results["ecr"].draws["posterior"]["z"]
    assert new.dtype == case["allocations"].dtype
    pivot = case["allocations"][case["pivot_draw"]]
    assert (new.values[0] == pivot).sum() == expected["ecr"]["agreement"]


# Empty components.


def with_empty_components(extra=4):
    """Two or three components that carry data in every draw, the rest far off and without weight; labels at random."""
    rng = np.random.default_rng(3)
    points, weights, means, covariances = simulated()
    size = K + extra
    active = np.ones((CHAINS, DRAWS, size), bool)
    active[..., K:] = False
    active[0, ::3, 2] = False
    more = rng.uniform(30, 60, (CHAINS, DRAWS, extra, 1)) * rng.choice([-1, 1], (CHAINS, DRAWS, extra, 1))
    means = np.concatenate([means, more], axis=2)
    means[..., 2, 0] = np.where(active[..., 2], means[..., 2, 0], 40.0)
    weights = np.concatenate([weights, np.full((CHAINS, DRAWS, extra), 1e-6)], axis=-1)
    weights = np.where(active, weights, 1e-6)
    covariances = np.ones((CHAINS, DRAWS, size, 1, 1))
    order = rng.permuted(np.broadcast_to(np.arange(size), weights.shape), axis=-1)
    take = lambda a: np.take_along_axis(a, order.reshape(order.shape + (1,) * (a.ndim - 3)), axis=2)
    draws = tree(points, take(weights / weights.sum(-1, keepdims=True)), take(means), take(covariances))
    del draws["optimisation"]
    return draws, take(active)


@pytest.mark.parametrize("method", INVARIANT)
def test_empty_components_are_parked_and_counted(method):
    draws, active = with_empty_components()
    options = {"pivot": (1, 0)} if method in ("ecr", "pra") else {}
    result = dpgmm.relabel(draws, method, **options)
    np.testing.assert_array_equal(result.active, active.sum(-1))
    np.testing.assert_array_equal(result.parked, active.shape[-1] - active.sum(-1))
    np.testing.assert_array_equal(result.matched, active)
    assert result.permutations.shape == active.shape  # no draw dropped
    assert result.ties == 0
    means = result.draws["posterior"]["means"].values[..., 0]
    carries = np.take_along_axis(active, result.permutations.values, axis=-1)
    if method in ("aic", "data_based"):
        # An order of values keeps no place free for a component that is missing, and the points of a missing component
        # are held by another, which may then lie nearer to the missing one's centre: only full draws are sure.
        carries &= (active.sum(-1) == K)[..., None]
    occupied = [
        np.where(carries[..., k], means[..., k], np.nan) for k in range(active.shape[-1]) if carries[..., k].any()
    ]
    assert len(occupied) == K
    assert all(np.nanmax(o) - np.nanmin(o) < 2 for o in occupied)


def test_parked_components_do_not_disturb_the_agreement():
    draws, _ = with_empty_components()
    results = {m: dpgmm.relabel(draws, m) for m in ("stephens", "sjw", "transport")}
    np.testing.assert_array_equal(agreement(results), 1.0)
    everywhere = {m: r.permutations for m, r in results.items()}
    assert agreement(everywhere).values.min() < 1


def test_a_pivot_with_fewer_components_than_a_draw():
    """Components that the pivot lacks go where it has none, the same place in every draw."""
    draws, active = with_empty_components()
    result = dpgmm.relabel(draws, "pra", pivot=(0, 0))
    assert active[0, 0].sum() == K - 1
    means = result.draws["posterior"]["means"].values[..., 0]
    carries = np.take_along_axis(active, result.permutations.values, axis=-1)
    assert carries.any(axis=(0, 1)).sum() == K
    assert all(np.ptp(means[..., k][carries[..., k]]) < 2 for k in range(active.shape[-1]) if carries[..., k].any())


def test_parking_can_be_refused_or_asked_for():
    draws, active = with_empty_components()
    assert dpgmm.relabel(draws, "aic", park=False).matched.all()
    by_mean = dpgmm.relabel(draws, "aic")
    carries = np.take_along_axis(active, by_mean.permutations.values, axis=-1)
    assert (np.diff(carries.astype(int), axis=-1) <= 0).all()


# Other people's names.


def test_pymc_shaped():
    """Named dimension `cluster`, `w`, `mu`, `sigma`, data in observed_data/y: D = 1 without a dimension for it."""
    points, weights, means, covariances = simulated()
    (w, mu, variances), order = shuffled([weights, means[..., 0], covariances[..., 0, 0]])
    dims = ("chain", "draw", "cluster")
    posterior = xr.Dataset(
        {
            "w": (dims, w),
            "mu": (dims, mu),
            "sigma": (dims, np.sqrt(variances)),
            "shift": (("chain", "draw"), mu[..., 0]),
        },
        coords={"cluster": ["a", "b", "c"]},
    )
    posterior["mu"].attrs["units"] = "km/s"
    groups = {
        "posterior": posterior,
        "prior": posterior.copy(deep=True),
        "sample_stats": xr.Dataset({"lp": (("chain", "draw"), np.zeros(w.shape[:2]))}),
        "observed_data": xr.Dataset({"y": ("y_dim_0", points[:, 0])}),
    }
    idata = xr.DataTree.from_dict(groups)
    names = {"component": "cluster", "weights": "w", "means": "mu", "scales": "sigma"}
    truth = np.argsort(order, axis=-1)
    for method in INVARIANT:
        result = dpgmm.relabel(idata, method, **names, points="y")
        assert aligned(result.draws["posterior"]["mu"]), method
        assert agreement({"ours": result, "truth": truth}).values[0, 1] == 1, method
        assert result.draws["posterior"]["mu"].attrs == {"units": "km/s"}
        np.testing.assert_array_equal(result.draws["posterior"]["shift"], posterior["shift"])
        xr.testing.assert_identical(result.draws["prior"].to_dataset(), groups["prior"])
    # A Dataset alone, with the points as an array, comes to the same; so do precisions and variances.
    only = dpgmm.relabel(posterior, "stephens", **names, points=points[:, 0])
    np.testing.assert_array_equal(only.permutations, dpgmm.relabel(idata, "stephens", **names).permutations)
    for role, values in (("precisions", 1 / variances), ("variances", variances)):
        other = posterior.assign(spread=(dims, values))
        same = dpgmm.relabel(other, component="cluster", weights="w", means="mu", points=points, **{role: "spread"})
        np.testing.assert_allclose(same.objective, only.objective, rtol=1e-9)


def test_stan_shaped():
    """The components under a dimension of its own in every variable; allocations from 1; D = 2 and Cholesky factors."""
    points, weights, means, covariances = simulated(dim=2)
    (theta, mu, lower), order = shuffled([weights, means, np.linalg.cholesky(covariances)])
    distance = ((points[:, None] - mu[:, :, None]) ** 2).sum(-1)
    z = 1 + distance.argmin(axis=-1)
    transition = np.random.default_rng(0).random((CHAINS, DRAWS, K, K))
    sample = ("chain", "draw")
    posterior = xr.Dataset(
        {
            "theta": ((*sample, "theta_dim_0"), theta),
            "mu": ((*sample, "mu_dim_0", "mu_dim_1"), mu),
            "L": ((*sample, "L_dim_0", "L_dim_1", "L_dim_2"), lower),
            "z": ((*sample, "z_dim_0"), z),
            "gamma": ((*sample, "gamma_dim_0", "gamma_dim_1"), transition),
            "lp__": (sample, np.arange(CHAINS * DRAWS, dtype=float).reshape(CHAINS, DRAWS)),
        }
    )
    names = {
        "component": ("theta_dim_0", "mu_dim_0", "L_dim_0", "gamma_dim_0", "gamma_dim_1"),
        "weights": "theta",
        "means": "mu",
        "scales": "L",
        "allocations": "z",
        "first_label": 1,
        "points": points,
    }
    for method in INVARIANT:
        result = dpgmm.relabel(posterior, method, **names)
        new = result.draws
        assert new.attrs["relabelled"] == method
        assert aligned(new["mu"]), method
        assert agreement({"ours": result, "truth": np.argsort(order, axis=-1)}).values[0, 1] == 1, method
        assert int(new["z"].min()) == 1
        # Every point is in the component that it was in, whatever that is called now.
        held = np.take_along_axis(new["mu"].values, new["z"].values[..., None] - 1, axis=2)
        np.testing.assert_array_equal(held, np.take_along_axis(mu, z[..., None] - 1, axis=2))
        q = result.permutations.values[1, 3]
        np.testing.assert_array_equal(new["gamma"].values[1, 3], transition[1, 3][q][:, q])
        np.testing.assert_array_equal(new["lp__"], posterior["lp__"])


def test_one_scale_for_all_components_and_probabilities_in_place_of_parameters():
    points, weights, means, _ = simulated()
    (w, mu), order = shuffled([weights, means[..., 0]])
    dims = ("chain", "draw", "k")
    log_joint = np.log(w)[:, :, None] - 0.5 * (points - mu[:, :, None]) ** 2
    p = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=-1, keepdims=True))
    posterior = xr.Dataset(
        {
            "w": (dims, w),
            "mu": (dims, mu),
            "sigma": (("chain", "draw"), np.ones(w.shape[:2])),
            "p": (("chain", "draw", "i", "k"), p),
        }
    )
    shared = dpgmm.relabel(posterior, component="k", weights="w", means="mu", scales="sigma", points=points)
    given = dpgmm.relabel(posterior[["mu", "p"]], component="k", probabilities="p")
    np.testing.assert_array_equal(shared.permutations, given.permutations)
    np.testing.assert_allclose(shared.objective, given.objective, rtol=1e-9)
    np.testing.assert_allclose(given.draws["p"].sum("k"), 1)
    for method in ("ecr_iterative_1", "ecr_iterative_2"):
        drawn = dpgmm.relabel(posterior[["p"]], method, component="k", probabilities="p")
        assert agreement({"ours": drawn, "truth": np.argsort(order, axis=-1)}).values[0, 1] == 1


def test_order_by_another_variable():
    draws = of_random_labels(dim=2)
    result = dpgmm.relabel(draws, "AIC", by=("means", 1))
    assert (np.diff(result.draws["posterior"]["means"].values[..., 1], axis=-1) > 0).all()
    result = dpgmm.relabel(draws, "aic", by="weights")
    assert (np.diff(result.draws["posterior"]["weights"].values, axis=-1) > 0).all()


# What cannot be done is said in one line.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "sorting"}, "no relabelling method 'sorting'; there are stephens, ecr"),
        ({"method": "ecr", "starts": 3}, "ecr: no option 'starts'; there are pivot"),
        ({"component": "cluster"}, "component = 'cluster': no such dimension"),
        ({"component": ("component", "dim")}, "component dimensions differ in length"),
        ({"weights": "w"}, "weights = 'w': no such variable in the posterior"),
        ({"scales": "s", "variances": "v"}, "variances, scales: give one of them"),
        ({"points": "y"}, "points = 'y': no such variable among the observed data"),
        ({"points": np.ones((4, 2))}, "points have 2 columns and means 1"),
        ({"method": "pra", "pivot": (9, 0)}, "pivot = "),
        ({"method": "pra", "log_density": "lp"}, "log_density = 'lp': no such variable"),
        ({"method": "user"}, "user: permutations of shape"),
        ({"method": "aic", "by": ("means", 2)}, "means has entries 0 to 0"),
        ({"method": "ecr", "allocations": "z"}, "z: values 1 to 3 .* give first_label=1"),
        ({"method": "ecr", "allocations": "concentration"}, "concentration: values .* expected whole numbers"),
        ({"probabilities": "weights"}, "weights: it must have one dimension beside"),
        ({"covariances": "broken"}, "not finite everywhere"),
    ],
)
def test_bad_input(arguments, message):
    draws = of_one_labelling()
    posterior = draws["posterior"].to_dataset()
    z = np.random.default_rng(0).integers(1, 4, size=(CHAINS, DRAWS, N))
    broken = posterior["covariances"].where(posterior["draw"] != 3)
    draws["posterior"].dataset = posterior.assign(z=(("chain", "draw", "obs"), z), broken=broken)
    with pytest.raises(InputError, match=message) as error:
        dpgmm.relabel(draws, **arguments)
    assert "\n" not in str(error.value)


def test_bad_trees():
    with pytest.raises(InputError, match="without a posterior"):
        dpgmm.relabel(xr.DataTree())
    with pytest.raises(InputError, match="no dimension 'chain'"):
        dpgmm.relabel(xr.Dataset({"mu": (("draw", "component"), np.ones((3, 2)))}))
    with pytest.raises(InputError, match="no observations"):
        dpgmm.relabel(of_one_labelling()["posterior"].to_dataset())
    draws = of_one_labelling()
    del draws["sample_stats"]
    with pytest.raises(InputError, match="no pivot"):
        dpgmm.relabel(draws, "pra")
    with pytest.raises(InputError, match="different shapes"):
        relabelling.agreement({"a": np.zeros((3, 2), int), "b": np.zeros((4, 2), int)})
