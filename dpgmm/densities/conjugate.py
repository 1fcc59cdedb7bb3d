"""What conjugacy integrates out: the parameters of a cluster, and the weights behind a partition."""

import jax.numpy as jnp
from jax import Array, random
from jax.scipy.special import gammaln, multigammaln
from jaxtyping import Bool, Float, Num

from . import gaussian, quadratic
from .distributions import InverseWishartCholesky
from .gaussian import BaseMeasure

LOG_PI = 1.1447298858494002


def log_marginal(
    counts: Float[Array, "*batch"],
    sums: Float[Array, "*batch D"],
    squares: Float[Array, "*batch B d d"],
    base: BaseMeasure,
) -> Float[Array, "*batch"]:
    """Log marginal likelihood of a cluster of weighted points, its mean and covariance integrated out, nats.

    For each of B blocks, whose covariance holds for R dimensions on end, ``log Gamma_d(df_n/2) - log Gamma_d(df/2)
    + df/2 log|Psi| - df_n/2 log|Psi_n| + d R/2 log(kappa/kappa_n) - n d R/2 log pi``
    with ``df_n = df + R n``, ``kappa_n = kappa + n``, ``Psi_n = Psi + sum x x^T + kappa m m^T - kappa_n m_n m_n^T``. Zero
    for an empty cluster. The arguments are sums of ``omega``, ``omega x`` and `product` of ``omega x`` and x, with x
    measured from ``base.mean``. Source: Murphy (2007),
    eq. 266.
    """
    return log_evidence(counts[..., None], sums[..., None, :], squares[..., None, :, :, :], base)


def log_evidence(
    counts: Float[Array, "*batch K"],
    sums: Float[Array, "*batch K D"],
    squares: Float[Array, "*batch K B d d"],
    base: BaseMeasure,
) -> Float[Array, "*batch"]:
    """`log_marginal` of K clusters with ONE covariance.

    The covariance sees the scatter of all clusters, ``Psi_N = Psi + sum_k scatter_k`` and ``df_N = df + R sum_k n_k``; each
    has its mean, and brings ``d R/2 log(kappa/kappa_k)``. For K = 1 it is that of one cluster.
    """
    _, size, repeats = shape_of(base)
    df, kappa = base.df + repeats * counts.sum(-1), base.kappa + counts
    tril = gaussian.cholesky(
        base.scale_tril @ _transposed(base.scale_tril) + scatter(counts, sums, squares, base).sum(-4)
    )
    blocks_term = (
        (multigammaln(0.5 * df, size) - multigammaln(0.5 * base.df, size))[..., None]
        + base.df * gaussian.log_determinant(base.scale_tril)
        - df[..., None] * gaussian.log_determinant(tril)
    )
    means_term = jnp.log(base.kappa) - jnp.log(kappa) - counts * LOG_PI
    return blocks_term.sum(-1) + 0.5 * sums.shape[-1] * means_term.sum(-1)


def shape_of(base: BaseMeasure) -> tuple[int, int, int]:
    """Blocks B, their size d, and how many dimensions R each of their entries holds for."""
    blocks, size = base.scale_tril.shape[-3], base.scale_tril.shape[-1]
    return blocks, size, base.mean.shape[-1] // (blocks * size)


def in_blocks(x: Float[Array, "*batch D"], base: BaseMeasure) -> Float[Array, "*batch B d R"]:
    """Vectors in blocks, ``D = B d R``."""
    return x.reshape(*x.shape[:-1], *shape_of(base))


def product(
    x: Float[Array, "*batch D"], y: Float[Array, "*batch D"], base: BaseMeasure
) -> Float[Array, "*batch B d d"]:
    """``sum_r x_r y_r^T``, block by block."""
    x, y = in_blocks(x, base), in_blocks(y, base)
    # No matrix product: a dozen numbers each, in batches of many axes.
    return jnp.sum(x[..., :, None, :] * y[..., None, :, :], axis=-1)


def coloured(
    blocks: Float[Array, "*#batch B d d"], noise: Float[Array, "*batch D"], base: BaseMeasure
) -> Float[Array, "*batch D"]:
    """``L noise``, block by block."""
    return quadratic.times(blocks, in_blocks(noise, base)).reshape(noise.shape)


