"""Reading a data set: which columns of a table are the points, and what is said of the others and of missing cells."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..errors import InputError
from . import _columns
from ._arrays import read_array
from ._columns import Numbers, label, slices
from ._scratch import Scratch
from ._source import STDIN, opened, source
from ._streaming import read_streamed
from ._table import Table
from ._text import read_cells, read_text
from .dataset import Dataset

SHOWN = 6
"""Rows that are named in a line about them."""


class _Gaps(NamedTuple):
    """What a look at all rows finds: how many there are, and of them, which are `empty`, which `lacking` a value."""

    size: int
    empty: "_Found"
    lacking: "_Found"

    @property
    def kept(self) -> int:
        return self.size - self.empty.rows - self.lacking.rows


class _Found(NamedTuple):
    """How many rows, and the first of them."""

    rows: int = 0
    first: tuple[int, ...] = ()

    def and_of(self, piece: np.ndarray, start: int) -> "_Found":
        more = np.flatnonzero(piece)
        return _Found(self.rows + len(more), (*self.first, *(int(row) + start for row in more[:SHOWN]))[:SHOWN])


def read(
    path: str | Path,
    columns: Sequence[str] | str | None = None,
    *,
    weights: str | None = None,
    drop_missing: bool = False,
    missing: Sequence[float | str] = (),
) -> Dataset:
    """Data set of a file: a text table, .npy, .npz, Parquet or Feather, packed by gz, bz2, xz or zip; ``-``: standard input.

    What a file is, is told from its first bytes. Texts: cells separated by tab, semicolon, bar, comma or blanks, quoted or
    not, in UTF-8, UTF-16 or Latin-1; decimals with a point or a comma, with or without thousands separated; a header or
    none. An array of an .npz file is named as in ``file.npz:name``.

    `columns`: by name or zero-based position; by default all but those of text or dates, those that count rows, and those
    without a name. `weights`: the column of the points' weights. `missing`: what stands for a missing value besides empty
    cells, NA and the like. `drop_missing`: leave out rows that lack a value, which else are an error. What was read and
    left out is told in `Dataset.notes`; the name is the file's, without its endings.
    Raises `InputError`, with line and column, for whatever cannot be used as finite numbers.
    """
    return _read(path, columns, weights, missing, drop_missing=drop_missing)[0]


def read_rows(
    path: str | Path,
    columns: Sequence[str] | str | None = None,
    *,
    weights: str | None = None,
    drop_missing: bool = False,
    missing: Sequence[float | str] = (),
) -> tuple[Dataset, np.ndarray]:
    """`read`, and which rows of `cells` the points are, ascending from 0."""
    data, kept = _read(path, columns, weights, missing, drop_missing=drop_missing)
    return data, np.concatenate([np.flatnonzero(piece) + start for start, piece in kept])


def cells(path: str | Path) -> pd.DataFrame:
    """All cells of a table that `read` takes, text as it is written, in the rows and under the names that it sees."""
    path, name = _array_name(str(path))
    held = source(path)
    table = read_array(held, name)
    if table is None:
        return read_cells(held)
    return pd.DataFrame(dict(enumerate(table.columns))).set_axis(table.names, axis=1)


_Kept = Iterator[tuple[int, np.ndarray]]


def _read(
    path: str | Path,
    columns: Sequence[str] | str | None,
    weights: str | None,
    missing: Sequence[float | str],
    *,
    drop_missing: bool,
) -> tuple[Dataset, _Kept]:
    """The data set of a file; and, piece by piece, where a piece begins and which of its rows the points are."""
    path, name = _array_name(str(path))
    words = tuple(str(word) for word in missing)
    with opened(path) as held:
        table = read_streamed(held, words) or read_array(held, name) or read_text(held, words)
        return _chosen(table, held.name, columns, weights, missing, drop_missing=drop_missing)


def _chosen(
    table: Table,
    name: str,
    columns: Sequence[str] | str | None,
    weights: str | None,
    missing: Sequence[float | str],
    *,
    drop_missing: bool,
) -> tuple[Dataset, _Kept]:
    """The data set of a table, and the rows that it is of."""
    asked = [columns] if isinstance(columns, str) else list(columns or [])
    [of_weights] = _columns.positions(table, [weights]) if weights is not None else [None]
    held = {} if of_weights is None else {of_weights: _columns.numeric(table, of_weights, missing)}
    if asked:
        chosen, left_out = _columns.positions(table, asked), []
    else:
        chosen, left_out = _columns.usual(table, [j for j in range(len(table.names)) if j != of_weights])
    held |= {j: _columns.numeric(table, j, missing) for j in chosen}
    gaps = _gaps(table, held)
    if gaps.lacking.rows and not drop_missing:
        raise InputError(_lacking(table, held, gaps))
    if not gaps.kept:
        raise InputError(f"{table.where}: no row has a value in every column; choose others with --columns")
    for j in held:
        _check_finite(table, held, j)
    points = _stacked(table, held, chosen, gaps)
    omega = None if of_weights is None else _stacked(table, held, [of_weights], gaps)[:, 0]
    named = tuple(table.names[j] or str(j) for j in chosen) if table.named else ()
    notes = _notes(table, chosen, left_out, of_weights, gaps)
    found = Dataset(points, omega, name, named, notes)  # pyright: ignore[reportArgumentType]  # None: ones
    return found, ((rows.start, _kept(table, held, rows)) for rows in slices(gaps.size))


def _without(table: Table, held: dict[int, Numbers], rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Which of these rows are empty, and which others lack a value in a column that is used."""
    # Of one column an empty row is a missing value, and not nothing.
    several = len(table.columns) > 1
    empty = np.all([_columns.empty(column, rows) & several for column in table.columns], axis=0)
    return empty, np.any([np.isnan(numbers.piece(rows)) for numbers in held.values()], axis=0) & ~empty


