"""The study of the same work elsewhere: it is the same work, and the study says what it measured."""

import json

import numpy as np
import pytest

from comparisons.peers import study

POINTS = np.random.default_rng(0).normal(size=(300, 2)) * [1, 2] + [3, 0]


def test_gradients_are_of_the_same_function():
    values = {library: make(POINTS, 4)() for library, make in study.GRADIENT.items()}
    for value in values.values():
        assert value == pytest.approx(values[study.OURS], rel=1e-10)


def test_a_round_of_ours_is_a_step_up():
    once = study.our_pass(POINTS, 4)
    bounds = [once() for _ in range(5)]
    assert (np.diff(bounds) > -1e-9 * abs(bounds[0])).all()
    assert bounds[-1] > bounds[0]


def test_a_round_of_scikit_learn_is_a_step_up():
    once = study.sklearn_pass(POINTS, 4)
    bounds = [once() for _ in range(5)]
    assert bounds[-1] > bounds[0]


def test_conclusions_are_ratios_of_medians_and_say_where_results_differ():
    def by(ours, theirs):
        here = {"first": 2.0, "seconds": [0.1, 0.2, 9.0], "value": ours}
        return {study.OURS: here, "NumPyro": {"first": 3.0, "seconds": [0.5, 0.6, 0.7], "value": theirs}}

    same, other = study.conclusions({"gradient, 2-D": by(-5.0, -5.0), "gradient, 1-D": by(-5.0, -5.1)})
    assert same == "gradient, 2-D: 0.2 s here; times as long: NumPyro 3."
    assert other.endswith("Their results DIFFER, and times say nothing.")
    silent = by(-5.0, -5.0) | {"gmmx": study._record([{"seconds": 1.0, "value": 2.0}, None])}
    [told] = study.conclusions({"pass, 2-D": silent})
    assert told == "pass, 2-D: 0.2 s here; times as long: NumPyro 3. No answer in 120 s: gmmx."
    assert len(study._rows("pass, 2-D", study.WORKS["pass, 2-D"], silent)) == 2
    row = study._rows("gradient, 2-D", study.WORKS["gradient, 2-D"], by(-5.0, -5.0))[1]
    assert (row["median"], row["fastest"], row["ratio"]) == (0.6, 0.5, pytest.approx(3))
    assert row["first"] == pytest.approx(2.4)


@pytest.mark.long
def test_the_study_asks_every_library_in_turn(tmp_path, monkeypatch, capsys):
    few = study.QUICK["gradient, 2-D"]._replace(rounds=2)
    monkeypatch.setattr(study, "QUICK", {"gradient, 2-D": few})
    numbers = study.run(tmp_path, quick=True)
    assert json.loads((tmp_path / "peers.json").read_text()) == json.loads(json.dumps(numbers))
    by = numbers["works"]["gradient, 2-D"]
    assert list(by) == list(study.GRADIENT)
    assert all(len(of["seconds"]) == 2 for of in by.values())
    assert "DIFFER" not in capsys.readouterr().out
