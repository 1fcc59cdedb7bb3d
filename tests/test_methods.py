"""Every method in the registry: the schema, same seed same numbers, and what each one promises."""

import json
from types import SimpleNamespace

import few_points
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoDelta
from numpyro.infer.initialization import init_to_value

import dpgmm
from dpgmm import draws
from dpgmm.densities import conjugate, mixture
from dpgmm.draws import schema
from dpgmm.methods import REGISTRY, _batches, _run, budgets, svi
from dpgmm.model.programs import Programs

SHORT = {
    "map": {"restarts": 3, "steps": 60, "snapshots": 5},
    "svi": {"restarts": 2, "max_steps": 1000, "draws_per_restart": 8},
    "nuts": {"chains": 2, "warmup": 30, "draws_per_chain": 10, "max_tree_depth": 4, "moves": "swaps"},
    "gibbs": {"chains": 2, "warmup": 30, "draws_per_chain": 10},
    "blocked_gibbs": {"chains": 2, "warmup": 30, "draws_per_chain": 10},
    "cavi": {"restarts": 2, "max_steps": 20, "moves": 10, "draws_per_restart": 10},
}
SHORT = {name: SHORT.get(name, dict(method.quick)) for name, method in REGISTRY.items()}


@pytest.fixture(scope="module")
def posterior():
    return dpgmm.load_model("stick_breaking")(dpgmm.datasets.galaxies(), truncation=4)


@pytest.fixture(scope="module")
def fitted(posterior):
    return {name: dpgmm.fit(posterior, name, seed=1, **SHORT[name]) for name in REGISTRY}


@pytest.mark.parametrize("name", REGISTRY)
def test_schema(name, fitted):
    tree = draws.check(fitted[name])
    assert set(tree["sample_stats"].data_vars) >= {"log_joint", "total_log_likelihood", "active_components"}
    assert tree.attrs["method"] == name
    assert tree.attrs["seed"] == 1
    assert tree["observed_data"].sizes["obs"] == 82
    assert json.loads(tree.attrs["options"])["model"]["truncation"] == 4
    assert 0 < tree.attrs["compile_seconds"] < tree.attrs["compile_seconds"] + tree.attrs["run_seconds"]


@pytest.mark.parametrize("name", REGISTRY)
def test_same_seed_same_bits(name, posterior, fitted):
    again = dpgmm.fit(posterior, name, seed=1, **SHORT[name])
    other = dpgmm.fit(posterior, name, seed=2, **SHORT[name])
    for variable in ("weights", "means", "covariances"):
        np.testing.assert_array_equal(again["posterior"][variable], fitted[name]["posterior"][variable])
    assert (other["posterior"]["means"] != fitted[name]["posterior"]["means"]).any()


MARKS = {("map", "tied"): (), ("svi", "full"): pytest.mark.long, ("nuts", "spherical"): pytest.mark.long}
"""Of the others tests/test_gibbs.py and tests/test_cavi.py have fits and exact answers in two dimensions."""
COMBINATIONS = [
    pytest.param(name, covariance, marks=MARKS.get((name, covariance), pytest.mark.slow))
    for name in REGISTRY
    for covariance in dpgmm.base_measure.COVARIANCES
]


@pytest.mark.parametrize(("name", "covariance"), COMBINATIONS)
def test_five_dimensions(name, covariance):
    """Every array with its dimensions; several restarts, which once hung in two dimensions."""
    posterior = dpgmm.load_model("stick_breaking")(dpgmm.datasets.thyroid(), truncation=6, covariance=covariance)
    options = SHORT[name] | ({"moves": "all"} if name == "nuts" else {})
    tree = draws.check(dpgmm.fit(posterior, name, **options))
    covariances = dpgmm.draws.covariances(tree["posterior"].to_dataset())
    assert covariances.shape[-3:] == (tree["posterior"].sizes["component"], 5, 5)
    np.testing.assert_allclose(covariances, np.swapaxes(covariances, -1, -2), rtol=1e-12)
    assert (np.linalg.eigvalsh(covariances) > 0).all()
    assert (covariances[..., 0, 1] != 0).any() == (covariance in ("full", "tied"))
    assert (covariances[..., 0, :, :] == covariances[..., 1, :, :]).all() == (covariance == "tied")


