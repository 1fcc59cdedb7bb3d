"""CmdStan's CSV files: columns such as ``mu.1.2``, one chain a file, between remarks that begin with ``#``."""

import re
from pathlib import Path

import numpy as np

from ..data._source import source
from ..errors import InputError

INDEXED = re.compile(r"^(.+?)((?:\.\d+)+|\[\d+(?:,\d+)*\])$")
TOLD = re.compile(r"^#\s*(save_warmup|num_warmup|thin) = (\w+)", re.MULTILINE)
"""What a run was asked for, as its remarks say."""


def read(paths: list[Path], notes: list[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Variables ``(chain, draw, ...)`` by name, and the sampler's statistics; in `notes`, what was left out."""
    chains = [_chain(path, notes) for path in paths]
    names = chains[0][0]
    other = next((path for path, (found, _) in zip(paths, chains, strict=True) if found != names), None)
    if other is not None:
        raise InputError(f"{other}: other variables than in {paths[0]}; give chains of one run")
    counts = [len(values) for _, values in chains]
    if max(counts) > min(counts):
        notes.append(
            f"the chains have {min(counts)} to {max(counts)} draws: the first {min(counts)} of each were taken"
        )
    values = np.stack([chain[: min(counts)] for _, chain in chains])
    columns = {name: values[..., j] for j, name in enumerate(names)}
    stats = {name.removesuffix("__"): column for name, column in columns.items() if name.endswith("__")}
    return _variables({name: column for name, column in columns.items() if not name.endswith("__")}), stats


def _chain(path: Path, notes: list[str]) -> tuple[list[str], np.ndarray]:
    """Names of the columns and the draws ``(draw, column)`` after warm-up, of a file that may be packed."""
    text = source(path).content.decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if line.strip()]
    table = [line for line in lines if not line.startswith("#")]
    if len(table) < 2 or "," not in table[0]:
        raise InputError(f"{path}: not a file of draws: neither NetCDF, .npz nor CSV with a header and draws below")
    names = [name.strip().strip('"') for name in table[0].split(",")]
    rows = [line.split(",") for line in table[1:]]
    if len(rows[-1]) < len(names) or not _is_number(rows[-1][-1]):
        rows = rows[:-1]
        notes.append(f"{path.name}: the last line is unfinished and was left out")
    warmup = _warmup(text, lines, len(rows))
    if warmup:
        notes.append(f"{path.name}: {warmup} draws of warm-up were left out")
    rows = rows[warmup:]
    if not rows:
        raise InputError(f"{path}: no finished draw after warm-up; give a file of a run that has drawn some")
    wrong = next((row for row in rows if len(row) != len(names)), None)
    if wrong is not None:
        raise InputError(f"{path}: {len(wrong)} numbers a draw under {len(names)} names; the file is damaged")
    try:
        return names, np.array(rows, float)
    except ValueError as error:
        raise InputError(f"{path}: not draws: {error}") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _warmup(text: str, lines: list[str], rows: int) -> int:
    """How many rows are warm-up: those before CmdStan says that it has adapted, or as many as were asked for."""
    end = next((i for i, line in enumerate(lines) if line.startswith("# Adaptation terminated")), None)
    if end is not None:
        return max(0, sum(not line.startswith("#") for line in lines[:end]) - 1)
    told = dict(TOLD.findall(text))
    if told.get("save_warmup") not in ("1", "true"):
        return 0
    return min(rows, -(-int(told.get("num_warmup", "0")) // max(1, int(told.get("thin", "1")))))


def _variables(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of columns such as ``mu.1.2``: the indices, from one, say where a number goes."""
    cells: dict[str, dict[tuple[int, ...], np.ndarray]] = {}
    for column, values in columns.items():
        indexed = INDEXED.match(column)
        name, index = (indexed[1], indexed[2]) if indexed else (column, "")
        cells.setdefault(name, {})[tuple(int(i) - 1 for i in re.findall(r"\d+", index))] = values
    return {name: _array(name, found) for name, found in cells.items()}


def _array(name: str, cells: dict[tuple[int, ...], np.ndarray]) -> np.ndarray:
    if len({len(index) for index in cells}) > 1 or min(map(min, filter(None, cells)), default=0) < 0:
        raise InputError(f"{name}: columns whose indices do not go together; rename one of them")
    shape = tuple(max(axis) + 1 for axis in zip(*cells, strict=True))
    if len(cells) != np.prod(shape, dtype=int):
        raise InputError(f"{name}: {len(cells)} columns of an array of shape {shape}; the file is damaged")
    first = next(iter(cells.values()))
    array = np.empty((*first.shape, *shape))
    for index, column in cells.items():
        array[(..., *index)] = column
    return array
