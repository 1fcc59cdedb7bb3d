"""Artificial identifiability constraint: components in increasing order of one parameter."""

import numpy as np

from .assignment import Alignment


def aic(values: np.ndarray, *, active: np.ndarray | None = None) -> Alignment:
    """Components sorted by ``values (T, K)``, one parameter of each, equal ones in their original order.

    Sorting is the linear assignment that maximises ``sum_k k values[t, perm_t[k]]``, k from 0, which is the objective;
    the second best swaps the closest neighbours, so the ambiguity is the smallest gap, in the parameter's units. With
    ``active (T, K)`` the empty components are parked behind the others. The constraint is a choice, not an estimate: it
    cuts through components that overlap in this parameter (Celeux, Hurn & Robert 2000, JASA 95).
    """
    keys = values if active is None else np.where(active, values, np.inf)
    permutations = np.argsort(keys, axis=-1, kind="stable")
    ordered = np.take_along_axis(keys, permutations, axis=-1)
    finite = np.where(np.isfinite(ordered), ordered, 0.0)
    objective = float((finite @ np.arange(values.shape[-1])).sum())
    with np.errstate(invalid="ignore"):
        gaps = np.diff(ordered, axis=-1)
    ambiguity = np.where(np.isnan(gaps), np.inf, gaps).min(axis=-1, initial=np.inf)
    return Alignment(permutations, objective, np.array([objective]), ambiguity, ambiguity == 0)
