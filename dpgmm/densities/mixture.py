"""The Gaussian mixture's log likelihood: value and gradient in one pass over the points, streamed in chunks.

With ``joint_kn = log w_k + log N(x_n | mu_k, L_k L_k^T)``,

    log p(x) = sum_n omega_n logsumexp_k joint_kn,        d log p(x) = sum_nk omega_n r_nk d joint_kn,

so that the responsibilities ``r_nk`` which give the value are the cotangent that gives the gradient. With
``P_k = L_k^{-1}``, or the numbers on its diagonal, and ``c_k = log w_k + log|P_k| - D/2 log 2 pi``, the joint density is
``c_k - |P_k (x_n - mu_k)|^2 / 2``. The square is expanded, and all pairs are one product (`densities.quadratic`), unless
a component lies so many of its standard deviations off the centre that the expanded squares would cancel more than a third
of the digits: then residuals are squared one by one.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Bool, Float, Int

from . import gaussian, passes, quadratic


class Whitened(NamedTuple):
    """Components as passes take them: ``c (K,)``, means ``(K, D)``, and whiteners ``P (K, D, D)`` or diagonal."""

    offsets: Float[Array, " K"]
    means: Float[Array, "K D"]
    whiteners: Float[Array, "..."]


class Form(NamedTuple):
    """A way to the joint density of all pairs, ``(K, N)``: ``joint(prepare(components), features(points))``.

    ``back(prepared, features, likelihoods, shares)`` is the derivative along `prepared` where that of the joint density is
    ``likelihoods * shares``, ``(K, N)`` times ``(N,)``.
    """

    prepare: Callable[[Whitened], Any]
    features: Callable[[Float[Array, "N D"]], Array]
    joint: Callable[[Any, Array], Float[Array, "K N"]]
    back: Callable[[Any, Array, Float[Array, "K N"], Float[Array, " N"]], Any]


def log_likelihood(
    log_weights: Float[Array, " K"],
    means: Float[Array, "K D"],
    scale_trils: Float[Array, "..."],
    points: Float[Array, "N D"],
    point_weights: Float[Array, " N"] | None = None,
) -> Float[Array, ""]:
    """Log likelihood of weighted points, ``sum_n omega_n log sum_k w_k N(x_n | mu_k, L_k L_k^T)``, in nats.

    `point_weights` are ones by default; ``scale_trils (K, D, D)``, or ``(1, D, D)``, ``(K, D)``, ``(K, 1)`` as in
    `dpgmm.posterior.Mixture`. Differentiable in all of them, forwards and backwards; fastest in the components, points
    and their weights being data.
    """
    omega = jnp.ones(points.shape[0], means.dtype) if point_weights is None else point_weights
    return _sum_over_points(*_whitened(log_weights, means, scale_trils), points, omega)


class Occupancy(NamedTuple):
    """What points say of the components, summed over points.

    - `log_likelihood` ``()``: as `log_likelihood`.
    - `counts` ``(K,)``: expected number of points in each component, ``sum_n omega_n r_nk``.
    - `log_empty` ``(K,)``: log probability that a component holds no point, ``sum_n omega_n log(1 - r_nk)``, a point of
      weight omega standing for omega points that are allocated independently.
    - `drawn` ``(K,)``: how many points each component got where every point, whatever its weight, was allocated once.
    """

    log_likelihood: Float[Array, ""]
    counts: Float[Array, " K"]
    log_empty: Float[Array, " K"]
    drawn: Float[Array, " K"]


def occupancy(
    key: Array,
    log_weights: Float[Array, " K"],
    means: Float[Array, "K D"],
    scale_trils: Float[Array, "..."],
    points: Float[Array, "N D"],
    point_weights: Float[Array, " N"],
) -> Occupancy:
    """`Occupancy` of the components in one pass over the points; shapes as in `log_likelihood`, `key` for `drawn`."""
    components = _whitened(log_weights, means, scale_trils)
    size = log_weights.shape[-1]

    def some(form, prepared, points, omega, key):
        log_density, r = passes.normalised(form.joint(prepared, form.features(points)))
        carries = omega > 0
        # A product of zero weight and minus infinity would be no number.
        empty = jnp.where(carries, jnp.log1p(-jnp.minimum(r, 1.0)), 0.0)
        uniforms = random.uniform(key, omega.shape, omega.dtype)
        drawn = jnp.zeros(size, omega.dtype).at[passes.drawn(r, uniforms)].add(carries)
        return Occupancy(omega @ log_density, r @ omega, empty @ jnp.where(carries, omega, 1.0), drawn)

    def every(form):
        return passes.accumulate(partial(some, form), form.prepare(components), size, points, point_weights, key)

    return _either(every, components, single=False)  # Of these draws tell.


def log_density(
    log_weights: Float[Array, " K"],
    means: Float[Array, "K D"],
    scale_trils: Float[Array, "..."],
    points: Float[Array, "N D"],
) -> Float[Array, " N"]:
    """Log density of the mixture at each point, nats. Shapes as in `log_likelihood`, to ``(N,)``."""
    return jax.nn.logsumexp(log_joint_density(log_weights, means, scale_trils, points), axis=-1)


def log_joint_density(
    log_weights: Float[Array, " K"],
    means: Float[Array, "K D"],
    scale_trils: Float[Array, "..."],
    points: Float[Array, "N D"],
) -> Float[Array, "N K"]:
    """``log w_k + log N(x_n | mu_k, L_k L_k^T)``: its softmax over k is the responsibilities. Returns ``(N, K)``."""
    components = _whitened(log_weights, means, scale_trils)
    joint = lambda form: form.joint(form.prepare(components), form.features(points))
    return _either(joint, components, single=False).T


def allocations(
    key: Array,
    log_weights: Float[Array, " K"],
    means: Float[Array, "K D"],
    scale_trils: Float[Array, "..."],
    points: Float[Array, "N D"],
) -> Int[Array, " N"]:
    """A component for every point, ``(N,)``, drawn from its responsibilities. Shapes as in `log_likelihood`."""
    components = _whitened(log_weights, means, scale_trils)

    def some(form, prepared, points, key):
        likelihood, _ = passes.relative(form.joint(prepared, form.features(points)))
        return passes.drawn(likelihood, random.uniform(key, points.shape[:1], points.dtype))

    every = lambda form: passes.each(partial(some, form), form.prepare(components), len(means), points, key)
    return _either(every, components)


def of_draws(density: Callable[..., Array], components: Any, points: Float[Array, "N D"]) -> Array:
    """``density(*components, points)`` of many draws, components with a leading axis, which the result has too.

    One after the other: of a batch, both ways to the squares would be taken.
    """
    return jax.lax.map(lambda draw: density(*draw, points), components)


def factored(
    weights: Float[Array, "*batch K"], means: Float[Array, "*batch K D"], covariances: Float[Array, "..."]
) -> tuple[Float[Array, "*batch K"], Float[Array, "*batch K D"], Float[Array, "..."]]:
    """Components as draws hold them, to ``(log_weights, means, scale_trils)`` as densities take them.

    A weight that has underflowed counts as the smallest number. Leading axes are kept; `covariances` are matrices or
    variances, see `dpgmm.gaussian.factor`.
    """
    return jnp.log(jnp.maximum(weights, jnp.finfo(weights.dtype).tiny)), means, gaussian.factor(covariances, means)


def _whitened(
    log_weights: Float[Array, " K"], means: Float[Array, "K D"], scale_trils: Float[Array, "..."]
) -> Whitened:
    whiteners = 1 / scale_trils if gaussian.is_diagonal(scale_trils, means) else gaussian.inverse(scale_trils)
    log_determinant = gaussian.log_determinant(scale_trils, means)
    return Whitened(log_weights - log_determinant - 0.5 * means.shape[-1] * gaussian.LOG_2PI, means, whiteners)


def _either(run: Callable[[Form], Any], components: Whitened, *, single: bool | None = None) -> Any:
    """``run`` of expanded squares where these are exact enough, else of residuals; in float32 where that is asked for."""
    # The mixture's mean. Any place among the points will do: nothing depends on it but rounding.
    weights = jax.nn.softmax(components.offsets - gaussian.log_determinant(components.whiteners, components.means))
    centre = jax.lax.stop_gradient(weights @ components.means)
    double, single = components.means.dtype, passes.in_single_precision() if single is None else single
    residuals = Form(lambda c: c, lambda points: points, _by_residuals, _back_by_residuals)

    def either():
        expanded = _expanded(components, centre, 1.0, double)
        return jax.lax.cond(_expands(components, centre, double), lambda: run(expanded), lambda: run(residuals))

    if not single or double == jnp.float32:
        return either()
    expanded = _expanded(components, centre, _scales(components), jnp.float32)
    return jax.lax.cond(_expands(components, centre, jnp.float32), lambda: run(expanded), either)


def _expanded(components: Whitened, centre: Float[Array, " D"], scales: Any, dtype: Any) -> Form:
    """The form of expanded squares, x measured from the centre in `scales`, ``(D,)`` or one, all pairs in `dtype`."""
    features = lambda points: quadratic.features(((points - centre) / scales).T, _blocks(components)).astype(dtype)
    return Form(partial(_coefficients, centre, scales), features, quadratic.joint, quadratic.sums)


def _scales(components: Whitened) -> Float[Array, "*D"]:
    """Of each coordinate what makes the largest precision of a component one: a small type has a small range."""
    precisions = jnp.sum(components.whiteners**2, axis=1 if components.whiteners.ndim == 3 else ())
    return jax.lax.stop_gradient(1 / jnp.sqrt(jnp.max(precisions, axis=0)))


def _expands(components: Whitened, centre: Float[Array, " D"], dtype: Any) -> Bool[Array, ""]:
    """Whether the error of the expanded square, ``eps |P_k (mu_k - centre)|^2``, is below ``eps^(2/3)`` for all."""
    images = gaussian.colour(components.whiteners, components.means, components.means - centre)
    return jnp.max(jnp.sum(images**2, axis=-1)) < jnp.finfo(dtype).eps ** (-1 / 3)


def _by_residuals(components: Whitened, points: Float[Array, "N D"]) -> Float[Array, "K N"]:
    """``c_k - |P_k (x_n - mu_k)|^2 / 2``."""
    images = gaussian.colour(components.whiteners, components.means, points[:, None, :] - components.means)
    return (components.offsets - 0.5 * jnp.sum(images**2, axis=-1)).T


def _back_by_residuals(
    components: Whitened, points: Float[Array, "N D"], likelihood: Float[Array, "K N"], shares: Float[Array, " N"]
) -> Whitened:
    return jax.vjp(lambda c: _by_residuals(c, points), components)[1](likelihood * shares)[0]


def _blocks(components: Whitened) -> quadratic.Shape:
    """The precisions' blocks: one of size D, or D numbers, or one number for D dimensions."""
    dim, last = components.means.shape[-1], components.whiteners.shape[-1]
    return (1, dim, 1) if components.whiteners.ndim == 3 else (last, 1, dim // last)


def _coefficients(centre: Float[Array, " D"], scales: Any, components: Whitened) -> Float[Array, "K F"]:
    """With ``A_k = P_k^T P_k``, x and mu measured from the centre: ``c_k - mu^T A mu / 2 + (A mu)^T x - x^T A x / 2``."""
    offsets, means, whiteners = components.offsets, (components.means - centre) / scales, components.whiteners * scales
    precision = gaussian.precision(whiteners)[:, None] if whiteners.ndim == 3 else whiteners[..., None, None] ** 2
    image = quadratic.times(precision, means.reshape(-1, *_blocks(components))).reshape(means.shape)
    return quadratic.coefficients(offsets - 0.5 * jnp.sum(image * means, axis=-1), image, precision)


def _value(components: Whitened, data: tuple, form: Form) -> Float[Array, ""]:
    some = lambda prepared, points, omega: passes.summed(form.joint(prepared, form.features(points)), omega)[0]
    return passes.accumulate(some, form.prepare(components), len(components.means), *data)


def _value_and_gradient(components: Whitened, data: tuple, form: Form) -> tuple[Float[Array, ""], Whitened]:
    prepared, pull = jax.vjp(form.prepare, components)

    def some(prepared, points, omega):
        features = form.features(points)
        log_density, *responsibilities = passes.summed(form.joint(prepared, features), omega)
        return log_density, form.back(prepared, features, *responsibilities)

    value, gradient = passes.accumulate(some, prepared, len(components.means), *data)
    return value, pull(gradient)[0]


def _summed(function: Callable[..., Any], components: tuple, data: tuple) -> Any:
    components = Whitened(*components)
    return _either(partial(function, components, data), components)


@jax.custom_jvp
def _sum_over_points(offsets, means, whiteners, points, omega):
    return _summed(_value, (offsets, means, whiteners), (points, omega))


@partial(_sum_over_points.defjvp, symbolic_zeros=True)
def _along(primals, tangents):
    """The value and its derivative along tangents: linear in these, so that reverse mode is the gradient of the pass.

    Of the points and their weights, which are data wherever methods run, the derivative is taken where it is asked for.
    """
    moved = [not isinstance(tangent, SymbolicZero) for tangent in tangents]
    if any(moved[3:]):
        whole = [t if move else jnp.zeros(t.shape, t.dtype) for t, move in zip(tangents, moved, strict=True)]
        return jax.jvp(lambda *a: _summed(_value, a[:3], a[3:]), primals, tuple(whole))
    value, gradient = _summed(_value_and_gradient, primals[:3], primals[3:])
    terms = [jnp.vdot(g, t) for g, t, move in zip(gradient, tangents, moved, strict=False) if move]
    return value, reduce(jnp.add, terms)
