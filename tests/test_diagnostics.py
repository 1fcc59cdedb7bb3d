"""The verdict names chains that were built to be fine, only switched, in different modes, or drifting."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import dpgmm
from dpgmm import InputError, calibration, diagnostics, draws
from dpgmm.data import Dataset
from dpgmm.densities import mixture
from dpgmm.diagnostics import importance, r_star, reference_points, verdicts
from dpgmm.draws import allocations, monte_carlo
from dpgmm.labels.switching import Visits

CHAINS, DRAWS, K = 4, 400, 3


def tree(weights, means, **attrs):
    rng = np.random.default_rng(9)
    shape = means.shape[:2]
    order = np.argsort(means, axis=-1)
    state = np.take_along_axis(weights * (1 + means**2), order, axis=-1).sum(axis=-1)
    posterior = xr.Dataset(
        {
            "weights": (("chain", "draw", "component"), weights),
            "means": (("chain", "draw", "component", "dim"), means[..., None]),
            "covariances": (("chain", "draw", "component", "dim", "dim_"), np.ones((*shape, K, 1, 1))),
        }
    )
    stats = xr.Dataset(dict.fromkeys(("log_joint", "total_log_likelihood"), (("chain", "draw"), state)))
    stats["active_components"] = (("chain", "draw"), np.full(shape, 3))
    observed = draws.observed(Dataset(rng.normal(size=200) * 4))
    result = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": stats, "observed_data": observed})
    result.attrs = {"method": "nuts", "run_seconds": 1.0, "compile_seconds": 1.0, **attrs}
    return result


def fine(centre=(-4.0, 0.0, 4.0), chains=CHAINS):
    rng = np.random.default_rng(0)
    weights = np.array([0.5, 0.3, 0.2]) + 0.01 * rng.normal(size=(chains, DRAWS, K))
    return weights / weights.sum(-1, keepdims=True), np.array(centre) + 0.1 * rng.normal(size=(chains, DRAWS, K))


def switched():
    return tuple(np.stack([np.roll(chain, i, axis=-1) for i, chain in enumerate(a)]) for a in fine())


def modes():
    weights, means = fine()
    means[2:] += np.array([0.0, 2.0, 0.0])
    return weights, means


def drifting():
    weights, means = fine()
    return weights, means + np.linspace(0, 2, DRAWS)[:, None] * np.arange(1, CHAINS + 1)[:, None, None]


def stuck():
    """Chain 0 has its moves, and stands still from a quarter of its draws on."""
    weights, means = fine()
    for a in (weights, means):
        a[0, DRAWS // 4 :] = a[0, DRAWS // 4]
    return weights, means


def twisted():
    """Two chains in which the heaviest component's mean goes with its weight, two in which it goes against it."""
    weights, means = fine()
    rng = np.random.default_rng(3)
    shift = rng.normal(size=(CHAINS, DRAWS))
    sign = np.array([1, 1, -1, -1])[:, None]
    weights = np.array([0.5, 0.3, 0.2]) + 0.01 * shift[..., None] * np.array([1, -1, 0])
    means[..., 0] = -4 + 0.1 * sign * shift
    return weights, means


def free():
    """Every draw under its own labelling."""
    order = np.random.default_rng(1).permuted(np.broadcast_to(np.arange(K), (CHAINS, DRAWS, K)), axis=-1)
    return tuple(np.take_along_axis(a, order, axis=-1) for a in fine())


def slow(memory=0.7):
    """Autoregressions whose effective draws are about 70 of 400 a chain: R-hat is small, but they are too few."""
    weights, means = fine()
    for a in (weights, means):
        centre = a.mean(axis=(0, 1))
        noise, a[:] = a - centre, a - centre
        for t in range(1, DRAWS):
            a[:, t] = memory * a[:, t - 1] + np.sqrt(1 - memory**2) * noise[:, t]
        a += centre
    return weights / weights.sum(-1, keepdims=True), means


