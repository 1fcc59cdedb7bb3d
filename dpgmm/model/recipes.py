"""How a posterior was made: its functions do not pickle, and are made again where it arrives."""

import dataclasses
import functools
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..data import Dataset
from ..errors import InputError

KEPT = 4
"""Posteriors that a process keeps of those that were sent to it, with their compiled programs."""


class Origin(NamedTuple):
    """Where a model or method is found: a name of ours, or a file's absolute path and the SHA-256 of its text."""

    name: str
    digest: str | None = None

    @classmethod
    def of(cls, name: str | Path) -> "Origin":
        """The origin of what a name, or the path of a .py file, stands for now."""
        if not str(name).endswith(".py"):
            return cls(str(name))
        path = Path(name).resolve()
        return cls(str(path), hashlib.sha256(path.read_bytes()).hexdigest())

    def found(self) -> str:
        """The name or path, if it still stands for the same. Raises `InputError` where the file is missing or differs."""
        if self.digest is None:
            return self.name
        if not Path(self.name).is_file():
            raise InputError(f"{self.name}: there is no such file here; put it at the same path on every machine")
        if Origin.of(self.name) != self:
            raise InputError(
                f"{self.name}: the file here is not the one that was loaded; load it again, or copy it here"
            )
        return self.name


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
    """``make(*given)`` gives a posterior equal to `made`: `make` is a function of a module, `given` can be pickled."""

    make: Callable[..., Any]
    given: tuple
    made: Any

    def fits(self, posterior: Any) -> bool:
        """Whether nothing but the data differs from what was made."""
        names = [field.name for field in dataclasses.fields(posterior) if field.name not in ("data", "recipe")]
        return all(getattr(posterior, name) is getattr(self.made, name) for name in names)

    def reduced(self, posterior: Any) -> tuple:
        """What pickles `posterior`: the recipe, and the data that it is on now where they are others."""
        data = None if posterior.data is self.made.data else posterior.data
        return remade, (pickle.dumps((self.make, self.given)), data)


def remade(recipe: bytes, data: Dataset | None) -> Any:
    """The posterior of a pickled recipe, on these data."""
    made = _made(recipe)
    return made if data is None else made.on(data)


@functools.lru_cache(KEPT)
def _made(recipe: bytes) -> Any:
    """Made once in a process: the next data set of the same prior finds the programs compiled."""
    make, given = pickle.loads(recipe)
    return make(*given)
