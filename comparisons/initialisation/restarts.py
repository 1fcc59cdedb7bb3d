"""What restarts of an optimiser buy: the best of r of them."""

import math

import numpy as np
from jaxtyping import Float

from dpgmm.diagnostics.intervals import Share

BOOTSTRAP = 1_000
"""Resamples of a bootstrap interval."""


def best_of(share: Share, restarts: int) -> Share:
    """Probability that one of r independent restarts succeeds, ``1 - (1 - p)^r``: increasing in p, so the interval too."""
    return Share(*(1 - (1 - p) ** restarts for p in share))


def restarts_needed(share: float, certainty: float = 0.95) -> float:
    """Least r with ``1 - (1 - p)^r >= certainty``; infinite where nothing ever succeeds."""
    if share in (0.0, 1.0):
        return math.inf if share == 0 else 1.0
    return float(math.ceil(math.log1p(-certainty) / math.log1p(-share)))


def median_best(values: Float[np.ndarray, "*batch n"], restarts: int) -> Float[np.ndarray, "*batch"] | np.floating:
    """Median of the best of r values drawn from the last axis with replacement: exact, no simulation.

    The i-th smallest of n bounds the best with probability ``(i / n)^r``; the median is the least for which that is one half
    or more. Shapes: ``(..., n)`` to ``(...)``. A median, since single restarts may end at minus infinity.
    """
    n = values.shape[-1]
    reached = (np.arange(1, n + 1) / n) ** restarts >= 0.5 - 1e-12
    return np.sort(values, axis=-1)[..., int(reached.argmax())]


def bootstrap(values: Float[np.ndarray, " n"], restarts: int, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of `median_best` over `BOOTSTRAP` resamples of the runs ``(n,)``."""
    resampled = np.random.default_rng(seed).choice(values, (BOOTSTRAP, len(values)))
    low, high = np.quantile(median_best(resampled, restarts), [0.025, 0.975], method="nearest")
    return float(low), float(high)