@pytest.mark.parametrize("name", REGISTRY)
def test_saved_is_loaded(name, fitted, tmp_path):
    path = draws.save(fitted[name], tmp_path / "draws.nc")
    loaded = draws.load(path)
    for group in fitted[name].children:
        for variable, values in fitted[name][group].data_vars.items():
            np.testing.assert_array_equal(loaded[group][variable].values, values.values)
    assert [p.name for p in tmp_path.iterdir()] == ["draws.nc"]


def test_log_likelihood_of_the_draws_is_scipys(fitted):
    from scipy.stats import norm

    tree = fitted["nuts"]
    p = tree["posterior"].to_dataset().isel(chain=1, draw=3)
    x = tree["observed_data"]["points"].values
    density = norm.pdf(x, p["means"].values[:, 0], np.sqrt(p["covariances"].values[:, 0, 0])) @ p["weights"].values
    np.testing.assert_allclose(tree["sample_stats"]["total_log_likelihood"][1, 3], np.log(density).sum(), rtol=1e-10)


def test_map_is_autodeltas_mode(posterior):
    """AutoDelta's loss is ours, in value and gradient, at the same parameters: both seek the same mode."""
    parameters = posterior.initial(jax.random.PRNGKey(5))
    guide = AutoDelta(posterior.program, init_loc_fn=init_to_value(values=parameters))
    svi = SVI(posterior.program, guide, dpgmm.methods.svi.optax.sgd(1e-12), Trace_ELBO())
    svi.init(jax.random.PRNGKey(0))  # Which is when the guide learns of its sites.

    def theirs(p):
        named = {f"{site}_auto_loc": value for site, value in p.items()}
        return Trace_ELBO().loss(jax.random.PRNGKey(0), named, posterior.program, guide)

    value, theirs_gradient = jax.jit(jax.value_and_grad(theirs))(parameters)
    np.testing.assert_allclose(value, -posterior.log_joint(parameters), rtol=1e-10)
    ours = jax.jit(jax.grad(lambda p: -posterior.log_joint(p)))(parameters)
    for site, gradient in theirs_gradient.items():
        np.testing.assert_allclose(ours[site], gradient, rtol=1e-9, atol=1e-9, err_msg=site)


def test_map_climbs_to_a_stationary_point(posterior):
    tree = dpgmm.fit(posterior, "map", restarts=2, steps=3000)
    loss = tree["optimisation"]["loss"].values
    assert (loss[:, -1] < loss[:, 0]).all()
    np.testing.assert_allclose(-tree["sample_stats"]["log_joint"][:, 0], loss[:, -1], rtol=1e-6)
    # Adam's last steps are tiny: what is left of the fall is far below a nat.
    assert (loss[:, -500] - loss[:, -1] < 0.1).all()


@pytest.mark.parametrize("guide", ["normal", "lowrank", "multivariate"])
def test_every_guide_lifts_its_bound(guide):
    """And it stays a lower bound: below the exact log evidence of eight points, within four standard errors."""
    p = few_points.posterior()
    tree = dpgmm.fit(p, "svi", guide=guide, restarts=2, max_steps=1500, draws_per_restart=1_000)
    loss = tree["optimisation"]["loss"].values
    assert np.nanmean(loss[:, -500:]) < np.nanmean(loss[:, :100])
    error = tree["sample_stats"]["log_weight"].values.std(axis=1) / np.sqrt(1_000)
    evidence = dpgmm.exact.allocations(p).log_evidence
    assert (tree.attrs["elbo"] <= evidence + 4 * error).all()
    assert (tree.attrs["elbo"] > evidence - 10).any()


