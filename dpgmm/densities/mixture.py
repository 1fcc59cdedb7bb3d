"""The Gaussian mixture's log likelihood: value and gradient in one pass over the points, streamed in chunks.

With whitened residuals ``z_nk = P_k (x_n - mu_k)``, ``P_k = L_k^{-1}`` or the numbers on its diagonal, and
``c_k = log w_k + log|P_k| - D/2 log 2 pi``,

    log p(x) = sum_n omega_n logsumexp_k (c_k - |z_nk|^2 / 2).

The responsibilities ``r_nk`` that give the value also give the gradient, as moments of the residuals:
``d/dc = sum_n omega_n r_nk``, ``d/dmu = P^T sum_n omega_n r_nk z_nk``, ``d/dP = -sum_n omega_n r_nk z_nk (x_n - mu_k)^T``.
Half the time of reverse-mode differentiation on a CPU, and its memory does not grow with the number of points.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random

from . import gaussian

SMALL = 4
"""Dimensions below which outer products are formed one by one; above, a matrix product needs less memory and time."""
CHUNK = 65_536
"""Point-component pairs evaluated at a time: small enough for a CPU's cache, large enough to hide the loop."""


def log_likelihood(
    log_weights: Array, means: Array, scale_trils: Array, points: Array, point_weights: Array | None = None
) -> Array:
    """Log likelihood of weighted points, ``sum_n omega_n log sum_k w_k N(x_n | mu_k, L_k L_k^T)``, in nats.

    Shapes: ``log_weights (K,)``, ``means (K, D)``, ``points (N, D)``, ``point_weights (N,)`` (ones by default) to ``()``;
    ``scale_trils (K, D, D)``, or ``(1, D, D)``, ``(K, D)``, ``(K, 1)`` as in `dpgmm.posterior.Mixture`. Differentiable in
    the components; points and point weights are data.
    """
    omega = jnp.ones(points.shape[0], means.dtype) if point_weights is None else point_weights
    offsets, whiteners = _constants(log_weights, means, scale_trils)
    chunks = _chunks(points.astype(means.dtype), omega.astype(means.dtype), _width(log_weights, means))
    return _sum_over_points(offsets, means, whiteners, *chunks)


class Occupancy(NamedTuple):
    """What points say of the components, summed over points.

    - `log_likelihood` ``()``: as `log_likelihood`.
    - `counts` ``(K,)``: expected number of points in each component, ``sum_n omega_n r_nk``.
    - `log_empty` ``(K,)``: log probability that a component holds no point, ``sum_n omega_n log(1 - r_nk)``, a point of
      weight omega standing for omega points that are allocated independently.
    - `drawn` ``(K,)``: how many points each component got where every point, whatever its weight, was allocated once.
    """

    log_likelihood: Array
    counts: Array
    log_empty: Array
    drawn: Array


def occupancy(
    key: Array, log_weights: Array, means: Array, scale_trils: Array, points: Array, point_weights: Array
) -> Occupancy:
    """`Occupancy` of the components in one pass over the points; shapes as in `log_likelihood`, `key` for `drawn`."""
    offsets, whiteners = _constants(log_weights, means, scale_trils)
    chunks = _chunks(points.astype(means.dtype), point_weights.astype(means.dtype), _width(log_weights, means))
    uniforms = random.uniform(key, chunks[1].shape, means.dtype)
    size = log_weights.shape[-1]

    def some(offsets, means, whiteners, points, omega, uniforms):
        log_density, r = _responsibilities(offsets, means, whiteners, points)[2:]
        carries = omega > 0
        # A product of zero weight and minus infinity would be no number.
        empty = jnp.where(carries[:, None], jnp.log1p(-jnp.minimum(r, 1.0)), 0.0)
        total = jnp.cumsum(r, axis=-1)
        chosen = jnp.minimum(jnp.sum(total < uniforms[:, None] * total[:, -1:], axis=-1), size - 1)
        drawn = jnp.zeros(size, means.dtype).at[chosen].add(carries)
        return Occupancy(omega @ log_density, omega @ r, jnp.where(carries, omega, 1.0) @ empty, drawn)

    return _accumulate(some, (offsets, means, whiteners), (*chunks, uniforms))


def log_density(log_weights: Array, means: Array, scale_trils: Array, points: Array) -> Array:
    """Log density of the mixture at each point, nats. Shapes as in `log_likelihood`, to ``(N,)``."""
    return jax.nn.logsumexp(log_joint_density(log_weights, means, scale_trils, points), axis=-1)


def log_joint_density(log_weights: Array, means: Array, scale_trils: Array, points: Array) -> Array:
    """``log w_k + log N(x_n | mu_k, L_k L_k^T)``: its softmax over k is the responsibilities. Returns ``(N, K)``."""
    return log_weights + gaussian.log_density(points[:, None, :], means, scale_trils)


