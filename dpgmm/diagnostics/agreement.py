"""Do methods that claim one posterior give one answer? Differences in Monte Carlo standard errors, and a sentence."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from ..draws import data_of, kind, monte_carlo
from ..draws.affinity import VISIBLE
from ..errors import InputError
from .diagnosis import Diagnosis, invariants
from .verdicts import FOUND

ERRORS = 4.0
"""Standard errors of a difference from which on two methods disagree."""
ENOUGH = 100.0
"""Effective draws below which a Monte Carlo standard error is itself too rough to compare by."""
APART = "log_joint", "VI to the best draw's partition"
"""Invariants that two methods do not define alike: a density of labelled parameters, and a distance from the best draw."""
NAMES = {
    "expected_clusters": "the number of clusters",
    "occupied_clusters": "the number of occupied clusters",
    "active_components": "the number of active components",
    "total_log_likelihood": "the log likelihood",
    "concentration": "the concentration",
}
FIRST = "expected_clusters", "occupied_clusters"
"""Quantities that a disagreement is told by, where it extends to them."""


class Comparison(NamedTuple):
    """One quantity under two methods: its mean or sd (`of`), Monte Carlo standard errors, and the difference.

    `truncation_allows`: what is taken off the difference; `standard_errors`: what is left of it, in errors of both together,
    NaN where the methods that `short` names, separated by semicolons, have too few effective draws.
    """

    first: str
    second: str
    quantity: str
    of: str
    value_first: float
    mcse_first: float
    value_second: float
    mcse_second: float
    truncation_allows: float
    standard_errors: float
    short: str

    def __str__(self) -> str:
        """The number of clusters: 1.68 ± 0.06 against 2.02 ± 0.02 (5.4 standard errors)."""
        name = NAMES.get(self.quantity, self.quantity)
        name = f"the standard deviation of {name}" if self.of == "sd" else name
        values = (self.value_first, self.mcse_first), (self.value_second, self.mcse_second)
        return (
            f"{name}: {' against '.join(with_error(*v) for v in values)} ({self.standard_errors:.1f} standard errors)"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Agreement:
    """What `agreement` found: all `comparisons`, and in a `sentence` what they come to.

    Examples:
        >>> found = dpgmm.agreement({"gibbs": tree, "nuts": tree})
        >>> list(found.table.columns[:4])
        ['first', 'second', 'quantity', 'of']
        >>> found.disagreements("gibbs", "nuts")
        []
    """

    comparisons: list[Comparison]
    sentence: str

    @property
    def table(self) -> pd.DataFrame:
        """One row a comparison, columns as in `Comparison`."""
        return pd.DataFrame(self.comparisons, columns=pd.Index(Comparison._fields))

    def of_pair(self, one: str, other: str) -> list[Comparison]:
        """Comparisons of these two methods, in either order."""
        return [c for c in self.comparisons if {c.first, c.second} == {one, other}]

    def disagreements(self, one: str, other: str) -> list[Comparison]:
        """Those on which these two disagree, first the one to tell: the number of clusters, else the largest."""
        apart = [c for c in self.of_pair(one, other) if c.standard_errors > ERRORS]
        rank = lambda c: FIRST.index(c.quantity) if c.quantity in FIRST and c.of == "mean" else len(FIRST)
        return sorted(apart, key=lambda c: (rank(c), -c.standard_errors))


class Estimate(NamedTuple):
    """A mean or sd, its Monte Carlo standard error, effective draws behind it, and sd and range of the quantity."""

    value: float
    error: float
    ess: float
    sd: float
    low: float
    high: float


def agreement(trees: Mapping[str, xr.DataTree], found: Mapping[str, Diagnosis] | None = None) -> Agreement:
    """Compare methods that claim the same posterior, by name, on every label-invariant quantity; and say the result.

    Of every two samplers, and every invariant that both define alike, means and standard deviations are compared: the
    difference, less what truncation allows for, over the standard errors of both together. They disagree from `ERRORS` = 4
    standard errors on. Some hundred comparisons are made of every two methods, most of them of correlated quantities;
    a difference of 4 standard errors has probability 6e-5 in each, so that two methods that are right disagree by accident
    in at most one comparison in a hundred. Both need `ENOUGH` effective draws of the quantity, of bulk, tail and the
    moment itself; otherwise they are not compared, and the sentence says so. A quantity that never moves in one of the
    two counts as known to the other's sd over the square root of `ENOUGH`, and its sd is not compared.

    A truncated and the untruncated process, or two truncations of sticks, differ by themselves: by at most
    ``B = E[4 N exp(-(K - 1) / a)] / 2`` in total variation to leading order, a being the draws' concentration (Ishwaran &
    James 2001, theorem 2), and so the mean of a quantity of range r by ``B r`` and its standard deviations s, t by
    ``1.25 B r^2 / (s + t)``. Log likelihoods of compressed data may differ by the certified error.

    Point estimates and variational guides claim no posterior and are not compared here (`answer.py`). `found` holds
    diagnoses, where they are at hand. Raises `InputError` for trees of different data or different models.

    Examples:
        >>> print(dpgmm.agreement({"gibbs": tree, "nuts": tree}).sentence)
        gibbs and nuts ...
    """
    samplers = {name: tree for name, tree in trees.items() if claims(tree)}
    _comparable(samplers)
    if len(samplers) < 2:
        who = f"only {next(iter(samplers))} claims" if samplers else "no method claims"
        return Agreement([], f"{who} the posterior: there is nothing to hold it against")
    found = found or {}
    estimates = {n: _estimates(quantities(tree, found.get(n), samplers.values())) for n, tree in samplers.items()}
    compared = []
    for one, other in combinations(samplers, 2):
        bound, rounding = truncation_bound(samplers[one], samplers[other]), _certified(samplers[one], samplers[other])
        for quantity, of in [key for key in estimates[one] if key in estimates[other]]:
            pair = estimates[one][quantity, of], estimates[other][quantity, of]
            if of == "mean" or all(e.low < e.high for e in pair):
                allowed = _allowed(*pair, of, bound) + (rounding if quantity == "total_log_likelihood" else 0.0)
                compared.append(_compare((one, other), quantity, of, pair, allowed))
    result = Agreement(compared, "")
    return dataclasses.replace(result, sentence=_sentence(result, list(samplers), found))


def claims(tree: xr.DataTree) -> bool:
    """Whether draws claim to be of the posterior: neither a point estimate nor a variational guide."""
    return kind(tree) == "sampler"


def quantities(
    tree: xr.DataTree, diagnosis: Diagnosis | None = None, others: Iterable[xr.DataTree] = ()
) -> dict[str, np.ndarray]:
    """Invariants ``(chain, draw)`` that methods define alike; weights as far as they are visible in any of the `others`."""
    known = diagnosis.invariants if diagnosis is not None and diagnosis.invariants else invariants(tree)
    found = {n: v for n, v in known.items() if n not in APART and not n.startswith("weight, ")}
    ordered = _by_size(tree)
    for k in range(max(_visible(other) for other in (tree, *others))):
        if k < ordered.shape[-1]:
            found[f"weight, {k + 1}. largest"] = ordered[..., k]
    return found


def truncation_bound(one: xr.DataTree, other: xr.DataTree) -> float:
    """How far truncation alone may set two posteriors apart, total variation, at most 1; 0 for the same truncation."""
    sizes = [_truncation(tree) for tree in (one, other)]
    if sizes[0] == sizes[1]:
        return 0.0
    groups = [t["posterior"].to_dataset() for t in (one, other)]
    draws = [np.ravel(g["concentration"].values) for g in groups if "concentration" in g]
    if not draws:
        return 1.0
    num_points = float(data_of(one).total_weight)
    bound = max(_bound(num_points, size, a) for size in sizes if size is not None for a in draws)
    return min(1.0, bound)


def _bound(num_points: float, num_components: int, concentration: np.ndarray) -> float:
    """``E[4 N exp(-(K - 1) / a)] / 2``: half of a distance in L1."""
    return float(2 * num_points * np.exp(-(num_components - 1) / concentration).mean())


def _truncation(tree: xr.DataTree) -> int | None:
    """K, or None where the process is not truncated."""
    if tree.attrs.get("untruncated", 0):
        return None
    return int(_options(tree).get("truncation", tree["posterior"].sizes["component"]))


def _options(tree: xr.DataTree) -> dict:
    return json.loads(tree.attrs.get("options", "{}")).get("model", {})


def _visible(tree: xr.DataTree) -> int:
    """How many of the largest weights are above `VISIBLE` on average."""
    return int((_by_size(tree).mean(axis=(0, 1)) > VISIBLE).sum())


def _by_size(tree: xr.DataTree) -> np.ndarray:
    """Weights of every draw, the largest first."""
    return -np.sort(-tree["posterior"].to_dataset()["weights"].values, axis=-1)


def _comparable(trees: Mapping[str, xr.DataTree]) -> None:
    """Raise `InputError` unless all trees are of the same data and model, truncations of sticks aside."""
    names = list(trees)
    for name in names[1:]:
        one, other = trees[names[0]], trees[name]
        points = [t["observed_data"].to_dataset()["points"].values for t in (one, other)]
        if points[0].shape != points[1].shape or not np.allclose(points[0], points[1]):
            raise InputError(f"{names[0]} and {name} are draws given different data; compare methods on the same data")
        options = [{k: v for k, v in _options(t).items() if k != "truncation"} for t in (one, other)]
        if one.attrs.get("model") != other.attrs.get("model") or options[0] != options[1]:
            raise InputError(
                f"{names[0]} and {name} are draws of different models or priors; compare methods on one model"
            )
        finite = one.attrs.get("exchangeable_labels", 0) or other.attrs.get("exchangeable_labels", 0)
        if finite and _truncation(one) != _truncation(other):
            raise InputError(f"{names[0]} and {name} are finite mixtures of different size: these are different models")


def _estimates(values: Mapping[str, np.ndarray]) -> dict[tuple[str, str], Estimate]:
    """Mean and sd of every quantity, by name and moment."""
    return {(name, of): _estimate(v, of) for name, v in values.items() for of in ("mean", "sd")}


def _estimate(values: np.ndarray, of: str) -> Estimate:
    ends, sd = (float(values.min()), float(values.max())), float(values.std())
    value = float(values.mean()) if of == "mean" else sd
    if values.shape[1] < 4 or not np.isfinite(values).all():
        return Estimate(value, float("nan"), 0.0, sd, *ends)
    if ends[0] == ends[1]:
        return Estimate(value, 0.0, float("inf"), sd, *ends)
    ess = [monte_carlo.ess_bulk(values), monte_carlo.ess_tail(values), monte_carlo.ess_of(values, of)]
    return Estimate(value, monte_carlo.mcse(values, of), float(np.nan_to_num(min(ess))), sd, *ends)


def _allowed(one: Estimate, other: Estimate, of: str, bound: float) -> float:
    """How far a total variation of `bound` may set two means or sds apart."""
    reach, both = max(one.high, other.high) - min(one.low, other.low), one.sd + other.sd
    if of == "mean":
        return bound * reach
    return min(reach, 1.25 * bound * reach**2 / both) if both > 0 else 0.0


def _compare(
    names: tuple[str, str], quantity: str, of: str, pair: tuple[Estimate, Estimate], allowed: float
) -> Comparison:
    """One comparison of two estimates, less what is allowed for."""
    one, other = pair
    errors = [e.error if e.low < e.high else o.sd / math.sqrt(ENOUGH) for e, o in ((one, other), (other, one))]
    short = "; ".join(name for name, e in zip(names, pair, strict=True) if not e.ess >= ENOUGH)
    excess, error = abs(one.value - other.value) - allowed, math.hypot(*errors)
    rounding = 1e-12 * max(abs(one.value), abs(other.value))
    times = 0.0 if excess <= rounding else excess / error if error > 0 else math.inf
    values = one.value, errors[0], other.value, errors[1]
    return Comparison(*names, quantity, of, *values, allowed, math.nan if short else times, short)


def _certified(one: xr.DataTree, other: xr.DataTree) -> float:
    """Sum of the certified errors of the log likelihood, nats."""
    records = [json.loads(t.attrs.get("compression", "{}")) for t in (one, other)]
    return sum(float(record.get("max_error", 0.0)) for record in records)


def _sentence(result: Agreement, names: Sequence[str], found: Mapping[str, Diagnosis]) -> str:
    """A clause for each pair that disagrees or cannot be compared, one for all others."""
    pairs = list(combinations(names, 2))
    split = [pair for pair in pairs if result.disagreements(*pair)]
    lacking = [pair for pair in pairs if pair not in split and any(c.short for c in result.of_pair(*pair))]
    fine = [pair for pair in pairs if pair not in split and pair not in lacking]
    if len(fine) == len(pairs):
        return f"{listed(names)} agree on everything within Monte Carlo error"
    parts = [_disagree(result, *pair, found) for pair in split] + [_lacking(result, *pair) for pair in lacking]
    return "; ".join(parts + [f"{one} and {other} agree on everything within Monte Carlo error" for one, other in fine])


def _disagree(result: Agreement, one: str, other: str, found: Mapping[str, Diagnosis]) -> str:
    apart, total = result.disagreements(one, other), len(result.of_pair(one, other))
    more = "" if len(apart) == 1 else f", and on {len(apart) - 1} of {total - 1} other numbers"
    suspects = [name for name in (one, other) if name in found and found[name].verdict not in FOUND]
    why = f"{listed(suspects)} had not converged" if suspects else "at least one has not converged"
    return f"{one} and {other} disagree on {apart[0]}{more}; {why}"


def _lacking(result: Agreement, one: str, other: str) -> str:
    all_of = result.of_pair(one, other)
    short = [c.short for c in all_of if c.short]
    who = [name for name in (one, other) if any(name in names.split("; ") for names in short)]
    few = f"{listed(who)} {'has' if len(who) == 1 else 'have'} too few effective draws"
    if len(short) == len(all_of):
        return f"{one} and {other} cannot be compared: {few} (below {ENOUGH:.0f})"
    alike = f"{one} and {other} agree on {len(all_of) - len(short)} of {len(all_of)} numbers within Monte Carlo error"
    return f"{alike}; for the rest {few} to compare"


def with_error(value: float, error: float) -> str:
    """``1.68 ± 0.06``: the error to one digit, or two where it begins with a one, and the value as far as that."""
    if not np.isfinite(error) or error <= 0:
        return f"{value:.4g}"
    exponent = int(np.floor(np.log10(error)))
    digits = max(0, -exponent + (error / 10**exponent < 2))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def listed(names: Iterable[str]) -> str:
    """a, b and c."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
