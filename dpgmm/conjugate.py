"""What conjugacy integrates out: the parameters of a cluster, and the weights behind a partition."""

import jax.numpy as jnp
from jax import Array, random
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import gammaln, multigammaln

from . import gaussian
from .distributions import InverseWishartCholesky
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


def update(counts: Array, sums: Array, squares: Array, base: BaseMeasure) -> BaseMeasure:
    """Posterior of every cluster's mean and covariance, a `BaseMeasure` with leading axes: ``mean (..., D)`` and so on.

    ``kappa_n = kappa + n, df_n = df + n, m_n = m + sum x / kappa_n, Psi_n = Psi + sum x x^T - sum x sum x^T / kappa_n``,
    with x measured from ``base.mean``; shapes as in `log_marginal`. Source: Murphy (2007), eqs. 250 to 254.
    """
    kappa = base.kappa + counts
    scatter = squares - sums[..., :, None] * sums[..., None, :] / kappa[..., None, None]
    tril = jnp.linalg.cholesky(base.scale_tril @ base.scale_tril.T + scatter)
    return BaseMeasure(base.mean + sums / kappa[..., None], kappa, base.df + counts, tril)


def sample(key: Array, base: BaseMeasure) -> tuple[Array, Array]:
    """Means ``(..., D)`` and Cholesky factors ``(..., D, D)`` of covariances, one of each of a batch of `BaseMeasure`."""
    key_scale, key_mean = random.split(key)
    scale_trils = InverseWishartCholesky(base.df, base.scale_tril).sample(key_scale)
    noise = random.normal(key_mean, base.mean.shape, base.mean.dtype) / jnp.sqrt(base.kappa)[..., None]
    return base.mean + jnp.einsum("...de,...e->...d", scale_trils, noise), scale_trils


def recentre(counts: Array, sums: Array, squares: Array, shift: Array) -> tuple[Array, Array, Array]:
    """The same statistics of points measured from a place ``shift (D,)`` further on: of ``x - shift``."""
    moved = sums - counts[..., None] * shift
    return counts, moved, squares - shift[:, None] * sums[..., None, :] - moved[..., :, None] * shift


def sample_base(key: Array, means: Array, scale_trils: Array, held: Array, kappa: Array, prior) -> tuple[Array, Array]:
    """One Gibbs step for the base measure's mean, flat a priori, and then for ``kappa ~ Gamma(shape, rate)``.

    With ``mu_k | Sigma_k ~ N(m, Sigma_k / kappa)`` for the components that are `held`, ``(K,)`` bool, P their summed
    precisions: ``m ~ N(P^{-1} sum P_k mu_k, P^{-1} / kappa)``, and then
    ``kappa ~ Gamma(shape + D k/2, rate + sum |L_k^{-1}(mu_k - m)|^2 / 2)`` for k of them.
    Source: West & Escobar (1993), section 3. Returns ``(D,)`` and ``()``.
    """
    key_mean, key_kappa = random.split(key)
    dim = means.shape[-1]
    whiteners = jnp.where(held[:, None, None], gaussian.inverse(scale_trils), 0.0)
    precisions = jnp.einsum("kfd,kfe->kde", whiteners, whiteners)
    tril = jnp.linalg.cholesky(precisions.sum(0))
    centre = cho_solve((tril, True), jnp.einsum("kde,ke->d", precisions, means))
    noise = solve_triangular(tril.T, random.normal(key_mean, (dim,), means.dtype), lower=False)
    mean = centre + noise / jnp.sqrt(kappa)
    distance = jnp.sum(jnp.einsum("kde,ke->kd", whiteners, means - mean) ** 2)
    rate = prior.rate + 0.5 * distance
    return mean, random.gamma(key_kappa, prior.shape + 0.5 * dim * held.sum(), dtype=means.dtype) / rate
