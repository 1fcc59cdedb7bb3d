"""The options of one method or model; and running a study."""

import inspect
from pathlib import Path

from ..errors import InputError
from ..model import loading
from ..report import described, terminal
from . import asked
from .document import Document


def show(name: str) -> Document:
    """The options of one method or model."""
    what, function = described.named(name)
    table = described.options(function)
    terminal.print_table(table, f"Options of {what} {name}")
    return {what: name, "options": table}


def study(name: str, out: Path, methods_: str | None, *, quick: bool) -> None:
    """Run a study, of some methods where it compares methods."""
    run = loading.load_study(name)
    given = {}
    if methods_ is not None:
        if "methods" not in inspect.signature(run).parameters:
            raise InputError(f"study {name} takes no --methods; inference_methods does")
        given["methods"] = asked.method_names(methods_)
    out.mkdir(parents=True, exist_ok=True)
    run(out, quick=quick, **given)
