"""Relabelling on arrays: R's results on the reference case, enumeration beside every clever step, planted defects."""

import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.linalg

from dpgmm import relabelling
from dpgmm.draws import allocations as allocating
from dpgmm.errors import InputError
from dpgmm.relabelling import Gaussians, _ecr, _sjw, assignment, online, probabilities, statistics
from dpgmm.relabelling._transport import barycentres, wasserstein

DATA = Path(__file__).parent / "data"
K = 5


@pytest.fixture(scope="module")
def case():
    with np.load(DATA / "five_components.npz") as file:
        return {name: file[name] for name in file}


@pytest.fixture(scope="module")
def expected():
    return json.loads((DATA / "five_components.json").read_text())


@pytest.fixture(scope="module")
def gaussians(case):
    means, variances, weights = np.moveaxis(case["parameters"], -1, 0)
    return Gaussians(weights, means[..., None], variances[..., None, None], case["x"][:, None])


@pytest.fixture(scope="module")
def p(gaussians):
    return np.asarray(allocating.probabilities(*gaussians))


def divergence(p, permutations):
    """Stephens' objective, term by term from its definition."""
    clipped = np.maximum(p, 1e-6)
    clipped /= clipped.sum(axis=-1, keepdims=True)
    relabelled = np.take_along_axis(clipped, permutations[:, None, :], axis=2)
    return (relabelled * np.log(relabelled / relabelled.mean(axis=0))).sum()


def relabelled(case, permutations):
    return np.take_along_axis(np.argsort(permutations, axis=1), case["allocations"].astype(int), axis=1)


# The reference case.


def test_orders_that_are_unique_are_those_of_r(case, gaussians, p):
    parameters = case["parameters"]
    ours = {
        "aic": relabelling.aic(parameters[..., 0]),
        "pra": relabelling.pra(parameters, parameters[case["pivot_draw"]]),
        "data_based": relabelling.data_based(case["allocations"], case["x"][:, None], K),
        "stephens": relabelling.stephens(p),
    }
    for name, result in ours.items():
        np.testing.assert_array_equal(result.permutations, case[f"perm_{name}"], err_msg=name)
        assert not result.tied.any(), name
    np.testing.assert_array_equal(relabelling.stephens(gaussians).permutations, ours["stephens"].permutations)


def test_objectives_are_those_of_r(case, expected, p):
    z, pivot = case["allocations"], case["pivot_draw"]
    parameters = case["parameters"]
    ecr = relabelling.ecr(z, z[pivot], K)
    assert (ecr.objective, ecr.tied.sum()) == (expected["ecr"]["agreement"], expected["ecr"]["draws_with_tied_optimum"])
    assert ecr.objective == (relabelled(case, ecr.permutations) == z[pivot]).sum()
    one, two = relabelling.ecr_iterative_1(z, K), relabelling.ecr_iterative_2(z, p)
    assert one.objective == expected["ecr_iterative_1"]["agreement_with_own_mode"]
    assert (two.objective, two.tied.sum()) == (
        expected["ecr_iterative_2"]["agreement"],
        expected["ecr_iterative_2"]["draws_with_tied_optimum"],
    )
    pra = relabelling.pra(parameters, parameters[pivot])
    np.testing.assert_allclose(pra.objective, expected["pra"]["inner_product"], rtol=1e-12)
    data_based = relabelling.data_based(z, case["x"][:, None], K)
    np.testing.assert_allclose(data_based.objective, expected["data_based"]["cost"], rtol=1e-10)


def test_stephens_objective(p):
    result = relabelling.stephens(p)
    assert result.objective <= 13977.565
    np.testing.assert_allclose(result.objective, divergence(p, result.permutations), rtol=1e-12)
    one_start = relabelling.stephens(p, starts=1)
    assert result.objective <= one_start.objective


def test_sjw_is_monotone_and_leaves_the_means_of_stephens(case, gaussians):
    result = relabelling.sjw(case["allocations"], *gaussians)
    assert (np.diff(result.history) > 0).all()
    assert len(result.history) > 3
    means = [
        np.take_along_axis(case["parameters"][..., 0], q, axis=1).mean(axis=0)
        for q in (result.permutations, case["perm_stephens"])
    ]
    np.testing.assert_allclose(np.sort(means[0]), np.sort(means[1]), atol=0.3)


