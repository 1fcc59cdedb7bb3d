"""Reading a data set: which columns of a table are the points, and what is said of the others and of missing cells."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from . import _numbers
from ._arrays import read_array
from ._source import STDIN, source
from ._table import Table
from ._text import read_cells, read_text
from .dataset import Dataset

COUNTERS = re.compile(r"(unnamed: *\d+|index|id|row|rowid|row_id|rownames|row_names|obs|no|nr|#)?$", re.IGNORECASE)
"""Names of columns that count rows, where what they hold does."""
SHOWN = 6
"""Rows that are named in a line about them."""


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
    return read_rows(path, columns, weights=weights, drop_missing=drop_missing, missing=missing)[0]


def read_rows(
    path: str | Path,
    columns: Sequence[str] | str | None = None,
    *,
    weights: str | None = None,
    drop_missing: bool = False,
    missing: Sequence[float | str] = (),
) -> tuple[Dataset, np.ndarray]:
    """`read`, and which rows of `cells` the points are, ascending from 0."""
    path, name = _array_name(str(path))
    held = source(path)
    table = read_array(held, name) or read_text(held, tuple(str(word) for word in missing))
    return _chosen(table, held.name, columns, weights=weights, drop_missing=drop_missing, missing=missing)


def cells(path: str | Path) -> pd.DataFrame:
    """All cells of a table that `read` takes, text as it is written, in the rows and under the names that it sees."""
    path, name = _array_name(str(path))
    held = source(path)
    table = read_array(held, name)
    if table is None:
        return read_cells(held)
    return pd.DataFrame(dict(enumerate(table.columns))).set_axis(table.names, axis=1)


def choose(
    table: Table,
    name: str,
    columns: Sequence[str] | str | None = None,
    *,
    weights: str | None = None,
    drop_missing: bool = False,
    missing: Sequence[float | str] = (),
) -> Dataset:
    """The data set of a table: see `read`."""
    return _chosen(table, name, columns, weights=weights, drop_missing=drop_missing, missing=missing)[0]


def _chosen(
    table: Table,
    name: str,
    columns: Sequence[str] | str | None,
    *,
    weights: str | None,
    drop_missing: bool,
    missing: Sequence[float | str],
) -> tuple[Dataset, np.ndarray]:
    """The data set of a table, and the rows that it is of."""
    asked = [columns] if isinstance(columns, str) else list(columns or [])
    [of_weights] = _positions(table, [weights]) if weights is not None else [None]
    candidates = [j for j in range(len(table.names)) if j != of_weights]
    held = {} if of_weights is None else {of_weights: _numeric(table, of_weights, missing)}
    if asked:
        chosen, left_out = _positions(table, asked), []
        held |= {j: _numeric(table, j, missing) for j in chosen}
    else:
        chosen, left_out = _usual(table, candidates, held, missing)
    # Of one column an empty row is a missing value, and not nothing.
    empty = np.all([_empty(column) & (len(table.columns) > 1) for column in table.columns], axis=0)
    lacking = np.any([np.isnan(held[j]) for j in held], axis=0)
    if (lacking & ~empty).any() and not drop_missing:
        raise InputError(_lacking(table, held, lacking & ~empty))
    kept = ~(lacking | empty)
    if not kept.any():
        raise InputError(f"{table.where}: no row has a value in every column; choose others with --columns")
    for j in held:
        _check_finite(table, j, held[j], kept)
    points = _stacked([held[j] for j in chosen], kept)
    named = tuple(table.names[j] or str(j) for j in chosen) if table.named else ()
    notes = _notes(table, chosen, left_out, of_weights, kept, empty, lacking & ~empty)
    omega = None if of_weights is None else held[of_weights][kept]
    found = Dataset(points, omega, name, named, notes)  # pyright: ignore[reportArgumentType]  # None: ones
    return found, np.flatnonzero(kept)


def _stacked(columns: list[np.ndarray], kept: np.ndarray) -> np.ndarray:
    """Rows of columns, ``(n, D)``, that nobody can write to: one column of which all is kept is not copied."""
    if len(columns) == 1 and kept.all():
        return columns[0][:, None]
    points = np.column_stack(columns if kept.all() else [column[kept] for column in columns])
    points.setflags(write=False)
    return points


def _array_name(path: str) -> tuple[str, str | None]:
    """A path, and the name of an array in it."""
    file, colon, name = path.rpartition(":")
    if colon and name and file != "" and path != STDIN and not os.path.exists(path) and file.lower().endswith(".npz"):
        return file, name
    return path, None


def _positions(table: Table, asked: Sequence[str]) -> list[int]:
    """Positions of the columns asked for, by name or position."""
    names = table.names
    positions = {str(j): [j] for j in range(len(names))}
    positions |= {name: [j for j, other in enumerate(names) if other == name] for name in names if name}
    chosen = []
    for column in asked:
        found = positions.get(str(column), positions.get(str(column).strip(), []))
        if len(found) != 1 or found[0] in chosen:
            what = "no column" if not found else "more than one column" if len(found) > 1 else "asked twice for"
            raise InputError(
                f"{table.where}: {what} {column!r}; give names or positions (0, 1, ...) of: {', '.join(names)}"
            )
        chosen += found
    return chosen


def _usual(
    table: Table, candidates: list[int], held: dict[int, np.ndarray], missing: Sequence[float | str]
) -> tuple[list[int], list[tuple[int, str]]]:
    """Columns of numbers, which are put into `held`, and the others with what they are."""
    chosen, left_out = [], []
    unnamed = [j for j in candidates if table.named and not table.names[j]]
    for j in candidates:
        column = table.columns[j]
        if _empty(column).all():
            left_out += [(j, "empty")] if table.names[j] and table.named else []
        elif j in unnamed and len(unnamed) < len(candidates):
            left_out.append((j, "no name"))
        elif column.dtype == object and _is_text(column, table):
            left_out.append((j, _numbers.kind(column)))
        elif _counts_rows(table, j, len(candidates)):
            left_out.append((j, "counts the rows"))
        else:
            chosen.append(j)
    if not chosen:
        first = f"{_label(table, left_out[0][0])!r} is not numeric ({left_out[0][1]})" if left_out else "'0' is empty"
        raise InputError(f"{table.where}: column {first}, nor is another; give at least one column of numbers")
    for j in chosen:
        held[j] = _numeric(table, j, missing)
    return chosen, left_out


def _is_text(column: np.ndarray, table: Table) -> bool:
    """Whether less than half of the cells that are there are numbers."""
    values, wrong = _numbers.numbers(column, comma_first=table.separator == ";")
    return bool(wrong.sum() > np.isfinite(values).sum())


def _counts_rows(table: Table, j: int, candidates: int) -> bool:
    """Whether a column numbers rows: whole, each once, and of a name that says so; without names, the first, 0, 1, 2, ..."""
    column = table.columns[j]
    if candidates < 2 or column.dtype == object or len(column) < 3:
        return False
    if table.named and COUNTERS.match(table.names[j].strip()):
        # An identifier says nothing of a point, whether or not rows are missing or out of order.
        whole = np.isfinite(column).all() and np.array_equal(column, np.floor(column))
        return bool(whole and len(np.unique(column)) == len(column))
    if table.named or j > 0:
        return False
    return any(np.array_equal(column, np.arange(len(column)) + first) for first in (0, 1))


def _numeric(table: Table, j: int, missing: Sequence[float | str]) -> np.ndarray:
    """The numbers of a column, NaN where missing. Raises `InputError` at the first cell that is no number."""
    column = table.columns[j]
    if column.dtype == object:
        column, wrong = _numbers.numbers(column, comma_first=table.separator == ";")
        if wrong.any():
            raise InputError(_no_number(table, j, int(np.argmax(wrong)), some=bool(np.isfinite(column).any())))
    for value in missing:
        try:
            column = np.where(column == float(str(value).replace(",", ".")), np.nan, column)
        except ValueError:
            continue  # A word, of which the reader of texts knows.
    return column


def _empty(column: np.ndarray) -> np.ndarray:
    return np.array([cell is None for cell in column]) if column.dtype == object else np.isnan(column)


def _label(table: Table, j: int) -> str:
    return table.names[j] or str(j)


def _no_number(table: Table, j: int, row: int, *, some: bool) -> str:
    place, cell = table.place(row, j)
    shown = cell or table.columns[j][row]
    if not some:
        line = place.rpartition(", ")[2]
        return f"{table.where}: column {_label(table, j)!r} is not numeric ({line}: {shown!r}); choose others with --columns"
    remedy = "correct the cell, or leave the column out with --columns"
    return f"{place}, column {_label(table, j)!r}: {shown!r} is not a number; {remedy}"


def _lacking(table: Table, held: dict[int, np.ndarray], lacking: np.ndarray) -> str:
    row = int(np.argmax(lacking))
    j = next(j for j, values in held.items() if np.isnan(values[row]))
    place, cell = table.place(row, j)
    found = f"{cell!r} is not a finite number" if cell else "the cell is empty"
    others = f"; {int(lacking.sum()):,} of {len(lacking):,} rows lack a value" if lacking.sum() > 1 else ""
    return (
        f"{place}, column {_label(table, j)!r}: {found}{others}; correct the cell, leave such rows out with"
        " --drop-missing, or the column with --columns"
    )


def _check_finite(table: Table, j: int, values: np.ndarray, kept: np.ndarray) -> None:
    wrong = np.isinf(values) & kept
    if wrong.any():
        row = int(np.argmax(wrong))
        place, cell = table.place(row, j)
        raise InputError(
            f"{place}, column {_label(table, j)!r}: {cell or str(values[row])!r} is not a finite number; correct the cell,"
            " or leave the column out with --columns"
        )


def _notes(
    table: Table,
    chosen: list[int],
    left_out: list[tuple[int, str]],
    of_weights: int | None,
    kept: np.ndarray,
    empty: np.ndarray,
    lacking: np.ndarray,
) -> tuple[str, ...]:
    """What was read, and what was not, a sentence each."""
    rows = f"{kept.sum():,} rows" if kept.all() else f"{kept.sum():,} rows of {len(kept):,}"
    names = ", ".join(_label(table, j) for j in chosen[:SHOWN]) + (", ..." if len(chosen) > SHOWN else "")
    which = f"columns {names}" if table.named else f"{len(chosen)} column{'s' if len(chosen) > 1 else ''}"
    notes = [f"read {rows} from {table.where}: {which}"]
    if of_weights is not None:
        notes.append(f"weights: {_label(table, of_weights)}")
    if left_out:
        shown = ", ".join(f"{_label(table, j)} ({why})" for j, why in left_out[:SHOWN])
        notes.append(f"left out: {shown}{', ...' if len(left_out) > SHOWN else ''}; --columns chooses")
    for what, rows in (("empty", empty), ("lacking a value", lacking)):
        if rows.any():
            places = [table.place(int(row), chosen[0])[0].rpartition(", ")[2] for row in np.flatnonzero(rows)[:SHOWN]]
            more = ", ..." if rows.sum() > SHOWN else ""
            notes.append(
                f"dropped {int(rows.sum()):,} row{'s' if rows.sum() > 1 else ''} {what}: {', '.join(places)}{more}"
            )
    two = not table.named and len(chosen) == 2 == len(table.names) and table.separator == ","
    if two and all(column.dtype != object and (column == np.floor(column)).all() for column in table.columns):
        notes.append("two columns of whole numbers: if they are decimal commas, separate cells by semicolons")
    return (*notes, *table.notes)
