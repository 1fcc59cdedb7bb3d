"""A table as it was read: named columns of numbers or of text, and where each of its rows stands."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

MISSING = ("", "na", "n/a", "nan", "+nan", "-nan", "null", "none", "<na>", "nat", ".", "-", "--", "?", "#n/a", "#na")
ERRORS = ("#value!", "#div/0!", "#ref!", "#num!", "#null!", "#name?")
"""Cells, in lower case, that hold no number: as R, pandas, SAS and Weka write them, and what sheets show for an error."""
NOTHING = frozenset((*MISSING, *ERRORS))


class Words(NamedTuple):
    """A column of cells that are not all plain numbers, read as numbers by the one convention that reads most of them.

    `values`: ``(N,)`` float64, NaN where a cell is missing or no number; `told`: ``(N,)``, not zero where a cell is there,
    or one of another such column. `finite` and `wrong`: how many cells are finite numbers, and neither numbers nor missing;
    `first_wrong`: the row of the first of these, and the cell. `empty`: whether no cell is there. `kind`: what such a column
    is called.
    """

    values: np.ndarray
    told: np.ndarray
    finite: int
    wrong: int
    first_wrong: tuple[int, str]
    empty: bool
    kind: str


class Table(NamedTuple):
    """`names` of the columns, empty or a position where there is none; `named` whether a header gave them.

    `columns`: float64 with NaN where a cell is missing, or strings (object) with None there, or `Words`. `places(rows)` says
    where rows stand, `cell(row, column)` what a cell holds, for messages. `separator`: of a text. `notes`: what was done, in
    words. `rows`: ``(N, D)`` float64 that the columns are those of, where they lie so.
    """

    where: str
    names: list[str]
    columns: Sequence[np.ndarray | Words]
    named: bool
    places: Callable[[Sequence[int]], list[str]]
    cell: Callable[[int, int], str] = lambda row, column: ""
    separator: str = ","
    notes: tuple[str, ...] = ()
    rows: np.ndarray | None = None


def by_row(where: str) -> Callable[[Sequence[int]], list[str]]:
    """How to say where rows of an array stand: by number, the first one 0."""
    return lambda rows: [f"{where}, row {row}" for row in rows]


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
