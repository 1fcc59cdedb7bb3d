"""Text files, written whole or not at all: beside their place first, then moved into it."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd


def write(path: Path, text: str) -> Path:
    """Write a text in UTF-8, in folders made where need be. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        return partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> Path:
    """Write numbers and words. Every number must be finite or None, as JSON knows no others: `ValueError`."""
    return write(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """The same numbers and words, None in place of every number that is not finite."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_table(path: Path, frame: pd.DataFrame, separator: str = ",", decimal: str = ".") -> Path:
    """Write a frame as CSV, without its index."""
    return write(path, frame.to_csv(index=False, sep=separator, decimal=decimal))
