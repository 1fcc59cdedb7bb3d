"""Models and studies, loaded by name or by path: a user's own file is as good as ours."""

import contextlib
import dataclasses
import difflib
import importlib.machinery
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from ..data import Dataset
from ..densities import sticks
from ..errors import InputError
from . import statements
from .places import STUDY, folder, names
from .posterior import Posterior
from .recipes import Origin, Recipe

OTHERWISE = {"data": "as the first argument", "truncation": "by --truncation"}
"""How to give what is no option of --set."""


def load_model(name: str | Path) -> Callable[..., Posterior]:
    """The function `posterior(data, *, truncation, **priors) -> Posterior` of a model, by built-in name or path of a file.

    Its `data` is a `Dataset`, or anything that makes one; a model without a default of its own for `truncation` gets that
    of `dpgmm.sticks.default_truncation` under Gamma(1, log N). Raises `InputError` where there is no such model, the file
    cannot be imported, or it has no such function; and, when called, where an option is not one of the model's, or a file
    of the user's fails or returns no `Posterior`. What it returns can be pickled, as name or path, data and options.

    Examples:
        >>> make = dpgmm.load_model("stick_breaking")
        >>> make([9.2, 9.4, 19.6, 20.1], truncation=3).data.points.shape
        (4, 1)
    """
    make, origin = posterior_function(name), Origin.of(name)
    accepted = inspect.signature(make).parameters

    def posterior(data: Any, **options: Any) -> Posterior:
        data = data if isinstance(data, Dataset) else Dataset(data)
        open_ended = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
        unknown = [] if open_ended else sorted(set(options) - set(accepted))
        if unknown:
            raise InputError(f"model {name} has no option {unknown[0]!r}; it takes {', '.join(list(accepted)[1:])}")
        if "truncation" in accepted and accepted["truncation"].default is inspect.Parameter.empty:
            size = data.total_weight
            options = {"truncation": sticks.default_truncation(size, 1.0, sticks.default_rate(size))} | options
        made = _tried(make, data, options, Path(name)) if str(name).endswith(".py") else make(data, **options)
        given = origin, data, options, jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
        return dataclasses.replace(made, recipe=Recipe(_made_again, given, made))

    posterior.__doc__ = make.__doc__
    return posterior


def _made_again(origin: Origin, data: Dataset, options: dict[str, Any], x64: bool) -> Posterior:  # noqa: FBT001
    """What `load_model` made of these, in the precision in which it was made."""
    with jax.enable_x64(x64):
        return load_model(origin.found())(data, **options)


def posterior_function(name: str | Path | ModuleType) -> Callable[..., Posterior]:
    """The function `posterior` of a model's file, as the file states it: its signature and docstring name the options."""
    module = name if isinstance(name, ModuleType) else load(str(name), "models")
    return _function(module, "posterior", "model")


def load_study(name: str | Path) -> Callable[..., Any]:
    """The function `run(out, *, quick=False)` of a comparison, by built-in name, or path of a file or of a folder.

    A folder holds `STUDY`. Raises `InputError` likewise.
    """
    return _function(load(str(name), "comparisons"), "run", "study")


def load(name: str, kind: str) -> ModuleType:
    """The module of a built-in file of a kind ("models" or "comparisons"), or at the path of one. Raises `InputError`.

    Of "methods" none is built in: they have a registry.
    """
    path = _path(name, kind)
    what = {"models": "model", "comparisons": "study", "methods": "method"}[kind]
    if kind == "methods" and not path.is_file():
        raise InputError(f"no method file {name}: there is no such file; give the path of a .py file")
    if not path.is_file():
        close = difflib.get_close_matches(name, names(kind), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names(kind))}."
        raise InputError(f"no {what} {name!r}: {hint} Or give the path of a .py file.")
    module_name = f"dpgmm_{kind}_{path.stem}"
    if kind == "comparisons" and path.name == STUDY:
        module_name = f"{_package(path.parent, kind)}.{path.stem}"
    loader = _AsItIs(module_name, str(path))
    spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
    except InputError as error:
        raise InputError(f"{place(path, error)}: {error}") from error
    except Exception as error:
        message = str(error).strip().splitlines() or [""]
        where = place(path, error)
        raise InputError(f"{where}: cannot be imported: {type(error).__name__}: {message[0]}") from error
    return module


class _AsItIs(importlib.machinery.SourceFileLoader):
    """Reads a file as it is now: a user edits and runs again within the second that a cache of bytecode goes by."""

    def get_code(self, fullname: str):
        """Compile the source, and leave no cache beside it."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _path(name: str, kind: str) -> Path:
    """Where the file of a model or study must be: at a path, or by a name of ours."""
    if name.endswith(".py"):
        return Path(name)
    file = folder(kind) / f"{name}.py"
    folders = (folder(kind) / name / STUDY, Path(name) / STUDY) if kind == "comparisons" else ()
    return next((path for path in (file, *folders) if path.is_file()), file)


def _package(place: Path, kind: str) -> str:
    """Name of a package, made anew, whose modules are the files of a folder."""
    name = f"dpgmm_{kind}_{place.resolve().name}"
    for loaded in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        del sys.modules[loaded]
    package = ModuleType(name)
    package.__path__ = [str(place.resolve())]
    sys.modules[name] = package
    return name


def _tried(make: Callable, data: Dataset, options: dict[str, Any], path: Path) -> Posterior:
    """What a user's model makes, its prior compared with itself, so that a mistake is told as one, with its line."""
    with told(path, "model"):
        made = make(data, **options)
        if isinstance(made, Posterior):
            shape = jax.eval_shape(lambda key: made.log_joint(made.initial(key)), jax.random.PRNGKey(0)).shape
            if shape != ():
                raise InputError(f"{path}: the log joint density has shape {shape}; log_prior must return one number")
            statements.check(made, str(path))
    if not isinstance(made, Posterior):
        raise InputError(f"{path}: posterior(...) returned {type(made).__name__}; it must return a dpgmm.Posterior")
    return made


@contextlib.contextmanager
def told(path: Path, what: str) -> Iterator[None]:
    """An exception of a user's file is told in one line, with its place in the file: `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        message = str(error).strip().splitlines() or [""]
        raise InputError(f"{place(path, error)}: {type(error).__name__}: {message[0]}; correct the {what}") from error


def place(path: Path, error: Exception) -> str:
    """The file, and the last of its lines that an exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _function(module: ModuleType, name: str, what: str) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{module.__file__}: no function {name}(...), which a {what} file must define")
    return function


def options(settings: Sequence[str] | None) -> dict[str, Any]:
    """Options of the model by name, from NAME=VALUE: numbers where they are numbers."""
    options = {}
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not (name.isidentifier() and equals and value):
            raise InputError(f"--set {setting}: give NAME=VALUE, such as --set covariance=diagonal")
        if name in ("data", "truncation"):
            raise InputError(
                f"--set {setting}: no option of the model's prior; give the {name} itself, {OTHERWISE[name]}"
            )
        try:
            options[name] = float(value)
        except ValueError:
            options[name] = value
    return options
