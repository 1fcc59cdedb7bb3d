"""Losses, search and credible balls: R's values on the galaxies, enumeration for small n, metrics, planted bugs."""

import collections
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from hypothesis.extra.numpy import arrays

from dpgmm import InputError, partitions
from dpgmm.partitions import moves, search, similarity

DATA = Path(__file__).parent / "data" / "partitions"
EXPECTED = json.loads((DATA / "galaxies_expected.json").read_text())
GALAXIES = np.load(DATA / "galaxies_draws.npz")["allocations"]
TABLE = pd.read_csv(DATA / "galaxies_expected.csv", index_col="what", skipinitialspace=True)
MIN_VI = np.array(EXPECTED["min_vi_estimate"])
R_NAMES = {
    "VI": "vi",
    "VI.lb": "vi_lb",
    "binder": "binder",
    "binder.psm": "binder",
    "omARI": "omari",
    "omARI.approx": "omari_approx",
    "NVI": "nvi",
    "ID": "id",
    "NID": "nid",
}
UNEQUAL = {
    "VI(a=0.5)": ("vi", 0.5),
    "binder(a=0.5)": ("binder", 0.5),
    "VI(a=1.5)": ("vi", 1.5),
    "binder(a=1.5)": ("binder", 1.5),
}
ALL_LOSSES = [*partitions.LOSSES.values(), *(partitions.unequal_costs(n, a, 2 - a) for n, a in UNEQUAL.values())]
named = pytest.mark.parametrize("loss", ALL_LOSSES, ids=lambda loss: loss.name)
moderate = settings(max_examples=60, deadline=None, derandomize=True)
labels = arrays(np.int64, 6, elements=hs.integers(0, 5))


# Independent formulas: pairs by enumeration, entropies from counted labels.


def by_pairs(estimate, draw):
    pairs = list(itertools.combinations(range(len(draw)), 2))
    one, two = (np.array([c[i] == c[j] for i, j in pairs]) for c in (estimate, draw))
    return (one & two).sum(), (one & ~two).sum(), (~one & two).sum(), len(pairs)


def adjusted_rand(estimate, draw):
    both, only_estimate, only_draw, pairs = by_pairs(estimate, draw)
    a, b = both + only_estimate, both + only_draw
    return 1.0 if (a + b) / 2 == a * b / pairs else (both - a * b / pairs) / ((a + b) / 2 - a * b / pairs)


def entropy(values):
    shares = np.array(list(collections.Counter(values).values())) / len(values)
    return -(shares * np.log2(shares)).sum()


def entropies(estimate, draw):
    one, two = list(estimate), list(draw)
    return entropy(one), entropy(two), entropy(list(zip(one, two, strict=True)))


def oracle(name, estimate, draw, a=1.0, b=1.0):
    if name.startswith("binder"):
        _, only_estimate, only_draw, _ = by_pairs(estimate, draw)
        return (a * only_draw + b * only_estimate) * (1 if name == "binder_pairs" else 2 / len(draw) ** 2)
    if name.startswith("omari"):
        return 1 - adjusted_rand(estimate, draw)
    of_estimate, of_draw, joint = entropies(estimate, draw)
    information, larger = of_estimate + of_draw - joint, max(of_estimate, of_draw)
    return {
        "vi": a * (joint - of_draw) + b * (joint - of_estimate),
        "vi_lb": 2 * joint - of_estimate - of_draw,
        "nvi": 1 - information / joint if joint else 0.0,
        "id": larger - information,
        "nid": 1 - information / larger if larger else 0.0,
    }[name]


def every_partition(n):
    """All of them, in canonical form, by restricted growth."""
    rows = [(0,)]
    for _ in range(n - 1):
        rows = [(*row, k) for row in rows for k in range(max(row) + 2)]
    return np.array(rows)


