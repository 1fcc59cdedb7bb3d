"""Diagnostics that do not depend on labels, the raw ones beside them, and a verdict in words."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jax import Array

from ..densities import mixture
from ..draws import answer as answer_of
from ..draws import best_chain, monte_carlo
from ..draws import kind as kind_of
from ..draws.affinity import VISIBLE
from ..draws.components import Components
from ..draws.monte_carlo import r_hat
from ..draws.prediction import checked_points
from ..draws.thinning import evenly
from ..errors import InputError
from ..labels.switching import visits
from . import r_star, reference_points, verdicts
from .importance import k_hat
from .verdicts import THRESHOLD

GRID = 32
POOR = 0.7
"""k-hat above which the draws of a variational guide are no posterior (Vehtari et al. 2024)."""
COUNTS = "active_components", "expected_clusters", "occupied_clusters"


@dataclasses.dataclass(frozen=True, eq=False)
class Diagnosis:
    """What `diagnose` found.

    `table`: one row a quantity, kind invariant or raw; `verdict` in words; `explanation`: one sentence with numbers;
    `chains`: numbers about the chains as a whole, by name: largest distance of similarity matrices between two chains
    and between the halves of one, R* with its standard error, the largest share of steps without any change, the largest
    share of states that a chain has in common with another, fewest changes of the large components' labels in a chain;
    `k_hat` of the best restart of a variational guide, else NaN; `invariants`: the values, ``(chain, draw)`` by name;
    `predictive`: columns about prediction for the table of a comparison (`elpd.columns`), empty unless asked for.
    """

    table: pd.DataFrame
    verdict: str
    explanation: str
    chains: dict[str, float]
    k_hat: float = float("nan")
    invariants: dict[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)
    predictive: dict[str, Any] = dataclasses.field(default_factory=dict)

    def worst(self, kind: str) -> tuple[str, float]:
        """Name and value of the largest R-hat of a kind; ("", nan) where there is none."""
        r_hat = self.table.loc[self.table["kind"] == kind, "r_hat"].dropna()
        return (str(r_hat.idxmax()), float(r_hat.max())) if len(r_hat) else ("", float("nan"))

    @property
    def least_ess(self) -> float:
        """Smallest ESS, bulk or tail, of an invariant; NaN where there is none."""
        inner = verdicts.rows_of_kind(self.table, "invariant")
        return verdicts.least_ess(inner) if np.isfinite(inner["ess_bulk"].to_numpy()).any() else float("nan")


def diagnose(draws: xr.DataTree, superchains: Sequence[int] | None = None) -> Diagnosis:
    """R-hat, ESS and MCSE of label-invariant quantities and of the raw components, and the verdict.

    Verdicts on samplers and what they ask for: `verdicts.chains_verdict`. A point estimate has no R-hat. Independent draws
    of the restarts of a variational guide (draws with ``sample_stats/log_weight``) are compared as chains, and the
    explanation says by its k-hat whether it is a posterior. For many short chains, `superchains` gives each chain's group
    (chains of one group share a start), and R-hat is the nested one (Margossian et al. 2024). Raises `InputError` for
    groups that do not fit the chains.

    Examples:
        >>> diagnosis = dpgmm.diagnose(tree)
        >>> sorted(set(diagnosis.table["kind"]))
        ['invariant', 'raw']
        >>> diagnosis.invariants["log_joint"].shape
        (4, 20)
    """
    seen = reference_points.read(draws)
    quantities = {("invariant", name): v for name, v in invariants(draws, seen).items()}
    quantities |= {("raw", name): v for name, v in _raw(draws).items()}
    num_chains = draws["posterior"].sizes["chain"]
    of_r_hat = r_hat if superchains is None else _nested(superchains, num_chains)
    point = kind_of(draws) == "point"
    rows = [
        {"quantity": name, "kind": kind, **monte_carlo.row(v, None if point or num_chains < 2 else of_r_hat)}
        for (kind, name), v in quantities.items()
    ]
    table = pd.DataFrame(rows).set_index("quantity")
    invariant = {name: v for (kind, name), v in quantities.items() if kind == "invariant"}
    say = lambda *words, **numbers: Diagnosis(table, *words, **{"chains": {}, "invariants": invariant} | numbers)
    compared = bool(table["r_hat"].notna().any())
    if point:
        return say("point estimate", "A mode, not a posterior: R-hat, ESS and MCSE do not apply.")
    chains = _chains(invariant, table, seen) if compared else {}
    if is_guide(draws):
        k_hat = k_hat_of(draws)
        return say(*_of_guides(table, num_chains, k_hat), chains=chains, k_hat=k_hat)
    if num_chains < 2:
        return say("one chain", "One chain says nothing about the others: run at least two.")
    if not compared:
        return say("too few draws", "Fewer than four draws a chain say nothing: draw more.")
    labels = _labels(draws)
    chains |= _numbers_of(labels)
    verdict, evidence = verdicts.chains_verdict(table, invariant, chains, labels)
    return say(verdict, _numbers(table) + evidence + ".", chains=chains)


def is_guide(draws: xr.DataTree) -> bool:
    """Whether draws are of a variational guide: they have importance weights (`dpgmm.draws.kind`)."""
    return kind_of(draws) == "guide"


def k_hat_of(draws: xr.DataTree) -> float:
    """Pareto k-hat of the best restart of a variational guide, by `dpgmm.calibration.k_hat`; NaN for other draws."""
    if not is_guide(draws):
        return float("nan")
    return float(k_hat(draws)[best_chain(draws)])


def invariants(draws: xr.DataTree, seen: reference_points.ReferencePoints | None = None) -> dict[str, np.ndarray]:
    """Label-invariant quantities ``(chain, draw)`` by name, bit for bit the same however the labels are permuted.

    `seen` is `reference_points.read(draws)`, where it is at hand.
    """
    posterior, stats = draws["posterior"].to_dataset(), _stats(draws)
    found = {n: stats[n].values.astype(float) for n in ("log_joint", "total_log_likelihood", *COUNTS) if n in stats}
    if "concentration" in posterior:
        found["concentration"] = posterior["concentration"].values
    ordered = -np.sort(-posterior["weights"].values, axis=-1)
    visible = ordered.mean(axis=(0, 1)) > VISIBLE
    found |= {f"weight, {k + 1}. largest": ordered[..., k] for k in np.flatnonzero(visible)}
    density, places = predictive_density(draws)
    found |= {f"predictive density at {place}": density[..., i] for i, place in enumerate(places)}
    seen = reference_points.read(draws) if seen is None else seen
    pairs = seen.positions[seen.pairs]
    found |= {f"co-clustering of points {i} and {j}": seen.together[..., n] for n, (i, j) in enumerate(pairs)}
    found["VI to the best draw's partition"] = seen.variation
    return found | ({} if seen.log_partition is None else {"log partition posterior": seen.log_partition})


def predictive_density(draws: xr.DataTree, points: np.ndarray | None = None) -> tuple[np.ndarray, list[str]]:
    """Log predictive density ``(chain, draw, point)`` at `points`, by default `GRID` places of the data, and their names.

    D = 1: a grid over the range of the data; D > 1: data points evenly spread over the rows. Names are the values, but
    for D > 2 the default places are called by their row: point 12. Raises `InputError` for points of another dimension.
    """
    posterior = draws["posterior"].to_dataset()
    data = draws["observed_data"].to_dataset()["points"].values
    rows = None if data.shape[1] == 1 or points is not None else _rows(data)
    points = None if points is None else checked_points(draws, points)
    if points is None:
        points = np.linspace(data.min(), data.max(), GRID)[:, None] if rows is None else data[rows]
    density = _log_densities(Components.of(posterior).sorted(), jnp.asarray(points))
    if rows is not None and data.shape[1] > 2:
        return np.asarray(density), [f"point {row}" for row in rows]
    # As many digits as tell neighbouring places apart, wherever the data lie.
    ratio = np.abs(points).max(axis=0) * len(points) / np.maximum(np.ptp(points, axis=0), np.finfo(float).tiny)
    digits = [min(17, max(3, 1 + math.ceil(math.log10(max(r, 1.0))))) for r in ratio]
    names = [", ".join(f"{x:.{d}g}" for x, d in zip(p, digits, strict=True)) for p in points]
    return np.asarray(density), names


@jax.jit
def _log_densities(components: Components, points: Array) -> Array:
    """Log density of every draw's mixture, components with leading axes (chain, draw), to ``(chain, draw, point)``."""

    def one(draw):
        return mixture.log_density(*mixture.factored(*draw), points)

    return jax.lax.map(lambda chain: jax.lax.map(one, chain), components)