def _kept(table: Table, held: dict[int, Numbers], rows: slice) -> np.ndarray:
    empty, lacking = _without(table, held, rows)
    return ~(empty | lacking)


def _gaps(table: Table, held: dict[int, Numbers]) -> _Gaps:
    gaps = _Gaps(_columns.size(table), _Found(), _Found())
    for rows in slices(gaps.size):
        empty, lacking = _without(table, held, rows)
        gaps = _Gaps(gaps.size, gaps.empty.and_of(empty, rows.start), gaps.lacking.and_of(lacking, rows.start))
    return gaps


def _stacked(table: Table, held: dict[int, Numbers], chosen: list[int], gaps: _Gaps) -> np.ndarray:
    """Rows ``(n, D)`` of these columns, which nobody can write to: what the table holds in this form is not copied."""
    columns = [held[j] for j in chosen]
    as_they_are = gaps.kept == gaps.size and not any(numbers.missing for numbers in columns)
    if as_they_are and len(columns) == 1:
        return columns[0].values[:, None]
    if as_they_are and table.rows is not None and chosen == list(range(chosen[0], chosen[0] + len(chosen))):
        return table.rows[:, chosen[0] : chosen[-1] + 1]
    pieces = (
        np.column_stack([numbers.piece(rows) for numbers in columns])[_kept(table, held, rows)]
        for rows in slices(gaps.size)
    )
    if table.rows is not None and gaps.kept * len(columns) * 8 >= _columns.LARGE:
        with Scratch(table.where, len(columns)) as scratch:
            for piece in pieces:
                scratch.append(piece)
            return scratch.mapped()
    points = np.concatenate(list(pieces))
    points.setflags(write=False)
    return points


def _array_name(path: str) -> tuple[str, str | None]:
    """A path, and the name of an array in it."""
    file, colon, name = path.rpartition(":")
    if colon and name and file != "" and path != STDIN and not os.path.exists(path) and file.lower().endswith(".npz"):
        return file, name
    return path, None


def _lacking(table: Table, held: dict[int, Numbers], gaps: _Gaps) -> str:
    row = gaps.lacking.first[0]
    j = next(j for j, numbers in held.items() if np.isnan(numbers.piece(slice(row, row + 1)))[0])
    [place], cell = table.places([row]), table.cell(row, j)
    found = f"{cell!r} is not a finite number" if cell else "the cell is empty"
    others = f"; {gaps.lacking.rows:,} of {gaps.size:,} rows lack a value" if gaps.lacking.rows > 1 else ""
    return (
        f"{place}, column {label(table, j)!r}: {found}{others}; correct the cell, leave such rows out with"
        " --drop-missing, or the column with --columns"
    )


def _check_finite(table: Table, held: dict[int, Numbers], j: int) -> None:
    for rows in slices(_columns.size(table)):
        values = held[j].piece(rows)
        wrong = np.isinf(values)
        if wrong.any() and (wrong := wrong & _kept(table, held, rows)).any():
            at = int(np.argmax(wrong))
            [place], cell = table.places([rows.start + at]), table.cell(rows.start + at, j)
            raise InputError(
                f"{place}, column {label(table, j)!r}: {cell or str(values[at])!r} is not a finite number; correct the"
                " cell, or leave the column out with --columns"
            )


def _notes(
    table: Table, chosen: list[int], left_out: list[tuple[int, str]], of_weights: int | None, gaps: _Gaps
) -> tuple[str, ...]:
    """What was read, and what was not, a sentence each."""
    rows = f"{gaps.kept:,} rows" if gaps.kept == gaps.size else f"{gaps.kept:,} rows of {gaps.size:,}"
    names = ", ".join(label(table, j) for j in chosen[:SHOWN]) + (", ..." if len(chosen) > SHOWN else "")
    which = f"columns {names}" if table.named else f"{len(chosen)} column{'s' if len(chosen) > 1 else ''}"
    notes = [f"read {rows} from {table.where}: {which}"]
    if of_weights is not None:
        notes.append(f"weights: {label(table, of_weights)}")
    if left_out:
        shown = ", ".join(f"{label(table, j)} ({why})" for j, why in left_out[:SHOWN])
        notes.append(f"left out: {shown}{', ...' if len(left_out) > SHOWN else ''}; --columns chooses")
    for what, found in (("empty", gaps.empty), ("lacking a value", gaps.lacking)):
        if found.rows:
            places = [place.rpartition(", ")[2] for place in table.places(found.first)]
            more = ", ..." if found.rows > SHOWN else ""
            notes.append(f"dropped {found.rows:,} row{'s' if found.rows > 1 else ''} {what}: {', '.join(places)}{more}")
    two = not table.named and len(chosen) == 2 == len(table.names) and table.separator == ","
    if two and all(_columns.whole(column) for column in table.columns):
        notes.append("two columns of whole numbers: if they are decimal commas, separate cells by semicolons")
    return (*notes, *table.notes)
