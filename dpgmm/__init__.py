"""Compare inference methods for Dirichlet-process Gaussian mixtures, without being fooled by component labels."""

from . import datasets, diagnostics, draws, methods, relabelling
from .data import Dataset
from .diagnostics import diagnose
from .errors import InputError
from .fitting import fit
from .loading import load_model
from .posterior import Components, Mixture, Posterior
from .relabelling import relabel

__all__ = [
    "Components",
    "Dataset",
    "InputError",
    "Mixture",
    "Posterior",
    "datasets",
    "diagnose",
    "diagnostics",
    "draws",
    "fit",
    "load_model",
    "methods",
    "relabel",
    "relabelling",
]