def one_drifts():
    """A single chain drifts; the others are stationary."""
    weights, means = fine()
    means[0] += np.linspace(0, 2, DRAWS)[:, None]
    return weights, means


def metropolis(moves=0.35, length=4000):
    """Independent proposals that are accepted in a third of the steps: most steps repeat the state, and nothing is wrong."""
    rng = np.random.default_rng(4)
    accepted = rng.random((CHAINS, length)) < moves
    accepted[:, 0] = True
    last = np.maximum.accumulate(np.where(accepted, np.arange(length), 0), axis=1)[..., None]
    weights = np.array([0.5, 0.3, 0.2]) + 0.01 * rng.normal(size=(CHAINS, length, K))
    means = np.array([-4.0, 0.0, 4.0]) + 0.1 * rng.normal(size=(CHAINS, length, K))
    return tuple(np.take_along_axis(a, last, axis=1) for a in (weights / weights.sum(-1, keepdims=True), means))


def copied(take, into):
    weights, means = fine()
    for a in (weights, means):
        a[2, into] = a[0, take]
    return weights, means


@pytest.mark.parametrize(
    ("build", "verdict"),
    [
        (fine, "converged"),
        (metropolis, "converged"),
        (switched, "converged up to labels"),
        (slow, "nearly: draw more"),
        (modes, "chains in different modes"),
        (drifting, "not converged: chains drift"),
        (one_drifts, "not converged: chains drift"),
        (stuck, "not converged: a chain is stuck"),
        (lambda: copied(slice(None), slice(None)), "duplicated chains"),
        (lambda: copied(slice(100, None), slice(None, -100)), "duplicated chains"),
        (lambda: copied(slice(30), slice(30)), "duplicated chains"),
        (lambda: copied(slice(1), slice(1)), "converged"),
    ],
)
def test_verdict(build, verdict):
    assert diagnostics.diagnose(tree(*build())).verdict == verdict


@pytest.mark.parametrize(
    ("build", "known", "verdict"),
    [
        (switched, {"exchangeable_labels": 1}, "converged up to labels"),
        (switched, {"exchangeable_labels": 0}, "labels restricted: invariants are biased"),
        (switched, {"exchangeable_labels": 0, "moves_labels": 1}, "converged up to labels"),
        (fine, {"exchangeable_labels": 1}, "converged"),
        (fine, {"exchangeable_labels": 0}, "labels restricted: invariants are biased"),
        (fine, {"exchangeable_labels": 0, "moves_labels": 1}, "converged"),
        (free, {"exchangeable_labels": 0}, "converged"),
    ],
)
def test_labels_may_stay_only_where_they_are_exchangeable(build, known, verdict):
    diagnosis = diagnostics.diagnose(tree(*build(), **known))
    assert diagnosis.verdict == verdict
    assert ("labels are not exchangeable, and" in diagnosis.explanation) == verdict.startswith("labels restricted")


def test_label_moves_count_where_every_chain_has_them_and_raw_weights_agree():
    for build, silent, verdict in (
        (fine, (), "converged"),
        (fine, (3,), "labels restricted: invariants are biased"),
        (switched, (), "labels restricted: invariants are biased"),
    ):
        moved = tree(*build(), exchangeable_labels=0)
        moves = np.ones((CHAINS, DRAWS), int)
        moves[list(silent)] = 0
        moved["sample_stats"] = moved["sample_stats"].to_dataset().assign(label_moves=(("chain", "draw"), moves))
        assert diagnostics.diagnose(moved).verdict == verdict


def test_chains_that_have_not_converged_are_told_of_their_labels_too():
    diagnosis = diagnostics.diagnose(tree(*modes(), exchangeable_labels=0))
    assert diagnosis.verdict == "chains in different modes"
    assert "labels are not exchangeable, and the large components change labels 0 times" in diagnosis.explanation


