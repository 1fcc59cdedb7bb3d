"""Alternating minimisation from several starts: assign every draw to a reference, make the reference anew, repeat."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import assignment

BETTER = 1e-12
"""Relative improvement below which an iteration is rounding and the path has converged."""
STARTS = 4
MAX_ITERATIONS = 100


class Stage(NamedTuple):
    """``permutations (T, K)``, the `reference` made from them, and the objective of the two."""

    permutations: np.ndarray
    reference: Any
    objective: float


Step = Callable[[Sequence[Any]], list[Stage]]
"""One iteration for several paths at once: references to stages; the reference None stands for the identity."""


def best(
    step: Step, references: Sequence[Any], *, sense: int, max_iterations: int = MAX_ITERATIONS
) -> tuple[Stage, np.ndarray]:
    """Best last stage over paths from the identity and from each of `references`, and its history of objectives.

    `sense` is 1 where the objective is maximised and -1 where it is minimised. A path goes on while its objective
    improves, so a history is monotone by construction. Another start replaces the identity's only where it ends
    strictly better, so that more starts never end above fewer.
    """
    last: list[Stage | None] = [None] * (1 + len(references))
    history: list[list[float]] = [[] for _ in last]
    live: dict[int, Any] = dict(enumerate([None, *references]))
    for _ in range(max_iterations):
        stages = zip(live, step(list(live.values())), strict=True)
        better = {i: new for i, new in stages if _improves(new, last[i], sense)}
        for i, stage in better.items():
            last[i] = stage
            history[i].append(stage.objective)
        live = {i: stage.reference for i, stage in better.items()}
        if not live:
            break
    winner = 0
    for i in range(1, len(last)):
        if _improves(last[i], last[winner], sense):
            winner = i
    stage, first = last[winner], last[0]
    assert stage is not None
    assert first is not None
    return _named_alike(stage, first), np.array(history[winner])


def pivots(num_draws: int, starts: int) -> np.ndarray:
    """``starts - 1`` draws, evenly spread over the chain, that starts other than the identity take as reference."""
    return np.unique(np.linspace(0, num_draws - 1, starts + 1).astype(int)[1:-1])


def _improves(new: Stage | None, old: Stage | None, sense: int) -> bool:
    if new is None or old is None:
        return old is None
    return sense * (new.objective - old.objective) > BETTER * abs(old.objective)


def _named_alike(stage: Stage, first: Stage) -> Stage:
    """The same stage with its components in the order that makes its permutations most often those of `first`.

    The reference keeps its own order: objective and ambiguity do not depend on it.
    """
    order = assignment.common(stage.permutations, first.permutations)
    return stage._replace(permutations=stage.permutations[:, order])
