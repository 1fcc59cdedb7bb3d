"""How much does the prior on the concentration decide about the number of clusters, and do clusters grow with the data?

    dpgmm study concentration

Collapsed Gibbs of the untruncated process, on the galaxies under priors from vague to nearly fixed, and on growing samples
of the four Gaussians. Beside the posterior of the number of clusters stands its prior, by quadrature. Writes
``concentration.html``, one page of conclusions, and ``concentration.json``.

Of a Dirichlet-process mixture with a fixed concentration the posterior number of clusters does not converge to the true
number of components, however many points there are (Miller & Harrison 2013, 2014); with a prior on the concentration it can,
in some settings (Ascolani, Lijoi, Rebaudo & Zanella 2023). Clusters that hold a visible share of the points are counted
apart.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Integer
from scipy.special import digamma, gammaln, logsumexp  # pyright: ignore[reportAttributeAccessIssue]  # not annotated

from dpgmm import datasets, diagnostics, fit, fit_many, load_model
from dpgmm.data import Dataset
from dpgmm.densities import concentration, sticks
from dpgmm.densities.concentration import Concentration
from dpgmm.diagnostics import intervals
from dpgmm.diagnostics.intervals import Estimate
from dpgmm.draws.thinning import evenly
from dpgmm.report import plots, study
from dpgmm.report.study import Picture, Section

QUESTION = """The number of clusters of a Dirichlet-process mixture is read off as if the data had spoken. How much of it is
the prior on the concentration, and how much the number of points?"""
SHARE = 0.02
"""Share of the points from which on a cluster counts as visible here."""
SHOWN = 15
"""Numbers of clusters of which probabilities are shown."""


class Asked(NamedTuple):
    """A fit to be made: the data, the prior of the concentration, options of the sampler."""

    data: Dataset
    prior: "Prior"
    options: dict[str, Any]


class Prior(NamedTuple):
    """``a ~ Gamma(shape, rate)``; no rate is the model's default, ``log N``."""

    name: str
    shape: float
    rate: float | None

    def on(self, num_points: int) -> Concentration:
        """The prior for so many points."""
        return Concentration(self.shape, sticks.default_rate(num_points) if self.rate is None else self.rate)


DEFAULT = Prior("Gamma(1, log N)", 1.0, None)
FIXED = Prior("a = 1, nearly fixed", 1_000.0, 1_000.0)
PRIORS = (
    Prior("a = 0.2, nearly fixed", 1_000.0, 5_000.0),
    DEFAULT,
    Prior("Gamma(2, 4)", 2.0, 4.0),
    Prior("Gamma(1, 1)", 1.0, 1.0),
    FIXED,
    Prior("Gamma(2, 0.1)", 2.0, 0.1),
)
"""Gamma(2, 4) is Escobar & West's (1995) for the galaxies. Nearly fixed: a standard deviation of 3 % of the mean."""
GROWING = DEFAULT, FIXED
"""Priors under which the four Gaussians are fitted."""
SIZES = 100, 300, 1_000, 3_000
GALAXIES: dict[str, Any] = {"chains": 4, "warmup": 500, "draws_per_chain": 3_000, "keep_allocations": True}
SEATED = 400_000
"""Observations that a chain seats on the four Gaussians while draws are kept, so far as 300 to 3,000 sweeps allow."""
QUICK: dict[str, Any] = {"chains": 2, "warmup": 20, "draws_per_chain": 60, "keep_allocations": True}


def run(out: Path, *, executor: Executor | None = None, quick: bool = False) -> dict[str, Any]:
    """Fit, measure, draw; print the tables. `quick`: the default prior, 30 points of the four Gaussians, short runs."""
    priors, growing, sizes = ((DEFAULT,), (DEFAULT,), (30,)) if quick else (PRIORS, GROWING, SIZES)
    every = [Asked(datasets.galaxies(), prior, QUICK if quick else GALAXIES) for prior in priors]
    for prior in growing:
        every += [Asked(thinned(size), prior, QUICK if quick else _growing_options(size)) for size in sizes]
    with study.bar("concentration", len(every)) as next_fit:
        trees = zip(every, _trees(every, executor, next_fit), strict=True)
        measured = [_measured(asked, tree, timed=executor is None) for asked, tree in trees]
    numbers = {"galaxies": measured[: len(priors)], "four_gaussians": measured[len(priors) :]}
    title = "The prior on the concentration, and the number of clusters"
    study.leave(out, "concentration", title, QUESTION, numbers, conclusions(numbers), _sections(numbers))
    return numbers


