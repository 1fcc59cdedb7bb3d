"""Gaussian and normal-inverse-Wishart densities on Cholesky factors.

A covariance is carried by its lower Cholesky factor L, ``Sigma = L L^T``, in the smallest form of its type. Beside means
``(..., D)`` a factor is triangular, ``(..., D, D)``, or diagonal, ``(..., D)``, or one standard deviation for all
dimensions, ``(..., 1)``: the number of axes tells the first from the others. An axis of components of length 1 is a factor
that all share. For D = 1 the factor is the standard deviation and the inverse-Wishart is an inverse-gamma distribution of
the variance.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import multigammaln
from jaxtyping import Float

LOG_2PI = 1.8378770664093453
UNROLLED = 6
"""Dimensions up to which loops over rows are written out."""


class BaseMeasure(NamedTuple):
    """Normal-inverse-Wishart G0: ``Sigma ~ InverseWishart(df, T T^T)``, ``mu | Sigma ~ N(mean, Sigma / kappa)``.

    Sigma has B blocks of size d, independent a priori, each of which holds for R dimensions on end: ``D = B d R``. B = 1,
    d = D is a full covariance, B = D a diagonal one, R = D a spherical one. Shapes: ``mean (D,)``, ``kappa ()``,
    ``df ()`` (above d - 1), ``scale_tril (B, d, d)`` the lower Cholesky factors T of the blocks.
    """

    mean: Float[Array, "*K D"]
    kappa: Float[Array, "*K"]
    df: Float[Array, "*K"]
    scale_tril: Float[Array, "*K B d d"]


def diagonal(matrices: Float[Array, "*batch D D"]) -> Float[Array, "*batch D"]:
    """Diagonals of a batch of matrices."""
    return jnp.diagonal(matrices, axis1=-2, axis2=-1)


def is_diagonal(scale_tril: Float[Array, "..."], mean: Float[Array, "*batch D"]) -> bool:
    """Whether a factor that belongs to means ``(..., D)`` is diagonal, ``(..., D)`` or ``(..., 1)``."""
    return scale_tril.ndim == mean.ndim


def log_determinant(
    scale_tril: Float[Array, "..."], mean: Float[Array, "*batch D"] | None = None
) -> Float[Array, "..."]:
    """Log determinant of L, half of that of the covariance: ``(..., D, D)`` to ``(...)``.

    With `mean`, L may be diagonal, in any of the forms that the module speaks of.
    """
    if mean is not None and is_diagonal(scale_tril, mean):
        return jnp.sum(jnp.log(jnp.broadcast_to(scale_tril, (*scale_tril.shape[:-1], mean.shape[-1]))), axis=-1)
    return jnp.sum(jnp.log(diagonal(scale_tril)), axis=-1)


def factor(covariances: Float[Array, "..."], mean: Float[Array, "*batch D"]) -> Float[Array, "..."]:
    """Cholesky factors of covariances ``(..., D, D)``, of variances ``(..., D)``, or of one for all dimensions ``(...)``."""
    if covariances.ndim > mean.ndim:
        return cholesky(covariances)
    return jnp.sqrt(covariances if covariances.ndim == mean.ndim else covariances[..., None])


def colour(
    scale_tril: Float[Array, "..."], mean: Float[Array, "*means D"], noise: Float[Array, "*batch D"]
) -> Float[Array, "*batch D"]:
    """``L noise``, which has covariance Sigma where the noise is standard normal."""
    if is_diagonal(scale_tril, mean):
        return scale_tril * noise
    return jnp.einsum("...de,...e->...d", scale_tril, noise)


def inverse(scale_tril: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
    """Inverse of lower triangular factors by forward substitution; what stands above is not looked at.

    Not LAPACK's: on a CPU, jaxlib's batched LAPACK calls wait for threads of the pool that they run on, and where two of
    them meet the program stops for good (as jax issue 39257 has it for products). The same holds for `cholesky`.
    """
    return 1 / scale_tril if scale_tril.shape[-1] == 1 else _inverse(scale_tril)


def precision(whitener: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
    """``Sigma^{-1} = P^T P`` of ``P = L^{-1}``."""
    # No matrix product: under `vmap` it would have many batched axes.
    return jnp.sum(whitener[..., :, None] * whitener[..., None, :], axis=-3)


@jax.custom_jvp
def _inverse(lower: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
    identity = jnp.eye(lower.shape[-1], dtype=lower.dtype)

    def row(i, x):
        here = lower[..., i, :]
        rest = jnp.sum(here[..., :, None] * x, axis=-2)
        return x.at[..., i, :].set((identity[i] - rest) / here[..., i, None])

    return _loop(row, jnp.zeros_like(lower))


@_inverse.defjvp
def _inverse_jvp(primals, tangents):
    """``d L^{-1} = -L^{-1} dL L^{-1}``."""
    x = _inverse(*primals)
    return x, -x @ jnp.tril(tangents[0]) @ x


def cholesky(matrices: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
    """Lower Cholesky factors of positive definite matrices, column by column; NaN for others."""
    rows = jnp.arange(matrices.shape[-1])

    def column(j, carry):
        rest, lower = carry
        below = jnp.where(rows >= j, rest[..., j] / jnp.sqrt(rest[..., j, j, None]), 0.0)
        return rest - below[..., :, None] * below[..., None, :], lower.at[..., j].set(below)

    return _loop(column, (matrices, jnp.zeros_like(matrices)))[1]


def _loop(step, start):
    """A loop over the D rows or columns, unrolled where they are few."""
    dim = jax.tree.leaves(start)[0].shape[-1]
    if dim > UNROLLED:
        return jax.lax.fori_loop(0, dim, step, start)
    for i in range(dim):
        start = step(i, start)
    return start


def log_density(
    points: Float[Array, "*points D"], mean: Float[Array, "*means D"], scale_tril: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Log density of ``N(mean, L L^T)``: ``-D/2 log 2 pi - log|L| - |L^{-1}(x - mean)|^2 / 2``.

    ``scale_tril (..., D, D)`` or diagonal; leading axes broadcast, and are those of the result.
    """
    residual, log_det = points - mean, log_determinant(scale_tril, mean)
    if is_diagonal(scale_tril, mean):
        whitened = residual / scale_tril
    else:
        whitened = jnp.einsum("...de,...e->...d", inverse(scale_tril), residual)
    return -0.5 * (mean.shape[-1] * LOG_2PI + jnp.sum(whitened**2, axis=-1)) - log_det


