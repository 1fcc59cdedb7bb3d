"""Rows held out: the same for whoever is fitted to the rest."""

import numpy as np

from ..errors import InputError
from .dataset import Dataset


def hold_out(data: Dataset, share: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """The data without a random `share` of the rows that carry weight, and those rows; both keep name, columns, order.

    Raises `InputError` for a share outside (0, 1), or one that leaves nothing on either side.
    """
    carries = np.flatnonzero(data.weights)
    number = round(share * len(carries)) if 0 < share < 1 else 0
    if not 0 < number < len(carries):
        raise InputError(
            f"holdout = {share}: of {len(carries)} rows that leaves nothing to fit or to predict; give a share such as 0.1"
        )
    rows = np.sort(np.random.default_rng(seed).choice(carries, number, replace=False))
    kept = np.setdiff1d(np.arange(data.size), rows)
    take = lambda at: Dataset(data.points[at], data.weights[at], data.name, data.columns)
    return take(kept), take(rows)