def thinned(size: int) -> Dataset:
    """So many points of the four Gaussians, evenly spread over their components."""
    points = datasets.four_gaussians().points
    return Dataset(points[evenly(len(points), size)], name=f"four_gaussians, {size:,}")


def _growing_options(size: int) -> dict[str, Any]:
    kept = int(np.clip(SEATED // size, 300, 3_000))
    return {"chains": 4, "warmup": kept // 3, "draws_per_chain": kept, "keep_allocations": True}


def _trees(every: list[Asked], executor: Executor | None, next_fit: Callable) -> Iterator[xr.DataTree]:
    """Draws of every fit, one after the other or side by side."""
    make = load_model("stick_breaking")
    posteriors = [make(a.data, truncation=20, **a.prior.on(a.data.size)._asdict()) for a in every]
    if executor is None:
        for posterior, (data, prior, options) in zip(posteriors, every, strict=True):
            yield fit(posterior, "gibbs", progress=next_fit(f"{data.name}, {prior.name}"), **options)
        return
    next_fit("fits side by side")
    fits = [(posterior, "gibbs", asked.options) for posterior, asked in zip(posteriors, every, strict=True)]
    yield from fit_many(fits, executor=executor, progress=lambda done, total: next_fit(f"{done} of {total}"))


def _measured(asked: Asked, tree: xr.DataTree, *, timed: bool) -> dict[str, Any]:
    """Prior and posterior of the number of clusters of one data set under one prior."""
    data, prior, _ = asked
    here = prior.on(data.size)
    found = tree["posterior"].to_dataset()
    clusters = tree["sample_stats"].to_dataset()["occupied_clusters"].values
    before = prior_of_clusters(here, data.size, SHOWN)
    seen = [intervals.batch_means((clusters == k).astype(float)) for k in range(SHOWN + 1)]
    return {
        "prior": prior.name,
        "points": data.size,
        "clusters": intervals.batch_means(clusters.astype(float)),
        "visible clusters": intervals.batch_means(
            visible(tree["sample_stats"].to_dataset()["allocations"].values).astype(float)
        ),
        "four clusters": seen[4],
        "concentration": intervals.batch_means(found["concentration"].values),
        "prior mean of a": here.shape / here.rate,
        "prior mean of clusters": mean_clusters(here, data.size),
        "prior of clusters": before.tolist(),
        "posterior of clusters": seen,
        "worst R-hat": _r_hat(tree, clusters),
        "seconds": float(tree.attrs["run_seconds"]) if timed else None,
    }


def _r_hat(tree: xr.DataTree, clusters: np.ndarray) -> float | None:
    """The larger R-hat of the number of clusters and of the log likelihood; None where one never changes."""
    values = clusters.astype(float), tree["sample_stats"].to_dataset()["total_log_likelihood"].values
    worst = max(diagnostics.r_hat(v) for v in values)
    return worst if math.isfinite(worst) else None


def visible(allocations: Integer[np.ndarray, "chain draw obs"]) -> Integer[np.ndarray, "chain draw"]:
    """Number of clusters that hold at least `SHARE` of the points, ``(chain, draw, obs)`` to ``(chain, draw)``."""
    size = allocations.shape[-1]
    rows = allocations.reshape(-1, size).astype(int)
    most = rows.max() + 1
    codes = rows + most * np.arange(len(rows))[:, None]
    counts = np.bincount(codes.ravel(), minlength=most * len(rows)).reshape(-1, most)
    return (counts >= SHARE * size).sum(axis=1).reshape(allocations.shape[:-1])


# Prior of the number of clusters.


def log_stirling(n: int, most: int) -> np.ndarray:
    """``log |s(n, k)|``, unsigned Stirling numbers of the first kind, k = 0 .. `most`.

    ``|s(m + 1, k)| = m |s(m, k)| + |s(m, k - 1)|``: permutations of n things with k cycles.
    """
    row = np.full(most + 1, -np.inf)
    row[0] = 0.0
    for m in range(n):
        before = np.concatenate([[-np.inf], row[:-1]])
        row = np.logaddexp(row + math.log(m), before) if m else before
    return row


def prior_of_clusters(prior: Concentration | float, num_points: int, most: int) -> np.ndarray:
    """Prior probability of k clusters among n points, k = 0 .. `most`: ``|s(n, k)| E_a[a^k Gamma(a) / Gamma(a + n)]``.

    The expectation is over the prior, by quadrature, or at a fixed a. Source: Antoniak (1974).
    """
    a, log_weights = concentration.nodes(prior, num_points)
    k = np.arange(most + 1)[:, None]
    integral = logsumexp(log_weights + k * np.log(a) + gammaln(a) - gammaln(a + num_points), axis=1)
    return np.exp(log_stirling(num_points, most) + integral)


def mean_clusters(prior: Concentration | float, num_points: int) -> float:
    """Prior mean of the number of clusters, ``E_a[sum_{i<n} a / (a + i)] = E_a[a (psi(a + n) - psi(a))]``."""
    a, log_weights = concentration.nodes(prior, num_points)
    return float(np.exp(log_weights) @ (a * (digamma(a + num_points) - digamma(a))))


# Sentences and pictures.


def conclusions(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say, a sentence or two each."""
    rows = numbers["galaxies"]
    few, many = (pick(rows, key=lambda row: row["clusters"].value) for pick in (min, max))
    between = [
        f"galaxies: the posterior mean of the number of clusters goes from {few['clusters']} under {few['prior']} to "
        f"{many['clusters']} under {many['prior']}, where the prior expects {few['prior mean of clusters']:.1f} and "
        f"{many['prior mean of clusters']:.1f}: a factor of {many['clusters'].value / few['clusters'].value:.1f}, by the "
        "prior alone.",
        f"galaxies: of these clusters, {few['visible clusters']} and {many['visible clusters']} hold {SHARE:.0%} of "
        "the points or more, that is, two galaxies.",
    ]
    sentences = between * (len(rows) > 1) + [
        "galaxies, most probable number of clusters, posterior (prior): "
        + "; ".join(
            f"{row['prior']}: {_mode(row['posterior of clusters'])} ({_mode(row['prior of clusters'])})" for row in rows
        )
        + ".",
    ]
    for name, of_prior in by_prior(numbers["four_gaussians"]).items():
        first, last = of_prior[0], of_prior[-1]
        if first is last:
            continue
        sentences.append(
            f"four Gaussians under {name}: from {first['points']:,} to {last['points']:,} points the posterior mean "
            f"of the number of clusters goes from {first['clusters']} to {last['clusters']} (prior: "
            f"{first['prior mean of clusters']:.1f} to {last['prior mean of clusters']:.1f}), of those with "
            f"{SHARE:.0%} of the points from {first['visible clusters']} to {last['visible clusters']}; there are "
            f"four components. {_grows(first, last)}"
        )
    sentences.append(
        "Theory: with a fixed concentration the posterior number of clusters does not converge to the true number "
        "of components (Miller & Harrison 2013, NIPS 26; 2014, JMLR 15). A prior on the concentration can correct that "
        "in some settings (Ascolani, Lijoi, Rebaudo & Zanella 2023, Biometrika 110). A number of clusters from this "
        "model is no estimate of a number of components."
    )
    slow = [row for key in numbers for row in numbers[key] if (row["worst R-hat"] or 1.0) > diagnostics.THRESHOLD]
    if slow:
        worst = max(slow, key=lambda row: row["worst R-hat"])
        sentences.append(
            f"{len(slow)} of the {sum(map(len, numbers.values()))} fits have an R-hat above "
            f"{diagnostics.THRESHOLD:g} (worst {worst['worst R-hat']:.2f}: {worst['points']:,} points, "
            f"{worst['prior']}): their chains do not agree yet, and their errors, taken from the spread of four "
            "chains, are rough."
        )
    return sentences


def by_prior(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows under each prior, in order."""
    return {name: [row for row in rows if row["prior"] == name] for name in dict.fromkeys(row["prior"] for row in rows)}


def _mode(probabilities: list) -> str:
    """The most probable number, of those that are counted."""
    mode = int(np.argmax([p.value if isinstance(p, Estimate) else p for p in probabilities]))
    return str(mode) if mode < SHOWN else f"{SHOWN} or more"


def _grows(first: dict[str, Any], last: dict[str, Any]) -> str:
    difference = last["clusters"].value - first["clusters"].value
    error = math.hypot(last["clusters"].error, first["clusters"].error)
    if abs(difference) <= 2 * error:
        return "That is within two standard errors of no change."
    return f"The number {'grows' if difference > 0 else 'falls'} by {Estimate(abs(difference), error)}."


def _sections(numbers: dict[str, Any]) -> list[Section]:
    notes = (
        "Means over draws of four chains ± Monte Carlo standard errors (batch means, or the spread of the chains "
        f"where that is larger). Visible: clusters that hold {SHARE:.0%} of the points or more. R-hat: the larger of "
        "the number of clusters and the log likelihood. a: prior and posterior mean of the concentration. s: seconds of "
        "all chains, compilation apart, of a fit that ran alone. Nearly fixed: a standard deviation of 3 % of the mean.",
    )
    of_galaxies = (
        "Number of clusters among the galaxies: posterior (bars, with 2 standard errors) and prior (black), one "
        "panel a prior of the concentration."
    )
    of_gaussians = (
        "Four Gaussians, growing samples: posterior mean of the number of clusters ± 2 standard errors (solid), of "
        "those that hold a visible share (dotted), and prior mean (dashed). Black line: the true number of "
        "components."
    )
    bars, lines = _distributions(numbers["galaxies"]), _growth(by_prior(numbers["four_gaussians"]))
    shown = {name: [_shown(row) for row in rows] for name, rows in numbers.items()}
    return [
        Section("galaxies", shown["galaxies"], notes, [Picture(bars, of_galaxies)]),
        Section("four Gaussians", shown["four_gaussians"], notes, [Picture(lines, of_gaussians)]),
    ]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    r_hat = row["worst R-hat"]
    return {
        "prior of a": row["prior"],
        "points": row["points"],
        "prior mean": f"{row['prior mean of clusters']:.2f}",
        "clusters": str(row["clusters"]),
        "visible": str(row["visible clusters"]),
        "P(4 clusters)": str(row["four clusters"]),
        "a: prior": f"{row['prior mean of a']:.3g}",
        "a: posterior": str(row["concentration"]),
        "R-hat": "–" if r_hat is None else f"{r_hat:.3f}",
        "s": "–" if row["seconds"] is None else f"{row['seconds']:.1f}",
    }


def _distributions(rows: list[dict[str, Any]]):
    """Posterior and prior of the number of clusters, one panel a prior."""
    columns = min(3, len(rows))
    lines = -(-len(rows) // columns)
    canvas, axes = plots.figure(lines, columns, height=2.6 * lines, width=10 if columns > 1 else 5)
    k = np.arange(1, SHOWN + 1)
    for axis, row in zip(axes.ravel(), rows, strict=False):
        value, error = np.array(row["posterior of clusters"])[1:].T
        axis.bar(k, value, yerr=2 * error, color=plots.colour("gibbs"), error_kw={"lw": 0.8})
        axis.plot(k, row["prior of clusters"][1:], "k.-", lw=1, ms=4)
        axis.set_title(row["prior"], fontsize=9)
        axis.set_xticks(k[::2])
    for axis in axes.ravel()[len(rows) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("probability")
    canvas.supxlabel("number of clusters", fontsize=10)
    return canvas


def _growth(of_priors: dict[str, list[dict[str, Any]]]):
    """Number of clusters against number of points."""
    canvas, axes = plots.figure(1, len(of_priors), height=3.4, width=10 if len(of_priors) > 1 else 5)
    top = max(row["clusters"].value + 2 * row["clusters"].error for rows in of_priors.values() for row in rows)
    top = max([top, *(row["prior mean of clusters"] for rows in of_priors.values() for row in rows)])
    for axis, (name, rows) in zip(axes[0], of_priors.items(), strict=True):
        points = [row["points"] for row in rows]
        for quantity, style, label in (
            ("clusters", "o-", "all"),
            ("visible clusters", "s:", f"with {SHARE:.0%} of the points"),
        ):
            value, error = np.array([row[quantity] for row in rows]).T
            axis.errorbar(
                points, value, 2 * error, fmt=style, color=plots.colour("gibbs"), ms=4, capsize=3, label=label
            )
        axis.plot(points, [row["prior mean of clusters"] for row in rows], "--", color="#555555", label="prior mean")
        axis.axhline(len(datasets.COUNTS), color="black", lw=1)
        axis.set(xscale="log", xlabel="points", title=name, ylim=(0, 1.08 * top))
        axis.set_xticks(points, [f"{x:,}" for x in points])
        axis.minorticks_off()
    axes[0, 0].set_ylabel("clusters")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return canvas
