"""Columns of a table: which of them are points, by name or by what they hold, and their numbers, piece by piece."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from . import _numbers
from ._scratch import Scratch
from ._table import Table, Words
from .dataset import ROWS

COUNTERS = re.compile(r"(unnamed: *\d+|index|id|row|rowid|row_id|rownames|row_names|obs|no|nr|#)?$", re.IGNORECASE)
"""Names of columns that count rows, where what they hold does."""
LARGE = 2**28
"""Bytes from which on numbers that are on disk are put together there, and not in memory."""


class Numbers(NamedTuple):
    """The numbers of a column, ``(N,)``, and those among them that stand for a missing value."""

    values: np.ndarray
    missing: tuple[float, ...]

    def piece(self, rows: slice) -> np.ndarray:
        """Some of them, NaN where missing."""
        values = self.values[rows]
        return np.where(np.isin(values, self.missing), np.nan, values) if self.missing else values


def slices(size: int) -> Iterator[slice]:
    """`ROWS` rows at a time."""
    return (slice(start, min(start + ROWS, size)) for start in range(0, size, ROWS))


def size(table: Table) -> int:
    """Number of rows."""
    first = table.columns[0]
    return len(first.values if isinstance(first, Words) else first)


def label(table: Table, j: int) -> str:
    """What a message calls a column."""
    return table.names[j] or str(j)


def positions(table: Table, asked: Sequence[str]) -> list[int]:
    """Positions of the columns asked for, by name or position."""
    names = table.names
    known = {str(j): [j] for j in range(len(names))}
    known |= {name: [j for j, other in enumerate(names) if other == name] for name in names if name}
    chosen = []
    for column in asked:
        found = known.get(str(column), known.get(str(column).strip(), []))
        if len(found) != 1 or found[0] in chosen:
            what = "no column" if not found else "more than one column" if len(found) > 1 else "asked twice for"
            raise InputError(
                f"{table.where}: {what} {column!r}; give names or positions (0, 1, ...) of: {', '.join(names)}"
            )
        chosen += found
    return chosen


def usual(table: Table, candidates: list[int]) -> tuple[list[int], list[tuple[int, str]]]:
    """Columns of numbers, and the others with what they are. Raises `InputError` where there are none of numbers."""
    chosen, left_out = [], []
    unnamed = [j for j in candidates if table.named and not table.names[j]]
    for j in candidates:
        words = _words(table, j)
        if words.empty if words else all(empty(table.columns[j], rows).all() for rows in slices(size(table))):
            left_out += [(j, "empty")] if table.names[j] and table.named else []
        elif j in unnamed and len(unnamed) < len(candidates):
            left_out.append((j, "no name"))
        elif words and words.wrong > words.finite:  # Less than half of the cells that are there are numbers.
            left_out.append((j, words.kind))
        elif _counts_rows(table, j, len(candidates)):
            left_out.append((j, "counts the rows"))
        else:
            chosen.append(j)
    if not chosen:
        first = f"{label(table, left_out[0][0])!r} is not numeric ({left_out[0][1]})" if left_out else "'0' is empty"
        raise InputError(f"{table.where}: column {first}, nor is another; give at least one column of numbers")
    return chosen, left_out


def numeric(table: Table, j: int, missing: Sequence[float | str]) -> Numbers:
    """The numbers of a column. Raises `InputError` at the first cell that is no number."""
    column = table.columns[j]
    if words := _words(table, j):
        if words.wrong:
            raise InputError(_no_number(table, j, *words.first_wrong, some=words.finite > 0))
        column = words.values
    assert isinstance(column, np.ndarray)
    values = []
    for value in missing:
        try:
            values.append(float(str(value).replace(",", ".")))
        except ValueError:
            continue  # A word, of which the reader of texts knows.
    return Numbers(column, tuple(values))


def empty(column: np.ndarray | Words, rows: slice) -> np.ndarray:
    """Which of these rows have no cell in a column; or, of `Words`, in none of such columns."""
    if isinstance(column, Words):
        return column.told[rows] == 0
    return np.array([cell is None for cell in column[rows]]) if column.dtype == object else np.isnan(column[rows])


def whole(column: np.ndarray | Words) -> bool:
    """Whether a column is of finite whole numbers alone."""
    if isinstance(column, Words) or column.dtype == object:
        return False
    pieces = (column[rows] for rows in slices(len(column)))
    return all(np.isfinite(piece).all() and np.array_equal(piece, np.floor(piece)) for piece in pieces)


def _words(table: Table, j: int) -> Words | None:
    """A column of words; None for one of numbers."""
    column = table.columns[j]
    if isinstance(column, Words):
        return column
    return _numbers.words(column, comma_first=table.separator == ";") if column.dtype == object else None


def _counts_rows(table: Table, j: int, candidates: int) -> bool:
    """Whether a column numbers rows: whole, each once, and of a name that says so; without names, the first, 0, 1, 2, ..."""
    column = table.columns[j]
    if candidates < 2 or isinstance(column, Words) or column.dtype == object or len(column) < 3:
        return False
    if table.named and COUNTERS.match(table.names[j].strip()):
        # An identifier says nothing of a point, whether or not rows are missing or out of order.
        return whole(column) and _each_once(table, column)
    if table.named or j > 0 or column[0] not in (0, 1):
        return False
    return all(np.array_equal(column[r], np.arange(r.start, r.stop) + column[0]) for r in slices(len(column)))


def _each_once(table: Table, column: np.ndarray) -> bool:
    """Whether no finite number comes twice."""
    if _ascends(column):
        return True
    if table.rows is None or column.nbytes < LARGE:
        return len(np.unique(column)) == len(column)
    with Scratch(table.where, 1) as scratch:
        for rows in slices(len(column)):
            scratch.append(column[rows])
        ordered = scratch.mapped(writable=True)[:, 0]
    ordered.sort()
    return _ascends(ordered)


def _ascends(column: np.ndarray) -> bool:
    return all((np.diff(column[rows.start : rows.stop + 1]) > 0).all() for rows in slices(len(column)))


def _no_number(table: Table, j: int, row: int, word: str, *, some: bool) -> str:
    [place], shown = table.places([row]), table.cell(row, j) or word
    if not some:
        line = place.rpartition(", ")[2]
        return f"{table.where}: column {label(table, j)!r} is not numeric ({line}: {shown!r}); choose others with --columns"
    remedy = "correct the cell, or leave the column out with --columns"
    return f"{place}, column {label(table, j)!r}: {shown!r} is not a number; {remedy}"
