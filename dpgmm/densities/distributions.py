# NumPyro annotates none of what a subclass may narrow.
# pyright: reportIncompatibleMethodOverride=false, reportAssignmentType=false, reportArgumentType=false
"""The densities of `sticks`, `gaussian` and `mixture` as NumPyro distributions, so that both statements share them."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, random
from jax.core import Tracer
from jax.scipy.special import digamma, polygamma
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from . import gaussian, mixture, sticks

MOST_SQUARES = 32
"""Degrees of freedom up to which chi variables are drawn as sums of squares."""


class StickLogits(dist.Distribution):
    """Logits of ``num_sticks`` sticks ``v_k ~ Beta(1, concentration)``. Event shape ``(num_sticks,)``."""

    arg_constraints = {"concentration": constraints.positive}  # noqa: RUF012
    support = constraints.real_vector
    pytree_data_fields = ("concentration",)
    pytree_aux_fields = ("num_sticks",)

    def __init__(
        self, concentration: Float[ArrayLike, "*batch"], num_sticks: int, *, validate_args: bool | None = None
    ):
        self.concentration, self.num_sticks = concentration, num_sticks
        super().__init__(jnp.shape(concentration), (num_sticks,), validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*batch {self.num_sticks}"]:
        """Draws ``logit v`` from ``log(1 - v) ~ -Exponential(concentration)``, which holds for tiny ``v`` too."""
        shape = self.shape(sample_shape)
        waiting = random.exponential(key, shape) / jnp.expand_dims(self.concentration, -1)
        return jnp.log(-jnp.expm1(-waiting)) + waiting

    @validate_sample
    def log_prob(self, value: Float[ArrayLike, "*_ {self.num_sticks}"]) -> Float[Array, "..."]:
        """`sticks.log_density_logits`."""
        return sticks.log_density_logits(value, self.concentration)

    @property
    def mean(self) -> Float[Array, "*batch {self.num_sticks}"]:
        """``psi(1) - psi(concentration)``."""
        return jnp.broadcast_to(jnp.expand_dims(digamma(1.0) - digamma(self.concentration), -1), self.shape())

    @property
    def variance(self) -> Float[Array, "*batch {self.num_sticks}"]:
        """``psi'(1) + psi'(concentration)``."""
        both = polygamma(1, 1.0) + polygamma(1, self.concentration)
        return jnp.broadcast_to(jnp.expand_dims(both, -1), self.shape())


class LogGammas(dist.Distribution):
    """Logs of ``size`` independent Gamma(shape, 1) masses; normalised they are Dirichlet(shape). Event ``(size,)``."""

    arg_constraints = {"gamma_shape": constraints.positive}  # noqa: RUF012
    support = constraints.real_vector
    pytree_data_fields = ("gamma_shape",)
    pytree_aux_fields = ("size",)

    def __init__(self, gamma_shape: Float[ArrayLike, "*batch"], size: int, *, validate_args: bool | None = None):
        self.gamma_shape, self.size = gamma_shape, size
        super().__init__(jnp.shape(gamma_shape), (size,), validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*batch {self.size}"]:
        """Draws in log space: a shape near zero underflows otherwise."""
        shape = jnp.broadcast_to(jnp.expand_dims(self.gamma_shape, -1), self.shape(sample_shape))
        return random.loggamma(key, shape)

    @property
    def mean(self) -> Float[Array, "*batch {self.size}"]:
        """``psi(shape)``."""
        return jnp.broadcast_to(jnp.expand_dims(digamma(self.gamma_shape), -1), self.shape())

    @property
    def variance(self) -> Float[Array, "*batch {self.size}"]:
        """``psi'(shape)``."""
        return jnp.broadcast_to(jnp.expand_dims(polygamma(1, self.gamma_shape), -1), self.shape())

    @validate_sample
    def log_prob(self, value: Float[ArrayLike, "*_ {self.size}"]) -> Float[Array, "..."]:
        """``sum_k shape x_k - exp(x_k) - log Gamma(shape)``: the Jacobian of the log is included."""
        shape = jnp.expand_dims(self.gamma_shape, -1)
        return jnp.sum(shape * value - jnp.exp(value) - jax.scipy.special.gammaln(shape), axis=-1)


