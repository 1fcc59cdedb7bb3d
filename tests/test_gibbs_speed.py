"""The study of the Gibbs samplers' speed, on few points: it runs, and what it says of a partition is right."""

import json

import jax
import numpy as np
import pytest

from comparisons import gibbs_speed
from dpgmm.densities import conjugate


@pytest.fixture
def few(monkeypatch):
    plan = gibbs_speed.QUICK._replace(sweeps={500: 100}, alone=500, mixing=(500, 2, {"collapsed": 100}))
    monkeypatch.setattr(gibbs_speed, "QUICK", plan._replace(efficiency=(500, 2, 100)))
    monkeypatch.setattr(gibbs_speed, "TIMED", ("collapsed",))  # One method's program for all.
    monkeypatch.setattr(gibbs_speed, "_in_a_child", gibbs_speed.child)


def test_the_study_of_gibbs_says_what_it_measured(few, tmp_path, capsys):
    result = gibbs_speed.run(tmp_path, quick=True)
    assert json.loads((tmp_path / "gibbs_speed.json").read_text()) == json.loads(json.dumps(result))
    assert [(row["method"], row["size"]) for row in result["speed"]] == [("collapsed", 500)]
    assert all(0 < row["best_seconds"] <= row["seconds"] for row in result["speed"])
    assert min(row["peak_bytes"] for row in result["speed"]) > 1e7
    for found in result["mixing"].values():
        assert np.shape(found["log_joint"]) == np.shape(found["clusters"]) == (2, 100)
        assert min(found["rand"]) > 0.5
        assert all(chain[-1] > chain[0] for chain in found["log_joint"])
    printed = capsys.readouterr().out
    assert "A sweep of one chain" in printed
    assert "2 chains from dispersed starts, N = 500" in printed


def test_the_log_joint_is_that_of_the_partition():
    posterior, truth = gibbs_speed._posterior(50)
    members, (shape, rate) = np.eye(5)[truth], posterior.conjugate.concentration
    wanted = jax.jit(conjugate.log_posterior)(members, posterior.data.points, shape / rate, posterior.conjugate.base)
    np.testing.assert_allclose(gibbs_speed.log_joint(truth, posterior), wanted, rtol=1e-10)
