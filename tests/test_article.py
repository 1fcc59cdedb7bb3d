"""models/article.py against scipy, against a transcription in the article's own way, and under stress in float32."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.example_libraries import optimizers

from comparisons import article_training
from dpgmm import datasets
from dpgmm.data import Dataset
from dpgmm.errors import InputError
from models import article

LOSS = jax.jit(jax.value_and_grad(article.make_joint_loss(25)))


@pytest.fixture(scope="module")
def four_gaussians() -> Dataset:
    return datasets.four_gaussians()


@pytest.fixture(scope="module")
def training(four_gaussians) -> article.Training:
    """The article's whole run, on few points, every step kept."""
    return article.train(four_gaussians, thin=1)


def points_of(data: Dataset, dtype=jnp.float32) -> jax.Array:
    return jnp.asarray(data.points[:, 0], dtype)


def random_parameters(k: int, dtype=jnp.float64) -> article.Parameters:
    rng = np.random.default_rng(2)
    return article.Parameters(*(jnp.asarray(rng.normal(size=n), dtype) for n in (k, 1, k, k)))


def oracle_of_sticks(log_weights, log_concentration, m) -> float:
    """Log density of the first m sticks, one stick after the other, by scipy."""
    weights = scipy.special.softmax(np.asarray(log_weights))
    sticks = [weights[k] / weights[k:].sum() for k in range(m)]
    return scipy.stats.beta.logpdf(sticks, 1, np.exp(np.asarray(log_concentration).item())).sum()


def oracle(params, m, data, data_weights) -> float:
    log_weights, log_concentration, mus, log_scales = (np.asarray(p) for p in params)
    joint = scipy.special.log_softmax(log_weights) + scipy.stats.norm.logpdf(data[:, None], mus, np.exp(log_scales))
    of_points = data_weights @ scipy.special.logsumexp(joint, axis=1)
    return -(oracle_of_sticks(log_weights, log_concentration, m) + of_points)


# The objective.


def test_loss_at_the_articles_initial_values(four_gaussians):
    loss = article.make_joint_loss(25)(article.initial_parameters(), points_of(four_gaussians))
    assert loss.dtype == jnp.float32
    assert float(loss) == pytest.approx(94999.3, abs=0.05)


def test_loss_is_scipys():
    rng = np.random.default_rng(3)
    data, data_weights = rng.normal(size=11), rng.uniform(0, 3, size=11)
    for k, m in ((2, 1), (7, 3), (7, 6)):
        params = random_parameters(k)
        ours = jax.jit(article.make_joint_loss(m))(params, jnp.asarray(data), jnp.asarray(data_weights))
        assert float(ours) == pytest.approx(oracle(params, m, data, data_weights), rel=1e-12)


def test_weights_count_points():
    params, data = random_parameters(5), jnp.asarray(np.random.default_rng(4).normal(size=6))
    counts = np.array([0, 1, 2, 3, 1, 2])
    loglike = jax.jit(article.mixture_loglike)
    repeated = loglike(params[0], *params[2:], jnp.repeat(data, counts))
    weighted = loglike(params[0], *params[2:], data, jnp.asarray(counts, float))
    assert float(weighted) == pytest.approx(float(repeated), rel=1e-13)


def test_normalize_weights():
    np.testing.assert_allclose(article.normalize_weights(jnp.array([1.0, 3.0])), [0.25, 0.75], rtol=1e-15)


def check_sticks(loglike, log_weights, log_concentration, m):
    ours = float(loglike(jnp.asarray(log_weights), jnp.asarray([log_concentration]), m))
    assert ours == pytest.approx(oracle_of_sticks(log_weights, log_concentration, m), rel=1e-9, abs=1e-9)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    log_weights=st.lists(st.floats(-6, 6), min_size=2, max_size=9),
    log_concentration=st.floats(-3, 6),
    share=st.floats(0, 1),
)
def test_sticks_are_scipys(log_weights, log_concentration, share):
    m = 1 + int(share * (len(log_weights) - 2))
    check_sticks(article.component_probs_loglike, np.array(log_weights), log_concentration, m)


def forgets_a_stick(log_weights, log_concentration, m):
    return article.component_probs_loglike(log_weights, log_concentration, m - 1)


def takes_the_density_of_weights(log_weights, log_concentration, m):
    remaining = jnp.cumsum(jax.nn.softmax(log_weights)[::-1])[::-1][:m]
    return article.component_probs_loglike(log_weights, log_concentration, m) - jnp.sum(jnp.log(remaining))


def takes_a_for_a_less_one(log_weights, log_concentration, m):
    unused = jax.nn.logsumexp(jax.nn.log_softmax(log_weights)[m:])
    return article.component_probs_loglike(log_weights, log_concentration, m) + unused


@pytest.mark.parametrize("wrong", [forgets_a_stick, takes_the_density_of_weights, takes_a_for_a_less_one])
def test_wrong_densities_of_sticks_are_caught(wrong):
    with pytest.raises(AssertionError):
        check_sticks(wrong, np.array([0.3, -1.0, 0.5, 1.2]), 0.7, 3)


