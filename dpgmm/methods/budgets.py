"""How long methods run: one budget for all of them, and options of single methods, as the command line takes them."""

import ast
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import InputError
from .registry import find

CHAINS, WARMUP, DRAWS, RESTARTS = 4, 1_000, 1_000, 16


class Budget(NamedTuple):
    """Chains, warm-up transitions and draws a chain; restarts of a point estimate. None: the default."""

    chains: int | None = None
    warmup: int | None = None
    draws: int | None = None
    restarts: int | None = None


def options_by_method(
    names: Sequence[str], budget: Budget, settings: Sequence[str], *, quick: bool
) -> dict[str, dict[str, Any]]:
    """Options of every method by name: its share of the budget, or of a short run; then `settings` (`parsed`)."""
    own = parsed(names, settings)
    return {name: of(name, budget, quick=quick) | own[name] for name in names}


def of(name: str, budget: Budget, *, quick: bool) -> dict[str, Any]:
    """What a budget is in a method's own options: as many of them as it has.

    A guide takes a quarter of the restarts, at least two: each costs more than one of a point estimate. `quick`: the
    method's options of a short run, but for what the budget gives.
    """
    method = find(name)
    restarts = budget.restarts if budget.restarts is not None else None if quick else RESTARTS
    if restarts is not None and method.kind == "guide":
        restarts = max(2, restarts // 4)
    given = lambda value, default: value if value is not None or quick else default
    draws = given(budget.draws, DRAWS)
    wanted = {
        "chains": given(budget.chains, CHAINS),
        "warmup": given(budget.warmup, WARMUP),
        "draws_per_chain": draws,
        # Draws of a guide are independent: how many there are is a question of time alone, which the method answers.
        "draws_per_restart": draws if method.kind != "guide" else budget.draws,
        "restarts": restarts,
    }
    base = dict(method.quick) if quick else {}
    return base | {option: value for option, value in wanted.items() if value is not None and option in method.options}


def parsed(names: Sequence[str], settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options by method from ``METHOD.NAME=VALUE``: numbers, true, false and none as such, the rest as text.

    Raises `InputError` for another form, a method that does not run, or an option that it does not have.
    """
    options: dict[str, dict[str, Any]] = {name: {} for name in names}
    for setting in settings:
        left, equals, value = setting.partition("=")
        name, dot, option = left.rpartition(".")
        if not (equals and dot and name and option.isidentifier() and value):
            raise InputError(f"--option {setting}: give METHOD.NAME=VALUE, such as --option nuts.target_accept=0.95")
        if name not in options:
            raise InputError(f"--option {setting}: {name} does not run; the methods are {', '.join(names)}")
        find(name, [option])
        options[name][option] = _value(value)
    return options


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
