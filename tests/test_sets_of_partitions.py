"""Credible sub-partitions, Wasserstein particles and conformal sets of partitions against enumeration of few points."""

import itertools

import numpy as np
import pytest
import xarray as xr
from few_points import posterior

import dpgmm
from dpgmm import InputError, draws, exact, partitions
from dpgmm.data import Dataset
from dpgmm.partitions import OUT

CASES = range(12)
ATOMS = 0.1
"""Probability by which a set of few partitions, each likely, may be larger than asked for."""


def noisy(seed, n=6, num_draws=60, errors=0.15):
    """Draws around four partitions, some of their labels wrong."""
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, 3, (4, n))[rng.integers(0, 4, num_draws)]
    return np.where(rng.random(clean.shape) < errors, rng.integers(0, 4, clean.shape), clean)


def renamed(labels, seed=0):
    """The same partitions under other labels in every draw."""
    rng = np.random.default_rng(seed)
    names = np.stack([rng.permutation(labels.max() + 5) for _ in labels])
    return np.take_along_axis(names, labels, axis=1)


def subpartitions(n):
    """All partitions of all subsets: those of n + 1 points, the cluster of the first of which is left out."""
    labels = exact.all_partitions(n + 1).astype(int)
    return np.where(labels[:, 1:] == 0, OUT, labels[:, 1:])


def largest(labels, gamma):
    """Size and probability of the best sub-partition, by enumeration of them all, pair by pair."""
    best = 0, 0.0
    for some in subpartitions(labels.shape[1])[:-1]:
        inside = np.flatnonzero(some != OUT)
        if len(inside) >= max(best[0], 1):
            drawn, wanted = labels[:, inside], some[inside]
            same = (drawn[:, :, None] == drawn[:, None]) == (wanted[:, None] == wanted)
            probability = float(same.all(axis=(1, 2)).mean())
            best = max(best, (len(inside), probability)) if probability >= gamma else best
    return best


def enumerated():
    """All partitions of eight points and their posterior probabilities."""
    truth = exact.partitions(posterior())
    probability = np.exp(truth.log_posterior)
    return truth.labels.astype(int), probability / probability.sum()


@pytest.mark.parametrize("gamma", [0.9, 0.5, 0.15])
@pytest.mark.parametrize("seed", CASES[:6])
def test_sub_partition_is_the_largest_of_all(seed, gamma):
    labels = noisy(seed)
    found = partitions.subpartition(labels, gamma)
    assert (found.size, found.probability) == largest(labels, gamma)
    assert found.probability == found.holds.mean() >= gamma


def test_sub_partition_of_eight_points_of_a_posterior():
    """Of draws of the exact posterior; its exact probability is within Monte Carlo error of the share of draws."""
    labels, probability = enumerated()
    some = labels[np.random.default_rng(0).choice(len(probability), 400, p=probability)]
    found = partitions.subpartition(renamed(some), 0.6)
    assert (found.size, found.probability) == largest(some, 0.6)
    exactly = probability[partitions.holds(labels, found.partition)].sum()
    # The largest of many shares is too large by more than one share is: five standard errors.
    assert abs(exactly - found.probability) < 5 * np.sqrt(exactly * (1 - exactly) / 400)


def test_sub_partition_knows_no_labels_and_no_order():
    labels = noisy(3, n=30, num_draws=300, errors=0.03)
    found = partitions.subpartition(labels, 0.3)
    again = partitions.subpartition(renamed(labels), 0.3)
    np.testing.assert_array_equal(again.partition, found.partition)
    order = np.random.default_rng(1).permutation(30)
    other = partitions.subpartition(labels[:, order], 0.3)
    assert (other.size, other.probability) == (found.size, found.probability)


