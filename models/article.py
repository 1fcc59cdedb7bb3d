"""The article's objective, under the article's own function names, and its training run: for gradient descent only.

It is written after Eric J. Ma's tutorial on Dirichlet-process clustering, D = 1, K components:

    loss = -( sum_{k<=m} log Beta(v_k | 1, a) + sum_n omega_n log sum_k w_k N(x_n | mu_k, s_k^2) )

with weights w = softmax(log weights), sticks ``v_k = w_k / sum_{j>=k} w_j``, and m = 25 of the 50 components.
Parameters, in this order: log weights (K,), log concentration (1,), means mu (K,), log scales log s (K,).

What is improper about it, and what follows
- Means, log scales, log concentration and the overall level of the log weights have flat priors, of infinite mass.
- Only the first m sticks are under the Beta prior. Once their mass is gone the loss falls by m for every unit of log
  concentration, without end: from about step 4,000 this is what the training run does, and exp(log concentration)
  leaves the range of float32 before step 6,000. The concentration has to stay in log space.
- The likelihood is unbounded: as a scale goes to 0 on a data point it goes to infinity. Components do collapse on a
  few points; with a learning rate far above their width they jump about, and no two roundings take the same path.
- The sticks have a density with respect to v, but the optimiser moves log weights; no Jacobian is taken.
There is no posterior here, hence no `posterior` function, and NUTS cannot be run on it: it would be asked to sample a
density that cannot be normalised. `models/stick_breaking.py` is the proper model.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.example_libraries import optimizers
from jax.nn import log_softmax, logsumexp, softplus
from jaxtyping import Float, Int

from dpgmm.data import Dataset
from dpgmm.data.compression import quadrature
from dpgmm.densities import mixture
from dpgmm.errors import InputError


class Parameters(NamedTuple):
    """The article's tuple of parameters: ``(K,)``, ``(1,)``, ``(K,)``, ``(K,)``, in this order."""

    log_component_weights: Float[Array, " K"]
    log_concentration: Float[Array, "1"]
    component_mus: Float[Array, " K"]
    log_component_scales: Float[Array, " K"]


def initial_parameters(key: Array | None = None, num_components: int = 50, dtype: Any = jnp.float32) -> Parameters:
    """Standard normal draws from the four keys of ``split(key, 4)``; the article's key is ``PRNGKey(42)``."""
    keys = random.split(random.PRNGKey(42) if key is None else key, 4)
    sizes = num_components, 1, num_components, num_components
    return Parameters(
        *(random.normal(k, (size,), jnp.float32).astype(dtype) for k, size in zip(keys, sizes, strict=True))
    )


def normalize_weights(weights: Float[Array, " K"]) -> Float[Array, " K"]:
    """Weights divided by their sum, ``(K,)`` to ``(K,)``. Not for log weights: those take `jax.nn.log_softmax`."""
    return weights / jnp.sum(weights)


def component_probs_loglike(
    log_component_weights: Float[Array, " K"], log_concentration: Float[Array, "..."], num_components: int
) -> Float[Array, ""]:
    """Log density of the first m = `num_components` STICKS of the weights under Beta(1, a), log a given.

    With ``l = -sum_{k<=m} log(1 - v_k) = softplus(log sum_{k<=m} w_k - log sum_{k>m} w_k)``: ``m log a - (a - 1) l``.
    The product ``a l`` stays near m while a leaves the range of float32, so it is taken in log space. No stick is ever
    computed: the article's ``v_k = w_k / (1 - running sum)`` has the logarithm of 0 to take once w_k is below 1e-38.
    Shapes: ``(K,)``, ``(1,)`` or ``()``, m < K, to ``()``. The log weights need not be normalised.
    """
    log_a = jnp.reshape(log_concentration, ())
    log_odds = logsumexp(log_component_weights[:num_components]) - logsumexp(log_component_weights[num_components:])
    return num_components * log_a - jnp.exp(log_a + _log_softplus(log_odds)) + softplus(log_odds)


