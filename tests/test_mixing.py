"""The study of mixing on made-up fits: what it says of speed, of agreement and of verdicts, and that it leaves its page."""

import json

import numpy as np
import pandas as pd
import pytest
from made_up import from_the_prior

from comparisons import mixing
from dpgmm import Dataset, load_model
from dpgmm.diagnostics.agreement import agreement
from dpgmm.diagnostics.intervals import Estimate

FEW = Dataset(np.random.default_rng(0).normal(size=6))


@pytest.fixture(scope="module")
def posterior():
    return load_model("stick_breaking")(FEW, truncation=4)


@pytest.fixture(scope="module")
def trees(posterior):
    return [from_the_prior(posterior, "nuts", seed) for seed in range(2)]


def test_transitions_are_shared_out_between_warm_up_and_sampling(posterior, trees):
    assert mixing.share_of_sampling(trees[0]) == 80 / 100
    # Sweeps of warm-up, ten to a draw.
    assert mixing.share_of_sampling(from_the_prior(posterior, "gibbs", warmup=200, thin=10)) == 80 / 100


def test_rates_are_effective_draws_over_seconds(trees):
    found = [mixing.Fit(tree, mixing.diagnose(tree)) for tree in trees]
    row = mixing.over_repeats(found)
    ess = [f.diagnosis.least_ess for f in found]
    assert row["ESS/s, warm-up included"] == pytest.approx(np.mean(ess) / 10)
    assert row["ESS/s"] == pytest.approx(np.mean(ess) / 8)
    assert (row["ESS/s, least"], row["ESS/s, most"]) == pytest.approx((min(ess) / 8, max(ess) / 8))
    assert (row["leapfrog steps a draw"], row["divergences"]) == (7, 1)


def test_pooled_repeats_have_all_chains_and_the_same_densities(trees):
    wide = trees[1].copy()
    group = trees[1]["posterior"].to_dataset()
    wide["posterior"] = mixing._padded(group, 6)
    both = mixing.pooled([trees[0], wide])
    assert dict(both["posterior"].sizes) | {"chain": 8, "component": 6} == dict(both["posterior"].sizes)
    here, _ = mixing.diagnostics.predictive_density(both)
    there = [mixing.diagnostics.predictive_density(tree)[0] for tree in trees]
    np.testing.assert_allclose(here, np.concatenate(there), rtol=1e-9)


def shifted(tree, by):
    """The tree with more clusters than it had."""
    new = tree.copy()
    stats = tree["sample_stats"].to_dataset()
    new["sample_stats"] = stats.assign(expected_clusters=stats["expected_clusters"] + by)
    return new


@pytest.mark.parametrize(("errors", "agrees"), [(0.0, True), (8.0, False)])
def test_a_wrong_number_of_clusters_is_found(posterior, errors, agrees):
    one = from_the_prior(posterior, "nuts", draws_per_chain=300)
    other = from_the_prior(posterior, "gibbs", draws_per_chain=300)
    error = mixing.clusters(one).error
    said = mixing.against("nuts", "gibbs", agreement({"nuts": shifted(one, errors * error), "long gibbs": other}))
    assert (said["agrees"] != "no") is agrees
    assert ("disagree on the number of clusters" in said["sentence"]) is not agrees


def test_the_prior_is_not_the_exact_posterior(posterior):
    said = mixing.against_exact(from_the_prior(posterior, "nuts"), posterior)
    assert said["reference"] == "exact"
    assert (said["agrees"], said["numbers"]) == ("no", 7)
    assert "farthest from exact" in said["sentence"]


@pytest.mark.quick("comparisons")
def test_false_verdicts():
    truth, far, near = Estimate(2.0, 0.03), Estimate(1.7, 0.04), Estimate(1.9, 0.04)
    assert mixing.off(far, truth) == pytest.approx(6.0)
    assert mixing.is_false("converged", far, truth)
    assert mixing.is_false("converged up to labels", far, truth)
    assert not mixing.is_false("nearly: draw more", far, truth)
    assert not mixing.is_false("converged", near, truth)


def test_the_fastest_is_not_one_that_is_wrong():
    row = lambda name, rate, agrees: {"method": name, "ESS/s": rate, "agrees": agrees, "R-hat": 1.02}
    rows = [row("a", 100.0, "no"), row("b", 10.0, "yes"), row("c", None, "yes"), row("d", 20.0, "as far as seen")]
    assert mixing.fastest(rows)["method"] == "d"
    assert mixing.fastest(rows[:1]) is None
    assert mixing.fastest([rows[1] | {"R-hat": 1.3}]) is None


def test_data_are_of_the_forms_they_say():
    of = {case.data(): case.truncation for case in mixing.CASES.values()}
    assert [(d.size, d.dim) for d in of][-4:] == [(50, 1), (110, 1), (300, 3), (10, 1)]
    assert (mixing.atom().points == 10).sum() == 10
    assert np.array_equal(mixing.unequal().points, mixing.unequal().points)


def test_the_study_leaves_page_table_and_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(mixing, "fit", from_the_prior)
    monkeypatch.setattr(mixing, "ten_and_forty", lambda: FEW)
    case = mixing.QUICK.cases[mixing.FIFTY]._replace(data=lambda: FEW, truncation=4)
    monkeypatch.setattr(mixing, "QUICK", mixing.QUICK._replace(cases={mixing.FIFTY: case}))
    numbers = mixing.run(tmp_path, quick=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mixing.csv", "mixing.html", "mixing.json"]
    assert json.loads((tmp_path / "mixing.json").read_text()) == json.loads(json.dumps(numbers))
    assert list(pd.read_csv(tmp_path / "mixing.csv")["method"]) == ["nuts, moves=none", "gibbs"]
    page = (tmp_path / "mixing.html").read_text()
    first = page.split("<li>")[1]
    assert "Effective draws a second of the worst invariant" in first
    fastest = mixing.fastest(numbers["rows"])
    assert (f"{fastest['ESS/s']:.3g}" if fastest else "ten and forty none") in first
    assert page.count("<figure>") == 1
    assert len(numbers["seeds"]) == 3


def test_an_interrupted_study_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(mixing, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mixing.run(tmp_path, quick=True)
    assert not list(tmp_path.iterdir())
