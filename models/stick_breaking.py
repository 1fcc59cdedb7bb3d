"""Truncated Dirichlet-process Gaussian mixture by stick breaking: the proper model, and the default everywhere.

    concentration a ~ Gamma(shape, rate)
    sticks        v_k ~ Beta(1, a), k < K, v_K = 1;  log w_k = log v_k + sum_{j<k} log(1 - v_j)
    components    Sigma_k ~ InverseWishart(df, Psi),  mu_k | Sigma_k ~ N(m, Sigma_k / kappa)
    points        x_n ~ sum_k w_k N(mu_k, Sigma_k)

Sites: ``concentration ()``, ``stick_logits (K - 1,)``, ``means (K, D)``, ``scale_trils (K, D, D)``. Sticks are carried as
logits and covariances as Cholesky factors; densities, and therefore modes, are with respect to those. `covariance` is
full, diagonal, tied or spherical: for priors and the shape of ``scale_trils`` see `dpgmm.base_measure`.
The default Gamma(1, log N) expects about one cluster beside the first, however many points there are: see
`dpgmm.sticks.default_rate`; Gamma(2, 4) is Escobar & West's (1995) for the galaxies. Those of the base measure are
documented in `dpgmm.base_measure.scaled_to`. Labels are NOT exchangeable: the prior prefers large weights early.
"""

import jax.numpy as jnp
import numpyro
from jax import Array, random
from jaxtyping import Float

from dpgmm.data import Dataset
from dpgmm.densities import base_measure, sticks, transforms
from dpgmm.densities.concentration import Concentration
from dpgmm.densities.distributions import StickLogits
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
        of_sticks = sticks.log_density_logits(p["stick_logits"], p["concentration"])
        return of_concentration + of_sticks + base_measure.log_prior(p, base, covariance)

    def mixture(p: Parameters) -> Mixture:
        return Mixture(sticks.log_weights(p["stick_logits"]), p["means"], p["scale_trils"])

    def prior_program() -> Mixture:
        concentration = prior.program()
        logits = jnp.asarray(numpyro.sample("stick_logits", StickLogits(concentration, truncation - 1)))
        return Mixture(sticks.log_weights(logits), *base_measure.program(base, truncation, covariance))

    def initial(key: Array) -> Parameters:
        key_sticks, key_components = random.split(key)
        concentration = prior.mean
        logits = StickLogits(concentration, truncation - 1).sample(key_sticks)
        components = base_measure.initial(key_components, base, data, truncation, covariance)
        return {"concentration": concentration, "stick_logits": logits, **components}

    return Posterior(
        name="stick_breaking",
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
            "stick_logits": transforms.stick_logits(),
            **base_measure.transforms_of(base, data, covariance),
        },
        initial=initial,
        conjugate=Conjugate(base, prior, "sticks", covariance=covariance),
    )
