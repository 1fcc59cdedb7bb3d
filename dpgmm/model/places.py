"""Where models, studies and other people's methods are found by name. Light: `dpgmm list` needs no JAX."""

import importlib.metadata
from pathlib import Path

STUDY = "study.py"
"""The file of a study that is a folder: it may import what lies beside, as `from . import tables`."""
GROUP = "dpgmm.methods"
"""Group of the entry points by which installed packages offer methods: ``name = "package.module:METHOD"``."""


def folder(kind: str) -> Path:
    """Folder of the built-in ``"models"`` or ``"comparisons"``: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / f"_{kind}"
    return inside if inside.is_dir() else package.parent / kind


def names(kind: str) -> list[str]:
    """Names of the built-in files of a kind, sorted; of models, those that state a posterior; of studies, also folders."""
    files = [path for path in folder(kind).glob("*.py") if not path.stem.startswith("_")]
    stated = [path.stem for path in files if kind != "models" or "def posterior(" in path.read_text()]
    return sorted(stated + [path.parent.name for path in folder(kind).glob(f"*/{STUDY}")])


def entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """Methods that installed packages offer, by name."""
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}


def peers() -> list[str]:
    """Names of the methods of other libraries in comparisons/peers/; the libraries may not be installed."""
    files = (folder("comparisons") / "peers").glob("*.py")
    return sorted(path.stem for path in files if path.name not in (STUDY, "__init__.py"))
