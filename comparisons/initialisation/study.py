"""How much does gradient MAP owe to where it starts, and what do restarts buy?

    dpgmm study initialisation

The article's Adam training, as the method `map` does it, from 100 dispersed starts at once: kinds of start, learning rates
and numbers of steps, one varied at a time, and a few restarts of SVI beside. A restart succeeds where it comes within
`NATS` of the best log joint known over all runs of MAP and, where the truth is known, has found it: every true component
has a partner (`dpgmm.draws.affinity`) and the mixtures' affinity is `FOUND` or more. Neither knows labels: the log joint of
stick breaking prefers some labellings, which its modes then have; see `dpgmm study label_switching`.
Writes ``initialisation.html``, one page of conclusions, and ``initialisation.json``.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib import colormaps

from dpgmm import datasets, draws, fit, load_model
from dpgmm.data import Dataset
from dpgmm.diagnostics.intervals import wilson
from dpgmm.draws import affinity
from dpgmm.draws.affinity import Heaviest
from dpgmm.draws.components import Components
from dpgmm.methods import REGISTRY
from dpgmm.model.posterior import Posterior
from dpgmm.report import plots, study
from dpgmm.report.study import Picture, Section

from .restarts import best_of, bootstrap, median_best, restarts_needed
from .starts import starting

QUESTION = """Gradient MAP climbs from where it starts. How often does it arrive, what does that depend on, and how many
restarts make up for it?"""
NATS = 5.0
"""A log joint that near the best one known is as good."""
FOUND = 0.95
"""Affinity with the true mixture from which on it is found: one missing component of the four Gaussians costs 0.05."""
RESTARTS = 1, 2, 5, 10, 20, 50
RUNS = 100
"""Restarts of MAP in every setting."""
NEED_TRUTH = "near the best", "truth found"
"""Columns that say more than success only where the truth is known."""


class Problem(NamedTuple):
    """A data set, and its true components if they are known: counts, locations, scales."""

    data: Callable[[], Dataset]
    truth: tuple | None


class Setting(NamedTuple):
    """How MAP is run."""

    start: str = "points of the data"
    learning_rate: float = 0.05
    steps: int = 1_000


class Runs(NamedTuple):
    """Of R restarts: log joint or ELBO ``(R,)``, nats; whether the truth was found ``(R,)``; seconds of all together."""

    value: np.ndarray
    found: np.ndarray
    run_seconds: float
    compile_seconds: float


PROBLEMS = (
    Problem(datasets.four_gaussians, (datasets.COUNTS, datasets.LOCATIONS, datasets.SCALES)),
    Problem(datasets.galaxies, None),
)
TRUNCATION = 20
VARIED: dict[str, tuple[Setting, ...]] = {
    "kind of start": tuple(Setting(start=kind) for kind in ("points of the data", "mean of the data", "k-means++")),
    "learning rate": tuple(Setting(learning_rate=rate) for rate in (0.005, 0.02, 0.05, 0.2, 1.0)),
    "steps": tuple(Setting(steps=steps) for steps in (100, 300, 1_000, 3_000)),
}
"""Settings by what they vary; the default one stands in every row."""
QUICK = {
    "kind of start": tuple(Setting(start=kind, steps=50) for kind in ("points of the data", "mean of the data")),
}
SVI: dict[str, Any] = {"restarts": 8, "max_steps": 4_000, "draws_per_restart": 4}


def run(out: Path, *, quick: bool = False) -> dict[str, Any]:
    """Fit, measure, draw; print the tables. `quick`: galaxies, 5 components, 10 restarts of 50 steps, no SVI."""
    problems, varied = (PROBLEMS[-1:], QUICK) if quick else (PROBLEMS, VARIED)
    settings = tuple(dict.fromkeys(s for row in varied.values() for s in row))
    numbers, sections = {}, []
    with study.bar("initialisation", len(problems) * (len(settings) + (not quick))) as next_fit:
        for problem in problems:
            posterior = load_model("stick_breaking")(problem.data(), truncation=5 if quick else TRUNCATION)
            runs = {s: _map(posterior, problem, s, 10 if quick else RUNS, next_fit) for s in settings}
            svi = None if quick else _svi(posterior, problem, next_fit)
            name = posterior.data.name
            numbers[name] = _numbers(varied, runs, svi, truth=problem.truth is not None)
            sections += _sections(name, numbers[name], varied, runs)
    title = "Initial values of gradient MAP, and what restarts buy"
    study.leave(out, "initialisation", title, QUESTION, numbers, conclusions(numbers), sections)
    return numbers


# Runs.


def _map(posterior: Posterior, problem: Problem, setting: Setting, restarts: int, next_fit: Callable) -> Runs:
    options: dict[str, Any] = {
        "restarts": restarts,
        "steps": setting.steps,
        "learning_rate": setting.learning_rate,
        "snapshots": 10,
    }
    progress = next_fit(f"{posterior.data.name}: {', '.join(map(str, setting))}")
    tree = fit(starting(posterior, setting.start), "map", progress=progress, **options)
    found = truth_found(tree["posterior"].to_dataset().isel(draw=0), problem.truth)
    return Runs(draws.log_joint_of(tree)[:, 0], found, tree.attrs["run_seconds"], tree.attrs["compile_seconds"])


def _svi(posterior: Posterior, problem: Problem, next_fit: Callable) -> Runs:
    """SVI judged by its ELBO, and by the components at the guide's median."""
    tree = fit(posterior, "svi", progress=next_fit(f"{posterior.data.name}: SVI"), **SVI)
    last = tree["optimisation"].to_dataset().drop_dims("step").isel(snapshot=-1)
    elbo = np.nan_to_num(np.atleast_1d(tree.attrs["elbo"]), nan=-np.inf)
    return Runs(elbo, truth_found(last, problem.truth), tree.attrs["run_seconds"], tree.attrs["compile_seconds"])


