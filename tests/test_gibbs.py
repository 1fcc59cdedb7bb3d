"""Both Gibbs samplers against exact answers for few points, and planted bugs that the same comparison must catch."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_points import GALAXIES, PLANE, distance, in_errors, posterior
from jax import random

import dpgmm
from dpgmm import Dataset, InputError, exact, load_model
from dpgmm.densities import concentration, conjugate, mixture
from dpgmm.methods import _clusters as clusters
from dpgmm.methods import _collapsed, _split_merge, blocked_gibbs

SLOW = lambda values: pytest.param(*values, marks=pytest.mark.slow)
LONG = lambda values: pytest.param(*values, marks=pytest.mark.long)
CHAINS, SWEEPS, DISCARD, EVERY = 64, 2_000, 100, 40
FEW = 32
WIDE = {"component_scale": 0.5, "kappa": 0.25}
"""A prior under which no partition that counts, and no pair, is so rare that its standard error means nothing."""


def collapsed(p, split_merges=0, *, components=True, algorithm=3, chains=CHAINS):
    """Many chains side by side: labels ``(chains, sweeps, n)`` and the density under a thinned lot of components."""
    points, prior, slots = jnp.asarray(p.data.points), p.conjugate, p.data.size + 1

    def chain(key):
        key_start, key_run, key_draw = random.split(key, 3)
        start = _collapsed.start(key_start, points, prior, 3)

        def step(state, key):
            state = _collapsed.step(key, state, points, prior, slots, split_merges, algorithm)
            return state, state

        _, states = jax.lax.scan(step, start, random.split(key_run, SWEEPS))
        states = jax.tree.map(lambda leaf: leaf[DISCARD:], states)
        if not components:
            return states.labels, jnp.zeros(len(points))
        some = jax.tree.map(lambda leaf: leaf[::EVERY], states)
        draws = jax.vmap(lambda s: _collapsed.kept(s, points, prior, slots))(some)
        sites = jax.vmap(lambda k, d: _collapsed.parameters(k, d, prior))(
            random.split(key_draw, len(some.labels)), draws
        )
        return states.labels, density(p, sites)

    return side_by_side(chain, chains)


def side_by_side(chain, chains):
    """Optimised a little, unlike programs of other tests: they run for longer than they compile."""
    options = {"xla_backend_optimization_level": 1}
    return jax.jit(jax.vmap(chain), compiler_options=options)(random.split(random.PRNGKey(3), chains))


def density(p, sites):
    """Mean predictive density at the points, over one chain's draws."""
    of_draw = lambda s: jnp.exp(mixture.log_density(*p.mixture(s), points=jnp.asarray(p.data.points)))
    return jax.vmap(of_draw)(sites).mean(axis=0)


def blocked(p, sweeps=SWEEPS, discard=DISCARD, chains=CHAINS, split_merges=0, pair_moves=0):
    """The same for the blocked sampler, which forgets its start more slowly."""
    points, prior = jnp.asarray(p.data.points), p.conjugate

    def chain(key):
        key_start, key_run = random.split(key)
        start = blocked_gibbs.BlockedGibbsState(p.initial(key_start), jnp.zeros(p.data.size, int), jnp.zeros((), int))

        def step(state, key):
            state = blocked_gibbs.step(key, state, points, prior, p, split_merges, pair_moves)
            return state, state

        states = jax.lax.scan(step, start, random.split(key_run, sweeps))[1]
        states = jax.tree.map(lambda leaf: leaf[discard:], states)
        return states.labels, density(p, jax.tree.map(lambda leaf: leaf[::EVERY], states.parameters))

    return side_by_side(chain, chains)


def compare(labels, densities, truth):
    """`few_points.distance` of the number of clusters, and the largest deviations of everything in standard errors."""
    labels, n = np.asarray(labels), labels.shape[-1]
    counts = dpgmm.partitions.num_clusters(labels.reshape(-1, n)).reshape(labels.shape[:2])
    of_chain = np.stack([(counts == k).mean(axis=1) for k in range(n + 1)], axis=1)
    together = (labels[..., :, None] == labels[..., None, :]).mean(axis=1)
    deviations = {}
    for name, found, wanted in (
        ("clusters", of_chain, truth.num_clusters),
        ("similarity", together, truth.similarity),
        ("predictive", np.asarray(densities), truth.predictive),
    ):
        deviations[name] = in_errors(found, wanted)
    return distance(of_chain, truth.num_clusters), deviations


