"""What is known of a method before it runs: one record each, in place of lists of names."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

import xarray as xr

from ..errors import InputError
from ..model.posterior import Conjugate, Posterior
from ..model.recipes import Origin

Kind = Literal["point", "guide", "sampler"]
Target = Literal["posterior", "process"]
GREY = "#6b6b6b"
"""Colour of what has none of its own."""


@dataclasses.dataclass(frozen=True)
class Method:
    """An inference method, ours or a user's.

    `run`: ``run(posterior, key, *, progress=None, **options) -> DataTree``, the tree made by `dpgmm.draws.build`; options
    are keyword-only and have defaults. `kind`: what its draws are of: a `point` estimate (MAP), a variational `guide`, of
    which every draw carries a log importance weight, or a `sampler` of the target. `target`: the truncated `posterior`, or
    the untruncated `process`. `conjugate`: it needs a model that states its conjugate prior. `allocates`: it puts
    points into components, and needs them as they are, uncompressed. `check`: raises `InputError` where it cannot
    take a posterior, before anything runs. `quick`: options of a short run. `colour`
    in pictures, ours told apart by the colour-blind (Okabe & Ito 2008). `usual`: whether a
    comparison runs it unless told which; `most`: number of points up to which it does. `origin`: the name or file by which
    the registry found it, of which a changed copy knows nothing.
    """

    name: str
    run: Callable[..., xr.DataTree]
    kind: Kind = "sampler"
    target: Target = "posterior"
    conjugate: bool = False
    allocates: bool = False
    check: Callable[[Posterior], object] | None = None
    quick: Mapping[str, Any] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    colour: str = GREY
    usual: bool = False
    most: float = float("inf")
    origin: Origin | None = dataclasses.field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self):
        """Raises `InputError` where the record is not of the kind described."""
        if not (isinstance(self.name, str) and self.name and self.name.replace("-", "_").isidentifier()):
            raise InputError(f"Method: the name must be one word, found {self.name!r}")
        if not callable(self.run):
            raise InputError(f"method {self.name}: run must be a function, found {type(self.run).__name__}")
        for field, allowed in {"kind": Kind, "target": Target}.items():
            if getattr(self, field) not in get_args(allowed):
                raise InputError(
                    f"method {self.name}: no {field} {getattr(self, field)!r}; there are {', '.join(get_args(allowed))}"
                )
        self._check_signature()
        if not re.fullmatch("#[0-9a-fA-F]{6}", self.colour):
            raise InputError(f"method {self.name}: the colour must be of the form #rrggbb, found {self.colour!r}")
        self.accepts(self.quick)

    def _check_signature(self) -> None:
        parameters = inspect.signature(self.run).parameters
        if "progress" not in parameters:
            raise InputError(f"method {self.name}: run(...) must take progress=None, which it may ignore")
        for p in list(parameters.values())[2:]:
            keyword = p.kind is p.KEYWORD_ONLY or p.name == "progress"
            if not keyword or p.default is p.empty:
                raise InputError(
                    f"method {self.name}: run(posterior, key, *, ...) takes options by name, each with a default;"
                    f" {p.name!r} is none"
                )

    @property
    def where(self) -> str:
        """The file and line of `run`, as a mistake is told; the method's name where that is not known."""
        code = getattr(inspect.unwrap(self.run), "__code__", None)
        return f"method {self.name}" if code is None else f"{code.co_filename}, line {code.co_firstlineno}"

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The method's options: keyword-only parameters of `run`, but for `progress`."""
        parameters = inspect.signature(self.run).parameters.values()
        return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "progress"}

    def accepts(self, given: Iterable[str]) -> None:
        """Raise `InputError` for an option that the method does not have."""
        unknown = sorted(set(given) - set(self.options))
        if unknown:
            raise InputError(f"{self.name} has no option {unknown[0]!r}; it takes {', '.join(self.options) or 'none'}")

    def bound(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options as they are bound: those given, else the defaults."""
        self.accepts(given)
        return {name: p.default for name, p in self.options.items()} | dict(given)

    def checked(self, posterior: Posterior) -> None:
        """Raise `InputError` where the method cannot take this model or these data."""
        if self.check is not None:
            self.check(posterior)
        if self.conjugate:
            conjugate_prior(posterior, self.name)


def conjugate_prior(posterior: Posterior, method: str) -> Conjugate:
    """The conjugate prior that a method needs. Raises `InputError` where the model states none."""
    if posterior.conjugate is None:
        raise InputError(
            f"{method}: model {posterior.name} states no conjugate prior; choose a method that needs none, such as nuts"
        )
    return posterior.conjugate
