"""Compare inference methods for Dirichlet-process Gaussian mixtures, without being fooled by component labels."""

from . import datasets, draws, methods
from .data import Dataset
from .errors import InputError
from .fitting import fit
from .loading import load_model
from .posterior import Components, Mixture, Posterior

__all__ = [
    "Components",
    "Dataset",
    "InputError",
    "Mixture",
    "Posterior",
    "datasets",
    "draws",
    "fit",
    "load_model",
    "methods",
]