def truth_found(mixtures: xr.Dataset, truth: tuple | None) -> np.ndarray:
    """Whether each of R mixtures, components along (chain, component, ...), is the true one, labels aside, ``(R,)``.

    `truth`: counts, locations and scales of one-dimensional components; without it nothing is asked, and all are.
    """
    size = mixtures.sizes["chain"]
    if truth is None:
        return np.ones(size, bool)
    counts, locations, scales = (np.asarray(leaf, float) for leaf in truth)
    one = Components(counts / counts.sum(), locations[:, None], scales[:, None, None] ** 2)
    repeated = Heaviest(np.arange(len(counts)), one).repeat(size)
    matched = affinity.match(repeated, affinity.heaviest(mixtures), len(counts))
    return (matched.labels >= 0).all(axis=1) & (matched.affinity >= FOUND)


# Numbers, sentences and pictures.


def _numbers(varied: dict, runs: dict[Setting, Runs], svi: Runs | None, *, truth: bool) -> dict[str, Any]:
    """Everything that the JSON file holds of one data set."""
    best = max(r.value.max() for r in runs.values())
    found = {"best log joint": float(best), "nats": NATS, "truth known": truth}
    found["settings"] = {
        what: [s._asdict() | _measures(runs[s], best, truth=truth) for s in row] for what, row in varied.items()
    }
    found["best of"] = {s.start: _buys(runs[s], best) for s in varied["kind of start"]}
    elbo = None if svi is None else float(svi.value.max())
    found["svi"] = None if svi is None else _measures(svi, svi.value.max(), truth=truth) | {"best ELBO": elbo}
    return found


def succeeded(runs: Runs, best: float) -> np.ndarray:
    """Which restarts come within `NATS` of the best and have found the truth, ``(R,)``."""
    return (runs.value >= best - NATS) & runs.found


def _measures(runs: Runs, best: float, *, truth: bool) -> dict[str, Any]:
    size = len(runs.value)
    success = wilson(int(succeeded(runs, best).sum()), size)
    a_restart = runs.run_seconds / size
    return {
        "restarts": size,
        "success": success,
        "near the best": wilson(int((runs.value >= best - NATS).sum()), size),
        "truth found": wilson(int(runs.found.sum()), size) if truth else None,
        "median gap": _finite(best - float(median_best(runs.value, 1))),
        "restarts for 95 %": _finite(restarts_needed(success.value)),
        "seconds a restart": a_restart,
        "seconds to a success": _finite(a_restart / success.value if success.value else math.inf),
        "seconds to a success, low": a_restart / success.high,
        "seconds to a success, high": _finite(a_restart / success.low if success.low > 0 else math.inf),
        "compile seconds": runs.compile_seconds,
    }


