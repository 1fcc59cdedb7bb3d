"""The base measure of every model: a normal-inverse-Wishart scaled to the data, with its NumPyro program and starts."""

import math

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array, random

from . import distributions, gaussian, transforms
from .data import Dataset
from .errors import InputError
from .gaussian import BaseMeasure


def scaled_to(
    data: Dataset, component_scale: float = 0.25, df: float | None = None, kappa: float | None = None
) -> BaseMeasure:
    """Base measure whose typical component has `component_scale` times the data's standard deviation, per dimension.

    ``Psi = (df - D - 1) diag(component_scale * s)^2`` so that ``E[Sigma] = diag(component_scale * s)^2``; the means
    have the data's mean and, on average, the data's spread: ``kappa = component_scale^2``. ``df = D + 3`` by default,
    the smallest whole number at which covariances have a finite variance plus one. Shifting and scaling the data
    shifts and scales this prior and nothing else. Raises `InputError` for options outside their range.
    """
    df = data.dim + 3.0 if df is None else df
    kappa = component_scale**2 if kappa is None else kappa
    checks = {
        "component_scale": (component_scale, 0),
        "kappa": (kappa, 0),
        "df": (df, data.dim + 1),
    }
    for name, (value, bound) in checks.items():
        if not (math.isfinite(value) and value > bound):
            raise InputError(f"model option {name} = {value}: it must be a number above {bound}")
    spread = component_scale * jnp.asarray(data.scale)
    return BaseMeasure(
        mean=jnp.asarray(data.mean),
        kappa=jnp.asarray(kappa),
        df=jnp.asarray(df),
        scale_tril=math.sqrt(df - data.dim - 1) * jnp.diag(spread),
    )


def log_prior(parameters: dict[str, Array], base: BaseMeasure) -> Array:
    """Log density of all components' means and Cholesky factors, ``()``."""
    return jnp.sum(gaussian.log_base_measure(parameters["means"], parameters["scale_trils"], base))


def program(base: BaseMeasure, num_components: int) -> tuple[Array, Array]:
    """The same prior as NumPyro sites ``means (K, D)`` and ``scale_trils (K, D, D)``, on NumPyro's own normal."""
    cholesky = distributions.InverseWishartCholesky(base.df, base.scale_tril)
    scale_trils = numpyro.sample("scale_trils", cholesky.expand([num_components]).to_event(1))
    normal = dist.MultivariateNormal(base.mean, scale_tril=scale_trils / jnp.sqrt(base.kappa))
    means = numpyro.sample("means", normal.to_event(1))
    return jnp.asarray(means), jnp.asarray(scale_trils)


def transforms_of(base: BaseMeasure, data: Dataset) -> dict[str, transforms.Transform]:
    """Coordinates: means in units of the data's spread about its mean, factors in units of a typical component's."""
    typical = gaussian.diagonal(base.scale_tril) / jnp.sqrt(base.df - data.dim - 1)
    return {
        "means": transforms.real(base.mean, jnp.asarray(data.scale)),
        "scale_trils": transforms.cholesky(typical),
    }


def initial(key: Array, base: BaseMeasure, data: Dataset, num_components: int) -> dict[str, Array]:
    """Dispersed start: means at random points of the data, factors about a typical component's size, log sd 0.3."""
    key_mean, key_scale = random.split(key)
    probability = jnp.asarray(data.weights / data.total_weight)
    rows = random.choice(key_mean, data.size, (num_components,), p=probability)
    typical = gaussian.diagonal(base.scale_tril) / jnp.sqrt(base.df - data.dim - 1)
    spread = typical * jnp.exp(0.3 * random.normal(key_scale, (num_components, data.dim)))
    return {"means": jnp.asarray(data.points)[rows], "scale_trils": spread[..., None] * jnp.eye(data.dim)}
