"""Projections against brute force, and pictures and reports of draws made by hand in two, five and fifty dimensions."""

import io
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib import pyplot
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgba
from scipy import stats

from dpgmm import InputError, diagnostics, draws, report
from dpgmm.data import Dataset, read
from dpgmm.draws.components import Components
from dpgmm.labels import summary
from dpgmm.report import label_plots, pair_plots, plots, views

SIZES = 40, 25, 15
APART = 3, 11, 17, 23, 31, 41
"""Coordinates that tell clusters apart where D = 50."""


def covariance(dim, seed=0):
    factor = np.random.default_rng(seed).normal(size=(dim, dim + 3))
    return factor @ factor.T / (dim + 3)


def tree(dim, method="nuts", chains=2, length=8, num_components=3, columns=()):
    """Draws about three clusters of 40, 25 and 15 points; a component without points stands last. MAP has a path."""
    rng = np.random.default_rng(5)
    shifts = np.zeros((4, dim))
    for k, d in enumerate(APART if dim == 50 else range(min(dim, 3))):
        shifts[1 + k % 2, d] = 8.0 + k
    cov = covariance(dim) if dim < 50 else np.eye(dim)
    points = np.concatenate([rng.multivariate_normal(s, cov, n) for s, n in zip(shifts, SIZES, strict=False)])
    shape = (chains, length, num_components)
    weights = np.array([0.5, 0.3, 0.198, 0.002])[:num_components] * np.exp(0.05 * rng.normal(size=shape))
    means = shifts[:num_components] + 0.1 * rng.normal(size=(*shape, dim))
    dims = "chain", "draw", "component"
    components = {
        "weights": (dims, weights / weights.sum(axis=-1, keepdims=True)),
        "means": ((*dims, "dim"), means),
        "covariances": ((*dims, "dim", "dim_"), np.broadcast_to(cov, (*shape, dim, dim))),
    }
    noise = lambda: (dims[:2], rng.normal(size=shape[:2]))
    stat = xr.Dataset({"log_joint": noise(), "total_log_likelihood": noise()})
    stat["active_components"] = dims[:2], np.full(shape[:2], num_components)
    data = Dataset(points, columns=columns)
    groups = {"posterior": xr.Dataset(components), "sample_stats": stat, "observed_data": draws.observed(data)}
    if method == "map":
        path = xr.Dataset(components).rename(draw="snapshot")
        path["loss"] = ("chain", "step"), np.linspace(9, 0, 20) + np.zeros((chains, 1))
        groups["optimisation"] = path.assign_coords(snapshot_step=("snapshot", np.arange(length)))
        groups["posterior"], groups["sample_stats"] = (groups[n].isel(draw=[-1]) for n in ("posterior", "sample_stats"))
    made = xr.DataTree.from_dict({name: draws.with_coordinates(group) for name, group in groups.items()})
    made.attrs = {"method": method, "model": "by hand", "data": "three", "run_seconds": 1.0, "compile_seconds": 1.0}
    made.attrs |= {"compression": "{}", "columns": str(list(columns)).replace("'", '"')}
    made.attrs["point_estimate"] = int(method == "map")
    return made


TRUTH = np.repeat([0, 1, 2], SIZES)
ESTIMATE = SimpleNamespace(partition=SimpleNamespace(values=TRUTH), observations=np.arange(80))


def rendered(canvas):
    canvas.savefig(io.BytesIO(), dpi=50)
    return canvas


def test_an_ellipse_is_the_outline_of_the_ellipsoid_it_projects():
    rng = np.random.default_rng(1)
    cov, mean, matrix = covariance(5), rng.normal(size=5), rng.normal(size=(2, 5))
    flat = views.project(Components(np.ones(1), mean[None], cov[None]), matrix)
    outline = views.ellipse(flat.means[0], flat.covariances[0])
    whiten = np.linalg.inv(np.linalg.cholesky(matrix @ cov @ matrix.T))
    np.testing.assert_allclose(np.linalg.norm(whiten @ (outline - (matrix @ mean)[:, None]), axis=0), 2, rtol=1e-9)
    sphere = rng.normal(size=(5, 100_000))
    surface = mean[:, None] + 2 * np.linalg.cholesky(cov) @ (sphere / np.linalg.norm(sphere, axis=0))
    seen = whiten @ (matrix @ surface - (matrix @ mean)[:, None])
    distance, sector = np.linalg.norm(seen, axis=0), np.floor(6 * (1 + np.arctan2(*seen) / np.pi)).astype(int)
    assert distance.max() <= 2 + 1e-9
    assert all(distance[sector == s].max() > 1.98 for s in range(12))


