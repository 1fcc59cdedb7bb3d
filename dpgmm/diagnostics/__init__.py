"""Diagnostics: what chains say about themselves, what methods say about each other, and which answer to believe."""

from ..draws.affinity import VISIBLE
from ..draws.monte_carlo import r_hat
from . import elpd
from .diagnosis import (
    COUNTS,
    GRID,
    POOR,
    Diagnosis,
    diagnose,
    invariants,
    is_guide,
    k_hat_of,
    predictive_density,
    sorted_components,
    summary_row,
)
from .verdicts import THRESHOLD

__all__ = [
    "COUNTS",
    "GRID",
    "POOR",
    "THRESHOLD",
    "VISIBLE",
    "Diagnosis",
    "diagnose",
    "elpd",
    "invariants",
    "is_guide",
    "k_hat_of",
    "predictive_density",
    "r_hat",
    "sorted_components",
    "summary_row",
]
