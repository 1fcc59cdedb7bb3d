"""How many components must a truncated Dirichlet process have? The truncation K swept from 2 to 50.

    dpgmm study truncation

Blocked Gibbs, whose posterior is that of the truncated model, and gradient MAP beside it, on every other galaxy and on 500
points of the four Gaussians; the other halves are held out. Fit, number of clusters, the bound of Ishwaran & James averaged
over prior and posterior of the concentration, and seconds a draw, by K; and for eight points, where both posteriors can
be enumerated, how far they really are apart. Writes ``truncation.html``, one page of conclusions, and ``truncation.json``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from dpgmm import datasets, diagnostics, draws, exact, fit, load_model
from dpgmm.data import Dataset
from dpgmm.diagnostics import intervals
from dpgmm.diagnostics.intervals import Estimate
from dpgmm.model.posterior import Posterior
from dpgmm.report import plots, study
from dpgmm.report.study import Picture, Section

QUESTION = """A computer holds K components where the Dirichlet process has infinitely many. How many are enough, what do
the surplus ones cost, and what is the bound worth?"""
ENUMERATED = 2, 3, 4, 5, 6
"""Truncations of which all allocations of the eight points are taken."""
EIGHT = 0, 5, 8, 20, 40, 60, 75, 80
"""The galaxies that are enumerated: some of every part."""
VISIBLE = 0.01
"""Weight from which on a component counts as visible here."""
VOID = 2.0
"""Largest L1 distance of two densities: a bound above it says nothing."""
OPTIONS: dict[str, dict[str, Any]] = {
    "blocked_gibbs": {"chains": 4, "warmup": 300, "draws_per_chain": 1_000, "keep_allocations": False},
    "map": {"restarts": 16, "steps": 1_000, "snapshots": 1},
}
QUICK: dict[str, dict[str, Any]] = {
    "blocked_gibbs": {"chains": 2, "warmup": 20, "draws_per_chain": 40, "keep_allocations": False},
    "map": {"restarts": 2, "steps": 50, "snapshots": 1},
}


class Halves(NamedTuple):
    """Points that are fitted, and points that are held out."""

    name: str
    fitted: Dataset
    held_out: np.ndarray


def galaxies() -> Halves:
    """Every other galaxy, by velocity, and those between."""
    points = datasets.galaxies().points
    return Halves("galaxies", Dataset(points[::2], name="galaxies, every other"), points[1::2])


def four_gaussians() -> Halves:
    """500 points of the four Gaussians, evenly spread over their components, and 500 others."""
    points = datasets.four_gaussians().points
    return Halves("four_gaussians", Dataset(points[::38], name="four_gaussians, every 38th"), points[19::38])


PROBLEMS: dict[Callable[[], Halves], tuple[int, ...]] = {
    galaxies: (2, 3, 5, 8, 12, 20, 50),
    four_gaussians: (2, 3, 5, 8, 20, 50),
}
"""Data, and the truncations that they are fitted with."""


def run(out: Path, *, quick: bool = False) -> dict[str, Any]:
    """Fit, measure, draw; print the tables. `quick`: galaxies, K = 2 and 5, short runs."""
    problems = {galaxies: (2, 5)} if quick else PROBLEMS
    numbers: dict[str, Any] = {"sweep": {}}
    with study.bar("truncation", 2 * sum(map(len, problems.values()))) as next_fit:
        for problem, truncations in problems.items():
            halves = problem()
            swept = [_measured(halves, k, QUICK if quick else OPTIONS, next_fit) for k in truncations]
            numbers["sweep"][halves.name] = swept
        next_fit("eight galaxies, every allocation")
        numbers["exact"] = enumerated(ENUMERATED[:2] if quick else ENUMERATED)
    title = "The truncation of a Dirichlet process"
    study.leave(out, "truncation", title, QUESTION, numbers, conclusions(numbers), _sections(numbers))
    return numbers


def _measured(halves: Halves, num_components: int, options: dict[str, dict[str, Any]], next_fit) -> dict[str, Any]:
    """The numbers of one data set at one truncation, both methods."""
    posterior = load_model("stick_breaking")(halves.fitted, truncation=num_components)
    note = f"{halves.name}, K = {num_components}: "
    trees = {m: fit(posterior, m, progress=next_fit(note + m), **taken) for m, taken in options.items()}
    taken = options["blocked_gibbs"]
    sweeps = taken["chains"] * (taken["warmup"] + taken["draws_per_chain"])
    return {
        "K": num_components,
        "gibbs": _of_gibbs(trees["blocked_gibbs"], posterior, halves, sweeps),
        "map": _of_map(draws.answer(trees["map"]), halves),
    }


def _of_gibbs(tree: xr.DataTree, posterior: Posterior, halves: Halves, sweeps: int) -> dict[str, Any]:
    found, stats = tree["posterior"].to_dataset(), tree["sample_stats"].to_dataset()
    num_components, size, prior = found.sizes["component"], halves.fitted.size, posterior.conjugate
    assert prior is not None
    return {
        "held-out log density": held_out(diagnostics.predictive_density(tree, halves.held_out)[0]),
        "log likelihood": intervals.batch_means(stats["total_log_likelihood"].values),
        "clusters": intervals.batch_means(stats["occupied_clusters"].values.astype(float)),
        "visible components": intervals.batch_means(visible(found)),
        "weight of the last": intervals.batch_means(found["weights"].values[..., -1]),
        "bound, prior": exact.ishwaran_james_bound(size, num_components, prior.concentration),
        "bound, posterior": intervals.batch_means(bound(size, num_components, found["concentration"].values)),
        "seconds a draw": float(tree.attrs["run_seconds"]) / sweeps,
        "compile seconds": float(tree.attrs["compile_seconds"]),
    }


def _of_map(best: xr.DataTree, halves: Halves) -> dict[str, Any]:
    """The same of the best restart, a point."""
    stats = best["sample_stats"].to_dataset()
    return {
        "held-out log density": float(diagnostics.predictive_density(best, halves.held_out)[0].mean()),
        "log likelihood": float(stats["total_log_likelihood"].item()),
        "active components": int(stats["active_components"].item()),
        "visible components": int(visible(best["posterior"].to_dataset()).item()),
        "run seconds": float(best.attrs["run_seconds"]),
    }


def visible(found: xr.Dataset) -> np.ndarray:
    """Number of components of weight `VISIBLE` or more, ``(chain, draw)``."""
    return (found["weights"].values >= VISIBLE).sum(axis=-1).astype(float)


def held_out(log_density: Float[np.ndarray, "chain draw point"]) -> Estimate:
    """Mean log predictive density of held-out points, nats a point, from log densities ``(chain, draw, point)``.

    ``mean_g log mean_t p_tg``. Its error is that of the mean over draws of ``mean_g p_tg / mean_t p_tg``, the first-order
    term of the logarithm (delta method).
    """
    largest = log_density.max(axis=(0, 1))
    density = np.exp(log_density - largest)
    mean = density.mean(axis=(0, 1))
    error = intervals.batch_means((density / mean).mean(axis=-1)).error
    return Estimate(float((np.log(mean) + largest).mean()), error)


def bound(
    num_points: int, num_components: int, concentration: Float[np.ndarray, "*draws"]
) -> Float[np.ndarray, "*draws"]:
    """``4 N exp(-(K - 1) / a)`` at every draw of the concentration. Source: Ishwaran & James (2001), theorem 2."""
    return 4 * num_points * np.exp(-(num_components - 1) / concentration)


def enumerated(truncations: tuple[int, ...]) -> list[dict[str, Any]]:
    """Exact total variations between truncated and full process for eight galaxies, and the bound, by truncation."""
    eight = Dataset(datasets.galaxies().points[list(EIGHT)], name="eight galaxies")
    make = load_model("stick_breaking")
    found = ((k, exact.truncation(make(eight, truncation=k))) for k in truncations)
    return [
        {"K": k, "prior distance": t.prior_distance, "posterior distance": t.posterior_distance, "bound": t.bound}
        for k, t in found
    ]


def enough(swept: list[dict[str, Any]], quantity: str) -> int:
    """Smallest K from which on a quantity of Gibbs stays within two standard errors of its value at the largest K."""
    last = swept[-1]["gibbs"][quantity]
    smallest = swept[-1]["K"]
    for row in reversed(swept):
        here = row["gibbs"][quantity]
        if abs(here.value - last.value) > 2 * np.hypot(here.error, last.error):
            break
        smallest = row["K"]
    return smallest


def first_below(swept: list[dict[str, Any]], quantity: str, level: float) -> int | None:
    """Smallest K at which a bound is below a level, or None."""
    value = lambda row: row["gibbs"][quantity]
    values = [(row["K"], v.value if isinstance(v := value(row), Estimate) else v) for row in swept]
    return next((k for k, v in values if v < level), None)


def conclusions(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say, a sentence or two each."""
    sentences, cost = [], lambda row: 1e3 * row["gibbs"]["seconds a draw"]
    for name, swept in numbers["sweep"].items():
        first, last = swept[0], swept[-1]
        density, clusters = (enough(swept, q) for q in ("held-out log density", "clusters"))
        at = {row["K"]: row["gibbs"] for row in swept}
        sentences += [
            f"{name}: from K = {density} on the held-out log predictive density of Gibbs cannot be told from that at "
            f"K = {last['K']}, {last['gibbs']['held-out log density']} nats a point; at K = {first['K']} it is "
            f"{first['gibbs']['held-out log density']}.",
            f"{name}: the number of clusters takes K = {clusters} to settle: {at[clusters]['clusters']} there, "
            f"{last['gibbs']['clusters']} at K = {last['K']}, of which {last['gibbs']['visible components']} "
            f"components have {VISIBLE:.0%} of the weight or more.",
            f"{name}: {_bound_says(swept)}",
            f"{name}: a draw costs {cost(last) / cost(first):.1f} times as much at K = {last['K']} as at K = "
            f"{first['K']} ({cost(last):.3f} and {cost(first):.3f} ms).",
            f"{name}: the best restart of MAP has {', '.join(str(row['map']['active components']) for row in swept)} "
            f"active components at K = {', '.join(str(row['K']) for row in swept)}, and at K = {last['K']} a "
            f"held-out log density of {last['map']['held-out log density']:.4f}, {_beside(last)}.",
        ]
    t = numbers["exact"]
    sentences.append(
        "Eight galaxies, enumerated: the total variation between the truncated and the full posterior of partitions "
        f"falls from {t[0]['posterior distance']:.3f} at K = {t[0]['K']} to {t[-1]['posterior distance']:.3f} at K = "
        f"{t[-1]['K']}, between the priors from {t[0]['prior distance']:.3f} to {t[-1]['prior distance']:.3f}. The "
        f"bound, {t[0]['bound']:.2f} and {t[-1]['bound']:.2f}, is one for densities of the data, averaged over the "
        "prior: "
        + (
            "here the posteriors are farther apart than it, so it is no promise about a posterior given data that "
            "need more components."
            if any(row["posterior distance"] > row["bound"] for row in t)
            else "here it lies above the distance of the posteriors as well, which nothing promises."
        )
    )
    return sentences