def sorted_components(draws: xr.DataTree, *, keep_labels: bool = False) -> pd.DataFrame:
    """Components RELABELLED by decreasing weight in every draw: posterior mean and sd of weight, mean and scale.

    Sorting mixes components of nearly equal weight, so read it where weights are well apart. With `keep_labels`, for draws
    that have been relabelled, components keep their labels, and rows are by decreasing mean weight. Scales are square roots
    of the covariance's diagonal, in the data's units. Components whose mean weight is below `VISIBLE` are left out. Of one
    draw, such as a mode, sds are NaN.
    """
    drawn = Components.of(draws["posterior"].to_dataset())
    key = drawn.weights.mean((0, 1)) + 0 * drawn.weights if keep_labels else drawn.weights
    drawn = drawn.take(np.argsort(-key, axis=-1, kind="stable"))
    weights, means, scales = drawn.weights, drawn.means, np.sqrt(drawn.variances())
    alone = weights.shape[0] * weights.shape[1] == 1
    sd = lambda values: np.full(values.shape[2:], np.nan) if alone else values.std((0, 1))
    columns: dict[str, Any] = {"weight": weights.mean((0, 1)), "weight_sd": sd(weights)}
    for d in range(means.shape[-1]):
        suffix = "" if means.shape[-1] == 1 else f"_{d}"
        for name, values in (("mean", means), ("scale", scales)):
            columns |= {
                f"{name}{suffix}": values[..., d].mean((0, 1)),
                f"{name}{suffix}_sd": sd(values[..., d]),
            }
    table = pd.DataFrame(columns)
    return table.loc[table["weight"] > VISIBLE]


