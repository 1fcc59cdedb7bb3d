"""Large text and Parquet files as tables whose numbers are on disk: read in pieces, so that memory does not grow with them.

What a column holds is known at the end. Numbers are written down as they come, those of columns of words by the convention
that the beginning suggests; where the end says otherwise, the file is read again, as it must then be read.
"""

import contextlib
from collections.abc import Callable, Generator, Sequence

import numpy as np
import pandas as pd

from . import _numbers
from ._arrays import parquet_pieces
from ._blocks import Blocks
from ._numbers import CONVENTIONS
from ._scratch import Scratch
from ._source import PARQUET, Source
from ._table import Table, Words, by_row, column
from ._text import cells, check_quotes, exact, form_of, frame

Kinds = dict[int, int]
"""Columns of words, and the convention that each is read by."""
Pieces = Callable[[Kinds], Generator[pd.DataFrame]]
"""Frames of the rows of a file, a piece at a time; columns of words as they are written."""


def read_streamed(source: Source, missing: tuple[str, ...] = ()) -> Table | None:
    """The table of an open file: what `read_array` and `read_text` make of it in memory, on disk; None for other sources.

    Raises the same `InputError`, and one where there is no room for the numbers.
    """
    if source.file is None:
        return None
    return _parquet(source) if source.content.startswith(PARQUET) else _text(source, missing)


def _text(source: Source, missing: tuple[str, ...]) -> Table:
    blocks = Blocks.of(source)
    form = form_of(source.where, blocks.head())
    for block in blocks.records() if blocks.quoted else ():
        check_quotes(source.where, block, form.separator)
    below = form._replace(header=False)

    def pieces(words: Kinds) -> Generator[pd.DataFrame]:
        header = form.header
        for block in blocks.records():
            if block.size > header:
                options = exact(missing) | {"dtype": dict.fromkeys(words, str)}
                yield frame(source.where, block, form if header else below, **options)
            header = False

    def found(rows: Sequence[int]) -> dict[int, tuple[int, str]]:
        """Numbers and texts of the lines that rows begin on."""
        wanted, at, start = sorted(row + form.header for row in rows), {}, 0
        for block in blocks.records():
            while wanted and wanted[0] < start + block.size:
                lines, numbers = block.lines()
                row = wanted.pop(0)
                at[row - form.header] = numbers[row - start], lines[row - start]
            start += block.size
            if not wanted:
                break
        return at

    def places(rows: Sequence[int]) -> list[str]:
        at = found(rows)
        return [f"{source.where}, line {at[row][0]}" for row in rows]

    cell = lambda row, j: cells(found([row])[row][1], form.separator)[j].strip()
    columns, rows = _held(source.where, len(form.names), pieces, comma_first=form.separator == ";")
    return Table(source.where, form.names, columns, form.header, places, cell, form.separator, form.notes, rows)


def _parquet(source: Source) -> Table:
    names, pieces = parquet_pieces(source)
    columns, rows = _held(source.where, len(names), lambda _: pieces(), comma_first=False)
    return Table(source.where, names, columns, named=True, places=by_row(source.where), rows=rows)


def _held(where: str, width: int, pieces: Pieces, *, comma_first: bool) -> tuple[list[np.ndarray | Words], np.ndarray]:
    """Columns on disk, and the rows that they are of."""
    kinds: Kinds = {}
    while True:
        read = _Pass(width, kinds, comma_first=comma_first)
        with Scratch(where, width + bool(kinds)) as scratch, contextlib.closing(pieces(kinds)) as frames:
            for piece in frames:
                rows = read.rows(piece)
                if not read.surprised:
                    scratch.append(rows)
                elif not scratch.size:
                    break  # Words are mostly met at once: the other pieces need no look before.
            if read.kinds() == kinds:
                rows = scratch.mapped()
                return [read.column(rows, j) for j in range(width)], rows
        kinds = read.kinds()


class _Tally:
    """What the cells of a column of words are by each convention."""

    def __init__(self):
        self.finite, self.wrong = [0] * CONVENTIONS, [0] * CONVENTIONS
        self.first_wrong = [(0, "")] * CONVENTIONS
        self.told, self.first = 0, np.empty(0, object)

    def add(self, cells: np.ndarray, told: np.ndarray, start: int, *, comma_first: bool) -> list[np.ndarray]:
        """The numbers of a piece that begins at row `start`, by each convention."""
        missing, read = _numbers.readings(cells, comma_first=comma_first)
        read = list(read)
        for k, values in enumerate(read):
            wrong = np.isnan(values) & ~missing
            if not self.wrong[k] and wrong.any():
                first = int(np.argmax(wrong))
                self.first_wrong[k] = start + first, cells[first]
            self.wrong[k] += int(wrong.sum())
            self.finite[k] += int(np.isfinite(values).sum())
        self.told += int(told.sum())
        self.first = np.append(self.first, cells[: _numbers.LOOK - len(self.first)])
        return read

    @property
    def best(self) -> int:
        """The first convention that reads most."""
        return self.wrong.index(min(self.wrong))


class _Pass:
    """One reading of a file, where columns of words are believed to be these, by these conventions."""

    def __init__(self, width: int, kinds: Kinds, *, comma_first: bool):
        self._width, self._kinds, self._comma_first = width, kinds, comma_first
        self._tallies = {j: _Tally() for j in kinds}
        self._size = 0

    def rows(self, frame: pd.DataFrame) -> np.ndarray:
        """Numbers of a piece ``(n, D)``; beside them, where there are columns of words, whether any has a cell."""
        columns, any_told = [], np.zeros(len(frame), bool)
        for j in range(self._width):
            cells = column(frame.iloc[:, j])
            if j in self._kinds and cells.dtype != object:  # Of a piece in which every cell is missing.
                cells = np.full(len(cells), None, object)
            if cells.dtype != object:
                columns.append(cells)
                continue
            told = ~pd.isna(cells)
            tally = self._tallies.setdefault(j, _Tally())
            read = tally.add(cells, told, self._size, comma_first=self._comma_first)
            columns.append(read[self._kinds.get(j, 0)])
            any_told |= told
        self._size += len(frame)
        return np.column_stack([*columns, *([any_told.astype(float)] if self._kinds else [])])

    @property
    def surprised(self) -> bool:
        """Whether a column of words was none by what was believed."""
        return self._tallies.keys() != self._kinds.keys()

    def kinds(self) -> Kinds:
        """What columns of words are, by what was read."""
        return {j: self._tallies[j].best for j in sorted(self._tallies)}

    def column(self, rows: np.ndarray, j: int) -> np.ndarray | Words:
        """A column of all rows."""
        if j not in self._kinds:
            return rows[:, j]
        tally, kind = self._tallies[j], self._kinds[j]
        counts = tally.finite[kind], tally.wrong[kind], tally.first_wrong[kind]
        return Words(rows[:, j], rows[:, self._width], *counts, tally.told == 0, _numbers.kind(tally.first))