def test_value_and_gradient_are_those_of_the_plain_transcription(four_gaussians):
    params = article.initial_parameters(dtype=jnp.float64)
    data = points_of(four_gaussians, jnp.float64)[::10]
    value, gradient = LOSS(params, data)
    plain_value, plain_gradient = jax.jit(jax.value_and_grad(article_training.plain_loss))(params, data)
    assert float(value) == pytest.approx(float(plain_value), rel=1e-12)
    for ours, plain in zip(gradient, plain_gradient, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-9, atol=1e-9)


# float32, where the article's way ends.


def stressed():
    """Parameters at the edges: spread log weights, one component with all mass, narrow and wide scales, huge a."""
    k = 50
    mus, log_scales = np.linspace(-10, 10, k), np.linspace(np.log(1e-4), np.log(1e4), k)
    spread, alone = np.linspace(-60, 60, k), np.where(np.arange(k) == 30, 60.0, -60.0)
    rolled = {"ascending": spread, "descending": spread[::-1], "one late": alone, "one early": alone[::-1]}
    for name, log_weights in rolled.items():
        for log_concentration in (-5.0, 3.0, 40.0):
            yield pytest.param((log_weights, [log_concentration], mus, log_scales), id=f"{name}, {log_concentration}")
    drained = np.where(np.arange(k) < 25, -430.0, 0.0)
    yield pytest.param((drained, [433.0], mus, log_scales), id="end of the article's run")


@pytest.mark.parametrize("params", list(stressed()))
def test_float32_under_stress(params, four_gaussians):
    data = points_of(four_gaussians, jnp.float64)[::40]
    single, gradient = LOSS(tuple(jnp.asarray(p, jnp.float32) for p in params), data)
    double, _ = LOSS(tuple(jnp.asarray(p, jnp.float64) for p in params), data)
    assert single.dtype == jnp.float32
    assert all(np.isfinite(leaf).all() for leaf in gradient)
    assert float(single) == pytest.approx(float(double), rel=1e-4)


def test_the_plain_transcription_ends_where_a_weight_underflows():
    """Not our bug but our reason: without it the comparison of the two would be of something else."""
    params = tuple(p.at[3].add(-110.0) if i == 0 else p for i, p in enumerate(article.initial_parameters()))
    data = jnp.linspace(-5, 5, 20, dtype=jnp.float32)
    plain = jax.jit(jax.grad(article_training.plain_loss))
    assert np.isfinite(plain(article.initial_parameters(), data)[0]).all()
    assert not np.isfinite(plain(params, data)[0]).all()
    assert np.isfinite(LOSS(params, data)[1][0]).all()


# The training run.


def test_step_scannable_is_the_step_of_train(four_gaussians):
    data = Dataset(four_gaussians.points[::100])
    init, update, get_params = optimizers.adam(0.05)
    gradient = jax.grad(article.make_joint_loss(25))
    step = article.make_step_scannable(get_params, gradient, update, points_of(data))
    final, states = jax.lax.scan(step, init(article.initial_parameters()), jnp.arange(20, dtype=jnp.int32))
    trained = article.train(data, steps=20, thin=1, compress=False)
    for ours, theirs in zip(trained.history, get_params(states), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trained.parameters.component_mus, get_params(final)[2], rtol=1e-4, atol=1e-5)
    assert trained.certificate is None


def test_first_steps_are_those_of_the_plain_transcription(four_gaussians):
    steps, few = 100, Dataset(four_gaussians.points[::4])
    path = article_training.PlainRun(article.initial_parameters(), points_of(few)).go_on(steps)
    plain = article_training._losses(article_training.plain_loss, path, few)
    assert plain.dtype == np.float32
    for compress in (False, True):
        ours = article.train(few, steps=steps, compress=compress)
        assert (ours.certificate is not None) == compress
        assert ours.loss.dtype == np.float32
        np.testing.assert_allclose(ours.loss, plain, rtol=1e-5)


@pytest.mark.long
def test_whole_run_is_finite_in_float32(training):
    assert training.loss.shape == (10_000,)
    assert np.isfinite(training.loss).all()
    assert all(leaf.dtype == jnp.float32 and np.isfinite(leaf).all() for leaf in training.parameters)
    # The improper objective: the concentration left the range of float32 long ago, and the loss keeps falling.
    assert float(training.parameters.log_concentration[0]) > np.log(np.finfo(np.float32).max)
    assert training.loss[-1] < training.loss[5_000]


@pytest.mark.long
def test_certificate_holds_along_the_run(training, four_gaussians):
    """The exact loss at other steps than those that the certificate looked at."""
    chosen = np.arange(0, 10_000, 97)
    some = jax.tree.map(lambda leaf: leaf[chosen], training.history)
    exact = article_training._losses(article.make_joint_loss(25), some, four_gaussians)
    errors = np.abs(training.loss[chosen] / exact - 1)
    assert training.certificate.max_error <= training.certificate.tolerance * training.loss.max()
    assert np.mean(errors < training.certificate.tolerance) > 0.97
    assert training.certificate.points < four_gaussians.size / 4