def _log_softplus(x: Float[Array, ""]) -> Float[Array, ""]:
    """``log log(1 + e^x)``, which is x to the last digit of float64 below -37, where softplus itself underflows."""
    far = x < -37
    return jnp.where(far, x, jnp.log(softplus(jnp.where(far, 0, x))))


def mixture_loglike(
    log_component_weights: Float[Array, " K"],
    component_mus: Float[Array, " K"],
    log_component_scales: Float[Array, " K"],
    data: Float[Array, " N"],
    data_weights: Float[Array, " N"] | None = None,
) -> Float[Array, ""]:
    """Log likelihood ``sum_n omega_n log sum_k w_k N(x_n | mu_k, s_k^2)``, nats. Shapes: ``(K,)`` thrice, ``(N,)``."""
    scales = jnp.exp(log_component_scales)[:, None, None]
    return mixture.log_likelihood(
        log_softmax(log_component_weights), component_mus[:, None], scales, data[:, None], data_weights
    )


def joint_loglike(
    log_component_weights: Float[Array, " K"],
    log_concentration: Float[Array, "..."],
    num_components: int,
    component_mus: Float[Array, " K"],
    log_component_scales: Float[Array, " K"],
    data: Float[Array, " N"],
    data_weights: Float[Array, " N"] | None = None,
) -> Float[Array, ""]:
    """`component_probs_loglike` of the first `num_components` sticks plus `mixture_loglike`, nats."""
    of_sticks = component_probs_loglike(log_component_weights, log_concentration, num_components)
    return of_sticks + mixture_loglike(
        log_component_weights, component_mus, log_component_scales, data, data_weights=data_weights
    )


def make_joint_loss(num_components: int) -> Callable[..., Float[Array, ""]]:
    """Minus `joint_loglike` as ``loss(params, data, data_weights=None)``, with `num_components` sticks in the prior."""

    def inner(params: tuple[Array, Array, Array, Array], data: Array, data_weights: Array | None = None) -> Array:
        log_component_weights, log_concentration, component_mus, log_component_scales = params
        return -joint_loglike(
            log_component_weights,
            log_concentration,
            num_components,
            component_mus,
            log_component_scales,
            data,
            data_weights=data_weights,
        )

    return inner


def make_step_scannable(
    get_params_func: Callable, dloss_func: Callable, update_func: Callable, data: Array
) -> Callable:
    """One optimiser step as a body for `jax.lax.scan`: ``(state, iteration) -> (new state, state)``.

    `get_params_func` and `update_func` are the second and third function of a `jax.example_libraries` optimiser,
    `dloss_func(params, data)` is the gradient of the loss.
    """

    def inner(previous_state, iteration):
        gradient = dloss_func(get_params_func(previous_state), data)
        return update_func(iteration, gradient, previous_state), previous_state

    return inner


class Certificate(NamedTuple):
    """What compression cost: exact against compressed loss, at the worst served step of every segment of the path."""

    points: int
    """Points of the largest stand-in that was used."""
    max_error: float
    """Largest difference, nats. Below about 1e-6 of the loss it is the rounding of float32."""
    tolerance: float
    """Difference allowed, as a part of the loss."""
    refinements: int
    """Segments run again with narrower bins."""
    full_data_steps: int
    """Steps for which no stand-in was good enough."""


class Training(NamedTuple):
    """Result of `train`. ``loss (steps,)`` is that before each step, on the data that the step was taken on."""

    loss: Float[np.ndarray, " steps"]
    history: Parameters
    """Parameters before the steps `history_steps`, each with a leading axis ``(S,)``."""
    history_steps: Int[np.ndarray, " T"]
    parameters: Parameters
    """After the last step."""
    certificate: Certificate | None
    """None where all points were used throughout."""


