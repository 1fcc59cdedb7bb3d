"""What conjugacy integrates out: the parameters of a cluster, and the weights behind a partition."""

import jax.numpy as jnp
from jax import Array, random
from jax.scipy.special import gammaln, multigammaln

from . import gaussian
from .distributions import InverseWishartCholesky
from .gaussian import BaseMeasure

LOG_PI = 1.1447298858494002


def log_marginal(counts: Array, sums: Array, squares: Array, base: BaseMeasure) -> Array:
    """Log marginal likelihood of a cluster of weighted points, its mean and covariance integrated out, nats.

    For each of B blocks, whose covariance holds for R dimensions on end, ``log Gamma_d(df_n/2) - log Gamma_d(df/2)
    + df/2 log|Psi| - df_n/2 log|Psi_n| + d R/2 log(kappa/kappa_n) - n d R/2 log pi``
    with ``df_n = df + R n``, ``kappa_n = kappa + n``, ``Psi_n = Psi + sum x x^T + kappa m m^T - kappa_n m_n m_n^T``. Zero
    for an empty cluster. Shapes: ``counts (...)``, ``sums (..., D)``, ``squares (..., B, d, d)``, sums of ``omega``,
    ``omega x`` and `product` of ``omega x`` and x, with x measured from ``base.mean``, to ``(...)``. Source: Murphy (2007),
    eq. 266.
    """
    return log_evidence(counts[..., None], sums[..., None, :], squares[..., None, :, :, :], base)


def log_evidence(counts: Array, sums: Array, squares: Array, base: BaseMeasure) -> Array:
    """`log_marginal` of K clusters with ONE covariance, ``counts (..., K)`` and so on, to ``(...)``.

    The covariance sees the scatter of all clusters, ``Psi_N = Psi + sum_k scatter_k`` and ``df_N = df + R sum_k n_k``; each
    has its mean, and brings ``d R/2 log(kappa/kappa_k)``. For K = 1 it is that of one cluster.
    """
    _, size, repeats = shape_of(base)
    df, kappa = base.df + repeats * counts.sum(-1), base.kappa + counts
    tril = gaussian.cholesky(
        base.scale_tril @ _transposed(base.scale_tril) + scatter(counts, sums, squares, base).sum(-4)
    )
    of_blocks = (
        (multigammaln(0.5 * df, size) - multigammaln(0.5 * base.df, size))[..., None]
        + base.df * gaussian.log_determinant(base.scale_tril)
        - df[..., None] * gaussian.log_determinant(tril)
    )
    of_means = jnp.log(base.kappa) - jnp.log(kappa) - counts * LOG_PI
    return of_blocks.sum(-1) + 0.5 * sums.shape[-1] * of_means.sum(-1)


def shape_of(base: BaseMeasure) -> tuple[int, int, int]:
    """Blocks B, their size d, and how many dimensions R each of their entries holds for."""
    blocks, size = base.scale_tril.shape[-3], base.scale_tril.shape[-1]
    return blocks, size, base.mean.shape[-1] // (blocks * size)


def in_blocks(x: Array, base: BaseMeasure) -> Array:
    """Vectors ``(..., D)`` as ``(..., B, d, R)``."""
    return x.reshape(*x.shape[:-1], *shape_of(base))


def product(x: Array, y: Array, base: BaseMeasure) -> Array:
    """``sum_r x_r y_r^T``, block by block: ``(..., D)`` twice to ``(..., B, d, d)``."""
    x, y = in_blocks(x, base), in_blocks(y, base)
    # No matrix product: a dozen numbers each, in batches of many axes.
    return jnp.sum(x[..., :, None, :] * y[..., None, :, :], axis=-1)


def times(blocks: Array, x: Array) -> Array:
    """Matrices ``(..., B, d, d)`` times vectors `in_blocks`, ``(..., B, d, R)``."""
    return jnp.sum(blocks[..., None] * x[..., None, :, :], axis=-2)


def coloured(blocks: Array, noise: Array, base: BaseMeasure) -> Array:
    """``L noise``, block by block: ``(..., D)``."""
    return times(blocks, in_blocks(noise, base)).reshape(noise.shape)


def scatter(counts: Array, sums: Array, squares: Array, base: BaseMeasure) -> Array:
    """``sum x x^T + kappa m m^T - kappa_n m_n m_n^T``, block by block, what points add to Psi: ``(..., B, d, d)``."""
    return squares - product(sums, sums, base) / (base.kappa + counts)[..., None, None, None]


def _transposed(matrices: Array) -> Array:
    return jnp.swapaxes(matrices, -1, -2)


def log_partition(counts: Array, concentration: Array) -> Array:
    """Log prior of a partition with these cluster sizes under the Chinese restaurant process.

    ``log Gamma(a) - log Gamma(a + n) + sum_{c: n_c > 0} log a + log Gamma(n_c)``. Shapes: ``counts (..., K)``,
    ``concentration (...)`` to ``(...)``; empty clusters do not count. Source: Antoniak (1974); Pitman (1995).
    """
    a, full = jnp.asarray(concentration), counts > 0
    of_clusters = jnp.where(full, jnp.log(a)[..., None] + gammaln(jnp.where(full, counts, 1.0)), 0.0)
    return gammaln(a) - gammaln(a + counts.sum(-1)) + of_clusters.sum(-1)


