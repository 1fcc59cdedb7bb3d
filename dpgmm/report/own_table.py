"""A user's own table, all its columns and rows in order, with columns of ours added."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from .. import data, draws
from ..data.reading import cells
from ..draws.prediction import checked_points
from ..errors import InputError


def read(path: Path, tree: xr.DataTree) -> tuple[pd.DataFrame, np.ndarray]:
    """The table as text, and the points ``(M, D)`` in the columns that the draws are of. Raises `InputError`."""
    columns = json.loads(tree.attrs.get("columns", "[]"))
    found = data.read(path, columns or None)
    frame = cells(path)
    if len(frame) != found.size:
        raise InputError(f"{path}: {len(frame)} rows, of which {found.size} can be used; leave the others out")
    try:
        return frame, checked_points(tree, found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_observed(path: Path | None, tree: xr.DataTree) -> pd.DataFrame:
    """The table that the draws were fitted to, checked against them; without a path the observed points themselves."""
    observed = draws.data_of(tree).points
    if path is None:
        names = json.loads(tree.attrs.get("columns", "[]")) or [f"x{d}" for d in range(observed.shape[1])]
        return pd.DataFrame(observed, columns=names)
    frame, points = read(path, tree)
    if len(points) != len(observed):
        raise InputError(
            f"{path}: {len(points)} rows, and the draws are of {len(observed)}; give the table that was fitted, or predict"
        )
    apart = ~np.isclose(points, observed, rtol=1e-12, atol=0).all(axis=1)
    if apart.any():
        row = int(np.argmax(apart))
        raise InputError(
            f"{path}, row {row + 1}: {points[row].tolist()} where the draws are of {observed[row].tolist()}; give the table"
            " that was fitted, or predict"
        )
    return frame


def beside(frame: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns of `found` after its own; one that it has already is called dpgmm_NAME."""
    renamed = {name: f"dpgmm_{name}" for name in found.columns if name in frame.columns}
    return pd.concat([frame.reset_index(drop=True), found.rename(columns=renamed)], axis=1)
