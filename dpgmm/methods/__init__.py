"""Inference methods: one file each, all with ``run(posterior, key, **options) -> DataTree``, and the registry of them."""

import inspect
from collections.abc import Callable, Iterable

import xarray as xr

from ..errors import InputError
from ..model.posterior import Posterior
from . import blocked_gibbs, cavi, gibbs, map, nuts, svi

REGISTRY: dict[str, Callable[..., xr.DataTree]] = {
    "map": map.run,
    "svi": svi.run,
    "nuts": nuts.run,
    "gibbs": gibbs.run,
    "blocked_gibbs": blocked_gibbs.run,
    "cavi": cavi.run,
}

ALLOCATE = {"gibbs", "blocked_gibbs"}
"""Methods that allocate every point: they need the data as they are, uncompressed and without weights."""

CHECKS: dict[str, Callable[[Posterior], object]] = {
    "gibbs": gibbs.checked,
    "blocked_gibbs": blocked_gibbs.checked,
    "cavi": cavi.checked,
}


def find(name: str, options: Iterable[str] = ()) -> Callable[..., xr.DataTree]:
    """`run` of the method called `name`. Raises `InputError` for an unknown name, or an option that it does not have."""
    if name not in REGISTRY:
        raise InputError(f"no method {name!r}; there are {', '.join(REGISTRY)}")
    parameters = inspect.signature(REGISTRY[name]).parameters.values()
    accepted = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "progress"]
    unknown = sorted(set(options) - set(accepted))
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise InputError(f"{name} has no option {unknown[0]!r}; it takes {', '.join(accepted)}")
    return REGISTRY[name]


FEW = 3_000
"""Points up to which collapsed Gibbs sampling, which takes them one by one, takes a minute at most."""


def suited(posterior: Posterior) -> list[str]:
    """Methods that a comparison runs unless it is told which: of each kind what the model and the data allow."""

    def allows(name: str) -> bool:
        try:
            check(name, posterior)
        except InputError:
            return False
        return name != "gibbs" or posterior.data.size <= FEW

    return [name for name in ("map", "cavi", "svi", "nuts", "gibbs") if allows(name)]


def check(name: str, posterior: Posterior) -> None:
    """Raise `InputError` where a method cannot take this model or these data, before anything runs."""
    if name in CHECKS:
        CHECKS[name](posterior)
