"""Relabelling by permutations that the user has."""

import numpy as np

from ..errors import InputError
from .assignment import Alignment


def user(permutations: np.ndarray) -> Alignment:
    """The given ``permutations (T, K)``, checked. There is no objective to be optimal for: it and the rest are NaN.

    Raises `InputError` where a row is not a permutation of 0 ... K - 1.
    """
    permutations = np.asarray(permutations)
    wrong = (np.sort(permutations, axis=-1) != np.arange(permutations.shape[-1])).any(axis=-1)
    if wrong.any():
        t = int(np.argmax(wrong))
        raise InputError(
            f"permutations: draw {t} has {permutations[t].tolist()}; every row must hold 0 to "
            f"{permutations.shape[-1] - 1} once, the original component that becomes component k"
        )
    length = len(permutations)
    nan = np.full(length, np.nan)
    return Alignment(permutations.astype(np.int64), float("nan"), np.empty(0), nan, np.zeros(length, bool))
