"""Stick-breaking weights, always in log space (Sethuraman 1994; Ishwaran & James 2001).

Sticks ``v_k``, ``k < K``, with ``v_K = 1``, give weights ``w_k = v_k prod_{j<k} (1 - v_j)``. A stick is carried by its
logit, so that neither ``v`` near 1 nor a weight near 0 loses a digit. Three densities live here, of the same
distribution under ``v_k ~ Beta(1, a)``, each with respect to another variable: the sticks, their logits, the weights.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import log_sigmoid, logsumexp
from jaxtyping import Float
from scipy.special import gammaln, kve

FEWEST, MOST = 20, 50
"""Components by default, at least and at most: data may hold more clusters than the prior expects."""
NEGLIGIBLE = 0.01
"""Bound of Ishwaran & James below which a default truncation is not noticed."""


def log_weights(logits: Float[Array, "*batch sticks"]) -> Float[Array, "*batch sticks+1"]:
    """Log weights of the sticks whose logits are given: ``log v_k + sum_{j<k} log(1 - v_j)``.

    The result is normalised by construction.
    """
    end = jnp.zeros((*logits.shape[:-1], 1), logits.dtype)  # No stick at all is one component.
    log_stick = jnp.concatenate([log_sigmoid(logits), end], axis=-1)
    log_remaining = jnp.concatenate([end, jnp.cumsum(log_sigmoid(-logits), axis=-1)], axis=-1)
    return log_stick + log_remaining


def log_remaining(log_weights: Float[Array, "*batch K"]) -> Float[Array, "*batch K"]:
    """Log mass not used before each component: ``log sum_{j>=k} w_j``.

    A reversed cumulative logsumexp; one minus a running sum would cancel to nothing in float32.
    """
    return jax.lax.cumlogsumexp(log_weights, axis=log_weights.ndim - 1, reverse=True)


def logits(log_weights: Float[Array, "*batch K"]) -> Float[Array, "*batch K-1"]:
    """Inverse of `log_weights`: ``log v_k - log(1 - v_k) = log w_k - log sum_{j>k} w_j``.

    The log weights need not be normalised.
    """
    return log_weights[..., :-1] - log_remaining(log_weights)[..., 1:]


def log_density_logits(
    logits: Float[Array, "*batch sticks"], concentration: Float[Array, "*#batch"] | float
) -> Float[Array, "*batch"]:
    """Log density of stick LOGITS, ``sum_k log a + log v_k + a log(1 - v_k)``, for ``v_k ~ Beta(1, a)``.

    The Jacobian ``v (1 - v)`` is included.
    """
    a = jnp.asarray(concentration)[..., None]
    return jnp.sum(jnp.log(a) + log_sigmoid(logits) + a * log_sigmoid(-logits), axis=-1)


def log_density_sticks(
    log_weights: Float[Array, " K"], concentration: Float[Array, ""] | float, num_sticks: int | None = None
) -> Float[Array, ""]:
    """Log density of the first m STICKS, given by log weights: ``m log a + (a - 1) logsumexp(log_weights[m:])``.

    `log_weights` are normalised; m is `num_sticks`, by default ``K - 1``.
    It rests on ``sum_{k<=m} log(1 - v_k) = log sum_{k>m} w_k``: no division and no running difference.
    """
    m = log_weights.shape[-1] - 1 if num_sticks is None else num_sticks
    return m * jnp.log(concentration) + (concentration - 1) * logsumexp(log_weights[..., m:], axis=-1)


def log_density_weights(log_weights: Float[Array, " K"], concentration: Float[Array, ""] | float) -> Float[Array, ""]:
    """Log density of the WEIGHTS ``(w_1 .. w_{K-1})``: that of the sticks times ``prod_k 1 / (mass before stick k)``.

    `log_weights` are normalised.
    """
    return log_density_sticks(log_weights, concentration) - jnp.sum(log_remaining(log_weights)[..., 1:-1], axis=-1)


def default_rate(num_points: float) -> float:
    """Rate of the default prior of the concentration, ``a ~ Gamma(1, log N)``, at least 1.

    N points from a Dirichlet process fall into about ``1 + a log N`` clusters on average (Antoniak 1974): two at
    ``E[a] = 1 / log N``, however many points there are. A prior that does not look at N expects ever more clusters.
    """
    return max(1.0, math.log(num_points))


def default_truncation(num_points: float, shape: float, rate: float) -> int:
    """Smallest number of components K, in 20 .. 50, at which `mean_bound` is at most 0.01.

    The bound speaks of densities under the prior, hence the floor: data may hold more clusters than the prior expects. It
    is one for sticks; symmetric Dirichlet weights, which tend to the process more slowly, get the same number.
    """
    enough = (k for k in range(FEWEST, MOST) if mean_bound(num_points, k, shape, rate) <= NEGLIGIBLE)
    return next(enough, MOST)


def mean_bound(num_points: float, num_components: int, shape: float, rate: float) -> float:
    """``E[4 N exp(-(K - 1) / a)]`` for ``a ~ Gamma(shape, rate)``, how far K components are from all of them.

    ``4 N * 2 (r m)^{s/2} K_s(2 sqrt(r m)) / Gamma(s)`` with m = K - 1 and the modified Bessel function K_s; infinite where
    that is beyond floating point. Source: Ishwaran & James (2001), theorem 2, for a given a.
    """
    if num_components == 1:
        return 4.0 * num_points
    z = 2 * math.sqrt(rate * (num_components - 1))
    with np.errstate(all="ignore"):
        log_mean = math.log(2) + shape * math.log(z / 2) + np.log(kve(shape, z)) - z - gammaln(shape)
        value = float(4 * num_points * np.exp(log_mean))
    return value if math.isfinite(value) else math.inf
