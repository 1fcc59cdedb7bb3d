"""Draws name their prior by value, and are read by it, whatever their model is called."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dpgmm
from dpgmm.densities import base_measure, conjugate
from dpgmm.diagnostics import reference_points
from dpgmm.draws import allocations, prior
from dpgmm.draws.components import Components

POINTS = np.linspace(0.0, 9.0, 12).reshape(6, 2) ** 1.5


def posterior_of(model="stick_breaking", **options):
    return dpgmm.load_model(model)(POINTS, truncation=3, **options)


def drawn(posterior, length=8):
    """Draws of the prior, as if they were of the posterior: (chain 1, draw)."""
    keys = jax.random.split(jax.random.PRNGKey(3), (1, length))
    parameters = jax.jit(jax.vmap(jax.vmap(posterior.initial)))(keys)
    return dpgmm.draws.build(posterior, parameters)


@pytest.mark.parametrize("covariance", base_measure.COVARIANCES)
@pytest.mark.parametrize("model", ["stick_breaking", "symmetric_dirichlet", "escobar_west"])
def test_a_prior_is_read_as_it_was_written(model, covariance):
    wanted = posterior_of(model, covariance=covariance).conjugate
    found = prior.of(xr.DataTree(xr.Dataset(attrs={"prior": prior.serialised(wanted)})))
    assert found is not None
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_a_full_factor_is_read_as_it_was_written():
    wanted, factor = posterior_of().conjugate, np.array([[[1.0, 0.0], [0.3, 2.0]]])
    wanted = wanted._replace(base=wanted.base._replace(scale_tril=factor))
    found = prior.of(xr.DataTree(xr.Dataset(attrs={"prior": prior.serialised(wanted)})))
    np.testing.assert_array_equal(found.base.scale_tril, factor)


def log_partition(tree):
    return reference_points.read(tree).log_partition


def test_a_model_is_known_by_its_prior_and_not_by_its_name():
    """A copy under another name gets the same row, and another prior under our name gets its own."""
    ours, other = posterior_of(), posterior_of(component_scale=0.1, kappa=1.0)
    copied = drawn(dataclasses.replace(ours, name="a copy"))
    np.testing.assert_array_equal(log_partition(copied), log_partition(drawn(ours)))
    tree, base = drawn(other), other.conjugate.base
    found = reference_points.read(tree)
    points = jnp.asarray(POINTS[found.positions])
    flat = Components.of(tree["posterior"].to_dataset()).sorted().flatten()
    labels = np.argmax(allocations.probabilities(*flat, points), axis=-1)
    for z, a, value in zip(labels, tree["posterior"]["concentration"].values[0], found.log_partition[0], strict=True):
        one_hot = jax.nn.one_hot(z, 3, dtype=float)
        np.testing.assert_allclose(value, conjugate.log_posterior(one_hot, points, a, base, tied=False), rtol=1e-12)


def test_draws_without_a_prior_have_no_such_row():
    tree = drawn(posterior_of())
    del tree.attrs["prior"]
    assert prior.of(tree) is None
    assert log_partition(tree) is None
