"""Which of several models predicts best: the first line says no more than the evidence, and by one method for all."""

import numpy as np
import pandas as pd
import pytest
from test_prediction import tree_of

from dpgmm import Dataset
from dpgmm.diagnostics import elpd
from dpgmm.diagnostics.choice import Evidence, choose

GOOD = Evidence((True, 2, 500.0), believed=True, reason="converged")
BAD = Evidence((False, 2, 9.0), believed=False, reason="not converged")


def table(differences, dse=1.0, bad=0, **held):
    """Models a, b, ... by their differences to the best."""
    rows = {
        "elpd": -100 + np.array(differences),
        "elpd_diff": np.array(differences) - max(differences),
        "dse": np.where(np.array(differences) == max(differences), 0, dse),
        "bad_k": bad,
    }
    return pd.DataFrame(rows | held, index=list("abcd"[: len(differences)]))


def evidence(models, **of):
    return dict.fromkeys(models, of)


@pytest.mark.quick("diagnostics")
@pytest.mark.parametrize(
    ("rows", "sentence", "told_apart"),
    [
        (
            table([0, -10.0]),
            "a predicts best: by nuts, believed under every model, a is ahead of b by 10.0 ± 1.0 nats.",
            True,
        ),
        (
            table([-10.0, 0], dse=6.0),
            "b and a cannot be told apart: by nuts, believed under every model, b is ahead of a by 10.0 ± 6.0 nats,"
            " within two standard errors of the difference.",
            False,
        ),
        (
            table([0, -3.9]),
            "a and b cannot be told apart: by nuts, believed under every model, a is ahead of b by 3.9 ± 1.0 nats,"
            " less than the 4 nats from which a standard error can be trusted.",
            False,
        ),
        (
            table([0, -30.0, -1.0]),
            "a and c cannot be told apart: by nuts, believed under every model, a is ahead of the next, c, by 1.0 ± 1.0"
            " nats, within two standard errors of the difference.",
            False,
        ),
        (table([0, np.nan]), "within two standard errors", False),
        (table([0, -10.0], dse=0.0), "10.0 ± 0.0 nats, of which one row gives no standard error", False),
    ],
)
def test_a_difference_is_told_with_what_it_is_worth(rows, sentence, told_apart):
    found = choose({"nuts": rows}, evidence(rows.index, nuts=GOOD))
    assert sentence in found.sentence
    assert (found.believed, found.told_apart, found.method) == (True, told_apart, "nuts")


def test_doubts_come_before_the_difference():
    rows = table([0, -10.0])
    found = choose({"nuts": rows}, {"a": {"nuts": GOOD}, "b": {"nuts": BAD}})
    assert found.sentence.startswith("No comparison of the models has earned belief yet (nuts: under b not converged).")
    assert "So far, by nuts, a is ahead of b" in found.sentence
    assert not found.believed
    found = choose({"nuts": table([0, -10.0], bad=[0, 3])}, evidence("ab", nuts=GOOD))
    assert found.sentence.startswith(
        "Leave-one-out is not to be relied on, k-hats being too large (3 rows under b). So"
    )
    assert not found.believed


def test_models_are_judged_by_the_method_whose_worst_standing_is_best():
    both = {"nuts": table([0, -10.0]), "gibbs": table([-10.0, 0])}
    strong, weak = GOOD._replace(standing=(True, 2, 900.0)), GOOD._replace(standing=(True, 2, 410.0))
    found = choose(both, {"a": {"nuts": strong, "gibbs": GOOD}, "b": {"nuts": weak, "gibbs": GOOD}})
    assert (found.method, found.model) == ("gibbs", "b")
    assert found.notes == ("nuts, believed too, puts a first.",)
    # A method that one of the models lacks judges nothing.
    alone = {"nuts": both["nuts"], "gibbs": both["gibbs"].loc[["b"]]}
    assert choose(alone, {"a": {"nuts": BAD}, "b": {"nuts": BAD, "gibbs": GOOD}}).method == "nuts"
    assert choose({}, evidence("ab")).sentence.startswith("No comparison of models: no method came to an end under")


def test_rows_held_out_speak_for_point_estimates_and_beside_leave_one_out():
    held = {"held_out": [-9.0, -1.0], "held_out_diff": [-8.0, 0.0], "held_out_dse": [2.0, 0.0]}
    rows = table([0, -10.0], **held)
    said = "On the rows held out, by {}, b is ahead of a by 8.0 ± 2.0 nats."
    assert choose({"nuts": rows}, evidence("ab", nuts=GOOD)).notes == (said.format("nuts"),)
    found = choose({"map": rows[list(held)]}, evidence("ab", map=BAD))
    assert found.sentence == f"No posterior to compare: map is a point estimate. {said.format('map')}"
    assert (found.model, found.believed, found.told_apart) == ("b", False, True)


def test_differences_on_held_out_rows_are_of_the_same_rows():
    data = Dataset(np.array([0.0, 3.0, 5.0]), np.array([1.0, 2.0, 1.0]))
    trees = {"a": tree_of(seed=0), "b": tree_of(seed=1)}
    found = elpd.compare_held_out(trees, data)
    totals = {name: elpd.held_out(tree, data) for name, tree in trees.items()}
    best, other = sorted(totals, key=lambda name: -totals[name][0])
    assert found.index.tolist() == [best, other]
    for name in trees:
        assert tuple(found.loc[name, ["held_out", "held_out_se"]]) == pytest.approx(totals[name])
    assert found.loc[other, "held_out_diff"] == pytest.approx(totals[other][0] - totals[best][0])
    # One point three times, or one point of weight three: the sum over points of differences, and their spread.
    each = {name: [elpd.held_out(tree, Dataset([x]))[0] for x in (0.0, 3.0, 3.0, 5.0)] for name, tree in trees.items()}
    spread = np.subtract(each[other], each[best])
    assert found.loc[other, "held_out_dse"] == pytest.approx(2 * spread.std() * np.sqrt(3 / 2), rel=1e-6)
