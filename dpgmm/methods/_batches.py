"""Random batches of points that stand for all: steps of an optimiser whose cost does not grow with the data.

With rows ``n_1, .., n_B`` drawn uniformly with replacement, ``N/B sum_b omega_{n_b} log p(x_{n_b})`` and its gradient have
the log likelihood and its gradient as their means (Robbins & Monro 1951; Hoffman et al. 2013).
"""

from jax import Array, random

from ..errors import at_least
from ..model.posterior import Arrays, Posterior

MANY, SIZE = 50_000, 10_000
"""Points above which steps take batches by default, and how many points those hold."""


def size_of(method: str, posterior: Posterior, batch_size: int | None) -> int | None:
    """Points of a batch, None for all of them: as asked, else `SIZE` where there are more than `MANY`."""
    size = posterior.data.size
    if batch_size is None:
        return SIZE if size > MANY else None
    at_least(method, 1, batch_size=batch_size)
    return batch_size if batch_size < size else None


def drawn(key: Array, data: Arrays, size: int | None) -> Arrays:
    """A batch, its weights scaled by ``N/B``; all points for None."""
    if size is None:
        return data
    rows = random.randint(key, (size,), 0, len(data.points))
    return Arrays(data.points[rows], data.weights[rows] * (len(data.points) / size))