def factored(weights: Array, means: Array, covariances: Array) -> tuple[Array, Array, Array]:
    """Components as draws hold them, to ``(log_weights, means, scale_trils)`` as densities take them.

    A weight that has underflowed counts as the smallest number. Leading axes are kept; `covariances` are matrices or
    variances, see `dpgmm.gaussian.factor`.
    """
    return jnp.log(jnp.maximum(weights, jnp.finfo(weights.dtype).tiny)), means, gaussian.factor(covariances, means)


def _constants(log_weights: Array, means: Array, scale_trils: Array) -> tuple[Array, Array]:
    """``c_k`` and ``P_k`` of every component."""
    whiteners = 1 / scale_trils if gaussian.is_diagonal(scale_trils, means) else gaussian.inverse(scale_trils)
    log_determinant = gaussian.log_determinant(scale_trils, means)
    return log_weights - log_determinant - 0.5 * means.shape[-1] * gaussian.LOG_2PI, whiteners


def _width(log_weights: Array, means: Array) -> int:
    """Components that a chunk counts for: more in many dimensions."""
    return log_weights.shape[-1] * (1 + means.shape[-1] // 4)


def _chunks(points: Array, omega: Array, num_components: int) -> tuple[Array, Array]:
    """Points ``(C, N', D)`` and weights ``(C, N')``, the last chunk padded with points of weight zero."""
    size = max(1, min(points.shape[0], CHUNK // num_components))
    pad = -points.shape[0] % size
    padded = jnp.concatenate([points, jnp.broadcast_to(points[:1], (pad, points.shape[1]))])
    return padded.reshape(-1, size, points.shape[1]), jnp.pad(omega, (0, pad)).reshape(-1, size)


def _responsibilities(offsets: Array, means: Array, whiteners: Array, points: Array):
    """Residuals ``(N, K, D)``, whitened residuals ``(N, K, D)``, log density ``(N,)``, responsibilities ``(N, K)``."""
    residuals = points[:, None, :] - means
    whitened = _whitened(whiteners, residuals)
    joint = offsets - 0.5 * jnp.sum(whitened**2, axis=-1)
    peak = jnp.max(joint, axis=-1, keepdims=True)
    likelihood = jnp.exp(joint - peak)
    total = jnp.sum(likelihood, axis=-1, keepdims=True)
    return residuals, whitened, (jnp.log(total) + peak)[:, 0], likelihood / total


def _whitened(whiteners, residuals):
    if whiteners.ndim == 2:
        return residuals * whiteners
    if residuals.shape[-1] == 1:
        return residuals * whiteners[:, 0]
    if len(whiteners) == 1:
        return residuals @ whiteners[0].T
    return jnp.einsum("kde,nke->nkd", whiteners, residuals)


def _value(offsets, means, whiteners, points, omega):
    return omega @ _responsibilities(offsets, means, whiteners, points)[2]


def _value_and_gradient(offsets, means, whiteners, points, omega):
    residuals, whitened, log_density, responsibilities = _responsibilities(offsets, means, whiteners, points)
    share = responsibilities[..., None] * whitened
    # Sums over points as products with omega: a matrix-vector product is twice as fast as a reduction of columns here.
    total = lambda terms: jnp.tensordot(omega, terms, axes=1)
    first = total(share)
    if whiteners.ndim == 2:
        of_means, second = first * whiteners, total(share * residuals)
    elif means.shape[-1] < SMALL:
        of_means, second = _pulled(whiteners, first), total(share[..., :, None] * residuals[..., None, :])
    else:
        of_means = _pulled(whiteners, first)
        second = jnp.einsum("nkd,nke->kde", omega[:, None, None] * share, residuals)
    # What all components, or all dimensions, share is moved by all.
    shared = [axis for axis, length in enumerate(whiteners.shape) if length == 1 < second.shape[axis]]
    return omega @ log_density, (total(responsibilities), of_means, -jnp.sum(second, axis=shared, keepdims=True))


def _pulled(whiteners, vectors):
    """``P_k^T v_k``."""
    return vectors @ whiteners[0] if len(whiteners) == 1 else jnp.einsum("kde,kd->ke", whiteners, vectors)


def _accumulate(function, components, chunks):
    """Sum of ``function(*components, *chunk)`` over the chunks; no loop where there is one chunk."""
    if chunks[0].shape[0] == 1:
        return function(*components, *(c[0] for c in chunks))
    shapes = jax.eval_shape(function, *components, *(c[0] for c in chunks))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    step = lambda total, chunk: (jax.tree.map(jnp.add, total, function(*components, *chunk)), None)
    return jax.lax.scan(step, zeros, chunks)[0]


@jax.custom_vjp
def _sum_over_points(offsets, means, whiteners, points, omega):
    return _accumulate(_value, (offsets, means, whiteners), (points, omega))


def _forward(offsets, means, whiteners, points, omega):
    return _accumulate(_value_and_gradient, (offsets, means, whiteners), (points, omega))


def _backward(gradient, cotangent):
    return (*(cotangent * g for g in gradient), None, None)


_sum_over_points.defvjp(_forward, _backward)