def test_unknown_labels_are_said_to_be_unknown():
    explanation = diagnostics.diagnose(tree(*switched())).explanation
    assert "this holds if the prior's labels are exchangeable" in explanation


def _table(**numbers):
    """One invariant with these numbers beside one without fault, and a raw weight."""
    good = {"kind": "invariant", "sd": 1.0, "ess_bulk": 4000.0, "ess_tail": 4000.0, "r_hat": 1.0}
    return pd.DataFrame([good, good | numbers, good | {"kind": "raw"}], index=pd.Index(["good", "poor", "weight[0]"]))


@pytest.mark.quick("diagnostics")
@pytest.mark.parametrize(
    ("numbers", "times", "why"),
    [
        ({}, None, None),
        ({"r_hat": 1.0099}, None, None),
        ({"ess_bulk": 200.0}, 2.0, "bulk ESS of poor"),
        ({"ess_tail": 100.0}, 4.0, "tail ESS of poor"),
        ({"r_hat": 1.04}, 4.06, "R-hat of poor"),
        ({"r_hat": 1.02, "ess_bulk": 40.0}, 10.0, "bulk ESS of poor"),
        ({"ess_bulk": np.nan}, 400.0, "bulk ESS of poor"),
        ({"ess_bulk": np.nan, "ess_tail": np.nan, "sd": 0.0}, None, None),
    ],
)
def test_nearly_says_how_many_draws_more(numbers, times, why):
    """Four chains: 400 effective draws are asked for, and R-hat below 1.01."""
    table, values = _table(**numbers), {"good": np.zeros((4, 100)), "poor": np.zeros((4, 100))}
    labels = verdicts.Labels(
        exchangeable=True, moved=False, accepted=np.nan, visits=Visits(np.zeros(4, int), np.ones(4, int))
    )
    verdict, evidence = verdicts.chains_verdict(table, values, {}, labels)
    if times is None:
        assert (verdict, evidence) == ("converged", "")
    else:
        found, which = verdicts.shortfall(verdicts.rows_of_kind(table, "invariant"), 4)
        assert (verdict, which) == ("nearly: draw more", why)
        assert found == pytest.approx(times, rel=0.01)
        assert why in evidence


@pytest.mark.quick("diagnostics")
@pytest.mark.parametrize(("star", "verdict"), [(1.5, "not converged: chains can be told apart"), (1.3, "converged")])
def test_r_star_tells_chains_apart_from_four_standard_errors_on(star, verdict):
    values = {"good": np.zeros((4, 100)), "poor": np.zeros((4, 100))}
    labels = verdicts.Labels(
        exchangeable=True, moved=False, accepted=np.nan, visits=Visits(np.zeros(4, int), np.ones(4, int))
    )
    assert verdicts.chains_verdict(_table(), values, {"R*": star, "R*, standard error": 0.1}, labels)[0] == verdict


def test_numbers_of_the_table():
    draws_ = tree(*fine(), run_seconds=4.0, compile_seconds=2.0)
    diagnosis = diagnostics.diagnose(draws_)
    inner = diagnosis.table[(diagnosis.table["kind"] == "invariant") & (diagnosis.table["sd"] > 0)]
    least = inner[["ess_bulk", "ess_tail"]].min().min()
    row = diagnostics.summary_row(draws_, diagnosis)
    assert row["min ESS"] == diagnosis.least_ess == least
    assert row["ESS per second"] == pytest.approx(least / 4)
    assert row["worst invariant R-hat"] == inner["r_hat"].max()
    assert row["best log joint"] == draws_["sample_stats"]["log_joint"].values.max()
    assert row["active components"] == 3
    assert row["k-hat"] == ""


