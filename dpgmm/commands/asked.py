"""What was asked for in words: data, posterior, methods and times, from the strings of the command line."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import data, methods
from ..data import datasets
from ..draws.foreign import NAMES
from ..errors import InputError
from ..model import loading
from ..model.posterior import Posterior

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def data_set(
    name: str,
    columns: str | None,
    weights: str | None,
    *,
    drop_missing: bool = False,
    missing: Sequence[str] | None = None,
) -> data.Dataset:
    """The data set, and a line on standard error that says how a file was read."""
    if name in datasets.REGISTRY:
        given = {"--columns": columns, "--weights": weights, "--drop-missing": drop_missing, "--missing": missing}
        if asked := [option for option, value in given.items() if value]:
            raise InputError(
                f"{asked[0]}: {name} is a data set of ours, taken whole; give a file, or leave {asked[0]} out"
            )
        return datasets.REGISTRY[name]()
    if name != "-" and not Path(name).exists() and not Path(name.rpartition(":")[0] or name).suffix:
        raise InputError(f"no data set {name!r}: there are {', '.join(datasets.REGISTRY)}; or give a file of numbers")
    chosen = [column.strip() for column in columns.split(",")] if columns else None
    found = data.read(name, chosen, weights=weights, drop_missing=drop_missing, missing=missing or ())
    print(f"{'; '.join(found.notes)}.", file=sys.stderr)
    return found


def posterior(
    model: str, points: data.Dataset, truncation: int | None, settings: list[str] | None, *, named: bool = False
) -> Posterior:
    """The posterior, its truncation said in a line, which names the model where there are several."""
    given: dict[str, Any] = {} if truncation is None else {"truncation": truncation}
    found = loading.load_model(model)(points, **given, **loading.options(settings))
    if "truncation" in found.options:
        why = "as given" if given else "by the number of points and the prior; --truncation gives another"
        of = f"{model}: " if named else ""
        print(f"{of}at most {found.options['truncation']} components, {why}.", file=sys.stderr)
    return found


def method_names(names: str) -> list[str]:
    """Names of the methods asked for by name or by the path of a file."""
    chosen: dict[str, str] = {}
    for asked in [name.strip() for name in names.split(",") if name.strip()] or [names]:
        name = methods.find(asked).name
        if chosen.setdefault(name, asked) != asked:
            raise InputError(f"--methods: {chosen[name]} and {asked} are both called {name!r}; give one another name")
    return list(chosen)


def seconds(time: str | None) -> float | None:
    """Seconds of a time such as 90, 90s, 10m or 1.5h; None for none."""
    if time is None:
        return None
    told = re.fullmatch(r"(\d+\.?\d*|\.\d+)([smh]?)", time.strip())
    if told is None or not float(told[1]):
        raise InputError(f"--time-budget {time}: give a time such as 90s, 10m or 2h")
    return float(told[1]) * UNITS[told[2]]


def names(told: str | None) -> dict[str, Any]:
    """Arguments of `dpgmm.from_draws`, from ``weights=theta,means=mu,first_label=1,points=FILE``."""
    found: dict[str, Any] = {}
    for pair in (told or "").split(","):
        if not pair.strip():
            continue
        role, equals, name = pair.strip().partition("=")
        if not (equals and name and role in (*NAMES, "points", "first_label", "order")):
            raise InputError(
                f"--names {pair}: give ROLE=NAME; roles are {', '.join(NAMES)}, points, first_label, order"
            )
        if role == "first_label" and name not in ("0", "1"):
            raise InputError(f"--names {pair}: the first label is 0 or 1")
        if role == "points" and Path(name).is_file():
            found[role] = data.read(name).points
        else:
            found[role] = int(name) if role == "first_label" else name
    return found
