"""Models and studies, loaded by name or by path: a user's own file is as good as ours."""

import difflib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import InputError
from .posterior import Posterior


def folder(kind: str) -> Path:
    """Folder of the built-in ``"models"`` or ``"comparisons"``: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    inside = package / f"_{kind}"
    return inside if inside.is_dir() else package.parent / kind


def names(kind: str) -> list[str]:
    """Names of the built-in files of a kind, sorted."""
    return sorted(path.stem for path in folder(kind).glob("*.py") if not path.stem.startswith("_"))


def load_model(name: str | Path) -> Callable[..., Posterior]:
    """The function `posterior(data, *, truncation, **priors) -> Posterior` of a model, by built-in name or path of a file.

    Raises `InputError` where there is no such model, the file cannot be imported, or it has no such function; and,
    when called, where an option is not one of the model's.
    """
    module = load(str(name), "models")
    make = _function(module, "posterior", "model")
    accepted = inspect.signature(make).parameters

    def posterior(data, **options: Any) -> Posterior:
        open_ended = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
        unknown = [] if open_ended else sorted(set(options) - set(accepted))
        if unknown:
            raise InputError(f"model {name} has no option {unknown[0]!r}; it takes {', '.join(list(accepted)[1:])}")
        return make(data, **options)

    posterior.__doc__ = make.__doc__
    return posterior


def load_study(name: str | Path) -> Callable[..., Any]:
    """The function `run(out, quick=False)` of a comparison, by built-in name or path. Raises `InputError` likewise."""
    return _function(load(str(name), "comparisons"), "run", "study")


def load(name: str, kind: str) -> ModuleType:
    """The module of a built-in file of a kind ("models" or "comparisons"), or at the path of one. Raises `InputError`."""
    path = Path(name) if name.endswith(".py") else folder(kind) / f"{name}.py"
    if not path.is_file():
        what = "model" if kind == "models" else "study"
        close = difflib.get_close_matches(name, names(kind), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names(kind))}"
        raise InputError(f"no {what} {name!r}: {hint} Or give the path of a .py file.")
    spec = importlib.util.spec_from_file_location(f"dpgmm_{kind}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _function(module: ModuleType, name: str, what: str) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{module.__file__}: no function {name}(...), which a {what} file must define")
    return function
