"""Agreement between methods, and the answer to believe, on draws that were built to agree, to differ, or to be too few."""

import json

import numpy as np
import pytest
import xarray as xr

import dpgmm
from dpgmm import InputError, draws
from dpgmm.data import Dataset
from dpgmm.diagnostics import Diagnosis
from dpgmm.diagnostics.agreement import Agreement, Estimate, _allowed, quantities, truncation_bound, with_error
from dpgmm.diagnostics.answer import believe, number_of_clusters

CHAINS, DRAWS, K = 4, 500, 4
POINTS = np.concatenate([np.linspace(-5, -3, 30), np.linspace(3, 5, 20)])


def tree(seed, method="nuts", *, shift=0.0, clusters=2.0, memory=0.0, centre=0.5, width=K, truncation=K, **attrs):
    """Draws of a mixture of two visible components; `shift` moves one mean, `memory` is that of an autoregression."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(6, CHAINS, DRAWS))
    for t in range(1, DRAWS):
        noise[:, :, t] = memory * noise[:, :, t - 1] + np.sqrt(1 - memory**2) * noise[:, :, t]
    small = np.full((CHAINS, DRAWS, width - 2), 1e-5)
    first = (0.6 + 0.02 * noise[0])[..., None]
    weights = np.concatenate([first, 1 - first - small.sum(-1, keepdims=True), small], axis=-1)
    means = np.zeros((CHAINS, DRAWS, width))
    means[..., 0], means[..., 1] = -4 + 0.1 * noise[1], 4 + shift + 0.1 * noise[2]
    dims = "chain", "draw", "component"
    posterior = xr.Dataset(
        {
            "weights": (dims, weights),
            "means": ((*dims, "dim"), means[..., None]),
            "covariances": ((*dims, "dim", "dim_"), np.full((CHAINS, DRAWS, width, 1, 1), 0.4)),
            "concentration": (dims[:2], centre * np.exp(0.3 * noise[3])),
        }
    )
    expected = clusters + 0.2 * noise[4]
    stats = {
        "log_joint": -100 + noise[5],
        "total_log_likelihood": -90 + noise[5],
        "active_components": np.full((CHAINS, DRAWS), 2),
        "expected_clusters": expected,
        "occupied_clusters": np.maximum(1, np.round(expected + 0.5 * rng.normal(size=expected.shape))).astype(int),
    }
    groups = {
        "posterior": posterior,
        "sample_stats": xr.Dataset({n: (dims[:2], v) for n, v in stats.items()}),
        "observed_data": draws.observed(Dataset(POINTS)),
    }
    found = xr.DataTree.from_dict({n: draws.with_coordinates(g) for n, g in groups.items()})
    options = json.dumps({"model": {"truncation": truncation}, "method": {}})
    found.attrs = {"method": method, "model": "mine", "data": "two groups", "options": options, "run_seconds": 2.0}
    found.attrs |= {"compile_seconds": 1.0, "exchangeable_labels": 0, "moves_labels": 1, **attrs}
    return found


def test_what_is_alike_agrees_on_everything():
    found = dpgmm.agreement({"nuts": tree(0), "gibbs": tree(1), "blocked_gibbs": tree(2)})
    assert found.sentence == "nuts, gibbs and blocked_gibbs agree on everything within Monte Carlo error"
    table = found.table
    assert len(table) == 3 * len(found.of_pair("gibbs", "nuts"))
    assert set(table["of"]) == {"mean", "sd"}
    assert table["standard_errors"].between(0, 4).all()
    assert "weight, 2. largest" in set(table["quantity"])
    assert not {"log_joint", "VI to the best draw's partition"} & set(table["quantity"])


def test_standard_errors_are_calibrated():
    """Of forty pairs that are alike, differences over their errors have the second moment of a normal."""
    one = dpgmm.agreement({str(i): tree(i, memory=0.3) for i in range(4)})
    rows = one.table[(one.table["quantity"].isin(["concentration", "expected_clusters", "total_log_likelihood"]))]
    assert 0.5 < np.sqrt((rows["standard_errors"] ** 2).mean()) < 1.6


def test_a_disagreement_is_told_by_the_number_of_clusters():
    apart = tree(1, clusters=2.1, shift=1.0)
    found = dpgmm.agreement({"nuts": tree(0), "gibbs": apart})
    first = found.disagreements("gibbs", "nuts")[0]
    assert first.quantity == "expected_clusters"
    values = [quantities(t)["expected_clusters"] for t in (tree(0), apart)]
    errors = [v.std() / np.sqrt(v.size) for v in values]
    expected = abs(values[0].mean() - values[1].mean()) / np.hypot(*errors)
    assert first.standard_errors == pytest.approx(expected, rel=0.1)
    assert found.sentence.startswith("nuts and gibbs disagree on the number of clusters: 2.00")
    assert "against 2.098 ± 0.004 (" in found.sentence
    assert found.sentence.endswith("; at least one has not converged")
    # What a diagnosis knows of the culprit is said.
    trees = {"nuts": tree(0), "gibbs": tree(1, clusters=2.3, memory=0.7)}
    blamed = dpgmm.agreement(trees, {name: dpgmm.diagnose(t) for name, t in trees.items()})
    assert blamed.sentence.endswith("; gibbs had not converged")


def test_a_difference_of_sd_alone_is_one():
    found = dpgmm.agreement({"nuts": tree(0), "gibbs": wide(tree(1))})
    assert [(c.quantity, c.of) for c in found.disagreements("nuts", "gibbs")] == [("total_log_likelihood", "sd")]
    assert "disagree on the standard deviation of the log likelihood: 1.0" in found.sentence


def wide(draws_):
    stats = draws_["sample_stats"].to_dataset()
    centre = float(stats["total_log_likelihood"].mean())
    draws_["sample_stats"] = stats.assign(total_log_likelihood=-90 + 1.5 * (stats["total_log_likelihood"] - centre))
    return draws_


def test_too_few_draws_are_not_compared():
    found = dpgmm.agreement({"nuts": tree(0), "gibbs": tree(1, memory=0.99, clusters=3.0)})
    assert found.disagreements("nuts", "gibbs") == []
    assert "for the rest gibbs has too few effective draws" in found.sentence
    short = found.table[found.table["short"] != ""]
    assert set(short["short"]) == {"gibbs"}
    assert short["standard_errors"].isna().all()


def test_a_quantity_that_never_moves_is_not_known_without_error():
    """Two active components in every draw of one method, sometimes three in the other: no difference; always five is."""
    sometimes, five = tree(1), tree(1)
    stats = sometimes["sample_stats"].to_dataset()
    rare = np.where(np.random.default_rng(0).random((CHAINS, DRAWS)) < 0.03, 3, 2)
    sometimes["sample_stats"] = stats.assign(active_components=(("chain", "draw"), rare))
    five["sample_stats"] = stats.assign(active_components=(("chain", "draw"), np.full_like(rare, 5)))
    assert "agree on everything" in dpgmm.agreement({"nuts": tree(0), "gibbs": sometimes}).sentence
    assert "the number of active components: 2 against 5" in dpgmm.agreement({"nuts": tree(0), "gibbs": five}).sentence


def test_weights_that_one_method_hides_are_compared():
    """The third weight is below what is shown in one method alone: that is where they differ."""
    heavy = tree(1)
    weights = heavy["posterior"]["weights"].values
    weights[..., 2] += 0.003 * (1 + 0.1 * np.random.default_rng(0).normal(size=weights.shape[:2]))
    weights[..., 0] -= weights[..., 2]
    found = dpgmm.agreement({"nuts": tree(0), "gibbs": heavy})
    assert "weight, 3. largest" in {c.quantity for c in found.disagreements("nuts", "gibbs")}


def test_truncation_is_allowed_for():
    """Bound: half of the mean of 4 N exp(-(K - 1) / a) over the draws that know a; none between equal truncations."""
    full, short = tree(0, untruncated=1, width=8, centre=2.0), tree(1, truncation=20, centre=2.0)
    a = np.concatenate([t["posterior"]["concentration"].values.reshape(1, -1) for t in (full, short)])
    assert truncation_bound(full, short) == pytest.approx((100 * np.exp(-19 / a)).mean(axis=1).max())
    assert truncation_bound(short, tree(2, truncation=20)) == 0
    assert truncation_bound(full, tree(1, truncation=3, centre=2.0)) == 1
    # Distributions that differ by e of their mass, at the far end of their range, are within what is allowed.
    e, x = 0.01, np.concatenate([np.zeros(990), np.ones(10)])
    one, other = (Estimate(v.mean(), 0.0, 1e9, v.std(), 0.0, 1.0) for v in (np.zeros(1000), x))
    assert other.value <= _allowed(one, other, "mean", e)
    assert other.sd <= _allowed(one, other, "sd", e)
    near = {"nuts": tree(1, truncation=3, clusters=2.3), "gibbs": tree(0, untruncated=1)}
    assert "disagree" not in dpgmm.agreement(near).sentence


def test_guides_and_points_claim_nothing():
    guide = tree(1, clusters=5.0)
    guide["sample_stats"] = guide["sample_stats"].to_dataset().assign(log_weight=guide["sample_stats"]["log_joint"])
    trees = {"map": tree(0, point_estimate=1), "svi": guide}
    assert dpgmm.agreement(trees).sentence == "no method claims the posterior: there is nothing to hold it against"
    assert dpgmm.agreement(trees | {"nuts": tree(2)}).sentence.startswith("only nuts claims the posterior")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: tree(1, model="yours"), "nuts and gibbs are draws of different models or priors"),
        (lambda: tree(1, exchangeable_labels=1, truncation=9), "finite mixtures of different size"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, message):
    with pytest.raises(InputError, match=message):
        dpgmm.agreement({"nuts": tree(0), "gibbs": other()})


def test_other_data_are_refused():
    other = tree(1)
    other["observed_data"] = draws.observed(Dataset(POINTS + 1))
    with pytest.raises(InputError, match="nuts and gibbs are draws given different data"):
        dpgmm.agreement({"nuts": tree(0), "gibbs": other})


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.6789, 0.061, "1.68 ± 0.06"),
        (2.0187, 0.0153, "2.019 ± 0.015"),
        (-53_678.4, 2.4, "-53678 ± 2"),
        (4.0, 0.0, "4"),
    ],
)
def test_errors_are_rounded(value, error, text):
    assert with_error(value, error) == text


def guide_of(draws_, k=1.0):
    """The same draws as a guide's, with importance weights of Pareto tails; the second restart has the highest bound."""
    log_weight = k * np.random.default_rng(0).exponential(size=(CHAINS, DRAWS))
    stats = draws_["sample_stats"].to_dataset().assign(log_weight=(("chain", "draw"), log_weight))
    draws_["sample_stats"] = stats
    draws_.attrs |= {"method": "svi", "elbo": np.array([0.0, 2.0, 1.0, 1.0])}
    return draws_


