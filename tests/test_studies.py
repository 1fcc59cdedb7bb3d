"""The studies of initialisation, truncation and concentration: their mathematics against brute force, and that they run."""

import itertools
import json
import math

import jax
import numpy as np
import pytest
import xarray as xr
from jax import random
from made_up import from_the_prior

from comparisons import concentration as of_concentration
from comparisons import truncation
from comparisons.initialisation import restarts
from comparisons.initialisation import study as initialisation
from comparisons.initialisation.starts import STARTS, starting
from dpgmm import Dataset, InputError, datasets, exact, load_model
from dpgmm.densities.concentration import Concentration, nodes
from dpgmm.diagnostics import intervals
from dpgmm.diagnostics.intervals import Estimate
from dpgmm.report import study
from dpgmm.report.study import Section

INFINITY = math.inf


# What restarts buy.


@pytest.mark.parametrize(("successes", "trials"), [(0, 100), (7, 100), (50, 100), (100, 100), (1, 3)])
def test_the_interval_of_a_share_is_wilsons(successes, trials):
    p, z = successes / trials, 1.959963984540054
    middle = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    found = intervals.wilson(successes, trials)
    np.testing.assert_allclose(found, (p, max(0, middle - half), min(1, middle + half)), atol=1e-12)


@pytest.mark.quick("comparisons")
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.95, 1.0])
def test_restarts_needed_are_the_least_that_do(share):
    needed = restarts.restarts_needed(share)
    certainty = lambda r: restarts.best_of(intervals.Share(share, 0.0, 1.0), r).value
    assert certainty(int(needed)) >= 0.95
    assert needed == 1 or certainty(int(needed) - 1) < 0.95


def test_nothing_makes_up_for_a_share_of_zero():
    assert restarts.restarts_needed(0.0) == INFINITY
    assert restarts.best_of(intervals.wilson(0, 100), 50)[0] == 0


@pytest.mark.parametrize("r", [1, 2, 3, 5])
@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0, -INFINITY], [0.0, 0.0, 1.0, 5.0, 5.0]])
def test_the_median_of_the_best_is_that_of_all_tuples(values, r):
    best = sorted(max(t) for t in itertools.product(values, repeat=r))
    assert restarts.median_best(np.array(values), r) == best[math.ceil(len(best) / 2) - 1]


def test_bootstrap_intervals_cover():
    """Of the median of the best of five standard normals, ``Phi^-1(2^{-1/5})``, in 100 repetitions of 100 runs."""
    truth = 1.1290  # 0.5 ** (1 / 5) = 0.87055
    covered, rng = 0, np.random.default_rng(0)
    for repetition in range(100):
        low, high = restarts.bootstrap(rng.normal(size=100), 5, seed=repetition)
        covered += low <= truth <= high
    # Percentile intervals of an upper quantile from 100 runs: some 93 %, standard error 2.5 %.
    assert 85 <= covered <= 100
    assert restarts.bootstrap(np.full(10, 3.0), 2) == (3.0, 3.0)


@pytest.mark.quick("comparisons")
def test_success_needs_both_the_height_and_the_truth():
    value, found = np.array([0.0, -1.0, -initialisation.NATS - 0.1, -INFINITY]), np.array([False, True, True, True])
    runs = initialisation.Runs(value, found, 1.0, 1.0)
    assert initialisation.succeeded(runs, 0.0).tolist() == [False, True, False, False]
    measured = initialisation._measures(runs, 0.0, truth=True)
    assert measured["success"].value == 0.25
    assert (measured["near the best"].value, measured["truth found"].value) == (0.5, 0.75)
    assert measured["seconds to a success"] == 1.0


def mixture(weights, means, scales):
    """One mixture in the schema of a restart."""
    names = {"weights": weights, "means": np.array(means)[:, None], "covariances": np.square(scales)[:, None, None]}
    dims = {"weights": ("component",), "means": ("component", "dim"), "covariances": ("component", "dim", "dim_")}
    return xr.Dataset({n: (("chain", *dims[n]), np.asarray(v, float)[None]) for n, v in names.items()})


def test_the_truth_is_found_under_any_labels_and_not_without_a_component():
    truth = datasets.COUNTS, datasets.LOCATIONS, datasets.SCALES
    w, m, s = (np.array(leaf, float) for leaf in truth)
    w /= w.sum()
    found = lambda *leaves: bool(initialisation.truth_found(mixture(*leaves), truth)[0])
    order = [2, 0, 3, 1]
    dead = lambda values, one: np.append(values[order], one)
    assert found(dead(w, 1e-6), dead(m, 50.0), dead(s, 1.0))
    light = [0, 1, 3]
    assert not found(w[light] / w[light].sum(), m[light], s[light])
    split = np.array([w[0], 0.5 * w[1], 0.5 * w[1], w[2], w[3]])
    assert not found(split, [m[0], m[1] - 1.5, m[1] + 1.5, m[2], m[3]], [s[0], 1.3, 1.3, s[2], s[3]])
    assert initialisation.truth_found(mixture(w[light], m[light], s[light]), None).all()