@pytest.mark.quick("diagnostics")
def test_every_number_of_a_row_is_that_of_its_quantity():
    """Each constructed so that no other statistic of it, and no other quantity, is the same number."""
    draws_ = tree(*switched(), run_seconds=4.0, compile_seconds=2.0)
    shape, rng = (CHAINS, DRAWS), np.random.default_rng(2)
    numbers = {
        "total_log_likelihood": rng.normal(-50, 1, shape),
        "log_joint": rng.normal(-70, 1, shape),
        "active_components": rng.integers(2, 5, shape),
        "occupied_clusters": rng.integers(5, 9, shape),
        "diverging": rng.random(shape) < 0.01,
    }
    draws_["sample_stats"] = xr.DataTree(xr.Dataset({n: (("chain", "draw"), v) for n, v in numbers.items()}))
    diagnosis = diagnostics.diagnose(draws_)
    row = diagnostics.summary_row(draws_, diagnosis)
    assert row["log likelihood"] == pytest.approx(numbers["total_log_likelihood"].mean(), rel=1e-12)
    assert row["best log joint"] == numbers["log_joint"].max()
    assert row["active components"] == pytest.approx(numbers["active_components"].mean(), rel=1e-12)
    assert row["occupied clusters"] == pytest.approx(numbers["occupied_clusters"].mean(), rel=1e-12)
    assert row["divergences"] == numbers["diverging"].sum() > 0
    assert (row["compile seconds"], row["run seconds"]) == (2.0, 4.0)
    raw = [monte_carlo.r_hat(draws_["posterior"]["weights"].values[..., k]) for k in range(K)]
    assert row["worst raw R-hat"] == pytest.approx(max(raw), rel=1e-12)
    assert max(raw) > 1.5 > row["worst invariant R-hat"]
    assert (row["method"], row["verdict"]) == ("nuts", diagnosis.verdict)
    assert row["worst invariant"] == diagnosis.table.query("kind == 'invariant'")["r_hat"].idxmax()


@pytest.mark.quick("diagnostics")
def test_numbers_of_the_chains_are_the_largest_and_the_least():
    """A chain that stands still in a quarter of its steps, two that share a tenth of their states, one chain apart."""
    weights, means = fine()
    for a in (weights, means):
        a[1, 101:201] = a[1, 100:200:1][:1]
        a[2, :40] = a[0, :40]
    means[3] += np.array([0.0, 2.0, 0.0])
    found = diagnostics.diagnose(tree(weights, means)).chains
    assert found["largest share of steps without any change"] == pytest.approx(100 / (DRAWS - 1), abs=2 / DRAWS)
    assert found["largest share of states in common with another chain"] == pytest.approx(0.1)
    seen = reference_points.read(tree(weights, means))
    of_chain = seen.similarity.mean(axis=1)
    between = [np.abs(of_chain[i] - of_chain[j]).mean() for i in range(CHAINS) for j in range(i)]
    assert found["similarity, largest distance between two chains"] == pytest.approx(max(between), rel=1e-12)
    assert max(between) > 2 * min(between)
    within = np.abs(seen.similarity[:, 0] - seen.similarity[:, 1]).mean(axis=(1, 2))
    assert found["similarity, largest distance between halves of a chain"] == pytest.approx(within.max(), rel=1e-12)


@pytest.mark.parametrize(("build", "verdict"), [(fine, "restarts agree"), (modes, "restarts differ")])
def test_restarts_of_a_guide_agree_or_differ(build, verdict):
    guide = tree(*build(), elbo=np.arange(4.0))
    log_weight = np.random.default_rng(0).normal(size=(CHAINS, DRAWS))
    guide["sample_stats"] = guide["sample_stats"].to_dataset().assign(log_weight=(("chain", "draw"), log_weight))
    assert diagnostics.diagnose(guide).verdict == verdict