EVERY_COVARIANCE = [SLOW((PLANE, moves, c)) for c in ("diagonal", "tied", "spherical") for moves in (0, 2)]
COLLAPSED = [(GALAXIES, 2, "full"), SLOW((PLANE, 1, "tied")), SLOW((PLANE, 0, "full")), SLOW((GALAXIES, 0, "full"))]


@pytest.mark.parametrize(("points", "split_merges", "covariance"), COLLAPSED + EVERY_COVARIANCE)
def test_collapsed_gibbs_is_exact(points, split_merges, covariance):
    p = posterior(points, covariance=covariance)
    chains = FEW if points is GALAXIES and split_merges else CHAINS
    off, deviations = compare(*collapsed(p, split_merges, chains=chains), truth=exact.partitions(p))
    assert off <= 1
    assert max(deviations.values()) < 4


MANY = 8 * CHAINS
"""Chains for slow cases: pairs of points that are seldom together need many for their errors to be normal."""
NARROW = {"component_scale": 0.25, "kappa": 0.0625}
ALGORITHMS = [("full", 8, FEW, WIDE), *(SLOW((c, n, MANY, NARROW)) for c in ("full", "tied") for n in (2, 8))]


@pytest.mark.parametrize(("covariance", "algorithm", "chains", "priors"), ALGORITHMS)
def test_algorithms_with_parameters_are_exact(covariance, algorithm, chains, priors):
    p = posterior(PLANE, covariance=covariance, **priors)
    draws = collapsed(p, algorithm=algorithm, components=False, chains=chains)
    off, deviations = compare(*draws, truth=exact.partitions(p))
    assert off <= 1
    assert max(deviations["clusters"], deviations["similarity"]) < 4


BLOCKED = [
    LONG((GALAXIES, "stick_breaking", 4, "full", 2, FEW)),
    SLOW((GALAXIES, "stick_breaking", 4, "full", 0, CHAINS)),
    SLOW((PLANE, "symmetric_dirichlet", 3, "full", 2, MANY)),
    SLOW((PLANE, "symmetric_dirichlet", 3, "tied", 2, MANY)),
    SLOW((PLANE, "stick_breaking", 4, "diagonal", 2, MANY)),
    SLOW((PLANE, "stick_breaking", 4, "spherical", 2, MANY)),
]


@pytest.mark.parametrize(("points", "model", "truncation", "covariance", "split_merges", "chains"), BLOCKED)
def test_blocked_gibbs_is_exact_labels_included(points, model, truncation, covariance, split_merges, chains):
    p = posterior(points, model, truncation, covariance=covariance)
    truth = exact.allocations(p)
    labels, densities = blocked(p, 2 * SWEEPS, 500, chains, split_merges)
    off, deviations = compare(labels, densities, truth=truth.partitions)
    assert off <= 1
    assert max(deviations.values()) < 4
    assert deviations_of_labels(labels, truth) < 4


def test_blocked_gibbs_of_tied_components_is_exact():
    """Components overlap, so that chains are short: pairs of points are apart and together often."""
    p = posterior(PLANE, "symmetric_dirichlet", 3, covariance="tied", **WIDE)
    truth = exact.allocations(p)
    labels, densities = blocked(p, SWEEPS, 200)
    off, deviations = compare(labels, densities, truth=truth.partitions)
    assert off <= 1
    assert max(deviations.values()) < 4
    assert deviations_of_labels(labels, truth) < 4


WITH_PAIRS = [
    LONG((GALAXIES, "stick_breaking", 4, "full", FEW)),
    SLOW((PLANE, "symmetric_dirichlet", 3, "full", MANY)),
    SLOW((PLANE, "symmetric_dirichlet", 3, "tied", MANY)),
    SLOW((PLANE, "stick_breaking", 4, "diagonal", MANY)),
    SLOW((PLANE, "stick_breaking", 4, "spherical", MANY)),
]


