"""Compare inference methods for Dirichlet-process Gaussian mixtures, without being fooled by component labels."""

from . import datasets, diagnostics, draws, methods, partitions
from .data import Dataset
from .diagnostics import diagnose
from .errors import InputError
from .fitting import fit
from .loading import load_model
from .partitions import partition
from .posterior import Components, Mixture, Posterior

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
    "partition",
    "partitions",
]
