"""Expected log predictive density: by leaving points out of draws that have seen them (PSIS-LOO), or on points held out.

    elpd = sum_n omega_n log p(x_n | data without one of x_n)

A row of weight omega stands for omega points, of which one is left out: its value counts omega times.
Sources: Vehtari, Gelman & Gabry (2017); Vehtari, Simpson, Gelman, Yao & Gabry (2024).
"""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import logsumexp as scipy_logsumexp  # pyright: ignore[reportAttributeAccessIssue]  # not annotated

from .. import draws as schema
from ..data import Dataset
from ..draws import monte_carlo
from ..draws.prediction import log_density, refuse_point
from ..draws.thinning import evenly
from ..errors import InputError
from .importance import smoothed

ROWS = 1_000
"""Rows that are left out, one by one; of more, a random sample, the same for all methods on the same data."""
DRAWS = 4_000
"""Draws that importance weights are made of, at most, evenly spaced in every chain."""
FOR_EFFICIENCY = 50
"""Rows whose likelihoods say how many effective draws there are."""


class Elpd(NamedTuple):
    """Expected log predictive density, nats.

    - `elpd`, `se`: of all points, and its standard error over points, the sampling of rows included.
    - `p`: effective number of parameters, ``sum_n omega_n (log p(x_n | data) - log p(x_n | rest))``.
    - `worst_k`: largest Pareto k of a row; `bad`: rows of a k above `good_k`, ``min(1 - 1 / log10 S, 0.7)`` for S draws.
    - `rows` (m,): that were looked at, of `num_rows`; `pointwise`, `k` (m,): log density of each and its k.
    - `weights` (m,): how many points each of them stands for in the sum. `num_draws`: S.
    """

    elpd: float
    se: float
    p: float
    worst_k: float
    bad: int
    good_k: float
    rows: np.ndarray
    num_rows: int
    pointwise: np.ndarray
    k: np.ndarray
    weights: np.ndarray
    num_draws: int

    @property
    def of_rows(self) -> str:
        """Which rows, in words."""
        if len(self.rows) == self.num_rows:
            return f"all {self.num_rows:,} rows"
        return f"a random sample of {len(self.rows):,} of {self.num_rows:,} rows"


def loo(draws: xr.DataTree, *, rows: int = ROWS) -> Elpd:
    """Leave-one-out elpd by Pareto-smoothed importance sampling, weights ``1 / p(x_n | theta_t)`` of the draws.

    Of a guide the best restart is taken, and the weights are ``p(theta_t, data) / q(theta_t) / p(x_n | theta_t)``: they
    correct the guide too, where k allows. Of more than `rows` rows a random sample is looked at: without replacement where
    all weights are one, else with probabilities in proportion to them. Raises `InputError` for a point estimate.
    """
    refuse_point(draws, "leave-one-out elpd")
    tree = _thinned(schema.answer(draws))
    data = schema.data_of(tree)
    seen, weights, share = _sample(data, rows)
    by_chain = log_density(tree, data.points[seen])
    ll = by_chain.reshape(-1, len(seen))
    log_weight = _log_weight(tree)
    shares, k = smoothed(log_weight - ll.T, _efficiency(by_chain) if not log_weight.any() else 1.0)
    pointwise = _logsumexp(shares + ll.T, axis=1)
    own = log_weight - _logsumexp(log_weight)
    seen_by_all = _logsumexp(own[:, None] + ll, axis=0)
    elpd, se = _total(pointwise, weights, share)
    good = min(1 - 1 / np.log10(len(ll)), 0.7) if len(ll) > 1 else float("nan")
    p = float(np.sum(weights * (seen_by_all - pointwise)))
    bad = int(np.sum(~(k <= good)))
    return Elpd(elpd, se, p, float(k.max()), bad, good, seen, data.size, pointwise, k, weights, len(ll))


def held_out(draws: xr.DataTree, data: Dataset) -> tuple[float, float]:
    """Log predictive density of points that the draws have not seen, and its standard error over points, nats.

    ``sum_n omega_n log mean_t p(x_n | theta_t)``, the mean over all draws of a sampler, or over those of the best restart of
    a guide, as it is, or of a point estimate: the one number by which all of them can be compared.
    """
    return _total(_of_held_out(draws, data), data.weights, 1.0)


