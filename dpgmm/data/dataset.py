"""Dataset: weighted points. Data are read and checked here, once, and nowhere else."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import InputError
from ._arrays import frame_of, of_frame

ROWS = 2**20
"""Rows that are looked at in one piece: what is computed of more takes no memory beside them."""
LARGEST = 1e100
"""Largest magnitude of a value or weight: sums of weighted squares of larger ones overflow in float64."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Points ``(N, D)`` with weights ``(N,)``: a point of weight 3 counts as three points, one of weight 0 as none.

    Takes anything that numpy makes an array of numbers, and tables of pandas, Arrow and Polars; ``(N,)`` becomes
    ``(N, 1)``, weights are 1 by default. Held as read-only float64 copies; arrays that are so already, a file mapped into
    memory among them, as they are. `columns` are the names of the D
    coordinates, where they have any; `notes` tell how they were read. Raises `InputError` for other shapes, no points,
    values that are not finite or exceed 1e100 in magnitude, negative weights, weights that are all zero, or names that
    are not one for each coordinate, all different.

    Examples:
        >>> data = dpgmm.Dataset([[1.0, 2.0], [3.0, 5.0]], weights=[1, 3], columns=("height", "width"))
        >>> data.points.shape, data.columns
        ((2, 2), ('height', 'width'))
    """

    points: np.ndarray
    weights: np.ndarray = None  # pyright: ignore[reportAssignmentType]  # ones, set below
    name: str = "data"
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        self._take_frame()
        points = _as_floats(self.points, f"{self.name}: points")
        points = points[:, None] if points.ndim == 1 else points
        if points.ndim != 2 or 0 in points.shape:
            raise InputError(f"{self.name}: points have shape {points.shape}; give at least one row, as (N,) or (N, D)")
        _check(points, -LARGEST, f"{self.name}: points", "give finite values of at most 1e100")
        weights = np.broadcast_to(1.0, len(points))
        if self.weights is not None:
            weights = _as_floats(self.weights, f"{self.name}: weights")
        if weights.shape != points.shape[:1]:
            raise InputError(
                f"{self.name}: weights have shape {weights.shape}; give one for each of {len(points)} points"
            )
        _check(weights, 0, f"{self.name}: weights", "give finite weights of 0 or more")
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
            if array.flags.writeable:
                array.setflags(write=False)
            object.__setattr__(self, field, array)

    def __getstate__(self) -> dict[str, Any]:
        """Weights that are all one, and take no memory, take none in a pickle either."""
        ones = self.weights.strides == (0,) and self.weights[0] == 1
        return vars(self) | ({"weights": None} if ones else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        weights = np.broadcast_to(1.0, len(state["points"])) if state["weights"] is None else state["weights"]
        vars(self).update(state | {"weights": weights})
        for array in (self.points, self.weights):
            array.setflags(write=False)

    def _take_frame(self) -> None:
        """Numbers and names of a table: a frame of pandas, Polars or Arrow."""
        if (frame := frame_of(self.points)) is None:
            return
        table = of_frame(frame, self.name)
        for name, column in zip(table.names, table.columns, strict=True):
            if not isinstance(column, np.ndarray) or column.dtype == object:
                raise InputError(f"{self.name}: column {name!r} is not numeric; give columns of numbers only")
        object.__setattr__(self, "points", np.column_stack([np.asarray(column) for column in table.columns]))
        object.__setattr__(self, "columns", tuple(self.columns) or tuple(table.names))

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
        return self._sum(lambda x: x) / self.total_weight

    @cached_property
    def scale(self) -> np.ndarray:
        """Weighted standard deviation (population), ``(D,)``; 1 where the points that carry weight are all equal."""
        # Of equal points the mean, and so the deviation, may be off by a rounding: ask for equality, not for zero.
        first = self.points[np.argmax(self.weights > 0)]
        spread = np.any([((x != first) & (w > 0)[:, None]).any(axis=0) for x, w in self.pieces()], axis=0)
        deviation = np.sqrt(self._sum(lambda x: (x - self.mean) ** 2) / self.total_weight)
        return np.where(spread & (deviation > 0), deviation, 1.0)

    def sample(self, size: int, seed: int = 0) -> "Dataset":
        """Random rows that carry weight, in their order, without replacement, their weights scaled to the same total.

        The data themselves where they have no more than `size` such rows.
        """
        carries = np.arange(0) if self.weights.all() else np.flatnonzero(self.weights)
        count = len(carries) or self.size
        if count <= size:
            return self
        rows = np.sort(np.random.default_rng(seed).choice(count, size, replace=False, shuffle=False))
        rows = carries[rows] if len(carries) else rows
        weights = self.weights[rows]
        return Dataset(
            self.points[rows], weights * (self.total_weight / weights.sum()), self.name, self.columns, self.notes
        )

    def pieces(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Points and weights, `ROWS` of them at a time, as views."""
        for start in range(0, self.size, ROWS):
            yield self.points[start : start + ROWS], self.weights[start : start + ROWS]

    def _sum(self, of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """``sum_n omega_n of(x_n)``, ``(D,)``."""
        return np.sum([(of(x) * w[:, None]).sum(axis=0) for x, w in self.pieces()], axis=0)


def _as_floats(values: Any, what: str) -> np.ndarray:
    """A float64 copy, or the array itself where nobody can write to it."""
    try:
        if np.ma.is_masked(values):
            values = np.ma.filled(values.astype(float), np.nan)
        array = np.asarray(values)
        words = array.dtype == object and next((x for x in array.flat if isinstance(x, str | bytes)), None)
        if array.dtype.kind not in "biufO" or isinstance(words, str | bytes):
            raise TypeError(f"they are {array.dtype}" + (f", {words!r} among them" if array.dtype == object else ""))
        return array if array.dtype == np.float64 and _is_read_only(array) else np.array(array, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} are not an array of numbers ({error}); give numbers only") from error


def _is_read_only(array: np.ndarray) -> bool:
    """Whether neither the array nor what it is a view of can be written to."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return False
        base = base.base
    return base is None or memoryview(base).readonly


def _check(values: np.ndarray, least: float, what: str, remedy: str) -> None:
    """Raise `InputError` at the first value that is not from `least` to `LARGEST`."""
    for start in range(0, len(values), ROWS):
        piece = values[start : start + ROWS]
        fine = (piece >= least) & (piece <= LARGEST)
        if not fine.all():
            at = tuple(int(i) for i in np.argwhere(~fine)[0])
            raise InputError(f"{what}{[start + at[0], *at[1:]]} is {piece[at]}; {remedy}")
