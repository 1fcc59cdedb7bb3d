"""Allocation probabilities of many draws, block by block: an array ``(T, N, K)`` is never needed as a whole."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..draws import allocations

FLOOR = 1e-6
"""Probabilities below are raised to this before they are normalised again, as R's label.switching does."""
KEPT = 8_000_000
"""Probabilities kept in memory between passes, 64 MB of float64; more of them are computed anew in every pass."""


class Gaussians(NamedTuple):
    """Parameters and points that stand for the probabilities ``w_k N(x_n | mu_k, Sigma_k) / sum_j ...`` they give.

    Shapes: ``weights (T, K)``, ``means (T, K, D)``, ``covariances (T, K, D, D)``, ``points (N, D)``.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    points: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape ``(T, N, K)`` of the probabilities."""
        return len(self.weights), len(self.points), self.weights.shape[1]


class Block(NamedTuple):
    """Draws `part`: ``probabilities (t', K, N)``, t' at least their number t, and ``negentropies (t,)``.

    The negentropy of a draw is ``sum_nk omega_n p log p``, in nats. XLA multiplies the matrices here: it does not make
    its threads wait for each other while another program has the cores.
    """

    part: slice
    probabilities: Array
    negentropies: np.ndarray

    def products(self, references: np.ndarray) -> np.ndarray:
        """``sum_n p[t, j, n] references[m, n]``, ``(M, N)`` to ``(t, K, M)``."""
        with jax.enable_x64(True):
            products = np.asarray(_products(self.probabilities, jnp.asarray(references)))
        return products.reshape(*self.probabilities.shape[:2], -1)[: len(self.negentropies)]

    def sums(self, permutations: np.ndarray) -> np.ndarray:
        """``sum_t p[t, permutations[s, t, k], n]``, ``(S, t, K)`` to ``(S, K, N)``."""
        size, num_components, _ = self.probabilities.shape
        chosen = np.zeros((len(permutations), num_components, size, num_components))
        indices = permutations.transpose(0, 2, 1)[..., None]
        np.put_along_axis(chosen[:, :, : permutations.shape[1]], indices, 1.0, axis=-1)
        with jax.enable_x64(True):
            sums = _sums(self.probabilities, jnp.asarray(chosen.reshape(-1, size * num_components)))
        return np.asarray(sums).reshape(len(permutations), num_components, -1)


class Blocks:
    """The probabilities of all draws as `Block`s, as often as one asks; in float64 whatever JAX is set to.

    From an array ``(T, N, K)`` or from `Gaussians`. Few are kept between passes, many are computed anew, so that the
    memory does not grow with the number of draws.
    """

    def __init__(self, source: np.ndarray | Gaussians, point_weights: np.ndarray | None = None, floor: float = FLOOR):
        self.source, self.floor = source, floor
        self.shape = num_draws, num_points, num_components = source.shape
        self.point_weights = np.ones(num_points) if point_weights is None else np.asarray(point_weights, float)
        dim = source.points.shape[1] if isinstance(source, Gaussians) else 1
        size = next(iter(allocations.chunks(num_draws, num_points, num_components * dim))).stop
        self._size = min(size, num_draws)
        self._kept: list[Block] | None = [] if num_draws * num_points * num_components <= KEPT else None

    def __iter__(self) -> Iterator[Block]:
        if self._kept:
            yield from self._kept
            return
        for start in range(0, self.shape[0], self._size):
            block = self._block(np.arange(start, min(start + self._size, self.shape[0])))
            if self._kept is not None:
                self._kept.append(block)
            yield block

    def at(self, draws: np.ndarray) -> np.ndarray:
        """Probabilities of a few draws, ``(len(draws), K, N)``."""
        found = []
        for t in draws:
            blocks = list(self) if self._kept is not None else [self._block(np.array([t]))]
            block = next(b for b in blocks if b.part.start <= t < b.part.stop)
            found.append(np.asarray(block.probabilities[t - block.part.start]))
        return np.array(found).reshape(-1, self.shape[2], self.shape[1])

    def _block(self, draws: np.ndarray) -> Block:
        # The last block is filled up with its last draw: one shape, one compilation.
        full = np.pad(draws, (0, self._size - len(draws)), mode="edge")
        with jax.enable_x64(True):
            omega, floor = jnp.asarray(self.point_weights), jnp.asarray(self.floor)
            if isinstance(self.source, Gaussians):
                arrays = (jnp.asarray(np.asarray(a[full], float)) for a in self.source[:3])
                both = _of_gaussians(*arrays, jnp.asarray(np.asarray(self.source.points, float)), omega, floor)
            else:
                both = _prepared(jnp.asarray(np.asarray(self.source[full], float)), omega, floor)
        return Block(slice(draws[0], draws[-1] + 1), both[0], np.asarray(both[1])[: len(draws)])


def counts(source: np.ndarray | Gaussians, point_weights: np.ndarray | None = None) -> np.ndarray:
    """Expected number of points in every component, ``sum_n omega_n p[t, n, k]``, ``(T, K)``, streamed."""
    blocks = Blocks(source, point_weights, floor=0.0)
    return np.concatenate([block.products(blocks.point_weights[None])[..., 0] for block in blocks])


@jax.jit
def _products(probabilities: Array, references: Array) -> Array:
    return probabilities.reshape(-1, probabilities.shape[-1]) @ references.T


@jax.jit
def _sums(probabilities: Array, chosen: Array) -> Array:
    return chosen @ probabilities.reshape(-1, probabilities.shape[-1])


@jax.jit
def _prepared(probabilities: Array, point_weights: Array, floor: Array) -> tuple[Array, Array]:
    raised = jnp.maximum(probabilities, floor)
    raised = raised / jnp.sum(raised, axis=-1, keepdims=True)
    logs = jnp.log(jnp.maximum(raised, jnp.finfo(raised.dtype).tiny))
    return jnp.swapaxes(raised, 1, 2), jnp.sum(raised * logs, axis=-1) @ point_weights


@jax.jit
def _of_gaussians(weights, means, covariances, points, point_weights, floor) -> tuple[Array, Array]:
    return _prepared(allocations.probabilities(weights, means, covariances, points), point_weights, floor)
