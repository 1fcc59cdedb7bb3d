"""The verdict names chains that were built to be fine, only switched, in different modes, or drifting."""

import numpy as np
import pytest
import xarray as xr

from dpgmm import diagnostics, draws
from dpgmm.data import Dataset

CHAINS, DRAWS, K = 4, 400, 3


def tree(weights, means, **attrs):
    rng = np.random.default_rng(9)
    shape = means.shape[:2]
    posterior = xr.Dataset(
        {
            "weights": (("chain", "draw", "component"), weights),
            "means": (("chain", "draw", "component", "dim"), means[..., None]),
            "covariances": (("chain", "draw", "component", "dim", "dim_"), np.ones((*shape, K, 1, 1))),
        }
    )
    noise = xr.Dataset({n: (("chain", "draw"), rng.normal(size=shape)) for n in ("log_joint", "log_likelihood")})
    noise["active_components"] = (("chain", "draw"), np.full(shape, 3))
    observed = draws.observed(Dataset(rng.normal(size=200) * 4))
    result = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": noise, "observed_data": observed})
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


@pytest.mark.parametrize(
    ("build", "verdict"),
    [
        (fine, "converged"),
        (switched, "converged up to labels"),
        (modes, "chains in different modes"),
        (drifting, "not converged"),
    ],
)
def test_verdict(build, verdict):
    assert diagnostics.diagnose(tree(*build())).verdict == verdict


def test_a_point_estimate_gets_no_r_hat():
    diagnosis = diagnostics.diagnose(tree(*fine(), point_estimate=1))
    assert diagnosis.verdict == "point estimate"
    assert diagnosis.table["r_hat"].isna().all()


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
