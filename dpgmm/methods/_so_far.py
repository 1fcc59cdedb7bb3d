"""What the draws so far are worth while a sampler runs: the smallest ESS of a few numbers that know no labels."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Num

from ..draws import monte_carlo
from ..model.posterior import Parameters, Posterior

EVERY = 5.0
"""Seconds between two looks, at the least."""
SHARE = 0.01
"""Share of the time that looks take, at the most."""
FEWEST = 20
"""Draws of a chain after warm-up before an ESS says anything."""
COORDINATES = 3
"""Coordinates whose spread of means is looked at, at the most."""

Scalars = dict[str, Num[np.ndarray, " draw"]]


def invariants(
    weights: Float[np.ndarray, "draw K"], means: Float[np.ndarray, "draw K D"], **more: Num[np.ndarray, " draw"]
) -> Scalars:
    """Label-invariant numbers of draws, cheap ones: ``sum_k w_k^2``, and per coordinate ``sum_k w_k (m_k - m)^2``.

    The first is the probability that two new points share a component, the others, m the mean of the mixture, the
    variance between components, of `COORDINATES` coordinates at most. `more`: what else is at hand, by name.
    """
    chosen = np.unique(np.linspace(0, means.shape[-1] - 1, COORDINATES).astype(int))
    of = np.asarray(means)[..., chosen]
    apart = of - np.einsum("tk,tkd->td", weights, of)[:, None]
    between = np.einsum("tk,tkd->td", weights, apart**2)
    return {"shared": (weights**2).sum(axis=1), **{f"between {d}": between[:, i] for i, d in enumerate(chosen)}, **more}


def mixtures(
    posterior: Posterior, draws: Any, parameters: Callable[[Any], Parameters] = lambda draw: draw
) -> tuple[np.ndarray, np.ndarray]:
    """Weights ``(draw, K)`` and means of draws with a leading axis; ``parameters(draw)``: the model's own."""
    every = jax.vmap(lambda draw: posterior.mixture(parameters(draw))[:2])
    log_weights, means = jax.device_get(posterior.compile("so far", every, draws)[0](draws))
    return np.exp(log_weights), means


def smallest_ess(chains: Sequence[Scalars]) -> float:
    """Smallest bulk or tail ESS (Vehtari et al. 2021) over numbers of chains, which may be of different lengths.

    Of the longest m chains, as many draws of each as the shortest of them has, m such that most draws are used: a chain
    that has just begun does not hide what the others have. NaN below `FEWEST` draws a chain, and of what never moves.
    """
    ordered = sorted(chains, key=_length, reverse=True)
    m = 1 + int(np.argmax([(i + 1) * _length(chain) for i, chain in enumerate(ordered)]))
    used, least = ordered[:m], _length(ordered[m - 1])
    if least < FEWEST:
        return float("nan")
    values = [np.stack([chain[name][:least] for chain in used]).astype(float) for name in used[0]]
    moving = [v for v in values if np.isfinite(v).all() and np.ptp(v) > 0]
    # A chain that stands still beside others that do not, or elsewhere, has an ESS: a small one.
    return min((min(monte_carlo.ess_bulk(v), monte_carlo.ess_tail(v)) for v in moving), default=float("nan"))


class SoFar:
    """Looks at chunks of draws every few seconds, from the thread of whichever chain comes by, one at a time.

    ``of(chunk)``: its `Scalars`, on the host. `warm`: draws of a chain that are thrown away.
    """

    def __init__(self, of: Callable[[Any], Scalars], chains: int, warm: int):
        self._of, self._warm, self._lock = of, warm, threading.Lock()
        self._chunks: list[Sequence[Any]] = [() for _ in range(chains)]
        self._seen: list[list[Scalars]] = [[] for _ in range(chains)]
        self._next, self._words = time.monotonic() + EVERY, ""

    def note(self, chain: int, chunks: Sequence[Any]) -> str:
        """What the progress bar says, empty as long as there is nothing to say. `chunks`: all of the chain."""
        self._chunks[chain] = chunks
        if time.monotonic() >= self._next and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._words

    def _look(self) -> None:
        monte_carlo.load()  # Once, and needed after the run in any case: no part of what a look takes.
        begun = time.monotonic()
        for chunks, seen in zip(self._chunks, self._seen, strict=True):
            seen.extend(self._of(chunk) for chunk in chunks[len(seen) :])
        ess = smallest_ess([_kept(seen, self._warm) for seen in self._seen if seen])
        self._words = f"smallest ESS {ess:,.0f}; " if np.isfinite(ess) else self._words
        now = time.monotonic()
        self._next = now + max(EVERY, (now - begun) / SHARE)


def _kept(seen: Sequence[Scalars], warm: int) -> Scalars:
    return {name: np.concatenate([some[name] for some in seen])[warm:] for name in seen[0]}


def _length(chain: Scalars) -> int:
    return len(next(iter(chain.values())))