def columns(draws: xr.DataTree, held: Dataset | None = None) -> dict[str, Any]:
    """What the table of a comparison says of one method's predictions; nothing of leave-one-out for a point estimate."""
    found: dict[str, Any] = dict.fromkeys(("elpd (LOO)", "elpd se", "worst LOO k-hat", "LOO k-hats too large"), "")
    if schema.kind(draws) != "point":
        of = loo(draws)
        found = dict(zip(found, (of.elpd, of.se, of.worst_k, f"{of.bad} of {len(of.rows)}"), strict=True))
    if held is not None:
        found["held-out elpd"], found["held-out se"] = held_out(draws, held)
    return found


def compare(trees: Mapping[str, xr.DataTree], *, rows: int = ROWS) -> pd.DataFrame:
    """Models by leave-one-out on the same rows: elpd, its differences to the best, and stacking weights by arviz-stats.

    Raises `InputError` where the draws are not of the same data, for fewer than two of them and for point estimates.
    """
    if len(trees) < 2:
        raise InputError("compare-models takes draws of two models or more")
    first, *others = trees
    for name in others:
        _same_data(first, name, schema.data_of(trees[first]), schema.data_of(trees[name]))
    from arviz_stats.loo import compare as arviz_compare  # It loads matplotlib, of which the rest has no need.

    found = {name: loo(tree, rows=rows) for name, tree in trees.items()}
    with warnings.catch_warnings():  # Large k are told in the table; pandas' own deprecations are not ours.
        warnings.simplefilter("ignore")
        # Stacking weights alone: ArviZ changed the sign of differences, and rounds them, from one version to the next.
        weights: Any = arviz_compare({name: _for_arviz(of) for name, of in found.items()})["weight"]
    best = max(found.values(), key=lambda of: of.elpd)
    rows_of = {name: _row(of, best) | {"weight": float(weights[name])} for name, of in found.items()}
    table = pd.DataFrame.from_dict(rows_of, orient="index").sort_values("elpd", ascending=False)
    table.attrs["rows"] = best.of_rows
    return table


def compare_held_out(trees: Mapping[str, xr.DataTree], data: Dataset) -> pd.DataFrame:
    """Models by the same points held out of all, `held_out`, whatever the kind of draws, best first.

    Columns: `held_out` and its standard error `held_out_se`, the difference to the best, `held_out_diff`, and its standard
    error over the points, `held_out_dse`.
    """
    pointwise = {name: _of_held_out(tree, data) for name, tree in trees.items()}
    over_points = lambda values: _total(values, data.weights, 1.0)
    best = max(pointwise.values(), key=lambda values: over_points(values)[0])
    rows = {name: (*over_points(values), *over_points(values - best)) for name, values in pointwise.items()}
    columns = ["held_out", "held_out_se", "held_out_diff", "held_out_dse"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).sort_values("held_out", ascending=False)


def _of_held_out(draws: xr.DataTree, data: Dataset) -> np.ndarray:
    """Log predictive density ``(n,)`` of points that the draws have not seen."""
    ll = log_density(schema.answer(draws), data.points)
    return _logsumexp(ll, axis=(0, 1)) - np.log(ll.shape[0] * ll.shape[1])


def _row(of: Elpd, best: Elpd) -> dict[str, float]:
    """One model beside the best: differences of the same rows, of which the errors are smaller than of either sum."""
    share = len(of.rows) / of.num_rows if len(of.rows) < of.num_rows else 1.0
    difference, error = _total(of.pointwise - best.pointwise, of.weights, share)
    of_difference = {"elpd_diff": difference, "dse": error}
    return {"elpd": of.elpd, "se": of.se, "p": of.p, **of_difference, "worst_k": of.worst_k, "bad_k": of.bad}


def _for_arviz(of: Elpd) -> Any:
    """ArviZ's record of the same, one value a row that counts, scaled up to all points."""
    from arviz_stats import utils

    # ArviZ 1.3 has a class for each kind; 0.8, the newest on Python 3.11, one for all.
    classes: Any = utils
    of_loo = getattr(classes, "ELPDDataLOO", None) or partial(classes.ELPDData, kind="loo")
    counts = of.weights * len(of.rows) / of.weights.sum()
    scale = of.weights.sum() / len(of.rows)
    over = lambda values: xr.DataArray(values, dims="obs", coords={"obs": of.rows})
    return of_loo(
        elpd=of.elpd,
        se=of.se,
        p=of.p,
        n_samples=of.num_draws,
        n_data_points=len(of.rows),
        scale="log",
        warning=of.bad > 0,
        good_k=of.good_k,
        elpd_i=over(of.pointwise * counts * scale),
        pareto_k=over(of.k),
    )


