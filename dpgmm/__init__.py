"""Compare inference methods for Dirichlet-process Gaussian mixtures, without being fooled by component labels."""

from . import calibration, datasets, diagnostics, draws, exact, methods, partitions, relabelling
from .agreement import Agreement, agreement
from .data import Dataset
from .diagnostics import diagnose
from .errors import InputError
from .fitting import fit
from .loading import load_model
from .modes import Atlas, atlas
from .partitions import partition
from .posterior import Components, Mixture, Posterior
from .relabelling import relabel
from .switching import Switching, switching

__all__ = [
    "Agreement",
    "Atlas",
    "Components",
    "Dataset",
    "InputError",
    "Mixture",
    "Posterior",
    "Switching",
    "agreement",
    "atlas",
    "calibration",
    "datasets",
    "diagnose",
    "diagnostics",
    "draws",
    "exact",
    "fit",
    "load_model",
    "methods",
    "partition",
    "partitions",
    "relabel",
    "relabelling",
    "switching",
]
