"""Diagnostics that do not depend on labels, the raw ones beside them, and a verdict in words."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]
from jax import Array

from . import mixture, panel, r_star
from .affinity import VISIBLE
from .draws import spread
from .errors import InputError
from .thinning import evenly

THRESHOLD = 1.05
"""R-hat above which a quantity counts as not mixed (rank-normalised split R-hat, Vehtari et al. 2021)."""
GRID = 32
SHORT = 20
"""Draws a chain below which a chain's halves cannot be compared."""
REPEATED = 0.5
"""Share of steps without any change from which on a chain counts as stuck."""


@dataclasses.dataclass(frozen=True, eq=False)
class Diagnosis:
    """What `diagnose` found.

    `table`: one row a quantity, kind invariant or raw; `verdict` in words; `explanation`: one sentence with numbers;
    `chains`: numbers about the chains as a whole, by name: largest distance of similarity matrices between two chains
    and between the halves of one, R* with its standard error, and the largest share of steps without any change.
    """

    table: pd.DataFrame
    verdict: str
    explanation: str
    chains: dict[str, float]

    def worst(self, kind: str) -> tuple[str, float]:
        """Name and value of the largest R-hat of a kind; ("", nan) where there is none."""
        r_hat = self.table.loc[self.table["kind"] == kind, "r_hat"].dropna()
        return (str(r_hat.idxmax()), float(r_hat.max())) if len(r_hat) else ("", float("nan"))


def diagnose(draws: xr.DataTree, superchains: Sequence[int] | None = None) -> Diagnosis:
    """R-hat, ESS and MCSE of label-invariant quantities and of the raw components, and the verdict.

    Verdicts: converged; converged up to labels (raw R-hat far above 1, invariants fine); chains in different modes (each
    chain stationary by itself); not converged, where a chain is stuck, chains drift, or R* can tell chains apart that
    R-hat cannot. A point estimate has no R-hat. Independent draws of several guides are compared as chains, and the
    verdict says so. For many short chains, `superchains` gives each chain's group (chains of one group share a start), and
    R-hat is the nested one (Margossian et al. 2024). Raises `InputError` for groups that do not fit the chains.
    """
    seen = panel.read(draws)
    quantities = {("invariant", name): v for name, v in invariants(draws, seen).items()}
    quantities |= {("raw", name): v for name, v in _raw(draws).items()}
    num_chains, length = draws["posterior"].sizes["chain"], draws["posterior"].sizes["draw"]
    of_r_hat = r_hat if superchains is None else _nested(superchains, num_chains)
    point = bool(draws.attrs.get("point_estimate", 0))
    rows = [
        {"quantity": name, "kind": kind, **_row(v, point or num_chains < 2, of_r_hat)}
        for (kind, name), v in quantities.items()
    ]
    table = pd.DataFrame(rows).set_index("quantity")
    invariant = {name: v for (kind, name), v in quantities.items() if kind == "invariant"}
    chains = {} if point or num_chains < 2 or length < 4 else _chains(invariant, table, seen)
    method = draws.attrs.get("method", "")
    return Diagnosis(table, *_verdict(table, invariant, chains, point, num_chains, method), chains)


def invariants(draws: xr.DataTree, seen: panel.Panel | None = None) -> dict[str, np.ndarray]:
    """Label-invariant quantities ``(chain, draw)`` by name, bit for bit the same however the labels are permuted.

    `seen` is `panel.read(draws)`, where it is at hand.
    """
    posterior = draws["posterior"].to_dataset()
    stats = draws["sample_stats"].to_dataset() if "sample_stats" in draws.children else {}
    found = {
        n: stats[n].values.astype(float) for n in ("log_joint", "log_likelihood", "active_components") if n in stats
    }
    if "concentration" in posterior:
        found["concentration"] = posterior["concentration"].values
    ordered = -np.sort(-posterior["weights"].values, axis=-1)
    visible = ordered.mean(axis=(0, 1)) > VISIBLE
    found |= {f"weight, {k + 1}. largest": ordered[..., k] for k in np.flatnonzero(visible)}
    density, places = predictive_density(draws)
    found |= {f"predictive density at {place}": density[..., i] for i, place in enumerate(places)}
    seen = panel.read(draws) if seen is None else seen
    pairs = seen.positions[seen.pairs]
    found |= {f"co-clustering of points {i} and {j}": seen.together[..., n] for n, (i, j) in enumerate(pairs)}
    found["VI to the best draw's partition"] = seen.variation
    return found | ({} if seen.log_partition is None else {"log partition posterior": seen.log_partition})