def test_more_probability_asks_for_fewer_observations():
    labels = noisy(5, n=30, num_draws=300, errors=0.03)
    sizes = [partitions.subpartition(labels, gamma).size for gamma in (0.05, 0.3, 0.6, 0.9, 1.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 2
    sure = partitions.subpartition(np.tile(labels[0], (10, 1)), 1.0)
    np.testing.assert_array_equal(sure.partition, partitions.canonical(labels[0]))


def test_where_draws_agree_on_nothing_one_observation_is_left():
    labels = np.stack([np.zeros(3, int), np.arange(3)])
    found = partitions.subpartition(labels, 0.9)
    assert (found.size, found.probability, found.num_clusters) == (1, 1.0, 1)


@pytest.mark.parametrize("loss", ["vi", "binder"])
def test_all_pairs_of_partitions_are_those_of_distances(loss):
    one, other = noisy(0, num_draws=7), noisy(1, num_draws=9)
    wanted = [partitions.distances(other, row, loss) for row in one]
    np.testing.assert_allclose(partitions.pairwise(one, other, loss), wanted, atol=1e-12)


@pytest.mark.parametrize("num", [2, 3])
def test_particles_are_nearest_of_all(num):
    """The search is local, as k-means is: never below the enumerated optimum, at it but for some, there within 3%."""
    everything, at_best = exact.all_partitions(5).astype(int), 0
    for seed in CASES:
        labels = noisy(seed, n=5)
        distance = partitions.pairwise(everything, labels)
        best = min(distance[list(some)].min(axis=0).mean() for some in itertools.combinations(range(52), num))
        found = partitions.particles(labels, num, starts=2, workers=1)
        assert best - 1e-9 <= found.distance <= 1.03 * best
        at_best += found.distance < best + 1e-9
    assert at_best >= len(CASES) - 2


def test_particles_are_consistent_and_in_order():
    kinds = noisy(2, n=12, num_draws=4)
    labels = np.repeat(kinds, [10, 40, 20, 30], axis=0)  # no order of these four is its own inverse
    labels[:, 0] = np.random.default_rng(0).integers(0, 2, 100)
    found = partitions.particles(labels, 4, starts=2)
    distance = partitions.pairwise(found.partitions, labels)
    np.testing.assert_array_equal(distance.argmin(axis=0), found.nearest)
    assert found.distance == pytest.approx(distance.min(axis=0).mean())
    np.testing.assert_allclose(found.weights, np.bincount(found.nearest) / 100)
    assert list(found.weights) == sorted(found.weights, reverse=True)
    assert found.weights @ found.expected_losses == pytest.approx(found.distance)
    for k, particle in enumerate(found.partitions):
        mine = labels[found.nearest == k]
        best = partitions.point_estimate(mine, starts=2).expected_loss
        assert partitions.expected_loss(mine, particle) <= best + 1e-9


def test_one_particle_is_the_point_estimate_and_more_are_nearer():
    labels = noisy(4, n=12, num_draws=200)
    one = partitions.particles(labels, 1)
    estimate = partitions.point_estimate(labels)
    np.testing.assert_array_equal(one.partitions[0], estimate.partition)
    assert one.distance == pytest.approx(estimate.expected_loss)
    curve = [partitions.particles(labels, num, starts=2).distance for num in (1, 2, 3, 4)]
    assert curve == sorted(curve, reverse=True)
    assert curve[3] < 0.7 * curve[0]


def test_two_kinds_of_draws_are_found_with_their_shares_whatever_the_labels_and_the_order():
    kinds = np.stack([np.repeat([0, 1], 10), np.tile([0, 1], 10)])
    labels = kinds[(np.arange(100) < 30).astype(int)]
    order = np.random.default_rng(0).permutation(20)
    for some, wanted in ((renamed(labels), kinds), (labels[:, order], kinds[:, order])):
        found = partitions.particles(some, 5)  # three fewer than asked for: there are two
        np.testing.assert_array_equal(found.partitions, partitions.canonical(wanted))
        np.testing.assert_allclose(found.weights, [0.7, 0.3])
        assert found.distance == pytest.approx(0, abs=1e-12)


def test_score_and_p_value_are_their_formulas():
    labels = noisy(6, n=5, num_draws=101)
    found = partitions.conformal(labels, kernel=0.7, seed=3)
    training = np.repeat(found.training, found.training_counts, axis=0)
    calibration = np.repeat(found.calibration, found.calibration_counts, axis=0)
    assert len(training) + len(calibration) == 101
    joined = np.unique(np.concatenate([training, calibration]), axis=0, return_counts=True)
    for a, b in zip(joined, np.unique(partitions.canonical(labels), axis=0, return_counts=True), strict=True):
        np.testing.assert_array_equal(a, b)
    score = lambda row: np.exp(-0.7 * partitions.distances(training, row)).mean()
    of_calibration = np.array([score(row) for row in calibration])
    for partition in exact.all_partitions(5).astype(int):
        assert found.score(partition) == pytest.approx(score(partition))
        wanted = (1 + (of_calibration <= score(partition) + 1e-12).sum()) / (1 + len(calibration))
        assert found.p_value(partition) == pytest.approx(wanted)
        assert found.contains(partition, 0.8) == (wanted >= 0.2 - 1e-12)
    assert found.score(found.partition) == pytest.approx(of_calibration.max())


def test_the_credible_set_has_its_probability_under_the_exact_posterior():
    """Mean over sets from independent draws of the exact posterior: level or more, but for Monte Carlo error."""
    labels, probability = enumerated()
    rng, coverage = np.random.default_rng(0), []
    for seed in range(40):
        some = labels[rng.choice(len(probability), 200, p=probability)]
        found = partitions.conformal(some, seed=seed)
        kernel = np.exp(-found.kernel * partitions.pairwise(labels, found.training))
        scores = kernel @ found.training_counts / found.training_counts.sum()
        at_most = (found.scores <= scores[:, None] * (1 + 1e-12)) @ found.calibration_counts
        coverage.append(probability[(1 + at_most) / 101 >= 0.2].sum())
        assert (1 + at_most[5]) / 101 == pytest.approx(found.p_value(labels[5]))
    error = np.std(coverage, ddof=1) / np.sqrt(len(coverage))
    assert 0.8 - 3 * error < np.mean(coverage) < 0.8 + 2 / 101 + 3 * error + ATOMS


def test_what_lies_between_two_modes_is_in_the_ball_but_not_in_the_conformal_set():
    n = 40
    rng = np.random.default_rng(0)
    kinds = np.stack([np.zeros(n, int), np.repeat([0, 1], n // 2)])
    labels = kinds[(rng.random(300) < 0.4).astype(int)]
    stray = rng.integers(0, n, 300)
    labels[np.arange(300), stray] = 2
    found = partitions.conformal(labels, kernel=5.0)
    modes, weights = found.modes(2)
    np.testing.assert_allclose(partitions.pairwise(modes, kinds).min(axis=0) < 0.5, [True, True])
    assert weights == pytest.approx([0.6, 0.4], abs=0.15)
    between = np.where(np.arange(n) < n // 8, 1, 0)
    ball = partitions.credible_ball(labels, kinds[0], level=0.9)
    assert partitions.vi(between, kinds[0]) < ball.radius
    assert not found.contains(between, 0.9)
    assert found.contains(modes[0], 0.9)
    assert found.contains(modes[1], 0.9)
    assert found.p_value(np.arange(n)) == pytest.approx(1 / (1 + found.calibration_counts.sum()))


def test_separations_are_losses_to_the_nearest_of_higher_score():
    found = partitions.conformal(noisy(8, n=8, num_draws=80))
    distance = partitions.pairwise(found.calibration, found.calibration)
    top = found.scores.argmax()
    assert (found.separations[top], found.parents[top]) == (distance[top].max(), top)
    for k in np.flatnonzero(np.arange(len(distance)) != top):
        higher = distance[k, found.scores > found.scores[k]]
        assert found.scores[found.parents[k]] >= found.scores[k]
        assert found.separations[k] == distance[k, found.parents[k]]
        assert found.separations[k] == higher.min() or found.scores[found.parents[k]] == found.scores[k]


def test_conformal_knows_no_labels_and_no_order():
    labels = noisy(9, n=12, num_draws=100)
    order = np.random.default_rng(1).permutation(12)
    found, other = partitions.conformal(labels), partitions.conformal(renamed(labels))
    turned = partitions.conformal(labels[:, order])
    for partition in (labels[0], labels[1], np.zeros(12, int)):
        assert found.p_value(partition) == other.p_value(partition)
        assert found.p_value(partition) == turned.p_value(partition[order])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: partitions.subpartition(z, 0), "gamma is 0; give a probability"),
        (lambda z: partitions.subpartition(z, starts=0), "starts = 0"),
        (lambda z: partitions.holds(z, [0, 1]), "of 2 observations"),
        (lambda z: partitions.particles(z, 0), "num_particles = 0"),
        (lambda z: partitions.particles(z, 2, "omari"), "omari is no metric"),
        (lambda z: partitions.conformal(z, "nope"), "no loss 'nope'"),
        (lambda z: partitions.conformal(z, kernel=-1), "kernel = -1"),
        (lambda z: partitions.conformal(z, training=1), "training is 1"),
        (lambda z: partitions.conformal(z[:1]), "one draw cannot be split"),
        (lambda z: partitions.conformal(z).contains(z[0], 1), "level is 1"),
        (lambda z: partitions.conformal(z).modes(0), "num = 0"),
        (lambda z: partitions.conformal(z).p_value([0, 1]), "has 2 observations"),
        (lambda z: partitions.pairwise(z, z[:, :3]), "of 6 and of 3"),
        (lambda z: partitions.pairwise(z, z, "vi_lb"), "no loss between two partitions"),
    ],
)
def test_what_cannot_be_is_told(call, message):
    with pytest.raises(InputError, match=message):
        call(noisy(0))


def switching_tree(*, kept):
    """Three far Gaussians under other labels in every draw; the first two of twelve points are anywhere.

    Where allocations are kept, point 7 is with others in the first eight draws.
    """
    rng = np.random.default_rng(1)
    chains, num, centres, true = 2, 100, np.array([-10.0, 0.0, 10.0]), np.repeat([0, 1, 2], 4)
    order = np.stack([rng.permutation(3) for _ in range(chains * num)]).reshape(chains, num, 3)
    means = centres[order] + 0.1 * rng.normal(size=order.shape)
    weights = np.array([0.5, 0.3, 0.2])[order]
    over = ("chain", "draw", "component")
    dataset = xr.Dataset(
        {
            "weights": (over, weights),
            "means": ((*over, "dim"), means[..., None]),
            "covariances": ((*over, "dim", "dim_"), np.ones((chains, num, 3, 1, 1))),
        },
        coords={"chain": np.arange(chains), "draw": np.arange(num)},
    )
    points = centres[true] + np.linspace(-1, 1, 12)
    points[:2] = [-5.0, 5.0]
    tree = xr.DataTree.from_dict({"posterior": dataset, "observed_data": draws.observed(Dataset(points))})
    if kept:
        labels = np.argsort(order, axis=-1)[:, :, true]
        labels[..., :2] = rng.integers(0, 3, (chains, num, 2))
        labels[0, :8, 7] = labels[0, :8, 11]
        tree["sample_stats"] = xr.DataTree(xr.Dataset({"allocations": (("chain", "draw", "obs"), labels)}))
    return tree


@pytest.mark.quick("partitions")
@pytest.mark.parametrize("kept", [True, False])
def test_parameters_of_a_sub_partition_need_no_relabelling(kept):
    tree = switching_tree(kept=kept)
    found = partitions.chips(tree, 0.9)
    assert int(found.holds.sum()) == (192 if kept else 200)
    np.testing.assert_array_equal(found.partition, [OUT] * 2 + [0] * 2 + [1] * 4 + [2] * 4)
    assert found.holds.dims == ("chain", "draw")
    assert found.probability == float(found.holds.mean())
    assert found.parameters is not None
    assert dict(found.parameters.sizes) == {"sample": int(found.holds.sum()), "cluster": 3, "dim": 1, "dim_": 1}
    means, weights = found.parameters["means"].values[..., 0], found.parameters["weights"].values
    assert np.abs(means - [-10, 0, 10]).max() < 1  # raw components are at any of the three
    np.testing.assert_allclose(weights, np.tile([0.5, 0.3, 0.2], (len(weights), 1)))
    chain, draw = found.parameters["chain"].values[7], found.parameters["draw"].values[7]
    assert means[7, 0] in tree["posterior"]["means"].sel(chain=chain, draw=draw).values
    assert list(found.table()["observations"]) == [2, 4, 4]


def test_anybodys_labels_have_sets_but_no_parameters():
    labels = noisy(0, n=12, num_draws=100).reshape(2, 50, 12)
    dataset = xr.Dataset({"z": (("chain", "draw", "i"), labels)})
    found = partitions.chips(dataset, 0.5, allocations="z")
    flat = labels.reshape(-1, 12)
    np.testing.assert_array_equal(found.partition, partitions.subpartition(flat, 0.5).partition)
    assert found.parameters is None
    assert list(found.table().columns) == ["cluster", "observations"]
    assert 0 < found.probability_mcse < 0.2
    several = partitions.wasabi(dataset, 2, allocations="z", starts=2)
    np.testing.assert_array_equal(several.partitions, partitions.particles(flat, 2, starts=2).partitions)
    assert several.nearest.dims == ("chain", "draw")
    typical = partitions.cbi(dataset, allocations="z")
    assert typical.p_value(flat[0]) == partitions.conformal(flat).p_value(flat[0])
    assert list(typical.table().columns) == ["mode", "weight", "clusters", "p-value"]
    one = xr.Dataset({"z": (("draw", "i"), flat)})
    np.testing.assert_array_equal(partitions.chips(one, 0.5, allocations="z").partition, found.partition)


def test_of_many_observations_a_sample_is_taken_and_told():
    found = partitions.chips(switching_tree(kept=True), 0.9, limit=6)
    assert len(found.observations) == 6
    assert "6 of 12 observations" in found.notes[1]
    assert np.all(found.partition.values[found.observations < 2] == OUT)
    with pytest.raises(InputError, match="limit = 0"):
        dpgmm.partitions.wasabi(switching_tree(kept=True), limit=0)
