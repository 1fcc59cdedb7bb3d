"""The verdict names chains that were built to be fine, only switched, in different modes, or drifting."""

import numpy as np
import pytest
import xarray as xr

from dpgmm import InputError, diagnostics, draws, monte_carlo, r_star
from dpgmm.data import Dataset

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
    stats = xr.Dataset(dict.fromkeys(("log_joint", "log_likelihood"), (("chain", "draw"), state)))
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


@pytest.mark.parametrize(
    ("build", "verdict"),
    [
        (fine, "converged"),
        (switched, "converged up to labels"),
        (modes, "chains in different modes"),
        (drifting, "not converged: chains drift"),
        (stuck, "not converged: a chain is stuck"),
    ],
)
def test_verdict(build, verdict):
    assert diagnostics.diagnose(tree(*build())).verdict == verdict


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
    thinned, error = r_star.r_star(chains, ess)
    assert thinned - 4 * error < 1
    monkeypatch.setattr(r_star, "DRAWS", chains.size)
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
