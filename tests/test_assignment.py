"""Linear assignment, its second best, parking, and permanents: all K! permutations as the oracle."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from hypothesis.extra.numpy import arrays
from scipy.special import logsumexp

from dpgmm.relabelling import assignment, permanent

pytestmark = pytest.mark.quick("relabelling")

moderate = settings(max_examples=30, deadline=None, derandomize=True)


def enumerated(costs):
    """All K! permutations, and what each costs in every draw."""
    orders = np.array(list(itertools.permutations(range(costs.shape[-1]))))
    return orders, np.stack([costs[:, np.arange(costs.shape[-1]), order].sum(axis=1) for order in orders], axis=1)


costs_of_any_kind = hs.one_of(
    arrays(np.float64, (6, 4, 4), elements=hs.floats(-10, 10)),
    arrays(np.int64, (6, 4, 4), elements=hs.integers(-3, 3)).map(lambda a: a.astype(float)),
)


@moderate
@given(costs_of_any_kind)
def test_assignment_by_enumeration(costs):
    values = np.sort(enumerated(costs)[1], axis=1)
    permutations = assignment.solve(costs)
    np.testing.assert_allclose(assignment.cost(costs, permutations), values[:, 0], atol=1e-9)
    gap, tied = assignment.measured(costs)
    np.testing.assert_allclose(gap, values[:, 1] - values[:, 0], atol=1e-9)
    whole = (costs == np.round(costs)).all(axis=(1, 2))
    np.testing.assert_array_equal(tied[whole], (values[:, 1] == values[:, 0])[whole])
    assert not tied[values[:, 1] - values[:, 0] > 1e-6].any()


@moderate
@given(
    arrays(np.float64, (6, 4, 4), elements=hs.floats(-10, 10)),
    arrays(bool, (6, 4)),
    arrays(bool, 4),
)
def test_parking_by_enumeration(costs, active, slots):
    """As many active components as can be are matched with open slots, at the least cost; the rest is in order."""
    permutations = assignment.solve(costs, active, slots)
    orders, _ = enumerated(costs)
    gap, _ = assignment.measured(assignment.parked(costs, active, slots), active, slots)
    for t in range(len(costs)):
        matched = active[t][orders] & slots  # (K!, K)
        number = matched.sum(axis=1)
        totals = np.where(matched, costs[t][np.arange(4), orders], 0).sum(axis=1)
        ours = active[t][permutations[t]] & slots
        assert ours.sum() == number.max()
        value = costs[t][np.arange(4), permutations[t]][ours].sum()
        np.testing.assert_allclose(value, totals[number == number.max()].min(), atol=1e-9)
        rest = permutations[t][~ours]
        np.testing.assert_array_equal(rest, sorted(rest, key=lambda j, a=active[t]: (not a[j], j)))
        # Second best: other components on the open slots. Only where as many can be matched is the cost comparable.
        held = np.where(matched, orders, -1)
        best = np.where(ours, permutations[t], -1)
        others = totals[(number == number.max()) & (held != best).any(axis=1)]
        if len(others) and others.min() - value < 40:
            np.testing.assert_allclose(gap[t], others.min() - value, atol=1e-9)


def test_second_best_of_one_component():
    assert assignment.measured(np.ones((2, 1, 1)))[0].tolist() == [np.inf, np.inf]


@moderate
@given(arrays(np.float64, (3, 4, 4), elements=hs.floats(-30, 30)))
def test_permanent_by_enumeration(log_values):
    orders, values = enumerated(log_values)
    total, shares = permanent.log_permanent(log_values)
    np.testing.assert_allclose(total, logsumexp(values, axis=1), atol=1e-10)
    chosen = orders[:, :, None] == np.arange(4)
    probability = np.exp(values - logsumexp(values, axis=1, keepdims=True))
    np.testing.assert_allclose(shares, np.einsum("tp,pkj->tkj", probability, chosen), atol=1e-10)