def answer_to(**trees):
    found = {name: dpgmm.diagnose(t) for name, t in trees.items()}
    return believe(trees, found, dpgmm.agreement(trees, found))


def test_the_converged_sampler_of_most_effective_draws_is_believed():
    answer = answer_to(map=tree(0, point_estimate=1), svi=guide_of(tree(1)), nuts=tree(2, memory=0.5), gibbs=tree(3))
    assert (answer.method, answer.earned) == ("gibbs", True)
    assert answer.sentence.startswith("Believe gibbs (converged, smallest ESS 1,")
    counts = tree(3)["sample_stats"]["occupied_clusters"].values
    table = answer.clusters.set_index("clusters")
    assert table.loc[2, "probability"] == pytest.approx((counts == 2).mean())
    assert table.loc[2, "mcse"] == pytest.approx(np.sqrt((counts == 2).var() / counts.size), rel=0.2)
    assert table["probability"].sum() == pytest.approx(1)
    assert f"2 clusters with probability {(counts == 2).mean():.2f}, " in answer.sentence
    assert answer.of_components == "0.60 at -4 (scale 0.63), 0.40 at 3.999 (scale 0.63)"
    assert answer.others["nuts"] == "converged; agrees with gibbs within Monte Carlo error on everything"
    assert "its 2 components that hold a point in expectation are those of one mode" in answer.others["map"]


