"""Compare inference methods for Dirichlet-process Gaussian mixtures, without being fooled by component labels."""

import importlib
import importlib.abc
import importlib.machinery
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import diagnostics, draws, methods, partitions, relabelling
    from .data import Dataset, compression, datasets
    from .densities import base_measure, concentration, conjugate, distributions, gaussian, mixture, sticks, transforms
    from .diagnostics import diagnose
    from .diagnostics.agreement import Agreement, agreement
    from .draws.foreign import from_draws
    from .draws.prediction import with_groups
    from .errors import InputError
    from .labels.modes import Atlas, atlas
    from .labels.switching import Switching, switching
    from .methods import certificate, fitting
    from .methods.executors import executor_of
    from .methods.fitting import fit
    from .methods.many import fit_many
    from .model import loading, posterior
    from .model.loading import load_model
    from .model.posterior import Components, Mixture, Posterior
    from .model.sharding import devices
    from .partitions import assign, partition, predict
    from .relabelling import relabel
    from .truth import calibration, exact

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
    "assign",
    "atlas",
    "calibration",
    "datasets",
    "devices",
    "diagnose",
    "diagnostics",
    "draws",
    "exact",
    "executor_of",
    "fit",
    "fit_many",
    "from_draws",
    "load_model",
    "methods",
    "partition",
    "partitions",
    "predict",
    "relabel",
    "relabelling",
    "switching",
    "with_groups",
]

_HOMES = {
    "data.dataset": ("Dataset",),
    "diagnostics": ("diagnose",),
    "diagnostics.agreement": ("Agreement", "agreement"),
    "draws.prediction": ("with_groups",),
    "draws.foreign": ("from_draws",),
    "errors": ("InputError",),
    "labels.modes": ("Atlas", "atlas"),
    "labels.switching": ("Switching", "switching"),
    "methods.executors": ("executor_of",),
    "methods.fitting": ("fit",),
    "methods.many": ("fit_many",),
    "model.loading": ("load_model",),
    "model.posterior": ("Components", "Mixture", "Posterior"),
    "model.sharding": ("devices",),
    "partitions": ("assign", "partition", "predict"),
    "relabelling": ("relabel",),
}
"""Where public names live: a room is imported when something in it is asked for, and so is JAX."""
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_ROOMS = "data", "densities", "diagnostics", "draws", "labels", "methods", "model", "partitions", "relabelling", "truth"
_DENSITIES = "base_measure concentration conjugate distributions gaussian mixture sticks transforms"
_MODULES = {
    **{name: f"densities.{name}" for name in _DENSITIES.split()},
    **{name: f"data.{name}" for name in ("compression", "datasets")},
    **{name: f"model.{name}" for name in ("loading", "posterior")},
    **{name: f"methods.{name}" for name in ("certificate", "fitting")},
    **{name: f"truth.{name}" for name in ("calibration", "exact")},
}
"""Modules that a model file needs, and those of which the documents speak, by a shorter path: `import dpgmm.posterior`."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("dpgmm-suite")
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in _ROOMS or name in _MODULES:
        return importlib.import_module(f"{__name__}.{_MODULES.get(name, name)}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS, *_MODULES})


class _ShorterPaths(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports ``dpgmm.NAME`` as the module of `_MODULES` that it stands for: one module under two paths."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        known = package == __name__ and name in _MODULES
        return importlib.machinery.ModuleSpec(fullname, self) if known else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"{__name__}.{_MODULES[spec.name.rpartition('.')[2]]}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # It has been executed under its own path, and keeps that.
        module.__spec__ = module.__spec__.loader_state  # pyright: ignore[reportOptionalMemberAccess]


sys.meta_path.append(_ShorterPaths())
