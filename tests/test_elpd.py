"""Expected log predictive density: ArviZ's numbers, direct sums, guides, held-out points, and what cannot be compared."""

import arviz_stats
import few_points
import numpy as np
import pytest
import xarray as xr
from scipy.special import logsumexp
from test_prediction import tree_of

import dpgmm
from dpgmm import Dataset, InputError
from dpgmm.diagnostics import elpd


def calm(**options):
    """Draws close to one another, of which no point is missed much."""
    tree = tree_of(**options)
    posterior = tree["posterior"].to_dataset()
    tree["posterior"].dataset = 0.05 * posterior + 0.95 * posterior.mean(("chain", "draw"))
    return tree


@pytest.mark.quick("diagnostics")
def test_loo_is_arvizs():
    tree = dpgmm.with_groups(calm(shape=(4, 200)), "log_likelihood")
    ours = elpd.loo(tree)
    ll = tree["log_likelihood"]["points"].values
    theirs = arviz_stats.loo(tree, pointwise=True, reff=elpd._efficiency(ll))  # pyright: ignore[reportPrivateImportUsage]
    assert ours.elpd == pytest.approx(theirs.elpd, rel=1e-10)
    assert ours.p == pytest.approx(theirs.p, rel=1e-8)
    np.testing.assert_allclose(ours.pointwise, theirs.elpd_i, rtol=1e-10)
    np.testing.assert_allclose(ours.k, theirs.pareto_k, rtol=1e-8)
    assert ours.good_k == pytest.approx(theirs.good_k)
    # By n - 1, as ArviZ does from 1.0 on.
    assert ours.se == pytest.approx(np.sqrt(12) * theirs.elpd_i.values.std(ddof=1), rel=1e-9)


def test_a_weight_of_three_is_three_rows():
    weights = np.tile([3.0, 1.0, 0.0], 4)
    times = [3, 1, 0] * 4
    one = elpd.loo(tree_of(weights=weights))
    tree = tree_of()
    points = np.repeat(np.asarray(tree["observed_data"]["points"]), times, axis=0)
    tree["observed_data"] = xr.DataTree(dpgmm.draws.observed(Dataset(points)))
    other = elpd.loo(tree)
    assert one.elpd == pytest.approx(other.elpd, rel=1e-3)  # Effective draws are judged by other rows.
    assert one.weights.sum() == len(points)


def test_a_sample_of_rows_stands_for_all():
    tree = tree_of(num=600, shape=(2, 50))
    whole, some = elpd.loo(tree), elpd.loo(tree, rows=150)
    assert some.of_rows == "a random sample of 150 of 600 rows"
    np.testing.assert_allclose(some.pointwise, whole.pointwise[some.rows], rtol=0.05, atol=0.05)
    assert abs(some.elpd - whole.elpd) < 4 * some.se
    # Over samples of the rows: the error is that of the sampling, not of the points alone.
    assert some.se > 1.5 * whole.se
    weighted = tree_of(num=600, shape=(2, 50), weights=np.arange(600) % 3)
    other = elpd.loo(weighted, rows=150)
    assert abs(other.elpd - elpd.loo(weighted).elpd) < 4 * other.se
    assert not np.isin(other.rows % 3, 0).any()


def test_importance_weights_correct_a_guide():
    """Draws of a distorted posterior, with their weights, give the elpd of the undistorted one."""
    tree = calm(shape=(1, 4_000), seed=1)
    log_weight = np.random.default_rng(0).normal(0, 0.3, (1, 4_000)) + 3 * tree["posterior"]["means"].values.sum((2, 3))
    guide = tree.copy()
    guide["sample_stats"].dataset = tree["sample_stats"].to_dataset().assign(log_weight=(("chain", "draw"), log_weight))
    guide.attrs = {"kind": "guide", "elbo": np.array([0.0])}
    found = elpd.loo(guide)
    ll = dpgmm.draws.prediction.log_density(tree, tree["observed_data"]["points"].values)[0]
    raw = log_weight.T - ll
    direct = logsumexp(raw + ll, axis=0) - logsumexp(raw, axis=0)
    assert found.worst_k < 0.5
    np.testing.assert_allclose(found.pointwise, direct, atol=1e-3)
    # Without the guide's weights it is another number.
    assert np.abs(found.pointwise - elpd.loo(tree).pointwise).max() > 5e-3


def test_held_out_points_take_every_kind():
    data = Dataset(np.array([0.0, 3.0, 5.0]), np.array([1.0, 2.0, 1.0]))
    tree = tree_of()
    value, error = elpd.held_out(tree, data)
    ll = dpgmm.draws.prediction.log_density(tree, data.points)
    of_each = np.log(np.exp(ll).mean(axis=(0, 1)))
    assert value == pytest.approx(of_each @ data.weights, rel=1e-12)
    assert error > 0
    one = tree.isel(draw=[0])
    one.attrs = {"kind": "point"}
    best = int(one["sample_stats"]["log_joint"].values.argmax())
    assert elpd.held_out(one, data)[0] == pytest.approx(ll[best, 0] @ data.weights, rel=1e-12)
    assert set(elpd.columns(one, data).values()) >= {""}
    with pytest.raises(InputError, match=r"leave-one-out elpd: .* is a point estimate .* --holdout"):
        elpd.loo(one)


@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_models_are_compared_on_the_same_data_only():
    trees = {"a": calm(seed=0), "b": calm(seed=0)}
    p = trees["b"]["posterior"].to_dataset()
    trees["b"]["posterior"].dataset = p.assign(means=p["means"] + 3)
    table = elpd.compare(trees)
    assert table.index[0] == "a"
    assert table.loc["b", "elpd_diff"] == pytest.approx(elpd.loo(trees["b"]).elpd - elpd.loo(trees["a"]).elpd)
    assert table["weight"].sum() == pytest.approx(1, abs=0.02)
    with pytest.raises(InputError, match=r"a and c are of different data .row 0 is"):
        elpd.compare({"a": trees["a"], "c": tree_of(seed=1)})
    with pytest.raises(InputError, match=r"different data ..12, 1. and .13, 1. numbers"):
        elpd.compare({"a": trees["a"], "c": tree_of(num=13)})
    with pytest.raises(InputError, match="two models or more"):
        elpd.compare({"a": trees["a"]})


def test_loo_agrees_with_the_predictive_densities_of_the_rest():
    """n = 8: the density of each point given the other seven, from all their partitions."""
    # Components beyond the clusters are shown up to the truncation: what is left in one lump is no mixture's density.
    posterior = few_points.posterior(truncation=20)
    tree = dpgmm.fit(posterior, "gibbs", seed=2, chains=4, warmup=50, draws_per_chain=2_000)
    found, points = elpd.loo(tree), posterior.data.points
    of_chains = np.stack([elpd.loo(tree.isel(chain=[c])).pointwise for c in range(4)])
    rest = [posterior.on(Dataset(np.delete(points, i, axis=0))) for i in range(8)]
    exact = [dpgmm.exact.partitions(r, at=points[i : i + 1]).predictive[0] for i, r in enumerate(rest)]
    fine = found.k < 0.5  # From there on the weights' variance is infinite.
    assert fine.sum() >= 3
    error = np.sqrt((of_chains.var(axis=0, ddof=1) / 4)[fine].mean())  # Of each alone: three degrees of freedom.
    assert error < 0.05
    assert np.all(np.abs(found.pointwise - np.log(exact))[fine] < 4 * error)