def test_kinds_of_start():
    posterior = load_model("stick_breaking")(datasets.galaxies(), truncation=6)
    keys = random.split(random.PRNGKey(0), 3)
    start = jax.jit(jax.vmap(lambda key: {kind: starting(posterior, kind).initial(key) for kind in STARTS}))(keys)
    own, mean, far = (np.asarray(start[kind]["means"])[..., 0] for kind in STARTS)
    points = posterior.data.points[:, 0]
    assert np.isin(own, points).all()
    assert 0 < np.ptp(mean) < 0.01 * points.std()
    np.testing.assert_allclose(mean, points.mean(), atol=0.01 * points.std())
    assert np.isin(far, points).all()
    assert (np.diff(np.sort(far, axis=1), axis=1) > 0).all()
    assert not np.array_equal(far[0], far[1])
    # Seeds far from one another: the nearest two are farther apart than among random points.
    assert np.diff(np.sort(far), axis=1).min(axis=1).mean() > np.diff(np.sort(own), axis=1).min(axis=1).mean()
    for other in list(STARTS)[1:]:
        np.testing.assert_array_equal(start[other]["stick_logits"], start["points of the data"]["stick_logits"])
    with pytest.raises(InputError, match=r"no kind of start 'zero'; there are points of the data, mean of the data"):
        starting(posterior, "zero")


# Monte Carlo errors.


def autoregression(rho, chains, draws, rng):
    noise, x = rng.normal(size=(chains, draws)), np.zeros((chains, draws))
    x[:, 0] = noise[:, 0] / math.sqrt(1 - rho**2)
    for t in range(1, draws):
        x[:, t] = rho * x[:, t - 1] + noise[:, t]
    return x


@pytest.mark.quick("diagnostics")
@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_batch_means_give_the_error_of_a_mean(rho):
    rng = np.random.default_rng(1)
    found = [intervals.batch_means(autoregression(rho, 4, 1_000, rng)) for _ in range(60)]
    truth = 1 / (1 - rho) / math.sqrt(4_000)
    # 40 batches, and the spread of four chains where that is larger, which it often is by chance: some 10 to 20 % above.
    assert 0.9 < np.mean([e.error for e in found]) / truth < 1.4
    naive = autoregression(0.8, 4, 1_000, rng).std() / math.sqrt(4_000)
    assert naive < 0.5 / (1 - 0.8) / math.sqrt(4_000)  # what a plain standard error would say


def test_chains_apart_are_not_hidden():
    apart = np.arange(4.0)[:, None] + 1e-3 * np.random.default_rng(0).normal(size=(4, 1_000))
    found = intervals.batch_means(apart)
    assert found.error == pytest.approx(np.arange(4.0).std(ddof=1) / 2, rel=1e-2)
    with pytest.raises(InputError, match="1 chains of 100 draws: batch means need two chains"):
        intervals.batch_means(np.zeros((1, 100)))


def test_estimates_are_written_with_two_digits_of_error():
    assert str(Estimate(4.21314, 0.02468)) == "4.213 ± 0.025"
    assert str(Estimate(123.4, 12.3)) == "123 ± 12"
    assert str(Estimate(2.0, 0.0)) == "2.000 ± 0.000"


@pytest.mark.quick("report")
def test_a_number_that_is_none_leaves_nothing(tmp_path):
    section = Section("table", [{"a": 1}])
    with pytest.raises(ValueError, match="not JSON compliant"):
        study.leave(tmp_path, "name", "t", "q", {"a": math.nan}, [], [section])
    assert not list(tmp_path.iterdir())
    study.leave(tmp_path, "name", "t", "<q>", {"a": 1.0}, ["All is 100 % well."], [section])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["name.html", "name.json"]
    assert "&lt;q&gt;" in (tmp_path / "name.html").read_text()


# Truncation.


def test_held_out_density_and_its_error():
    rng = np.random.default_rng(2)
    log_density = lambda: -3 + 0.3 * rng.normal(size=(4, 200, 1)) + 0.1 * rng.normal(size=(4, 200, 5))
    one = log_density()
    wanted = np.mean([math.log(np.mean([math.exp(v) for v in one[..., g].ravel()])) for g in range(5)])
    assert truncation.held_out(one).value == pytest.approx(wanted, abs=1e-12)
    many = [truncation.held_out(log_density()) for _ in range(200)]
    spread = np.std([e.value for e in many], ddof=1)
    assert 0.85 < np.mean([e.error for e in many]) / spread < 1.5
    assert truncation.held_out(one - 2_000).value == pytest.approx(wanted - 2_000)


@pytest.mark.parametrize("num_components", [3, 20])
def test_the_bound_at_draws_is_the_exact_one_averaged(num_components):
    prior = Concentration(2.0, 4.0)
    a, log_weights = nodes(prior, 41)
    average = np.exp(log_weights) @ truncation.bound(41, num_components, a)
    assert average == pytest.approx(exact.ishwaran_james_bound(41, num_components, prior), rel=1e-12)
    assert truncation.bound(41, num_components, np.array([0.7]))[0] == pytest.approx(
        exact.ishwaran_james_bound(41, num_components, 0.7)
    )


