"""Numbers of the posterior predictive check and of a partition's pictures, against direct computation."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from test_plots import TRUTH, rendered, tree

from dpgmm.partitions import credible_ball
from dpgmm.report import partition_plots, predictive_plots, views
from dpgmm.report.pair_plots import OTHERS, PALETTE


def test_a_margin_is_the_histogram_and_the_bands_of_the_replicates():
    rng = np.random.default_rng(0)
    x, drawn = rng.normal(size=200), rng.normal(size=(50, 200))
    weights = rng.integers(1, 4, 200).astype(float)
    of = predictive_plots.margin("x", x, weights, drawn)
    np.testing.assert_allclose(of.density @ np.diff(of.edges), 1, rtol=1e-12)
    inside = (x >= of.edges[3]) & (x < of.edges[4])
    assert of.density[3] * (of.edges[4] - of.edges[3]) == pytest.approx(weights[inside].sum() / weights.sum())
    counts = ((drawn >= of.edges[15]) & (drawn < of.edges[16])).sum(axis=1) / 200 / (of.edges[16] - of.edges[15])
    np.testing.assert_allclose(of.density_bands[:, 15], np.quantile(counts, predictive_plots.BANDS), rtol=1e-12)
    middle = np.quantile(drawn, 0.5)
    assert of.excess[49] == pytest.approx(weights[x <= middle].sum() / weights.sum() - 0.5)
    below = (drawn <= middle).mean(axis=1) - 0.5
    np.testing.assert_allclose(of.excess_bands[:, 49], np.quantile(below, predictive_plots.BANDS), atol=1e-12)


def test_it_tells_data_that_fit_from_data_that_do_not():
    rng = np.random.default_rng(1)
    drawn, ones = rng.normal(size=(200, 300)), np.ones(300)
    # Under the truth p is uniform: the mean of 40 has a standard error of 0.046.
    fits = [predictive_plots.margin("x", rng.normal(size=300), ones, drawn) for _ in range(40)]
    assert abs(np.mean([of.p for of in fits]) - 0.5) < 4 * 0.046
    assert np.mean([of.outside for of in fits]) < 0.2 * predictive_plots.BINS
    wide = predictive_plots.margin("x", 2 * rng.normal(size=300), ones, drawn)
    assert wide.p < 0.01
    assert wide.outside > 0.3 * predictive_plots.BINS
    assert wide.words().startswith(f"x: {wide.outside} of 30 bins outside the 90 % band")


def test_the_check_is_of_the_coordinates_that_tell_most_and_knows_no_labels():
    one = tree(5)
    seen = views.view([one])
    found = predictive_plots.check(one, seen)
    furthest = np.sort(np.argsort(-seen.separation)[:4])
    assert [of.name for of in found] == [seen.names[d] for d in furthest]
    # Draws of about the truth: 80 points, and 90 % bands.
    assert max(of.outside for of in found) < 0.35 * predictive_plots.BINS
    assert predictive_plots.check(tree(5, "map"), seen) == []


def test_the_picture_shows_the_bands_and_the_data():
    one = tree(1)
    [of] = predictive_plots.check(one, views.view([one]))
    canvas = predictive_plots.picture([of], "#009E73")
    above, below = canvas.axes
    shown: Any = above.collections[0].get_paths()[0].vertices
    np.testing.assert_array_equal(below.lines[0].get_ydata(), of.excess)
    np.testing.assert_array_equal(above.patches[0].get_data().values, of.density)
    assert shown[:, 1].max() == of.density_bands[-1].max()
    rendered(canvas)


def partition_of(dim):
    """The truth as estimate, and a ball of draws that split the second cluster or join it to the first."""
    split, joined = np.where((TRUTH == 1) & (np.arange(80) % 2 == 0), 3, TRUTH), np.where(TRUTH == 1, 0, TRUTH)
    joined = np.where(joined == 2, 1, joined)
    ball = credible_ball(np.stack([TRUTH] * 5 + [split, joined]), TRUTH, level=1.0)
    unsure = np.where(TRUTH == 1, 0.7, 0.0)
    values = lambda array: SimpleNamespace(values=array)
    partition = type("Labels", (), {"values": TRUTH, "__len__": lambda self: 80})()
    found = SimpleNamespace(
        partition=partition, uncertainty=values(unsure), observations=np.arange(80), credible_ball=ball
    )
    found.num_clusters, found.units = 3, "nats"
    return found, tree(dim)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_clusters_and_the_ends_of_the_ball(dim):
    found, one = partition_of(dim)
    titles = list(partition_plots.panels(found))
    assert titles[0] == "estimate: 3 clusters"
    assert titles[1].startswith("fewest clusters: 2, at ")
    assert titles[2].startswith("most clusters: 4, at ")
    assert "25 of 80 observations more uncertain than 0.5" in partition_plots.words(found)
    seen = views.view([one])
    canvas = partition_plots.clusters(one, found, seen)
    collections: Any = canvas.axes[0].collections
    points, rings = collections
    opaque = points.get_facecolor()[:, 3]
    np.testing.assert_allclose(opaque, np.where(TRUTH == 1, 0.3, 1.0))
    np.testing.assert_allclose(points.get_facecolor()[0, :3], to_rgba(PALETTE[0])[:3])
    across = seen.points(one["observed_data/points"].values)[:, 0]
    np.testing.assert_allclose(rings.get_offsets()[:, 0], across[TRUTH == 1])
    rendered(canvas)


def test_ends_take_the_colours_of_the_clusters_that_they_share_most_with():
    colours = partition_plots.colours(np.array([1, 1, 1, 0, 0, 2, 2]), np.array([0, 0, 0, 0, 0, 1, 1]))
    assert colours.tolist() == [PALETTE[0]] * 3 + [PALETTE[2]] * 2 + [PALETTE[1]] * 2
    many = partition_plots.colours(np.arange(12), np.zeros(12, int))
    assert len(set(many[:8])) == 8
    assert set(many[8:]) == {OTHERS}
    # However the clusters are numbered.
    assert partition_plots.colours(np.array([2, 2, 2, 1, 1, 0, 0]), np.array([1, 1, 1, 1, 1, 0, 0])).tolist() == [
        *colours
    ]