@pytest.mark.parametrize(("points", "model", "truncation", "covariance", "chains"), WITH_PAIRS)
def test_blocked_gibbs_with_pairs_parted_anew_is_exact(points, model, truncation, covariance, chains):
    p = posterior(points, model, truncation, covariance=covariance)
    truth = exact.allocations(p)
    labels, densities = blocked(p, SWEEPS, 200, chains, split_merges=0, pair_moves=2)
    off, deviations = compare(labels, densities, truth=truth.partitions)
    assert off <= 1
    assert max(deviations.values()) < 4
    assert deviations_of_labels(labels, truth) < 4


@pytest.mark.slow
@pytest.mark.parametrize("points", [GALAXIES, PLANE], ids=["galaxies", "plane"])
def test_many_chains_are_within_three_errors(points):
    """Eight times the chains, and nothing further than three standard errors, labels included."""
    p = posterior(points)
    off, deviations = compare(*collapsed(p, 2, chains=MANY), truth=exact.partitions(p))
    assert off <= 1
    assert max(deviations.values()) <= 3
    truth = exact.allocations(p)
    labels, densities = blocked(p, 2 * SWEEPS, 500, MANY, split_merges=2)
    off, deviations = compare(labels, densities, truth=truth.partitions)
    assert off <= 1
    assert max(deviations.values()) <= 3
    assert deviations_of_labels(labels, truth) <= 3


def deviations_of_labels(labels, truth):
    """Probability of every component for every point, in standard errors: the labelled posterior, not an invariant."""
    found = (np.asarray(labels)[..., None] == np.arange(truth.component.shape[1])).mean(axis=1)
    return in_errors(found, truth.component)


def forgets_to_leave(change):
    """Stale statistics: a point takes its new seat without having left the old one."""
    return lambda table, k, x, sign, *rest: table if sign < 0 else change(table, k, x, sign, *rest)


def keeps_old_precision(change):
    """Half-stale statistics: means follow, scatter matrices do not."""

    def wrong(table, k, x, sign, *rest):
        return change(table, k, x, sign, *rest)._replace(precisions=table.precisions)

    return wrong


def one_degree_less(log_predictive):
    """A t with one degree of freedom less in its exponent."""
    return lambda table, x, base: log_predictive(table._replace(dfs=table.dfs - 1), x, base)


def no_determinant(offset):
    """The scatter's determinant dropped from the normaliser."""
    return lambda df, kappa, log_dets, base: offset(df, kappa, 0.0 * log_dets, base)


def one_cluster_more(given_clusters):
    """The concentration's step counts one cluster too many."""
    return lambda key, a, k, n, prior: given_clusters(key, a, k + 1, n, prior)


BUGS = [
    SLOW((clusters, "change", forgets_to_leave)),
    SLOW((clusters, "change", keeps_old_precision)),
    SLOW((clusters, "log_predictive", one_degree_less)),
    SLOW((clusters, "_offset", no_determinant)),
    SLOW((concentration, "given_clusters", one_cluster_more)),
]
"""In fast tests test_kernels_of_partitions.py and test_kernels_of_weights.py catch them."""