def test_more_draws_never_outdo_convergence():
    """Restricted labels: as many effective draws as there can be, and yet not to be believed."""
    answer = answer_to(nuts=tree(0, moves_labels=0), gibbs=tree(1, memory=0.4))
    assert (answer.method, answer.earned) == ("gibbs", True)
    assert answer.others["nuts"].startswith("labels restricted: invariants are biased; agrees")


def test_nobody_earned_it():
    answer = answer_to(map=tree(0, point_estimate=1), nuts=tree(1, memory=0.8), svi=guide_of(tree(2)))
    assert (answer.method, answer.earned) == ("nuts", False)
    assert answer.sentence.startswith("No method has earned belief yet; the best so far is nuts (nearly: draw more)")


def test_converged_samplers_that_disagree_are_both_doubted():
    answer = answer_to(nuts=tree(0), gibbs=tree(1, clusters=2.3))
    assert not answer.earned
    assert answer.sentence.startswith("Believe none of the methods yet: ")
    assert "both look converged and disagree on the number of clusters: 2." in answer.sentence


def test_a_converged_sampler_is_believed_against_one_that_is_not():
    answer = answer_to(nuts=tree(0), gibbs=tree(1, clusters=2.5, memory=0.7))
    assert (answer.method, answer.earned) == ("nuts", True)
    assert "nearly: draw more; differs from nuts on the number of clusters: 2." in answer.others["gibbs"]


