"""Options of a method or a model, with defaults and a line on each, from its signature and docstring."""

import inspect
import re
from collections.abc import Callable

import pandas as pd

from .. import methods
from ..errors import InputError
from ..methods.registry import stated
from ..model import loading


def named(name: str) -> tuple[str, Callable]:
    """ "method" or "model", and the function of it that takes the options. Raises `InputError` where there is neither."""
    if name in loading.names("models"):
        return "model", loading.posterior_function(name)
    if name in [*methods.names(), *methods.peers()]:
        return "method", methods.find(name).run
    if name.endswith(".py"):
        module = loading.load(name, "methods")
        if hasattr(module, "METHOD"):
            return "method", stated(module.METHOD, name).run
        return "model", loading.posterior_function(module)
    raise InputError(f"no method or model {name!r}; `dpgmm list` names them. Or give the path of a .py file")


def options(function: Callable) -> pd.DataFrame:
    """A row an option: its name, default, and what the docstring's line that begins with its name says of it."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    said = dict(re.findall(r"^\s*`(\w+)`: (.+)$", inspect.getdoc(function) or "", re.MULTILINE))
    rows = [
        {
            "option": p.name,
            "default": "required" if p.default is p.empty else str(p.default),
            "what it is": said.get(p.name, ""),
        }
        for p in parameters
        if p.name != "progress"
    ]
    return pd.DataFrame(rows, columns=["option", "default", "what it is"])