def predictive_density(draws: xr.DataTree, points: np.ndarray | None = None) -> tuple[np.ndarray, list[str]]:
    """Log predictive density ``(chain, draw, point)`` at `points`, by default `GRID` places of the data, and their names.

    D = 1: a grid over the range of the data; D > 1: data points evenly spread over the rows. Names are the values, but
    for D > 2 the default places are called by their row: point 12.
    """
    posterior = draws["posterior"].to_dataset()
    data = draws["observed_data"].to_dataset()["points"].values
    rows = None if data.shape[1] == 1 or points is not None else _rows(data)
    if points is None:
        points = np.linspace(data.min(), data.max(), GRID)[:, None] if rows is None else data[rows]
    density = _log_densities(panel.sorted_components(posterior), jnp.asarray(points))
    if rows is not None and data.shape[1] > 2:
        return np.asarray(density), [f"point {row}" for row in rows]
    # As many digits as tell neighbouring places apart, wherever the data lie.
    ratio = np.abs(points).max(axis=0) * len(points) / np.maximum(np.ptp(points, axis=0), np.finfo(float).tiny)
    digits = [min(17, max(3, 1 + math.ceil(math.log10(max(r, 1.0))))) for r in ratio]
    names = [", ".join(f"{x:.{d}g}" for x, d in zip(p, digits, strict=True)) for p in points]
    return np.asarray(density), names


@jax.jit
def _log_densities(components: tuple[Array, Array, Array], points: Array) -> Array:
    """Log density of every draw's mixture, components with leading axes (chain, draw), to ``(chain, draw, point)``."""

    def one(draw):
        return mixture.log_density(*mixture.factored(*draw), points)

    return jax.lax.map(lambda chain: jax.lax.map(one, chain, batch_size=64), components)


def sorted_components(draws: xr.DataTree) -> pd.DataFrame:
    """Components RELABELLED by decreasing weight in every draw: posterior mean and sd of weight, mean and scale.

    Sorting mixes components of nearly equal weight, so read it where weights are well apart. Scales are square roots
    of the covariance's diagonal, in the data's units. Components whose mean weight is below `VISIBLE` are left out.
    """
    posterior = draws["posterior"].to_dataset()
    order = np.argsort(-posterior["weights"].values, axis=-1, kind="stable")
    sort = lambda a: np.take_along_axis(a, order.reshape(order.shape + (1,) * (a.ndim - 3)), axis=2)
    weights, means = sort(posterior["weights"].values), sort(posterior["means"].values)
    scales = sort(np.broadcast_to(_scales(posterior), means.shape))
    columns: dict[str, Any] = {"weight": weights.mean((0, 1)), "weight_sd": weights.std((0, 1))}
    for d in range(means.shape[-1]):
        suffix = "" if means.shape[-1] == 1 else f"_{d}"
        for name, values in (("mean", means), ("scale", scales)):
            columns |= {
                f"{name}{suffix}": values[..., d].mean((0, 1)),
                f"{name}{suffix}_sd": values[..., d].std((0, 1)),
            }
    table = pd.DataFrame(columns)
    return table.loc[table["weight"] > VISIBLE]


def _scales(posterior: xr.Dataset) -> np.ndarray:
    """Standard deviation of every component in every dimension, ``(chain, draw, component or 1, dim or 1)``."""
    stored, dims = spread(posterior), posterior["means"].ndim
    variances = np.diagonal(stored, axis1=-2, axis2=-1) if stored.ndim > dims else stored
    return np.sqrt(variances if variances.ndim == dims else variances[..., None])


def summary_row(draws: xr.DataTree, diagnosis: Diagnosis) -> dict[str, Any]:
    """One row of the table of a comparison."""
    stats = draws["sample_stats"].to_dataset()
    name, r_hat = diagnosis.worst("invariant")
    seconds = float(draws.attrs["run_seconds"])
    ess = diagnosis.table.loc[diagnosis.table["kind"] == "invariant", "ess_bulk"].min()
    return {
        "method": draws.attrs["method"],
        "verdict": diagnosis.verdict,
        "worst invariant R-hat": r_hat,
        "worst invariant": name,
        "worst raw R-hat": diagnosis.worst("raw")[1],
        "min ESS": ess,
        "ESS per second": ess / seconds,
        "log likelihood": float(stats["log_likelihood"].mean()),
        "best log joint": float(stats["log_joint"].max()),
        "active components": float(stats["active_components"].mean()),
        "divergences": int(stats["diverging"].sum()) if "diverging" in stats else "",
        "compile seconds": float(draws.attrs["compile_seconds"]),
        "run seconds": seconds,
    }


def _raw(draws: xr.DataTree) -> dict[str, np.ndarray]:
    weights = draws["posterior"].to_dataset()["weights"].values
    return {f"weight[{k}]": weights[..., k] for k in range(weights.shape[-1])}


def _rows(data: np.ndarray) -> np.ndarray:
    return evenly(len(data), GRID)


