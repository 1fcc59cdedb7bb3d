"""The concentration of a Dirichlet process: its gamma prior, integrals over it, and Gibbs steps for it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from jaxtyping import Float
from scipy.stats import gamma

from ..errors import InputError

STEP = 0.1
"""Distance of nodes in log a, at most. The integrand is analytic for ``|Im log a| < pi/2`` and dies at both ends, so that a
trapezoid's error is about ``exp(-pi^2 / STEP)``, less than that of rounding."""
NODES = 1_000_000
"""Nodes at most."""
NATS = 45.0
"""How far the integrand falls before it is cut off, at either end."""
SMALLEST = -700.0
"""Smallest log a: below, numbers underflow."""


class Concentration(NamedTuple):
    """``a ~ Gamma(shape, rate)``, mean ``shape / rate``."""

    shape: float
    rate: float

    @property
    def mean(self) -> Float[Array, ""]:
        """``shape / rate``: where chains and optimisers start."""
        return jnp.asarray(self.shape / self.rate)

    def log_density(self, a: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Log prior density of a."""
        return jax.scipy.stats.gamma.logpdf(a, self.shape, scale=1 / self.rate)

    def program(self) -> Float[Array, ""]:
        """The same in NumPyro: site ``concentration``."""
        return jnp.asarray(numpyro.sample("concentration", dist.Gamma(self.shape, self.rate)))


def nodes(prior: Concentration | float, num_points: int) -> tuple[Float[np.ndarray, " Q"], Float[np.ndarray, " Q"]]:
    """Nodes ``a (Q,)`` and log weights ``(Q,)`` of an integral over the prior of a; a fixed value is one node.

    For integrands like ``a^k Gamma(a) / Gamma(a + n)``, with n up to `num_points`: trapezoid over log a, of which such an
    integrand has a standard deviation of ``(shape + n)^{-1/2}`` or more. Raises `InputError` where the prior itself does
    not integrate to one, its shape being too small or too large.
    """
    if not isinstance(prior, Concentration):
        return np.array([float(prior)]), np.zeros(1)
    shape, rate = prior
    low = max(SMALLEST, -NATS / shape - max(0.0, np.log(rate)))
    high = np.log((2 * NATS + 4 * (shape + num_points)) / rate)
    step = min(STEP, 0.5 / np.sqrt(shape + num_points))
    log_a = np.linspace(low, high, int(min(NODES, np.ceil((high - low) / step))))
    a = np.exp(log_a)
    log_weights = gamma.logpdf(a, shape, scale=1 / rate) + log_a + np.log(log_a[1] - log_a[0])
    if abs(np.exp(log_weights).sum() - 1) > 1e-6:
        raise InputError(
            f"concentration ~ Gamma({shape:g}, {rate:g}): it cannot be integrated out by quadrature; give a shape between"
            " 0.03 and a million, or a fixed concentration"
        )
    return a, log_weights


def given_clusters(
    key: Array, a: Float[Array, ""], num_clusters: int | Array, num_points: int | Array, prior: Concentration
) -> Float[Array, ""]:
    """One Gibbs step of a given a partition into `num_clusters` clusters, under the Chinese restaurant process.

    ``eta ~ Beta(a + 1, n)``, then a from a mixture of ``Gamma(shape + k, r)`` and ``Gamma(shape + k - 1, r)`` with
    ``r = rate - log eta`` and odds ``(shape + k - 1) / (n r)``. Source: Escobar & West (1995), eqs. 13 and 14.
    """
    key_eta, key_side, key_a = random.split(key, 3)
    rate = prior.rate - _log_beta(key_eta, a + 1, jnp.asarray(num_points, a.dtype))
    odds = (prior.shape + num_clusters - 1) / (num_points * rate)
    more = random.uniform(key_side, dtype=a.dtype) * (1 + odds) < odds
    return random.gamma(key_a, prior.shape + num_clusters - jnp.where(more, 0, 1), dtype=a.dtype) / rate


def given_sticks(
    key: Array, log_last: Float[Array, ""], num_sticks: int | Array, prior: Concentration
) -> Float[Array, ""]:
    """a given sticks ``v_k ~ Beta(1, a)``: ``Gamma(shape + m, rate - sum_k log(1 - v_k))``, the sum being `log_last`.

    Source: Ishwaran & Zarepour (2000), section 3.
    """
    return random.gamma(key, prior.shape + num_sticks, dtype=log_last.dtype) / (prior.rate - log_last)


def slice_step(key: Array, log_density, x: Float[Array, ""], width: float = 1.0) -> Float[Array, ""]:
    """One slice-sampling update of a scalar, by stepping out and shrinking (Neal 2003, figures 3 and 5)."""
    key_height, key_place, key_shrink = random.split(key, 3)
    height = log_density(x) - random.exponential(key_height, dtype=x.dtype)
    left = x - width * random.uniform(key_place, dtype=x.dtype)
    inside = lambda y: log_density(y) > height
    left, right = (
        jax.lax.while_loop(inside, lambda y, step=step: y + step, start)
        for start, step in ((left, -width), (left + width, width))
    )

    def shrink(state):
        key, left, right, _ = state
        key, now = random.split(key)
        y = left + (right - left) * random.uniform(now, dtype=x.dtype)
        accepted = inside(y)
        left = jnp.where(~accepted & (y < x), y, left)
        return key, left, jnp.where(~accepted & (y >= x), y, right), jnp.where(accepted, y, jnp.nan)

    return jax.lax.while_loop(lambda s: jnp.isnan(s[3]), shrink, (key_shrink, left, right, jnp.full_like(x, jnp.nan)))[
        3
    ]


def _log_beta(key: Array, alpha: Float[Array, ""], beta: Float[Array, ""]) -> Float[Array, ""]:
    """Logarithm of a Beta(alpha, beta) draw."""
    key_a, key_b = random.split(key)
    a, b = random.loggamma(key_a, alpha), random.loggamma(key_b, beta)
    return a - jnp.logaddexp(a, b)
