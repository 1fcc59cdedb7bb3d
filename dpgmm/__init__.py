"""Compare inference methods for Dirichlet-process Gaussian mixtures, without being fooled by component labels."""

import importlib.metadata
import sys

from . import diagnostics, draws, methods, partitions, relabelling
from .data import Dataset, compression, datasets
from .densities import base_measure, concentration, conjugate, distributions, gaussian, mixture, sticks, transforms
from .diagnostics import diagnose
from .diagnostics.agreement import Agreement, agreement
from .errors import InputError
from .labels.modes import Atlas, atlas
from .labels.switching import Switching, switching
from .methods import certificate, fitting
from .methods.fitting import fit
from .model import loading, posterior
from .model.loading import load_model
from .model.posterior import Components, Mixture, Posterior
from .partitions import partition
from .relabelling import relabel
from .truth import calibration, exact

__version__ = importlib.metadata.version("dpgmm-suite")

# The modules that a model file needs, and those of which the documents speak, keep their paths: `import dpgmm.posterior`.
_DENSITIES = base_measure, concentration, conjugate, distributions, gaussian, mixture, sticks, transforms
_PATHS = *_DENSITIES, compression, datasets, loading, posterior, certificate, fitting, calibration, exact
sys.modules |= {f"dpgmm.{module.__name__.rpartition('.')[2]}": module for module in _PATHS}

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