def test_certificate_refuses_bins_that_are_too_wide(four_gaussians, monkeypatch):
    """Negative control: with bins that follow nothing, the steps past the first collapse are taken on all points."""
    four_gaussians = Dataset(four_gaussians.points[::4])
    monkeypatch.setattr(article, "REACH", 0.0)
    monkeypatch.setattr(article, "WIDEST", 0.5)
    trained = article.train(four_gaussians, steps=300, thin=1)
    assert trained.certificate.full_data_steps >= 100
    assert trained.certificate.refinements >= article.ATTEMPTS
    exact = article_training._losses(
        article.make_joint_loss(25), jax.tree.map(lambda leaf: leaf[-1:], trained.history), four_gaussians
    )
    assert trained.loss[-1] == pytest.approx(exact[0], rel=1e-6)


def narrow_components(sigma: float) -> article.Parameters:
    """The article's initial values with three narrow components; the first one's neighbourhood begins just below 0."""
    params = article.initial_parameters(dtype=jnp.float64)
    log_scales = params.log_component_scales.at[:3].set(jnp.log(jnp.array([sigma, 10 * sigma, 100 * sigma])))
    mus = params.component_mus.at[0].set(article.REACH * sigma - 0.2 * sigma)
    return params._replace(log_component_scales=log_scales, component_mus=mus)


@pytest.mark.parametrize("sigma", [0.003, 0.01])
def test_stand_ins_keep_moments_and_no_bin_crosses_a_change_of_width(four_gaussians, sigma):
    stand_ins = article._StandIns(four_gaussians, jnp.float64)
    points, size = stand_ins.on([article._at(narrow_components(sigma), None)])
    x, weights = np.asarray(points.data), np.asarray(points.data_weights)
    assert size < 1000
    assert np.all(weights[size:] == 0)
    for power in range(2 * article.NODES):
        assert np.sum(weights * x**power) == pytest.approx(np.sum(four_gaussians.points[:, 0] ** power), rel=1e-9)
    runs = np.split(np.arange(len(stand_ins.points)), np.flatnonzero(np.diff(stand_ins.halvings)) + 1)
    assert len(runs) > 3
    for run in runs:
        inside = (x >= stand_ins.points[run[0]]) & (x <= stand_ins.points[run[-1]])
        assert weights[inside].sum() == pytest.approx(stand_ins.weights[run].sum(), rel=1e-9)


def test_certificate_looks_where_a_component_is_narrowest_beside_its_bin(four_gaussians):
    stand_ins = article._StandIns(four_gaussians, jnp.float64)
    wide = article.initial_parameters(dtype=jnp.float64)
    stand_ins.on([article._at(narrow_components(0.01), None)])
    steps = [wide, narrow_components(0.01), narrow_components(0.005), narrow_components(0.01), wide]
    assert stand_ins.worst_served(jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps)) == 2


def test_few_points_are_left_alone():
    trained = article.train(datasets.galaxies(), steps=50)
    assert trained.certificate is None
    assert np.isfinite(trained.loss).all()
    assert trained.history.component_mus.shape == (1, 50)
    assert list(trained.history_steps) == [0]


def test_ties_and_empty_points_make_no_trouble():
    points = np.concatenate([np.repeat([1.0, 2.0, 2.0000001], 100), np.random.default_rng(5).normal(size=200), [50.0]])
    weights = np.append(np.ones(500), 0.0)
    trained = article.train(Dataset(points, weights), steps=120)
    assert np.isfinite(trained.loss).all()


def test_two_columns_are_refused():
    with pytest.raises(InputError, match=r"pairs: 2 columns.*one-dimensional: choose one column"):
        article.train(Dataset(np.zeros((3, 2)), name="pairs"))


# The comparison.


def test_study_runs_and_writes(tmp_path, monkeypatch, capsys, four_gaussians):
    monkeypatch.setattr(article_training, "LAP", 100)
    monkeypatch.setattr(article_training.datasets, "four_gaussians", lambda: Dataset(four_gaussians.points[::50]))
    result = article_training.run(tmp_path / "new", quick=True, progress=False)
    assert json.loads((tmp_path / "new" / "article_training.json").read_text()) == result
    printed = capsys.readouterr().out
    assert "few points" in printed
    assert "Largest relative difference" in printed
    assert result["finite_steps"] == {"plain": 300, "all points": 300, "few points": 300}
    assert result["same_parameters"]["ours against plain"] < 1e-5
    assert all(seconds > 0 for seconds in result["seconds"].values())


def test_disagreement_is_reported():
    some, others = np.array([1.0, 2.0, np.nan]), np.array([1.0, 2.0002, 3.0])
    assert article_training._worst(some, others) == np.inf
    assert article_training._worst(others, some) == pytest.approx(1e-4)
    assert article_training._parts_at(some, others, np.array([0, 25, 50])) == 25
    assert article_training._parts_at(some[:1], others[:1], np.array([0])) is None
