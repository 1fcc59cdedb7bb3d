"""Conditional distributions that a Gibbs sampler draws from, against what they are by quadrature and by arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from dpgmm import load_model
from dpgmm.data import Dataset
from dpgmm.densities import concentration
from dpgmm.densities.concentration import Concentration
from dpgmm.methods import blocked_gibbs

CHAINS = 20_000


def by_quadrature(prior, clusters, points, of):
    """Mean of a function of the concentration given a partition."""
    a, log_weights = concentration.nodes(prior, points)
    log_p = log_weights + clusters * np.log(a) - np.log(a[:, None] + np.arange(points)).sum(axis=1)
    p = np.exp(log_p - log_p.max())
    return p @ of(a) / p.sum()


@pytest.mark.parametrize(("clusters", "points"), [(1, 2), (3, 50)])
def test_the_concentration_given_a_partition_is_what_quadrature_says(clusters, points):
    """Chains long enough to forget where they began: a step leaves a correlation of 0.1."""
    prior = Concentration(0.5, 0.7)

    def chain(key):
        step = lambda i, a: concentration.given_clusters(random.fold_in(key, i), a, clusters, points, prior)
        return jax.lax.fori_loop(0, 8, step, jnp.asarray(1.0))

    found = np.asarray(jax.jit(jax.vmap(chain))(random.split(random.PRNGKey(0), CHAINS)))
    for of in (np.array, np.log, np.square):
        wanted, values = by_quadrature(prior, clusters, points, of), of(found)
        assert abs(values.mean() - wanted) < 4 * values.std() / np.sqrt(CHAINS)


def test_the_base_measure_learns_from_empty_components_too():
    """``kappa (rate + sum_k |mu_k - m|^2 / 2 sigma_k^2) ~ Gamma(shape + K/2, 1)``, over all K components."""
    p = load_model("escobar_west")(Dataset(np.array([9.0, 10.0, 20.0, 21.0, 30.0])), truncation=4, component_sd=1.0)
    prior, old = p.conjugate, jax.jit(p.initial)(random.PRNGKey(1))
    counts = np.array([3.0, 0.0, 0.0, 0.0])
    statistics = counts, 0.1 * counts[:, None], 2.0 * counts[:, None, None, None]

    @jax.jit
    def sites(keys, statistics, old):
        return jax.vmap(lambda key: blocked_gibbs._sites(key, statistics, old, prior))(keys)

    new = jax.device_get(sites(random.split(random.PRNGKey(2), CHAINS), statistics, old))
    away = (new["means"] - new["base_mean"][:, None])[..., 0] / new["scale_trils"][..., 0, 0]
    found = new["kappa"] * (prior.hyperprior.rate + 0.5 * np.sum(away**2, axis=1))
    assert abs(found.mean() - (prior.hyperprior.shape + 2)) < 4 * found.std() / np.sqrt(CHAINS)


@pytest.mark.quick("methods")
@pytest.mark.parametrize("width", [0.3, 1.0, 4.0])
def test_a_slice_leaves_its_density_alone_whatever_its_width(width):
    """A skewed density of log a with two modes, by quadrature: its width is a matter of speed, and no default to be kept."""
    log_density = lambda x: jnp.logaddexp(3.0 * x - jnp.exp(x), jnp.log(0.4) - 0.5 * ((x + 3) / 0.3) ** 2)
    grid = np.linspace(-30, 6, 40_001)
    p = np.exp(np.asarray(log_density(jnp.asarray(grid))))
    p /= p.sum()
    # Starts are exact, so that one step has to leave their distribution as it is.
    starts = np.random.default_rng(0).choice(grid, 50_000, p=p)
    step = jax.jit(jax.vmap(lambda key, x: concentration.slice_step(key, log_density, x, width)))
    found = np.asarray(step(random.split(random.PRNGKey(0), len(starts)), jnp.asarray(starts)))
    assert (found != starts).all()
    for of in (np.array, np.square, np.exp, lambda x: x < -1.5):
        # Paired: before and after, and each against quadrature.
        change, values = of(found) * 1.0 - of(starts), of(found) * 1.0
        assert abs(change.mean()) < 4 * change.std() / np.sqrt(len(starts))
        assert abs(values.mean() - p @ of(grid)) < 4 * values.std() / np.sqrt(len(starts))