def test_a_pair_of_coordinates_has_the_marginal_covariance_and_not_the_conditional_one():
    cov = covariance(5)
    single = Components(np.ones(1), np.zeros((1, 5)), cov[None])
    pair = views.coordinates(single, [3, 1])
    np.testing.assert_array_equal(pair.covariances[0], [[cov[3, 3], cov[3, 1]], [cov[1, 3], cov[1, 1]]])
    np.testing.assert_allclose(pair.covariances, views.project(single, np.eye(5)[[3, 1]]).covariances)
    slice_ = np.linalg.inv(np.linalg.inv(cov)[np.ix_([3, 1], [3, 1])])
    assert np.linalg.det(slice_) < 0.9 * np.linalg.det(pair.covariances[0])


@pytest.mark.parametrize("dim", [1, 2])
def test_density_is_that_of_scipy(dim):
    rng = np.random.default_rng(2)
    weights, means = np.array([[0.7, 0.3], [0.2, 0.8]]), rng.normal(size=(2, 2, dim))
    covs = np.stack([[covariance(dim, 2 * t + k) for k in range(2)] for t in range(2)])
    points = rng.normal(size=(7, dim))
    for found, w, m, c in zip(views.density(Components(weights, means, covs), points), weights, means, covs):  # noqa: B905
        expected = sum(w[k] * stats.multivariate_normal(m[k], c[k]).pdf(points) for k in range(2))
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_regions_of_highest_density_hold_their_share():
    """Of a Gaussian in the plane, the region that holds a share s is where the density exceeds (1 - s) of its peak."""
    cov = np.array([[2.0, 0.6], [0.6, 1.0]])
    x = np.linspace(-8, 8, 401)
    grid = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    values = views.density(Components(np.ones((1, 1)), np.zeros((1, 1, 2)), cov[None, None]), grid)[0]
    np.testing.assert_allclose(views.levels(values, [0.9, 0.5]) / values.max(), [0.1, 0.5], rtol=0.01)


def test_the_first_discriminant_is_fishers_and_the_second_uncorrelated_with_it():
    """For two components of one covariance W: proportional to ``W^{-1} (mu_1 - mu_2)`` (Fisher 1936)."""
    cov, shift = covariance(4, 3), np.array([3.0, 0.0, -1.0, 0.5])
    between, within = views.scatter(
        [Components(np.array([0.3, 0.3]), np.stack([0 * shift, shift]), np.stack([cov] * 2))]
    )
    np.testing.assert_allclose(between, np.outer(shift, shift) / 4)
    rows, loadings = views.discriminants(between, within)
    fisher = np.linalg.solve(cov, shift)
    cosine = rows[0] @ fisher / np.linalg.norm(rows[0]) / np.linalg.norm(fisher)
    assert abs(cosine) == pytest.approx(1, abs=1e-6)
    assert rows[0] @ (between + within) @ rows[1] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(np.linalg.norm(loadings, axis=1), 1)
    units = np.array([1e3, 1e-3, 1.0, 7.0])
    scaled = views.discriminants(between * np.outer(units, units), within * np.outer(units, units))
    np.testing.assert_allclose(scaled[0] * units, rows, rtol=1e-5)


