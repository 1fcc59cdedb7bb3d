"""What conjugacy integrates out: the parameters of a cluster, and the weights behind a partition."""

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaln, multigammaln

from . import gaussian
from .gaussian import BaseMeasure

LOG_PI = 1.1447298858494002


def log_marginal(counts: Array, sums: Array, squares: Array, base: BaseMeasure) -> Array:
    """Log marginal likelihood of a cluster of weighted points, its mean and covariance integrated out, nats.

    ``-n D/2 log pi + log Gamma_D(df_n/2) - log Gamma_D(df/2) + df/2 log|Psi| - df_n/2 log|Psi_n| + D/2 log(kappa/kappa_n)``
    with ``df_n = df + n``, ``kappa_n = kappa + n``, ``Psi_n = Psi + sum x x^T + kappa m m^T - kappa_n m_n m_n^T``. Zero for
    an empty cluster. Shapes: ``counts (...)``, ``sums (..., D)``, ``squares (..., D, D)``, sums of ``omega``, ``omega x``
    and ``omega x x^T`` with x measured from ``base.mean``, to ``(...)``. Source: Murphy (2007), eq. 266.
    """
    dim = sums.shape[-1]
    df, kappa = base.df + counts, base.kappa + counts
    scatter = squares - sums[..., :, None] * sums[..., None, :] / kappa[..., None, None]
    tril = jnp.linalg.cholesky(base.scale_tril @ base.scale_tril.T + scatter)
    return (
        -0.5 * counts * dim * LOG_PI
        + multigammaln(0.5 * df, dim)
        - multigammaln(0.5 * base.df, dim)
        + base.df * gaussian.log_determinant(base.scale_tril)
        - df * gaussian.log_determinant(tril)
        + 0.5 * dim * (jnp.log(base.kappa) - jnp.log(kappa))
    )


def log_partition(counts: Array, concentration: Array) -> Array:
    """Log prior of a partition with these cluster sizes under the Chinese restaurant process.

    ``log Gamma(a) - log Gamma(a + n) + sum_{c: n_c > 0} log a + log Gamma(n_c)``. Shapes: ``counts (..., K)``,
    ``concentration (...)`` to ``(...)``; empty clusters do not count. Source: Antoniak (1974); Pitman (1995).
    """
    a, full = jnp.asarray(concentration), counts > 0
    of_clusters = jnp.where(full, jnp.log(a)[..., None] + gammaln(jnp.where(full, counts, 1.0)), 0.0)
    return gammaln(a) - gammaln(a + counts.sum(-1)) + of_clusters.sum(-1)


def log_posterior(members: Array, points: Array, concentration: Array, base: BaseMeasure) -> Array:
    """Log posterior of a partition of the points, up to the evidence: `log_partition` plus `log_marginal` of clusters.

    Shapes: ``members (N, K)``, one-hot, ``points (N, D)``, ``concentration ()`` to ``()``.
    """
    centred = points - base.mean
    counts = members.sum(0)
    squares = jnp.einsum("nk,nd,ne->kde", members, centred, centred)
    clusters = log_marginal(counts, members.T @ centred, squares, base)
    return log_partition(counts, concentration) + jnp.where(counts > 0, clusters, 0.0).sum()