def summary_row(draws: xr.DataTree, diagnosis: Diagnosis) -> dict[str, Any]:
    """One row of the table of a comparison. Means: over all chains of a sampler, the best restart of an optimiser."""
    stats, best = (tree["sample_stats"].to_dataset() for tree in (draws, answer_of(draws)))
    name, r_hat = diagnosis.worst("invariant")
    seconds = float(draws.attrs["run_seconds"])
    ess = diagnosis.least_ess
    mean = lambda name: float(best[name].mean()) if name in best else float("nan")
    return {
        "method": draws.attrs["method"],
        "verdict": diagnosis.verdict,
        "worst invariant R-hat": r_hat,
        "worst invariant": name,
        "worst raw R-hat": diagnosis.worst("raw")[1],
        "min ESS": ess,
        "k-hat": diagnosis.k_hat if is_guide(draws) else "",
        "ESS per second": ess / seconds,
        "log likelihood": mean("total_log_likelihood"),
        **diagnosis.predictive,
        "best log joint": float(stats["log_joint"].max()),
        "active components": mean("active_components"),
        "occupied clusters": mean("occupied_clusters"),
        "divergences": int(stats["diverging"].sum()) if "diverging" in stats else "",
        "compile seconds": float(draws.attrs["compile_seconds"]),
        "run seconds": seconds,
    }


def _stats(draws: xr.DataTree) -> Mapping[Any, Any]:
    return draws["sample_stats"].to_dataset() if "sample_stats" in draws.children else {}


