"""Escobar & West's (1995) Dirichlet-process mixture, truncated: the base measure's mean and spread are learnt as well.

    concentration a ~ Gamma(shape, rate),  sticks as in models/stick_breaking.py
    base measure  m flat,  kappa ~ Gamma(kappa_shape, kappa_rate)          (the paper's tau is 1 / kappa)
    components    Sigma_k ~ InverseWishart(df, (df - D - 1) diag(component_sd)^2),  mu_k | Sigma_k ~ N(m, Sigma_k / kappa)
    points        x_n ~ sum_k w_k N(mu_k, Sigma_k)

For D = 1 and df = 4 the variances are InverseGamma(2, component_sd^2). The published analysis of the galaxies, in
1000 km/s, is ``component_sd = 1`` and otherwise the defaults: a ~ Gamma(2, 4), kappa ~ Gamma(1/2, 50). Where the data have
other units `component_sd` is best left alone: ``4^(-1/D)`` times the data's standard deviation, per dimension.
Richardson & Green (1997) is another model, with a finite and uniformly distributed number of components: its posterior of
that number is not comparable with the number of clusters here.

Sites: those of the stick-breaking model, with its four types of covariance, ``kappa ()`` and ``base_mean (D,)``. The flat
prior has density 1 per standard deviation of the data in every dimension: it is improper, the posterior is not.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from jax.scipy.stats import gamma
from jaxtyping import Float

from dpgmm.data import Dataset
from dpgmm.densities import base_measure, sticks, transforms
from dpgmm.densities.concentration import Concentration
from dpgmm.densities.distributions import StickLogits
from dpgmm.errors import above
from dpgmm.model.posterior import Conjugate, Hyperprior, Mixture, Parameters, Posterior, check_options


def posterior(
    data: Dataset,
    *,
    truncation: int | None = None,
    shape: float = 2.0,
    rate: float = 4.0,
    component_sd: float | None = None,
    df: float | None = None,
    kappa_shape: float = 0.5,
    kappa_rate: float = 50.0,
    covariance: str = "full",
) -> Posterior:
    """Posterior of the model bound to data.

    Options:
        `truncation`: number of components K; by default 20 to 50, by the number of points and the prior.
        `shape`: of the concentration's Gamma prior.
        `rate`: of the concentration's Gamma prior.
        `component_sd`: standard deviation of a typical component in data units, the same in every dimension.
        `df`: degrees of freedom of the inverse Wishart; by default 2 (D + 1), or 4 without entries off the diagonal.
        `kappa_shape`: of the Gamma prior of kappa, the precision of a mean relative to its component.
        `kappa_rate`: of the same.
        `covariance`: full, diagonal, tied or spherical.

    Raises `InputError` for options out of range.
    """
    check_options(truncation, shape=shape, rate=rate, kappa_shape=kappa_shape, kappa_rate=kappa_rate)
    truncation = sticks.default_truncation(data.total_weight, shape, rate) if truncation is None else truncation
    prior = Concentration(shape, rate)
    kappa = kappa_shape / kappa_rate
    base = base_measure.scaled_to(data, df=df, kappa=kappa, covariance=covariance)
    if component_sd is not None:
        above(0, component_sd=component_sd)
        base = base_measure.with_component_sd(base, component_sd)
    log_flat = -float(jnp.sum(jnp.log(jnp.asarray(data.scale))))

    def learnt(p):
        return base._replace(mean=p["base_mean"], kappa=p["kappa"])

    def log_prior(p: Parameters) -> Float[Array, ""]:
        of_concentration = prior.log_density(p["concentration"])
        of_sticks = sticks.log_density_logits(p["stick_logits"], p["concentration"])
        of_kappa = gamma.logpdf(p["kappa"], kappa_shape, scale=1 / kappa_rate)
        return of_concentration + of_sticks + of_kappa + log_flat + base_measure.log_prior(p, learnt(p), covariance)

    def mixture(p: Parameters) -> Mixture:
        return Mixture(sticks.log_weights(p["stick_logits"]), p["means"], p["scale_trils"])

    def prior_program() -> Mixture:
        concentration = prior.program()
        logits = jnp.asarray(numpyro.sample("stick_logits", StickLogits(concentration, truncation - 1)))
        kappa = numpyro.sample("kappa", dist.Gamma(kappa_shape, kappa_rate))
        flat = dist.ImproperUniform(dist.constraints.real_vector, (), (data.dim,))
        base_mean = numpyro.sample("base_mean", flat)
        numpyro.factor("flat", log_flat)
        hyper = {"kappa": kappa, "base_mean": base_mean}
        return Mixture(sticks.log_weights(logits), *base_measure.program(learnt(hyper), truncation, covariance))

    def initial(key: Array) -> Parameters:
        key_sticks, key_components = random.split(key)
        concentration = prior.mean
        logits = StickLogits(concentration, truncation - 1).sample(key_sticks)
        components = base_measure.initial(key_components, base, data, truncation, covariance)
        hyper = {"kappa": jnp.asarray(kappa), "base_mean": base.mean}
        return {"concentration": concentration, "stick_logits": logits, **hyper, **components}

    return Posterior(
        name="escobar_west",
        data=data,
        options={
            "truncation": truncation,
            "shape": shape,
            "rate": rate,
            "component_sd": component_sd,
            "df": float(base.df),
            "kappa_shape": kappa_shape,
            "kappa_rate": kappa_rate,
            "covariance": covariance,
        },
        log_prior=log_prior,
        mixture=mixture,
        prior_program=prior_program,
        transforms={
            "concentration": transforms.positive(),
            "stick_logits": transforms.stick_logits(),
            "kappa": transforms.positive(),
            "base_mean": transforms.real(base.mean, jnp.asarray(data.scale)),
            **base_measure.transforms_of(base, data, covariance),
        },
        initial=initial,
        conjugate=Conjugate(base, prior, "sticks", Hyperprior(kappa_shape, kappa_rate), covariance),
    )
