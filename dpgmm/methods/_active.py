"""The No-U-Turn sampler on the first M components of a mixture, the others standing still as one fixed density.

What differs between components is not their labels but how many points they hold: a component of n points is known to a
part of ``1 / sqrt(n)`` of its size, an empty one is as wide as the prior. A metric fitted to labels is therefore wrong as
soon as labels move. Here every transition has its own metric, made from noisy copies of the components' sizes and scales
(`Frame`). The noise is an auxiliary variable of the target, ``p(theta) p(frame | theta)``, and is drawn anew before each
transition: given the frame the metric is fixed, and the sampler on coordinates measured in it leaves the posterior alone,
exactly (Neal 2011, section 5.4.1, on extending the state).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.flatten_util import ravel_pytree
from jaxtyping import Bool, Float, Integer
from numpyro.infer.hmc_util import build_tree, velocity_verlet

from ..densities import base_measure, conjugate, gaussian, transforms
from ..densities.gaussian import BaseMeasure
from ..model.posterior import Arrays
from . import _weights

SIZE_NOISE, SCALE_NOISE = 0.5, 0.3
"""Standard deviations of the noise in log sizes and in factors of covariances."""


class Components(NamedTuple):
    """Components by `log_weights` ``(K,)``, `means` ``(K, D)``, and factors `blocks` ``(K, B, d, d)``, or 1 if tied."""

    log_weights: Float[Array, " K"]
    means: Float[Array, "K D"]
    blocks: Float[Array, "#K B d d"]


class Frame(NamedTuple):
    """In which a transition measures its coordinates: noisy `log_sizes` ``(M,)`` of ``1 + N w_k``, and noisy `blocks`."""

    log_sizes: Float[Array, " M"]
    blocks: Float[Array, "#M B d d"]


class Points(NamedTuple):
    """Data as the density wants them: `transposed` ``(D, N)``, `features` ``(N, F)``, 1, x, and products, `weights`."""

    transposed: Float[Array, "D N"]
    features: Float[Array, "N F"]
    weights: Float[Array, " N"]


class Rest(NamedTuple):
    """What stands still: log density of the other components, without their weight, and a reference, both ``(N,)``."""

    log_density: Float[Array, " N"]
    reference: Float[Array, " N"]


class Info(NamedTuple):
    """Of one transition: leapfrog steps, mean acceptance probability, energy, whether it diverged."""

    n_steps: Integer[Array, ""]
    acceptance_rate: Float[Array, ""]
    energy: Float[Array, ""]
    diverging: Bool[Array, ""]


def points_of(data: Arrays, *, diagonal: bool) -> Points:
    """`Points` of a data set; products are squares where covariances are diagonal."""
    x = data.points
    products = x**2 if diagonal else (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    return Points(x.T, jnp.concatenate([jnp.ones_like(x[:, :1]), x, products], axis=1), data.weights)


def log_joint_density(components: Components, base: BaseMeasure, points: Points) -> Float[Array, "K N"]:
    """``log w_k + log N(x_n | mu_k, Sigma_k)``, components along rows: ``(K, N)``."""
    whiteners, offsets = _whitened_form(components.blocks, base)
    log_weights, means, _ = components
    return (log_weights + offsets)[:, None] - 0.5 * _distances(means, whiteners, points.transposed)


def _whitened_form(
    blocks: Float[Array, "K B d d"], base: BaseMeasure
) -> tuple[Float[Array, "K ..."], Float[Array, " K"]]:
    """Whiteners, ``(K, D, D)`` or their diagonals ``(K, D)``, and ``log|P_k| - D/2 log 2 pi``."""
    _, size, repeats = conjugate.shape_of(base)
    dim = base.mean.shape[-1]
    offsets = -repeats * gaussian.log_determinant(blocks).sum(-1) - 0.5 * dim * gaussian.LOG_2PI
    if size == 1:
        diagonal = jnp.repeat(1 / blocks[..., 0, 0], repeats, axis=-1)
        return diagonal, offsets
    return gaussian.inverse(blocks[..., 0, :, :]), offsets


def _distances(
    means: Float[Array, "K D"], whiteners: Float[Array, "#K ..."], x: Float[Array, "D N"]
) -> Float[Array, "K N"]:
    """``|P_k (x_n - mu_k)|^2``, ``(K, N)``. Residuals of points far away keep their digits: they are whitened first."""
    if whiteners.ndim == 2:
        total = jnp.zeros((len(means), x.shape[1]), x.dtype)
        for d in range(x.shape[0]) if x.shape[0] <= gaussian.UNROLLED else ():
            total += ((x[d] - means[:, d, None]) * whiteners[:, d, None]) ** 2
        if x.shape[0] > gaussian.UNROLLED:
            total = jnp.sum(((x - means[:, :, None]) * whiteners[:, :, None]) ** 2, axis=1)
        return total
    dim = means.shape[-1]
    white = (whiteners.reshape(-1, dim) @ x).reshape(len(whiteners), dim, -1)
    centres = jnp.sum(whiteners * means[:, None, :], axis=-1)
    return jnp.sum((white - centres[:, :, None]) ** 2, axis=1)


@jax.custom_vjp
def log_likelihood(
    heights: Float[Array, " M"],
    log_rest: Float[Array, ""],
    means: Float[Array, "M D"],
    whiteners: Float[Array, "#M ..."],
    points: Points,
    rest: Rest,
) -> Float[Array, ""]:
    """``sum_n omega_n log( sum_{k<=M} w_k N_k(x_n) + w_rest f_rest(x_n) )``, nats.

    `heights` are ``log w_k + log|P_k| - D/2 log 2 pi``, `whiteners` P_k. Exponents are taken against a reference that stands
    still, which spares the search for the largest; sums over points are matrix products of `Points.features`.
    """
    return _forward(heights, log_rest, means, whiteners, points, rest)[0]


def _forward(heights, log_rest, means, whiteners, points, rest):
    joint = heights[:, None] - 0.5 * _distances(means, whiteners, points.transposed)
    likelihood = jnp.exp(joint - rest.reference)
    grad_rest = jnp.exp(log_rest + rest.log_density - rest.reference)
    total = jnp.ones(len(means), joint.dtype) @ likelihood + grad_rest
    value = points.weights @ (rest.reference + jnp.log(total))
    share = points.weights / total
    moments = likelihood @ (points.features * share[:, None])
    return value, (moments, grad_rest @ share, means, whiteners)


def _backward(kept, cotangent):
    """Responsibilities' moments about the origin, moved to the components' means."""
    moments, grad_rest, means, whiteners = kept
    dim = means.shape[-1]
    count, first = moments[:, 0], moments[:, 1 : 1 + dim]
    shifted = first - count[:, None] * means
    if whiteners.ndim == 2:
        second = moments[:, 1 + dim :] - 2 * means * first + means**2 * count[:, None]
        of_means, of_whiteners = whiteners**2 * shifted, -whiteners * second
    else:
        square = moments[:, 1 + dim :].reshape(-1, dim, dim)
        outer = means[:, :, None] * shifted[:, None, :] + first[:, :, None] * means[:, None, :]
        second = square - outer
        precise = jnp.broadcast_to(whiteners, second.shape)
        white = jnp.einsum("kde,ke->kd", precise, shifted)
        of_means = jnp.einsum("kde,kd->ke", precise, white)
        of_whiteners = -(precise @ second)
    if len(whiteners) < len(means):
        of_whiteners = of_whiteners.sum(0, keepdims=True)
    return (*(cotangent * g for g in (count, grad_rest, of_means, of_whiteners)), None, None)


log_likelihood.defvjp(_forward, _backward)


def draw_frame(key: Array, now: Components, num: int, total: Float[Array, ""]) -> Frame:
    """A frame given the components, ``p(frame | theta)``: log sizes and factors with noise."""
    key_size, key_scale = random.split(key)
    log_sizes = _log_sizes(now.log_weights[:num], total)
    log_sizes += SIZE_NOISE * random.normal(key_size, log_sizes.shape, log_sizes.dtype)
    blocks = now.blocks[:num]
    noise = jnp.tril(SCALE_NOISE * random.normal(key_scale, blocks.shape, blocks.dtype), -1)
    diagonal = jnp.exp(SCALE_NOISE * random.normal(random.fold_in(key_scale, 1), blocks.shape[:-1], blocks.dtype))
    return Frame(log_sizes, blocks @ (noise + diagonal[..., None] * jnp.eye(blocks.shape[-1], dtype=blocks.dtype)))


def _log_sizes(log_weights: Float[Array, " M"], total: Float[Array, ""]) -> Float[Array, " M"]:
    return jnp.log1p(total * jnp.exp(log_weights))


def log_density_frame(
    frame: Frame, log_weights: Float[Array, " M"], blocks: Float[Array, "#M B d d"], total: Float[Array, ""]
) -> Float[Array, ""]:
    """``log p(frame | theta)`` but for constants.

    The noisy factor is ``L E``, E triangular with a lognormal diagonal; ``|d(L E) / dE| = prod_i L_ii^i``, i from 1.
    """
    sizes_term = -0.5 * jnp.sum((frame.log_sizes - _log_sizes(log_weights, total)) ** 2) / SIZE_NOISE**2
    noise = gaussian.inverse(blocks) @ frame.blocks
    log_diagonal = jnp.log(gaussian.diagonal(noise))
    below = jnp.sum(jnp.tril(noise, -1) ** 2)
    noise_term = -0.5 * (below + jnp.sum(log_diagonal**2)) / SCALE_NOISE**2 - jnp.sum(log_diagonal)
    powers = jnp.arange(1, blocks.shape[-1] + 1)
    return sizes_term + noise_term - jnp.sum(powers * jnp.log(gaussian.diagonal(blocks)))


class Scales(NamedTuple):
    """Standard deviations of the coordinates, as the frame expects them, component by component."""

    weights: Float[Array, " coordinates"]
    means: Float[Array, " M"]
    blocks: Float[Array, "#M 1 entries"]


def scales_of(
    frame: Frame, a: Float[Array, ""], base: BaseMeasure, rule: str, num_weights: int, total: Float[Array, ""]
) -> Scales:
    """What n points leave unknown: of a mean ``Sigma / (n + kappa)``, of a factor ``1 / sqrt(2 n + df)``."""
    sizes = jnp.maximum(jnp.expm1(frame.log_sizes), 0.0)
    share = (sizes / (1 + sizes)) ** 2 / SIZE_NOISE**2
    of_weights = _weights.curvature(sizes, a, rule)[:num_weights] + share[:num_weights] + 0.1
    _, size, repeats = conjugate.shape_of(base)
    held = repeats * (sizes if len(frame.blocks) == len(sizes) else jnp.full((1,), total))
    rows, columns = jnp.tril_indices(size)
    factor = jnp.where(rows == columns, 2.0, 1.0)
    of_blocks = factor * (held[:, None, None] + base.df) + 1 / SCALE_NOISE**2
    inverse_root = lambda curvature: 1 / jnp.sqrt(curvature)
    return Scales(inverse_root(of_weights), inverse_root(sizes + base.kappa), inverse_root(of_blocks))


def transition(
    key: Array,
    now: Components,
    log_total: Float[Array, ""],
    a: Float[Array, ""],
    base: BaseMeasure,
    points: Points,
    rest: Rest,
    step_size: Float[Array, ""] | float,
    *,
    num: int,
    rule: str,
    covariance: str,
    max_tree_depth: int,
) -> tuple[Components, Float[Array, ""], Info]:
    """One transition of NUTS on the first `num` components; the others keep their place, form and proportions.

    ``rest.log_density`` is theirs. Returns components, `log_total`, and `Info`.
    """
    key_frame, key_momentum, key_tree = random.split(key, 3)
    size, total = len(now.log_weights), points.weights.sum()
    frame = draw_frame(key_frame, now, num, total)
    start = _weights.folded(now.log_weights, num)
    weights_now = _weights.coordinates(start, log_total, rule, num)
    log_rest_mass = log_total + start[num] if num < size else jnp.zeros((0,))
    scales = scales_of(frame, a, base, rule, len(weights_now), total)
    to_factors = transforms.bartlett(frame.blocks, 1.0)
    blocks_now = to_factors.unconstrain(now.blocks[:num], {})
    whole = num >= size
    zeros = jnp.zeros_like(weights_now), jnp.zeros_like(now.means[:num]), jnp.zeros_like(blocks_now)
    flat, unravel = ravel_pytree(zeros)

    def at(flat):
        of_weights, of_means, of_blocks = unravel(flat)
        weights = _weights.weights_at(weights_now + scales.weights * of_weights, log_rest_mass, rule, num)
        means = now.means[:num] + scales.means[:, None] * conjugate.coloured(frame.blocks, of_means, base)
        blocks, log_jacobian = to_factors.constrain(blocks_now + scales.blocks * of_blocks, {})
        return weights, means, blocks, log_jacobian

    def potential(flat):
        weights, means, blocks, log_jacobian = at(flat)
        whiteners, offsets = _whitened_form(blocks, base)
        log_rest = jnp.full((), -jnp.inf, weights.dtype) if whole else weights[num]
        value = log_likelihood(weights[:num] + offsets, log_rest, means, whiteners, points, rest)
        u = weights_now + scales.weights * unravel(flat)[0]
        value += _weights.log_density(u, a, rule, size) + log_prior_components(means, blocks, base, covariance)
        value += (
            log_jacobian
            + _weights.log_order(weights, num, rule)
            + log_density_frame(frame, weights[:num], blocks, total)
        )
        # A density that outgrows the reference by more than numbers hold is refused: its way back has probability zero.
        return jnp.where(jnp.isfinite(value), -value, jnp.inf)

    kinetic = lambda inverse_mass, r: 0.5 * jnp.sum(inverse_mass * r**2)
    init, update = velocity_verlet(potential, kinetic)
    momentum = random.normal(key_momentum, flat.shape, flat.dtype)
    tree = build_tree(
        update, kinetic, init(flat, momentum), jnp.ones_like(flat), step_size, key_tree, max_tree_depth=max_tree_depth
    )
    weights, means, blocks, _ = at(tree.z_proposal)
    moved = Components(
        _weights.unfolded(weights, now.log_weights, num),
        now.means.at[:num].set(means),
        blocks if len(blocks) == len(now.blocks) else now.blocks.at[:num].set(blocks),
    )
    if rule == _weights.DIRICHLET:
        masses = weights_now + scales.weights * unravel(tree.z_proposal)[0]
        log_total = masses[0] - weights[0]
    accepted = tree.sum_accept_probs / tree.num_proposals
    return moved, log_total, Info(tree.num_proposals, accepted, tree.z_proposal_energy, tree.diverging)


def log_prior_components(
    means: Float[Array, "K D"], blocks: Float[Array, "#K B d d"], base: BaseMeasure, covariance: str
) -> Float[Array, ""]:
    """`base_measure.log_prior` of components whose factors are in blocks."""
    sites = {"means": means, "scale_trils": base_measure.in_smallest_form(blocks, covariance)}
    return base_measure.log_prior(sites, base, covariance)