@pytest.mark.parametrize(
    ("k", "earned", "words"), [(0.2, True, "Believe svi (restarts agree"), (2.0, False, "No method")]
)
def test_a_guide_is_believed_by_its_k_hat_alone(k, earned, words):
    answer = answer_to(map=tree(0, point_estimate=1), svi=guide_of(tree(1), k))
    assert (answer.method, answer.earned) == ("svi", earned)
    assert answer.sentence.startswith(words)


def test_what_a_guide_gets_wrong_is_in_numbers():
    """Half the spread of one quantity, and two of the sampler's sds away in another."""
    guide, sampler = guide_of(tree(1), 2.0), tree(2)
    stats, a = guide["sample_stats"].to_dataset(), guide["posterior"].to_dataset()["concentration"]
    guide["posterior"] = guide["posterior"].to_dataset().assign(concentration=0.5 + 0.5 * (a - 0.5))
    guide["sample_stats"] = stats.assign(expected_clusters=stats["expected_clusters"] + 0.4)
    wrong = answer_to(gibbs=sampler, svi=guide).others["svi"]
    assert wrong.startswith("k-hat ")
    assert ": not a posterior; its sds are 0.46 to 1.08 times those of gibbs (median 1.0" in wrong
    assert "means are off by up to 2.0 of these sds (expected_clusters); 2.41 clusters on average where" in wrong


def test_a_mode_counts_components_and_not_clusters():
    best = tree(0, point_estimate=1)
    stats = best["sample_stats"].to_dataset()
    active, joint = stats["active_components"].copy(), stats["log_joint"].copy()
    active[2, 0], joint[2, 0] = 3, 1000.0
    best["sample_stats"] = stats.assign(active_components=active, log_joint=joint).isel(draw=[0])
    best["posterior"] = best["posterior"].to_dataset().isel(draw=[0])
    best["optimisation"] = xr.Dataset({"loss": (("chain", "step"), np.zeros((CHAINS, 2)))})
    said = answer_to(map=best, gibbs=tree(1))
    assert "its 3 components that hold a point in expectation" in said.others["map"]
    assert "gibbs has 2.0 on average, and 3 with probability 0.00" in said.others["map"]
    assert len(number_of_clusters(best)) == 0
    assert answer_to(map=best).sentence.startswith("No posterior to believe: map is a point estimate")


@pytest.mark.parametrize(
    ("verdict", "earned"),
    [
        ("converged", True),
        ("converged up to labels", True),
        ("nearly: draw more", False),
        ("labels restricted: invariants are biased", False),
        ("not converged: chains drift", False),
        ("duplicated chains", False),
        ("one chain", False),
    ],
)
def test_verdicts_that_earn_belief(verdict, earned):
    sampler = tree(0)
    diagnosis = Diagnosis(dpgmm.diagnose(sampler).table, verdict, "", {})
    answer = believe({"nuts": sampler}, {"nuts": diagnosis}, Agreement([], "only nuts claims the posterior"))
    assert answer.earned == earned
    assert answer.sentence.startswith(
        "Believe nuts" if earned else f"No method has earned belief yet; the best so far is nuts ({verdict})"
    )


def test_relabelled_draws_keep_their_components_apart():
    """Two components of equal weight trade ranks from draw to draw: sorted they mix, by their labels they do not."""
    sampler = tree(0)
    weights = sampler["posterior"].to_dataset()["weights"].copy()
    first = 0.5 + 0.05 * np.random.default_rng(0).normal(size=(CHAINS, DRAWS))
    weights[..., 0], weights[..., 1] = first, 1 - first - 2e-5
    sampler["posterior"] = sampler["posterior"].to_dataset().assign(weights=weights)
    found = {"nuts": dpgmm.diagnose(sampler)}
    none = Agreement([], "only nuts claims the posterior")
    mixed, apart = believe({"nuts": sampler}, found, none), believe({"nuts": sampler}, found, none, {"nuts": sampler})
    assert np.abs(mixed.components["mean"].iloc[:2]).max() < 1
    np.testing.assert_allclose(np.sort(apart.components["mean"].iloc[:2]), [-4, 4], atol=0.02)