def _bound_says(swept: list[dict[str, Any]]) -> str:
    """From which K on the bound says something, and from which it is small, averaged both ways."""
    reach = lambda k: "at none of these K" if k is None else f"from K = {k} on"
    words = [
        f"averaged over the {side} of the concentration it is below {VOID:g}, so that it says something, "
        f"{reach(first_below(swept, f'bound, {side}', VOID))}, and below 0.01 "
        f"{reach(first_below(swept, f'bound, {side}', 0.01))}"
        for side in ("prior", "posterior")
    ]
    return "the bound of Ishwaran & James: " + "; ".join(words) + "."


def _beside(row: dict[str, Any]) -> str:
    difference = row["gibbs"]["held-out log density"].value - row["map"]["held-out log density"]
    return f"{abs(difference):.4f} {'below' if difference > 0 else 'above'} Gibbs"


def _sections(numbers: dict[str, Any]) -> list[Section]:
    notes = (
        "Gibbs: means over draws ± Monte Carlo standard errors (batch means). Held out: log predictive density, "
        f"nats a point. Clusters: components that hold a point. Visible: components of at least {VISIBLE:.0%} of the "
        "weight. Bound: of the L1 distance between the truncated and the full density of the data, 4 N exp(-(K - 1) "
        f"/ a), averaged over prior and posterior of the concentration a; above {VOID:g} it says nothing. Seconds a "
        "draw: wall-clock time over all sweeps of all chains, warm-up included, compilation apart.",
        "The average of the bound over the posterior is one over draws: where it is far below 1 it rests on the few "
        "largest concentrations drawn and may be too small. MAP: the best of its restarts; active: components expected "
        "to hold at least one point.",
    )
    sweep = (
        "By truncation. Orange: blocked Gibbs, mean over draws ± 2 standard errors; blue: the best restart of MAP. "
        f"The dotted line in the third panel is {VOID:g}: a bound above it is void."
    )
    parts = [
        Section(name, [_shown(row) for row in swept], notes, [Picture(_sweep(swept), sweep)])
        for name, swept in numbers["sweep"].items()
    ]
    caption = (
        "Eight galaxies: exact total variation between truncated and full process, of the prior of partitions and "
        "of their posterior, and the Ishwaran-James bound, averaged over the prior of the concentration."
    )
    return [
        *parts,
        Section("Eight galaxies, enumerated", numbers["exact"], (), [Picture(_exact(numbers["exact"]), caption)]),
    ]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    gibbs, best = row["gibbs"], row["map"]
    return {
        "K": row["K"],
        "held out": str(gibbs["held-out log density"]),
        "log likelihood": str(gibbs["log likelihood"]),
        "clusters": str(gibbs["clusters"]),
        "visible": str(gibbs["visible components"]),
        "bound, prior": f"{gibbs['bound, prior']:.2g}",
        "posterior": f"{gibbs['bound, posterior'].value:.2g}",
        "ms a draw": f"{1e3 * gibbs['seconds a draw']:.2g}",
        "MAP: held out": f"{best['held-out log density']:.4f}",
        "active": best["active components"],
    }