def test_a_restart_of_svi_begins_at_the_best_of_its_candidates(posterior):
    key = jax.random.PRNGKey(3)
    starts = svi._starts(posterior, key, 2, 5, None)
    every = jax.vmap(posterior.log_density)(_run.dispersed(posterior, key, 10))
    best = np.asarray(every).reshape(2, 5).max(axis=1)
    np.testing.assert_allclose(jax.vmap(posterior.log_density)(starts), best, rtol=1e-12)
    assert (best > np.median(every)).all()


@pytest.mark.quick("methods")
def test_batches_are_all_points_where_these_are_few():
    few, many = (dpgmm.Dataset(np.zeros((n, 1)) + np.arange(n)[:, None]) for n in (50_000, 50_001))
    at = lambda data, asked: _batches.size_of("map", SimpleNamespace(data=data), asked)
    assert [at(few, None), at(many, None)] == [None, 10_000]
    assert [at(few, 49_999), at(few, 50_000), at(few, 70_000)] == [49_999, None, None]
    with pytest.raises(dpgmm.InputError, match="map option batch_size = 0"):
        at(few, 0)


@pytest.mark.quick("methods")
def test_the_gradient_of_a_batch_has_the_gradient_as_its_mean(posterior):
    """Of weighted points, within four standard errors of 2,000 batches of 20."""
    points = posterior.data.points
    data = posterior.on(dpgmm.Dataset(points, np.linspace(0.5, 2, len(points)))).arrays()
    at = posterior.initial(jax.random.PRNGKey(0))

    def gradient(data):
        return jax.grad(lambda means: posterior.on(data).log_likelihood(at | {"means": means}))(at["means"])

    keys = jax.random.split(jax.random.PRNGKey(1), 2_000)
    every = jax.jit(lambda keys, data: jax.lax.map(lambda k: gradient(_batches.drawn(k, data, 20)), keys))(keys, data)
    error = np.std(every, axis=0) / np.sqrt(len(keys))
    assert (np.abs(np.mean(every, axis=0) - gradient(data)) < 4 * error).all()


