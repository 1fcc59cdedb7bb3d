"""What a model believes and does when nobody says otherwise: the prior, the truncation, and data as people have them."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import dpgmm
from dpgmm import Dataset, InputError, draws, exact, load_model
from dpgmm.densities import base_measure, conjugate, sticks
from dpgmm.densities.base_measure import COVARIANCES, is_tied
from dpgmm.densities.concentration import Concentration
from dpgmm.diagnostics import intervals
from dpgmm.methods import _clusters as clusters
from dpgmm.model.loading import load


def gaussian(size, dim, seed=0):
    return Dataset(np.random.default_rng([seed, size, dim]).normal(size=(size, dim)))


def lead_of_one(data, base, *, tied=False):
    """Log evidence of one cluster less that of every point its own, weights of the partitions left out."""
    return float(_lead_of_one(jnp.asarray(data.points), jax.tree.map(jnp.asarray, base), tied))


@partial(jax.jit, static_argnames="tied")
def _lead_of_one(points, base, tied):
    one = conjugate.log_posterior(jnp.ones((len(points), 1)), points, jnp.asarray(1.0), base, tied=tied)
    counts, x = jnp.ones(len(points)), points - base.mean
    statistics = counts, x, conjugate.product(x, x, base)
    of_each = conjugate.log_evidence(*statistics, base) if tied else conjugate.log_marginal(*statistics, base).sum()
    each = conjugate.log_partition(counts, jnp.asarray(1.0)) + of_each
    return one - each


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
        assert lead_of_one(data, base, tied=covariance == "tied") > 10


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


# The study that the default was chosen by.

DEFAULTS = load("defaults", "comparisons")


@partial(jax.jit, static_argnames="tied")
def _evidence(members, points, base, tied):
    log_joint = conjugate.log_posterior(members, points, jnp.asarray(2.0), base, tied=tied)
    return log_joint - conjugate.log_partition(members.sum(0), jnp.asarray(2.0))


@pytest.mark.parametrize("prior", DEFAULTS.PRIORS)
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_evidence_of_the_study_is_that_of_the_package(prior, covariance):
    points, labels = DEFAULTS.simulated("two", 9, 3, 0)
    base = DEFAULTS.PRIORS[prior](Dataset(points), covariance)
    base = base._replace(**{name: jnp.asarray(leaf, float) for name, leaf in base._asdict().items()})
    evidence = DEFAULTS.Evidence(points, base, tied=is_tied(covariance))

    # An empty cluster counts for nothing: every partition has three.
    wanted = lambda z: float(_evidence(jnp.asarray(np.eye(3)[z]), jnp.asarray(points), base, tied=is_tied(covariance)))
    np.testing.assert_allclose(evidence.of(labels), wanted(labels), rtol=1e-9)
    alone = evidence.with_one_alone(labels, np.array([0, 3]))
    changed = [np.where(np.arange(9) == i, 2, labels) for i in (0, 3)]
    np.testing.assert_allclose(alone, [wanted(z) for z in changed], rtol=1e-9)


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_sampler_of_the_study_is_exact(covariance):
    """Six points, all partitions enumerated: the mean number of clusters, within four batch-means errors."""
    data = Dataset(DEFAULTS.simulated("two", 6, 1, 1).points)
    posterior = load_model("stick_breaking")(data, covariance=covariance)
    evidence = DEFAULTS.Evidence(data.points, posterior.conjugate.base, tied=is_tied(covariance))
    log_number = DEFAULTS.log_prior_of_number(6)
    of_chains = [DEFAULTS.sampled(evidence, np.zeros(6, int), log_number, 1_000, seed) for seed in range(2)]
    found = intervals.batch_means(np.stack(of_chains).astype(float))
    wanted = exact.partitions(posterior).num_clusters @ np.arange(7)
    assert abs(found.value - wanted) < 4 * found.error


# Truncation.


@pytest.mark.parametrize(("shape", "rate"), [(1.0, 4.4), (2.0, 4.0), (5.0, 1.0)])
def test_bound_in_closed_form(shape, rate):
    for k in (1, 5, 30):
        wanted = exact.ishwaran_james_bound(82, k, Concentration(shape, rate))
        np.testing.assert_allclose(sticks.mean_bound(82, k, shape, rate), wanted, rtol=1e-6)


def test_default_truncation_is_the_first_that_is_enough():
    assert sticks.default_truncation(82, 1.0, np.log(82)) == 20  # The floor.
    assert sticks.default_truncation(1_000, 30.0, 1.0) == 50  # The cap.
    k = sticks.default_truncation(100, 2.0, 2.2)
    assert 20 < k < 50
    assert sticks.mean_bound(100, k, 2.0, 2.2) <= 0.01 < sticks.mean_bound(100, k - 1, 2.0, 2.2)
    assert sticks.default_truncation(1, 1e5, 1.0) == 50  # Beyond floating point.


@pytest.mark.quick("model")
@pytest.mark.parametrize("model", ["stick_breaking", "symmetric_dirichlet", "escobar_west"])
def test_models_record_the_truncation_they_chose(model):
    chosen = load_model(model)(gaussian(82, 1)).options["truncation"]
    assert isinstance(chosen, int)
    assert chosen == 20
    assert load_model(model)(gaussian(82, 1), truncation=7).options["truncation"] == 7


@pytest.mark.quick("model")
def test_a_users_model_without_a_default_gets_ours(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from dpgmm import load_model\n"
        "def posterior(data, *, truncation):\n    return load_model('stick_breaking')(data, truncation=truncation)\n"
    )
    assert load_model(path)(gaussian(30, 1)).options["truncation"] == 20


# One component: one Gaussian.

ONE = gaussian(12, 2, 3)
SHORT = {
    "map": {"restarts": 2, "steps": 60, "snapshots": 2},
    "svi": {"restarts": 2, "max_steps": 500, "draws_per_restart": 40},
    "blocked_gibbs": {"chains": 2, "warmup": 10, "draws_per_chain": 40},
    "gibbs": {"chains": 2, "warmup": 10, "draws_per_chain": 40, "split_merges": 0},
}


@cache
def one_component(model):
    """One posterior a model, so that fits of one method share their programs."""
    return load_model(model)(ONE, truncation=1)


def moments(posterior):
    """Exact posterior means of mean and covariance of one Gaussian, and variances of the mean."""
    base, points = posterior.conjugate.base, posterior.data.points
    seen = lambda x: clusters.statistics(x - base.mean, jnp.zeros(len(x), int), 1, base)
    after = jax.device_get(jax.jit(lambda x: conjugate.update(*seen(x), base))(points))
    psi = after.scale_tril[0, 0] @ after.scale_tril[0, 0].T
    covariance = psi / (after.df[0] - points.shape[1] - 1)
    return after.mean[0], covariance, np.diag(covariance) / after.kappa[0]


NUTS = {"chains": 2, "warmup": 300, "draws_per_chain": 1_500, "thin": 2}
SWEEPS = {"chains": 2, "warmup": 20, "draws_per_chain": 1_500, "split_merges": 0, "pair_moves": 0}
"""Without moves, which change nothing of one component; `test_one_component_goes_all_the_way` has them."""


def in_errors(values, wanted):
    found = intervals.batch_means(values)
    return abs(found.value - float(wanted)) / found.error


@pytest.mark.parametrize(
    ("model", "method", "options"),
    [
        ("stick_breaking", "nuts", NUTS | {"moves": "swaps"}),
        pytest.param("stick_breaking", "nuts", NUTS, marks=pytest.mark.long),
        pytest.param(
            "symmetric_dirichlet",
            "nuts",
            NUTS,
            marks=pytest.mark.slow,
        ),
        ("stick_breaking", "blocked_gibbs", SWEEPS),
        ("symmetric_dirichlet", "blocked_gibbs", SWEEPS),
    ],
)
def test_one_component_is_one_gaussian(model, method, options):
    posterior = one_component(model)
    found = dpgmm.fit(posterior, method, **options)["posterior"].to_dataset()
    mean, covariance, variance = moments(posterior)
    means, covariances = found["means"].values[:, :, 0], draws.covariances(found)[:, :, 0]
    for d in range(2):
        assert in_errors(means[..., d], mean[d]) < 4.5
        assert in_errors((means[..., d] - float(mean[d])) ** 2, variance[d]) < 4.5
        assert in_errors(covariances[..., d, 0], covariance[d, 0]) < 4.5
    np.testing.assert_array_equal(found["weights"], 1.0)
    prior = posterior.conjugate.concentration
    assert in_errors(found["concentration"].values, prior.shape / prior.rate) < 4.5


@pytest.mark.parametrize("method", [pytest.param(m, marks=pytest.mark.slow if m == "svi" else ()) for m in SHORT])
def test_one_component_goes_all_the_way(method, tmp_path):
    """Fitted, saved, loaded, diagnosed."""
    tree = dpgmm.fit(one_component("stick_breaking"), method, **SHORT[method])
    if method != "gibbs":  # Which samples the process without a truncation.
        assert tree["posterior"].sizes["component"] == 1
    loaded = draws.load(draws.save(tree, tmp_path / "one.nc"))
    xr.testing.assert_equal(tree["posterior"].to_dataset(), loaded["posterior"].to_dataset())
    assert dpgmm.diagnose(loaded).verdict


# Data as people have them.

ATOM = np.concatenate([np.random.default_rng(5).normal(size=100), np.full(10, 10.0)])
SCALES = np.random.default_rng(6).normal(size=(30, 3)) * [1e-6, 1.0, 1e6] + [0, 5, 1e7]
DATA = {
    "atom": ATOM,
    "atom, rows ten times": np.repeat(ATOM, 10),
    "outlier": np.append(np.random.default_rng(7).normal(size=50), 1e6),
    "one point": np.array([3.0]),
    "two points": np.array([3.0, 4.0]),
    "two points in the plane": np.array([[3.0, 1.0], [4.0, 1.5]]),
    "three equal points": np.full((3, 2), 2.5),
    "unequal scales": SCALES,
    "integers": np.random.default_rng(8).integers(0, 4, size=(60, 2)),
}


def density_and_gradient(posterior, dtype):
    """At a dispersed start, in one program."""

    @jax.jit
    def found(key):
        u = posterior.unconstrain(posterior.initial(key))
        return jax.value_and_grad(posterior.log_density)(jax.tree.map(lambda x: jnp.asarray(x + 0.3, dtype), u))

    return jax.device_get(found(jax.random.PRNGKey(1)))


@pytest.mark.parametrize("name", DATA)
def test_densities_are_finite(name):
    """Value and gradient of the default posterior at a dispersed start, in both precisions."""
    for dtype in (jnp.float64, jnp.float32):
        with jax.enable_x64(dtype == jnp.float64):
            posterior = load_model("stick_breaking")(Dataset(DATA[name]), truncation=4)
            value, gradient = density_and_gradient(posterior, dtype)
            assert value.dtype == dtype
            assert np.isfinite(value)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_an_atom_is_a_cluster():
    """Two clusters, by hundreds of nats over one and by more than the prior's odds over the ten values apart."""
    posterior = load_model("stick_breaking")(Dataset(ATOM))
    evidence = DEFAULTS.Evidence(posterior.data.points, posterior.conjugate.base, tied=False)
    two = np.repeat([0, 1], [100, 10])
    assert evidence.of(two) - evidence.of(np.zeros(110, int)) > 50
    assert evidence.of(two) - evidence.of(np.repeat([0, 1, 2], [100, 5, 5])) > 0


