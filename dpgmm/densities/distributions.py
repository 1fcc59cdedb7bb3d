# NumPyro annotates none of what a subclass may narrow.
# pyright: reportIncompatibleMethodOverride=false, reportAssignmentType=false, reportArgumentType=false
"""The densities of `sticks`, `gaussian` and `mixture` as NumPyro distributions, so that both statements share them."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, random
from jax.core import Tracer
from numpyro.distributions import constraints

from . import gaussian, mixture, sticks

MOST_SQUARES = 32
"""Degrees of freedom up to which chi variables are drawn as sums of squares."""


class StickLogits(dist.Distribution):
    """Logits of ``num_sticks`` sticks ``v_k ~ Beta(1, concentration)``. Event shape ``(num_sticks,)``."""

    arg_constraints = {"concentration": constraints.positive}  # noqa: RUF012
    support = constraints.real_vector
    pytree_data_fields = ("concentration",)
    pytree_aux_fields = ("num_sticks",)

    def __init__(self, concentration, num_sticks, *, validate_args=None):
        self.concentration, self.num_sticks = concentration, num_sticks
        super().__init__(jnp.shape(concentration), (num_sticks,), validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        """Draws ``logit v`` from ``log(1 - v) ~ -Exponential(concentration)``, which holds for tiny ``v`` too."""
        shape = self.shape(sample_shape)
        waiting = random.exponential(key, shape) / jnp.expand_dims(self.concentration, -1)
        return jnp.log(-jnp.expm1(-waiting)) + waiting

    def log_prob(self, value):
        """`sticks.log_density_logits`."""
        return sticks.log_density_logits(value, self.concentration)


class LogGammas(dist.Distribution):
    """Logs of ``size`` independent Gamma(shape, 1) masses; normalised they are Dirichlet(shape). Event ``(size,)``."""

    arg_constraints = {"gamma_shape": constraints.positive}  # noqa: RUF012
    support = constraints.real_vector
    pytree_data_fields = ("gamma_shape",)
    pytree_aux_fields = ("size",)

    def __init__(self, gamma_shape, size, *, validate_args=None):
        self.gamma_shape, self.size = gamma_shape, size
        super().__init__(jnp.shape(gamma_shape), (size,), validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        """Draws in log space: a shape near zero underflows otherwise."""
        shape = jnp.broadcast_to(jnp.expand_dims(self.gamma_shape, -1), self.shape(sample_shape))
        return random.loggamma(key, shape)

    def log_prob(self, value):
        """``sum_k shape x_k - exp(x_k) - log Gamma(shape)``: the Jacobian of the log is included."""
        shape = jnp.expand_dims(self.gamma_shape, -1)
        return jnp.sum(shape * value - jnp.exp(value) - jax.scipy.special.gammaln(shape), axis=-1)


class InverseWishartCholesky(dist.Distribution):
    """Lower Cholesky factor of ``Sigma ~ InverseWishart(df, T T^T)``, T = `scale_tril`. Event shape ``(D, D)``."""

    arg_constraints = {"df": constraints.positive, "scale_tril": constraints.lower_cholesky}  # noqa: RUF012
    support = constraints.lower_cholesky
    reparametrized_params = ()
    pytree_data_fields = ("df", "scale_tril")

    def __init__(self, df, scale_tril, *, validate_args=None):
        self.df, self.scale_tril = df, scale_tril
        super().__init__(jnp.shape(df), jnp.shape(scale_tril)[-2:], validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        """Bartlett: Sigma = T W^{-1} T^T with W ~ Wishart(df, I) = A A^T, so its factor is that of ``(A^{-1} T^T)``."""
        dim = self.event_shape[-1]
        shape = (*sample_shape, *self.batch_shape)
        key_normal, key_gamma = random.split(key)
        lower = jnp.tril(random.normal(key_normal, (*shape, dim, dim)), -1)
        halves = 0.5 * (jnp.expand_dims(self.df, -1) - jnp.arange(dim))
        scales = jnp.sqrt(2 * random.gamma(key_gamma, halves, (*shape, dim)))
        return inverse_wishart_factor(lower + scales[..., None] * jnp.eye(dim), self.scale_tril)

    def log_prob(self, value):
        """`gaussian.log_inverse_wishart`: a density of the Cholesky factor."""
        return gaussian.log_inverse_wishart(value, self.df, self.scale_tril)


def bartlett(key: Array, df: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Lower factors A of ``A A^T ~ Wishart(df, I)``, ``shape (..., d, d)``: chi variables on the diagonal (Bartlett 1933).

    A whole number of degrees of freedom is a sum of so many squares, which takes a tenth of the time of a gamma variable.
    """
    key_below, key_diagonal = random.split(key)
    size = shape[-1]
    whole = not isinstance(df, Tracer) and float(df) == round(float(df)) <= MOST_SQUARES
    if whole:
        squares = random.normal(key_diagonal, (*shape[:-1], round(float(df))), dtype) ** 2
        used = jnp.arange(squares.shape[-1]) < squares.shape[-1] - jnp.arange(size)[:, None]
        diagonal = jnp.sqrt(jnp.sum(jnp.where(used, squares, 0.0), axis=-1))
    else:
        halves = jnp.broadcast_to(0.5 * (df - jnp.arange(size)), shape[:-1]).astype(dtype)
        diagonal = jnp.sqrt(2 * random.gamma(key_diagonal, halves, dtype=dtype))
    if size == 1:
        return diagonal[..., None]
    below = jnp.tril(random.normal(key_below, shape, dtype), -1)
    return below + diagonal[..., None] * jnp.eye(size, dtype=dtype)


def inverse_wishart_factor(bartlett, scale_tril):
    """Factor of ``T W^{-1} T^T``, ``W = A A^T``, from T and A = `bartlett`: ``(..., D, D)``."""
    if bartlett.shape[-1] == 1:
        return scale_tril / bartlett
    half = gaussian.inverse(bartlett) @ jnp.swapaxes(scale_tril, -1, -2)
    return gaussian.cholesky(jnp.swapaxes(half, -1, -2) @ half)


class GaussianMixture(dist.Distribution):
    """Weighted points from a Gaussian mixture: one event ``(N, D)``, its log density the mixture log likelihood."""

    arg_constraints = {"log_weights": constraints.real_vector}  # noqa: RUF012
    support = constraints.independent(constraints.real, 2)
    pytree_data_fields = ("log_weights", "means", "scale_trils", "point_weights")

    def __init__(self, log_weights, means, scale_trils, point_weights, *, validate_args=None):
        self.log_weights, self.means, self.scale_trils = log_weights, means, scale_trils
        self.point_weights = point_weights
        event = (jnp.shape(point_weights)[-1], jnp.shape(means)[-1])
        super().__init__(jnp.shape(log_weights)[:-1], event, validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        """Draws N points, each from a component of its own."""
        key_label, key_noise = random.split(key)
        labels = random.categorical(key_label, self.log_weights, shape=(*sample_shape, self.event_shape[0]))
        noise = random.normal(key_noise, self.shape(sample_shape))
        scale_trils = jnp.broadcast_to(self.scale_trils, (len(self.log_weights), *self.scale_trils.shape[1:]))
        means = self.means[labels]
        return means + gaussian.colour(scale_trils[labels], means, noise)

    def log_prob(self, value):
        """`mixture.log_likelihood`."""
        return mixture.log_likelihood(self.log_weights, self.means, self.scale_trils, value, self.point_weights)
