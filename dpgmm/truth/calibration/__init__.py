"""Calibration: does a method, or a kernel of one, draw from the posterior that it says it draws from?

`simulate` refits a method to data simulated from its own prior and ranks the truth among the draws (simulation-based
calibration, Talts et al. 2018); `inside` holds the ranks against simultaneous bands (Säilynoja, Bürkner & Vehtari 2022),
`picture` draws them. `vsbc` and `k_hat` say what variational inference gets wrong (Yao et al. 2018). `joint_test` is for
single transition kernels (Geweke 2004; Gandy & Scott 2020).
"""

import importlib

from ...diagnostics.importance import k_hat
from .joint import Verdict, joint_test, p_values
from .quantities import QUANTITIES, Quantity
from .ranks import Ranks, collect, inside, pit, summary
from .simulation import Refit, as_ranks, prior_draws, quantities_of, refits, simulate
from .uniformity import excursion, uniformity_p_value
from .variational import vsbc

__all__ = [
    "QUANTITIES",
    "Quantity",
    "Ranks",
    "Refit",
    "Verdict",
    "as_ranks",
    "collect",
    "excursion",
    "inside",
    "joint_test",
    "k_hat",
    "p_values",
    "pit",
    "prior_draws",
    "quantities_of",
    "refits",
    "simulate",
    "summary",
    "uniformity_p_value",
    "vsbc",
]


def __getattr__(name: str):
    # What draws is above in the house, and loads matplotlib: only for those who ask for the picture.
    if name == "picture":
        return importlib.import_module("dpgmm.report.calibration_plots").picture
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
