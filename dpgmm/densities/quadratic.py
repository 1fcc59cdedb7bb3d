"""Log densities of many points under many Gaussians as one product: coefficients of the components, features of the points.

    ``c_k + b_k^T x - x^T A_k x / 2 = coefficients_k . features(x)``, with features ``(1, x, x x^T)``.

A matrix product is the fastest thing that a machine does, and the sums that everything else is made of, of
responsibilities times ``(1, x, x x^T)``, are the product's transpose. Precisions ``A_k`` have B blocks of size d, each
of which holds for R dimensions on end, ``D = B d R``, as in `dpgmm.gaussian.BaseMeasure`. Points are columns, ``(D, N)``.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

Shape = tuple[int, int, int]
"""``(B, d, R)``."""


def features(x: Float[Array, "D N"], shape: Shape) -> Float[Array, "F N"]:
    """One, x, and the lower triangles of the blocks of ``x x^T``: ``F = 1 + D + B d (d + 1)/2``."""
    rows, columns = np.tril_indices(shape[1])
    blocks = x.reshape(*shape, x.shape[1])
    squares = jnp.sum(blocks[:, rows] * blocks[:, columns], axis=2)
    return jnp.concatenate([jnp.ones_like(x[:1]), x, squares.reshape(-1, x.shape[1])])


def coefficients(
    constant: Float[Array, " K"], linear: Float[Array, "K D"], precision: Float[Array, "#K B d d"]
) -> Float[Array, "K F"]:
    """``(K, F)`` of ``c (K,)``, ``b (K, D)`` and ``A (K, B, d, d)`` or ``(1, B, d, d)``."""
    rows, columns = np.tril_indices(precision.shape[-1])
    squares = precision[..., rows, columns] * np.where(rows == columns, -0.5, -1.0).astype(precision.dtype)
    count = len(constant)
    squares = jnp.broadcast_to(squares.reshape(len(squares), -1), (count, squares[0].size))
    return jnp.concatenate([constant[:, None], linear, squares], axis=1)


def joint(by: Float[Array, "K F"], features: Float[Array, "F N"]) -> Float[Array, "K N"]:
    """Coefficients times features, in the type of the features."""
    return by.astype(features.dtype) @ features


def sums(
    by: Float[Array, "K F"], features: Float[Array, "F N"], likelihood: Float[Array, "K N"], shares: Float[Array, " N"]
) -> Float[Array, "K F"]:
    """``sum_n likelihood_kn shares_n features_fn``, the derivative along coefficients; in the type of these."""
    if features.dtype == by.dtype:
        return likelihood @ (shares * features).T
    # Weights of points may lie beyond the range of the smaller type.
    largest = jnp.maximum(jnp.max(shares), jnp.finfo(by.dtype).tiny)
    return largest * (likelihood @ ((shares / largest).astype(features.dtype) * features).T).astype(by.dtype)


def moments(
    sums: Float[Array, "K F"], dim: int, shape: Shape
) -> tuple[Float[Array, " K"], Float[Array, "K D"], Float[Array, "K B d d"]]:
    """Sums of `features` as sums of one, ``(K,)``, of x, ``(K, D)``, and of ``x x^T``, ``(K, B, d, d)``."""
    rows, columns = np.tril_indices(shape[1])
    triangles = sums[:, 1 + dim :].reshape(len(sums), shape[0], -1)
    squares = jnp.zeros((len(sums), *shape[:2], shape[1]), sums.dtype)
    squares = squares.at[..., rows, columns].set(triangles).at[..., columns, rows].set(triangles)
    return sums[:, 0], sums[:, 1 : 1 + dim], squares


def times(blocks: Float[Array, "*#batch B d d"], x: Float[Array, "*batch B d R"]) -> Float[Array, "*batch B d R"]:
    """Matrices times vectors, both in blocks."""
    return jnp.sum(blocks[..., None] * x[..., None, :, :], axis=-2)
