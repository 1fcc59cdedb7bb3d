"""All about the labels of one set of draws, on draws whose labels were permuted by hand; and the study."""

import json

import numpy as np
import pytest
import xarray as xr
from made_up import from_the_prior

import dpgmm
from comparisons import label_switching
from dpgmm import draws
from dpgmm.data import Dataset
from dpgmm.labels import summary
from dpgmm.report import label_plots, page, views

CHAINS, DRAWS, K = 2, 60, 4
CENTRES, WEIGHTS = np.array([-6.0, 0.0, 6.0, 0.0]), np.array([0.5, 0.3, 0.2, 1e-9])


@pytest.fixture(scope="module")
def tree():
    """Two chains of one posterior, the second under another labelling throughout."""
    rng = np.random.default_rng(8)
    points = np.concatenate([rng.normal(c, 1, int(60 * w)) for c, w in zip(CENTRES, WEIGHTS, strict=True)])
    weights = WEIGHTS * np.exp(0.05 * rng.normal(size=(CHAINS, DRAWS, K)))
    means = CENTRES + 0.1 * rng.normal(size=(CHAINS, DRAWS, K))
    order = np.array([[0, 1, 2, 3], [2, 0, 1, 3]])
    weights, means = (np.stack([a[c][:, order[c]] for c in range(CHAINS)]) for a in (weights, means))
    dims = "chain", "draw", "component"
    posterior = xr.Dataset(
        {
            "weights": (dims, weights / weights.sum(-1, keepdims=True)),
            "means": ((*dims, "dim"), means[..., None]),
            "covariances": ((*dims, "dim", "dim_"), np.ones((CHAINS, DRAWS, K, 1, 1))),
        }
    )
    stats = xr.Dataset({n: (dims[:2], rng.normal(size=(CHAINS, DRAWS))) for n in ("log_joint", "total_log_likelihood")})
    stats["active_components"] = dims[:2], np.full((CHAINS, DRAWS), 3)
    groups = {"posterior": posterior, "sample_stats": stats, "observed_data": draws.observed(Dataset(points))}
    return xr.DataTree.from_dict({n: draws.with_coordinates(g) for n, g in groups.items()})


def test_relabelling_mends_what_was_permuted(tree):
    found = summary.summarise(tree)
    assert len(found.atlas.table) == 1
    assert found.atlas.table["labellings"].item() == 2
    assert found.switching[0].different_pairs == 1
    assert found.switching[0].per_1000 == 0
    assert (found.r_hat["means, raw"] > 1.5).all()
    assert (found.r_hat["means, relabelled"] < 1.1).all()
    assert found.partition.num_clusters == 3
    for picture in (label_plots.permutations(found.relabelling), label_plots.similarity(found.partition)):
        assert picture.axes


def test_few_points_keep_the_total_weight():
    observed = draws.observed(Dataset(np.random.default_rng(0).normal(size=(2000, 2))))
    few = summary.few_points(xr.DataTree.from_dict({"observed_data": observed}))
    assert few.size == summary.FEW
    assert few.total_weight == pytest.approx(2000)


def test_trades_of_rank_are_counted():
    """Four components; the two heaviest swap twice on a path of 1,000 steps, past lesser ones that swap as often."""
    weights = np.array([[0.4, 0.3, 0.2, 0.1], [0.3, 0.4, 0.1, 0.2], [0.4, 0.3, 0.2, 0.1]])[None]
    path = xr.Dataset({"weights": (("chain", "snapshot", "component"), weights)})
    path = path.assign_coords(snapshot_step=("snapshot", [0, 500, 1000]))
    stats = xr.Dataset({"log_joint": (("chain", "draw"), np.zeros((1, 1)))})
    assert summary.rank_changes(xr.DataTree.from_dict({"optimisation": path, "sample_stats": stats}), top=2) == 2


def made_up_but_map(posterior, method, **options):
    """Draws of the prior for NUTS; MAP, whose way is shown, as it is."""
    if method == "map":
        return dpgmm.fit(posterior, method, **options | {"steps": 60, "snapshots": 20})
    return from_the_prior(posterior, method, seed=len(options), **options)


@pytest.mark.parametrize("fit", [made_up_but_map, pytest.param(dpgmm.fit, marks=pytest.mark.long)])
def test_study_runs_and_writes(fit, tmp_path, monkeypatch):
    monkeypatch.setattr(label_switching, "fit", fit)
    data = lambda: Dataset(dpgmm.datasets.galaxies().points[::2], name="half")
    monkeypatch.setattr(label_switching, "PROBLEMS", (label_switching.Problem("half", data, "stick_breaking", 4),))
    monkeypatch.setattr(label_switching, "METHODS", ("ecr", "aic"))
    # Another kind of moves, which compiles in a third of the time: what the page says of them is the same.
    swaps = label_switching.QUICK[label_switching.MOVES] | {"moves": "swaps"}
    monkeypatch.setitem(label_switching.QUICK, label_switching.MOVES, swaps)
    numbers = label_switching.run(tmp_path, quick=True)
    assert json.loads((tmp_path / "label_switching.json").read_text()).keys() == numbers.keys() == {"half"}
    assert 0 <= numbers["half"]["relabelling methods, least agreement"] <= 1
    page = (tmp_path / "label_switching.html").read_text()
    assert page.count("<figure>") == page.count("<figcaption>") == 13
    assert all(sentence.split(":")[0] == "half" for sentence in label_switching.conclusions(numbers))


def test_clusters_of_equal_weight_are_not_averaged_with_each_other():
    """Three at 10, 20 and 33, under other labels in every draw: sorted by weight they were shown at 18.8, 22.8 and 21.3."""
    rng, shape = np.random.default_rng(0), (2, 60)
    order = rng.permuted(np.broadcast_to(np.arange(3), (*shape, 3)), axis=-1)
    means = np.take_along_axis(np.broadcast_to([10.0, 20.0, 33.0], order.shape), order, -1) + rng.normal(
        0, 0.1, order.shape
    )
    dims = "chain", "draw", "component"
    posterior = {
        "weights": (dims, rng.dirichlet(np.full(3, 300.0), shape)),
        "means": ((*dims, "dim"), means[..., None]),
        "variances": (dims, np.full(order.shape, 0.25)),
    }
    points = np.repeat([10.0, 20.0, 33.0], 10)[:, None] + rng.normal(0, 0.5, (30, 1))
    tree = xr.DataTree.from_dict(
        {"posterior": xr.Dataset(posterior), "observed_data": xr.Dataset({"points": (("obs", "dim"), points)})}
    )
    found = summary.aligned(tree)
    assert found.how == "of all chains, relabelled by ecr_iterative_1"
    table = page.components(found.draws, views.view([found.draws]))
    np.testing.assert_allclose(np.sort(table["mean"]), [10, 20, 33], atol=0.1)
    assert (table["mean_sd"] < 0.2).all()
