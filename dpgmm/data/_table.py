"""A table as it was read: named columns of numbers or of text, and where each of its rows stands."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

MISSING = ("", "na", "n/a", "nan", "+nan", "-nan", "null", "none", "<na>", "nat", ".", "-", "--", "?", "#n/a", "#na")
ERRORS = ("#value!", "#div/0!", "#ref!", "#num!", "#null!", "#name?")
"""Cells, in lower case, that hold no number: as R, pandas, SAS and Weka write them, and what sheets show for an error."""
NOTHING = frozenset((*MISSING, *ERRORS))


class Table(NamedTuple):
    """`names` of the columns, empty or a position where there is none; `named` whether a header gave them.

    `columns`: float64 with NaN where a cell is missing, or strings (object) with None there. `place(row, column)` says
    where a cell stands and what it holds, for a message. `separator`: of a text. `notes`: what was done, in words.
    """

    where: str
    names: list[str]
    columns: list[np.ndarray]
    named: bool
    place: Callable[[int, int], tuple[str, str]]
    separator: str = ","
    notes: tuple[str, ...] = ()


def by_row(where: str) -> Callable[[int, int], tuple[str, str]]:
    """How to say where a cell of an array stands: by its row, the first one 0."""
    return lambda row, _: (f"{where}, row {row}", "")


def column(values: pd.Series) -> np.ndarray:
    """A column of a frame as float64 or strings, missing cells as NaN or None."""
    if values.dtype.kind in "iuf":
        return values.to_numpy(np.float64, na_value=np.nan)
    missing = values.isna().to_numpy(bool)
    told = values.loc[~missing]
    if values.dtype == object and all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in told):
        return values.to_numpy(np.float64, na_value=np.nan)
    words = np.full(len(values), None, object)
    words[~missing] = told.astype(str).to_numpy(object)
    return words
