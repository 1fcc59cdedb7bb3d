"""The study of inference methods: its scores against brute force and scipy, its marks, and a run of it on few draws."""

import json
from itertools import product

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from comparisons.inference_methods import scores, study
from dpgmm import Dataset, InputError, diagnostics, load_model, methods
from dpgmm.diagnostics import intervals
from dpgmm.diagnostics.intervals import Interval


def tree(points, shape=(2, 3), num_components=3, seed=1, **extra):
    """Draws of a D = 1 mixture, made up."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(num_components), shape)
    means, variances = rng.normal(size=(*shape, num_components, 1)), rng.gamma(2, size=(*shape, num_components, 1, 1))
    dims = ("chain", "draw", "component")
    posterior = {
        "weights": (dims, weights),
        "means": ((*dims, "dim"), means),
        "covariances": ((*dims, "dim", "dim_"), variances),
        "concentration": (dims[:2], rng.gamma(2, size=shape)),
    }
    stats_ = {"total_log_likelihood": (dims[:2], rng.normal(size=shape))}
    stats_ |= {name: (dims[:2], value) for name, value in extra.items()}
    observed = xr.Dataset({"points": (("obs", "dim"), points)})
    made = xr.DataTree.from_dict(
        {"posterior": xr.Dataset(posterior), "sample_stats": xr.Dataset(stats_), "observed_data": observed}
    )
    made.attrs["method"] = "nuts"
    return made


def probabilities(draws):
    """Probability of every component, ``(chain, draw, n, K)``, by scipy."""
    p, x = draws["posterior"].to_dataset(), draws["observed_data"]["points"].values
    scales = np.sqrt(p["covariances"].values[..., 0, 0])[..., None, :]
    joint = p["weights"].values[..., None, :] * stats.norm.pdf(x, p["means"].values[..., None, :, 0], scales)
    return joint / joint.sum(axis=-1, keepdims=True)


def test_held_out_density_is_the_log_of_the_mean_over_draws():
    rng = np.random.default_rng(0)
    points, means, scales = rng.normal(size=5), rng.normal(size=(2, 4)), rng.gamma(2, size=(2, 4))
    density = stats.norm.pdf(points, means[..., None], scales[..., None])
    wanted = np.log(density.mean(axis=(0, 1))).mean()
    assert scores.held_out(np.log(density)) == pytest.approx(wanted, rel=1e-12)
    # Not the mean of logs, which is smaller for any draws that differ.
    assert wanted > np.log(density).mean()
    # Densities that underflow in plain arithmetic.
    assert scores.held_out(np.log(density) - 2_000) == pytest.approx(wanted - 2_000, rel=1e-12)


def test_an_interval_is_students():
    values = np.random.default_rng(0).normal(2, 1, 5)
    found = intervals.interval(values)
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose(found, (values.mean(), *wanted), rtol=1e-12)
    assert intervals.interval([0.5, 0.5]) == (0.5, 0.5, 0.5)
    assert str(Interval(0.41234, 0.3, 0.5)) == "0.412 [0.3, 0.5]"


def test_intervals_hold_the_truth_as_often_as_they_say():
    found = np.array([intervals.interval(row) for row in np.random.default_rng(2).normal(size=(2_000, 5))])
    share = np.mean((found[:, 1] < 0) & (found[:, 2] > 0))
    assert abs(share - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 2_000)


@pytest.mark.parametrize("num_components", [2, 3])
def test_clusters_given_draws_are_sums_over_all_allocations(num_components):
    n = 4
    p = np.random.default_rng(0).dirichlet(np.ones(num_components), (6, n))
    labels = np.array(list(product(range(num_components), repeat=n)))
    of_labels = np.prod(p[:, np.arange(n), labels], axis=-1).mean(axis=0)
    number = [len(set(row)) for row in labels]
    np.testing.assert_allclose(scores.clusters_given(p), np.bincount(number, of_labels, n + 1), atol=1e-14)


def test_similarity_of_draws_is_the_mean_chance_to_share_a_component():
    draws = tree(np.array([[0.3], [-1.0], [2.0], [0.8]]))
    p = probabilities(draws)
    order = np.argsort(draws["observed_data"]["points"].values[:, 0])
    together = np.einsum("ctik,ctjk->cij", p, p) / p.shape[1]
    upper = np.triu_indices(4, 1)
    wanted = np.array([chain[np.ix_(order, order)][upper] for chain in together])
    np.testing.assert_allclose(scores.similarity(draws), wanted, rtol=1e-10)
    clusters, of_points = scores.partition_scores(draws)
    np.testing.assert_allclose(of_points[upper], together.mean(axis=0)[upper], rtol=1e-10)
    np.testing.assert_allclose(clusters, scores.clusters_given(p.reshape(-1, 4, 3)), atol=1e-14)
    assert clusters[0] == pytest.approx(0, abs=1e-14)
    assert clusters.sum() == pytest.approx(1)


def test_collapsed_gibbs_is_read_by_its_partitions():
    draws = tree(np.arange(3.0)[:, None], shape=(1, 2))
    draws.attrs["untruncated"] = 1
    labels = np.array([[[0, 0, 1], [0, 0, 0]]])
    draws["sample_stats"] = xr.DataTree(
        draws["sample_stats"].to_dataset().assign(allocations=(("chain", "draw", "obs"), labels))
    )
    clusters, together = scores.partition_scores(draws)
    np.testing.assert_array_equal(clusters, [0, 0.5, 0.5, 0])
    np.testing.assert_array_equal(together, [[1, 1, 0.5], [1, 1, 0.5], [0.5, 0.5, 1]])


def test_spreads_know_no_labels():
    draws = tree(np.zeros((2, 1)))
    flipped = draws.isel(component=slice(None, None, -1))
    assert scores.spreads(draws) == scores.spreads(flipped)
    largest = draws["posterior"]["weights"].values.max(axis=-1)
    assert scores.spreads(draws)["largest weight"] == pytest.approx(largest.std())
    assert set(scores.spreads(draws.isel(chain=[0], draw=[0])).values()) == {0.0}


@pytest.mark.parametrize("shape", [0.2, 1.2])
def test_k_hat_is_the_shape_of_a_pareto_tail(shape):
    size = 4_000
    log_weight = -shape * np.log(np.random.default_rng(3).uniform(size=(1, size)))
    found = scores.k_hat(tree(np.zeros((2, 1)), (1, size), 1, log_weight=log_weight))
    tail = int(min(0.2 * size, 3 * np.sqrt(size)))
    # PSIS adds ten observations of shape 1/2 to the tail; its error is that of maximum likelihood.
    assert abs(found - (tail * shape + 5) / (tail + 10)) < 4 * (1 + shape) / np.sqrt(tail)
    assert scores.k_hat(tree(np.zeros((2, 1)))) is None


def test_a_split_holds_out_other_points_each_time():
    data = Dataset(np.arange(50.0), name="fifty")
    first, other = (scores.split(data, 0.1, seed) for seed in (0, 1))
    for train, out in first, other:
        assert (train.size, len(out), train.name) == (45, 5, "fifty")
        np.testing.assert_array_equal(np.sort(np.r_[train.points, out], axis=0), data.points)
    assert not np.array_equal(first[1], other[1])
    np.testing.assert_array_equal(scores.split(data, 0.1, 0)[1], first[1])


def test_a_clock_knows_when_a_share_was_done(monkeypatch):
    times = iter([10.0, 11.0, 14.0])
    monkeypatch.setattr(scores, "perf_counter", lambda: next(times))
    told = []
    clock = scores.Clock(told.append)
    for done in 1, 2, 4:
        clock(done, 4, "")
    # The last report came after 5 seconds of running, so the first came after one.
    assert told == [0.25, 0.5, 1.0]
    assert [clock.seconds(share, 5.0) for share in (0.125, 0.25, 0.5, 0.75, 1)] == [0.5, 1, 2, 3.5, 5]


SURE, NARROW, WIDE, VAGUE = (
    Interval(1.0, 0.95, 1.05),
    Interval(0.4, 0.3, 0.5),
    Interval(1.5, 1.2, 1.8),
    Interval(0.7, 0.4, 1),
)


@pytest.mark.parametrize(
    ("method", "ratios", "words"),
    [
        ("map", {"a": Interval(0, 0, 0)}, "point estimate: no posterior (sd ratio 0)"),
        ("svi", {"a": SURE, "b": NARROW}, "overconfident: sd ratio 0.4 [0.3, 0.5] (b)"),
        ("nuts", {"a": SURE, "b": NARROW}, "too narrow at this budget: sd ratio 0.4 [0.3, 0.5] (b)"),
        ("svi", {"a": WIDE, "b": SURE}, "too wide: sd ratio 1.5 [1.2, 1.8] (a)"),
        ("gibbs", {"a": VAGUE, "b": SURE}, "undecided: sd ratio 0.7 [0.4, 1] (a)"),
        ("gibbs", {"a": SURE, "b": SURE}, "no fault shown: sd ratios 1.00 to 1.00"),
    ],
)
def test_marks_show_the_number_behind_them(method, ratios, words):
    assert scores.mark(methods.find(method).kind, ratios) == words


ROW = {"model": "stick_breaking", "quantities": 9, "simulations": 200}
ROWS = [
    ROW | {"method": "svi", "inside": 5},
    ROW | {"method": "nuts", "inside": 9},
    ROW | {"method": "map", "inside": 0},
    ROW | {"method": "gibbs", "inside": 9, "model": "another"},
]


def test_calibration_is_said_of_what_was_simulated_and_of_nothing_else():
    of = lambda method, **options: scores.calibrated(ROWS, method, options, "stick_breaking")
    assert of("nuts") == "calibrated (SBC: 9 of 9 quantities, 200 simulations)"
    assert of("svi", guide="lowrank") == "not calibrated (SBC: 5 of 9 quantities, 200 simulations)"
    assert of("map") == "no posterior (SBC: 0 of 9 quantities, 200 simulations)"
    assert of("svi", guide="normal") == of("gibbs") == of("blocked_gibbs") == "not simulated"
    assert scores.calibrated(None, "nuts", {}, "stick_breaking") == "run dpgmm study calibration"


def test_calibration_rows_are_read_or_refused(tmp_path):
    path = tmp_path / "calibration.json"
    assert scores.calibration_rows(path, required=False) is None
    with pytest.raises(InputError, match=r"calibration\.json: not what .* \(FileNotFoundError\); run it again"):
        scores.calibration_rows(path, required=True)
    path.write_text(json.dumps([r | {"p": 0.3} for r in ROWS]))
    assert scores.calibration_rows(path, required=True) == ROWS
    for text in "[{}]", "{", "3":
        path.write_text(text)
        with pytest.raises(InputError, match="not what `dpgmm study calibration` writes"):
            scores.calibration_rows(path, required=False)


def made_up(posterior, method, *, seed, progress, compression=True, **options):
    """A fit that costs nothing: draws that know no data, and everything that the study reads of a tree."""
    progress(1, 2, "half")
    progress(2, 2, "all")
    chains, length = options.get("chains") or options["restarts"], options.get("draws_per_chain", 1)
    shape = chains, options.get("draws_per_restart", length)
    rng = np.random.default_rng(seed)
    size, points = posterior.data.size, posterior.data.points
    found = tree(points, shape, 4, seed=seed, log_joint=rng.normal(size=shape), log_weight=rng.normal(size=shape))
    if method not in ("svi", "cavi"):
        found["sample_stats"] = xr.DataTree(found["sample_stats"].to_dataset().drop_vars("log_weight"))
    if methods.find(method).kind != "sampler":
        found["optimisation"] = xr.DataTree(xr.Dataset({"loss": (("chain", "step"), np.zeros((chains, 2)))}))
    if method == "gibbs" and options["keep_allocations"]:
        labels = (("chain", "draw", "obs"), rng.integers(0, 2, (*shape, size)))
        found["sample_stats"] = xr.DataTree(found["sample_stats"].to_dataset().assign(allocations=labels))
    found.attrs |= {"method": method, "untruncated": int(method == "gibbs"), "run_seconds": 2.0, "compile_seconds": 3.0}
    return found


def test_the_study_says_what_it_measured(tmp_path, capsys, monkeypatch):
    everything = {model: study.FULL.exact[model] for model in study.FULL.exact}
    plan = study.QUICK._replace(contenders=study.CONTENDERS, shares=(0.5, 1.0), exact=everything)
    monkeypatch.setattr(study, "QUICK", plan)
    monkeypatch.setattr(study, "fit", made_up)
    (tmp_path / "calibration.json").write_text(json.dumps([ROW | {"method": "blocked_gibbs", "inside": 9}]))
    numbers = study.run(tmp_path, quick=True)
    assert json.loads((tmp_path / "inference_methods.json").read_text()) == json.loads(json.dumps(numbers))
    page = (tmp_path / "inference_methods.html").read_text()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["calibration.json", "inference_methods.html", "inference_methods.json"]
    printed, found = capsys.readouterr().out, numbers["data"]["galaxies"]["methods"]
    for sentence in study.conclusions(numbers):
        assert sentence.replace("'", "&#39;") in page
        assert sentence.split(":")[0] in printed
    assert page.count("data:image/png") + page.count("<svg") == 4
    assert found["MAP"]["mark"] == "point estimate: no posterior (sd ratio 0)"
    assert found["blocked Gibbs"]["calibration"] == "calibrated (SBC: 9 of 9 quantities, 200 simulations)"
    assert [who for who, m in found.items() if m["k-hat"]] == ["mean-field SVI", "low-rank SVI", "CAVI"]
    # Draws of a sampler are looked at on the way, at (20 + 20) of 60 sweeps; an optimiser runs once a budget.
    assert found["MAP"]["seconds"] == [2.0, 2.0]
    assert 0 <= found["blocked Gibbs"]["seconds"][0] <= found["blocked Gibbs"]["seconds"][1] == 2.0
    for m in found.values():
        assert all(low <= value <= high for value, low, high in [*m["held out"], *m["above reference"]])
    assert {model: tuple(of) for model, of in numbers["exact"].items()} == everything


@pytest.mark.slow
def test_the_quick_study_runs(tmp_path):
    numbers = study.run(tmp_path, quick=True)
    # 80 draws, whose sampling error is that of the distance.
    assert numbers["exact"]["stick_breaking"]["blocked Gibbs"]["total variation"].value < 0.3
    assert numbers["data"]["galaxies"]["methods"]["MAP"]["mark"].startswith("point estimate")


def test_a_sampler_is_looked_at_on_its_way_and_an_optimiser_fitted_by_every_budget(monkeypatch):
    data = Dataset(np.arange(6.0))
    posterior, asked, told = load_model("stick_breaking")(data, truncation=4), [], []

    def fit(posterior, method, **options):
        asked.append(options)
        return made_up(posterior, method, **options)

    monkeypatch.setattr(study, "fit", fit)
    begin = lambda: told.append
    options = {"chains": 2, "warmup": 10, "draws_per_chain": 40}
    points = data.points[:2]
    sampled = study.fitted(posterior, study.CONTENDERS["NUTS"], (0.25, 1.0), options, points, 0, begin)
    assert len(asked) == 1
    first = sampled.draws.isel(draw=slice(10))
    wanted = [scores.held_out(diagnostics.predictive_density(t, points)[0]) for t in (first, sampled.draws)]
    np.testing.assert_allclose(sampled.density, wanted, rtol=1e-12)
    found = study.fitted(
        posterior, study.CONTENDERS["MAP"], (0.25, 1.0), {"restarts": 3, "steps": 80}, points, 0, begin
    )
    assert [options["steps"] for options in asked[1:]] == [20, 80]
    # The answer of an optimiser is its best restart.
    assert found.draws["posterior"].sizes["chain"] == 1
    assert told == [0.5, 1.0] * 3


def test_an_interrupted_study_leaves_nothing(tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "fit", stop)
    with pytest.raises(KeyboardInterrupt):
        study.run(tmp_path, quick=True)
    assert not list(tmp_path.iterdir())


def test_every_contender_is_a_method_and_has_options_everywhere():
    """A new method may run by `--methods` alone; nothing is planned for it then, but the options of a short run."""
    planned = {who.method for who in study.CONTENDERS.values()}
    assert planned <= set(methods.REGISTRY)
    for plan in study.FULL, study.QUICK:
        for options in [problem.effort for problem in plan.problems.values()] + [plan.exact_effort]:
            assert set(options) == planned
        assert max(plan.shares) == 1


def conclusions(**changed):
    method = {
        "seconds": [0.1, 1.0],
        "above reference": [Interval(-0.3, -0.4, -0.2), Interval(-0.1, -0.15, -0.05)],
        "similarity": Interval(0.1, 0.05, 0.15),
        "k-hat": None,
        "mark": "no fault shown",
    }
    of_data = {
        "methods": {"one": method, "two": method | changed},
        "reference": {"similarity error": Interval(0.01, 0, 1)},
    }
    return study.conclusions({"data": {"galaxies": of_data}, "exact": {}})


@pytest.mark.quick("comparisons")
def test_conclusions_follow_the_numbers():
    none = conclusions()
    assert none[0].startswith("galaxies: no method is shown to be no more than 0.02 nats")
    assert "worse one -0.1 [-0.15, -0.05], two -0.1 [-0.15, -0.05]" in none[1]
    level = [Interval(-0.02, -0.1, 0.06), Interval(-0.005, -0.015, 0.005)]
    some = conclusions(**{"above reference": level, "k-hat": Interval(0.9, 0.8, 1.0)})
    assert some[0].endswith("two after 1 s; not shown of one.")
    assert "two" not in some[1]
    assert "k-hat above 0.7, so that no weighting turns draws into the posterior: two 0.9 [0.8, 1]." in some[3]
    assert "k-hat" not in none[3]
    assert "better two 0.2 [0.1, 0.3]" in conclusions(**{"above reference": [Interval(0.2, 0.1, 0.3)] * 2})[1]
