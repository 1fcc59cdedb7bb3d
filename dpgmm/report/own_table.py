"""A user's own table, all its columns and rows in order, with columns of ours added."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from .. import draws
from ..data.reading import cells, read_rows
from ..draws.prediction import checked_points
from ..errors import InputError
from . import files

SHOWN = 6
"""Rows that are named in a line about them."""
DECIMAL = r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*"
"""A number with a decimal comma."""


class OwnTable(NamedTuple):
    """All `cells` of a user's table as text, and `rows`, ascending, those that have a value in every column that counts.

    `separator` and `decimal`: how it is written, and how it is to be written again.
    """

    cells: pd.DataFrame
    rows: np.ndarray
    separator: str = ","
    decimal: str = "."

    def beside(self, found: pd.DataFrame) -> pd.DataFrame:
        """The table with the columns of `found`, a row for each of `rows`, after its own; other rows get empty cells.

        A column that it has already is called dpgmm_NAME.
        """
        renamed = {name: f"dpgmm_{name}" for name in found.columns if name in self.cells.columns}
        found = found.rename(columns=renamed)
        if len(self.rows) < len(self.cells):
            # Whole numbers stay so beside empty cells.
            whole = {name: "Int64" for name in found if found[name].dtype.kind in "iu"}
            found = found.astype(whole).set_axis(self.rows).reindex(range(len(self.cells)))
        return pd.concat([self.cells.reset_index(drop=True), found], axis=1)

    def lacking(self) -> str:
        """A sentence on rows that get empty cells; nothing where there are none."""
        empty = np.setdiff1d(np.arange(len(self.cells)), self.rows) + 1
        if not len(empty):
            return ""
        named = ", ".join(map(str, empty[:SHOWN])) + (", ..." if len(empty) > SHOWN else "")
        return f"{len(empty)} of {len(self.cells)} rows lack a value and get empty cells: row {named} below the header."

    def write(self, path: Path, found: pd.DataFrame) -> Path:
        """Write the table with `found` beside it, as the table itself is written."""
        return files.write_table(path, self.beside(found), self.separator, self.decimal)


def read(path: Path, tree: xr.DataTree, missing: Sequence[str] = ()) -> tuple[OwnTable, np.ndarray]:
    """The table, and the points ``(M, D)`` in the columns that the draws are of. Raises `InputError`.

    `missing`: what stands for a missing value besides empty cells, NA and the like.
    """
    columns = json.loads(tree.attrs.get("columns", "[]"))
    found, rows = read_rows(path, columns or None, drop_missing=True, missing=missing)
    table = cells(path)
    separator = table.attrs.get("separator", ",")
    # Only what can be told from a decimal: with commas between cells, a comma within one separates thousands.
    names = [name for name in columns or table.columns if name in table]
    commas = separator != "," and any(table[name].astype(str).str.fullmatch(DECIMAL).any() for name in names)
    own = OwnTable(table, rows, separator if separator in (";", "\t", "|") else ",", "," if commas else ".")
    try:
        return own, checked_points(tree, found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_observed(path: Path | None, tree: xr.DataTree, missing: Sequence[str] = ()) -> OwnTable:
    """The table that the draws were fitted to, checked against them; without a path the observed points themselves."""
    observed = draws.data_of(tree).points
    if path is None:
        return OwnTable(pd.DataFrame(observed, columns=_names(tree, observed)), np.arange(len(observed)))
    own, points = read(path, tree, missing)
    if len(points) != len(observed):
        raise InputError(
            f"{path}: {len(points)} rows, and the draws are of {len(observed)}; give the table that was fitted, or predict"
        )
    apart = ~np.isclose(points, observed, rtol=1e-12, atol=0).all(axis=1)
    if apart.any():
        at = int(np.argmax(apart))
        raise InputError(
            f"{path}, row {own.rows[at] + 1}: {points[at].tolist()} where the draws are of {observed[at].tolist()}; give the"
            " table that was fitted, or predict"
        )
    return own


def coordinates(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """The first few coordinates of the observed points, ``(N,)``, by name: what tells clusters apart in a table."""
    points = draws.data_of(tree).points[:, :SHOWN]
    taken = ("cluster", "uncertainty", "mcse")
    return {
        f"own {name}" if name in taken else name: column
        for name, column in zip(_names(tree, points), points.T, strict=False)
    }


def _names(tree: xr.DataTree, points: np.ndarray) -> list[str]:
    return json.loads(tree.attrs.get("columns", "[]")) or [f"x{d}" for d in range(points.shape[1])]