def _row(values: np.ndarray, without_r_hat: bool, of_r_hat: Callable) -> dict[str, float]:
    nan = float("nan")
    row = {"mean": values.mean(), "sd": values.std(), "mcse_mean": nan, "ess_bulk": nan, "ess_tail": nan, "r_hat": nan}
    if values.shape[1] < 4:
        return row
    if not np.isfinite(values).all():
        return row | ({} if without_r_hat else {"r_hat": float("inf")})
    constant = np.ptp(values, axis=1) == 0
    if constant.all():
        # Chains that never move: perfect agreement if at the same value, none otherwise.
        row |= {"mcse_mean": 0.0, "r_hat": 1.0 if np.ptp(values) == 0 else float("inf")}
    else:
        row |= {
            "mcse_mean": _scalar(array_stats.mcse(values)),
            "ess_bulk": _scalar(array_stats.ess(values, method="bulk")),
            "ess_tail": _scalar(array_stats.ess(values, method="tail", prob=(0.05, 0.95))),
            "r_hat": of_r_hat(values),
        }
    return row | ({"r_hat": nan} if without_r_hat else {})


def r_hat(values: np.ndarray) -> float:
    """Rank-normalised split R-hat of ``(chain, draw)``."""
    return _scalar(array_stats.rhat(values))


def _scalar(value: Any) -> float:
    return float(np.asarray(value))


def _halves(chain: np.ndarray) -> float:
    """R-hat of the two halves of one chain: near 1 where the chain is stationary by itself."""
    half = len(chain) // 2
    return r_hat(np.stack([chain[:half], chain[-half:]]))


def _nested(superchains: Sequence[int], num_chains: int) -> Callable[[np.ndarray], float]:
    """Nested R-hat of ``(chain, draw)``, for chains grouped as `superchains` says."""
    sizes = np.unique(list(superchains), return_counts=True)[1]
    if len(superchains) != num_chains or len(sizes) < 2 or sizes.min() != sizes.max() or sizes.min() < 2:
        raise InputError(
            f"superchains {list(superchains)} for {num_chains} chains: give each chain's group, two groups or more of "
            "two chains or more, all of one size"
        )
    return lambda values: _scalar(array_stats.rhat_nested(values, superchain_ids=list(superchains)))


def _chains(invariant: dict[str, np.ndarray], table: pd.DataFrame, seen: panel.Panel) -> dict[str, float]:
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
    }


def _verdict(table, invariant, chains, point, num_chains, method) -> tuple[str, str]:
    if point:
        return "point estimate", "A mode, not a posterior: R-hat, ESS and MCSE do not apply."
    if num_chains < 2:
        return "one chain", "One chain says nothing about the others: run at least two."
    inner, raw = (table.loc[table["kind"] == kind, "r_hat"] for kind in ("invariant", "raw"))
    if inner.isna().all():
        return "too few draws", "Fewer than four draws a chain say nothing: draw more."
    numbers = f"worst R-hat of an invariant {inner.max():.3f} ({inner.idxmax()}), of a raw weight {raw.max():.2f}"
    if method in ("svi", "cavi"):
        same = "agree" if inner.max() < THRESHOLD else "differ"
        return f"restarts {same}", f"Independent draws of {num_chains} guides: {numbers}."
    verdict, evidence = _of_chains(inner, raw, invariant, chains)
    return verdict, numbers[0].upper() + numbers[1:] + evidence + "."


def _of_chains(inner: pd.Series, raw: pd.Series, invariant, chains: dict[str, float]) -> tuple[str, str]:
    """Verdict on a sampler's chains, and the evidence beside R-hat."""
    still = chains.get("largest share of steps without any change", 0.0)
    if still > REPEATED:
        return "not converged: a chain is stuck", f"; a chain does not move in {still:.0%} of its steps"
    if inner.max() >= THRESHOLD:
        if len(next(iter(invariant.values()))[0]) < SHORT:
            return "not converged", f"; with fewer than {SHORT} draws a chain there is no telling why"
        apart = [invariant[name] for name, value in inner.items() if value >= THRESHOLD]
        moving = [chain for v in apart for chain in v if np.isfinite(chain).all() and np.ptp(chain) > 0]
        drift = max(map(_halves, moving), default=1.0)
        within = f"; worst split R-hat within a chain {drift:.3f}"
        return ("chains in different modes" if drift < 2 * THRESHOLD - 1 else "not converged: chains drift"), within
    if chains and chains["R*"] - 4 * chains["R*, standard error"] > 1:
        told = f"; yet R* {chains['R*']:.2f} (standard error {chains['R*, standard error']:.2f}) tells the chains apart"
        return "not converged: chains can be told apart", told
    return ("converged" if raw.max() < THRESHOLD else "converged up to labels"), ""
