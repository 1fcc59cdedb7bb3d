"""Which of several models predicts best, by which method that is judged, and whether the judgement may be believed."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

APART = 2.0
"""Standard errors of a difference in elpd within which two models are not told apart."""
SMALL = 4.0
"""Nats below which a difference's standard error is no guide (Sivula, Magnusson, Matamoros & Vehtari 2020,
arXiv:2008.10296)."""
LEFT_OUT, HELD_OUT = ("elpd_diff", "dse"), ("held_out_diff", "held_out_dse")
"""Columns of a difference to the best model and its standard error."""


class Evidence(NamedTuple):
    """What a model's run says of one of its methods.

    `standing`: as `answer.standing`; `believed`: it has earned belief, and no other converged sampler contradicts it;
    `reason`: its verdict, in words.
    """

    standing: tuple[bool, int, float]
    believed: bool
    reason: str


class Choice(NamedTuple):
    """The model that predicts best, `None` where nothing can be compared, by one method for all of them.

    `sentence`: the first line, with every reservation; `notes`: what other evidence says. `told_apart`: it is ahead of all
    others by more than `APART` standard errors and `SMALL` nats; `believed`: the method earned belief under every model
    and no k-hat is too large.
    """

    sentence: str
    model: str | None
    method: str | None
    believed: bool
    told_apart: bool
    notes: tuple[str, ...] = ()


def choose(tables: Mapping[str, pd.DataFrame], evidence: Mapping[str, Mapping[str, Evidence]]) -> Choice:
    """The choice by the method whose worst standing among the models is best: one method, so that models alone differ.

    `tables`: by method, of `elpd.compare`, `elpd.compare_held_out`, or both side by side. `evidence`: by model and method.
    """
    shared = {name: table for name, table in tables.items() if all(model in table.index for model in evidence)}
    by_loo = [name for name, table in shared.items() if "elpd" in table]
    if not by_loo:
        return _without_posterior(shared)
    method = max(by_loo, key=lambda name: min(of[name].standing for of in evidence.values()))
    table = shared[method].sort_values("elpd", ascending=False)
    reservations = _reservations(method, table, evidence)
    alike, best = _alike(table, *LEFT_OUT), str(table.index[0])
    if reservations:
        sentence = f"{'; '.join(reservations)}. So far, by {method}, {_lead(table, *LEFT_OUT)}."
        sentence = sentence[0].upper() + sentence[1:]
    else:
        head = f"{_listed(alike)} cannot be told apart" if len(alike) > 1 else f"{best} predicts best"
        sentence = f"{head}: by {method}, believed under every model, {_lead(table, *LEFT_OUT)}."
    others = [name for name in by_loo if name != method and all(of[name].believed for of in evidence.values())]
    notes = [f"{n}, believed too, puts {shared[n].index[0]} first." for n in others if shared[n].index[0] != best]
    if "held_out" in table:
        notes.append(_on_held_out(table, method))
    return Choice(sentence, best, method, not reservations, len(alike) == 1, tuple(notes))


def _without_posterior(shared: Mapping[str, pd.DataFrame]) -> Choice:
    """What can be said without leave-one-out: the densities of rows held out, by a point estimate too."""
    if not shared:
        sentence = "No comparison of models: no method came to an end under every one of them."
        return Choice(sentence, None, None, believed=False, told_apart=False)
    method, table = next(iter(shared.items()))
    sentence = f"No posterior to compare: {method} is a point estimate. {_on_held_out(table, method)}"
    table = table.sort_values("held_out", ascending=False)
    apart = len(_alike(table, *HELD_OUT)) == 1
    return Choice(sentence, str(table.index[0]), method, believed=False, told_apart=apart)


def _on_held_out(table: pd.DataFrame, method: str) -> str:
    return f"On the rows held out, by {method}, {_lead(table.sort_values('held_out', ascending=False), *HELD_OUT)}."


def _reservations(method: str, table: pd.DataFrame, evidence: Mapping[str, Mapping[str, Evidence]]) -> list[str]:
    """Why the comparison is not to be relied on; empty where it is."""
    doubted = [f"under {model} {of[method].reason}" for model, of in evidence.items() if not of[method].believed]
    large = [
        f"{bad:.0f} rows under {model}" for model, bad in zip(table.index, table["bad_k"].tolist(), strict=True) if bad
    ]
    found = []
    if doubted:
        found.append(f"no comparison of the models has earned belief yet ({method}: {'; '.join(doubted)})")
    if large:
        found.append(f"leave-one-out is not to be relied on, k-hats being too large ({', '.join(large)})")
    return found


def _alike(table: pd.DataFrame, difference: str, error: str) -> list[str]:
    """The best model and those that are not told apart from it."""
    pairs = zip(table.index, -table[difference].to_numpy(), table[error].to_numpy(), strict=True)
    return [str(model) for model, behind, dse in pairs if not (behind > max(APART * dse, SMALL) and dse > 0)]


def _lead(table: pd.DataFrame, difference: str, error: str) -> str:
    """By how much the best model is ahead of the next one, and whether that is anything."""
    best, following = table.index[:2]
    ahead, dse = -float(table[difference].iloc[1]), float(table[error].iloc[1])
    other = f"the next, {following}," if len(table) > 2 else following
    told = f"{best} is ahead of {other} by {ahead:.1f} ± {dse:.1f} nats"
    if not ahead > APART * dse:
        return f"{told}, within two standard errors of the difference"
    if not ahead > SMALL:
        return f"{told}, less than the {SMALL:.0f} nats from which a standard error can be trusted"
    return told + ("" if dse > 0 else ", of which one row gives no standard error")


def _listed(names: list[str]) -> str:
    """A, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]])