@pytest.mark.parametrize(("k", "said"), [(1.5, "not a posterior"), (0.2, "importance weights could correct")])
def test_guides_carry_their_k_hat(k, said):
    """Importance weights of Pareto tails, P(weight > x) = x^(-1/k); the restart of the highest bound counts."""
    guide = tree(*fine(), elbo=np.array([0.0, 3.0, 1.0, 2.0]))
    rng = np.random.default_rng(0)
    log_weight = k * rng.exponential(size=(CHAINS, DRAWS))
    guide["sample_stats"] = guide["sample_stats"].to_dataset().assign(log_weight=(("chain", "draw"), log_weight))
    diagnosis = diagnostics.diagnose(guide)
    assert diagnosis.verdict == "restarts agree"
    assert said in diagnosis.explanation
    assert diagnosis.k_hat == calibration.k_hat(guide)[1] == diagnostics.summary_row(guide, diagnosis)["k-hat"]
    assert (diagnosis.k_hat > diagnostics.POOR) == (said == "not a posterior")


@pytest.mark.filterwarnings("error")
def test_weights_of_which_one_alone_is_a_number_have_no_tail():
    """A guide of 100,000,000 points: the second-largest weight is exp(-815) of the largest, and arviz-stats says 0.05."""
    rng = np.random.default_rng(0)
    alone = np.concatenate([[0.0], -815 - rng.exponential(30, 999)])
    heavy = 0.4 * rng.exponential(size=1000)
    log_weights, k = importance.smoothed(np.stack([alone, heavy, heavy + 5e7, alone - 2e8]))
    assert np.isinf(k[[0, 3]]).all()
    assert k[1] == pytest.approx(0.4, abs=0.25)
    assert k[2] == pytest.approx(k[1], abs=1e-5)
    np.testing.assert_allclose(np.exp(log_weights).sum(axis=1), 1, rtol=1e-6)
    # A third of the weights is nothing, and the tail of 95 is all there.
    some = np.concatenate([heavy, np.full(500, -900.0)])
    assert np.isfinite(importance.smoothed(some[None])[1]).all()


def test_the_reference_partition_is_that_of_the_best_draw():
    """One draw puts all points together and has the highest log joint: every other is as far from it as can be."""
    weights, means = fine()
    means[1, 7] = 0.0
    draws_ = tree(weights, means)
    draws_["sample_stats"]["log_joint"][1, 7] = draws_["sample_stats"]["log_joint"].max() + 1
    variation = reference_points.read(draws_).variation
    assert variation[1, 7] == 0
    assert np.delete(variation.ravel(), DRAWS + 7).min() > 0.5


def built(truncation, starts, points, weights=None, **options):
    """A posterior, and draws of it at dispersed starts, one chain."""
    posterior = dpgmm.load_model("stick_breaking")(Dataset(points, weights), truncation=truncation, **options)
    start = jax.jit(jax.vmap(posterior.initial))(jax.random.split(jax.random.PRNGKey(1), starts))
    parameters = jax.tree.map(lambda leaf: leaf[None], start)
    seconds = {"compile_seconds": 0.0, "run_seconds": 1.0}
    tree = draws.build(posterior, parameters, **seconds)
    tree.attrs["method"] = "nuts"
    return posterior, parameters, tree


def test_log_partition_posterior_of_tied_components_is_exact():
    """Against enumeration of all partitions of five points, for every draw's partition and concentration."""
    points = np.random.default_rng(3).normal(size=(5, 2)) * np.array([1.0, 3.0])
    posterior, parameters, found = built(3, 3, points, covariance="tied")
    seen = reference_points.read(found)
    assert seen.log_partition is not None
    for t in range(3):
        draw = jax.tree.map(lambda leaf, t=t: leaf[0, t], parameters)
        logits = mixture.log_joint_density(*posterior.mixture(draw), jnp.asarray(points))
        truth = dpgmm.exact.partitions(posterior, concentration=float(draw["concentration"]))
        row = (truth.labels == dpgmm.partitions.canonical(np.asarray(logits.argmax(axis=1))[None])).all(axis=1)
        wanted = truth.log_posterior[row].item() + truth.log_evidence
        assert seen.log_partition[0, t] == pytest.approx(wanted, abs=1e-8)


