"""Ranks, bands and bias: exact p-values by brute force, a method that is exact, and methods that are wrong on purpose."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats as st
import xarray as xr
from arviz_stats.ecdf_utils import simulate_confidence_bands
from jax import random
from matplotlib.figure import Figure
from numpyro.infer import Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.calibration import vsbc_diagnostic

import dpgmm
from dpgmm import Dataset, InputError, calibration, draws, load_model
from dpgmm.methods import REGISTRY, Method
from dpgmm.model.loading import load
from dpgmm.truth.calibration.quantities import Draw, values
from dpgmm.truth.calibration.ranks import _holm
from dpgmm.truth.calibration.variational import symmetry_p_value


def posterior(model="stick_breaking", size=3, truncation=3, **options):
    return load_model(model)(Dataset(np.linspace(-1, 1.3, size)), truncation=truncation, **options)


# p-values.


@pytest.mark.quick("truth")
def test_two_numbers_by_hand():
    """One place, 1/2, and a count of 0, 1 or 2 with probabilities 1/4, 1/2, 1/4."""
    np.testing.assert_allclose(calibration.excursion(np.array([0.1, 0.2])), 0.25)
    np.testing.assert_allclose(calibration.excursion(np.array([0.1, 0.9])), 0.75)
    np.testing.assert_allclose(calibration.uniformity_p_value(0.25, 2), 0.5)
    np.testing.assert_allclose(calibration.uniformity_p_value(0.75, 2), 1.0)
    # One number is no evidence.
    np.testing.assert_allclose(calibration.uniformity_p_value(calibration.excursion(np.array([0.3])), 1), 1.0)


def test_p_values_of_uniform_numbers_are_uniform():
    """Discrete but nearly so: P(p <= level) is at most the level, and close to it, within 4 standard errors."""
    rng, size = np.random.default_rng(0), 60
    found = np.array([calibration.excursion(rng.uniform(size=size)) for _ in range(500)])
    p = np.array([calibration.uniformity_p_value(gamma, size) for gamma in found])
    for level in (0.05, 0.2, 0.5):
        error = 4 * np.sqrt(level * (1 - level) / len(p))
        assert level - error - 0.01 < (p <= level).mean() < level + error


def test_the_band_of_arviz_has_its_probability():
    """Their simulated pointwise level, put through our recursion, within 4 standard errors of its simultaneous level."""
    size, level, simulations = 100, 0.9, 2_000
    places = np.arange(1, size) / size
    pointwise = simulate_confidence_bands(size, 1, places, level, simulations, np.random.default_rng(1))
    p = calibration.uniformity_p_value((1 - pointwise) / 2, size)
    assert abs(p - (1 - level)) < 4 * np.sqrt(level * (1 - level) / simulations)


@pytest.mark.quick("truth")
def test_symmetry_by_all_signs():
    """Distances in order, all 2^8 sides: the largest partial sum."""
    u = np.array([0.97, 0.05, 0.9, 0.83, 0.2, 0.71, 0.68, 0.55])
    reach = lambda sides: np.abs(np.cumsum(np.asarray(sides))).max()
    sides = np.sign(u - 0.5)[np.argsort(-np.abs(u - 0.5))]
    worse = np.mean([reach(s) >= reach(sides) for s in itertools.product((-1, 1), repeat=8)])
    np.testing.assert_allclose(symmetry_p_value(u), worse)


# Tables.


def ranks_of(u, draws=99, **changes):
    rank = np.floor(u * (draws + 1)).astype(int)
    names = tuple(f"q{i}" for i in range(rank.shape[1]))
    options = {"invariant": np.ones(len(names), bool)} | changes
    return calibration.Ranks("nuts", "stick_breaking", names, rank, draws, **options)


@pytest.mark.quick("truth")
def test_uniform_ranks_are_inside_and_others_are_not():
    """In order: uniform, draws too narrow, draws too wide, draws too low."""
    u = np.random.default_rng(0).uniform(size=(200, 4))
    u[:, 1], u[:, 2], u[:, 3] = st.beta.ppf(u[:, 1], 0.5, 0.5), st.beta.ppf(u[:, 2], 2, 2), u[:, 3] ** 0.5
    ranks = ranks_of(u)
    table = calibration.inside(ranks)
    assert table["inside, all"].to_dict() == {"q0": True, "q1": False, "q2": False, "q3": False}
    assert table.loc["q1", "coverage"] < 0.8 < 0.85 < table.loc["q0", "coverage"] < table.loc["q2", "coverage"]
    assert table.loc["q3", "truth above"] > 0.6
    assert (table["p, all"] >= table["p"]).all()
    assert calibration.summary(ranks)["inside"] == 1
    # What a quantity is told does not depend on which others, or how many later simulations, there are.
    fewer = dataclasses.replace(ranks, rank=ranks.rank[:100, 2:], names=ranks.names[2:], invariant=ranks.invariant[2:])
    np.testing.assert_array_equal(calibration.pit(fewer), calibration.pit(ranks)[:100, 2:])
    mixed = dataclasses.replace(ranks, invariant=np.array([True, True, True, False]))
    told = calibration.summary(mixed)
    among = calibration.inside(mixed).query("invariant")
    assert (told["inside"], told["p"]) == (among["inside, all"].sum(), among["p, all"].min())
    # Only a bias is asymmetric.
    bias = calibration.vsbc(ranks)["p"]
    assert bias["q3"] < 1e-4
    assert (bias[["q0", "q1", "q2"]] > 0.01).all()


@pytest.mark.quick("truth")
def test_holms_adjustment_and_places_of_ranks_by_hand():
    """0.01 x 3, 0.03 x 2, and 0.04 x 1, raised to what stands before it; rank r of S is in [r, r + 1] / (S + 1)."""
    np.testing.assert_allclose(_holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    rank = np.arange(10)[:, None]
    shares = calibration.pit(calibration.Ranks("nuts", "stick_breaking", ("q",), rank, 9, np.ones(1, bool)))
    assert ((rank / 10 <= shares) & (shares <= (rank + 1) / 10)).all()


def test_quantities_that_are_no_invariants_do_not_count():
    u = np.random.default_rng(0).uniform(size=(100, 2)) * [1, 0.2]
    found = calibration.summary(ranks_of(u, invariant=np.array([True, False])))
    assert (found["quantities"], found["inside"]) == (1, 1)


def test_runs_are_joined():
    u = np.random.default_rng(0).uniform(size=(30, 2))
    both = calibration.collect(ranks_of(u), [ranks_of(u)])
    assert both.rank.shape == (60, 2)
    with pytest.raises(InputError, match="give runs of one method, model and number of draws"):
        calibration.collect(ranks_of(u), [ranks_of(u, draws=9)])
    with pytest.raises(InputError, match=r"level = 1.5: it must be a number between 0 and 1"):
        calibration.inside(both, level=1.5)


@pytest.mark.slow
def test_vsbc_agrees_with_numpyros_statistic():
    """NumPyro's largest difference of the distribution functions of p and 1 - p is the walk's largest distance."""

    def model(obs=None):
        loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
        numpyro.sample("obs", dist.Normal(loc, 1.0), obs=obs)

    numbers = {"num_simulations": 20, "num_svi_steps": 30, "num_samples": 50}
    found = vsbc_diagnostic(
        random.PRNGKey(0),
        model,
        AutoNormal(model),
        numpyro.optim.Adam(0.05),
        Trace_ELBO(),
        observed_sites=["obs"],
        **numbers,
    )
    p = found.probabilities["loc"]
    sides = np.sign(p - 0.5)[np.argsort(-np.abs(p - 0.5), kind="stable")]
    distances = np.sort(np.abs(p - 0.5))[::-1]
    last_of_ties = np.append(distances[1:] != distances[:-1], True)
    reach = np.abs(np.cumsum(sides))[last_of_ties].max() / len(p)
    np.testing.assert_allclose(found.ks_stats["loc"], reach, atol=1e-9)


def test_a_picture_has_a_panel_a_quantity():
    figure = calibration.picture(ranks_of(np.random.default_rng(0).uniform(size=(40, 3))))
    assert [axis.get_title() for axis in figure.axes if axis.get_title()] == ["q0", "q1", "q2"]


# Quantities.


def some_draws(order=(0, 1, 2)):
    rng, order = np.random.default_rng(3), list(order)
    weights, means = rng.dirichlet(np.ones(3), 4)[:, order], rng.normal(size=(4, 3, 2))[:, order]
    lower = np.tril(rng.normal(size=(4, 3, 2, 2)), -1) + rng.uniform(0.5, 1, (4, 3, 2))[..., None] * np.eye(2)
    labels = np.argsort(order)[rng.integers(0, 2, (4, 5))]
    scalars = {"concentration": rng.gamma(1, size=4), "log_joint": rng.normal(size=4)}
    covariances = (lower @ np.swapaxes(lower, -1, -2))[:, order]
    return Draw(weights, means, covariances, labels=labels, points=rng.normal(size=(5, 2)), at=np.eye(3, 2), **scalars)


@pytest.mark.quick("truth")
def test_quantities_do_not_depend_on_labels_and_are_scipys():
    d, found = some_draws(), values(some_draws())
    for name, permuted in values(some_draws((2, 0, 1))).items():
        np.testing.assert_allclose(permuted, found[name], rtol=1e-12, err_msg=name)
    normal = [st.multivariate_normal.pdf(d.points, m, c) for m, c in zip(d.means[1], d.covariances[1], strict=True)]
    joint = d.weights[1][:, None] * np.array(normal)
    np.testing.assert_allclose(found["log likelihood"][1], np.log(joint.sum(axis=0)).sum(), rtol=1e-10)
    share = joint / joint.sum(axis=0)
    np.testing.assert_allclose(found["first two points together"][1], share[:, 0] @ share[:, 1], rtol=1e-10)
    np.testing.assert_allclose(found["entropy of weights"][1], st.entropy(d.weights[1]), rtol=1e-10)
    assert found["occupied components"].tolist() == [len(set(row)) for row in d.labels.tolist()]
    centre = d.weights[1] @ d.means[1]
    total = np.einsum("k,kde->de", d.weights[1], d.covariances[1]) + np.cov(
        (d.means[1] - centre).T, aweights=d.weights[1], ddof=0
    )
    np.testing.assert_allclose(found["log mixture variance"][1], np.log(np.trace(total)), rtol=1e-10)


# Simulation, with methods made for it.


SMALL = posterior()
CANDIDATES = 2_000


def resampled(posterior, key, *, power=1.0, draws_per_chain=40, progress=None):
    """Candidates from the prior, resampled by likelihood to some power: 1 is the posterior, 0 the prior, 8 overconfident."""

    def some(key, power, data):
        one = lambda k: calibration.simulation.prior_draw(posterior, k)[0]
        parameters = jax.vmap(one)(random.split(key, CANDIDATES))
        log_w = power * jax.vmap(posterior.on(data).log_likelihood)(parameters)
        rows = random.categorical(random.fold_in(key, 1), log_w, shape=(1, draws_per_chain))
        return jax.tree.map(lambda leaf: leaf[rows], parameters)

    args = key, jnp.asarray(power), posterior.arrays()
    parameters = posterior.compile(("resampled", draws_per_chain), some, *args)[0](*args)
    return draws.build(posterior, parameters)


@pytest.mark.parametrize("power", [1.0, 0.0, 8.0])
def test_the_posterior_is_calibrated_and_others_are_not(power):
    """The prior, as if it were the posterior, has uniform ranks but for quantities that look at the points."""
    method = Method("resampled", resampled)
    ranks = calibration.simulate(SMALL, method, random.PRNGKey(0), simulations=80, draws=40, power=power)
    table = calibration.inside(ranks)
    assert table["inside, all"].all() == (power == 1)
    assert table.loc["log likelihood", "inside, all"] == (power == 1)
    assert table.loc["largest weight", "inside, all"] == (power < 8)


def test_prior_draws_follow_the_prior():
    """Kolmogorov-Smirnov against scipy at a level that a right sampler misses once in 10,000 keys; the key is fixed."""
    p = posterior(shape=2.0, rate=4.0)
    parameters, points = calibration.prior_draws(p, random.PRNGKey(1), 2_000)
    assert points.shape == (2_000, 3, 1)
    a = np.asarray(parameters["concentration"])
    assert st.kstest(a, st.gamma(2, scale=1 / 4).cdf).pvalue > 1e-4
    v = st.logistic.cdf(np.asarray(parameters["stick_logits"]))[:, 0]
    assert st.kstest(1 - (1 - v) ** a, "uniform").pvalue > 1e-4


def test_what_moves_with_a_flat_mean_is_left_out():
    p = posterior("escobar_west")
    names = calibration.quantities_of(p, "blocked_gibbs")
    assert "mixture mean" not in names
    assert "log density above" not in names
    assert "log joint" in names
    assert "log joint" not in calibration.quantities_of(p, "gibbs")


def test_what_cannot_be_calibrated_is_said():
    key = random.PRNGKey(0)
    with pytest.raises(InputError, match="no method 'guess': there are map"):
        calibration.simulate(posterior(), "guess", key)
    with pytest.raises(InputError, match="calibration option simulations = 0: it must be a whole number, 1 or more"):
        calibration.simulate(posterior(), "nuts", key, simulations=0)
    with pytest.raises(InputError, match="nuts has no option 'nope'; it takes chains"):
        calibration.simulate(posterior(), "nuts", key, nope=1)
    with pytest.raises(InputError, match="model symmetric_dirichlet is not; choose blocked_gibbs"):
        calibration.simulate(posterior(model="symmetric_dirichlet"), "gibbs", key)
    with pytest.raises(InputError, match=r"truncation = 3 may change the data's law by \d"):
        calibration.simulate(posterior(), "gibbs", key)
    with pytest.raises(InputError, match="data has weighted points; give points of weight 1"):
        calibration.prior_draws(posterior().on(Dataset(np.arange(3.0), np.arange(1, 4))), key, 2)


def test_an_improper_prior_is_named():
    right = SMALL.prior_program

    def improper():
        numpyro.sample("means", dist.ImproperUniform(dist.constraints.real_matrix, (), (3, 1)))
        with numpyro.handlers.block(hide=["means"]):
            return right()

    flat = dataclasses.replace(SMALL, prior_program=improper)
    with pytest.raises(InputError, match="prior of 'means' in model stick_breaking is improper"):
        calibration.prior_draws(flat, random.PRNGKey(0), 2)


@pytest.mark.slow
def test_a_method_of_the_registry_is_ranked():
    seen = []
    options = {"chains": 1, "warmup": 5, "draws_per_chain": 19}
    ranks = calibration.simulate(
        posterior(),
        "blocked_gibbs",
        random.PRNGKey(0),
        simulations=3,
        draws=19,
        progress=lambda *n: seen.append(n),
        **options,
    )
    assert ranks.rank.shape == (3, len(calibration.QUANTITIES))
    assert ((ranks.rank >= 0) & (ranks.rank <= 19)).all()
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert not ranks.invariant[ranks.names.index("log joint")]
    assert ranks.invariant.sum() == len(ranks.names) - 1


# k-hat.


def weighted(log_weight):
    return xr.DataTree.from_dict({"sample_stats": xr.Dataset({"log_weight": (("chain", "draw"), log_weight)})})


def test_k_hat_is_the_tail_of_the_weights():
    """Weights ``u^-k`` have a Pareto tail of shape k, bounded ones none."""
    e = np.random.default_rng(0).exponential(size=20_000)
    found = calibration.k_hat(weighted(np.stack([0.3 * e, 1.2 * e, np.log1p(np.exp(-e))])))
    np.testing.assert_allclose(found[:2], [0.3, 1.2], atol=0.1)
    assert found[2] < 0.1
    with pytest.raises(InputError, match="draws by unknown have no sample_stats/log_weight; give draws of a guide"):
        calibration.k_hat(xr.DataTree())


def test_a_kernel_test_sees_a_shift_and_passes_without():
    draw = jax.jit(lambda key: random.normal(key, (2, 500)))

    def sample(shift):
        return lambda key: ({"x": (x := np.asarray(draw(key)))[0]}, {"x": x[1] + shift})

    assert all(calibration.joint_test(sample(0.0), random.PRNGKey(i)).passed for i in range(50))
    assert not calibration.joint_test(sample(0.6), random.PRNGKey(0)).passed
    assert not calibration.joint_test(sample(np.nan), random.PRNGKey(0)).passed


# Slow: the methods of the registry themselves.


@pytest.mark.slow
@pytest.mark.parametrize("model", ["stick_breaking", "symmetric_dirichlet", "escobar_west"])
def test_blocked_gibbs_is_calibrated(model):
    """The last with the mean of its base measure held, where the prior is flat."""
    p = posterior(model, size=12, truncation=4)
    options = {"chains": 1, "warmup": 300, "draws_per_chain": 99, "thin": 20}
    ranks = calibration.simulate(p, "blocked_gibbs", random.PRNGKey(0), simulations=200, **options)
    assert calibration.inside(ranks)["inside, all"].all()


@pytest.mark.slow
def test_a_planted_bug_is_outside(monkeypatch):
    """Sticks that see one point less than their component holds."""
    right = dpgmm.methods.blocked_gibbs.WEIGHTS["sticks"]
    wrong = lambda key, counts, *rest: right(key, jnp.maximum(counts - 1, 0), *rest)
    monkeypatch.setitem(dpgmm.methods.blocked_gibbs.WEIGHTS, "sticks", wrong)
    options = {"chains": 1, "warmup": 300, "draws_per_chain": 99, "thin": 20}
    ranks = calibration.simulate(
        posterior(size=12, truncation=4), "blocked_gibbs", random.PRNGKey(0), simulations=200, **options
    )
    assert not calibration.inside(ranks)["inside, all"].all()


def test_the_study_keeps_what_is_finished(tmp_path, monkeypatch, capsys):
    """Refits made up, an interruption in the seventh case: six rows, ranks that are uniform, and one case of bad luck."""
    study, rng, seen = load("calibration", "comparisons"), np.random.default_rng(0), []

    def refits(posterior, method, key, *, simulations, draws, **options):
        seen.append(method)
        names = calibration.quantities_of(posterior, method)
        for _ in range(30):
            if len(seen) == 7:
                raise KeyboardInterrupt
            k_hat = rng.uniform(0.5, 1) if method == "svi" else None
            most = draws + 1 if method != "nuts" else draws // 2
            yield calibration.Refit(rng.integers(0, most, len(names)), k_hat)

    # A picture takes a second; another test makes one.
    monkeypatch.setattr(study.calibration_plots, "picture", lambda ranks: Figure())
    monkeypatch.setattr(study.calibration, "refits", refits)
    rows = study.run(tmp_path)
    assert [r["method"] for r in rows] == seen[:6]
    assert [r["verdict"] for r in rows if r["method"] == "nuts"] == ["not calibrated"] * 2
    assert all(r["verdict"] == "calibrated" for r in rows if "gibbs" in r["method"])
    assert 0.5 < rows[5]["k-hat"] < 1
    assert rows[0]["k-hat"] is None
    record = json.loads((tmp_path / "calibration.json").read_text())
    assert [len(r["ranks"]) for r in record] == [30] * 6
    page = (tmp_path / "calibration.html").read_text()
    assert page.count("<img") + page.count("<svg") == 6
    assert "quantities leave the bands" in page
    assert "what is finished is written" in capsys.readouterr().out


@pytest.mark.slow
def test_the_study_runs(tmp_path):
    rows = load("calibration", "comparisons").run(tmp_path, quick=True)
    assert {"map", "svi", "nuts", "gibbs", "blocked_gibbs"} <= {r["method"] for r in rows} <= set(REGISTRY)
    record = json.loads((tmp_path / "calibration.json").read_text())
    assert [r["verdict"] for r in record if r["method"] == "map"] == ["point estimate: no posterior"]
    assert "<svg" in (tmp_path / "calibration.html").read_text()


def test_too_few_draws_to_rank_among_are_named():
    method = Method("resampled", resampled)
    with pytest.raises(InputError, match="resampled: 40 draws a fit, and the truth is to be ranked among 41"):
        calibration.simulate(SMALL, method, random.PRNGKey(0), simulations=2, draws=41)


def test_keys_of_either_kind_and_seeds_are_one():
    method, options = Method("resampled", resampled), {"simulations": 2, "draws": 40}
    found = [calibration.simulate(SMALL, method, key, **options).rank for key in (random.PRNGKey(7), random.key(7), 7)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