def _same_data(first: str, other: str, one: Dataset, two: Dataset) -> None:
    if one.points.shape != two.points.shape:
        what = f"{one.points.shape} and {two.points.shape} numbers"
    elif not (np.array_equal(one.points, two.points) and np.array_equal(one.weights, two.weights)):
        row = int(np.argmax((one.points != two.points).any(axis=1) | (one.weights != two.weights)))
        what = f"row {row} is {one.points[row].tolist()} and {two.points[row].tolist()}, or weighs another amount"
    else:
        return
    raise InputError(f"{first} and {other} are of different data ({what}): fit both models to the same")


def _thinned(draws: xr.DataTree) -> xr.DataTree:
    """At most `DRAWS` draws, evenly spaced."""
    chains, length = draws["posterior"]["weights"].shape[:2]
    if chains * length <= DRAWS:
        return draws
    kept = evenly(length, max(1, DRAWS // chains))
    groups = {name: draws[name].to_dataset() for name in ("posterior", "sample_stats", "observed_data")}
    tree = xr.DataTree.from_dict({n: g.isel(draw=kept) if "draw" in g.dims else g for n, g in groups.items()})
    tree.attrs = dict(draws.attrs)
    return tree


def _sample(data: Dataset, rows: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Rows to look at, the number of points that each stands for, and the share of all rows, 0 with replacement."""
    carries = np.flatnonzero(data.weights)
    if len(carries) <= rows:
        return carries, data.weights[carries], 1.0
    rng = np.random.default_rng(0)
    if (data.weights == 1).all():
        seen, share = np.sort(rng.choice(carries, rows, replace=False)), rows / len(carries)
    else:
        seen, share = np.sort(rng.choice(data.size, rows, p=data.weights / data.total_weight)), 0.0
    return seen, np.full(rows, data.total_weight / rows), share


def _total(pointwise: np.ndarray, weights: np.ndarray, share: float) -> tuple[float, float]:
    """``sum_n omega_n e_n`` and its standard error: over points, and over the choice of rows where it is a sample."""
    total = float(weights.sum())
    mean = float(weights @ pointwise) / total
    variance = float(weights @ (pointwise - mean) ** 2) / total * len(pointwise) / max(1, len(pointwise) - 1)
    of_sample = 0.0 if share == 1 else total**2 * variance / len(pointwise) * (1 - share)
    return mean * total, float(np.sqrt(total * variance + of_sample))


def _logsumexp(values: np.ndarray, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """scipy's, whose annotation allows for a pair that is only returned with signs."""
    return np.asarray(scipy_logsumexp(values, axis=axis))


def _log_weight(tree: xr.DataTree) -> np.ndarray:
    """Log importance weights ``(S,)`` of a guide's draws; nought for those of a sampler."""
    if schema.kind(tree) != "guide":
        return np.zeros(tree["posterior"].to_dataset()["weights"].shape[:2]).ravel()
    stats = tree["sample_stats"].to_dataset() if "sample_stats" in tree.children else {}
    if "log_weight" not in stats:
        raise InputError(
            "leave-one-out elpd: draws of a guide need sample_stats/log_weight, their log importance weights"
        )
    return stats["log_weight"].values.ravel()


def _efficiency(log_likelihood: np.ndarray) -> float:
    """Effective draws a draw of the likelihood of some rows, ``(chain, draw, m)``, at most 1; 1 of too few draws."""
    chains, length, size = log_likelihood.shape
    if length < 4:
        return 1.0
    some = log_likelihood[..., evenly(size, FOR_EFFICIENCY)]
    likelihood = np.exp(some - some.max(axis=(0, 1)))
    moving = np.ptp(likelihood, axis=(0, 1)) > 0
    ess = [monte_carlo.ess_of(likelihood[..., i], "mean") for i in np.flatnonzero(moving)]
    return float(np.clip(np.mean(ess) / (chains * length), 1 / (chains * length), 1.0)) if ess else 1.0
