"""The error for everything a user can correct, and the checks of options that raise it."""

import math
import numbers
from typing import Any


class InputError(ValueError):
    """Bad input: what was found, where, and what to do. The command line prints it as one line and exits with 2.

    Examples:
        >>> try:
        ...     dpgmm.Dataset([1.0, np.nan])
        ... except dpgmm.InputError as error:
        ...     print(error)
        data: points[1, 0] is nan; give finite values of at most 1e100
    """


class TimeIsOver(InputError):
    """The time that a fit was given ended before it had anything to show."""


def at_least(where: str, least: int, **options: Any) -> None:
    """Raise `InputError` unless all `options` are whole numbers, `least` or more."""
    for name, value in options.items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
            raise InputError(f"{where} option {name} = {value!r}: it must be a whole number, {least} or more")


def above(bound: float, **options: Any) -> None:
    """Raise `InputError` unless all `options` are finite numbers above `bound`."""
    for name, value in options.items():
        if not (_number(value) > bound and math.isfinite(_number(value))):
            wanted = "a positive number" if bound == 0 else f"a number above {bound}"
            raise InputError(f"option {name} = {value!r}: it must be {wanted}")


def _number(value: Any) -> float:
    """A number of Python, numpy or JAX as a float; NaN where it is none."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        return math.nan
