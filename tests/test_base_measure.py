"""The base measure scaled to data, against the formulas of its docstring, for every type of covariance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpgmm.data import Dataset
from dpgmm.densities import base_measure
from dpgmm.densities.base_measure import COVARIANCES

pytestmark = pytest.mark.quick("densities")

DIMS = 1, 3


def data(dim):
    rng = np.random.default_rng(dim)
    return Dataset(rng.normal(size=(40, dim)) * np.array([1.0, 5.0, 0.2])[:dim] + 3.0)


def typical(dim, covariance, scale):
    """``E[Sigma]`` as it should be, block by block: ``(B, d, d)``."""
    variances = (scale * np.asarray(data(dim).points).std(axis=0)) ** 2
    if covariance in ("full", "tied"):
        return np.diag(variances)[None]
    return (variances if covariance == "diagonal" else variances.mean(keepdims=True))[:, None, None]


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize(("scale", "df"), [(0.3, 9.0), (None, None)])
def test_the_mean_covariance_is_a_typical_components(covariance, dim, scale, df):
    """``E[Sigma] = Psi / (df - d - 1)`` of an inverse Wishart of blocks of size d."""
    base = base_measure.scaled_to(data(dim), scale, df, covariance=covariance)
    tril, size = np.asarray(base.scale_tril), base.scale_tril.shape[-1]
    assert size == (dim if covariance in ("full", "tied") else 1)
    assert float(base.df) == (2 * (size + 1) if df is None else df)
    mean = tril @ np.swapaxes(tril, -1, -2) / (float(base.df) - size - 1)
    np.testing.assert_allclose(mean, typical(dim, covariance, 4 ** (-1 / dim) if scale is None else scale), rtol=1e-12)
    of_sd = base_measure.with_component_sd(base, 0.7)
    psi = np.asarray(of_sd.scale_tril @ jnp.swapaxes(of_sd.scale_tril, -1, -2))
    np.testing.assert_allclose(psi / (float(base.df) - size - 1), np.broadcast_to(0.49 * np.eye(size), psi.shape))


@pytest.mark.parametrize(
    ("dim", "scale", "kappa"),
    [(1, None, 1 / 16), (1, 0.5, 0.25), (3, None, 0.01), (3, 0.5, 0.01), (3, 0.05, 0.0025)],
)
def test_kappa_is_the_square_of_the_scale_where_that_is_the_rule(dim, scale, kappa):
    assert float(base_measure.scaled_to(data(dim), scale).kappa) == pytest.approx(kappa, rel=1e-12)
    assert float(base_measure.scaled_to(data(dim), scale, kappa=0.3).kappa) == 0.3


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_coordinates_and_starts_are_in_units_of_a_typical_component(covariance):
    """A typical component has coordinates nought, and log sds of starts have mean nought and sd 0.3 about it."""
    points, count = data(3), 5_000
    base = base_measure.scaled_to(points, covariance=covariance)
    maps = base_measure.transforms_of(base, points, covariance)
    size = base.scale_tril.shape[-1]
    blocks = base.scale_tril / np.sqrt(float(base.df) - size - 1)
    factor = base_measure.in_smallest_form(blocks, covariance)
    np.testing.assert_allclose(maps["scale_trils"].unconstrain(factor, {}), 0, atol=1e-12)
    np.testing.assert_allclose(maps["means"].unconstrain(base.mean + points.scale, {}), 1, rtol=1e-12)
    draw = jax.jit(jax.vmap(lambda key: base_measure.initial(key, base, points, 1, covariance)["scale_trils"]))
    starts = np.asarray(base_measure.in_blocks(draw(jax.random.split(jax.random.PRNGKey(0), count))[:, 0], covariance))
    logs = np.log(np.diagonal(starts, axis1=-2, axis2=-1) / np.diagonal(np.asarray(blocks), axis1=-2, axis2=-1))
    assert np.abs(logs.mean(axis=0)).max() < 4 * 0.3 / np.sqrt(count)
    assert np.abs(logs.std(axis=0) - 0.3).max() < 4 * 0.3 / np.sqrt(2 * count)
