"""What conjugacy integrates out, against scipy and against sums over all partitions."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st
from scipy.integrate import quad

from dpgmm.densities import conjugate
from dpgmm.densities.gaussian import BaseMeasure

RNG = np.random.default_rng(4)


def base(dim):
    lower = np.tril(RNG.normal(size=(dim, dim)), -1) * 0.3 + np.diag(RNG.uniform(0.5, 1.5, dim))
    return BaseMeasure(*map(jnp.asarray, (RNG.normal(size=dim), 0.3, dim + 2.5, lower[None])))


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
    b, points = base(dim), RNG.normal(size=(6, dim)) * 2
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
