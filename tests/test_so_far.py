"""What a bar says while a sampler runs: the smallest ESS so far, of draws whose ESS is known, and the time left."""

import io

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from dpgmm import Dataset, fit, load_model
from dpgmm.methods import _so_far
from dpgmm.report import terminal


def autoregressive(rng, chains, draws, of):
    """A stationary AR(1) of unit variance: ``(1 - of) / (1 + of)`` effective draws a draw."""
    x = np.empty((chains, draws))
    x[:, 0] = rng.normal(size=chains)
    for t in range(1, draws):
        x[:, t] = of * x[:, t - 1] + np.sqrt(1 - of**2) * rng.normal(size=chains)
    return x


def test_the_smallest_ess_is_that_of_the_slowest_number():
    rng = np.random.default_rng(0)
    fast, slow = rng.normal(size=(4, 2_000)), autoregressive(rng, 4, 2_000, 0.9)
    known = 8_000 * 0.1 / 1.9
    chains = [{"fast": a, "slow": b, "still": np.ones(2_000)} for a, b in zip(fast, slow, strict=True)]
    # The standard error of an ESS of about 420 by this estimator is some 10 %; that of a tail is smaller than the bulk's.
    assert 0.5 * known < _so_far.smallest_ess(chains) < 1.3 * known
    assert _so_far.smallest_ess([{"fast": row} for row in fast]) > 6_000


def test_chains_at_different_places_and_chains_that_have_just_begun():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 500))
    apart = [{"x": row + 10 * i} for i, row in enumerate(x)]
    assert _so_far.smallest_ess(apart) < 10
    # The third has too few draws to count: without it, two chains of independent draws.
    begun = [{"x": x[0]}, {"x": x[1]}, {"x": x[2, :5]}]
    assert _so_far.smallest_ess(begun) == _so_far.smallest_ess(begun[:2]) > 600
    assert np.isnan(_so_far.smallest_ess([{"x": x[0, :10]}]))
    assert np.isnan(_so_far.smallest_ess([{"x": np.ones(100)}]))


def test_the_numbers_know_no_labels():
    rng = np.random.default_rng(2)
    weights, means = rng.dirichlet(np.ones(4), size=3), rng.normal(size=(3, 4, 2))
    of = _so_far.invariants(weights, means, more=np.arange(3))
    order = rng.permuted(np.tile(np.arange(4), (3, 1)), axis=1)
    moved = np.take_along_axis(weights, order, 1), np.take_along_axis(means, order[..., None], 1)
    for name, values in _so_far.invariants(*moved, more=np.arange(3)).items():
        np.testing.assert_allclose(values, of[name], rtol=1e-12)
    w, m = weights[0], means[0, :, 1]
    assert of["between 1"][0] == pytest.approx(w @ m**2 - (w @ m) ** 2, rel=1e-12)
    assert of["shared"][0] == pytest.approx(w @ w, rel=1e-12)


def test_warm_up_is_left_out(monkeypatch):
    monkeypatch.setattr(_so_far, "EVERY", 0.0)
    rng = np.random.default_rng(3)
    chunks = [np.full(100, 1e6), *rng.normal(size=(4, 100))]
    seen = _so_far.SoFar(lambda chunk: {"x": chunk}, 1, 100)
    assert seen.note(0, chunks[:1]) == ""
    seen = _so_far.SoFar(lambda chunk: {"x": chunk}, 1, 100)
    expected = _so_far.smallest_ess([{"x": np.concatenate(chunks[1:])}])
    assert seen.note(0, chunks) == f"smallest ESS {expected:,.0f}; "


def test_no_look_before_its_time():
    seen = _so_far.SoFar(lambda chunk: 1 / 0, 1, 0)
    assert seen.note(0, [np.ones(100)]) == ""


SHORT = {
    "nuts": {"moves": "none", "max_tree_depth": 3},
    "nuts, all": {"max_tree_depth": 2, "thin": 1, "split_merges": 1},
    "gibbs": {"split_merges": 0},
    "blocked_gibbs": {"split_merges": 0, "pair_moves": 0},
}


@pytest.mark.parametrize("case", SHORT)
def test_a_run_tells_it_and_draws_the_same(case, monkeypatch):
    posterior = load_model("stick_breaking")(Dataset(np.random.default_rng(0).normal(0, 1, 12)), truncation=4)
    # Every chunk of the short run is looked at.
    monkeypatch.setattr(_so_far, "EVERY", 0.0)
    monkeypatch.setattr(_so_far, "SHARE", np.inf)
    told, options = [], {"chains": 2, "warmup": 100, "draws_per_chain": 300, **SHORT[case]}
    method = case.split(",")[0]
    watched = fit(posterior, method, progress=lambda *of: told.append(of), **options)
    alone = fit(posterior, method, **options)
    notes = [note for _, _, note in told]
    assert notes[-1].startswith("smallest ESS ")
    assert 1 < float(notes[-1].split()[2].strip(";").replace(",", "")) < 1_000
    for name, values in watched["posterior"].data_vars.items():
        np.testing.assert_array_equal(values, alone["posterior"][name], err_msg=str(name))


@pytest.mark.parametrize(
    ("seconds", "budget", "left"), [(5, None, ""), (20, None, "1:00 left"), (20, 50, "0:25 left"), (100, None, "")]
)
def test_time_left(seconds, budget, left):
    """A quarter of the work in 20 s, after 5 s of compiling."""
    now = [0.0]
    column = terminal.TimeLeft(budget)
    with Progress(column, console=Console(file=io.StringIO()), get_time=lambda: now[0], auto_refresh=False) as bar:
        task = bar.add_task("nuts", total=None, compiled=5.0)
        assert column.render(bar.tasks[0]).plain == ""
        for second in range(min(seconds, 80) + 1):
            now[0] = 5.0 + second
            bar.update(task, total=80, completed=second)
        assert column.render(bar.tasks[0]).plain == left
