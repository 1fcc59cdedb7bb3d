"""The conjugate prior that draws were made under, by value: two models of one name need not be one model."""

import json
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from ..densities.concentration import Concentration
from ..densities.gaussian import BaseMeasure
from ..model.posterior import Conjugate, Hyperprior

NONE = "null"


def serialised(prior: Conjugate | None) -> str:
    """The prior as JSON; `NONE` for a model that states none."""
    if prior is None:
        return NONE
    listed = lambda fields: {name: np.asarray(value).tolist() for name, value in fields.items()}
    factors = np.asarray(prior.base.scale_tril)
    diagonals = np.diagonal(factors, axis1=-2, axis2=-1)
    # A file's attributes are small, and factors in many dimensions are not; most are diagonal.
    alone = np.array_equal(factors, _diagonal(diagonals))
    return json.dumps(
        {
            "base": listed(prior.base._asdict() | {"scale_tril": diagonals if alone else factors}),
            "concentration": _of_concentration(prior.concentration),
            "weights": prior.weights,
            "hyperprior": None if prior.hyperprior is None else listed(prior.hyperprior._asdict()),
            "covariance": prior.covariance,
        }
    )


def of(draws: xr.DataTree) -> Conjugate | None:
    """The prior that draws record, inverse of `serialised`; None where they record none, as draws from elsewhere."""
    told = json.loads(draws.attrs.get("prior", NONE))
    if told is None:
        return None
    of_base: dict[str, Any] = {name: np.asarray(value, float) for name, value in told["base"].items()}
    if of_base["scale_tril"].ndim == 2:
        of_base["scale_tril"] = _diagonal(of_base["scale_tril"])
    base = BaseMeasure(**of_base)
    hyperprior = None if told["hyperprior"] is None else Hyperprior(**told["hyperprior"])
    known = told["concentration"]
    concentration = Concentration(**known) if isinstance(known, dict) else known
    return Conjugate(base, concentration, told["weights"], hyperprior, told["covariance"])


def _of_concentration(prior: Concentration | float) -> dict[str, float] | float:
    """Shape and rate, or the value where it is fixed."""
    return (
        {name: float(value) for name, value in prior._asdict().items()} if isinstance(prior, Concentration) else prior
    )


def _diagonal(rows: Float[np.ndarray, "*B d"]) -> Float[np.ndarray, "*B d d"]:
    """Diagonal matrices ``(..., d, d)`` of their diagonals ``(..., d)``."""
    return rows[..., None] * np.eye(rows.shape[-1])