def test_scales_of_columns_change_nothing_but_units():
    """Six orders of magnitude either way: the evidence of two clusters over one is what it is for standardised columns."""
    labels = np.arange(30) % 2
    standard = (SCALES - SCALES.mean(0)) / SCALES.std(0)

    def lead(points):
        base = base_measure.scaled_to(Dataset(points))
        evidence = DEFAULTS.Evidence(points, base, tied=False)
        return evidence.of(labels) - evidence.of(np.zeros(30, int))

    np.testing.assert_allclose(lead(SCALES), lead(standard), rtol=1e-6)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_twenty_rows_of_ten_columns_are_one_cluster(covariance):
    """Of one Gaussian, under the default prior: exact evidence over candidates, and a sampler that may leave one cluster.

    From twenty clusters a sampler that moves point by point may take long to merge the last two: its end says nothing.
    """
    data = DEFAULTS.simulated("one", 20, 10, 1)
    base = base_measure.scaled_to(Dataset(data.points), covariance=covariance)
    evidence, log_number = (
        DEFAULTS.Evidence(data.points, base, tied=is_tied(covariance)),
        DEFAULTS.log_prior_of_number(20),
    )
    assert DEFAULTS.probability_of_number(evidence, DEFAULTS.candidates(data), log_number)[1] > 0.7
    assert (DEFAULTS.sampled(evidence, np.zeros(20, int), log_number, 50, 0) == 1).mean() > 0.7


def test_the_former_default_breaks_them_up():
    data = gaussian(20, 10, 1)
    evidence = DEFAULTS.Evidence(data.points, base_measure.scaled_to(data, 0.25, 13.0, 0.0625), tied=False)
    assert DEFAULTS.sampled(evidence, np.zeros(20, int), DEFAULTS.log_prior_of_number(20), 20, 0).mean() > 10


@pytest.mark.quick("model")
def test_truncation_of_none_is_refused():
    with pytest.raises(InputError, match="truncation = 0"):
        load_model("stick_breaking")(ONE, truncation=0)