def test_in_fifty_dimensions_the_six_that_separate_are_shown():
    seen = views.view([tree(50)])
    assert set(seen.shown) == set(APART)
    assert np.all(np.diff(seen.separation[list(seen.shown)]) <= 0)
    assert seen.separation[list(APART)].min() > 0.5 > np.delete(seen.separation, APART).max()
    flat = seen.points(tree(50)["observed_data"]["points"].values)
    centres = np.stack([flat[c == TRUTH].mean(axis=0) for c in range(3)])
    spread = max(flat[c == TRUTH].std(axis=0).max() for c in range(3))
    assert min(np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 5 * spread


@pytest.mark.parametrize(("dim", "panels"), [(2, 3), (3, 7), (4, 11), (50, 22)])
def test_pair_plots_have_a_panel_a_pair_and_one_for_the_plane(dim, panels):
    """And nothing is cut off, nor does the plane cover other panels, where names are long."""
    draws_ = tree(dim, columns=tuple(f"{d}, of a long name" for d in range(dim)))
    canvas = rendered(pair_plots.pairs(draws_, views.view([draws_]), "#009E73", ESTIMATE))
    assert len(canvas.axes) == panels
    boxes = [axis.get_tightbbox() for axis in canvas.axes]
    inside = canvas.bbox
    assert all(inside.x0 <= b.x0 and b.x1 <= inside.x1 and inside.y0 <= b.y0 and b.y1 <= inside.y1 for b in boxes)
    if dim > 2:
        corner = boxes[-1]
        assert not any(corner.overlaps(axis.bbox) for axis in canvas.axes[:-1])
    texts = [text for axis in canvas.axes for text in (axis.get_xlabel(), axis.get_ylabel())]
    assert "density" in texts
    assert {views.coordinate_names(draws_)[d] for d in views.view([draws_]).shown} <= set(texts)


def test_colours_are_the_clusters_of_the_partition_and_an_ellipse_has_those_of_its_points():
    draws_ = tree(5, num_components=4)
    canvas = pair_plots.pairs(draws_, views.view([draws_]), "#009E73", ESTIMATE)
    panel = next(axis for axis in canvas.axes if (axis.get_xlabel(), axis.get_ylabel()) == ("x0", "x4"))
    shown = panel.collections[0]
    points = draws_["observed_data"]["points"].values
    order = np.lexsort(shown.get_offsets().T), np.lexsort(points[:, [0, 4]].T)
    expected = [to_rgba(pair_plots.PALETTE[c], 0.7) for c in TRUTH[order[1]]]
    np.testing.assert_allclose(shown.get_facecolors()[order[0]], expected)
    found = pair_plots.clusters(draws_, ESTIMATE, points, np.arange(80))
    assert list(found.of_components) == [*pair_plots.PALETTE[:3], pair_plots.OTHERS]
    assert [text for _, text in found.legend] == ["cluster of 40", "cluster of 25", "cluster of 15"]
    assert {to_hex(line.get_color()) for line in panel.lines} == {c.lower() for c in found.of_components}


def test_without_a_partition_colours_are_those_of_the_likeliest_component():
    draws_ = tree(2)
    points = draws_["observed_data"]["points"].values
    rows = np.arange(0, 80, 3)
    found = pair_plots.clusters(draws_, None, points, rows)
    np.testing.assert_array_equal(found.of_points, np.array(pair_plots.PALETTE)[TRUTH[rows]])
    assert [text.split()[0] for _, text in found.legend] == ["weight"] * 3


def test_of_many_points_some_are_shown_and_all_those_that_were_clustered():
    weights = np.ones(100_000)
    weights[::2] = 0
    rows = pair_plots.rows_shown(weights, np.array([3, 77_777]))
    assert len(rows) <= pair_plots.POINTS + 2
    assert {3, 77_777} <= set(rows.tolist())
    assert (weights[rows] > 0).all()
    some = SimpleNamespace(partition=SimpleNamespace(values=np.array([0, 1, 0])), observations=np.array([2, 5, 9]))
    draws_ = tree(2)
    found = pair_plots.clusters(draws_, some, draws_["observed_data"]["points"].values, np.arange(80))
    assert (found.of_points != pair_plots.UNCLUSTERED).sum() == 3
    assert found.legend[-1] == (pair_plots.UNCLUSTERED, "not among those clustered")


def test_one_component_and_a_coordinate_that_never_moves_can_be_drawn():
    draws_ = tree(3, num_components=1)
    points = draws_["observed_data"].to_dataset()["points"].copy()
    points[:, 1] = 4.0
    draws_["observed_data"] = xr.DataTree(draws_["observed_data"].to_dataset().assign(points=points))
    seen = views.view([draws_])
    np.testing.assert_allclose(seen.separation, 0)
    rendered(pair_plots.pairs(draws_, seen, "#009E73"))
    rendered(plots.fits({"nuts": draws_}, seen))


def test_frames_share_one_window_and_show_the_components_of_their_step():
    draws_ = tree(5, "map")
    seen = views.view([draws_])
    pictures = plots.frames(draws_, seen, count=4)
    assert [step for step, _ in pictures] == [0, 3, 7]
    axes = [canvas.axes[0] for _, canvas in pictures]
    assert len({(axis.get_xlim(), axis.get_ylim()) for axis in axes}) == 1
    path = draws_["optimisation"].to_dataset().isel(chain=draws.best_chain(draws_), snapshot=3)
    centres = np.array([line.get_xydata()[:-1].mean(axis=0) for line in axes[1].lines])
    expected = seen.points(path["means"].values[np.argsort(path["weights"].values)])
    np.testing.assert_allclose(centres, expected, atol=1e-6)


def test_names_of_coordinates_fit_and_are_no_formulas():
    draws_ = tree(3, columns=("price in $", "x" * 40, "y$z$"))
    names = views.coordinate_names(draws_)
    assert names == (r"price in \$", "x" * 15 + "…", r"y\$z\$")
    rendered(pair_plots.pairs(draws_, views.view([draws_]), "#009E73"))
    assert views.coordinate_names(tree(2)) == ("x0", "x1")


def test_places_of_the_density_have_short_names_in_many_dimensions():
    names = diagnostics.predictive_density(tree(5, chains=1, length=1))[1]
    assert names[0] == "point 0"
    assert names[-1] == "point 79"


def test_r_hat_of_a_mean_is_that_of_its_worst_coordinate():
    draws_ = tree(2, length=40)
    means = draws_["posterior"].to_dataset()["means"].values
    means[0, :, 0, 1] += 3
    table = summary.r_hats(draws_, SimpleNamespace(draws=draws_))
    assert table["means, raw"].iloc[0] > 1.5
    assert (table["means, raw"].iloc[1:] < 1.2).all()


@pytest.mark.parametrize("chains", [2, 3])
def test_the_band_of_a_rank_plot_does_not_hold_everything(chains):
    """A band at 94 % of the ECDF of 60 ranks is at most a quarter wide on each side, however many chains there are."""
    draws_ = tree(2, chains=chains, length=60)
    canvas = label_plots.traces(draws_, SimpleNamespace(draws=draws_), count=1, ranks=True)
    assert canvas.number not in pyplot.get_fignums()  # Runs of several models draw more than pyplot will hold.
    bands = [c for c in canvas.axes[0].collections if isinstance(c, PolyCollection)]
    # From 1.0 on arviz-plots writes a p value in its place.
    assert len(bands) == 1 or any("p=" in text.get_text() for text in canvas.axes[0].texts)
    for band in bands:
        heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
        assert 0.1 < heights.max() < 0.25
        assert -0.25 < heights.min() < -0.1


@pytest.mark.parametrize("dim", [2, 5])
def test_the_report_shows_every_picture_and_its_captions_name_the_projection(dim, tmp_path):
    columns = ("waiting", "eruptions", "T3", "TSH", "DTSH")[:dim]
    trees = {m: tree(dim, m, length=3, columns=columns) for m in ("map", "gibbs")}
    table = pd.DataFrame(
        {"kind": ["invariant", "raw"], "sd": 1.0, "r_hat": [1.0, 1.1], "ess_bulk": 99.0, "ess_tail": 99.0},
        index=pd.Index(["x", "weights[0]"], name="quantity"),
    )
    diagnosis = diagnostics.Diagnosis(table, "converged", "By hand.", {})
    page = report.write(tmp_path / "report.html", trees, dict.fromkeys(trees, diagnosis), {}, {}).read_text()
    pictures = re.findall(r'<img [^>]*src="data:image/png;base64,[^"]*"|<svg.*?</svg>', page, re.DOTALL)
    # Fits, two pair plots, frame, loss, weights, one path, active components, traces of the sampler, its predictive check.
    assert len(pictures) == page.count("<img") + page.count("<svg") == 10
    assert min(map(len, pictures)) > 5_000
    assert page.count("<figcaption>") == page.count("</figcaption>") == page.count("<figure>") == 10
    assert f"80 points in {dim} dimensions" in page
    assert page.count("two linear discriminants") == (5 if dim == 5 else 0)
    assert "the most probable component of the draw shown" in page
    assert all(f'<th scope="col">{name}</th>' in page for name in columns)
    assert page.count("with its 90 % band over draws") == 1
    assert page.count("of 30 bins outside the 90 % band") == 2 * min(
        dim, 4
    )  # Caption and alt text, of the sampler alone.


def test_data_carry_the_names_of_their_columns(tmp_path):
    (tmp_path / "named.csv").write_text("id,a b,c\n1,2,3\n4,5,6\n")
    (tmp_path / "plain.csv").write_text("1,2\n3,4\n")
    assert read(tmp_path / "named.csv", ["c", "1"]).columns == ("c", "a b")
    assert read(tmp_path / "plain.csv").columns == ()
    with pytest.raises(InputError, match="1 names of columns for 2"):
        Dataset([[1.0, 2.0]], columns=("a",))


def test_the_number_of_clusters_is_drawn_with_its_error_of_those_that_have_one():
    sampler, point = tree(1), tree(1, "map")
    numbers = np.array([[3] * 6 + [4] * 2, [3] * 4 + [5] * 4])
    for of, values in ((sampler, numbers), (point, numbers[:, :1])):
        of["sample_stats"]["occupied_clusters"] = xr.DataArray(values, dims=("chain", "draw"))
    canvas = plots.clusters({"nuts": sampler, "map": point})
    assert canvas is not None
    [axis] = canvas.axes
    shares = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in axis.patches}
    assert shares == pytest.approx({3: 10 / 16, 4: 2 / 16, 5: 4 / 16})
    [whiskers] = axis.collections
    lengths = {round(line[0, 0]): np.ptp(line[:, 1]) / 2 for line in whiskers.get_segments()}
    told = diagnostics.answer.number_of_clusters(sampler).set_index("clusters").iloc[:, 1]
    assert lengths == pytest.approx(told.to_dict())
    assert plots.clusters({"map": point}) is None
