"""Dataset: weighted points. Data are read and checked here, once, and nowhere else."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

TEXT = (".csv", ".tsv", ".txt", ".dat")
LARGEST = 1e100
"""Largest magnitude of a value or weight: sums of weighted squares of larger ones overflow in float64."""
MISSING = {"", "na", "n/a", "nan", "+nan", "-nan", "null", "none"}
"""Cells, in lower case, that name no column and hold no number."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Points ``(N, D)`` with weights ``(N,)``: a point of weight 3 counts as three points, one of weight 0 as none.

    Takes anything that numpy makes an array of numbers; ``(N,)`` becomes ``(N, 1)``, weights are 1 by default. Held as
    read-only float64 copies. `columns` are the names of the D coordinates, where they have any. Raises `InputError` for
    other shapes, no points, values that are not finite or exceed 1e100 in magnitude, negative weights, weights that are
    all zero, or names that are not one for each coordinate, all different.
    """

    points: np.ndarray
    weights: np.ndarray = None  # pyright: ignore[reportAssignmentType]  # ones, set below
    name: str = "data"
    columns: tuple[str, ...] = ()

    def __post_init__(self):
        points = _as_floats(self.points, f"{self.name}: points")
        points = points[:, None] if points.ndim == 1 else points
        if points.ndim != 2 or 0 in points.shape:
            raise InputError(f"{self.name}: points have shape {points.shape}; give at least one row, as (N,) or (N, D)")
        _check(np.abs(points) <= LARGEST, points, f"{self.name}: points", "give finite values of at most 1e100")
        weights = np.ones(len(points)) if self.weights is None else _as_floats(self.weights, f"{self.name}: weights")
        if weights.shape != points.shape[:1]:
            raise InputError(
                f"{self.name}: weights have shape {weights.shape}; give one for each of {len(points)} points"
            )
        _check(
            (weights >= 0) & (weights <= LARGEST), weights, f"{self.name}: weights", "give finite weights of 0 or more"
        )
        if not weights.any():
            raise InputError(f"{self.name}: all weights are zero; give at least one point a positive weight")
        columns = tuple(map(str, self.columns))
        if columns and len(columns) != points.shape[1]:
            raise InputError(
                f"{self.name}: {len(columns)} names of columns for {points.shape[1]} of them; give one for each, or none"
            )
        twice = [name for name in columns if columns.count(name) > 1]
        if twice:
            raise InputError(f"{self.name}: two columns are called {twice[0]!r}; rename one, or choose others")
        object.__setattr__(self, "columns", columns)
        for field, array in ("points", points), ("weights", weights):
            array.setflags(write=False)
            object.__setattr__(self, field, array)

    @property
    def size(self) -> int:
        """Number of points N, whatever their weights."""
        return self.points.shape[0]

    @property
    def dim(self) -> int:
        """Dimension D."""
        return self.points.shape[1]

    @cached_property
    def total_weight(self) -> float:
        """Sum of the weights: N where they are all one."""
        return float(self.weights.sum())

    @cached_property
    def mean(self) -> np.ndarray:
        """Weighted mean, ``(D,)``."""
        return np.average(self.points, axis=0, weights=self.weights)

    @cached_property
    def scale(self) -> np.ndarray:
        """Weighted standard deviation (population), ``(D,)``; 1 where the points that carry weight are all equal."""
        # Of equal points the mean, and so the deviation, may be off by a rounding: ask for equality, not for zero.
        spread = np.ptp(self.points[self.weights > 0], axis=0) > 0
        deviation = np.sqrt(np.average((self.points - self.mean) ** 2, axis=0, weights=self.weights))
        return np.where(spread & (deviation > 0), deviation, 1.0)


def read(path: str | Path, columns: Sequence[str] | None = None) -> Dataset:
    """Data set of a text table (.csv, .tsv, .txt, .dat) or an array (.npy); its name is the file's, without the ending.

    Cells are separated by tab, semicolon, comma or blanks. A first row of numbers only is data, else it is a header.
    Blank lines and lines that begin with # are skipped. `columns` picks by name or by zero-based position ("0", "1");
    by default all are taken except those that a header leaves without a name (row numbers, as R and pandas write them).
    Raises `InputError`, with line and column, for whatever cannot be used as finite numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}; give a data file")
    if path.suffix.lower() not in (*TEXT, ".npy"):
        raise InputError(f"{path}: unknown kind of file {path.suffix!r}; give one of {', '.join(TEXT)}, .npy")
    columns = [columns] if isinstance(columns, str) else columns
    try:
        array = path.suffix.lower() == ".npy"
        values, names = (_read_array(path, columns), ()) if array else _read_text(path, columns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check the file's permissions") from error
    return Dataset(values, name=path.stem, columns=names)


def _as_floats(values: Any, what: str) -> np.ndarray:
    """A float64 copy."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biufO":
            raise TypeError(f"they are {array.dtype}")
        return np.array(array, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} are not an array of numbers ({error}); give numbers only") from error


def _check(fine: np.ndarray, values: np.ndarray, what: str, remedy: str) -> None:
    if not fine.all():
        at = tuple(int(i) for i in np.argwhere(~fine)[0])
        raise InputError(f"{what}{list(at)} is {values[at]}; {remedy}")


def _read_array(path: Path, columns: Sequence[str] | None) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
        values = values[:, None] if values.ndim == 1 else values
    except (ValueError, EOFError, AttributeError) as error:
        raise InputError(f"{path}: not an array of numbers ({error}); save one with numpy.save") from error
    if columns is None or values.ndim != 2:
        return values
    return values[:, _chosen(path, [str(j) for j in range(values.shape[1])], columns)]


def _read_text(path: Path, columns: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """The numbers, and the names that a header gives to their columns."""
    table = _rows(path)
    names, rows = _header(path, table)
    chosen = _chosen(path, names, columns) if columns else [j for j, name in enumerate(names) if name]
    if not rows:
        raise InputError(f"{path}: a header and no data; add at least one line of numbers")
    for line, cells in rows:
        if len(cells) != len(names):
            raise InputError(f"{path}, line {line}: found {len(cells)} cells, expected {len(names)}; mend the line")
    values = np.array([[_number(cells[j]) for j in chosen] for _, cells in rows])
    for j, numeric in zip(chosen, np.isfinite(values).T, strict=True):
        if not numeric.all():
            raise InputError(_complaint(path, rows, names, j, numeric))
    return values, tuple(names[j] or str(j) for j in chosen) if len(rows) < len(table) else ()


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and stripped cells of every line that says something."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text; save it as CSV in UTF-8") from error
    lines = ["\n" if line.startswith("#") else line.strip(" \r\n") + "\n" for line in lines]
    sample = list(islice((line for line in lines if line.strip()), 2))
    if not sample:
        raise InputError(f"{path}: empty; give at least one line of numbers")
    try:
        # The second line shows the separator better than the first: a header such as "Velocity (km/s)" may hold blanks.
        used = [s for s in "\t;, " if len(next(csv.reader(sample[-1:], delimiter=s, skipinitialspace=True))) > 1]
        reader = csv.reader(lines, delimiter=used[0] if used else "\t", skipinitialspace=True)
        stripped = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise InputError(f"{path}: not a text table ({error}); save it as CSV") from error
    return [(line, cells) for line, cells in stripped if any(cells)]


def _header(path: Path, rows: list[tuple[int, list[str]]]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Names of the columns (positions where there is no header) and the rows below."""
    (line, first), second = rows[0], rows[1][1] if len(rows) > 1 else []
    words = [_is_word(cell) for cell in first]
    if not any(words):
        return [str(j) for j in range(len(first))], rows
    turns_numeric = any(word and math.isfinite(_number(cell)) for word, cell in zip(words, second, strict=False))
    if not (all(words) or turns_numeric):
        raise InputError(f"{path}, line {line}: words and numbers, a header or data? Put a header of words above it")
    return first, rows[1:]


def _chosen(path: Path, names: list[str], columns: Sequence[str] | None) -> list[int]:
    """Positions of the columns asked for."""
    positions = {str(j): [j] for j in range(len(names))}
    positions |= {name: [j for j, other in enumerate(names) if other == name] for name in names}
    chosen = []
    for column in columns or []:
        found = positions.get(str(column), [])
        if len(found) != 1 or found[0] in chosen:
            what = "no column" if not found else "more than one column" if len(found) > 1 else "asked twice for"
            raise InputError(f"{path}: {what} {column!r}; give names or positions (0, 1, ...) of: {', '.join(names)}")
        chosen += found
    return chosen


def _complaint(path: Path, rows: list[tuple[int, list[str]]], names: list[str], j: int, numeric: np.ndarray) -> str:
    """What is wrong with column j, which does not hold finite numbers throughout."""
    line, cells = rows[int(np.argmin(numeric))]
    name, cell = names[j] or str(j), cells[j]
    if not numeric.any() and len(rows) > 1 and "," not in cell:
        others = [names[i] or str(i) for i, other in enumerate(cells) if math.isfinite(_number(other))]
        remedy = f"choose others with --columns {','.join(others)}" if others else "give at least one column of numbers"
        return f"{path}: column {name!r} is not numeric (line {line}: {cell!r}); {remedy}"
    found = f"{cell!r} is not a {'' if _is_word(cell) else 'finite '}number" if cell else "the cell is empty"
    remedy = "mend the cell, or leave the column out with --columns"
    return f"{path}, line {line}, column {name!r}: {found}; {'write decimals with a point' if ',' in cell else remedy}"


def _number(cell: str) -> float:
    """The cell's number, NaN where it is none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _is_word(cell: str) -> bool:
    """Whether the cell can name a column: it is no number, not even an infinite or missing one."""
    return math.isnan(_number(cell)) and cell.lower() not in MISSING