def train(
    data: Dataset,
    *,
    steps: int = 10_000,
    learning_rate: float = 0.05,
    truncation: int = 50,
    num_components: int = 25,
    thin: int = 50,
    key: Array | None = None,
    compress: bool = True,
    tolerance: float = 1e-5,
    dtype: Any = jnp.float32,
) -> Training:
    """The article's run: Adam on `make_joint_loss(num_components)`, from `initial_parameters(key, truncation)`.

    ``compress=False`` is one `lax.scan` over all points. ``compress=True`` is one per segment of 100 steps, on few
    weighted points, in bins that follow the components passing over them. Each segment is checked against the exact
    loss, and run again, at the limit on all points, where the two differ by more than `tolerance` of the loss. Every
    `thin`-th step is kept. Raises `InputError` where the data have more than one column.
    """
    if data.dim != 1:
        raise InputError(
            f"{data.name}: {data.dim} columns, and the article's model is one-dimensional: choose one column"
        )
    parameters = initial_parameters(key, truncation, dtype)
    state = optimizers.adam(learning_rate).init_fn(parameters)
    settings = {"num_components": num_components, "learning_rate": learning_rate}
    everything = _Points(jnp.asarray(data.points[:, 0], dtype), jnp.asarray(data.weights, dtype))
    if compress and data.size > SIZES[0]:
        run = _descend_in_segments(state, data, everything, steps, tolerance, settings)
    else:
        run = *_descend(state, np.arange(steps, dtype=np.int32), everything, **settings), None
    state, loss, path, certificate = run
    history = jax.tree.map(lambda leaf: np.asarray(leaf)[::thin], path)
    final = optimizers.adam(learning_rate).params_fn(state)
    return Training(np.asarray(loss), history, np.arange(0, steps, thin), final, certificate)


class _Points(NamedTuple):
    data: Float[Array, " N"]
    data_weights: Float[Array, " N"]


@partial(jax.jit, static_argnames=("num_components", "learning_rate"))
def _descend(state, iterations: Array, points: _Points, *, num_components: int, learning_rate: float):
    """Adam over `iterations`: new state, loss and parameters before every step."""
    _, update, get_params = optimizers.adam(learning_rate)
    value_and_gradient = jax.value_and_grad(make_joint_loss(num_components))

    def step(state, iteration):
        params = get_params(state)
        loss, gradient = value_and_gradient(params, *points)
        return update(iteration, gradient, state), (loss, params)

    state, (loss, path) = lax.scan(step, state, iterations)
    return state, loss, path


# Training on few points. The bins follow the components: where a narrow one passes, they are nearly as narrow as it is.

SEGMENT = 100
"""Steps between two looks at the certificate."""
ATTEMPTS = 3
"""Times that a segment is run on ever narrower bins before all points are used."""
SIZES = [128 * factor << doublings >> 1 for doublings in range(40) for factor in (2, 3)]
"""Stand-ins are padded to one of these sizes (128, 192, 256, 384, ...), so that few programs are compiled."""
WIDEST = 0.25
"""Widest bin, in standard deviations of the data; other bins are this over a power of two."""
SCALES_PER_BIN = 2.0
"""A component asks for bins no wider than this many of its scales,"""
REACH = 6.0
"""in a neighbourhood of this half-width, in its scales,"""
NEGLIGIBLE = 0.01
"""if it is expected to hold this many points or more."""
NODES = 4
"""Quadrature nodes per bin."""


def _descend_in_segments(state, data: Dataset, everything: _Points, steps: int, tolerance: float, settings: dict):
    """As `_descend`, on stand-ins for the data; and the `Certificate`."""
    stand_ins = _StandIns(data, everything.data.dtype)
    before = _at(optimizers.adam(settings["learning_rate"]).params_fn(state), None)
    losses, paths, sizes, errors, refinements, full_data_steps = [], [], [0], [0.0], 0, 0
    for start in range(0, steps, SEGMENT):
        iterations = np.arange(start, min(start + SEGMENT, steps), dtype=np.int32)
        visited = [before]
        for _ in range(ATTEMPTS):
            points, size = stand_ins.on(visited)
            new_state, loss, path = _descend(state, iterations, points, **settings)
            path = jax.tree.map(np.asarray, path)
            worst = _at(path, stand_ins.worst_served(path))
            error = float(_error(worst, points, everything, settings["num_components"]))
            if error <= tolerance * abs(float(loss[-1])):
                sizes.append(size)
                errors.append(error)
                break
            visited.append(path)
            refinements += 1
        else:
            new_state, loss, path = _descend(state, iterations, everything, **settings)
            full_data_steps += len(iterations)
        state, before = new_state, path
        losses.append(loss)
        paths.append(path)
    certificate = Certificate(max(sizes), max(errors), tolerance, refinements, full_data_steps)
    return state, np.concatenate(losses), jax.tree.map(lambda *leaves: np.concatenate(leaves), *paths), certificate


