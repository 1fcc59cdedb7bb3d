"""What conjugacy integrates out, against scipy and against sums over all partitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st
from scipy.integrate import quad

from dpgmm.data import Dataset
from dpgmm.densities import base_measure, conjugate
from dpgmm.densities.concentration import Concentration
from dpgmm.densities.gaussian import BaseMeasure
from dpgmm.methods import _clusters as clusters

pytestmark = pytest.mark.quick("densities")


def base(dim):
    rng = np.random.default_rng(dim)
    lower = np.tril(rng.normal(size=(dim, dim)), -1) * 0.3 + np.diag(rng.uniform(0.5, 1.5, dim))
    return BaseMeasure(*map(jnp.asarray, (rng.normal(size=dim), 0.3, dim + 2.5, lower[None])))


def marginal(points, b, weights=None):
    omega = np.ones(len(points)) if weights is None else weights
    x = points - np.asarray(b.mean)
    squares = jnp.einsum("n,nd,ne->de", omega, x, x)[None]
    return float(conjugate.log_marginal(jnp.asarray(omega.sum()), jnp.asarray(omega @ x), squares, b))


def predictive_by_scipy(x, seen, b):
    """Multivariate t of one point given others, by the textbook update of the four hyperparameters."""
    mean, kappa, df, [lower] = (np.asarray(leaf) for leaf in b)
    psi, n, dim = lower @ lower.T, len(seen), len(mean)
    if n:
        centre = seen.mean(0)
        scatter = (seen - centre).T @ (seen - centre)
        psi = psi + scatter + kappa * n / (kappa + n) * np.outer(centre - mean, centre - mean)
        mean = (kappa * mean + n * centre) / (kappa + n)
    kappa, df = kappa + n, df + n
    shape = psi * (kappa + 1) / (kappa * (df - dim + 1))
    return st.multivariate_t.logpdf(x, mean, shape, df=df - dim + 1)


@pytest.mark.parametrize("dim", [1, 3])
def test_marginal_is_a_chain_of_student_predictives(dim):
    b, points = base(dim), np.random.default_rng(4).normal(size=(6, dim)) * 2
    chain = sum(predictive_by_scipy(x, points[:i], b) for i, x in enumerate(points))
    np.testing.assert_allclose(marginal(points, b), chain, rtol=1e-10)


def test_marginal_integrates_the_likelihood():
    """Weighted points, one dimension: quadrature over mean and variance, by scipy's densities."""
    b = BaseMeasure(jnp.zeros(1), jnp.asarray(0.5), jnp.asarray(4.0), jnp.full((1, 1, 1), 1.2))
    x, omega = np.array([0.4, -1.0, 2.0]), np.array([1.0, 2.0, 1.5])

    def given_variance(v):
        prior = st.invgamma.pdf(v, 2.0, scale=0.5 * 1.2**2)
        f = lambda m: np.exp(omega @ st.norm.logpdf(x, m, v**0.5)) * st.norm.pdf(m, 0, (v / 0.5) ** 0.5)
        return prior * quad(f, -30, 30, limit=200, points=[0.0])[0]

    truth = quad(given_variance, 0, 60, limit=300, points=[0.5, 2.0])[0]
    np.testing.assert_allclose(marginal(x[:, None], b, omega), np.log(truth), rtol=1e-7)


def test_an_empty_cluster_has_no_evidence():
    assert float(conjugate.log_marginal(jnp.zeros(()), jnp.zeros(2), jnp.zeros((1, 2, 2)), base(2))) == pytest.approx(
        0, abs=1e-12
    )


def partitions(n):
    """All partitions of n, as labels by first appearance."""
    found = [[0]]
    for _ in range(n - 1):
        found = [[*p, k] for p in found for k in range(max(p) + 2)]
    return np.array(found)