def log_inverse_wishart(
    scale_tril: Float[Array, "*batch D D"], df: Float[Array, "*#batch"] | float, prior_tril: Float[Array, "*#batch D D"]
) -> Float[Array, "*batch"]:
    """Log density of the CHOLESKY FACTOR L of ``Sigma ~ InverseWishart(df, T T^T)``, on the lower triangle of L.

    ``df log|T| - df D/2 log 2 - log Gamma_D(df/2) - (df + D + 1) log|L| - |L^{-1} T|_F^2 / 2`` is the density of Sigma;
    the Jacobian of ``Sigma = L L^T`` adds ``D log 2 + sum_i (D - i + 1) log L_ii``, i from 1 (Muirhead 1982, thm 2.1.9).
    `prior_tril` is the factor T.
    """
    dim = scale_tril.shape[-1]
    trace = jnp.sum((inverse(scale_tril) @ prior_tril) ** 2, axis=(-2, -1))
    normaliser = df * log_determinant(prior_tril) - 0.5 * df * dim * jnp.log(2.0) - multigammaln(0.5 * df, dim)
    density = normaliser - (df + dim + 1) * log_determinant(scale_tril) - 0.5 * trace
    powers = jnp.arange(dim, 0, -1)
    return density + dim * jnp.log(2.0) + jnp.sum(powers * jnp.log(diagonal(scale_tril)), axis=-1)