def _at(path: Parameters, step: int | None) -> Parameters:
    """One step of a path; with None, the path of that one step."""
    return jax.tree.map(lambda leaf: leaf[step], path)


@partial(jax.jit, static_argnames="num_components")
def _error(params: Parameters, some: _Points, everything: _Points, num_components: int) -> Float[Array, ""]:
    """Absolute difference of the loss on two sets of points."""
    loss = make_joint_loss(num_components)
    return jnp.abs(loss(params, *some) - loss(params, *everything))


class _StandIns:
    """Few weighted points for the data, by the components that visit them. Keeps the last, which often serves again."""

    def __init__(self, data: Dataset, dtype: Any):
        carries = data.weights > 0
        self.points, which = np.unique(data.points[carries, 0], return_inverse=True)
        self.weights = np.bincount(which, data.weights[carries])
        self.widest = WIDEST * float(data.scale[0])
        self.dtype = dtype
        self.halvings = np.full(len(self.points), -1)

    def on(self, visited: list[Parameters]) -> tuple[_Points, int]:
        """Points for these paths, padded with points of no weight, and how many they were before."""
        halvings = self._asked_for(visited)
        if not np.array_equal(halvings, self.halvings):
            self.halvings, self.last = halvings, self._compress(halvings)
        return self.last

    def worst_served(self, path: Parameters) -> int:
        """Step of a path at which a component is narrowest beside the bin it is in: where the certificate looks."""
        carries, mus, scales = self._components(path)
        at = np.searchsorted(self.points, mus).clip(max=len(self.points) - 1)
        return int(np.where(carries, scales * 2.0 ** self.halvings[at], np.inf).min(axis=1).argmin())

    def _components(self, path: Parameters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Whether a component carries points, its mean and its scale, ``(steps, K)`` each."""
        log_weights, _, mus, log_scales = (np.asarray(leaf, np.float64) for leaf in path)
        log_shares = log_weights - np.logaddexp.reduce(log_weights, axis=-1, keepdims=True)
        return log_shares > np.log(NEGLIGIBLE / self.weights.sum()), mus, np.exp(log_scales)

    def _asked_for(self, visited: list[Parameters]) -> np.ndarray:
        """Of every point, how often the widest bin has to be halved for the components that pass over it, ``(N,)``."""
        carries, mus, scales = (np.concatenate(parts) for parts in zip(*map(self._components, visited), strict=True))
        asks = carries & (SCALES_PER_BIN * scales < self.widest)
        mus, scales = mus[asks], scales[asks]
        wanted = np.ceil(np.log2(self.widest / (SCALES_PER_BIN * scales))).astype(int)
        first, last = (np.searchsorted(self.points, mus + side * REACH * scales) for side in (-1, 1))
        halvings = np.zeros(len(self.points), int)
        for level in np.unique(wanted):
            entered, left = (np.bincount(at[wanted == level], minlength=len(halvings) + 1) for at in (first, last))
            halvings[np.cumsum(entered - left)[:-1] > 0] = level
        return halvings

    def _compress(self, halvings: np.ndarray) -> tuple[_Points, int]:
        """Bins end where the width changes: one that reached across would put a node where there is no point."""
        bins = np.floor(self.points * (2.0**halvings / self.widest))
        starts = np.flatnonzero((np.diff(bins, prepend=np.nan) != 0) | (np.diff(halvings, prepend=-1) != 0))
        points, weights = quadrature(self.points, self.weights, starts, NODES)
        size = next(size for size in SIZES if size >= len(points))
        pad = 0, size - len(points)
        padded = np.pad(points, pad, mode="edge"), np.pad(weights, pad)
        return _Points(*(jnp.asarray(a, self.dtype) for a in padded)), len(points)