@pytest.mark.parametrize("weights", [None, np.array([1.0, 3.0, 0.5, 2.0, 1.0])])
def test_counts_of_clusters_are_those_of_responsibilities(weights):
    """Every draw the same components: what varies is the allocation alone."""
    points = np.random.default_rng(5).normal(size=5) * 3
    posterior, parameters, _ = built(4, 1, points, weights)
    omega, size = posterior.data.weights, 2000
    one = jax.tree.map(lambda leaf: leaf[0, 0], parameters)
    r = np.asarray(
        jax.nn.softmax(mixture.log_joint_density(*posterior.mixture(one), jnp.asarray(posterior.data.points)), axis=1)
    )
    held = 1 - np.prod((1 - r) ** omega[:, None], axis=0)
    same = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (1, size, *leaf.shape[2:])), parameters)
    stats = draws.schema._summaries(posterior, same)
    np.testing.assert_allclose(stats["expected_clusters"], held.sum(), rtol=1e-10)
    np.testing.assert_array_equal(stats["active_components"], (omega @ r >= 1).sum())
    occupied = stats["occupied_clusters"]
    assert occupied.std() > 0
    assert abs(occupied.mean() - held.sum()) < 4 * occupied.std() / np.sqrt(size)
    # Of whole points some component holds one; the sd is that of drawn allocations, not of independent components.
    if weights is None:
        components = (np.repeat(np.asarray(a)[None], 20_000, 0) for a in posterior.smallest_components(one))
        labels = allocations.sample(jax.random.PRNGKey(0), *components, posterior.data.points)
        number = np.array([len(set(row)) for row in np.asarray(labels).tolist()])
        shares = [np.bincount(n.ravel(), minlength=5) / n.size for n in (occupied, number)]
        assert np.abs(shares[0] - shares[1]).max() < 4 * 0.5 / np.sqrt(size)
        assert shares[0][0] == 0


@pytest.mark.parametrize(("model", "known"), [("stick_breaking", False), ("symmetric_dirichlet", True)])
def test_exchangeable_labels_are_found_from_the_prior_too(model, known):
    posterior = dpgmm.load_model(model)(Dataset(np.random.default_rng(0).normal(size=30)), truncation=3)
    start = jax.tree.map(lambda leaf: leaf[None, None], jax.jit(posterior.initial)(jax.random.PRNGKey(0)))
    assert draws.exchangeable_labels(posterior, start) == known
    assert draws.exchangeable_labels(dataclasses.replace(posterior, conjugate=None), start) == known


def test_r_star_sees_what_no_single_r_hat_sees():
    """The same margins in every chain, other dependence: features are weight and mean, each mixed by itself."""
    weights, means = twisted()
    features = np.stack([weights[..., 0], means[..., 0]], axis=-1)
    assert max(diagnostics.r_hat(features[..., f]) for f in range(2)) < 1.02
    star, error = r_star.r_star(features, ess=CHAINS * DRAWS)
    assert star - 4 * error > 1
    fair, error = r_star.r_star(np.random.default_rng(0).normal(size=features.shape), ess=CHAINS * DRAWS)
    assert abs(fair - 1) < 4 * error


def test_r_star_does_not_take_a_slow_chain_for_another_distribution(monkeypatch):
    """Chains of one autoregression: thinned to their effective number they cannot be told apart, unthinned they can."""
    rng = np.random.default_rng(1)
    chains = np.zeros((CHAINS, 4000, 1))
    for t in range(1, 4000):
        chains[:, t] = 0.99 * chains[:, t - 1] + 0.14 * rng.normal(size=(CHAINS, 1))
    ess = monte_carlo.ess_bulk(chains[..., 0])
    # Or that limit would thin them, too.
    monkeypatch.setattr(r_star, "DRAWS", chains.size)
    thinned, error = r_star.r_star(chains, ess)
    assert thinned - 4 * error < 1
    unthinned, error = r_star.r_star(chains, 1e9)
    assert unthinned - 4 * error > 1


