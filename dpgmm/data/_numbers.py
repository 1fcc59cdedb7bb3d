"""Numbers from cells: with a point or a comma, with thousands separated; what else a column of words may be."""

import re
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from ._table import NOTHING, Words

THOUSANDS = r"[+-]?\d{1,3}(?:[SEP]\d{3})+"
GROUPED = THOUSANDS.replace("[SEP]", ",") + r"(?:\.\d*)?"
DATE = re.compile(r"\s*\d{1,4}[-/.:]\d{1,2}[-/.:]\d{1,4}([T ].*)?\s*$|\s*\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?\s*$")
LOOK = 200
"""Cells that tell what a column of words is called."""
PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|[+-]?(inf|infinity)$", re.IGNORECASE)


CONVENTIONS = 3


def numbers(cells: np.ndarray, *, comma_first: bool) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of a column of strings, NaN where missing; and which cells are neither numbers nor missing.

    One convention holds for a whole column: plain, a decimal comma (points between thousands), or commas or blanks between
    thousands, the first that reads every cell; else the one that reads most. `comma_first`: a decimal comma is tried
    before thousands, as where cells are separated by semicolons.
    """
    missing, read = readings(cells, comma_first=comma_first)
    best, fewest = np.full(len(cells), np.nan), len(cells) + 1
    for values in read:
        bad = int((np.isnan(values) & ~missing).sum())
        if bad < fewest:
            best, fewest = values, bad
        if not bad:
            break
    return best, np.isnan(best) & ~missing


def readings(cells: np.ndarray, *, comma_first: bool) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """Which cells are missing; and the numbers by each of the `CONVENTIONS`, in the order that they are tried in."""
    words = pd.Series(cells, dtype=object).fillna("").str.strip()
    missing = words.str.lower().isin(NOTHING).to_numpy()
    told = words[~missing]

    def read(convention: Callable[[pd.Series], pd.Series]) -> np.ndarray:
        found = np.full(len(words), np.nan)
        found[~missing] = _plain(convention(told))
        return found

    tried = (lambda w: w, *((_comma, _thousands) if comma_first else (_thousands, _comma)))
    return missing, map(read, tried)


def words(cells: np.ndarray, *, comma_first: bool) -> Words:
    """A column of strings, None where missing, with what its cells are."""
    values, wrong = numbers(cells, comma_first=comma_first)
    told = np.array([cell is not None for cell in cells])
    finite = int(np.isfinite(values).sum())
    first = int(np.argmax(wrong))
    return Words(values, told, finite, int(wrong.sum()), (first, cells[first]), not told.any(), kind(cells))


def is_number(cell: str) -> bool:
    """Whether a cell is a number by any convention."""
    cell = cell.strip()
    return bool(PLAIN.match(cell) or PLAIN.match(cell.replace(",", ".")) or re.fullmatch(GROUPED, cell))


def kind(cells: np.ndarray) -> str:
    """What a column of words is called where it is left out."""
    told = [cell for cell in cells[:LOOK] if cell is not None and cell.strip()]
    return "dates" if told and all(DATE.match(cell) for cell in told) else "text"


def _plain(words: pd.Series) -> np.ndarray:
    fine = words.str.match(PLAIN).to_numpy(bool)
    values = np.full(len(words), np.nan)
    values[fine] = words[fine].astype(float)
    return values


def _comma(words: pd.Series) -> pd.Series:
    """Words with a decimal comma, points or blanks between thousands, as plain ones; others become no number."""
    pattern = rf"(?:{THOUSANDS.replace('[SEP]', '[.  ]')}|[+-]?\d*)(?:,\d+)?(?:[eE][+-]?\d+)?"
    fine = words.str.fullmatch(pattern).to_numpy(bool)
    clean = words.str.replace(r"[.  ]", "", regex=True).str.replace(",", ".")
    return clean.where(fine, "x")


def _thousands(words: pd.Series) -> pd.Series:
    pattern = rf"(?:{THOUSANDS.replace('[SEP]', '[,  ]')}|[+-]?\d*)(?:\.\d*)?(?:[eE][+-]?\d+)?"
    fine = words.str.fullmatch(pattern).to_numpy(bool)
    return words.str.replace(r"[,  ]", "", regex=True).where(fine, "x")
