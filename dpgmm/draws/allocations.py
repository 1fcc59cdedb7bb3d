"""Which component each point came from: probabilities and draws, from the components of many draws, streamed.

An array ``(draws, N, K)`` is never held as a whole: what needs it takes it a chunk of draws at a time.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jaxtyping import Float, Int32, UInt

from ..densities import mixture

PAIRS = 4_000_000
"""Draw-point-component triples evaluated at a time: 32 MB of float64."""


@jax.jit
def probabilities(
    weights: Float[Array, "T K"],
    means: Float[Array, "T K D"],
    covariances: Float[Array, "T ..."],
    points: Float[Array, "N D"],
) -> Float[Array, "T N K"]:
    """``p[t, n, k] = w_tk N(x_n | mu_tk, Sigma_tk) / sum_j w_tj N(x_n | mu_tj, Sigma_tj)``.

    Shapes: ``weights (T, K)``, ``means (T, K, D)``, ``points (N, D)`` to ``(T, N, K)``; ``covariances (T, K, D, D)``, or
    ``(T, 1, D, D)``, ``(T, K, D)``, ``(T, K)`` as in `dpgmm.draws.spread`.
    """
    return jax.nn.softmax(_log_joint(weights, means, covariances, points), axis=-1)


@jax.jit
def sample(
    key: Array,
    weights: Float[Array, "T K"],
    means: Float[Array, "T K D"],
    covariances: Float[Array, "T ..."],
    points: Float[Array, "N D"],
) -> Int32[Array, "T N"]:
    """One allocation of every point in every draw, from its `probabilities`. Same shapes, to ``(T, N)`` int32."""
    return random.categorical(key, _log_joint(weights, means, covariances, points)).astype(jnp.int32)


def chunks(num_draws: int, num_points: int, num_components: int) -> Iterator[slice]:
    """Slices of draws, each of at most `PAIRS` draw-point-component triples and at least one draw."""
    size = max(1, PAIRS // (num_points * num_components))
    return (slice(start, start + size) for start in range(0, num_draws, size))


def draw(
    key: Array,
    weights: Float[np.ndarray, "T K"],
    means: Float[np.ndarray, "T K D"],
    covariances: Float[np.ndarray, "T ..."],
    points: Float[np.ndarray, "N D"],
) -> UInt[np.ndarray, "T N"]:
    """`sample` for many draws, chunk by chunk, ``(T, N)`` in the smallest integer type that holds K."""
    num_draws, num_components = weights.shape
    out = np.empty((num_draws, len(points)), np.min_scalar_type(num_components))
    for i, part in enumerate(chunks(num_draws, len(points), num_components)):
        out[part] = sample(random.fold_in(key, i), weights[part], means[part], covariances[part], points)
    return out


def _log_joint(
    weights: Float[Array, "T K"],
    means: Float[Array, "T K D"],
    covariances: Float[Array, "T ..."],
    points: Float[Array, "N D"],
) -> Float[Array, "T N K"]:
    return mixture.of_draws(mixture.log_joint_density, mixture.factored(weights, means, covariances), points)