def test_sjw_rises_in_every_step_of_the_unguarded_iteration(case, gaussians):
    """The published two steps, without the rule that stops a path, from the identity: monotone, to a fixed point."""
    of = statistics.statistics(case["allocations"], case["x"][:, None], K)
    parameters = _sjw.Components(*gaussians[:3])
    theta, history = _sjw.Components(*(a.mean(axis=0) for a in parameters)), []
    for _ in range(30):
        value, shares = _sjw._e_step(-_sjw.log_likelihoods(of, theta), None, exact=True)
        np.testing.assert_allclose([shares.sum(1), shares.sum(2)], 1.0)
        theta = _sjw._m_step(parameters, shares)
        history.append(value)
    assert (np.diff(history) > -1e-12 * abs(history[-1])).all()
    ours = relabelling.sjw(case["allocations"], *gaussians, starts=1)
    np.testing.assert_allclose(ours.objective, history[-1], rtol=1e-10)


def test_the_defects_of_label_switching_1_8_show(case, expected, gaussians, monkeypatch):
    """`perm[z]` for its inverse in ECR-ITERATIVE-1, and inverse conventions in the two steps of SJW: both must go red."""
    votes = _ecr.votes
    monkeypatch.setattr(_ecr, "votes", lambda z, permutations: votes(z, np.argsort(permutations, axis=1)))
    wrong = relabelling.ecr_iterative_1(case["allocations"], K, starts=1)
    assert wrong.objective < expected["ecr_iterative_1"]["agreement_with_own_mode"]
    m_step = _sjw._m_step
    monkeypatch.setattr(_sjw, "_m_step", lambda parameters, s: m_step(parameters, np.swapaxes(s, 1, 2)))
    spoilt = relabelling.sjw(case["allocations"], *gaussians)
    means = np.take_along_axis(case["parameters"][..., 0], spoilt.permutations, axis=1).mean(axis=0)
    truth = np.take_along_axis(case["parameters"][..., 0], case["perm_stephens"].astype(int), axis=1).mean(axis=0)
    assert np.abs(np.sort(means) - np.sort(truth)).max() > 0.3


# Objectives and their optima.


def small(seed, num_draws=6, num_points=12, num_components=2, spread=1.0):
    """Few draws of overlapping components, labels at random."""
    rng = np.random.default_rng(seed)
    centres = 1.5 * np.arange(num_components)
    shape = (num_draws, num_components)
    points = rng.choice(centres, num_points) + rng.normal(size=num_points)
    means = rng.permuted(centres + spread * rng.normal(size=shape), axis=1)
    variances = np.exp(0.3 * rng.normal(size=shape))
    weights = rng.dirichlet(np.ones(num_components), num_draws)
    gaussians = Gaussians(weights, means[..., None], variances[..., None, None], points[:, None])
    return gaussians, allocating.draw(jax.random.PRNGKey(seed), *gaussians).astype(int)


def all_labellings(num_draws):
    """Every labelling of two components in every draw, the first draw's held fixed."""
    for flips in itertools.product((False, True), repeat=num_draws - 1):
        yield np.array([[0, 1], *([1, 0] if flip else [0, 1] for flip in flips)])


def test_iterative_methods_by_enumeration():
    """On two components and six draws, several starts come to the best of all labellings nearly always, never below."""
    missed = dict.fromkeys(("stephens", "ecr_iterative_1", "transport"), 0)
    for seed in range(12):
        gaussians, z = small(seed)
        p = np.asarray(allocating.probabilities(*gaussians))
        labellings = list(all_labellings(len(z)))
        best = {
            "stephens": min(divergence(p, q) for q in labellings),
            "ecr_iterative_1": max(_ecr.votes(z, q).max(axis=1).sum() for q in labellings),
            "transport": min(distance_to_barycentres(gaussians, q) for q in labellings),
        }
        ours = {
            "stephens": relabelling.stephens(p).objective,
            "ecr_iterative_1": relabelling.ecr_iterative_1(z, 2).objective,
            "transport": relabelling.transport(gaussians.means, gaussians.covariances).objective,
        }
        for name, value in ours.items():
            sense = 1 if name == "ecr_iterative_1" else -1
            assert sense * value <= sense * best[name] + 1e-9 * abs(best[name]), (name, seed)
            missed[name] += not np.isclose(value, best[name], rtol=1e-9)
    assert all(number <= 2 for number in missed.values()), missed