@pytest.mark.long
@pytest.mark.parametrize("method", ["map", "svi"])
def test_steps_of_batches_arrive_where_steps_of_all_points_do(method):
    """Within a few nats, of batches of a twentieth."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4_000, 2)) + 6.0 * rng.integers(0, 2, (4_000, 1))
    posterior = dpgmm.load_model("stick_breaking")(dpgmm.Dataset(points), truncation=2)
    value = lambda tree: tree.attrs["elbo"] if method == "svi" else tree["sample_stats"]["log_joint"].values[:, 0]
    short = {"map": {"restarts": 4, "steps": 1_000}, "svi": {"restarts": 2, "max_steps": 6_000}}[method]
    whole, batches = (value(dpgmm.fit(posterior, method, batch_size=size, **short)).max() for size in (None, 200))
    assert abs(whole - batches) < 5


@pytest.mark.quick("methods")
def test_the_rate_of_svi_falls_as_long_as_that_helps():
    """Chunks of a known mean, alternating by one: a standard error of 1 / sqrt(500)."""
    chunk = lambda mean: mean + np.tile([-1.0, 1.0], svi.CHUNK // 2)
    first = [chunk(mean) for mean in (9, 5, 5, 5)]
    assert not svi._settled(first[:3])
    assert not svi._settled([*first[:3], chunk(4.9)])
    assert svi._settled([*first, chunk(5)])
    assert svi._fallen(first, 0)
    assert svi._fallen([*first, chunk(5.2), chunk(4.9)], 4)
    assert not svi._fallen([*first, chunk(5.2), chunk(4.92)], 4)


@pytest.mark.long
def test_svi_arrives_at_the_posterior_of_many_points():
    """One Gaussian: a rate that stays at .02, 20 standard deviations of the posterior, leaves 2 nats and more."""
    points = np.random.default_rng(0).normal(size=(20_000, 1))
    data = dpgmm.Dataset(points, np.full(20_000, 50.0))
    posterior = dpgmm.load_model("stick_breaking")(data, truncation=1)
    tree = dpgmm.fit(posterior, "svi", restarts=2)
    base = posterior.conjugate.base
    x = points - np.asarray(base.mean)
    squares = jnp.sum(data.weights[:, None] * x**2, axis=0)[None, None]
    evidence = conjugate.log_marginal(jnp.asarray(1e6), jnp.asarray(data.weights @ x), squares, base)
    assert (tree.attrs["elbo"] < evidence + 0.1).all()
    assert (tree.attrs["elbo"] > evidence - 1).all()


@pytest.mark.quick("methods")
@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("nutz", {}, "no method 'nutz': did you mean 'nuts'"),
        ("svi", {"guide": "x"}, "no guide 'x'; there are normal"),
        ("gibbs", {"nope": 1}, "gibbs has no option 'nope'; it takes chains, warmup"),
        ("gibbs", {"thin": 0}, "gibbs option thin = 0: it must be a whole number, 1 or more"),
        ("gibbs", {"split_merges": -1}, "gibbs option split_merges = -1: it must be a whole number, 0 or more"),
        ("blocked_gibbs", {"warmup": -5}, "blocked_gibbs option warmup = -5: it must be a whole number, 0 or more"),
        ("nuts", {"chains": 0}, "nuts option chains = 0: it must be a whole number, 1 or more"),
        ("map", {"steps": 2.5}, "map option steps = 2.5: it must be a whole number, 1 or more"),
        ("svi", {"restarts": 0}, "svi option restarts = 0: it must be a whole number, 1 or more"),
        ("svi", {"max_steps": 0}, "svi option max_steps = 0: it must be a whole number, 1 or more"),
    ],
)
def test_unknown_names_are_named(posterior, method, options, message):
    with pytest.raises(dpgmm.InputError, match=message):
        dpgmm.fit(posterior, method, **options)


@pytest.mark.quick("methods")
def test_a_budget_is_what_is_given_and_else_the_default():
    """Defaults are 4 chains of 1,000 + 1,000 draws and 16 restarts; guides take a quarter, and two at least."""
    none, full = budgets.Budget(), {"chains": 4, "warmup": 1_000, "draws_per_chain": 1_000}
    assert budgets.of("nuts", none, quick=False) == full
    assert budgets.of("map", none, quick=False) == {"restarts": 16}
    assert budgets.of("svi", none, quick=False) == {"restarts": 4}
    assert budgets.of("cavi", budgets.Budget(restarts=3), quick=False)["restarts"] == 2
    short = REGISTRY["nuts"].quick
    assert budgets.of("nuts", none, quick=True) == short
    assert budgets.of("nuts", budgets.Budget(chains=3), quick=True) == short | {"chains": 3}


def two_gaussians():
    rng = np.random.default_rng(0)
    data = dpgmm.Dataset(np.concatenate([rng.normal(-3, 1, 3000), rng.normal(3, 0.5, 3000)]))
    return dpgmm.load_model("stick_breaking")(data, truncation=3)


def test_a_fit_in_single_precision_says_so_and_leaves_others_alone():
    posterior, options = two_gaussians(), {"restarts": 1, "steps": 100, "compression": False}
    double = dpgmm.fit(posterior, "map", **options)
    single = dpgmm.fit(posterior, "map", single_precision=True, **options)
    again = dpgmm.fit(posterior, "map", **options)
    loss = [tree["optimisation/loss"].values for tree in (double, single, again)]
    np.testing.assert_array_equal(loss[0], loss[2])
    assert 0 < np.abs(loss[1] - loss[0]).max() < 0.1
    assert single.attrs["single_precision"] == 1
    assert "single_precision" not in again.attrs
    # What a draw tells of itself is the density, and not that of the pass.
    held = single["posterior"].to_dataset()
    of_draw = [
        jnp.asarray(values[0, 0]) for values in (held["weights"].values, held["means"].values, draws.spread(held))
    ]
    value = mixture.log_likelihood(*mixture.factored(*of_draw), *posterior.arrays())
    np.testing.assert_allclose(single["sample_stats/total_log_likelihood"].values[0, 0], value, rtol=1e-13)


@pytest.mark.parametrize("method", ["svi", "nuts", "blocked_gibbs"])
def test_single_precision_reaches_the_chains_of_a_method(method, monkeypatch):
    """In threads of their own, which know nothing of the one that asks."""
    of_method = {
        "svi": {"restarts": 1, "max_steps": 100, "draws_per_restart": 5},
        "nuts": {"chains": 1, "warmup": 5, "draws_per_chain": 5, "moves": "none"},
        "blocked_gibbs": {"chains": 1, "warmup": 2, "draws_per_chain": 2, "split_merges": 0, "pair_moves": 0},
    }
    posterior, seen = two_gaussians(), []
    expanded = mixture._expanded
    monkeypatch.setattr(mixture, "_expanded", lambda *of: seen.append(of[-1]) or expanded(*of))
    dpgmm.fit(posterior, method, single_precision=True, compression=False, **of_method[method])
    assert jnp.float32 in seen


@pytest.mark.parametrize(
    ("method", "moves"), [("gibbs", {"split_merges": 0}), ("blocked_gibbs", {"split_merges": 0, "pair_moves": 0})]
)
def test_allocations_of_very_many_points_keep_all_of_these(method, moves, monkeypatch):
    monkeypatch.setattr(schema, "LARGE", 100)
    monkeypatch.setattr(schema, "SHOWN", 20)
    data = dpgmm.Dataset(np.random.default_rng(0).normal(size=(200, 1)))
    posterior = dpgmm.load_model("stick_breaking")(data, truncation=3)
    options = {"chains": 1, "warmup": 1, "draws_per_chain": 2} | moves
    whole = dpgmm.fit(posterior, method, keep_allocations=True, **options)
    assert whole["sample_stats/allocations"].sizes["obs"] == whole["observed_data/points"].sizes["obs"] == 200
    some = dpgmm.fit(posterior, method, keep_allocations=False, **options)
    assert some["observed_data/points"].sizes["obs"] == 20
    assert some["observed_data"].attrs["rows"] == 200


def compression_record(posterior, **options):
    return json.loads(dpgmm.fit(posterior, "map", restarts=1, steps=50, **options).attrs["compression"])


def test_compression_is_certified():
    record = compression_record(two_gaussians())
    assert record["refinements"] == 0
    assert record["max_error"] <= record["tolerance"] == 1e-3


@pytest.mark.parametrize(("errors", "refinements"), [([1.0, 0.0], 1), ([float("nan"), 1.0, 1e-4], 2)])
def test_bins_are_refined_until_the_error_is_small(errors, refinements, monkeypatch):
    rest = iter(errors)
    monkeypatch.setattr(dpgmm.fitting.certificate, "largest_error", lambda *_: next(rest))
    assert compression_record(two_gaussians())["refinements"] == refinements


def test_an_error_that_stays_makes_the_method_use_every_point(monkeypatch):
    monkeypatch.setattr(dpgmm.fitting.certificate, "largest_error", lambda *_: 1.0)
    assert compression_record(two_gaussians()) == {}


def test_many_points_are_certified_by_a_finer_compression_and_draws_keep_some(monkeypatch):
    posterior = two_gaussians()
    options = {"restarts": 1, "steps": 50}
    exact = dpgmm.fit(posterior, "map", **options)
    monkeypatch.setattr(dpgmm.fitting, "EXACTLY", 100)
    for name, size in {"LARGE": 5_000, "SHOWN": 200}.items():
        monkeypatch.setattr(schema, name, size)
    passes = []
    monkeypatch.setattr(
        dpgmm.fitting.Binned, "of", lambda *of, made=dpgmm.fitting.Binned.of: passes.append(1) or made(*of)
    )
    found = [dpgmm.fit(posterior, "map", **options), dpgmm.fit(posterior, "map", **options)]
    assert len(passes) == 1
    records = [json.loads(tree.attrs["compression"]) for tree in (exact, *found)]
    assert "beside_points" not in records[0]
    assert records[1] == records[2]
    assert records[1]["points"] < 0.5 * records[1]["beside_points"]
    # The same error, and a bound that is far smaller than the tolerance.
    assert records[0]["max_error"] <= records[1]["max_error"] * (1 + 1e-6)
    assert records[1]["max_error"] < records[0]["max_error"] + 1e-4
    observed = found[0]["observed_data"]
    assert (observed.sizes["obs"], observed.attrs["rows"]) == (200, 6_000)
    assert float(observed["point_weights"].sum()) == pytest.approx(6_000)
    assert np.isin(observed["points"].values, posterior.data.points).all()
    assert exact["observed_data"].sizes["obs"] == 6_000
    for kept, whole in zip(
        found[0]["posterior"].data_vars.values(), exact["posterior"].data_vars.values(), strict=True
    ):
        np.testing.assert_allclose(kept, whole, rtol=0.05)


def test_a_broken_start_is_named():
    posterior = dpgmm.load_model("stick_breaking")(dpgmm.datasets.galaxies(), truncation=3)
    broken = dpgmm.posterior.dataclasses.replace(
        posterior, initial=lambda key: posterior.initial(key) | {"concentration": jnp.asarray(jnp.inf)}
    )
    with pytest.raises(dpgmm.InputError, match="log density of a start is not finite"):
        dpgmm.fit(broken, "nuts", chains=1, warmup=1, draws_per_chain=4)


@pytest.mark.quick("draws")
def test_loading_what_is_no_tree(tmp_path):
    with pytest.raises(dpgmm.InputError, match="no such file"):
        draws.load(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("hello")
    with pytest.raises(dpgmm.InputError, match="not a NetCDF file"):
        draws.load(tmp_path / "text.nc")


def test_another_prior_is_another_program(posterior):
    """Programs are kept with the prior that they were compiled for, and a replaced one is another."""
    options = {"chains": 1, "warmup": 20, "draws_per_chain": 50, "split_merges": 0, "pair_moves": 0}
    prior = posterior.conjugate._replace(concentration=dpgmm.concentration.Concentration(100.0, 1.0))
    other = dpgmm.posterior.dataclasses.replace(posterior, conjugate=prior)
    means = [
        float(dpgmm.fit(p, "blocked_gibbs", **options)["posterior"]["concentration"].mean()) for p in (posterior, other)
    ]
    assert means[0] < 20 < 50 < means[1]


def test_the_same_prior_is_compiled_once(posterior):
    options = {"restarts": 1, "steps": 30, "snapshots": 3}
    again = [dpgmm.fit(posterior, "map", seed=seed, compression=False, **options) for seed in (1, 2)]
    assert again[0].attrs["compile_seconds"] > again[1].attrs["compile_seconds"] == 0


@pytest.mark.quick("model")
def test_programs_know_which_precision_they_were_compiled_for():
    """A program of keys alone: float64 switched off in between must not be served the old one."""
    programs, key = Programs(), jax.random.PRNGKey(0)
    draw = lambda: programs.compile("draw", lambda key: jax.random.normal(key), key)[0](key).dtype
    assert draw() == jnp.float64
    with jax.enable_x64(False):
        assert draw() == jnp.float32
    assert draw() == jnp.float64