def _buys(runs: Runs, best: float) -> dict[str, Any]:
    """Success and gap of the best of r restarts, by r."""
    success = wilson(int(succeeded(runs, best).sum()), len(runs.value))
    found = {}
    for r in RESTARTS:
        low, high = bootstrap(runs.value, r)
        gap = [_finite(best - value) for value in (float(median_best(runs.value, r)), high, low)]
        found[str(r)] = {"success": best_of(success, r), "median gap": gap}
    return found


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def conclusions(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say, a sentence or two each."""
    sentences = []
    for name, n in numbers.items():
        what = "and the true components found" if n["truth known"] else "the truth being unknown"
        kinds = n["settings"]["kind of start"]
        own = kinds[0]
        sentences.append(
            f"{name}: of {own['restarts']} starts at {own['start']}, {own['success']} succeed (within {NATS:g} nats "
            f"of the best log joint known, {n['best log joint']:,.1f}, {what}); "
            + "; ".join(f"from {k['start']}, {k['success']}" for k in kinds[1:])
            + f". Half of them end {_number(own['median gap'], ',.1f')} nats or more below the best."
        )
        if n["truth known"]:
            sentences.append(
                f"{name}: {own['near the best']} come near the best log joint and {own['truth found']} find the true "
                "components. The two are not the same: a broad component split in several can score as high as the "
                "truth."
            )
        for what in ("learning rate", "steps"):
            if what in n["settings"]:
                rows = n["settings"][what]
                key = what.replace(" ", "_")
                sentences.append(
                    f"{name}, success by {what}: "
                    + "; ".join(f"{row[key]:g}: {row['success']}" for row in rows)
                    + f". {_best(rows, key, own)}"
                )
        sentences.append(f"{name}: {_bought(n['best of'][own['start']], own)}")
        if n["svi"]:
            svi = n["svi"]
            sentences.append(
                f"{name}: of {svi['restarts']} restarts of SVI {svi['success']} come within {NATS:g} nats of their "
                f"best ELBO, {n['svi']['best ELBO']:,.1f}, {what_svi(n)}; {svi['seconds a restart']:.2f} s a restart "
                f"beside {own['seconds a restart']:.3f} s of MAP, compilation apart."
            )
    return sentences


def _bought(by: dict[str, Any], own: dict[str, Any]) -> str:
    """What restarts of the default buy."""
    needed, last = own["restarts for 95 %"], str(RESTARTS[-1])
    enough = "none did, so no number is known to be enough" if needed is None else f"{needed:.0f} restarts make 95 %"
    one, ten = (_number(by[r]["median gap"][0], ",.1f") for r in ("1", "10"))
    return (
        f"the best of 10 restarts succeeds with probability {by['10']['success']}, of {last} with "
        f"{by[last]['success']}; {enough}. The best of 10 is, in the median, {ten} nats below the best known, a single "
        f"one {one}. {_seconds(own)}"
    )


def _best(rows: list[dict[str, Any]], key: str, own: dict[str, Any]) -> str:
    """Whether the best of several settings can be told from the default one by their intervals."""
    best = max(rows, key=lambda row: row["success"].value)
    if best["success"] == own["success"]:
        return "None does better than the default."
    apart = best["success"].low > own["success"].high
    return f"The best is {best[key]:g}, " + (
        "its interval above that of the default." if apart else "its interval overlapping that of the default."
    )


def what_svi(n: dict[str, Any]) -> str:
    """What else success of SVI asked for."""
    return "with the true components at the guide's median" if n["truth known"] else "the truth being unknown"


def _seconds(row: dict[str, Any]) -> str:
    if row["seconds to a success"] is None:
        return ""
    high = row["seconds to a success, high"]
    upper = "no bound" if high is None else f"{high:.3g}"
    return (
        f"A success costs {row['seconds to a success']:.3g} s [{row['seconds to a success, low']:.3g}, {upper}] of "
        f"running, side by side with {row['restarts'] - 1} others, and {row['compile seconds']:.1f} s of compilation "
        "once."
    )


def _sections(name: str, n: dict[str, Any], varied: dict, runs: dict[Setting, Runs]) -> list[Section]:
    rows = [_shown(what, row) for what, rows in n["settings"].items() for row in rows]
    if n["svi"]:
        rows.append(_shown("SVI", n["svi"]))
    gained = [
        {
            "start": kind,
            "restarts": int(r),
            "success of the best": str(b["success"]),
            "gap of the best": _interval(b["median gap"]),
        }
        for kind, by in n["best of"].items()
        for r, b in by.items()
    ]
    notes = [
        f"Success: within {NATS:g} nats of the best known"
        + (
            f" and the truth found (affinity {FOUND:g} or more, every true component matched)"
            if n["truth known"]
            else ""
        )
        + "; brackets: 95 % Wilson intervals. Gap: nats below the best known, in the median. Seconds are wall-clock "
        "seconds of all restarts, which run vectorised, over their number; compilation apart."
    ]
    bought = [
        "Success of the best of r: 1 - (1 - p)^r, its interval from that of p. Gap: nats between the best known and "
        "the median of the best of r, drawn from its runs; brackets: 95 % bootstrap intervals."
    ]
    gaps = (
        f"Share of restarts that end within so many nats of the best log joint known. The dotted line is {NATS:g} "
        "nats. Steps in a curve are modes that attract many starts."
    )
    gain = (
        "What restarts buy. Left: probability that the best of r succeeds, with its 95 % interval. Right: how far "
        "below the best known the best of r ends, in the median, with its bootstrap interval."
    )
    pictures = Picture(_gaps(varied, runs, n["best log joint"]), gaps), Picture(_gain(n["best of"]), gain)
    return [
        Section(f"{name}: settings", rows, notes, pictures[:1]),
        Section(f"{name}: what restarts buy", gained, bought, pictures[1:]),
    ]


def _shown(what: str, row: dict[str, Any]) -> dict[str, Any]:
    setting = (
        f"{what} {row[what.replace(' ', '_')]:g}" if what in ("learning rate", "steps") else row.get("start", what)
    )
    shown = {
        "setting": setting if row["restarts"] == RUNS else f"{setting}, {row['restarts']} restarts",
        "success": str(row["success"]),
        "near the best": str(row["near the best"]),
        "truth found": str(row["truth found"]),
        "gap (nats)": _number(row["median gap"], ",.1f"),
        "r for 95 %": _number(row["restarts for 95 %"], ".0f"),
        "s a restart": f"{row['seconds a restart']:.3g}",
        "s a success": _number(row["seconds to a success"], ".3g"),
    }
    # Without a known truth success is nearness alone.
    return shown if row["truth found"] is not None else {k: v for k, v in shown.items() if k not in NEED_TRUTH}


def _interval(gap: list) -> str:
    text = [_number(g, ",.1f") for g in gap]
    return f"{text[0]} [{text[1]}, {text[2]}]"


LEAST = 0.1
"""Nats below which gaps are drawn as this."""


def _gaps(varied: dict[str, tuple[Setting, ...]], runs: dict[Setting, Runs], best: float):
    """Empirical distribution functions of the gap to the best, one panel a thing varied."""
    canvas, axes = plots.figure(1, len(varied), height=3.6, width=10 if len(varied) > 1 else 5)
    for axis, (what, settings) in zip(axes[0], varied.items(), strict=True):
        shades = np.linspace(0, 0.85, len(settings))
        for setting, shade in zip(settings, shades, strict=True):
            gap = np.sort(best - runs[setting].value)
            gap = np.maximum(gap[np.isfinite(gap)], LEAST)
            share = np.arange(1, len(gap) + 1) / len(runs[setting].value)
            value = setting.start if what == "kind of start" else getattr(setting, what.replace(" ", "_"))
            axis.step(gap, share, where="post", color=colormaps["viridis"](shade), lw=1.8, label=str(value))
        axis.axvline(NATS, color="black", ls=":", lw=1)
        axis.set(xscale="log", xlabel="nats below the best", title=what, ylim=(0, 1))
        axis.legend(frameon=False, fontsize=8, loc="best")
    axes[0, 0].set_ylabel("share of restarts")
    return canvas


def _gain(best_of_r: dict[str, Any]):
    canvas, [[left, right]] = plots.figure(1, 2, height=3.6)
    for (kind, by), tint in zip(best_of_r.items(), (method.colour for method in REGISTRY.values()), strict=False):
        r = [int(k) for k in by]
        success, low, high = np.array([b["success"] for b in by.values()]).T
        left.plot(r, success, "o-", color=tint, label=kind, ms=4)
        left.fill_between(r, low, high, color=tint, alpha=0.15, lw=0)
        gap, low, high = np.array([[np.nan if g is None else g for g in b["median gap"]] for b in by.values()]).T
        right.plot(r, np.maximum(gap, LEAST), "o-", color=tint, label=kind, ms=4)
        right.fill_between(r, np.maximum(low, LEAST), np.maximum(high, LEAST), color=tint, alpha=0.15, lw=0)
    left.set(xscale="log", xlabel="restarts r", ylabel="probability of success", ylim=(0, 1.02))
    right.set(xscale="log", yscale="log", xlabel="restarts r", ylabel="median gap of the best (nats)")
    for axis in (left, right):
        axis.set_xticks(RESTARTS, [str(r) for r in RESTARTS])
        axis.minorticks_off()
    left.legend(frameon=False, fontsize=8)
    return canvas
