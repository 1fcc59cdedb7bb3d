"""The methods there are: ours, those of installed packages, and a user's own file by path."""

import copyreg
import dataclasses
import difflib
import functools
import importlib.metadata
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xarray as xr

from .. import draws
from ..errors import InputError
from ..model import loading
from ..model.places import entry_points, folder, peers
from ..model.posterior import Posterior
from ..model.recipes import Origin
from . import blocked_gibbs, cavi, gibbs, map, nuts, svi
from ._method import GREY, Method

REGISTRY: dict[str, Method] = {
    module.METHOD.name: module.METHOD for module in (map, svi, nuts, gibbs, blocked_gibbs, cavi)
}
"""Our methods by name."""
OTHERS: dict[str, Method] = {}
"""Methods of installed packages and of users' files that have been found so far."""


def find(method: str | Path | Method, options: Iterable[str] = ()) -> Method:
    """The method of that name, in the file at that path, or as it is given.

    Raises `InputError` for an unknown name, a file that cannot be imported or states no `Method`, or an option that the
    method does not have.
    """
    found = method if isinstance(method, Method) else _named(str(method))
    found.accepts(options)
    return found


def known(name: str) -> Method | None:
    """The method of that name if it is ours or has been found before; None for draws from elsewhere."""
    return REGISTRY.get(name) or OTHERS.get(name)


def colour(name: str) -> str:
    """Colour of a method's draws in pictures; grey for draws from elsewhere."""
    method = known(name)
    return GREY if method is None else method.colour


def names() -> list[str]:
    """Names of all methods that can be asked for by name: ours and those of installed packages."""
    return [*REGISTRY, *(entry for entry in entry_points() if entry not in REGISTRY)]


def suited(posterior: Posterior) -> list[str]:
    """Methods that a comparison runs unless it is told which: of each kind what the model and the data allow."""

    def allows(method: Method) -> bool:
        try:
            method.checked(posterior)
        except InputError:
            return False
        return method.usual and posterior.data.size <= method.most

    return [name for name, method in REGISTRY.items() if allows(method)]


def check(method: str | Method, posterior: Posterior) -> None:
    """Raise `InputError` where a method cannot take this model or these data, before anything runs."""
    find(method).checked(posterior)


def _named(name: str) -> Method:
    if (method := known(name)) is not None:
        return method
    if name.endswith(".py"):
        return _register(_of_file(Path(name)), name)
    entries = entry_points()
    if name in entries:
        return _register(_of_entry(entries[name]), entries[name].value, name)
    if name in peers():
        return _register(_of_file(folder("comparisons") / "peers" / f"{name}.py", Origin(name)), name)
    close = difflib.get_close_matches(name, [*names(), *peers()], n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join([*names(), *peers()])}."
    raise InputError(f"no method {name!r}: {hint} Or give the path of a .py file")


def _of_entry(entry: importlib.metadata.EntryPoint) -> Method:
    """The method of an entry point of an installed package."""
    try:
        method = entry.load()
    except Exception as error:
        raise InputError(f"method {entry.name} of {entry.value}: {type(error).__name__}: {error}") from error
    path = Path(sys.modules[entry.module].__file__ or entry.module)
    return _telling(stated(method, entry.value), path, Origin(entry.name))


def _of_file(path: Path, origin: Origin | None = None) -> Method:
    """The `METHOD` of a file, which is its own origin unless it has another."""
    module = loading.load(str(path), "methods")
    return _telling(stated(getattr(module, "METHOD", None), str(path)), path, origin or Origin.of(path))


def _telling(method: Method, path: Path, origin: Origin) -> Method:
    """The method, which tells of a mistake in its file as one, with its line."""

    @functools.wraps(method.run)
    def run(posterior: Posterior, key: Any, **options: Any) -> xr.DataTree:
        with loading.told(path, "method"):
            return method.run(posterior, key, **options)

    found = dataclasses.replace(method, run=run)
    object.__setattr__(found, "origin", origin)
    return found


def _reduced(method: Method) -> tuple:
    """What pickles a method: its name or file, or else its fields, where its functions can be imported."""
    if REGISTRY.get(method.name) is method:
        return find, (method.name,)
    if method.origin is not None:
        return _found_again, (method.origin,)
    fields = {field.name: getattr(method, field.name) for field in dataclasses.fields(method) if field.init}
    return _of_fields, (fields | {"quick": dict(method.quick)},)


copyreg.pickle(Method, _reduced)


@functools.lru_cache
def _found_again(origin: Origin) -> Method:
    """The method of that name or file, read once in a process: what it has compiled stays."""
    return find(origin.found())


def _of_fields(fields: dict[str, Any]) -> Method:
    return Method(**fields)


def stated(method: Any, where: str) -> Method:
    """The `METHOD` of a file, if it is one. Raises `InputError` otherwise."""
    if not isinstance(method, Method):
        found = "none" if method is None else type(method).__name__
        raise InputError(f"{where}: a method file states METHOD = dpgmm.methods.Method(...), found {found}")
    return method


def _register(method: Method, where: str, name: str | None = None) -> Method:
    """The method under its name, from now on; a file that is read again takes the place of what it said before."""
    if name is not None and name != method.name:
        raise InputError(f"{where}: entry point {name!r} has a method called {method.name!r}; give them one name")
    if method.name in REGISTRY:
        raise InputError(f"{where}: there is a method {method.name!r} already; give METHOD another name")
    OTHERS[method.name] = method
    return method


def returned(tree: Any, method: Method) -> xr.DataTree:
    """What a method returned, if it is draws in the schema. Raises `InputError` otherwise."""
    if not isinstance(tree, xr.DataTree) or "options" not in tree.attrs:
        found = "a DataTree that it did not make" if isinstance(tree, xr.DataTree) else type(tree).__name__
        raise InputError(f"{method.where}: run(...) of {method.name} returned {found}; return dpgmm.draws.build(...)")
    draws.check(tree, method.where)
    if method.kind == "guide" and "log_weight" not in tree["sample_stats"]:
        raise InputError(
            f"{method.where}: the draws of {method.name}, a guide, need sample_stats/log_weight, their log importance"
            " weights"
        )
    if "optimisation" in tree.children and not {"loss", "weights", "snapshot_step"} <= set(
        tree["optimisation"].variables
    ):
        raise InputError(f"{method.where}: make the group optimisation of {method.name} by dpgmm.draws.paths(...)")
    return tree
