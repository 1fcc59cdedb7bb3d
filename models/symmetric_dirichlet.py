"""Finite Gaussian mixture with symmetric Dirichlet(a / K) weights: labels exactly exchangeable.

    concentration a ~ Gamma(shape, rate)
    weights       w ~ Dirichlet(a / K, .., a / K)
    components    Sigma_k ~ InverseWishart(df, Psi),  mu_k | Sigma_k ~ N(m, Sigma_k / kappa)

It tends to the Dirichlet-process mixture as K grows (Ishwaran & Zarepour 2002). The weights are carried as logs of K
independent Gamma(a / K, 1) masses, ``w = softmax(log_masses)``: weights near zero keep their digits, and permuting the
labels permutes the arrays and changes nothing else. The total mass, Gamma(a, 1), is not identified by the data.
Defaults as in models/stick_breaking.py.
Sites: ``concentration ()``, ``log_masses (K,)``, ``means (K, D)``, ``scale_trils (K, D, D)``, or smaller: `covariance` is
full, diagonal, tied or spherical (`dpgmm.base_measure`).
"""

import jax
import jax.numpy as jnp
import numpyro
from jax import Array, random
from jaxtyping import Float

from dpgmm.data import Dataset
from dpgmm.densities import base_measure, sticks, transforms
from dpgmm.densities.concentration import Concentration
from dpgmm.densities.distributions import LogGammas
from dpgmm.model.posterior import Conjugate, Mixture, Parameters, Posterior, check_options


def posterior(
    data: Dataset,
    *,
    truncation: int | None = None,
    shape: float = 1.0,
    rate: float | None = None,
    component_scale: float | None = None,
    df: float | None = None,
    kappa: float | None = None,
    covariance: str = "full",
) -> Posterior:
    """Posterior of the model bound to data.

    Options:
        `truncation`: number of components K; by default 20 to 50, by the number of points and the prior.
        `shape`: of the concentration's Gamma prior.
        `rate`: of the concentration's Gamma prior; by default log N, at least 1.
        `component_scale`: a typical component's standard deviation over the data's; by default 4^(-1/D).
        `df`: degrees of freedom of the inverse Wishart; by default 2 (D + 1), or 4 without entries off the diagonal.
        `kappa`: precision of a mean relative to its component; by default component_scale^2, at most 0.01 if D > 1.
        `covariance`: full, diagonal, tied or spherical.

    Raises `InputError` for options out of range.
    """
    rate = sticks.default_rate(data.total_weight) if rate is None else rate
    check_options(truncation, shape=shape, rate=rate)
    truncation = sticks.default_truncation(data.total_weight, shape, rate) if truncation is None else truncation
    prior = Concentration(shape, rate)
    component_scale = base_measure.default_component_scale(data.dim) if component_scale is None else component_scale
    base = base_measure.scaled_to(data, component_scale, df, kappa, covariance)

    def log_prior(p: Parameters) -> Float[Array, ""]:
        of_concentration = prior.log_density(p["concentration"])
        of_masses = LogGammas(p["concentration"] / truncation, truncation).log_prob(p["log_masses"])
        return of_concentration + of_masses + base_measure.log_prior(p, base, covariance)

    def mixture(p: Parameters) -> Mixture:
        return Mixture(jax.nn.log_softmax(p["log_masses"]), p["means"], p["scale_trils"])

    def prior_program() -> Mixture:
        concentration = prior.program()
        log_masses = numpyro.sample("log_masses", LogGammas(concentration / truncation, truncation))
        return Mixture(jax.nn.log_softmax(log_masses), *base_measure.program(base, truncation, covariance))

    def initial(key: Array) -> Parameters:
        key_masses, key_components = random.split(key)
        log_masses = LogGammas(jnp.asarray(1.0), truncation).sample(key_masses)
        components = base_measure.initial(key_components, base, data, truncation, covariance)
        return {"concentration": prior.mean, "log_masses": log_masses, **components}

    return Posterior(
        name="symmetric_dirichlet",
        data=data,
        options={
            "truncation": truncation,
            "shape": shape,
            "rate": rate,
            "component_scale": component_scale,
            "df": float(base.df),
            "kappa": float(base.kappa),
            "covariance": covariance,
        },
        log_prior=log_prior,
        mixture=mixture,
        prior_program=prior_program,
        transforms={
            "concentration": transforms.positive(),
            "log_masses": transforms.real(),
            **base_measure.transforms_of(base, data, covariance),
        },
        initial=initial,
        conjugate=Conjugate(base, prior, "dirichlet", covariance=covariance),
    )
