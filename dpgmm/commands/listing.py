"""The options of one method or model; and running a study."""

import contextlib
import inspect
from pathlib import Path

from ..errors import InputError
from ..methods.executors import executor_of
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


def study(name: str, out: Path, methods_: str | None, executor: str | None, *, quick: bool) -> None:
    """Run a study, of some methods where it compares methods, its fits side by side where it times none of them."""
    run = loading.load_study(name)
    taken, given = inspect.signature(run).parameters, {}
    if methods_ is not None:
        if "methods" not in taken:
            raise InputError(f"study {name} takes no --methods; inference_methods does")
        given["methods"] = asked.method_names(methods_)
    if executor is not None and "executor" not in taken:
        raise InputError(f"study {name} takes no --executor: it compares seconds, or has few fits; calibration does")
    with contextlib.nullcontext() if executor is None else executor_of(executor) as opened:
        given |= {} if opened is None else {"executor": opened}
        out.mkdir(parents=True, exist_ok=True)
        run(out, quick=quick, **given)