@pytest.mark.parametrize("a", [0.3, 2.5])
def test_prior_of_partitions_sums_to_one(a):
    labels = partitions(6)
    assert len(labels) == 203
    counts = (labels[..., None] == np.arange(6)).sum(axis=1)
    np.testing.assert_allclose(
        np.exp(conjugate.log_partition(jnp.asarray(counts), jnp.asarray(a))).sum(), 1, rtol=1e-12
    )


def test_forgetting_empty_clusters_matters():
    """Negative control: a factor for every column of the table, full or not, no longer sums to one."""
    counts = (partitions(5)[..., None] == np.arange(5)).sum(axis=1)
    wrong = np.exp(conjugate.log_partition(jnp.asarray(counts), jnp.asarray(0.3))) * 0.3 ** (counts == 0).sum(axis=1)
    assert abs(wrong.sum() - 1) > 0.1


@pytest.mark.parametrize("covariance", base_measure.COVARIANCES)
def test_statistics_about_another_place_are_those_of_moved_points(covariance):
    rng = np.random.default_rng(0)
    points, labels, shift = rng.normal(size=(9, 3)) * 2, jnp.asarray(rng.integers(0, 3, 9)), np.array([1.5, -4.0, 0.3])
    b = base_measure.scaled_to(Dataset(points), covariance=covariance)
    here, there = (clusters.statistics(jnp.asarray(x), labels, 4, b) for x in (points, points - shift))
    for found, wanted in zip(conjugate.recentre(*here, jnp.asarray(shift), b), there, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["full", "diagonal", "spherical"])
def test_the_base_measure_is_learnt_in_three_dimensions(form):
    """``m ~ N(P^-1 sum P_k mu_k, P^-1 / kappa)``, ``kappa (rate + sum |L_k^-1 (mu_k - m)|^2 / 2) ~ Gamma(shape + D k/2)``.

    Over the components that are held, three of four, in standard errors of 20,000 steps. Source: West & Escobar (1993).
    """
    rng, dim, draws, held = np.random.default_rng(2), 3, 20_000, np.array([True, True, False, True])
    means = rng.normal(size=(4, dim)) * 3
    full = np.tril(rng.normal(size=(4, dim, dim)), -1) * 0.5 + rng.uniform(0.5, 2, (4, dim))[..., None] * np.eye(dim)
    stored = {"full": full, "diagonal": np.diagonal(full, axis1=1, axis2=2), "spherical": full[:, 0, :1]}[form]
    lower = full if form == "full" else np.array([np.diag(np.broadcast_to(row, dim)) for row in stored])
    prior, kappa = Concentration(1.3, 0.6), 0.4
    at, factors, some, k = (jnp.asarray(a) for a in (means, stored, held, kappa))
    step = lambda key: conjugate.sample_base(key, at, factors, some, k, prior)
    m, new = (np.asarray(a) for a in jax.jit(jax.vmap(step))(jax.random.split(jax.random.PRNGKey(0), draws)))
    precisions = np.linalg.inv(lower @ np.swapaxes(lower, 1, 2))[held]
    total = precisions.sum(axis=0)
    centre = np.linalg.solve(total, np.einsum("kde,ke->d", precisions, means[held]))
    white = np.sqrt(kappa) * (m - centre) @ np.linalg.cholesky(total)
    assert np.abs(white.mean(axis=0)).max() < 4 / np.sqrt(draws)
    products = white[:, :, None] * white[:, None, :]
    assert (np.abs(products.mean(axis=0) - np.eye(dim)) < 4 * products.std(axis=0) / np.sqrt(draws)).all()
    away = means[held] - m[:, None]
    distance = np.einsum("tkd,kde,tke->t", away, precisions, away)
    unit = new * (prior.rate + 0.5 * distance)
    shape = prior.shape + 0.5 * dim * held.sum()
    assert abs(unit.mean() - shape) < 4 * np.sqrt(shape / draws)
    assert abs(unit.var() - shape) < 4 * ((unit - shape) ** 2).std() / np.sqrt(draws)