def some_draws(seed, n, num_draws=9):
    """Draws scattered around two partitions, under random labels."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 3, (2, n))
    draws = np.where(rng.random((num_draws, n)) < 0.7, centres[rng.integers(0, 2, num_draws)], rng.integers(0, 4, n))
    return np.stack([rng.permutation(9)[draw] for draw in draws])


# R's values.


@pytest.mark.parametrize("name", R_NAMES)
def test_every_loss_of_the_given_partition_is_rs(name):
    found = partitions.expected_loss(GALAXIES, MIN_VI, R_NAMES[name])
    assert abs(found - EXPECTED["losses_of_min_vi_estimate"][name]) < 1e-9


def test_both_units_of_binder_and_the_first_500_draws():
    table = TABLE["value"]
    estimate = np.array(EXPECTED["salso_binder_estimate"])
    assert abs(partitions.expected_loss(GALAXIES, estimate, "binder_pairs") - table["minbinder.laugreen"]) < 1e-9
    assert abs(partitions.expected_loss(GALAXIES, estimate, "binder") - table["binder"]) < 1e-9
    first = partitions.vi(GALAXIES[:500], MIN_VI)
    assert first.shape == (500,)
    assert abs(first.mean() - table["VI(minVI.avg; first 500 draws)"]) < 1e-9


@pytest.mark.parametrize("name", [*R_NAMES, *UNEQUAL])
def test_every_point_estimate_is_as_good_as_rs(name):
    best = TABLE.query("pkg == 'salso'")["value"][name]
    loss = (
        R_NAMES[name] if name in R_NAMES else partitions.unequal_costs(UNEQUAL[name][0], a := UNEQUAL[name][1], 2 - a)
    )
    found = partitions.point_estimate(GALAXIES, loss)
    assert found.expected_loss <= best + 1e-9
    assert found.expected_loss == partitions.expected_loss(GALAXIES, found.partition, loss)
    assert found.num_clusters == len(set(found.partition))
    assert len(found.history) == 19
    assert all(run.initial_loss + 1e-9 >= run.swept_loss >= run.final_loss - 1e-9 for run in found.history)
    assert min(run.final_loss for run in found.history) == pytest.approx(found.expected_loss, abs=1e-9)


@pytest.mark.quick("partitions")
@pytest.mark.parametrize(("name", "in_r"), [("vi", "VI"), ("binder", "Binder")])
def test_credible_ball_is_rs(name, in_r):
    ball, wanted = partitions.credible_ball(GALAXIES, MIN_VI, name), EXPECTED["credible_ball_95"][in_r]
    assert abs(ball.radius - wanted["horizontal"]) < 1e-9
    assert abs(ball.upper_distance - wanted["upper_vertical"]) < 1e-9
    assert abs(ball.lower_distance - wanted["lower_vertical"]) < 1e-9
    for found, distance in (
        (ball.horizontal, ball.radius),
        (ball.upper, ball.upper_distance),
        (ball.lower, ball.lower_distance),
    ):
        np.testing.assert_allclose(partitions.distances(found, MIN_VI, name), distance, rtol=1e-12)
    inside = partitions.distances(GALAXIES, MIN_VI, name) <= ball.radius + 1e-12
    clusters = partitions.num_clusters(GALAXIES)[inside]
    assert set(partitions.num_clusters(ball.upper)) == {clusters.min()}
    assert set(partitions.num_clusters(ball.lower)) == {clusters.max()}
    assert ball.share == inside.mean() >= 0.95


# Losses against the independent formulas, and what a metric is.


@pytest.mark.quick("partitions")
@moderate
@given(labels, labels)
def test_losses_against_pairs_and_counted_entropies(one, two):
    for loss in ALL_LOSSES:
        name, _, _ = loss.name.partition("(")
        costs = (1.0, 1.0) if name == loss.name else (loss.weights[1], loss.weights[0])
        found = partitions.distances(two[None], one, loss)[0]
        assert found == pytest.approx(oracle(name, one, two, *costs), abs=1e-12)


@pytest.mark.quick("partitions")
@moderate
@given(labels, labels, labels, hs.permutations(range(6)))
def test_metrics_are_metrics_and_blind_to_labels(one, two, three, names):
    same = np.array_equal(partitions.canonical(one), partitions.canonical(two))
    for loss in partitions.METRICS:
        distance = lambda a, b, loss=loss: float(partitions.distances(a[None], b, loss)[0])
        assert distance(one, one) < 1e-12
        assert (distance(one, two) < 1e-12) == same
        assert distance(one, two) == pytest.approx(distance(two, one), abs=1e-12)
        assert distance(one, three) <= distance(one, two) + distance(two, three) + 1e-12
        assert distance(np.array(names)[one], two) == pytest.approx(distance(one, two), abs=1e-12)


@pytest.mark.quick("partitions")
def test_omari_is_no_metric():
    one, between, other = np.array([[0, 0, 1, 2], [0, 0, 1, 1], [0, 1, 2, 2]])
    distance = lambda a, b: partitions.distances(a[None], b, "omari")[0]
    assert distance(one, other) > distance(one, between) + distance(between, other) + 0.3
    with pytest.raises(InputError, match="omari is no metric"):
        partitions.credible_ball(one[None], one, "omari")


@named
def test_expected_losses_of_many_partitions_at_once(loss):
    draws = some_draws(1, 7)
    many = some_draws(2, 7, 20)
    one_by_one = [partitions.expected_loss(draws, p, loss) for p in many]
    if loss.name in ("vi_lb", "omari_approx"):
        together = partitions.losses_at_similarity(partitions.similarity_matrix(draws), many, loss)
    else:
        together = partitions.losses.expected_losses(similarity.DistinctClusters(draws), many, loss)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-12, atol=1e-13)


@named
def test_contributions_add_up(loss):
    draws = some_draws(3, 8)
    estimate = some_draws(4, 8)[0]
    if loss.name in ("vi_lb", "omari_approx"):
        with pytest.raises(InputError, match="no mean over draws"):
            partitions.contributions(draws, estimate, loss)
        return
    found = partitions.contributions(draws, estimate, loss)
    assert found.sum() == pytest.approx(partitions.expected_loss(draws, estimate, loss), abs=1e-12)
    if loss.name == "binder_pairs":
        p = partitions.similarity_matrix(draws)
        wrong = np.abs((estimate[:, None] == estimate) - p).sum(axis=1) / 2
        np.testing.assert_allclose(found, wrong, atol=1e-12)


# Similarity and labels.


def test_similarity_by_enumeration_dense_sparse_and_streamed(monkeypatch):
    draws = some_draws(5, 9, 40)
    wanted = np.array([[np.mean(draws[:, i] == draws[:, j]) for j in range(9)] for i in range(9)])
    np.testing.assert_array_equal(partitions.similarity_matrix(draws), wanted)
    np.testing.assert_allclose(partitions.similarity_matrix(iter(np.split(draws, [7, 20]))), wanted, atol=1e-15)
    monkeypatch.setattr(similarity, "SMALL", 0)
    monkeypatch.setattr(similarity, "CELLS", 9 * 9 * 8)
    np.testing.assert_array_equal(partitions.similarity_matrix(draws), wanted)


@moderate
@given(arrays(np.int64, (4, 6), elements=hs.integers(-3, 4)))
def test_canonical_by_a_dictionary(draws):
    def first_seen(row):
        names = {}
        return [names.setdefault(value, len(names)) for value in row]

    np.testing.assert_array_equal(partitions.canonical(draws), [first_seen(row) for row in draws])
    np.testing.assert_array_equal(partitions.canonical(draws[0]), first_seen(draws[0]))


def test_distinct_clusters_are_the_draws():
    draws = some_draws(6, 8, 30)
    clusters = similarity.DistinctClusters(draws)
    assert len({tuple(m) for m in clusters.members}) == len(clusters.members)
    for t, draw in enumerate(draws):
        np.testing.assert_array_equal(clusters.members[clusters.index[t]], draw[:, None] == draw)
        assert set(clusters.draws[[t]].indices) == set(clusters.index[t])
    np.testing.assert_allclose(clusters.weights, clusters.draws.toarray().mean(axis=0))


def test_uncertainty_of_certain_doubtful_and_lone_observations():
    draws = np.array([[0, 0, 1, 2], [0, 0, 0, 1], [3, 3, 1, 1], [0, 0, 1, 2]])
    p = partitions.similarity_matrix(draws)
    found = partitions.allocation_uncertainty(p, np.array([0, 0, 1, 2]))
    np.testing.assert_allclose(found, [0, 0, 0.25, 0.25])
    np.testing.assert_allclose(partitions.allocation_uncertainty(p, np.array([0, 0, 0, 1])), [0.375, 0.375, 0.75, 0.25])


# The search.


@pytest.mark.parametrize("n", [1, 2, 4, 6, 7])
def test_the_search_finds_the_exact_minimum(n):
    candidates = every_partition(n)
    assert len(candidates) == {1: 1, 2: 2, 4: 15, 6: 203, 7: 877}[n]
    for seed, loss in enumerate(ALL_LOSSES):
        draws = some_draws(100 * n + seed, n)
        if loss.name in ("vi_lb", "omari_approx"):
            losses = partitions.losses_at_similarity(partitions.similarity_matrix(draws), candidates, loss)
        else:
            losses = np.mean([partitions.distances(candidates, draw, _reversed(loss)) for draw in draws], axis=0)
        found = partitions.point_estimate(draws, loss, starts=6, seed=seed, workers=1)
        assert found.expected_loss == pytest.approx(losses.min(), abs=1e-12), loss.name
        bounded = partitions.point_estimate(draws, loss, starts=6, seed=seed, max_clusters=2, workers=1)
        within = losses[candidates.max(axis=1) < 2].min()
        assert bounded.num_clusters <= 2
        assert bounded.expected_loss == pytest.approx(within, abs=1e-12), loss.name


def _reversed(loss):
    """The loss with draw and estimate changing places."""
    name, _, costs = loss.name.partition("(")
    return partitions.unequal_costs(name, *loss.weights) if costs else loss


def wander(at, draws, loss, steps=60):
    """Random moves: the largest difference between the state's costs, value and sums and a full recomputation."""
    rng, n, worst = np.random.default_rng(0), draws.shape[1], 0.0
    search._allocate(at, rng.permutation(n), n)
    for _ in range(steps):
        i = rng.integers(n)
        own, gains = at.take(i)
        costs, choices = at.costs(gains), np.repeat(at.labels[None], at.num + 1, axis=0)
        choices[:, i] = np.arange(at.num + 1)
        full = np.array([partitions.expected_loss(draws, c, loss) for c in choices])
        k = int(rng.integers(at.num + 1))
        at.put(i, k, gains)
        value = full[k]
        worst = max(worst, np.abs(costs - full).max(), abs(at.value() - value), abs(costs[own] - full[own]))
        everyone = at.all_gains()
        if everyone is not None:
            movable = [_can_improve(draws, at.labels, j, loss) for j in range(n)]
            worst = max(worst, float(not np.array_equal(at.movable(n), np.flatnonzero(movable))))
    return worst