@pytest.mark.quick("comparisons")
def test_how_many_components_are_enough():
    row = lambda k, value: {"K": k, "gibbs": {"x": Estimate(value, 0.1), "bound": value}}
    swept = [row(2, 1.0), row(3, 5.0), row(5, 1.0), row(8, 4.9), row(12, 5.1), row(20, 5.0)]
    # K = 3 has the last value by chance, K = 5 has not: it takes 8.
    assert truncation.enough(swept, "x") == 8
    assert truncation.enough([row(2, 1.0), row(3, 1.4)], "x") == 3
    assert truncation.first_below(swept, "bound", 2.0) == 2
    assert truncation.first_below(swept, "bound", 0.5) is None


# Concentration.


@pytest.mark.quick("comparisons")
def test_stirling_numbers():
    np.testing.assert_allclose(np.exp(of_concentration.log_stirling(6, 6)), [0, 120, 274, 225, 85, 15, 1])
    np.testing.assert_allclose(np.exp(of_concentration.log_stirling(6, 3)), [0, 120, 274, 225])
    total = np.logaddexp.reduce(of_concentration.log_stirling(100, 100))
    assert total == pytest.approx(math.lgamma(101), rel=1e-12)


@pytest.mark.parametrize("fixed", [None, 0.7])
def test_the_prior_of_the_number_of_clusters_is_that_of_all_partitions(fixed):
    posterior = load_model("stick_breaking")(
        Dataset(np.random.default_rng(0).normal(size=7)), truncation=2, shape=1.5, rate=0.8
    )
    every = exact.partitions(posterior, concentration=fixed)
    wanted = np.bincount(every.labels.max(axis=1) + 1, np.exp(every.log_prior), 8)
    prior = Concentration(1.5, 0.8) if fixed is None else fixed
    found = of_concentration.prior_of_clusters(prior, 7, 7)
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert of_concentration.mean_clusters(prior, 7) == pytest.approx(np.arange(8) @ wanted, rel=1e-10)


@pytest.mark.parametrize("prior", of_concentration.PRIORS, ids=lambda p: p.name)
def test_priors_of_the_study_are_integrated(prior):
    here = prior.on(82)
    probability = of_concentration.prior_of_clusters(here, 82, 82)
    assert probability.sum() == pytest.approx(1, abs=1e-9)
    assert of_concentration.mean_clusters(here, 82) == pytest.approx(np.arange(83) @ probability, rel=1e-8)


def test_visible_clusters():
    labels = np.minimum(np.random.default_rng(0).geometric(0.3, size=(2, 5, 60)) - 1, 11)
    count = lambda row: sum(np.mean(row == k) >= of_concentration.SHARE for k in range(12))
    wanted = [[count(row) for row in chain] for chain in labels]
    np.testing.assert_array_equal(of_concentration.visible(labels.astype(np.uint8)), wanted)
    assert np.ptp(wanted) > 0


def test_thinned_samples_keep_the_proportions():
    data = of_concentration.thinned(100)
    boundaries = np.cumsum(datasets.COUNTS) / 190
    points = datasets.four_gaussians().points
    places = [int(np.flatnonzero(points[:, 0] == x)[0]) for x in data.points[:, 0]]
    assert data.size == 100
    np.testing.assert_allclose(np.searchsorted(places, 190 * boundaries), boundaries, atol=1)


# The studies themselves.


@pytest.mark.parametrize("module", [initialisation, truncation, of_concentration], ids=lambda m: m.__name__)
def test_studies_leave_a_page_and_its_numbers(module, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "fit", from_the_prior)
    name = module.__name__.split(".")[1]
    check(module.run(tmp_path, quick=True), tmp_path, name)


@pytest.mark.slow
@pytest.mark.parametrize("module", [initialisation, truncation, of_concentration], ids=lambda m: m.__name__)
def test_quick_studies(module, tmp_path):
    check(module.run(tmp_path, quick=True), tmp_path, module.__name__.split(".")[1])


def check(numbers, folder, name):
    """Both files are there, and say the same."""
    page = (folder / f"{name}.html").read_text()
    assert json.loads((folder / f"{name}.json").read_text()) == json.loads(json.dumps(numbers))
    assert sorted(p.name for p in folder.iterdir()) == [f"{name}.html", f"{name}.json"]
    assert page.count("<figure>") == page.count("<figcaption>") == 2
    assert page.count("data:image/png;base64,") + page.count("<svg") == 2
    assert page.count("<li>") >= 2
    assert "nan" not in page.split("</head>")[1].split("<figure>")[0].lower()


@pytest.mark.parametrize("module", [initialisation, truncation, of_concentration], ids=lambda m: m.__name__)
def test_an_interrupted_study_leaves_nothing(module, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        module.run(tmp_path, quick=True)
    assert not list(tmp_path.iterdir())
