"""Positions that stand for many: which draws, rows or points are looked at where all would be too many."""

import numpy as np
from jaxtyping import Int


def evenly(total: int, most: int) -> Int[np.ndarray, " positions"]:
    """At most `most` of the positions ``0 .. total - 1``, evenly spaced, ascending, none twice, both ends among them."""
    return np.linspace(0, total - 1, min(most, total)).astype(int)
