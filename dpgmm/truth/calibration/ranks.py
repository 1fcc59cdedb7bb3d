"""Ranks of the truth among draws, over simulations: tables of how far from uniform they are."""

import dataclasses
from collections.abc import Iterable
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from ...errors import InputError
from .uniformity import excursion, uniformity_p_value

LEVEL = 0.95
"""Probability of a band that all quantities of a calibrated method stay within."""
COVERAGE = 0.9
"""Probability of the central intervals whose coverage is shown."""
FEWEST = 19
"""Draws of which a central 90 % interval can be taken."""


@dataclasses.dataclass(frozen=True, eq=False)
class Ranks:
    """Ranks of the truth: how many of `draws` draws of a fit lie below it, over simulated data sets.

    rank: ``(simulation, quantity)``, 0 to `draws`, ties broken at random: uniform over its ``draws + 1`` values for a
    calibrated method. names: of the quantities. invariant: ``(quantity,)``, False for the log joint density of a model whose
    labels are not exchangeable. k_hat: ``(simulation,)`` of the fits by `svi`, else None. point_estimate: whether draws are
    modes rather than a posterior.
    """

    method: str
    model: str
    names: tuple[str, ...]
    rank: np.ndarray
    draws: int
    invariant: np.ndarray
    k_hat: np.ndarray | None = None
    point_estimate: bool = False


def collect(first: Ranks, more: Iterable[Ranks]) -> Ranks:
    """Ranks of several runs of the same method, model and number of draws as one. Raises `InputError` for others."""
    every = [first, *more]
    for other in every[1:]:
        if (other.method, other.model, other.names, other.draws) != (
            first.method,
            first.model,
            first.names,
            first.draws,
        ):
            raise InputError(
                f"ranks of {other.method} on {other.model} do not go with those of {first.method} on {first.model};"
                " give runs of one method, model and number of draws"
            )
    k_hats = [r.k_hat for r in every if r.k_hat is not None]
    return dataclasses.replace(
        first,
        rank=np.concatenate([r.rank for r in every]),
        k_hat=np.concatenate(k_hats) if len(k_hats) == len(every) else None,
    )


def pit(ranks: Ranks) -> np.ndarray:
    """``u = (rank + jitter) / (draws + 1)``, ``(simulation, quantity)``: uniform on (0, 1) for a calibrated method.

    The jitter, uniform on (0, 1), makes a continuous number of a rank; a quantity's is the same at every call, whatever
    other quantities and later simulations there are.
    """
    jitters = [np.random.default_rng(crc32(name.encode())).uniform(size=len(ranks.rank)) for name in ranks.names]
    return (ranks.rank + np.stack(jitters, axis=1)) / (ranks.draws + 1)


def inside(ranks: Ranks, level: float = LEVEL) -> pd.DataFrame:
    """Which quantities stay within their simultaneous bands: a table with index quantity, worst first.

    `p`: probability of a worse excursion of the ranks' distribution function under calibration, exact
    (`uniformity_p_value`). `inside`: p above ``1 - level``, that is within the band of this quantity alone, which one in
    twenty calibrated quantities leaves. `p, all`: p adjusted by Holm (1979) for the number of quantities, invariant ones
    and others apart, valid however they depend on each other; `inside, all` says that it exceeds ``1 - level``, and this is
    what a verdict should go by.
    `coverage`: share of truths within the central 90 % interval of the draws, NaN for fewer than `FEWEST` draws.
    `truth above`: mean share of a fit's draws that lie below the truth, one half under calibration. Raises `InputError`
    for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise InputError(f"level = {level}: it must be a number between 0 and 1")
    shares = pit(ranks)
    p = np.array([uniformity_p_value(excursion(u), len(u)) for u in shares.T])
    adjusted = np.empty(len(p))
    for group in (ranks.invariant, ~ranks.invariant):
        adjusted[group] = _holm(p[group])
    covered = (np.abs(shares - 0.5) < COVERAGE / 2).mean(axis=0)
    table = pd.DataFrame(
        {
            "invariant": ranks.invariant,
            "inside": p > 1 - level,
            "p": p,
            "inside, all": adjusted > 1 - level,
            "p, all": adjusted,
            "coverage": covered if ranks.draws >= FEWEST else np.nan,
            "truth above": ranks.rank.mean(axis=0) / ranks.draws,
        },
        index=pd.Index(ranks.names, name="quantity"),
    )
    return table.sort_values("p", kind="stable")


def summary(ranks: Ranks, level: float = LEVEL) -> dict[str, Any]:
    """One row for a table of methods, by the invariant quantities alone; p is adjusted for their number."""
    every = inside(ranks, level)
    table: pd.DataFrame = every.loc[every["invariant"].to_numpy()]
    return {
        "method": ranks.method,
        "model": ranks.model,
        "simulations": len(ranks.rank),
        "draws": ranks.draws,
        "quantities": len(table),
        "inside": int(table["inside, all"].to_numpy().sum()),
        "worst quantity": str(table.index[0]),
        "p": float(table["p, all"].to_numpy()[0]),
        "coverage": float(table["coverage"].to_numpy().min()),
    }


def _holm(p: np.ndarray) -> np.ndarray:
    """p-values adjusted for their number: the i-th smallest times ``n - i``, i from 0, never falling."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted
