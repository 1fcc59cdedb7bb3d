from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, roots_jacobi, roots_legendre
from scipy.stats import norm

from dpgmm.data import Dataset, compression, datasets
from dpgmm.data import dataset as dataset_module
from dpgmm.data.compression import compress, default_bin_width
from dpgmm.errors import InputError

pytestmark = pytest.mark.quick("data")

property_test = settings(deadline=None, derandomize=True, max_examples=150)
weights_ = st.floats(1e-3, 1e3)
lumps = st.sampled_from([0.0, 1.0, 1.0 + 1e-13, 1.0 - 1e-7, -7.5])  # ties, and values that are nearly tied
weighted_points = st.lists(st.tuples(st.floats(-20, 20) | lumps, weights_), min_size=1, max_size=40)


def dataset(pairs) -> Dataset:
    return Dataset(*(np.array(column) for column in zip(*pairs, strict=True)))


def moments(data: Dataset, middle: float, half: float, degree: int) -> np.ndarray:
    """Moments up to a degree about the middle, in units of half the range, as parts of the total weight."""
    scaled = (data.points[:, 0].astype(np.longdouble) - middle) / half
    return (scaled ** np.arange(degree + 1)[:, None] @ data.weights.astype(np.longdouble)) / data.total_weight


def check_moments(data: Dataset, small: Dataset, nodes: int) -> None:
    x = data.points[data.weights > 0, 0]
    middle, half = (x.max() + x.min()) / 2, (np.ptp(x) or 1.0) / 2
    degree = 2 * nodes - 1
    # A node is a float: its rounding alone moves a moment of degree k by up to k times this.
    rounding = np.finfo(float).eps * np.abs(x).max() / half
    tolerance = 1e-13 + degree * rounding
    errors = np.abs(moments(small, middle, half, degree) - moments(data, middle, half, degree))
    assert errors.max() < tolerance, f"moments differ by {errors}"


def check_sound(data: Dataset, small: Dataset) -> None:
    """Ascending, inside the range, positive, of the same total weight, no more points than there were."""
    x = data.points[data.weights > 0, 0]
    assert small.size <= len(np.unique(x))
    assert (small.weights > 0).all()
    assert (np.diff(small.points[:, 0]) >= 0).all()
    assert x.min() <= small.points.min() <= small.points.max() <= x.max()
    np.testing.assert_allclose(small.total_weight, data.total_weight, rtol=1e-12)


@given(weighted_points, st.integers(1, 6))
@property_test
def test_one_bin_keeps_every_moment_up_to_degree_2q_minus_1(pairs, nodes):
    data = dataset(pairs)
    small = compress(data, 1000.0, nodes)
    assert small.size <= nodes
    check_sound(data, small)
    check_moments(data, small, nodes)


@given(weighted_points, st.floats(0.01, 30), st.integers(1, 5))
@property_test
def test_many_bins_keep_the_moments_and_move_no_weight_further_than_a_bin(pairs, width, nodes):
    data = dataset(pairs)
    small = compress(data, width, nodes)
    check_sound(data, small)
    check_moments(data, small, nodes)
    below = lambda d, at: d.weights[d.points[:, 0] <= at].sum()
    slack, reach = 1e-9 * data.total_weight, width * (1 + 1e-9)
    for at in data.points[:, 0]:
        assert below(data, at - reach) - slack <= below(small, at) <= below(data, at + reach) + slack


@given(weighted_points, st.floats(0.05, 5), st.floats(0.05, 5))
@property_test
def test_a_compressed_set_can_be_compressed_again(pairs, first, second):
    data = dataset(pairs)
    again = compress(compress(data, first), second)
    check_sound(data, again)
    check_moments(data, again, 3)


@pytest.mark.parametrize("shape", ["uniform", "triangular"])
def test_the_nodes_of_a_dense_grid_are_those_of_the_textbook(shape):
    grid = np.linspace(-1, 1, 20_001)
    weights = np.ones_like(grid) if shape == "uniform" else 1 + grid
    weights[[0, -1]] /= 2  # the trapezoidal rule, so that the sums are integrals to 1e-8
    small = compress(Dataset(grid, weights), 10.0, nodes=5)
    nodes, expected = roots_legendre(5) if shape == "uniform" else roots_jacobi(5, 0, 1)
    np.testing.assert_allclose(small.points[:, 0], nodes, atol=1e-6)
    np.testing.assert_allclose(small.weights / small.total_weight, expected / expected.sum(), atol=1e-6)


def by_midpoints(points, weights, starts, counts, nodes):
    ends = starts + counts - 1
    return (points[starts] + points[ends]) / 2, np.add.reduceat(weights, starts)


@pytest.mark.parametrize("width", [1000.0, 0.5])
def test_the_check_of_moments_notices_midpoints_means_and_a_node_too_few(monkeypatch, width):
    data = Dataset(np.random.default_rng(0).gamma(2.0, size=300))
    check_moments(data, compress(data, width), 3)
    for nodes in (1, 2):
        with pytest.raises(AssertionError, match="moments differ"):
            check_moments(data, compress(data, width, nodes), 3)
    monkeypatch.setattr(compression, "_gauss", by_midpoints)
    with pytest.raises(AssertionError, match="moments differ"):
        check_moments(data, compress(data, width), 3)


def test_bins_of_few_distinct_values_keep_them():
    data = Dataset([2.0, 1.0, 2.0, 1.0, 1.5, 50.0], [1, 1, 3, 1, 2, 7])
    small = compress(data, 10.0)
    np.testing.assert_array_equal(small.points[:, 0], [1, 1.5, 2, 50])
    np.testing.assert_array_equal(small.weights, [2, 2, 4, 7])


@pytest.mark.parametrize(
    "values", [[3.7], [0.1] * 1000, [0.0, 1e-300], [5e-324, 0, 1e-323, 1.5e-323, 2e-323], [1e100, -1e100, 0]]
)
def test_degenerate_data_are_kept(values):
    data = Dataset(values)
    small = compress(data)
    check_sound(data, small)
    assert default_bin_width(data) > 0
    if len(set(values)) <= 3:
        np.testing.assert_array_equal(small.points[:, 0], sorted(set(values)))


@pytest.mark.parametrize("width", [1e-320, 1e-12, 1e300])
def test_absurd_widths_work(width):
    data = Dataset(np.random.default_rng(0).normal(size=50))
    small = compress(data, width)
    check_sound(data, small)
    assert small.size == (50 if width < 1 else 3)


def test_points_of_no_weight_are_dropped():
    data = Dataset([0.0, 1.0, 99.0], [0, 2, 0])
    np.testing.assert_array_equal(compress(data).points, [[1.0]])
    unseen = np.linspace(-1, 4, 50)
    data = Dataset([*unseen, 0.0, 1.0, 2.0], [0] * 50 + [1, 2, 3])
    np.testing.assert_array_equal(compress(data, 100.0).points[:, 0], [0, 1, 2])


@pytest.mark.parametrize(("weights", "size"), [([1] * 8, 3), ([1] * 6 + [1e-30, 1], 2), ([1] * 6 + [1e-30, 1e30], 1)])
def test_lopsided_weights_and_near_ties_stop_the_recurrence_early(weights, size):
    near = 1 + np.arange(6) * 2.0**-52
    data = Dataset([*near, 2.0, 3.0], weights)
    small = compress(data, 100.0, nodes=6)
    assert small.size == size
    check_sound(data, small)
    check_moments(data, small, 6)


def test_outliers_neither_widen_the_bins_nor_blur_them():
    bulk = np.random.default_rng(0).normal(size=5000)
    outliers = [-1e99, -1e12, 1e12, 1e99]
    data = Dataset(np.concatenate([outliers, bulk]))
    assert default_bin_width(data) == pytest.approx(default_bin_width(Dataset(bulk)), rel=0.05)
    small = compress(data)
    inner = np.abs(small.points[:, 0]) < 1e6
    np.testing.assert_array_equal(small.points[~inner, 0], outliers)
    assert 150 < inner.sum() < 1000
    check_moments(Dataset(bulk), Dataset(small.points[inner], small.weights[inner]), 3)


def test_the_default_width_is_robust_to_ties_too():
    rng = np.random.default_rng(0)
    mostly_zero = np.concatenate([np.zeros(900), rng.normal(size=99), [1e12]])
    assert 0.01 < default_bin_width(Dataset(mostly_zero)) < 0.1


@given(weighted_points, st.sampled_from([-3, 0, 5]), st.integers(-64, 64))
@property_test
def test_bins_move_and_stretch_with_the_data(pairs, power, shift):
    """Powers of two and short integers, so that the numbers are scaled and shifted without rounding."""
    data = dataset([*((round(64 * x), w) for x, w in pairs), (0, 1.0), (1, 1.0)])
    small, moved = compress(data), compress(Dataset(data.points * 2.0**power + shift, data.weights))
    np.testing.assert_allclose(moved.points, small.points * 2.0**power + shift, rtol=0, atol=1e-9)
    np.testing.assert_allclose(moved.weights, small.weights, rtol=1e-8)


# The figures that make compression worth having. Oracle: scipy, all points at once.

TRUTH = np.array(datasets.COUNTS) / sum(datasets.COUNTS), np.array(datasets.LOCATIONS), np.array(datasets.SCALES)


def log_likelihood(components, data: Dataset) -> float:
    weights, means, scales = components
    terms = np.log(weights) + norm.logpdf(data.points, means, scales)
    return float(data.weights @ logsumexp(terms, axis=1))


def error(components, data: Dataset, small: Dataset) -> float:
    return abs(log_likelihood(components, data) - log_likelihood(components, small))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return datasets.four_gaussians()


@pytest.fixture(scope="module")
def components():
    """Twenty random mixtures of 50 components, as wide as the data allow and as narrow as a fifth of their scale."""
    rng = np.random.default_rng(0)
    return [(rng.dirichlet(np.ones(50)), rng.uniform(-12, 13, 50), np.exp(rng.normal(0, 0.5, 50))) for _ in range(20)]


@pytest.mark.parametrize(("bins", "size", "at_truth", "at_random"), [(30, 366, 1e-6, 1.2e-4), (60, 710, 1e-8, 6e-6)])
def test_few_points_stand_for_19000(data, components, bins, size, at_truth, at_random):
    small = compress(data, data.scale[0] / bins)
    assert abs(small.size - size) <= 2
    assert error(TRUTH, data, small) < at_truth
    assert max(error(c, data, small) for c in components) < at_random


def test_the_default_is_a_thirtieth_of_the_standard_deviation(data):
    assert default_bin_width(data) == data.scale[0] / 30


def test_a_component_narrower_than_a_bin_is_not_resolved(data):
    """Why there is a certificate: nats, where a component of a fifth of the weight shrinks to 0.4 bin widths."""
    width = default_bin_width(data)
    small = compress(data, width)
    errors = [
        error((np.array([0.2, 0.8]), np.array([-5.0, 0.0]), np.array([ratio * width, 6.0])), data, small)
        for ratio in (4, 2, 1, 0.4)
    ]
    assert errors[0] < 1e-6
    assert errors[1] < 1e-4
    assert errors[3] > 1
    assert errors[3] > 100 * errors[2]


def test_more_nodes_are_more_accurate(data, components):
    errors = [error(components[0], data, compress(data, data.scale[0] / 10, nodes)) for nodes in (1, 2, 3, 5)]
    assert all(later < earlier / 3 for earlier, later in pairwise(errors))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bin_width": 0.0}, "bin_width is 0.0; give a positive, finite number"),
        ({"bin_width": -1.0}, r"bin_width is -1.0"),
        ({"bin_width": np.nan}, "bin_width is nan"),
        ({"bin_width": np.inf}, "bin_width is inf"),
        ({"nodes": 0}, "nodes is 0; give a whole number of 1 or more"),
        ({"nodes": 2.5}, "nodes is 2.5"),
        ({"nodes": True}, "nodes is True"),
    ],
)
def test_bad_options_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        compress(Dataset([1.0, 2.0]), **arguments)


def test_more_than_one_column_is_refused():
    with pytest.raises(InputError, match="plane: 2 columns, and compression is for one; choose one column"):
        compress(Dataset(np.zeros((3, 2)), name="plane"))


@given(weighted_points, st.floats(0.01, 30), st.integers(1, 4), st.integers(1, 9))
@property_test
def test_piece_by_piece_it_is_the_same_compression(pairs, width, nodes, rows):
    """Of more points than are looked at in one piece, moments and range of every bin are still those of its points."""
    data = dataset(pairs)
    with pytest.MonkeyPatch.context() as patch:
        for module in (compression, dataset_module):
            patch.setattr(module, "ROWS", rows)
        small = compress(data, width, nodes)
    center = compression.middle(data)
    bins = lambda d: np.floor((d.points[:, 0] - center) / width + 0.5)
    for b in np.unique(bins(data)):
        # A node at a bin's very end may be rounded into the next.
        of = Dataset(*(a[bins(data) == b] for a in (data.points, data.weights)))
        x = of.points[:, 0]
        inside = (small.points[:, 0] >= x.min()) & (small.points[:, 0] <= x.max())
        part = Dataset(small.points[inside], small.weights[inside])
        assert part.size <= min(nodes, len(np.unique(x)))
        check_sound(of, part)
        check_moments(of, part, nodes)


def test_some_of_many_points_lay_out_the_bins(monkeypatch):
    """Quartiles of a sample: half of 40,000 points weigh nothing and lie elsewhere."""
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(3, 1, 20_000), rng.normal(900, 1, 20_000)])
    data = Dataset(points, np.repeat([1.0, 0.0], 20_000))
    exact = compression.middle(data), default_bin_width(data)
    monkeypatch.setattr(compression, "SOME", 5_000)
    # The standard error of a quartile of m points of a standard normal is 1.36 / sqrt(m), of the median 1.25 / sqrt(m).
    assert compression.middle(data) == pytest.approx(exact[0], abs=4 * 1.25 / 5_000**0.5)
    assert default_bin_width(data) == pytest.approx(exact[1], rel=4 * 1.36 * 2**0.5 / 1.349 / 5_000**0.5)
