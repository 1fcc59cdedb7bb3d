"""Scores: how far a method's draws are from a reference answer, in numbers that know no labels."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.special import logsumexp

from dpgmm import methods
from dpgmm.data import Dataset
from dpgmm.diagnostics.intervals import Interval
from dpgmm.draws import allocations
from dpgmm.draws.components import Components
from dpgmm.draws.thinning import evenly
from dpgmm.errors import InputError
from dpgmm.truth import calibration

NARROW, WIDE = 0.9, 1.1
"""Bounds of the ratio of standard deviations: an interval wholly beyond one of them is a mark."""
PAIRED = 100
"""Points whose similarity matrix is compared."""
LOOKED_AT = 1_000
"""Draws a chain or guide, evenly spread, of which it is made."""


def held_out(log_density: Float[np.ndarray, "*draws G"]) -> float:
    """Mean over held-out points of the log of the mean density over draws, nats a point, from ``(..., G)`` log densities."""
    flat = log_density.reshape(-1, log_density.shape[-1])
    return float(np.mean(np.asarray(logsumexp(flat, axis=0)) - np.log(len(flat))))


class Clock:
    """A `progress` that notes when how much of the work was done, and hands on what it is told."""

    def __init__(self, tell: Callable[[float], None]):
        self.tell, self.done, self.times = tell, [0.0], [0.0]

    def __call__(self, done: int, total: int, note: str) -> None:
        """Note the time."""
        self.done.append(done / total)
        self.times.append(perf_counter())
        self.tell(done / total)

    def seconds(self, share: float, run_seconds: float) -> float:
        """Running time after which this share of the work was done, interpolated; the last report came at the end."""
        if not self.times[1:]:  # A method that reports nothing.
            return share * run_seconds
        ends = np.maximum(run_seconds - (self.times[-1] - np.array(self.times[1:])), 0.0)
        return float(np.interp(share, self.done, [0.0, *ends]))


def split(data: Dataset, share: float, seed: int) -> tuple[Dataset, np.ndarray]:
    """Points to fit, and a random share of the points ``(G, D)`` that is held out, at least one; both in their order."""
    order = np.random.default_rng(seed).permutation(data.size)
    out = max(1, round(share * data.size))
    return Dataset(data.points[np.sort(order[out:])], name=data.name), data.points[np.sort(order[:out])]


def similarity(draws: xr.DataTree) -> np.ndarray:
    """Probability of every pair of `PAIRED` points to share a component, ``(chain, pairs)``: its mean over draws.

    Given a draw allocations are independent with known probabilities: nothing is sampled (Rao-Blackwell).
    """
    posterior, points = draws["posterior"].to_dataset(), draws["observed_data"].to_dataset()["points"].values
    few = np.argsort(points[:, 0], kind="stable")[evenly(len(points), PAIRED)]
    components = Components.of(posterior.isel(draw=evenly(posterior.sizes["draw"], LOOKED_AT))).sorted()
    every = []
    for weights, means, spread in zip(*components, strict=True):
        p = np.asarray(allocations.probabilities(weights, means, spread, points[few]))
        flat = p.transpose(1, 0, 2).reshape(len(few), -1)
        every.append((flat @ flat.T / len(p))[np.triu_indices(len(few), 1)])
    return np.array(every)


def clusters_given(probabilities: Float[np.ndarray, "T n K"]) -> Float[np.ndarray, " n+1"]:
    """Probability of every number of occupied components, ``(n + 1,)``: mean over draws, from ``(T, n, K)``.

    ``P(all points inside S) = prod_n sum_{k in S} p_nk``, and by inclusion and exclusion
    ``P(occupied = S) = sum_{R <= S} (-1)^{|S| - |R|} P(inside R)``.
    """
    _, n, num_components = probabilities.shape
    sets = np.array(list(product((0, 1), repeat=num_components)))
    inside = np.prod(probabilities @ sets.T, axis=1).mean(axis=0)
    size = sets.sum(axis=1)
    subset = (sets[:, None, :] <= sets[None, :, :]).all(axis=-1)
    occupied = inside @ (subset * (-1.0) ** (size[None, :] - size[:, None]))
    return np.bincount(size, occupied, max(n, num_components) + 1)[: n + 1]


def partition_scores(draws: xr.DataTree) -> tuple[np.ndarray, np.ndarray]:
    """Distribution of the number of clusters ``(n + 1,)`` and similarity ``(n, n)``, of few points and components.

    Given a draw allocations are independent with known probabilities; of collapsed Gibbs, whose components do not hold all
    of the process, those of the drawn partitions.
    """
    posterior, points = draws["posterior"].to_dataset(), draws["observed_data"].to_dataset()["points"].values
    n = len(points)
    if draws.attrs.get("untruncated", 0):
        labels = draws["sample_stats"].to_dataset()["allocations"].values.reshape(-1, n)
        sizes = [len(np.unique(row)) for row in labels]
        return np.bincount(sizes, minlength=n + 1) / len(labels), (labels[:, :, None] == labels[:, None]).mean(axis=0)
    p = np.asarray(allocations.probabilities(*Components.of(posterior).sorted().flatten(), points))
    together = np.einsum("tik,tjk->ij", p, p, optimize=True) / len(p)
    np.fill_diagonal(together, 1.0)
    return clusters_given(p), together


def spreads(draws: xr.DataTree) -> dict[str, float]:
    """Posterior standard deviation of quantities that know no labels, over all chains and draws; 0 of one draw."""
    posterior, stats = draws["posterior"].to_dataset(), draws["sample_stats"].to_dataset()
    return {
        "log likelihood": float(stats["total_log_likelihood"].values.std()),
        "concentration": float(posterior["concentration"].values.std()),
        "largest weight": float(posterior["weights"].values.max(axis=-1).std()),
    }


def k_hat(draws: xr.DataTree) -> float | None:
    """Pareto k-hat of the importance weights of one guide's draws; None without weights or where there is no telling.

    Source: Vehtari et al. (2024), PSIS; of guides, Yao et al. (2018).
    """
    if "log_weight" not in draws["sample_stats"].data_vars:
        return None
    value = float(calibration.k_hat(draws)[0])
    return value if np.isfinite(value) else None


def mark(kind: str, ratios: dict[str, Interval]) -> str:
    """What a method is not, with the number that shows it; or the numbers among which no fault was seen.

    ratios: posterior standard deviations of label-invariant quantities, divided by those of a reference.
    """
    if kind == "point":
        return f"point estimate: no posterior (sd ratio {max(r.value for r in ratios.values()):.2g})"
    of = lambda name: f"sd ratio {ratios[name]} ({name})"
    narrow = [name for name, r in ratios.items() if r.high < NARROW]
    wide = [name for name, r in ratios.items() if r.low > WIDE]
    if narrow:
        words = "overconfident" if kind == "guide" else "too narrow at this budget"
        return f"{words}: {of(min(narrow, key=lambda name: ratios[name].value))}"
    if wide:
        words = "too wide" if kind == "guide" else "too wide at this budget"
        return f"{words}: {of(max(wide, key=lambda name: ratios[name].value))}"
    unlike = [name for name, r in ratios.items() if not NARROW <= r.value <= WIDE]
    if unlike:
        return f"undecided: {of(max(unlike, key=lambda name: abs(ratios[name].value - 1)))}"
    values = [r.value for r in ratios.values()]
    return f"no fault shown: sd ratios {min(values):.2f} to {max(values):.2f}"


def calibrated(rows: list[dict[str, Any]] | None, method: str, options: dict[str, Any], model: str) -> str:
    """What the study of calibration found: quantities inside the bands, of how many, by how many simulations.

    `rows` are those of its calibration.json, of methods with the options that they have there: of no other guide of SVI.
    """
    if rows is None:
        return "run dpgmm study calibration"
    found = [r for r in rows if (r["method"], r["model"]) == (method, model)]
    if not found or options.get("guide", "lowrank") != "lowrank":
        return "not simulated"
    r = found[0]
    inside = f"SBC: {r['inside']} of {r['quantities']} quantities, {r['simulations']} simulations"
    if methods.find(method).kind == "point":
        return f"no posterior ({inside})"
    return f"{'calibrated' if r['inside'] == r['quantities'] else 'not calibrated'} ({inside})"


def calibration_rows(path: Path, *, required: bool) -> list[dict[str, Any]] | None:
    """What `calibrated` wants of a calibration.json; None where there is none, and it is not required.

    Raises `InputError` where the file cannot be read or is another.
    """
    if not required and not path.is_file():
        return None
    try:
        rows = json.loads(path.read_text())
        return [{k: r[k] for k in ("method", "model", "inside", "quantities", "simulations")} for r in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not what `dpgmm study calibration` writes ({type(error).__name__}); run it again, or give its file"
        ) from error