def distance_to_barycentres(gaussians, permutations):
    """D = 1: W2^2 = (m - m')^2 + (s - s')^2, and barycentres are plain means of means and standard deviations."""
    pairs = np.stack([gaussians.means[..., 0], np.sqrt(gaussians.covariances[..., 0, 0])], axis=-1)
    pairs = np.take_along_axis(pairs, permutations[..., None], axis=1)
    return ((pairs - pairs.mean(axis=0)) ** 2).sum()


ITERATIVE = {
    "ecr_iterative_1": (1, lambda g, z, **o: relabelling.ecr_iterative_1(z, 3, **o)),
    "ecr_iterative_2": (1, lambda g, z, **o: relabelling.ecr_iterative_2(z, g, **o)),
    "stephens": (-1, lambda g, z, **o: relabelling.stephens(g, **o)),
    "sjw": (1, lambda g, z, **o: relabelling.sjw(z, *g, **o)),
    "sjw, by assignment": (1, lambda g, z, **o: relabelling.sjw(z, *g, exact=False, **o)),
    "transport": (-1, lambda g, z, **o: relabelling.transport(g.means, g.covariances, **o)),
}


@pytest.mark.parametrize("name", ITERATIVE)
def test_histories_are_monotone_and_more_starts_never_worse(name):
    sense, run = ITERATIVE[name]
    for seed in range(8):
        draws = small(seed, num_draws=30, num_components=3)
        several, single = run(*draws), run(*draws, starts=1)
        for result in (several, single):
            assert (sense * np.diff(result.history) > 0).all()
            assert result.history[-1] == result.objective
            assert (np.sort(result.permutations, axis=1) == np.arange(3)).all()
            assert (result.ambiguity >= 0).all()
        assert sense * several.objective >= sense * single.objective


def test_agreements_by_counting():
    rng = np.random.default_rng(0)
    z, pivot, weights = rng.integers(3, size=(4, 20)), rng.integers(3, size=20), rng.integers(1, 4, size=20)
    counted = _ecr.agreements(z, pivot, 3, weights)
    for t, k, j in itertools.product(range(4), range(3), range(3)):
        assert counted[t, k, j] == weights[(pivot == k) & (z[t] == j)].sum()


def test_data_based_by_hand():
    """Two draws, the second with its labels exchanged; the same for points far from the origin."""
    points = np.array([0.0, 0.2, 0.4, 5.0, 5.2])[:, None]
    z = np.array([[1, 1, 1, 0, 0], [0, 0, 0, 1, 1]])
    result = relabelling.data_based(z, points, 2)
    np.testing.assert_array_equal(result.permutations[0], result.permutations[1][::-1])
    spreads = np.array([points[:3].std(ddof=1), points[3:].std(ddof=1)])
    cost = 2 * (2 * spreads[0] ** 2 / spreads[0] ** 2 + spreads[1] ** 2 / spreads[1] ** 2)
    np.testing.assert_allclose(result.objective, cost)
    np.testing.assert_allclose(relabelling.data_based(z, points + 1e6, 2).objective, cost, rtol=1e-6)


def test_sjw_log_likelihoods_by_scipy():
    rng = np.random.default_rng(0)
    points, z = rng.normal(size=(9, 2)), rng.integers(3, size=(4, 9))
    lower = np.tril(rng.normal(size=(3, 2, 2))) + 2 * np.eye(2)
    theta = _sjw.Components(rng.dirichlet(np.ones(3)), rng.normal(size=(3, 2)), lower @ np.swapaxes(lower, 1, 2))
    of = statistics.statistics(z, points, 3)
    ours = _sjw.log_likelihoods(of, theta)
    density = scipy.stats.multivariate_normal.logpdf
    for t, k, j in itertools.product(range(4), range(3), range(3)):
        members = points[z[t] == j]
        each = density(members, theta.means[k], theta.covariances[k]) + np.log(theta.weights[k]) if len(members) else 0
        np.testing.assert_allclose(ours[t, k, j], np.sum(each), atol=1e-10)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_wasserstein_and_barycentre(dim):
    """The distance by scipy's matrix square roots; the barycentre beats its neighbours and solves its equation."""
    rng = np.random.default_rng(dim)
    lower = rng.normal(size=(5, 1, dim, dim))
    covariances = lower @ np.swapaxes(lower, -1, -2) + 0.1 * np.eye(dim)
    means = rng.normal(size=(5, 1, dim))
    root = lambda a: np.real(scipy.linalg.sqrtm(a)).reshape(dim, dim)
    a, b = covariances[0, 0], covariances[1, 0]
    truth = ((means[0] - means[1]) ** 2).sum() + np.trace(a + b - 2 * root(root(a) @ b @ root(a)))
    np.testing.assert_allclose(wasserstein(means[0], covariances[0], means[1], covariances[1])[0], truth, atol=1e-9)

    weights = rng.uniform(1, 2, (5, 1))
    centre, covariance = barycentres(means, covariances, weights, covariances.mean(axis=0))
    shares = weights / weights.sum()
    s = root(covariance[0])
    fixed = sum(w[0] * root(s @ c[0] @ s) for w, c in zip(shares, covariances, strict=True))
    np.testing.assert_allclose(covariance[0], fixed, atol=1e-7)
    total = lambda m, c: (shares * wasserstein(means, covariances, m, c)).sum()
    for _ in range(5):
        bend = 0.05 * rng.normal(size=(dim, dim))
        neighbour = covariance + bend @ bend.T + 0.02 * np.eye(dim)
        assert total(centre, covariance) < total(centre + 0.05 * rng.normal(size=dim), neighbour)