def _raw(draws: xr.DataTree) -> dict[str, np.ndarray]:
    weights = draws["posterior"].to_dataset()["weights"].values
    return {f"weight[{k}]": weights[..., k] for k in range(weights.shape[-1])}


def _rows(data: np.ndarray) -> np.ndarray:
    return evenly(len(data), GRID)


def _nested(superchains: Sequence[int], num_chains: int):
    """Nested R-hat of ``(chain, draw)``, for chains grouped as `superchains` says."""
    sizes = np.unique(list(superchains), return_counts=True)[1]
    if len(superchains) != num_chains or len(sizes) < 2 or sizes.min() != sizes.max() or sizes.min() < 2:
        raise InputError(
            f"superchains {list(superchains)} for {num_chains} chains: give each chain's group, two groups or more of "
            "two chains or more, all of one size"
        )
    return monte_carlo.nested_r_hat(list(superchains))


def _chains(
    invariant: dict[str, np.ndarray], table: pd.DataFrame, seen: reference_points.ReferencePoints
) -> dict[str, float]:
    """The numbers of `Diagnosis.chains`."""
    between, within = seen.distances()
    features = np.stack(list(invariant.values()), axis=-1)
    ess = table.loc[table["kind"] == "invariant", "ess_bulk"].min()
    star, error = r_star.r_star(features, ess)
    still = (np.diff(features, axis=1) == 0).all(axis=2).mean(axis=1).max()
    return {
        "similarity, largest distance between two chains": between,
        "similarity, largest distance between halves of a chain": within,
        "R*": star,
        "R*, standard error": error,
        "largest share of steps without any change": float(still),
        "largest share of states in common with another chain": verdicts.duplicated(features),
    }


def _labels(draws: xr.DataTree) -> verdicts.Labels:
    """What attributes and draws say of labels."""
    known, stats = draws.attrs.get("exchangeable_labels"), _stats(draws)
    accepted = float((stats["label_moves"] > 0).mean("draw").min()) if "label_moves" in stats else float("nan")
    moved = bool(draws.attrs.get("moves_labels", 0))
    return verdicts.Labels(None if known is None else bool(known), moved, accepted, visits(draws))


def _numbers_of(labels: verdicts.Labels) -> dict[str, float]:
    found = {"fewest changes of the large components' labels in a chain": float(labels.visits.changes.min())}
    return found | ({} if np.isnan(labels.accepted) else {"least share of steps with label moves": labels.accepted})


def _numbers(table: pd.DataFrame) -> str:
    """The first half of an explanation: the worst of what R-hat and ESS say."""
    inner, raw = verdicts.rows_of_kind(table, "invariant"), verdicts.rows_of_kind(table, "raw")
    text = f"Worst R-hat of an invariant {inner['r_hat'].max():.3f} ({inner['r_hat'].idxmax()})"
    least = verdicts.moving_rows(inner)[["ess_bulk", "ess_tail"]].min(axis=1)
    ess = f", smallest ESS {least.min():,.0f} ({least.idxmin()})" if len(least) else ""
    return f"{text}{ess}, worst R-hat of a raw weight {raw['r_hat'].max():.2f}"


def _of_guides(table: pd.DataFrame, num_chains: int, k_hat: float) -> tuple[str, str]:
    """Verdict on the restarts of a variational guide, and the explanation."""
    quality = (
        f"k-hat {k_hat:.2f}, above {POOR}: not a posterior, its sds and probabilities are the guide's own"
        if not k_hat <= POOR
        else f"k-hat {k_hat:.2f}, at most {POOR}: importance weights could correct what is left of its error"
    )
    inner = table.loc[table["kind"] == "invariant", "r_hat"].dropna()
    if num_chains < 2 or not len(inner):
        return "one restart", f"Independent draws of a variational guide: {quality}."
    same = "agree" if inner.max() < THRESHOLD else "differ"
    text = f"Independent draws of {num_chains} variational guides: worst R-hat between them {inner.max():.3f}"
    return f"restarts {same}", f"{text} ({inner.idxmax()}). Of the best, {quality}."
