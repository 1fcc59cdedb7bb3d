"""Runs that are cut off and go on, to the same bits; and runs that end in time with what they have."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from dpgmm import Dataset, InputError, fit, load_model
from dpgmm.methods import _blocks, _run, _sweeps

SHORT = {
    "nuts": {"chains": 2, "warmup": 20, "draws_per_chain": 60, "moves": "none", "max_tree_depth": 3},
    "gibbs": {"chains": 2, "warmup": 150, "draws_per_chain": 250, "split_merges": 0},
    "blocked_gibbs": {"chains": 2, "warmup": 150, "draws_per_chain": 250, "split_merges": 0, "pair_moves": 0},
}


class Killed(RuntimeError):
    """In place of a signal: whatever was not on disk is lost."""


@pytest.fixture(scope="module")
def posterior():
    rng = np.random.default_rng(0)
    return load_model("stick_breaking")(Dataset(rng.normal(0, 1, 12)), truncation=4)


def cut_off(monkeypatch, after):
    """The run dies in the middle of writing its block number `after`, or the state that belongs to it."""
    write, count = _blocks.Blocks._write, [0]

    def writes(self, path, content):
        count[0] += 1
        if count[0] > after:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".partial").write_bytes(content[:100])
            raise Killed
        write(self, path, content)

    monkeypatch.setattr(_blocks.Blocks, "_write", writes)


def same(one, other):
    for group in ("posterior", "sample_stats"):
        first, second = one[group].to_dataset(), other[group].to_dataset()
        assert set(first) == set(second)
        for name in first:
            np.testing.assert_array_equal(first[name].values, second[name].values, err_msg=name)


@pytest.mark.parametrize("method", SHORT)
def test_a_run_that_was_cut_off_goes_on_to_the_same_draws(method, posterior, tmp_path, monkeypatch):
    whole = fit(posterior, method, **SHORT[method])
    # Between a block and its state, at a state's end, early and late.
    for after in (2, 4, 5):
        with monkeypatch.context() as patch:
            cut_off(patch, after)
            with pytest.raises(Killed):
                fit(posterior, method, blocks=tmp_path, **SHORT[method])
    assert list(tmp_path.rglob("state.npz"))
    same(fit(posterior, method, blocks=tmp_path, **SHORT[method]), whole)
    assert not list(tmp_path.rglob("*.npz"))


def test_draws_that_are_on_disk_are_not_drawn_again(posterior, tmp_path, monkeypatch):
    monkeypatch.setattr(_blocks.Blocks, "remove", lambda self: None)
    fit(posterior, "gibbs", blocks=tmp_path, **SHORT["gibbs"])
    saved, save = [], _blocks.Blocks.save
    monkeypatch.setattr(_blocks.Blocks, "save", lambda self, *a: (saved.append(a[:2]), save(self, *a)))
    fit(posterior, "gibbs", blocks=tmp_path, **SHORT["gibbs"])
    assert saved == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "holds blocks of another fit, seed 0 in place of 1"),
        ({"thin": 2}, "another fit, method_options"),
        ({"single_precision": True}, "another fit, precision"),
    ],
)
def test_blocks_of_another_fit_are_refused(posterior, tmp_path, monkeypatch, change, message):
    with monkeypatch.context() as patch:
        cut_off(patch, 5)
        with pytest.raises(Killed):
            fit(posterior, "gibbs", blocks=tmp_path, **SHORT["gibbs"])
    with pytest.raises(InputError, match=message):
        fit(posterior, "gibbs", blocks=tmp_path, **SHORT["gibbs"] | change)


def test_another_machine_is_noticed(posterior, tmp_path, monkeypatch):
    """A first block that comes out otherwise, be it in one bit, is not gone on from."""
    with monkeypatch.context() as patch:
        cut_off(patch, 5)
        with pytest.raises(Killed):
            fit(posterior, "gibbs", blocks=tmp_path, **SHORT["gibbs"])
    block = next(iter(sorted(tmp_path.rglob("000000.npz"))))
    with np.load(block) as arrays:
        leaves = dict(arrays)
    name = next(n for n, leaf in leaves.items() if leaf.dtype == np.float64)
    leaves[name] = np.nextafter(leaves[name], np.inf)
    np.savez(block, **leaves)
    with pytest.raises(InputError, match="the first block of chain 0 comes out otherwise here"):
        fit(posterior, "gibbs", blocks=tmp_path, **SHORT["gibbs"])


def test_a_full_disk_is_told_in_a_line_and_leaves_earlier_blocks(posterior, tmp_path, monkeypatch):
    replace, count = Path.replace, [0]

    def full(self, target):
        count[0] += 1
        if count[0] > 5:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(InputError, match=r"No space left on device; make room\. Earlier blocks are as they were"):
            fit(posterior, "gibbs", blocks=tmp_path, **SHORT["gibbs"])
    same(fit(posterior, "gibbs", blocks=tmp_path, **SHORT["gibbs"]), fit(posterior, "gibbs", **SHORT["gibbs"]))


def test_a_time_budget_ends_a_run_with_what_it_has(posterior, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(_run.time, "monotonic", lambda: clock[0])
    load = _sweeps.jax.device_get

    def tick(tree):
        clock[0] += 1
        return load(tree)

    monkeypatch.setattr(_sweeps.jax, "device_get", tick)
    options = SHORT["gibbs"] | {"draws_per_chain": 1_000}
    tree = fit(posterior, "gibbs", time_budget=10, **options)
    kept = tree["posterior"].sizes["draw"]
    assert 100 <= kept < 1_000
    assert tree.attrs["stopped"] == "after 10 s, the time that it had"
    assert json.loads(tree.attrs["options"])["method"]["draws_per_chain"] == 1_000
    whole = fit(posterior, "gibbs", **options)
    found, wanted = (of["sample_stats"]["allocations"].values[:, :kept] for of in (tree, whole))
    np.testing.assert_array_equal(found, wanted)
    clock[0] = 0.0
    with pytest.raises(InputError, match=r"the time is over in warm-up, after .* of 5,000 draws: give more of it"):
        fit(posterior, "gibbs", time_budget=4, **SHORT["gibbs"] | {"warmup": 5_000})
    with pytest.raises(InputError, match="time_budget"):
        fit(posterior, "gibbs", time_budget=-1)


def test_keys_and_arrays_come_back_as_they_were(tmp_path):
    blocks = _blocks.Blocks(tmp_path / "a", {"x": 1})
    state = {"key": jax.random.key(3), "old": jax.random.PRNGKey(4), "x": jax.numpy.arange(3.0), "n": np.int32(7)}
    blocks.save(0, 0, {"y": np.ones(2)}, state)
    found = blocks.state(0, state)
    assert blocks.length(0) == 1
    assert blocks.length(1) == 0
    assert jax.random.key_data(found["key"]).tolist() == jax.random.key_data(state["key"]).tolist()
    np.testing.assert_array_equal(found["x"], state["x"])
    (tmp_path / "a" / "chain-0" / "000000.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match=r"not a block of draws .*; remove .* to begin anew"):
        blocks.load(0, 0, {"y": np.ones(2)})
