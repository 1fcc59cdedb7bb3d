"""The base measure of every model: a normal-inverse-Wishart scaled to the data, with its NumPyro program and starts.

Site ``scale_trils`` holds the Cholesky factors of the covariances in the smallest form of their type:

- ``full``: ``(K, D, D)``, ``Sigma_k ~ InverseWishart(df, Psi)``;
- ``tied``: ``(1, D, D)``, one such covariance that all components share;
- ``diagonal``: ``(K, D)`` standard deviations, ``sigma_kd^2 ~ InverseGamma(df/2, Psi_d/2)``;
- ``spherical``: ``(K, 1)``, one standard deviation for all dimensions of a component, likewise.

In all of them ``mu_k | Sigma_k ~ N(m, Sigma_k / kappa)``.
"""

import math

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from jaxtyping import Float

from ..data import Dataset
from ..errors import InputError, above
from . import distributions, gaussian, transforms
from .gaussian import BaseMeasure

COVARIANCES = "full", "diagonal", "tied", "spherical"
COMPONENTS = 4.0
"""Components that fill the volume of the data, by default."""
STARTS = 2**17
"""Points of the data that starts are taken from, where there are more."""
KAPPA = 0.01
"""kappa of more than one dimension, by default: means spread ten times as far as a component."""


def scaled_to(
    data: Dataset,
    component_scale: float | None = None,
    df: float | None = None,
    kappa: float | None = None,
    covariance: str = "full",
) -> BaseMeasure:
    """Base measure whose typical component has `component_scale` times the data's standard deviation, per dimension.

    ``Psi = (df - d - 1) diag(component_scale * s)^2`` so that ``E[Sigma] = diag(component_scale * s)^2``, or its mean over
    dimensions for spherical covariances; the means have the data's mean. Blocks of covariances have size d, D or 1.
    By default:

    - ``component_scale = 4^(-1/D)``: a component has a quarter of the data's volume, whatever D. A quarter of their standard
      deviation in each of many dimensions would be a component so small that it costs nothing to be one's own cluster.
      Source: Fraley & Raftery (2007), section 3, with their G^(2/D), for variances, at G = 4.
    - ``df = 2 (d + 1)``: four for d = 1, and as far above d + 1, where E[Sigma] ceases to exist, as that is above zero. At
      d + 2 or d + 3 a covariance of many dimensions may be nearly singular, and a handful of points in fewer dimensions
      than they are have a cluster to themselves.
    - ``kappa = component_scale^2`` for D = 1, so that the means spread as far as the data, and 0.01 for more, Fraley &
      Raftery's, or ``component_scale^2`` where that is less: a cluster costs ``-D/2 log kappa``, and there are so many more
      ways to cut data of many dimensions in two that it must cost more.

    For D = 1 these are a quarter of the data's standard deviation, 4 and 1/16. They were chosen by comparisons/defaults.py.
    Shifting and scaling columns of the data shifts and scales this prior and nothing else. Raises `InputError` for options
    outside their range.
    """
    if covariance not in COVARIANCES:
        raise InputError(f"model option covariance = {covariance!r}: it must be one of {', '.join(COVARIANCES)}")
    size = data.dim if is_triangular(covariance) else 1
    component_scale = default_component_scale(data.dim) if component_scale is None else component_scale
    above(0, component_scale=component_scale)
    df = 2.0 * (size + 1) if df is None else df
    above(size + 1, df=df)
    kappa = component_scale**2 if kappa is None and data.dim == 1 else kappa
    kappa = min(KAPPA, component_scale**2) if kappa is None else kappa
    above(0, kappa=kappa)
    typical = component_scale * jnp.asarray(data.scale)
    return BaseMeasure(
        mean=jnp.asarray(data.mean),
        kappa=jnp.asarray(kappa),
        df=jnp.asarray(df),
        scale_tril=math.sqrt(df - size - 1) * _blocks(typical, covariance),
    )


def default_component_scale(dim: int) -> float:
    """``4^(-1/D)``, a quarter of the data's volume: 0.25 for D = 1."""
    return COMPONENTS ** (-1 / dim)


def with_component_sd(base: BaseMeasure, sd: float) -> BaseMeasure:
    """The same base measure with ``E[Sigma] = sd^2 I``."""
    size = base.scale_tril.shape[-1]
    return base._replace(
        scale_tril=jnp.sqrt(base.df - size - 1) * sd * jnp.broadcast_to(jnp.eye(size), base.scale_tril.shape)
    )


def is_triangular(covariance: str) -> bool:
    """Whether covariances of this type have entries off the diagonal."""
    return covariance in ("full", "tied")


