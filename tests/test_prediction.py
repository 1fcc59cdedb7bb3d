"""Prediction: new points and old ones beside a partition, and ArviZ's functions on the draws of every kind of method."""

import arviz_plots
import arviz_stats
import few_points
import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from made_up import from_the_prior
from scipy import stats

import dpgmm
from dpgmm import Dataset, InputError, draws
from dpgmm.draws import prediction

METHODS = "nuts", "gibbs", "svi", "map"


def tree_of(dim=1, shape=(2, 30), num=12, components=3, *, kept=False, weights=None, seed=0):
    """Draws of unequal components, and points, of any dimension; allocations on request."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(num, dim)) + 4 * (np.arange(num) % 2)[:, None]
    dims = "chain", "draw", "component"
    posterior = xr.Dataset(
        {
            "weights": (dims, rng.dirichlet(np.ones(components), shape)),
            "means": (
                (*dims, "dim"),
                4 * rng.integers(0, 2, (*shape, components, dim)) + rng.normal(size=(*shape, components, dim)),
            ),
            "variances": ((*dims, "dim"), rng.gamma(3, size=(*shape, components, dim))),
        }
    )
    stats_ = {n: (dims[:2], rng.normal(-20, 1, shape)) for n in ("log_joint", "total_log_likelihood")}
    if kept:
        stats_["allocations"] = ((*dims[:2], "obs"), rng.integers(0, components, (*shape, num)))
    groups = {
        "posterior": posterior,
        "sample_stats": xr.Dataset(stats_),
        "observed_data": draws.observed(Dataset(points, weights)),
    }
    made = xr.DataTree.from_dict({n: draws.with_coordinates(g) for n, g in groups.items()})
    made.attrs["kind"] = "sampler"
    return made


def joint_density(tree, points):
    """``w_k N(x | mu_k, Sigma_k)`` by scipy, ``(T, M, K)``."""
    p = tree["posterior"].to_dataset()
    flat = [p[n].values.reshape(-1, *p[n].shape[2:]) for n in ("weights", "means", "variances")]
    w, m, v = flat
    density = stats.norm.pdf(points[None, :, None, :], m[:, None], np.sqrt(v)[:, None]).prod(axis=-1)
    return w[:, None] * density


@pytest.mark.quick("partitions")
@pytest.mark.parametrize(("dim", "kept"), [(1, False), (2, True)])
def test_prediction_is_what_its_formula_says(dim, kept, monkeypatch):
    monkeypatch.setattr(prediction, "PAIRS", 400)  # Streams in many chunks, the last of which overlaps.
    monkeypatch.setattr(dpgmm.draws.allocations, "PAIRS", 400)
    tree = tree_of(dim, kept=kept)
    new = np.random.default_rng(1).normal(2, 3, (5, dim))
    estimate = dpgmm.partition(tree)
    found = dpgmm.predict(tree, new, estimate=estimate)
    points, labels = tree["observed_data"]["points"].values, estimate.partition.values
    joint = joint_density(tree, new)
    f = joint.sum(axis=-1)
    r = joint_density(tree, points)
    r /= r.sum(axis=-1, keepdims=True)
    if kept:
        r = np.eye(3)[tree["sample_stats"]["allocations"].values.reshape(60, -1)]
    np.testing.assert_allclose(found.log_density, np.log(f.mean(axis=0)), rtol=1e-10)
    for c in range(estimate.num_clusters):
        with_members = np.einsum("tmk,tnk->tmn", joint, r)[..., labels == c].mean(axis=-1)
        np.testing.assert_allclose(found.probabilities[:, c], with_members.mean(axis=0) / f.mean(axis=0), rtol=1e-10)
    alone = np.einsum("tmk,tk->m", joint, np.prod(1 - r, axis=1)) / f.sum(axis=0)
    np.testing.assert_allclose(found.new_cluster, alone, rtol=1e-10, atol=1e-14)
    best = found.probabilities.max(axis=1)
    np.testing.assert_array_equal(found.cluster == dpgmm.partitions.NONE, alone > best)
    np.testing.assert_allclose(found.probability, np.maximum(alone, best), rtol=1e-10)
    error = [draws.monte_carlo.mcse(column.reshape(2, 30)) for column in f.T]
    np.testing.assert_allclose(found.log_density_mcse, error / f.mean(axis=0), rtol=1e-8)


@pytest.mark.parametrize("kept", [False, True])
def test_old_points_leave_themselves_out(kept):
    tree = tree_of(kept=kept)
    estimate = dpgmm.partition(tree)
    found = dpgmm.assign(tree, estimate=estimate)
    np.testing.assert_array_equal(found.cluster, estimate.partition.values)
    r = joint_density(tree, tree["observed_data"]["points"].values)
    r /= r.sum(axis=-1, keepdims=True)
    if kept:
        r = np.eye(3)[tree["sample_stats"]["allocations"].values.reshape(60, -1)]
        np.testing.assert_allclose(found.uncertainty, estimate.uncertainty.values, atol=1e-12)
    together = np.einsum("tik,tjk->ij", r, r) / len(r)
    for i, c in enumerate(found.cluster):
        others = [j for j in np.flatnonzero(estimate.partition.values == c) if j != i]
        if others:
            assert found.uncertainty[i] == pytest.approx(1 - together[i, others].mean(), abs=1e-10)


def test_observations_outside_the_sample_join_the_cluster_that_they_share_most():
    tree = tree_of(num=30)
    estimate = dpgmm.partition(tree, limit=12, seed=3)
    found = dpgmm.assign(tree, estimate=estimate)
    rows, labels = estimate.observations, estimate.partition.values
    np.testing.assert_array_equal(found.cluster[rows], labels)
    r = joint_density(tree, tree["observed_data"]["points"].values)
    r /= r.sum(axis=-1, keepdims=True)
    together = np.einsum("tik,tjk->ij", r, r[:, rows]) / len(r)
    outside = np.setdiff1d(np.arange(30), rows)
    shared = np.stack([together[:, labels == c].mean(axis=1) for c in range(labels.max() + 1)], axis=1)[outside]
    np.testing.assert_array_equal(found.cluster[outside], shared.argmax(axis=1))
    np.testing.assert_allclose(found.uncertainty[outside], 1 - shared.max(axis=1), atol=1e-10)


def test_labels_of_the_draws_do_not_matter():
    tree = tree_of(kept=True)
    rng = np.random.default_rng(0)
    order = np.argsort(rng.random((2, 30, 3)), axis=-1)
    posterior = tree["posterior"].to_dataset()
    permuted = {
        n: (v.dims, np.take_along_axis(v.values, order.reshape(2, 30, 3, *(1,) * (v.ndim - 3)), axis=2))
        for n, v in posterior.data_vars.items()
    }
    other = tree.copy()
    other["posterior"].dataset = xr.Dataset(permuted)
    z = tree["sample_stats"]["allocations"].values
    new = np.take_along_axis(np.argsort(order, axis=-1), z, axis=-1)
    other["sample_stats"].dataset = (
        tree["sample_stats"].to_dataset().assign(allocations=(("chain", "draw", "obs"), new))
    )
    one, two = (dpgmm.predict(t, [0.0, 3.0, 40.0]).table() for t in (tree, other))
    np.testing.assert_allclose(one, two, rtol=1e-8, atol=1e-12)


def test_gibbs_predicts_what_enumeration_does():
    """n = 8: density of a ninth point, and its company given where it lies, from all partitions of eight and of nine."""
    posterior = few_points.posterior(truncation=3)
    tree = dpgmm.fit(posterior, "gibbs", seed=2, chains=4, warmup=50, draws_per_chain=2_000, split_merges=0)
    new = np.array([[posterior.data.points[2, 0] + 0.3], [posterior.data.mean[0] + 2 * posterior.data.scale[0]]])
    found = dpgmm.predict(tree, new)
    of_eight = dpgmm.exact.partitions(posterior, at=new)
    labels = found.partition.partition.values
    assert np.all(np.abs(found.log_density - np.log(of_eight.predictive)) < 4 * found.log_density_mcse)
    assert np.all(found.log_density_mcse < 0.1)
    for m, x in enumerate(new):
        of_nine = dpgmm.exact.partitions(posterior.on(Dataset(np.vstack([posterior.data.points, x]))))
        wanted = [of_nine.similarity[8, :8][labels == c].mean() for c in range(labels.max() + 1)]
        p = np.exp(of_nine.log_posterior)
        alone = p @ (of_nine.labels[:, :8] != of_nine.labels[:, 8:]).all(axis=1)
        wanted_best, error = (alone if found.cluster[m] == -1 else wanted[found.cluster[m]]), found.probability_mcse[m]
        assert abs(found.probability[m] - wanted_best) < 4 * error + 1e-9
        assert abs(found.new_cluster[m] - alone) < 4 * found.new_cluster_mcse[m] + 1e-9
        assert error < 0.05
        # Without the point's own say the answer is another one: the test can tell.
        np.testing.assert_allclose(found.probabilities[m], wanted, atol=0.05)


@pytest.mark.quick("draws")
@pytest.mark.parametrize("points", [np.zeros((3, 2)), np.zeros(3), [[np.nan, 0, 0]], "points"])
def test_points_of_another_dimension_are_one_line(points):
    tree = tree_of(3)
    for call in (dpgmm.predict, dpgmm.diagnostics.predictive_density):
        with pytest.raises(InputError, match=r"points.*(dimension 3|not finite|numbers only)"):
            call(tree, points)


def test_replicates_have_the_moments_of_every_draws_mixture():
    tree = tree_of(2, (1, 2))
    found = prediction.replicates(tree, 40_000, seed=1)[0]
    p = tree["posterior"].to_dataset()
    w, m, v = (p[n].values[0] for n in ("weights", "means", "variances"))
    mean = np.einsum("tk,tkd->td", w, m)
    variance = np.einsum("tk,tkd->td", w, v + m**2) - mean**2
    assert np.all(np.abs(found.mean(axis=1) - mean) < 5 * np.sqrt(variance / 40_000))
    np.testing.assert_allclose(found.var(axis=1), variance, rtol=0.05)


@pytest.fixture(scope="module")
def fits():
    posterior = dpgmm.load_model("stick_breaking")(Dataset(np.random.default_rng(0).normal(size=15)), truncation=3)
    trees = {m: from_the_prior(posterior, m, keep_allocations=m == "gibbs") for m in METHODS}
    trees["svi"].attrs["kind"] = "guide"
    for (
        tree
    ) in trees.values():  # Starts have the prior's mean for a concentration, which no sensitivity can be asked of.
        of = tree["posterior"].to_dataset()
        varied = np.random.default_rng(0).gamma(2, size=of["concentration"].shape)
        tree["posterior"].dataset = of.assign(concentration=(("chain", "draw"), varied))
    return posterior, trees


@pytest.mark.parametrize("method", [m for m in METHODS if m != "map"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_arviz_takes_every_methods_draws(fits, method):
    posterior, trees = fits
    tree = dpgmm.with_groups(trees[method], *prediction.GROUPS, posterior=posterior, num_draws=50)
    found = arviz_stats.loo(tree, pointwise=True)  # pyright: ignore[reportPrivateImportUsage]
    assert found.n_data_points == 15
    ll = tree["log_likelihood"]["points"].values
    np.testing.assert_allclose(ll.sum(axis=-1), tree["sample_stats"]["total_log_likelihood"], rtol=1e-9)
    table = arviz_stats.compare({"one": tree, "other": tree})  # pyright: ignore[reportPrivateImportUsage]
    assert table["elpd_diff"].to_numpy() == pytest.approx(0, abs=1e-9)
    arviz_stats.psense(tree)  # pyright: ignore[reportPrivateImportUsage]
    arviz_plots.plot_ppc_dist(tree, num_samples=10)
    arviz_plots.plot_ppc_pit(tree.isel(dim=0), stats={"ecdf_pit": {"n_simulations": 20}})
    arviz_plots.plot_loo_pit(tree)
    arviz_plots.plot_prior_posterior(tree, var_names=["concentration"])
    plt.close("all")
    assert "allocations" not in tree["posterior"]
    assert dpgmm.draws.data_of(tree).size == 15
    assert draws.check(tree) is tree


def test_of_a_point_estimate_there_is_nothing_to_leave_out(fits):
    _, trees = fits
    for group in prediction.OF_A_POSTERIOR:
        with pytest.raises(InputError, match=f"{group}: map is a point estimate and no posterior"):
            dpgmm.with_groups(trees["map"], group)
    assert dpgmm.with_groups(trees["map"], "posterior_predictive")["posterior_predictive"].sizes["obs"] == 15


@pytest.mark.parametrize(
    ("groups", "message"),
    [((), "no group None"), (("loo",), "no group 'loo'; there are log_likelihood"), (("prior",), "posterior=")],
)
def test_groups_that_cannot_be_added_are_one_line(groups, message):
    with pytest.raises(InputError, match=message):
        dpgmm.with_groups(tree_of(), *groups)


def test_the_priors_draws_are_in_the_schema_and_follow_it(fits):
    posterior, trees = fits
    found = dpgmm.with_groups(trees["nuts"], "prior", "prior_predictive", posterior=posterior, num_draws=400, seed=1)
    a = found["prior"]["concentration"].values
    shape, rate = posterior.options["shape"], posterior.options["rate"]
    assert abs(a.mean() - shape / rate) < 4 * np.sqrt(shape) / rate / np.sqrt(a.size)
    assert set(found["prior"]) == set(trees["nuts"]["posterior"].data_vars)
    assert found["prior_predictive"]["points"].shape == (1, 400, 15, 1)


@pytest.mark.quick("draws")
def test_files_of_the_first_schema_load(tmp_path):
    tree = tree_of(kept=True)
    old = tree.copy()
    z = tree["sample_stats"]["allocations"]
    old["posterior"].dataset = tree["posterior"].to_dataset().assign(allocations=z)
    renamed = tree["sample_stats"].to_dataset().drop_vars("allocations").rename(total_log_likelihood="log_likelihood")
    old["sample_stats"].dataset = renamed
    loaded = draws.load(draws.save(old, tmp_path / "old.nc"))
    xr.testing.assert_identical(loaded["sample_stats"].to_dataset(), tree["sample_stats"].to_dataset())
    assert "allocations" not in loaded["posterior"]
    assert dpgmm.partition(loaded).notes[0] == "allocations are the variable 'allocations'"


def test_coordinates_carry_the_names_of_the_data_and_groups_say_who_made_them():
    data = Dataset(np.random.default_rng(0).normal(size=(10, 2)), columns=("age", "dose"))
    posterior = dpgmm.load_model("stick_breaking")(data, truncation=2)
    tree = from_the_prior(posterior, "nuts")
    assert tree["posterior"]["dim"].values.tolist() == ["age", "dose"]
    assert tree["posterior"]["dim_"].values.tolist() == ["age", "dose"]
    assert tree["observed_data"]["points"].sel(obs=3, dim="dose") == data.points[3, 1]
    assert tree["posterior"].attrs["inference_library"] == "dpgmm"
    assert {"created_at", "inference_library_version"} <= set(tree["sample_stats"].attrs)


def test_every_compiled_program_takes_its_data_as_arguments():
    """The same shapes compile once, whatever the numbers."""
    before = prediction.log_densities._cache_size()
    for seed in range(3):
        prediction.log_density(tree_of(seed=seed, shape=(1, 7), num=9), np.zeros((9, 1)) + seed)
    assert prediction.log_densities._cache_size() <= before + 1
    assert jax.config.jax_enable_x64
