"""What a command says to machines: with `--json` one JSON document on standard output, and nothing else there."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ..report import files, terminal

Document = dict[str, Any]
"""Names, numbers and lists of them, as a command found them: `NaN` and infinities are still in it."""


def say(command: Callable[[], Document], *, as_json: bool) -> None:
    """Run a command. With `as_json` what people read goes to standard error, and its document to standard output."""
    if not as_json:
        command()
        return
    terminal.console.stderr = True
    try:
        found = command()
    finally:
        terminal.console.stderr = False
    print(dumps(found))


def dumps(found: Document) -> str:
    """JSON in ASCII; null in place of every number that is not finite, as JSON knows no others."""
    return json.dumps(files.finite(plain(found)), allow_nan=False)


def plain(value: Any) -> Any:
    """The same in Python's own numbers, lists and dictionaries; a table as its rows, and its index if that has a name."""
    if isinstance(value, pd.DataFrame):
        return plain((value.reset_index() if value.index.name else value).to_dict("records"))
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