def is_tied(covariance: str) -> bool:
    """Whether all components share one covariance."""
    return covariance == "tied"


def in_smallest_form(blocks: Float[Array, "*K B d d"], covariance: str) -> Float[Array, "..."]:
    """Factors in blocks, ``(..., B, d, d)``, as site ``scale_trils`` has them, with the same leading axes."""
    return blocks[..., 0, :, :] if is_triangular(covariance) else blocks[..., 0, 0]


def in_blocks(scale_trils: Float[Array, "..."], covariance: str) -> Float[Array, "*K B d d"]:
    """Inverse of `in_smallest_form`."""
    return scale_trils[..., None, :, :] if is_triangular(covariance) else scale_trils[..., None, None]


def log_prior(parameters: dict[str, Array], base: BaseMeasure, covariance: str) -> Float[Array, ""]:
    """Log density of all components' means and Cholesky factors, ``()``."""
    means, scale_trils = parameters["means"], parameters["scale_trils"]
    # A normal density is symmetric in point and mean; the factors stand beside the components' means.
    means_term = gaussian.log_density(base.mean, means, scale_trils / jnp.sqrt(base.kappa))
    factors_term = gaussian.log_inverse_wishart(in_blocks(scale_trils, covariance), base.df, base.scale_tril)
    return jnp.sum(means_term) + jnp.sum(factors_term)


def program(
    base: BaseMeasure, num_components: int, covariance: str
) -> tuple[Float[Array, "{num_components} D"], Float[Array, "..."]]:
    """The same prior as NumPyro sites ``means (K, D)`` and ``scale_trils``, on NumPyro's own normal and inverse gamma."""
    prior, count = in_smallest_form(base.scale_tril, covariance), 1 if is_tied(covariance) else num_components
    dim = base.mean.shape[-1]
    if is_triangular(covariance):
        factors = distributions.InverseWishartCholesky(base.df, prior).expand([count]).to_event(1)
        scale_trils = jnp.asarray(numpyro.sample("scale_trils", factors))
        normal = dist.MultivariateNormal(base.mean, scale_tril=scale_trils / jnp.sqrt(base.kappa))
        normal = normal.expand([num_components]).to_event(1)
    else:
        variances = dist.InverseGamma(base.df / 2, prior**2 / 2).expand([count, len(prior)])
        roots = dist.TransformedDistribution(variances, dist.transforms.PowerTransform(0.5))
        scale_trils = jnp.asarray(numpyro.sample("scale_trils", roots.to_event(2)))
        normal = dist.Normal(base.mean, scale_trils / jnp.sqrt(base.kappa)).expand([num_components, dim]).to_event(2)
    return jnp.asarray(numpyro.sample("means", normal)), scale_trils


def transforms_of(base: BaseMeasure, data: Dataset, covariance: str) -> dict[str, transforms.Transform]:
    """Coordinates: means in units of the data's spread about its mean, factors in units of a typical component's."""
    prior = in_smallest_form(base.scale_tril, covariance)
    scale = 1 / jnp.sqrt(base.df - base.scale_tril.shape[-1] - 1)
    factors = transforms.bartlett(prior, scale) if is_triangular(covariance) else transforms.positive(scale * prior)
    return {"means": transforms.real(base.mean, jnp.asarray(data.scale)), "scale_trils": factors}


def initial(key: Array, base: BaseMeasure, data: Dataset, num_components: int, covariance: str) -> dict[str, Array]:
    """Dispersed start: means at some of `STARTS` random points, factors about a typical component's size, log sd 0.3."""
    key_mean, key_scale = random.split(key)
    some = data.sample(STARTS)
    rows = random.choice(key_mean, some.size, (num_components,), p=jnp.asarray(some.weights / some.total_weight))
    count, (blocks, size, _) = 1 if is_tied(covariance) else num_components, base.scale_tril.shape
    spread = jnp.exp(0.3 * random.normal(key_scale, (count, blocks * size))).reshape(count, blocks, size)
    typical = gaussian.diagonal(base.scale_tril) / jnp.sqrt(base.df - size - 1)
    factors = (typical * spread)[..., None] * jnp.eye(size)
    return {"means": jnp.asarray(some.points)[rows], "scale_trils": in_smallest_form(factors, covariance)}


def _blocks(scales: Float[Array, " D"], covariance: str) -> Float[Array, "B d d"]:
    """Diagonal factors of standard deviations ``(D,)``, as blocks of a type: ``(B, d, d)``."""
    if is_triangular(covariance):
        return jnp.diag(scales)[None]
    return (scales if covariance == "diagonal" else jnp.sqrt(jnp.mean(scales**2, keepdims=True)))[:, None, None]