@pytest.mark.quick("relabelling")
@pytest.mark.parametrize("dim", [2, 3])
def test_transport_recovers_known_labels(dim):
    rng = np.random.default_rng(0)
    centres = 6 * rng.normal(size=(4, dim))
    order = rng.permuted(np.tile(np.arange(4), (20, 1)), axis=1)
    means = centres[order] + 0.1 * rng.normal(size=(20, 4, dim))
    covariances = np.broadcast_to(np.eye(dim), (20, 4, dim, dim))
    found = relabelling.transport(means, covariances).permutations
    truth = np.argsort(order, axis=1)
    assert relabelling.agreement({"found": found, "truth": truth}).values[0, 1] == 1


# Streams, precision, weights.


def test_blocks_of_draws_make_no_difference(gaussians, p, monkeypatch):
    """Blocks that do not divide the draws, and nothing kept between passes."""
    whole = relabelling.stephens(p)
    counts = probabilities.counts(gaussians)
    np.testing.assert_allclose(counts, p.sum(axis=1), atol=1e-9)
    monkeypatch.setattr(allocating, "PAIRS", 150 * 200 * K)
    monkeypatch.setattr(probabilities, "KEPT", 0)
    monkeypatch.setattr(assignment, "ENTRIES", 1000)
    streamed = relabelling.stephens(gaussians)
    np.testing.assert_array_equal(streamed.permutations, whole.permutations)
    np.testing.assert_allclose(streamed.history, whole.history, rtol=1e-10)
    np.testing.assert_allclose(streamed.ambiguity, whole.ambiguity, atol=1e-8)
    np.testing.assert_allclose(probabilities.counts(gaussians), counts, atol=1e-9)


def test_float64_whatever_jax_is_set_to(p):
    with jax.enable_x64(False):
        result = relabelling.stephens(p)
        assert jax.numpy.zeros(1).dtype == np.float32
    assert result.objective == relabelling.stephens(p).objective


def test_a_point_of_weight_two_is_two_points():
    gaussians, z = small(1, num_draws=20, num_components=3)
    weights = np.array([2.0, *np.ones(11)])
    twice = lambda a: np.concatenate([a[..., :1], a], axis=-1)
    more = gaussians._replace(points=np.concatenate([gaussians.points[:1], gaussians.points]))
    pairs = [
        (relabelling.stephens(gaussians, point_weights=weights), relabelling.stephens(more)),
        (relabelling.ecr(z, z[3], 3, point_weights=weights), relabelling.ecr(twice(z), twice(z[3]), 3)),
        (relabelling.ecr_iterative_1(z, 3, point_weights=weights), relabelling.ecr_iterative_1(twice(z), 3)),
        (relabelling.sjw(z, *gaussians, point_weights=weights), relabelling.sjw(twice(z), *more)),
        (
            relabelling.data_based(z, gaussians.points, 3, point_weights=weights),
            relabelling.data_based(twice(z), more.points, 3),
        ),
    ]
    for weighted, repeated in pairs:
        np.testing.assert_allclose(weighted.objective, repeated.objective, rtol=1e-10)