def _can_improve(draws, labels, i, loss):
    choices = np.repeat(labels[None], labels.max() + 2, axis=0)
    choices[:, i] = np.arange(len(choices))
    found = [partitions.expected_loss(draws, c, loss) for c in choices]
    return min(found) < found[labels[i]] - 1e-10


@named
def test_moves_against_full_recomputation(loss):
    draws = some_draws(7, 12, 5)
    assert wander(moves.state(moves.Evidence(draws), loss), draws, loss, steps=12) < 1e-10


def test_planted_bugs_in_moves_are_caught():
    class Late(moves.Tables):
        def _shift(self, i, k, sign):
            if sign > 0:
                super()._shift(i, k, sign)

    class Unwrapped(moves.Tables):
        def _close(self, k):
            self.num -= 1

    draws, loss = some_draws(7, 12, 5), partitions.LOSSES["nid"]
    for broken in (Late, Unwrapped):
        try:
            worst = wander(broken(moves.Evidence(draws), loss), draws, loss, steps=40)
        except IndexError:
            worst = np.inf
        assert worst > 1e-3


def test_nothing_moves_at_the_estimate_and_threads_change_nothing():
    draws = some_draws(8, 30, 50)
    for name in ("vi", "binder", "nid", "vi_lb"):
        alone = partitions.point_estimate(draws, name, workers=1, seed=3)
        together = partitions.point_estimate(draws, name, workers=4, seed=3)
        np.testing.assert_array_equal(alone.partition, together.partition)
        assert alone.history == together.history
        best = alone.expected_loss - 1e-12
        for i, k in itertools.product(range(0, 30, 7), range(alone.num_clusters + 1)):
            moved = alone.partition.copy()
            moved[i] = k
            assert partitions.expected_loss(draws, moved, name) >= best
    without = partitions.point_estimate(draws, "vi", starts=0)
    assert [run.method for run in without.history] == ["draws", "average", "complete"]