def scatter(
    counts: Float[Array, "*batch"],
    sums: Float[Array, "*batch D"],
    squares: Float[Array, "*batch B d d"],
    base: BaseMeasure,
) -> Float[Array, "*batch B d d"]:
    """``sum x x^T + kappa m m^T - kappa_n m_n m_n^T``, block by block, what points add to Psi."""
    return squares - product(sums, sums, base) / (base.kappa + counts)[..., None, None, None]


def _transposed(matrices: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
    return jnp.swapaxes(matrices, -1, -2)


def log_partition(
    counts: Num[Array, "*batch K"], concentration: Float[Array, "*#batch"] | float
) -> Float[Array, "*batch"]:
    """Log prior of a partition with these cluster sizes under the Chinese restaurant process.

    ``log Gamma(a) - log Gamma(a + n) + sum_{c: n_c > 0} log a + log Gamma(n_c)``. Empty clusters do
    not count. Source: Antoniak (1974); Pitman (1995).
    """
    a, full = jnp.asarray(concentration), counts > 0
    clusters_term = jnp.where(full, jnp.log(a)[..., None] + gammaln(jnp.where(full, counts, 1.0)), 0.0)
    return gammaln(a) - gammaln(a + counts.sum(-1)) + clusters_term.sum(-1)


def log_posterior(
    members: Float[Array, "N K"],
    points: Float[Array, "N D"],
    concentration: Float[Array, ""] | float,
    base: BaseMeasure,
    *,
    tied: bool = False,
) -> Float[Array, ""]:
    """Log posterior of a partition of the points, up to the evidence: `log_partition` plus `log_marginal` of clusters.

    `tied`: all clusters share one covariance. `members` are one-hot.
    """
    centred = points - base.mean
    counts, points_term = members.sum(0), product(centred, centred, base)
    statistics = counts, members.T @ centred, jnp.tensordot(members, points_term, axes=(0, 0))
    if tied:
        return log_partition(counts, concentration) + log_evidence(*statistics, base)
    return log_partition(counts, concentration) + jnp.where(counts > 0, log_marginal(*statistics, base), 0.0).sum()


def update(
    counts: Float[Array, "*K"],
    sums: Float[Array, "*K D"],
    squares: Float[Array, "*K B d d"],
    base: BaseMeasure,
    *,
    tied: bool = False,
) -> BaseMeasure:
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


def sample(key: Array, base: BaseMeasure) -> tuple[Float[Array, "K D"], Float[Array, "#K B d d"]]:
    """Means ``(K, D)`` and blocks ``(K, B, d, d)`` of factors, or ``(1, B, d, d)``, of a batch of `BaseMeasure`."""
    key_scale, key_mean = random.split(key)
    df = jnp.broadcast_to(base.df[..., None], base.scale_tril.shape[:-2])
    scale_trils = InverseWishartCholesky(df, base.scale_tril).sample(key_scale)
    noise = random.normal(key_mean, base.mean.shape, base.mean.dtype) / jnp.sqrt(base.kappa)[..., None]
    return base.mean + coloured(scale_trils, noise, base), scale_trils


def recentre(
    counts: Float[Array, "*batch"],
    sums: Float[Array, "*batch D"],
    squares: Float[Array, "*batch B d d"],
    shift: Float[Array, " D"],
    base: BaseMeasure,
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch D"], Float[Array, "*batch B d d"]]:
    """The same statistics of points measured from a place `shift` further on: of ``x - shift``."""
    moved = sums - counts[..., None] * shift
    far = jnp.broadcast_to(shift, sums.shape)
    return counts, moved, squares - product(far, sums, base) - product(moved, far, base)


def sample_base(
    key: Array,
    means: Float[Array, "K D"],
    scale_trils: Float[Array, "..."],
    held: Bool[Array, " K"],
    kappa: Float[Array, ""] | float,
    prior,
) -> tuple[Float[Array, " D"], Float[Array, ""]]:
    """One Gibbs step for the base measure's mean, flat a priori, and then for ``kappa ~ Gamma(shape, rate)``.

    With ``mu_k | Sigma_k ~ N(m, Sigma_k / kappa)`` for the components that are `held`, P their summed
    precisions: ``m ~ N(P^{-1} sum P_k mu_k, P^{-1} / kappa)``, and then
    ``kappa ~ Gamma(shape + D k/2, rate + sum |L_k^{-1}(mu_k - m)|^2 / 2)`` for k of them. `scale_trils` are in the smallest
    form. Source: West & Escobar (1993), section 3.
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