def test_online_comes_to_what_the_batch_comes_to(case, p):
    """One pass, and a second one against the final reference, on the draws in their order."""
    z, first = case["allocations"], int(case["pivot_draw"])
    state, votes = online.stephens_init(p[first]), online.ecr_init(z[first], K)
    for t in range(first):
        state, _ = online.stephens_step(state, p[t])
        votes, _ = online.ecr_step(votes, z[t])
    assert state.draws == len(z)
    assert votes.votes.sum() == z.size
    np.testing.assert_allclose(state.total.sum(), z.size)
    stephens = np.array([online.stephens_assign(state, q)[0] for q in p])
    ecr = np.array([online.ecr_assign(votes, a)[0] for a in z])
    batch = {"stephens": relabelling.stephens(p), "ecr": relabelling.ecr_iterative_1(z, K)}
    # Measured 0.975 and 1: the final reference of one pass is not quite the optimum of all.
    for name, found in (("stephens", stephens), ("ecr", ecr)):
        both = {"batch": batch[name].permutations[~batch[name].tied], "online": found[~batch[name].tied]}
        assert relabelling.agreement(both).values[0, 1] > 0.95, name
    _, value = online.stephens_assign(online.stephens_init(p[first]), p[first])
    assert abs(value) < 1e-9


def test_online_step_undoes_a_permutation(case, p):
    """A draw in other names, a three-cycle among them, adds to the reference what the draw itself would have added."""
    order = np.array([1, 2, 0, 4, 3])
    state, permutation = online.stephens_step(online.stephens_init(p[0]), p[0][:, order])
    np.testing.assert_array_equal(order[permutation], np.arange(K))
    np.testing.assert_allclose(state.total, 2 * online.stephens_init(p[0]).total)
    z = case["allocations"][0]
    votes, permutation = online.ecr_step(online.ecr_init(z, K), np.argsort(order)[z])
    np.testing.assert_array_equal(order[permutation], np.arange(K))
    np.testing.assert_array_equal(votes.votes, 2 * online.ecr_init(z, K).votes)


def test_a_row_that_is_no_permutation():
    with pytest.raises(InputError, match=r"draw 1 has \[0, 0\]"):
        relabelling.user(np.array([[0, 1], [0, 0]]))


@pytest.mark.quick("relabelling")
def test_the_cost_of_transport_is_over_the_components_that_carry_data():
    """Two components of three, the third anywhere: objective and barycentres by hand, draw by draw, and without it."""
    rng, size, dim = np.random.default_rng(3), 12, 2
    centres = np.array([[0.0, 0.0], [5.0, 1.0]])
    means = np.concatenate(
        [centres + 0.3 * rng.normal(size=(size, 2, dim)), 40 * rng.normal(size=(size, 1, dim))], axis=1
    )
    covariances = np.eye(dim) * rng.uniform(0.5, 2, (size, 3, 1, 1)) * np.array([1.0, 1.0, 30.0])[:, None, None]
    active = np.tile([True, True, False], (size, 1))
    order = rng.permuted(np.tile(np.arange(3), (size, 1)), axis=1)
    take = lambda a: np.take_along_axis(a, order.reshape(*order.shape, *[1] * (a.ndim - 2)), axis=1)
    found = relabelling.transport(take(means), take(covariances), active=take(active))
    few = relabelling.transport(means[:, :2], covariances[:, :2])
    centre, covariance = barycentres(
        means[:, :2], covariances[:, :2], np.ones((size, 2)), np.tile(np.eye(dim), (2, 1, 1))
    )
    by_hand = wasserstein(means[:, :2], covariances[:, :2], centre, covariance).sum()
    assert found.objective == pytest.approx(by_hand, rel=1e-6)
    assert few.objective == pytest.approx(by_hand, rel=1e-6)
    # Some draws once more are components of more weight: the barycentre is a weighted mean, and not that of the two.
    weights = np.array([[1.0], [3.0]])
    pair = means[:2, :1], covariances[:2, :1]
    centre, covariance = barycentres(*pair, weights, pair[1][0])
    rows = [0, 1, 1, 1]
    again = barycentres(means[rows, :1], covariances[rows, :1], np.ones((4, 1)), pair[1][0])
    np.testing.assert_allclose(centre, again[0], rtol=1e-12)
    np.testing.assert_allclose(covariance, again[1], rtol=1e-8)
    assert np.abs(centre - pair[0].mean(axis=0)).max() > 1e-3
