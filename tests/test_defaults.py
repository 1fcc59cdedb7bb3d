"""What a model believes and does when nobody says otherwise: the prior, the truncation, and data as people have them."""

import jax.numpy as jnp
import numpy as np
import pytest

from dpgmm import Dataset, base_measure, conjugate, load_model
from dpgmm.base_measure import COVARIANCES


def gaussian(size, dim, seed=0):
    return Dataset(np.random.default_rng([seed, size, dim]).normal(size=(size, dim)))


def lead_of_one(data, base, tied=False):
    """Log evidence of one cluster less that of every point its own, weights of the partitions left out."""
    one = conjugate.log_posterior(jnp.ones((data.size, 1)), jnp.asarray(data.points), jnp.asarray(1.0), base, tied)
    counts, x = jnp.ones(data.size), jnp.asarray(data.points) - base.mean
    statistics = counts, x, conjugate.product(x, x, base)
    of_each = conjugate.log_evidence(*statistics, base) if tied else conjugate.log_marginal(*statistics, base).sum()
    each = conjugate.log_partition(counts, jnp.asarray(1.0)) + of_each
    return float(one - each)


def test_one_dimension_is_as_it_was():
    """A quarter of the data's standard deviation, four degrees of freedom, kappa 1/16, in every type."""
    data = Dataset(np.random.default_rng(0).normal(3.0, 2.0, size=30))
    for covariance in COVARIANCES:
        base = base_measure.scaled_to(data, covariance=covariance)
        assert (float(base.kappa), float(base.df)) == (0.0625, 4.0)
        np.testing.assert_allclose(base.scale_tril, np.sqrt(2) * 0.25 * data.points.std(), rtol=1e-12)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("dim", [2, 5, 10])
def test_a_component_has_a_quarter_of_the_volume(covariance, dim):
    """sqrt |E[Sigma]| is a quarter of the product of standard deviations, where those are equal."""
    points = np.random.default_rng(1).normal(size=(50, dim))
    data = Dataset((points - points.mean(0)) / points.std(0) * 7)
    base = base_measure.scaled_to(data, covariance=covariance)
    size = base.scale_tril.shape[-1]
    sds = jnp.broadcast_to(jnp.diagonal(base.scale_tril, axis1=-2, axis2=-1).ravel(), (dim,))
    np.testing.assert_allclose(jnp.prod(sds / jnp.sqrt(base.df - size - 1)), 7.0**dim / 4, rtol=1e-10)
    assert float(base.df) == 2 * (size + 1)


@pytest.mark.parametrize("scale", [0.05, 0.25, 2.0])
def test_means_reach_all_data(scale):
    """The means' standard deviation is the data's or more, and ten of a component's or more."""
    base = base_measure.scaled_to(gaussian(50, 3), component_scale=scale)
    spread = scale / float(base.kappa) ** 0.5
    assert spread >= 1 - 1e-12
    assert spread >= 10 * scale * (1 - 1e-12)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize(("size", "dim"), [(20, 1), (20, 5), (20, 10), (20, 20), (100, 20)])
def test_one_gaussian_is_one_cluster_rather_than_many(size, dim, covariance):
    for seed in range(3):
        data = gaussian(size, dim, seed)
        base = base_measure.scaled_to(data, covariance=covariance)
        assert lead_of_one(data, base, covariance == "tied") > 10


def test_a_quarter_of_every_standard_deviation_breaks_one_gaussian_up():
    """What the default of many dimensions must not be: the prior that is right for one."""
    data = gaussian(20, 10)
    assert lead_of_one(data, base_measure.scaled_to(data, 0.25, df=13.0, kappa=0.0625)) < -100


@pytest.mark.parametrize("model", ["stick_breaking", "symmetric_dirichlet"])
def test_options_record_the_prior_in_numbers(model):
    """From these numbers a report rebuilds the base measure."""
    data = gaussian(30, 3)
    posterior = load_model(model)(data, truncation=5)
    fixed = (posterior.options[name] for name in ("component_scale", "df", "kappa", "covariance"))
    assert posterior.conjugate is not None
    for given, rebuilt in zip(posterior.conjugate.base, base_measure.scaled_to(data, *fixed), strict=True):
        np.testing.assert_array_equal(given, rebuilt)
