"""sticks, gaussian, mixture and their NumPyro twins: scipy as the oracle, finite in float32 under stress."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st
from hypothesis import given, settings
from hypothesis import strategies as hs
from hypothesis.extra.numpy import arrays
from jax import random

from dpgmm.densities import gaussian, mixture, passes, sticks
from dpgmm.densities.distributions import GaussianMixture, InverseWishartCholesky, LogGammas, StickLogits

moderate = settings(max_examples=40, deadline=None, derandomize=True)
logits = arrays(np.float64, 6, elements=hs.floats(-8, 8))


@pytest.mark.quick("densities")
@moderate
@given(logits)
def test_weights_by_the_textbook(l):
    v = np.append(st.logistic.cdf(l), 1.0)
    textbook = v * np.concatenate([[1], np.cumprod(1 - v[:-1])])
    np.testing.assert_allclose(np.exp(sticks.log_weights(jnp.asarray(l))), textbook, rtol=1e-9)
    np.testing.assert_allclose(sticks.logits(sticks.log_weights(jnp.asarray(l))), l, rtol=1e-8, atol=1e-8)


@pytest.mark.quick("densities")
@moderate
@given(logits, hs.floats(0.05, 50))
def test_three_densities_of_the_same_sticks(l, a):
    v = st.logistic.cdf(l)
    of_sticks = st.beta.logpdf(v, 1, a).sum()
    log_weights = sticks.log_weights(jnp.asarray(l))
    np.testing.assert_allclose(sticks.log_density_sticks(log_weights, a), of_sticks, rtol=1e-8, atol=1e-8)
    jacobian = np.log(v * st.logistic.sf(l)).sum()
    np.testing.assert_allclose(sticks.log_density_logits(jnp.asarray(l), a), of_sticks + jacobian, rtol=1e-8, atol=1e-8)
    weights = lambda u: jnp.exp(sticks.log_weights(u))[:-1]
    to_weights = np.linalg.slogdet(jax.jacfwd(weights)(jnp.asarray(l)))[1]
    np.testing.assert_allclose(
        sticks.log_density_weights(log_weights, a), of_sticks + jacobian - to_weights, rtol=1e-7, atol=1e-7
    )


def test_a_forgotten_stick_is_caught():
    l = jnp.array([0.3, -1.0, 2.0])
    truth = st.beta.logpdf(st.logistic.cdf(l), 1, 2.5).sum()
    assert abs(sticks.log_density_sticks(sticks.log_weights(l), 2.5, num_sticks=2) - truth) > 1e-2


@pytest.mark.quick("densities")
@pytest.mark.parametrize("dim", [1, 2, 4])
def test_gaussian_against_scipy(dim):
    rng = np.random.default_rng(dim)
    lower = np.tril(rng.normal(size=(dim, dim)), -1) + np.diag(rng.uniform(0.5, 2, dim))
    x, mean = rng.normal(size=(7, dim)), rng.normal(size=dim)
    truth = st.multivariate_normal.logpdf(x, mean, lower @ lower.T)
    np.testing.assert_allclose(gaussian.log_density(jnp.asarray(x), jnp.asarray(mean), jnp.asarray(lower)), truth)


def covariance_jacobian(lower):
    """log |d Sigma / d L| on the lower triangles, by differentiation."""
    rows, columns = np.tril_indices(len(lower))

    def covariance(flat):
        tril = jnp.zeros(lower.shape).at[rows, columns].set(flat)
        return (tril @ tril.T)[rows, columns]

    return np.linalg.slogdet(jax.jacfwd(covariance)(jnp.asarray(lower[rows, columns])))[1]


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_inverse_wishart_against_scipy(dim):
    rng = np.random.default_rng(dim)
    lower = np.tril(rng.normal(size=(dim, dim)), -1) + np.diag(rng.uniform(0.5, 2, dim))
    prior = np.tril(rng.normal(size=(dim, dim)), -1) + np.diag(rng.uniform(0.5, 2, dim))
    of_covariance = st.invwishart.logpdf(lower @ lower.T, dim + 2.5, prior @ prior.T)
    ours = InverseWishartCholesky(jnp.asarray(dim + 2.5), jnp.asarray(prior)).log_prob(jnp.asarray(lower))
    np.testing.assert_allclose(ours, of_covariance + covariance_jacobian(lower), rtol=1e-10)


def test_one_dimension_is_inverse_gamma():
    sd, df, psi = 1.7, 4.0, 2.3
    of_variance = st.invgamma.logpdf(sd**2, df / 2, scale=psi / 2)
    ours = gaussian.log_inverse_wishart(jnp.full((1, 1), sd), df, jnp.full((1, 1), np.sqrt(psi)))
    np.testing.assert_allclose(ours, of_variance + np.log(2 * sd), rtol=1e-12)


def mixture_case(num_points, dim, num_components, seed=0):
    rng = np.random.default_rng(seed)
    lower = np.tril(rng.normal(size=(num_components, dim, dim)), -1) * 0.3
    lower += rng.uniform(0.5, 2, (num_components, dim))[..., None] * np.eye(dim)
    log_weights = np.log(rng.dirichlet(np.ones(num_components)))
    means = rng.normal(size=(num_components, dim)) * 3
    points, omega = rng.normal(size=(num_points, dim)) * 4, rng.uniform(0, 3, num_points)
    return tuple(jnp.asarray(a) for a in (log_weights, means, lower, points, omega))


def by_scipy(log_weights, means, lower, points, omega):
    parts = [
        np.atleast_1d(st.multivariate_normal.logpdf(points, m, l @ l.T)) for m, l in zip(means, lower, strict=True)
    ]
    return omega @ np.logaddexp.reduce(np.stack(parts) + np.asarray(log_weights)[:, None])


@pytest.mark.parametrize(("num_points", "dim"), [(50, 1), (50, 3), (1, 2)])
def test_mixture_against_scipy(num_points, dim):
    case = mixture_case(num_points, dim, 5)
    np.testing.assert_allclose(mixture.log_likelihood(*case), by_scipy(*case), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "wrong"), [("LOG_2PI", 0.0), ("log_determinant", lambda lower, mean=None: jnp.zeros(lower.shape[:-2]))]
)
def test_a_dropped_normaliser_is_caught(name, wrong, monkeypatch):
    case = mixture_case(50, 2, 5)
    monkeypatch.setattr(gaussian, name, wrong)
    assert abs(mixture.log_likelihood(*case) - by_scipy(*case)) > 1


@pytest.mark.parametrize("dim", [1, 3])
def test_gradient_in_one_pass_equals_reverse_mode(dim, monkeypatch):
    """Every component of the hand-written gradient, in chunks with padding, against automatic differentiation."""
    case = mixture_case(53, dim, 5)
    plain = lambda lw, m, l: case[4] @ mixture.log_density(lw, m, l, case[3])
    monkeypatch.setattr(passes, "PAIRS", 50)
    ours = jax.jit(jax.value_and_grad(mixture.log_likelihood, argnums=(0, 1, 2)))(*case)
    theirs = jax.jit(jax.value_and_grad(plain, argnums=(0, 1, 2)))(*case[:3])
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12)
    lower = np.tril(np.ones((dim, dim)))
    for mine, truth, mask in zip(ours[1], theirs[1], (1.0, 1.0, lower), strict=True):
        np.testing.assert_allclose(mine * mask, truth * mask, rtol=1e-10, atol=1e-10)


def test_chunks_have_random_numbers_of_their_own_and_numbers_of_points_their_order(monkeypatch):
    monkeypatch.setattr(passes, "PAIRS", 10)
    points = jnp.arange(53.0)[:, None]  # Six chunks of nine points, the last of which begins one point early.
    uniforms = lambda components, points, key: points[:, 0] + random.uniform(key, points.shape[:1])
    key = random.PRNGKey(0)
    each = passes.each(uniforms, jnp.ones(1), 1, points, key)
    np.testing.assert_array_equal(np.floor(each), np.arange(53.0))
    assert len(set(np.asarray(each % 1).round(9))) == 53
    counted = lambda components, points, omega, key: jnp.stack([omega @ points[:, 0], omega @ uniforms(0, points, key)])
    total, with_noise = passes.accumulate(counted, jnp.ones(1), 1, points, jnp.full(53, 2.0), key)
    assert total == 2 * points.sum()
    np.testing.assert_allclose(with_noise, 2 * each.sum(), rtol=1e-12)


@pytest.mark.parametrize("dim", [1, 2])
def test_pairs_in_single_precision_are_off_by_the_rounding_that_is_stated(dim, monkeypatch):
    case = mixture_case(5_000, dim, 5)
    monkeypatch.setattr(passes, "PAIRS", 5_000)
    evaluate = lambda *case: jax.value_and_grad(mixture.log_likelihood, argnums=(0, 1, 2))(*case)
    double = jax.jit(evaluate)(*case)
    with passes.single_precision():
        single = jax.jit(lambda *case: evaluate(*case))(*case)
    assert single[0].dtype == single[1][0].dtype == jnp.float64
    assert 0 < abs(single[0] - double[0]) < 1e-6 * case[4].sum()
    for one, other in zip(single[1], double[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-3 * np.abs(other).max())


@pytest.mark.parametrize("unit", [1e-30, 1e19, 1e60])
@pytest.mark.parametrize("form", ["full", "diagonal", "spherical"])
def test_single_precision_takes_data_and_weights_in_any_unit(unit, form):
    log_weights, means, trils, points, omega = mixture_case(500, 2, 5)
    scales = jnp.diagonal(trils, axis1=1, axis2=2)
    factor = {"full": trils, "diagonal": scales, "spherical": scales[:, :1]}[form]
    case = log_weights, unit * means, unit * factor, unit * points, 1e50 * omega
    evaluate = lambda *case: jax.value_and_grad(mixture.log_likelihood, argnums=(0, 1, 2))(*case)
    with passes.single_precision():
        single = jax.jit(lambda *case: evaluate(*case))(*case)
    double = jax.jit(evaluate)(*case)
    assert single[0] != double[0]
    np.testing.assert_allclose(single[0], double[0], rtol=1e-6)
    for one, other in zip(single[1], double[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-3 * np.abs(other).max())


def test_a_narrow_component_far_from_the_others_takes_pairs_back_to_double_precision():
    log_weights, means, trils, points, omega = mixture_case(500, 2, 5)
    trils, means = trils.at[0].multiply(1e-3), means.at[0].add(30.0)
    points = points.at[:50].set(means[0] + 1e-3 * points[:50])
    case = log_weights, means, trils, points, omega
    with passes.single_precision():
        single = jax.jit(lambda *case: mixture.log_likelihood(*case))(*case)
    assert single == jax.jit(mixture.log_likelihood)(*case)


def test_hessian_goes_through_the_hand_written_gradient():
    case = mixture_case(20, 1, 3)
    ours = jax.jit(jax.hessian(lambda m: mixture.log_likelihood(case[0], m, *case[2:])))(case[1])
    theirs = jax.jit(jax.hessian(lambda m: case[4] @ mixture.log_density(case[0], m, case[2], case[3])))(case[1])
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dim", [1, 2])
def test_numpyro_twin_of_the_mixture(dim):
    case = mixture_case(9, dim, 3)
    twin = GaussianMixture(*case[:3], case[4])
    np.testing.assert_allclose(twin.log_prob(case[3]), by_scipy(*case), rtol=1e-12)
    assert twin.sample(jax.random.PRNGKey(0)).shape == (9, dim)


@pytest.mark.parametrize("spread", ["wide", "one holds all"])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_finite_in_float32_under_stress(spread, scale):
    key = jax.random.PRNGKey(0)
    f32 = jnp.float32
    l = jnp.linspace(-60, 60, 49, dtype=f32) if spread == "wide" else jnp.full(49, 60, f32)
    means = jax.random.normal(key, (50, 1), f32) * 10
    points = jax.random.normal(key, (30, 1), f32) * 10

    def total(l, means, log_scale, a):
        log_weights = sticks.log_weights(l)
        likelihood = mixture.log_likelihood(log_weights, means, jnp.exp(log_scale)[:, None, None], points)
        twice = sticks.log_density_sticks(log_weights, a) + sticks.log_density_logits(l, a)
        return likelihood + twice + 1e-3 * jnp.sum(sticks.logits(log_weights))

    value, gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3)))(
        l, means, jnp.full(50, np.log(scale), f32), f32(1.5)
    )
    assert value.dtype == f32
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradient)


@pytest.mark.parametrize(
    ("distribution", "oracle"),
    [
        (StickLogits(jnp.asarray(0.7), 1), st.beta(1, 0.7)),
        (LogGammas(jnp.asarray(0.7), 1), st.gamma(0.7)),
        (InverseWishartCholesky(jnp.asarray(5.0), jnp.eye(1) * 1.3), st.invgamma(2.5, scale=1.3**2 / 2)),
    ],
    ids=["sticks", "masses", "covariance"],
)
def test_samples_follow_their_law(distribution, oracle):
    """Kolmogorov-Smirnov at a level that a right sampler misses once in a thousand keys; the key is fixed."""
    to_scipy = {StickLogits: st.logistic.cdf, LogGammas: np.exp, InverseWishartCholesky: np.square}[type(distribution)]
    sample = to_scipy(np.asarray(distribution.sample(jax.random.PRNGKey(1), (4000,))).ravel())
    assert st.kstest(sample, oracle.cdf).pvalue > 1e-3


def test_wishart_samples_have_their_mean():
    """E[Sigma] = Psi / (df - D - 1), within 4 standard errors of each entry."""
    prior = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    lower = InverseWishartCholesky(jnp.asarray(12.0), prior).sample(jax.random.PRNGKey(0), (4000,))
    covariance = np.asarray(lower @ jnp.swapaxes(lower, -1, -2))
    error = covariance.std(axis=0) / np.sqrt(4000)
    assert (np.abs(covariance.mean(axis=0) - np.asarray(prior @ prior.T) / 9) < 4 * error).all()


@pytest.mark.quick("densities")
@pytest.mark.parametrize("form", ["full", "diagonal", "spherical"])
def test_coloured_noise_has_the_covariance_of_its_factor(form):
    """Exactly: the images e_d of unit vectors add up to ``sum_d (L e_d)(L e_d)^T = L L^T``, which L^T does not give."""
    rng, dim = np.random.default_rng(0), 3
    lower = np.tril(rng.normal(size=(dim, dim)), -1) + np.diag(rng.uniform(0.5, 2, dim))
    stored = {"full": lower, "diagonal": np.diag(lower), "spherical": np.array([0.7])}[form]
    wanted = {"full": lower @ lower.T, "diagonal": np.diag(np.diag(lower) ** 2), "spherical": 0.49 * np.eye(dim)}[form]
    rows = gaussian.colour(jnp.asarray(stored), jnp.zeros(dim), jnp.eye(dim))
    np.testing.assert_allclose(rows.T @ rows, wanted, rtol=1e-12, atol=1e-12)
    assert np.abs(lower.T @ lower - lower @ lower.T).max() > 0.1


@pytest.mark.quick("densities")
@pytest.mark.parametrize("form", ["full", "tied", "diagonal", "spherical"])
def test_samples_have_the_moments_of_their_components(form):
    """Components far apart, so that each point shows whose it is: shares, means and covariances, one by one."""
    rng, dim, size = np.random.default_rng(1), 2, 30_000
    weights, means = np.array([0.5, 0.3, 0.2]), np.array([[-100.0, 0.0], [0.0, 50.0], [100.0, -50.0]])
    scales = np.array([0.5, 1.0, 3.0])
    lower = np.array([[1.0, 0.0], [0.8, 0.6]]) * scales[:, None, None]
    trils = {"full": lower, "tied": lower[:1], "diagonal": scales[:, None] * [1.0, 2.0], "spherical": scales[:, None]}[
        form
    ]
    matrices = np.array(
        [t if t.ndim == 2 else np.diag(np.broadcast_to(t, dim)) for t in np.broadcast_to(trils, (3, *trils.shape[1:]))]
    )
    mixed = GaussianMixture(jnp.log(weights), jnp.asarray(means), jnp.asarray(trils), jnp.ones(size))
    points = np.asarray(mixed.sample(jax.random.PRNGKey(rng.integers(2**31))))
    whose = np.linalg.norm(points[:, None] - means, axis=-1).argmin(axis=1)
    for k, (w, m, l) in enumerate(zip(weights, means, matrices, strict=True)):
        of = points[whose == k] - m
        assert abs(len(of) / size - w) < 4 * np.sqrt(w * (1 - w) / size)
        assert (np.abs(of.mean(axis=0)) < 4 * of.std(axis=0) / np.sqrt(len(of))).all()
        products = of[:, :, None] * of[:, None, :]
        error = products.std(axis=0) / np.sqrt(len(of))
        assert (np.abs(products.mean(axis=0) - l @ l.T) < 4 * error).all(), k


# The pass over the points


def narrow(ratio, dim):
    """Two components about `ratio` standard deviations apart, points of each, and log densities in long double."""
    rng = np.random.default_rng(5)
    lower = np.stack(
        [np.linalg.cholesky(np.eye(dim) + 0.3), np.tril(rng.normal(size=(dim, dim)), -1) + 0.7 * np.eye(dim)]
    )
    means = np.stack([np.zeros(dim), np.full(dim, float(ratio))])
    points = np.concatenate([m + rng.normal(size=(20, dim)) @ l.T for m, l in zip(means, lower, strict=True)])
    log_weights = np.log([0.3, 0.7])
    wide = [a.astype(np.longdouble) for a in (points, means, lower)]
    joint = []
    for k in range(2):
        whitened = np.empty_like(wide[0])
        for i in range(dim):  # Forward substitution, in long double.
            rest = wide[0][:, i] - wide[1][k, i] - whitened[:, :i] @ wide[2][k, i, :i]
            whitened[:, i] = rest / wide[2][k, i, i]
        log_det = np.log(np.diagonal(wide[2][k])).sum()
        joint.append(log_weights[k] - log_det - dim / 2 * np.log(2 * np.pi) - (whitened**2).sum(1) / 2)
    return jax.tree.map(jnp.asarray, (log_weights, means, lower, points)), np.logaddexp(*joint).astype(float)


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("ratio", [1, 100, 300, 1_000, 1e6, 1e9])
def test_densities_hold_however_narrow_a_component_is(ratio, dim):
    """Either way to the square is good to 1e-10 where it is taken; a mean of 1e9 itself has rounded by 1e-7."""
    case, truth = narrow(ratio, dim)
    np.testing.assert_allclose(jax.jit(mixture.log_density)(*case), truth, rtol=max(1e-10, 1e-15 * ratio))


def test_expanded_squares_alone_would_lose_the_digits(monkeypatch):
    case, truth = narrow(1e6, 3)
    monkeypatch.setattr(mixture, "_expands", lambda *_: jnp.asarray(True))
    assert np.abs(mixture.log_density(*case) - truth).max() > 1e-5


@pytest.mark.parametrize("form", ["full", "tied", "diagonal", "spherical"])
@pytest.mark.parametrize("expands", [True, False])
def test_both_ways_to_the_square_have_the_gradient_of_reverse_mode(form, expands, monkeypatch):
    rng, (count, dim) = np.random.default_rng(6), (4, 3)
    lower = np.tril(rng.normal(size=(count, dim, dim)), -1) + np.eye(dim) * rng.uniform(0.5, 2, (count, dim, 1))
    scales = rng.uniform(0.5, 2, (count, dim))
    factor = {"full": lower, "tied": lower[:1], "diagonal": scales, "spherical": scales[:, :1]}[form]
    points, omega = rng.normal(size=(53, dim)) * 2 + 5, rng.uniform(0, 2, 53)
    weights, means = rng.dirichlet(np.ones(count)), rng.normal(size=(count, dim)) + 5
    points, omega, *components = (jnp.asarray(a) for a in (points, omega, np.log(weights), means, factor))

    def plain(log_weights, means, factor):
        joint = log_weights + gaussian.log_density(points[:, None, :], means, factor)
        return omega @ jax.nn.logsumexp(joint, axis=-1)

    monkeypatch.setattr(mixture, "_expands", lambda *_: jnp.asarray(expands))
    monkeypatch.setattr(passes, "PAIRS", 50)
    ours = jax.jit(jax.value_and_grad(mixture.log_likelihood, argnums=(0, 1, 2)))(*components, points, omega)
    theirs = jax.jit(jax.value_and_grad(plain, argnums=(0, 1, 2)))(*components)
    mask = np.tril(np.ones((dim, dim))) if factor.ndim == 3 else 1.0
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-13)
    for mine, truth, of in zip(ours[1], theirs[1], (1.0, 1.0, mask), strict=True):
        np.testing.assert_allclose(mine * of, truth * of, rtol=1e-10, atol=1e-10)


def test_a_component_is_drawn_where_the_cumulative_sum_passes():
    rng = np.random.default_rng(7)
    r, uniforms = rng.dirichlet(np.ones(5), 1_000).T * 3, rng.random(1_000)
    theirs = [np.searchsorted(np.cumsum(p), u * p.sum()) for p, u in zip(r.T, uniforms, strict=True)]
    np.testing.assert_array_equal(passes.drawn(jnp.asarray(r), jnp.asarray(uniforms)), theirs)