def test_nested_r_hat_takes_short_chains_that_share_starts():
    """16 chains of 6 draws in 4 groups: too short for split R-hat, long enough together."""
    rng = np.random.default_rng(2)
    weights = np.array([0.5, 0.3, 0.2]) + 0.01 * rng.normal(size=(16, 6, K))
    means = np.array([-4.0, 0.0, 4.0]) + 0.1 * rng.normal(size=(16, 6, K))
    groups = np.repeat(np.arange(4), 4)
    fair = diagnostics.diagnose(tree(weights / weights.sum(-1, keepdims=True), means), superchains=groups)
    assert fair.table.loc["weight, 1. largest", "r_hat"] < 1.1
    means[groups == 0] += 1.0
    apart = diagnostics.diagnose(tree(weights / weights.sum(-1, keepdims=True), means), superchains=groups)
    assert apart.worst("invariant")[1] > 1.5
    with pytest.raises(InputError, match=r"superchains \[0, 0\] for 16 chains: give each chain's group"):
        diagnostics.diagnose(tree(weights, means), superchains=[0, 0])


def test_similarity_matrices_of_modes_are_far_apart():
    near, far = (diagnostics.diagnose(tree(*build())).chains for build in (fine, modes))
    between, within = (
        "similarity, largest distance between two chains",
        "similarity, largest distance between halves of a chain",
    )
    assert near[between] < 3 * near[within]
    assert far[between] > 10 * far[within]


@pytest.mark.quick("diagnostics")
def test_a_point_estimate_gets_no_r_hat():
    diagnosis = diagnostics.diagnose(tree(*fine(), point_estimate=1))
    assert diagnosis.verdict == "point estimate"
    assert diagnosis.table["r_hat"].isna().all()


@pytest.mark.parametrize(("length", "verdict"), [(1, "too few draws"), (3, "too few draws"), (5, "not converged")])
def test_few_draws_claim_nothing(length, verdict):
    assert diagnostics.diagnose(tree(*(a[:, :length] for a in modes()))).verdict == verdict


def test_a_number_that_is_none_is_not_converged():
    broken = tree(*fine())
    broken["sample_stats"]["log_joint"][2, 7] = np.nan
    diagnosis = diagnostics.diagnose(broken)
    assert diagnosis.worst("invariant") == ("log_joint", np.inf)
    assert diagnosis.verdict not in ("converged", "converged up to labels")


def test_places_of_the_density_keep_their_names_far_from_zero():
    weights, means = fine()
    far = tree(weights, means + 1e6)
    far["observed_data"]["points"] = far["observed_data"]["points"] + 1e6
    assert len(diagnostics.invariants(far)) == len(diagnostics.invariants(tree(weights, means)))


def test_one_chain_has_no_verdict_between_chains():
    assert diagnostics.diagnose(tree(*fine(chains=1))).verdict == "one chain"


def test_invariants_ignore_labels_to_the_last_bit():
    weights, means = fine()
    order = np.random.default_rng(1).permuted(np.broadcast_to(np.arange(K), weights.shape), axis=-1)
    permuted = (np.take_along_axis(a, order, axis=-1) for a in (weights, means))
    before, after = diagnostics.invariants(tree(weights, means)), diagnostics.invariants(tree(*permuted))
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)


def test_sorted_components_are_by_weight():
    table = diagnostics.sorted_components(tree(*switched()))
    assert table["weight"].is_monotonic_decreasing
    np.testing.assert_allclose(table["mean"], [-4, 0, 4], atol=0.05)


def test_one_draw_has_no_sds():
    weights, means = fine()
    many, one = (diagnostics.sorted_components(tree(weights[:c, :t], means[:c, :t])) for c, t in ((2, 9), (1, 1)))
    sds = [name for name in one if name.endswith("_sd")]
    assert len(sds) == 3
    assert one[sds].isna().all(axis=None)
    assert (many[sds] >= 0).all(axis=None)