def log_posterior(members: Array, points: Array, concentration: Array, base: BaseMeasure, tied: bool = False) -> Array:
    """Log posterior of a partition of the points, up to the evidence: `log_partition` plus `log_marginal` of clusters.

    `tied`: all clusters share one covariance. Shapes: ``members (N, K)``, one-hot, ``points (N, D)``, ``concentration ()``
    to ``()``.
    """
    centred = points - base.mean
    counts, of_points = members.sum(0), product(centred, centred, base)
    statistics = counts, members.T @ centred, jnp.tensordot(members, of_points, axes=(0, 0))
    if tied:
        return log_partition(counts, concentration) + log_evidence(*statistics, base)
    return log_partition(counts, concentration) + jnp.where(counts > 0, log_marginal(*statistics, base), 0.0).sum()


def update(counts: Array, sums: Array, squares: Array, base: BaseMeasure, tied: bool = False) -> BaseMeasure:
    """Posterior of every cluster's mean and covariance, a `BaseMeasure` with leading axes: ``mean (K, D)`` and so on.

    ``kappa_n = kappa + n, df_n = df + R n, m_n = m + sum x / kappa_n, Psi_n = Psi + scatter``, with x measured from
    ``base.mean``; shapes as in `log_marginal`. `tied`: one ``Psi_N (1, B, d, d)`` and ``df_N (1,)`` from the first axis of
    clusters, of all. Source: Murphy (2007), eqs. 250 to 254.
    """
    repeats = shape_of(base)[2]
    kappa, added, df = base.kappa + counts, scatter(counts, sums, squares, base), base.df + repeats * counts
    if tied:
        added, df = added.sum(0, keepdims=True), base.df + repeats * counts.sum(keepdims=True)
    tril = gaussian.cholesky(base.scale_tril @ _transposed(base.scale_tril) + added)
    return BaseMeasure(base.mean + sums / kappa[..., None], kappa, df, tril)


def sample(key: Array, base: BaseMeasure) -> tuple[Array, Array]:
    """Means ``(K, D)`` and blocks ``(K, B, d, d)`` of factors, or ``(1, B, d, d)``, of a batch of `BaseMeasure`."""
    key_scale, key_mean = random.split(key)
    df = jnp.broadcast_to(base.df[..., None], base.scale_tril.shape[:-2])
    scale_trils = InverseWishartCholesky(df, base.scale_tril).sample(key_scale)
    noise = random.normal(key_mean, base.mean.shape, base.mean.dtype) / jnp.sqrt(base.kappa)[..., None]
    return base.mean + coloured(scale_trils, noise, base), scale_trils


def recentre(counts: Array, sums: Array, squares: Array, shift: Array, base: BaseMeasure) -> tuple[Array, Array, Array]:
    """The same statistics of points measured from a place ``shift (D,)`` further on: of ``x - shift``."""
    moved = sums - counts[..., None] * shift
    far = jnp.broadcast_to(shift, sums.shape)
    return counts, moved, squares - product(far, sums, base) - product(moved, far, base)


def sample_base(key: Array, means: Array, scale_trils: Array, held: Array, kappa: Array, prior) -> tuple[Array, Array]:
    """One Gibbs step for the base measure's mean, flat a priori, and then for ``kappa ~ Gamma(shape, rate)``.

    With ``mu_k | Sigma_k ~ N(m, Sigma_k / kappa)`` for the components that are `held`, ``(K,)`` bool, P their summed
    precisions: ``m ~ N(P^{-1} sum P_k mu_k, P^{-1} / kappa)``, and then
    ``kappa ~ Gamma(shape + D k/2, rate + sum |L_k^{-1}(mu_k - m)|^2 / 2)`` for k of them. `scale_trils` are in the smallest
    form, ``means (K, D)``. Source: West & Escobar (1993), section 3. Returns ``(D,)`` and ``()``.
    """
    key_mean, key_kappa = random.split(key)
    dim = means.shape[-1]
    diagonal = gaussian.is_diagonal(scale_trils, means)
    factors = (
        scale_trils[..., None] * jnp.eye(dim) if diagonal else jnp.broadcast_to(scale_trils, (len(means), dim, dim))
    )
    whiteners = jnp.where(held[:, None, None], gaussian.inverse(factors), 0.0)
    precisions = jnp.einsum("kfd,kfe->kde", whiteners, whiteners)
    tril = gaussian.cholesky(precisions.sum(0))
    whitener = gaussian.inverse(tril)
    centre = whitener @ jnp.einsum("kde,ke->d", precisions, means)
    mean = whitener.T @ (centre + random.normal(key_mean, (dim,), means.dtype) / jnp.sqrt(kappa))
    distance = jnp.sum(jnp.einsum("kde,ke->kd", whiteners, means - mean) ** 2)
    rate = prior.rate + 0.5 * distance
    return mean, random.gamma(key_kappa, prior.shape + 0.5 * dim * held.sum(), dtype=means.dtype) / rate