def _sweep(swept: list[dict[str, Any]]):
    """Held-out density, clusters, bound and cost against K."""
    canvas, axes = plots.figure(2, 2, height=6.4)
    k = [row["K"] for row in swept]
    gibbs, mode = plots.colour("blocked_gibbs"), plots.colour("map")

    def draw(axis, quantity: str, of_map: str, label: str) -> None:
        value, error = np.array([row["gibbs"][quantity] for row in swept]).T
        axis.errorbar(k, value, 2 * error, fmt="o-", color=gibbs, ms=4, capsize=3, label="blocked Gibbs")
        axis.plot(k, [row["map"][of_map] for row in swept], "s--", color=mode, ms=4, label="MAP, best restart")
        axis.set_ylabel(label)

    (density, clusters), (bounds, cost) = axes
    draw(density, "held-out log density", "held-out log density", "held-out log density (nats a point)")
    draw(clusters, "clusters", "active components", "clusters; MAP: active")
    density.legend(frameon=False, fontsize=8, loc="lower right")
    for side, style, tint in (("prior", "o--", "#555555"), ("posterior", "o-", gibbs)):
        values = [row["gibbs"][f"bound, {side}"] for row in swept]
        values = [v.value if isinstance(v, Estimate) else v for v in values]
        bounds.plot(k, values, style, color=tint, ms=4, label=f"over the {side} of a")
    bounds.axhline(VOID, color="black", ls=":", lw=1)
    bounds.set(yscale="log", ylabel="Ishwaran-James bound")
    bounds.legend(frameon=False, fontsize=8)
    cost.plot(k, [1e3 * row["gibbs"]["seconds a draw"] for row in swept], "o-", color=gibbs, ms=4)
    cost.set(ylabel="ms a draw", ylim=(0, None))
    for axis in axes.ravel():
        axis.set(xscale="log", xlabel="truncation K")
        axis.set_xticks(k, [str(x) for x in k])
        axis.minorticks_off()
    return canvas


def _exact(rows: list[dict[str, Any]]):
    canvas, [[axis]] = plots.figure(height=3.2, width=6)
    k = [row["K"] for row in rows]
    for name, style in (("prior distance", "o--"), ("posterior distance", "o-"), ("bound", "s:")):
        axis.plot(
            k, [row[name] for row in rows], style, label=name, color="black" if name == "bound" else "#009E73", ms=5
        )
    axis.set(yscale="log", xlabel="truncation K", ylabel="total variation, bound", xticks=k)
    axis.legend(frameon=False, fontsize=8, handlelength=4)
    return canvas