def test_zealous_updates_undo_what_does_not_help():
    draws = some_draws(9, 12, 8)
    loss = partitions.LOSSES["omari"]
    at = moves.state(moves.Evidence(draws), loss)
    search._allocate(at, np.arange(12), 12)
    search._descend(at, 12, np.random.default_rng(0))
    before, value = partitions.canonical(at.labels), at.value()
    helped = search._zealous(at, 12, 10, np.random.default_rng(1))
    if not helped:
        np.testing.assert_array_equal(partitions.canonical(at.labels), before)
    assert at.value() == pytest.approx(partitions.expected_loss(draws, at.labels, loss), abs=1e-12)
    assert at.value() <= value + 1e-12


# Bad input.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: partitions.point_estimate(GALAXIES[:4], "vo"), "no loss 'vo'; choose one of vi, "),
        (lambda: partitions.point_estimate(GALAXIES[:4], starts=-1), "starts is -1"),
        (lambda: partitions.point_estimate(GALAXIES[:4], max_clusters=0), "max_clusters is 0"),
        (lambda: partitions.point_estimate(GALAXIES[0]), r"allocations has shape \(82,\)"),
        (lambda: partitions.similarity_matrix(GALAXIES[:4] + 0.5), "not whole numbers"),
        (lambda: partitions.similarity_matrix(iter([])), "no draws"),
        (lambda: partitions.vi(GALAXIES[:4], MIN_VI[:5]), "5 observations and the draws have 82"),
        (lambda: partitions.unequal_costs("nvi", 1, 1), "unequal costs are for vi"),
        (lambda: partitions.unequal_costs("vi", 0, 2), "costs are a = 0"),
        (lambda: partitions.credible_ball(GALAXIES[:4], MIN_VI, level=1.5), "level is 1.5"),
        (lambda: partitions.allocation_uncertainty(np.eye(3), MIN_VI), r"similarity matrix is \(3, 3\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.quick("partitions")
@pytest.mark.parametrize("level", [0.05, 0.5, 0.85, 0.9, 0.95, 1.0])
def test_a_ball_holds_its_level_and_no_smaller_one_does(level):
    """Seven draws, some of them ties: ``level`` of them is no whole number, and is rounded up."""
    draws = np.array([[0, 0, 0, 0]] * 2 + [[0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 1, 1], [0, 1, 2, 3], [0, 1, 2, 2]])
    for loss in partitions.METRICS:
        ball, distance = (
            partitions.credible_ball(draws, draws[0], loss, level),
            partitions.distances(draws, draws[0], loss),
        )
        assert ball.share == (distance <= ball.radius + 1e-12).mean() >= level
        assert (distance < ball.radius - 1e-9).mean() < level