class InverseWishartCholesky(dist.Distribution):
    """Lower Cholesky factor of ``Sigma ~ InverseWishart(df, T T^T)``, T = `scale_tril`. Event shape ``(D, D)``.

    NumPyro's own of that name has the same density; this one calls no LAPACK inside compiled programs, where jaxlib's
    batched calls can wait for ever on CPUs.
    """

    arg_constraints = {"df": constraints.positive, "scale_tril": constraints.lower_cholesky}  # noqa: RUF012
    support = constraints.lower_cholesky
    reparametrized_params = ()
    pytree_data_fields = ("df", "scale_tril")

    def __init__(
        self,
        df: Float[ArrayLike, "*#batch"],
        scale_tril: Float[ArrayLike, "*#batch D D"],
        *,
        validate_args: bool | None = None,
    ):
        self.df, self.scale_tril = df, scale_tril
        batch = jax.lax.broadcast_shapes(jnp.shape(df), jnp.shape(scale_tril)[:-2])
        super().__init__(batch, jnp.shape(scale_tril)[-2:], validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*batch D D"]:
        """Bartlett: Sigma = T W^{-1} T^T with W ~ Wishart(df, I) = A A^T, so its factor is that of ``(A^{-1} T^T)``."""
        dim = self.event_shape[-1]
        shape = (*sample_shape, *self.batch_shape)
        key_normal, key_gamma = random.split(key)
        lower = jnp.tril(random.normal(key_normal, (*shape, dim, dim)), -1)
        halves = 0.5 * (jnp.expand_dims(self.df, -1) - jnp.arange(dim))
        scales = jnp.sqrt(2 * random.gamma(key_gamma, halves, (*shape, dim)))
        return inverse_wishart_factor(lower + scales[..., None] * jnp.eye(dim), self.scale_tril)

    @validate_sample
    def log_prob(self, value: Float[ArrayLike, "*batch D D"]) -> Float[Array, "..."]:
        """`gaussian.log_inverse_wishart`: a density of the Cholesky factor."""
        return gaussian.log_inverse_wishart(value, self.df, self.scale_tril)


def bartlett(key: Array, df: Float[Array, ""], shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "*batch d d"]:
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


def inverse_wishart_factor(
    bartlett: Float[Array, "*batch D D"], scale_tril: Float[Array, "*#batch D D"]
) -> Float[Array, "*batch D D"]:
    """Factor of ``T W^{-1} T^T``, ``W = A A^T``, from T and A = `bartlett`: ``(..., D, D)``."""
    if bartlett.shape[-1] == 1:
        return scale_tril / bartlett
    half = gaussian.inverse(bartlett) @ jnp.swapaxes(scale_tril, -1, -2)
    return gaussian.cholesky(jnp.swapaxes(half, -1, -2) @ half)


class GaussianMixture(dist.Distribution):
    """Weighted points from a Gaussian mixture: one event ``(N, D)``, its log density the mixture log likelihood.

    Shapes: ``log_weights (..., K)``, ``means (..., K, D)``, ``point_weights (..., N)``; ``scale_trils (..., K, D, D)``,
    or ``(..., 1, D, D)``, ``(..., K, D)``, ``(..., K, 1)``: as many leading axes as the means have. One number is the
    log density of all points: for pointwise values see `PointMixture`.
    """

    arg_constraints = {"log_weights": constraints.real_vector}  # noqa: RUF012
    support = constraints.independent(constraints.real, 2)
    reparametrized_params = ()
    pytree_data_fields = ("log_weights", "means", "scale_trils", "point_weights")

    def __init__(
        self,
        log_weights: Float[ArrayLike, "*#batch K"],
        means: Float[ArrayLike, "*#batch K D"],
        scale_trils: Float[ArrayLike, "..."],
        point_weights: Float[ArrayLike, "*#batch N"],
        *,
        validate_args: bool | None = None,
    ):
        self.log_weights, self.means, self.scale_trils = log_weights, means, scale_trils
        self.point_weights = point_weights
        event = (jnp.shape(point_weights)[-1], jnp.shape(means)[-1])
        batch = jax.lax.broadcast_shapes(_batch(log_weights, means, scale_trils), jnp.shape(point_weights)[:-1])
        super().__init__(batch, event, validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*batch N D"]:
        """Draws N points, each from a component of its own."""
        return _sampled(key, self, (*sample_shape, *self.batch_shape, self.event_shape[0]))

    @validate_sample
    def log_prob(self, value: Float[ArrayLike, "*batch N D"]) -> Float[Array, "..."]:
        """`mixture.log_likelihood`."""
        arrays = self.log_weights, self.means, self.scale_trils, value, self.point_weights
        if not self.batch_shape and jnp.ndim(value) == 2:
            return mixture.log_likelihood(*arrays)
        scale = _core(self.scale_trils, self.means)
        return jnp.vectorize(mixture.log_likelihood, signature=f"(k),(k,d),{scale},(n,d),(n)->()")(*arrays)

    @property
    def mean(self) -> Float[Array, "*batch N D"]:
        """``sum_k w_k mu_k``, of every point: ``(..., N, D)``."""
        return jnp.broadcast_to(_moments(self)[0][..., None, :], self.shape())

    @property
    def variance(self) -> Float[Array, "*batch N D"]:
        """``sum_k w_k (Sigma_k + mu_k mu_k^T)`` less the mean's square, its diagonal: ``(..., N, D)``."""
        return jnp.broadcast_to(_moments(self)[1][..., None, :], self.shape())


class PointMixture(dist.Distribution):
    """One point from a Gaussian mixture: event ``(D,)``. In a plate over N points it gives a log density for each.

    Shapes as of `GaussianMixture`. `numpyro.distributions.MixtureSameFamily` of MultivariateNormal has the same density;
    this one takes our factors in their smallest form and calls no LAPACK inside compiled programs.
    """

    arg_constraints = {"log_weights": constraints.real_vector}  # noqa: RUF012
    support = constraints.real_vector
    reparametrized_params = ()
    pytree_data_fields = ("log_weights", "means", "scale_trils")

    def __init__(
        self,
        log_weights: Float[ArrayLike, "*#batch K"],
        means: Float[ArrayLike, "*#batch K D"],
        scale_trils: Float[ArrayLike, "..."],
        *,
        validate_args: bool | None = None,
    ):
        self.log_weights, self.means, self.scale_trils = log_weights, means, scale_trils
        batch = _batch(log_weights, means, scale_trils)
        super().__init__(batch, jnp.shape(means)[-1:], validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*batch D"]:
        """A component, then a point of it."""
        return _sampled(key, self, (*sample_shape, *self.batch_shape, 1))[..., 0, :]

    @validate_sample
    def log_prob(self, value: Float[ArrayLike, "*batch D"]) -> Float[Array, "..."]:
        """`mixture.log_density`."""
        arrays = self.log_weights, self.means, self.scale_trils
        if not self.batch_shape:
            points = jnp.reshape(value, (-1, jnp.shape(value)[-1]))
            return mixture.log_density(*arrays, points).reshape(jnp.shape(value)[:-1])
        one = lambda logs, means, factors, x: mixture.log_density(logs, means, factors, x[None])[0]
        return jnp.vectorize(one, signature=f"(k),(k,d),{_core(self.scale_trils, self.means)},(d)->()")(*arrays, value)

    @property
    def mean(self) -> Float[Array, "*batch D"]:
        """``sum_k w_k mu_k``."""
        return jnp.broadcast_to(_moments(self)[0], self.shape())

    @property
    def variance(self) -> Float[Array, "*batch D"]:
        """``sum_k w_k (Sigma_k + mu_k mu_k^T)`` less the mean's square: its diagonal."""
        return jnp.broadcast_to(_moments(self)[1], self.shape())


def _core(scale_trils, means) -> str:
    """The axes of one mixture's factors, as `jnp.vectorize` wants them named."""
    return "(j,e)" if gaussian.is_diagonal(jnp.asarray(scale_trils), jnp.asarray(means)) else "(j,e,f)"


def _batch(log_weights, means, scale_trils) -> tuple[int, ...]:
    """Leading axes of the parameters, broadcast."""
    core = _core(scale_trils, means).count(",") + 1
    leading = jnp.shape(log_weights)[:-1], jnp.shape(means)[:-2], jnp.shape(scale_trils)[:-core]
    return jax.lax.broadcast_shapes(*leading)


def _sampled(key: Array, mixture_: GaussianMixture | PointMixture, shape: tuple[int, ...]) -> Float[Array, "*shape D"]:
    """Points ``(*shape, D)``: a label each, then coloured noise. The last axis of `shape` is that of the points."""
    key_label, key_noise = random.split(key)
    labels = random.categorical(key_label, jnp.expand_dims(mixture_.log_weights, -2), shape=shape)
    noise = random.normal(key_noise, (*shape, jnp.shape(mixture_.means)[-1]))

    def points(labels, noise, means, scale_trils):
        means = means[labels]
        factors = jnp.broadcast_to(scale_trils, (jnp.shape(mixture_.means)[-2], *scale_trils.shape[1:]))
        return means + gaussian.colour(factors[labels], means, noise)

    arrays = labels, noise, mixture_.means, mixture_.scale_trils
    if labels.ndim == 1:
        return points(*arrays)
    core = _core(mixture_.scale_trils, mixture_.means)
    return jnp.vectorize(points, signature=f"(n),(n,d),(k,d),{core}->(n,d)")(*arrays)


def _moments(mixture_: GaussianMixture | PointMixture) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
    """Mean and variances ``(..., D)`` of one point."""
    weights = jnp.exp(mixture_.log_weights)[..., None]
    diagonal = _core(mixture_.scale_trils, mixture_.means) == "(j,e)"
    factors = jnp.asarray(mixture_.scale_trils)
    variances = factors**2 if diagonal else jnp.sum(factors**2, axis=-1)
    mean = jnp.sum(weights * mixture_.means, axis=-2)
    return mean, jnp.sum(weights * (variances + mixture_.means**2), axis=-2) - mean**2