@pytest.mark.parametrize(("module", "name", "bug"), BUGS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_planted_bug_is_caught(module, name, bug, monkeypatch):
    monkeypatch.setattr(module, name, bug(getattr(module, name)))
    p = posterior()
    off, deviations = compare(*collapsed(p, components=False), truth=exact.partitions(p))
    assert off > 1
    assert max(deviations["clusters"], deviations["similarity"]) > 4


@pytest.mark.slow
def test_a_split_of_unknown_probability_is_caught(monkeypatch):
    """The probability of the proposing scan left out of the odds."""
    right = _split_merge._deal
    monkeypatch.setattr(_split_merge, "_deal", lambda *a: (right(*a)[0], jnp.zeros(()), right(*a)[2]))
    p = posterior()
    off, deviations = compare(*collapsed(p, 1, components=False), truth=exact.partitions(p))
    assert off > 1
    assert deviations["clusters"] > 4


def off_by_one(sticks):
    """Sticks that see one point less than their component holds."""
    return lambda key, counts, a, prior: sticks(key, jnp.maximum(counts - 1, 0), a, prior)


def always_swaps(log_allocations):
    """Every swap of labels accepted, as if the prior of sticks did not look at labels."""
    return lambda counts, a: 0.0 * log_allocations(counts, a)


@pytest.mark.slow
def test_a_stick_off_by_one_is_caught(monkeypatch):
    monkeypatch.setitem(blocked_gibbs.WEIGHTS, "sticks", off_by_one(blocked_gibbs.WEIGHTS["sticks"]))
    p = posterior()
    off, deviations = compare(*blocked(p), truth=exact.allocations(p).partitions)
    assert off > 1
    assert deviations["clusters"] > 4


def test_labels_permuted_too_freely_are_caught(monkeypatch):
    monkeypatch.setattr(blocked_gibbs, "log_allocations", always_swaps(blocked_gibbs.log_allocations))
    p = posterior()
    assert deviations_of_labels(blocked(p, chains=FEW // 2)[0], exact.allocations(p)) > 4


def test_base_measure_is_learnt_as_its_density_says():
    """Alternating draws of mean and kappa, against their joint density on a grid, components held."""
    p = load_model("escobar_west")(Dataset(GALAXIES), truncation=3, component_sd=1.0)
    held = p.initial(random.PRNGKey(1)) | {"means": jnp.array([[10.0], [20.0], [26.0]])}
    log_kappa, mean = np.meshgrid(np.linspace(-12, 2, 141), np.linspace(-200, 240, 881), indexing="ij")
    at = lambda m, k: p.log_prior(held | {"base_mean": m[None], "kappa": jnp.exp(k)}) + k
    density = np.exp(jax.jit(jax.vmap(at))(jnp.asarray(mean.ravel()), jnp.asarray(log_kappa.ravel())))
    density /= density.sum()
    all_components = jnp.ones(3, bool)

    def chain(key):
        def step(state, key):
            prior = p.conjugate.hyperprior
            state = conjugate.sample_base(key, held["means"], held["scale_trils"], all_components, state[1], prior)
            return state, state

        return jax.lax.scan(step, (jnp.array([20.0]), jnp.asarray(0.01)), random.split(key, 600))[1]

    means, kappas = jax.jit(jax.vmap(chain))(random.split(random.PRNGKey(2), 64))
    for found, wanted in (
        (np.log(kappas), density @ log_kappa.ravel()),
        (np.log(kappas) ** 2, density @ log_kappa.ravel() ** 2),
        (np.abs(means[..., 0] - 18) < 4.75, density @ (np.abs(mean.ravel() - 18) < 4.75)),
    ):
        of_chain = found[:, 50:].mean(axis=1)
        # 4.75 is between two points of the grid: whole cells are counted.
        assert abs(of_chain.mean() - wanted) < 4 * of_chain.std(ddof=1) / 8


def test_rank_one_changes_are_a_rebuild():
    """Clusters after a hundred random moves, against those of the same partition from scratch, in three dimensions."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(12, 3)))
    base = load_model("stick_breaking")(Dataset(x)).conjugate.base
    base = base._replace(mean=jnp.zeros(3))
    labels = rng.integers(0, 4, 12)
    table = clusters.build(*clusters.statistics(x, jnp.asarray(labels), 5, base), base)
    change = jax.jit(clusters.change, static_argnums=3)
    empty_cluster = clusters.empty(base)
    for i, k in zip(rng.integers(0, 12, 100), rng.integers(0, 5, 100), strict=True):
        table = change(table, labels[i], x[i], -1, base, empty_cluster)
        table = change(table, k, x[i], 1, base, empty_cluster)
        labels[i] = k
    again = clusters.build(*clusters.statistics(x, jnp.asarray(labels), 5, base), base)
    for name, leaf in table._asdict().items():
        np.testing.assert_allclose(leaf, getattr(again, name), rtol=1e-8, atol=1e-9, err_msg=name)


def test_predictive_is_a_ratio_of_evidences():
    x = jnp.asarray(PLANE)
    base = posterior(PLANE).conjugate.base._replace(mean=jnp.zeros(2))
    statistics = clusters.statistics(x, jnp.array([0, 0, 1, 1, 1, -1]), 3, base)
    more = tuple(s + a for s, a in zip(statistics, (1.0, x[5], conjugate.product(x[5], x[5], base)), strict=True))
    ratio = conjugate.log_marginal(*more, base=base) - conjugate.log_marginal(*statistics, base=base)
    np.testing.assert_allclose(
        clusters.log_predictive(clusters.build(*statistics, base), x[5], base), ratio, rtol=1e-10
    )


PLAIN = {"chains": 1, "warmup": 5, "split_merges": 0}


def test_what_a_collapsed_fit_promises():
    p = posterior(truncation=3)
    tree = dpgmm.fit(p, "gibbs", **PLAIN, draws_per_chain=300, thin=2)
    labels = tree["sample_stats"]["allocations"].values
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels.reshape(-1, 8), dpgmm.partitions.canonical(labels.reshape(-1, 8)))
    active = tree["sample_stats"]["occupied_clusters"].values
    np.testing.assert_array_equal(active, labels.max(axis=-1) + 1)
    # More clusters than the truncation: more components are shown, and none is cut off.
    assert tree["posterior"].sizes["component"] == active.max() + 1 > 3
    np.testing.assert_allclose(tree["posterior"]["weights"].sum("component"), 1, rtol=1e-9)
    assert (
        "allocations" not in dpgmm.fit(p, "gibbs", **PLAIN, draws_per_chain=4, keep_allocations=False)["sample_stats"]
    )


@pytest.mark.parametrize(("algorithm", "moves"), [(3, 0), SLOW((3, 3)), SLOW((2, 3)), SLOW((8, 3))])
def test_slots_that_run_out_change_nothing(algorithm, moves, monkeypatch):
    """Slots doubled on the way: the draws are those of many slots from the start."""
    options = PLAIN | {"draws_per_chain": 40, "algorithm": algorithm, "split_merges": moves}
    every = lambda tree: tree["posterior"].to_dataset().merge(tree["sample_stats"].to_dataset()[["allocations"]])
    plenty = every(dpgmm.fit(posterior(truncation=3), "gibbs", **options))
    monkeypatch.setattr(dpgmm.methods.gibbs, "SLOTS", 3)
    few = every(dpgmm.fit(posterior(truncation=3), "gibbs", **options))
    assert plenty["allocations"].values.max() >= 3
    for name in ("allocations", "means", "concentration"):
        np.testing.assert_allclose(few[name], plenty[name], rtol=1e-9, err_msg=name)


@pytest.mark.quick("methods")
def test_allocations_need_whole_points():
    weighted = posterior().on(Dataset(GALAXIES, np.arange(1, 9), name="heavy"))
    with pytest.raises(InputError, match="heavy has weighted points, and it allocates points one by one"):
        dpgmm.fit(weighted, "gibbs")
    with pytest.raises(InputError, match="model symmetric_dirichlet is not; choose blocked_gibbs"):
        dpgmm.fit(posterior(model="symmetric_dirichlet"), "gibbs")


@pytest.mark.slow
def test_galaxies_under_the_published_prior():
    """P(number of clusters) of the reference table, from the public API: within 4 standard errors and 0.005."""
    p = load_model("escobar_west")(dpgmm.datasets.galaxies(), truncation=25, component_sd=1.0)
    tree = dpgmm.fit(p, "gibbs", chains=4, warmup=1_000, draws_per_chain=4_000, thin=10)
    clusters_of = tree["sample_stats"]["occupied_clusters"].values
    table = np.loadtxt(Path(__file__).parent / "data" / "galaxies_number_of_clusters.csv", delimiter=",", skiprows=1)
    for k, _, _, _, wanted, error in table:
        batches = (clusters_of == k).reshape(4, 25, -1).mean(axis=-1)
        error = np.hypot(error, batches.std(ddof=1) / 10)
        assert abs(batches.mean() - wanted) < 4 * error + 0.005, k


@pytest.mark.long
def test_points_are_not_compressed_for_gibbs():
    data = Dataset(np.repeat(GALAXIES, 40, axis=0))
    tree = dpgmm.fit(load_model("stick_breaking")(data, truncation=3), "gibbs", chains=1, warmup=2, draws_per_chain=4)
    assert json.loads(tree.attrs["compression"]) == {}
    assert tree["sample_stats"].sizes["obs"] == 320
