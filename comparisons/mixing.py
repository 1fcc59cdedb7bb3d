"""Which sampler mixes, and how fast? Effective draws a second of the worst invariant, and whether the answer is right.

    dpgmm study mixing

NUTS with all moves, with swaps of labels alone and without moves, collapsed and blocked Gibbs, on the data sets that the
field knows and on some made here in forms that people bring. Methods take turns, and every figure is the median over
repeats with other seeds; compilation is counted apart. Speed is worth nothing where the answer is wrong: all repeats
together are held against the exact answer where partitions can be enumerated, and otherwise against a long run of
another method. Then collapsed Gibbs with default options on fifty points, once for each of twenty seeds: how often is
"converged" false? Writes ``mixing.html``, one page of conclusions and a picture, ``mixing.csv``, one row a method and data
set, and ``mixing.json``.
"""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from dpgmm import datasets, diagnose, diagnostics, exact, fit, load_model
from dpgmm.data import Dataset
from dpgmm.diagnostics import Diagnosis
from dpgmm.diagnostics.agreement import ERRORS, Agreement, agreement, with_error
from dpgmm.diagnostics.intervals import Estimate
from dpgmm.diagnostics.verdicts import FOUND, THRESHOLD
from dpgmm.draws import monte_carlo
from dpgmm.model.posterior import Posterior
from dpgmm.report import files, plots, study
from dpgmm.report.study import Picture, Section

QUESTION = """An effective draw is worth as much as an independent one. How many a second does each sampler give, of the
quantity that it draws worst, and is the answer that they add up to right?"""


class Contender(NamedTuple):
    """A sampler, what tells it from its like, its marker in the picture, and its length: warm-up and draws a chain."""

    method: str
    options: dict[str, Any]
    marker: str
    warmup: int
    draws: int


CONTENDERS = {
    "nuts": Contender("nuts", {}, "o", 50, 100),
    "nuts, moves=swaps": Contender("nuts", {"moves": "swaps"}, "^", 100, 150),
    "nuts, moves=none": Contender("nuts", {"moves": "none"}, "v", 100, 150),
    "gibbs": Contender("gibbs", {}, "s", 200, 800),
    "blocked_gibbs": Contender("blocked_gibbs", {}, "D", 200, 800),
}
NUTS = "nuts", "nuts, moves=swaps", "nuts, moves=none"
CHAINS = 4
CLUSTERS = "expected_clusters"


class Case(NamedTuple):
    """Data, truncation, contenders, and the long runs, method by options, that answers are held against.

    A contender is held against the first of `references` that is of another method; with none, against `exact`.
    """

    data: Callable[[], Dataset]
    truncation: int
    contenders: tuple[str, ...] = tuple(CONTENDERS)
    references: dict[str, dict[str, Any]] = {  # noqa: RUF012  # never written to
        "gibbs": {"warmup": 500, "draws_per_chain": 2_000},
        "nuts": {"warmup": 50, "draws_per_chain": 250},
    }


class Fit(NamedTuple):
    """Draws, and what `dpgmm.diagnose` says of them."""

    tree: xr.DataTree
    diagnosis: Diagnosis


class Plan(NamedTuple):
    """What is run: cases by name, repeats, seeds of default Gibbs and its options, draws as a share of the full ones."""

    cases: dict[str, Case]
    repeats: int
    seeds: int
    gibbs: dict[str, Any]
    share: float = 1.0


def ten_and_forty() -> Dataset:
    """Ten points of N(0, 1), then forty of N(4, 2): N = 50, D = 1. Two clusters, or is it one?"""
    rng = np.random.default_rng(1)
    return Dataset(np.concatenate([rng.normal(0, 1, 10), rng.normal(4, 2, 40)]), name="ten and forty")


def atom() -> Dataset:
    """A hundred points of N(0, 1), and ten that are 10 exactly: N = 110, D = 1."""
    return Dataset(np.concatenate([np.random.default_rng(2).normal(size=100), np.full(10, 10.0)]), name="atom at ten")


def unequal() -> Dataset:
    """Three components six standard deviations apart, of weights .9, .08 and .02: N = 300, D = 3."""
    rng = np.random.default_rng(3)
    parts = [(270, (0, 0, 0)), (24, (6, 0, 0)), (6, (0, 6, 6))]
    return Dataset(np.concatenate([rng.normal(m, 1, (n, 3)) for n, m in parts]), name="unequal weights")


def ten_points() -> Dataset:
    """Ten draws of a t distribution with three degrees of freedom about 2: N = 10, D = 1. Every partition is known."""
    return Dataset(2 + np.random.default_rng(4).standard_t(3, 10), name="ten points")


BLOCKED: dict[str, dict[str, Any]] = {
    "blocked_gibbs": {"warmup": 300, "draws_per_chain": 100, "thin": 10, "keep_allocations": False}
}
"""The reference for 19,000 points, on all of them; NUTS sees them compressed."""
FIFTY = "ten and forty"
CASES = {
    "four Gaussians, K = 50": Case(datasets.four_gaussians, 50, NUTS, BLOCKED),
    "four Gaussians, K = 10": Case(datasets.four_gaussians, 10, NUTS[1:2], BLOCKED),
    "galaxies": Case(datasets.galaxies, 20),
    "faithful": Case(datasets.faithful, 20),
    "thyroid": Case(datasets.thyroid, 20),
    FIFTY: Case(ten_and_forty, 50),
    "atom at ten": Case(atom, 20),
    "unequal weights": Case(unequal, 20),
    "ten points": Case(ten_points, 20, ("nuts", "gibbs", "blocked_gibbs"), {}),
}
FULL = Plan(CASES, repeats=3, seeds=20, gibbs={})
QUICK = Plan(
    {
        FIFTY: Case(
            ten_and_forty, 10, ("nuts, moves=none", "gibbs"), {n: {"draws_per_chain": 100} for n in ("gibbs", "nuts")}
        )
    },
    repeats=2,
    seeds=3,
    gibbs={"warmup": 100, "draws_per_chain": 200},
    share=0.25,
)
QUICK.cases[FIFTY].references["nuts"] |= {"moves": "none", "warmup": 25}


def run(out: Path, *, quick: bool = False) -> dict[str, Any]:
    """Fit, measure, draw; print the tables. `quick`: fifty points, plain NUTS and Gibbs, short runs."""
    plan = QUICK if quick else FULL
    runs = sum(plan.repeats * len(c.contenders) + len(c.references) for c in plan.cases.values()) + plan.seeds
    numbers: dict[str, Any] = {"repeats": plan.repeats, "chains": CHAINS, "rows": [], "references": {}, "long runs": {}}
    with study.bar("mixing", runs) as next_fit:
        for name, case in plan.cases.items():
            posterior = load_model("stick_breaking")(case.data(), truncation=case.truncation)
            fits = taking_turns(name, case, posterior, plan, next_fit)
            long = references(name, case, posterior, next_fit)
            numbers["references"][name] = {m: clusters(t) for m, t in long.items()}
            rows, said = judged(name, posterior, fits, long)
            numbers["rows"] += rows
            numbers["long runs"] |= said
            if name == FIFTY:
                numbers["seeds"] = of_seeds(posterior, long["nuts"], plan, next_fit)
    title = "Mixing, and whether the answer is right"
    study.leave(out, "mixing", title, QUESTION, numbers, conclusions(numbers), _sections(numbers))
    files.write_table(out / "mixing.csv", pd.DataFrame(numbers["rows"]))
    return numbers


def references(name: str, case: Case, posterior: Posterior, next_fit) -> dict[str, xr.DataTree]:
    """The long runs of a case, by method; their seed is no contender's."""
    told = lambda method: next_fit(f"{name}: long {method}")
    return {
        m: fit(posterior, m, seed=1_000, chains=CHAINS, progress=told(m), **options)
        for m, options in case.references.items()
    }


def taking_turns(name: str, case: Case, posterior: Posterior, plan: Plan, next_fit) -> dict[str, list[Fit]]:
    """The fits of every contender, one a repeat; they take turns, another first in every repeat."""
    fits: dict[str, list[Fit]] = {who: [] for who in case.contenders}
    for repeat in range(plan.repeats):
        first = repeat % len(case.contenders)
        for who in case.contenders[first:] + case.contenders[:first]:
            contender = CONTENDERS[who]
            warmup, draws = (max(25, round(plan.share * n)) for n in (contender.warmup, contender.draws))
            lengths = {"chains": CHAINS, "warmup": warmup, "draws_per_chain": draws}
            told = next_fit(f"{name}: {who}, repeat {repeat + 1}")
            tree = fit(posterior, contender.method, seed=repeat, progress=told, **lengths, **contender.options)
            fits[who].append(Fit(tree, diagnose(tree)))
    return fits


def judged(
    name: str, posterior: Posterior, fits: dict[str, list[Fit]], long: dict[str, xr.DataTree]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """One row a contender; and on what the long runs themselves disagree, by case, where they do."""
    trees = {who: pooled([f.tree for f in found]) for who, found in fits.items()}
    named = {f"long {m}": t for m, t in long.items()}
    found, rows = agreement(trees | named) if long else None, []
    for who, some in fits.items():
        others = [m for m in long if m != CONTENDERS[who].method]
        answer = against(who, others[0], found) if found and others else against_exact(trees[who], posterior)
        rows.append(
            {"data": name, "method": who}
            | over_repeats(some)
            | answer
            | dict(zip(("clusters", "error"), clusters(trees[who]), strict=True))
        )
    apart = found.disagreements(*named) if found and len(named) == 2 else []
    return rows, {name: f"{' and '.join(named)} disagree on {apart[0]}"} if apart else {}


def over_repeats(found: list[Fit]) -> dict[str, Any]:
    """Medians over the repeats of one contender; the verdict is the one given most often, and how often.

    ``run_seconds`` counts warm-up and sampling; seconds of sampling alone are its share by number of transitions.
    """
    ess = [d.least_ess for _, d in found]
    seconds = [float(t.attrs["run_seconds"]) for t, _ in found]
    alone = [s * share_of_sampling(t) for s, (t, _) in zip(seconds, found, strict=True)]
    rate = lambda times: [_finite(e / s) for e, s in zip(ess, times, strict=True)]
    sampling, verdicts = rate(alone), Counter(d.verdict for _, d in found)
    verdict, times = verdicts.most_common(1)[0]
    return {
        "ESS/s": _middle(sampling),
        "ESS/s, least": _of_known(min, sampling),
        "ESS/s, most": _of_known(max, sampling),
        "ESS/s, warm-up included": _middle(rate(seconds)),
        "ESS": _middle([_finite(e) for e in ess]),
        "R-hat": _middle([_finite(d.worst("invariant")[1]) for _, d in found]),
        "verdict": verdict,
        "verdict of repeats": times / len(found),
        "leapfrog steps a draw": _middle([_mean(t, "n_steps") for t, _ in found]),
        "divergences": _middle([_total(t, "diverging") for t, _ in found]),
        "run seconds": median(seconds),
        "compile seconds": max(float(t.attrs["compile_seconds"]) for t, _ in found),
    }


def share_of_sampling(tree: xr.DataTree) -> float:
    """Transitions that were kept of all transitions: ``draws thin / (warm-up + draws thin)``.

    NUTS counts its warm-up in draws, of `thin` transitions each, and Gibbs in sweeps.
    """
    options = json.loads(tree.attrs["options"])["method"]
    warmup, draws, thin = options["warmup"], options["draws_per_chain"], options.get("thin", 1)
    return draws / (draws + (warmup if tree.attrs["method"] == "nuts" else math.ceil(warmup / thin)))


def pooled(trees: list[xr.DataTree]) -> xr.DataTree:
    """All chains of all repeats in one tree, with the first one's attributes."""
    groups = {n: [t[n].to_dataset() for t in trees] for n in ("posterior", "sample_stats")}
    wide = max(g.sizes["component"] for g in groups["posterior"])
    # Collapsed Gibbs shows as many components as it needed: a component of weight zero adds nothing.
    groups["posterior"] = [_padded(g, wide) for g in groups["posterior"]]
    chains = sum(g.sizes["chain"] for g in groups["posterior"])
    joined = {n: xr.concat(g, "chain", join="override").assign_coords(chain=range(chains)) for n, g in groups.items()}
    tree = xr.DataTree.from_dict(joined | {"observed_data": trees[0]["observed_data"].to_dataset()})
    tree.attrs |= trees[0].attrs
    return tree


def _padded(group: xr.Dataset, wide: int) -> xr.Dataset:
    """Components of weight zero at the end, as copies of the last one."""
    have = group.sizes["component"]
    if have == wide:
        return group
    places = np.minimum(np.arange(wide), have - 1)
    more = group.isel(component=places).assign_coords(component=np.arange(wide))
    return more.assign(weights=more["weights"].where(more["component"] < have, 0.0))


def clusters(tree: xr.DataTree) -> Estimate:
    """E[number of clusters] and its Monte Carlo standard error."""
    values = np.asarray(tree["sample_stats"].to_dataset()[CLUSTERS].values, float)
    return Estimate(float(values.mean()), _finite(monte_carlo.mcse(values, "mean")) or 0.0)


def against(who: str, method: str, found: Agreement) -> dict[str, Any]:
    """Whether all repeats together agree with a long run."""
    name = f"long {method}"
    every, apart = found.of_pair(who, name), found.disagreements(who, name)
    compared = [c for c in every if not c.short]
    more = f", and on {len(apart) - 1} of {len(compared) - 1} other numbers" if len(apart) > 1 else ""
    sentence = f"{who} and {name} " + (f"disagree on {apart[0]}{more}" if apart else "agree as far as can be told")
    return _answer(name, len(compared), len(every), len(apart), sentence)


def against_exact(tree: xr.DataTree, posterior: Posterior) -> dict[str, Any]:
    """Whether number of clusters and predictive densities at the points are those of all partitions.

    What truncation allows for, half the bound of Ishwaran & James times a quantity's range, is taken off the difference.
    """
    points, prior = posterior.data.points, posterior.conjugate
    assert prior is not None
    truth = exact.partitions(posterior, at=points)
    bound = 0.5 * exact.ishwaran_james_bound(len(points), int(posterior.options["truncation"]), prior.concentration)
    number = float(np.arange(len(truth.num_clusters)) @ truth.num_clusters)
    density = np.exp(diagnostics.predictive_density(tree, points)[0])
    values = {"the number of clusters": (np.asarray(tree["sample_stats"].to_dataset()[CLUSTERS].values, float), number)}
    values |= {f"the predictive density at {x:.3g}": (density[..., i], truth.predictive[i])
               for i, x in enumerate(points[:, 0])}  # fmt: skip
    times = {n: _standard_errors(v, t, bound * float(np.ptp(v))) for n, (v, t) in values.items()}
    apart, worst = [n for n in times if times[n] > ERRORS], max(times, key=lambda n: times[n])
    here, there = values[worst]
    estimate = with_error(float(here.mean()), float(monte_carlo.mcse(here, "mean")))
    sentence = f"farthest from exact: {worst}, {estimate} against {there:.4g} ({times[worst]:.1f} standard errors)"
    return _answer("exact", len(times), len(times), len(apart), sentence)


def _standard_errors(values: np.ndarray, truth: float, allowed: float) -> float:
    error = float(monte_carlo.mcse(values, "mean"))
    return max(0.0, abs(float(values.mean()) - truth) - allowed) / max(error, 1e-300)


def _answer(name: str, compared: int, numbers: int, apart: int, sentence: str) -> dict[str, Any]:
    """Columns that say whether an answer is right. With few numbers compared nothing is shown."""
    agrees = "no" if apart else "yes" if compared == numbers else "too few draws" if not compared else "as far as seen"
    return {"reference": name, "agrees": agrees, "compared": compared, "numbers": numbers, "apart": apart,
            "sentence": sentence}  # fmt: skip


def of_seeds(posterior: Posterior, long: xr.DataTree, plan: Plan, next_fit) -> list[dict[str, Any]]:
    """Collapsed Gibbs with its own defaults, by seed: verdict, and mean number of clusters against long NUTS."""
    truth, rows = clusters(long), []
    for seed in range(plan.seeds):
        told = next_fit(f"{FIFTY}: default gibbs, seed {seed}")
        tree = fit(posterior, "gibbs", seed=seed, progress=told, **plan.gibbs)
        here, diagnosis = clusters(tree), diagnose(tree)
        rows.append(
            {
                "seed": seed,
                "clusters": here,
                "standard errors": off(here, truth),
                "R-hat": _finite(diagnosis.worst("invariant")[1]),
                "ESS": _finite(diagnosis.least_ess),
                "verdict": diagnosis.verdict,
                "false": is_false(diagnosis.verdict, here, truth),
            }
        )
    return rows


def off(here: Estimate, truth: Estimate) -> float:
    """Difference of two estimates in standard errors of both together."""
    return abs(here.value - truth.value) / max(math.hypot(here.error, truth.error), 1e-300)


def is_false(verdict: str, here: Estimate, truth: Estimate) -> bool:
    """A verdict that says the draws may be believed, where the number of clusters is more than `ERRORS` errors off."""
    return verdict in FOUND and off(here, truth) > ERRORS


def conclusions(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say: who is fastest where, who is wrong, and how often converged is false."""
    rows, sentences = numbers["rows"], []
    cases = list(dict.fromkeys(row["data"] for row in rows))
    of_case = {name: [row for row in rows if row["data"] == name] for name in cases}
    best = {name: fastest(some) for name, some in of_case.items()}
    words = [f"{n} {r['method']} {_rate(r)}" if r else f"{n} none" for n, r in best.items()]
    wrong = [row for row in rows if row["agrees"] == "no"]
    unknown = sum(row["agrees"] == "too few draws" for row in rows)
    sentences.append(
        "Effective draws a second of the worst invariant, of the fastest method that mixed and is not found wrong: "
        f"{'; '.join(words)}. {len(wrong)} of {len(rows)} answers are wrong{_wrongly(wrong)}; {unknown} could "
        "not be judged for want of effective draws."
    )
    seeds = numbers.get("seeds", [])
    if seeds:
        converged, false = (sum(map(test, seeds)) for test in (lambda r: r["verdict"] in FOUND, lambda r: r["false"]))
        far = max(seeds, key=lambda row: row["standard errors"])
        sentences.append(
            f'Fifty points, gibbs with default options: {false} of {len(seeds)} seeds are given a false "converged" '
            f"({converged} of {len(seeds)} are called converged). Farthest off, seed {far['seed']}: {far['clusters']} "
            f'clusters on average, {far["standard errors"]:.1f} standard errors, verdict "{far["verdict"]}".'
        )
    sentences += [f"{row['data']}: {row['sentence']}; verdict: {row['verdict']}." for row in wrong]
    sentences += [f"{name}: {said}; no answer is known there." for name, said in numbers["long runs"].items()]
    return sentences + [s for name, some in of_case.items() if (s := _beside(name, some))]


def fastest(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of most effective draws a second of those that mixed and were compared without fault, or None.

    Effective draws of chains that have not mixed, R-hat of `THRESHOLD` or more, are no measure of anything.
    """
    mixed = [row for row in rows if row["ESS/s"] is not None and (row["R-hat"] or math.inf) < THRESHOLD]
    known = [row for row in mixed if row["agrees"] in ("yes", "as far as seen")]
    return max(known, key=lambda row: row["ESS/s"], default=None)


def _wrongly(wrong: list[dict[str, Any]]) -> str:
    believed = [row for row in wrong if row["verdict"] in FOUND]
    return f", of which {len(believed)} were called converged" if wrong else ""


def _beside(name: str, rows: list[dict[str, Any]]) -> str:
    """How many times as fast NUTS with all moves is as with swaps and with none, where there are both."""
    rates = {row["method"]: row["ESS/s"] for row in rows if row["ESS/s"]}
    others = [who for who in NUTS[1:] if who in rates]
    if "nuts" not in rates or not others:
        return ""
    times = " and ".join(f"{rates['nuts'] / rates[who]:.2g} times {who}" for who in others)
    return f"{name}: nuts has {rates['nuts']:.3g} effective draws a second, {times}."


def _rate(row: dict[str, Any]) -> str:
    return f"{row['ESS/s']:.3g} (R-hat {row['R-hat']:.3f})"


def _sections(numbers: dict[str, Any]) -> list[Section]:
    rows, seeds = numbers["rows"], numbers.get("seeds", [])
    notes = (
        f"{numbers['chains']} chains, median of {numbers['repeats']} repeats, methods taking turns. ESS: the smallest of "
        "bulk and tail of any label-invariant quantity. ESS/s: of the seconds of sampling, run time shared out by number "
        "of transitions; with warm-up: of all seconds after compilation, which has a column of its own and is 0 where "
        "programs were at hand. R-hat: the largest of an invariant. Verdict: the one given most often, and its share.",
        f"Agrees: all repeats together, every invariant, {ERRORS:g} standard errors; numbers compared: those that had the "
        "effective draws for it. An effective draw of a wrong answer is worth nothing, and ESS of chains "
        "that have all missed a mode is too large.",
    )
    caption = (
        "Effective draws a second of the worst invariant, sampling alone: median and range of repeats. Hollow: the answer "
        "disagrees with the reference. Colour: method; markers tell the moves of NUTS apart."
    )
    parts = [
        Section("Effective draws a second", [_shown(r) for r in rows], notes[:1], [Picture(picture(rows), caption)]),
        Section("Is the answer right?", [_shown_answer(r) for r in rows], notes[1:]),
    ]
    if seeds:
        truth = numbers["references"][FIFTY]["nuts"]
        note = f"Mean number of clusters, long nuts: {truth}. False: called converged, and more than {ERRORS:g} errors off."
        shown = [_shown_seed(row) for row in seeds]
        parts.append(Section("Fifty points: default gibbs, seed by seed", shown, (note,)))
    return parts


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "data": row["data"],
        "method": row["method"],
        "ESS/s": _said(row["ESS/s"], ".3g"),
        "with warm-up": _said(row["ESS/s, warm-up included"], ".3g"),
        "ESS": _said(row["ESS"], ".0f"),
        "R-hat": _said(row["R-hat"], ".3f"),
        "steps": _said(row["leapfrog steps a draw"], ".0f"),
        "divergences": _said(row["divergences"], ".0f"),
        "run s": f"{row['run seconds']:.3g}",
        "compile s": f"{row['compile seconds']:.3g}",
    }


def _shown_answer(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "data": row["data"],
        "method": row["method"],
        "verdict": f"{row['verdict']} ({row['verdict of repeats']:.0%})",
        "clusters": str(Estimate(row["clusters"], row["error"])),
        "reference": row["reference"],
        "agrees": row["agrees"],
        "numbers compared": f"{row['compared']} of {row['numbers']}",
        "apart": row["apart"],
    }


def _shown_seed(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "seed": row["seed"],
        "clusters": str(row["clusters"]),
        "standard errors off": f"{row['standard errors']:.1f}",
        "R-hat": _said(row["R-hat"], ".3f"),
        "ESS": _said(row["ESS"], ".0f"),
        "verdict": row["verdict"],
        "false": "FALSE" if row["false"] else "",
    }


def picture(rows: list[dict[str, Any]]):
    """Effective draws a second by data set, one marker a method, hollow where the answer is wrong."""
    cases = list(dict.fromkeys(row["data"] for row in rows))
    canvas, [[axis]] = plots.figure(height=1.4 + 0.55 * len(cases))
    names = [name for name in CONTENDERS if any(row["method"] == name for row in rows)]
    for i, name in enumerate(names):
        who = CONTENDERS[name]
        tint, known = plots.colour(who.method), [r for r in rows if r["method"] == name and r["ESS/s"]]
        axis.plot([], [], who.marker, color=tint, label=name)
        for row in known:
            place, wrong = cases.index(row["data"]) + 0.13 * (i - (len(names) - 1) / 2), row["agrees"] == "no"
            axis.plot([row["ESS/s, least"], row["ESS/s, most"]], [place] * 2, color=tint, lw=1)
            axis.plot(row["ESS/s"], place, who.marker, color=tint, mfc="white" if wrong else tint, ms=6)
    for line in range(1, len(cases)):
        axis.axhline(line - 0.5, color="#dddddd", lw=0.7, zorder=0)
    axis.set(xscale="log", xlabel="smallest ESS of an invariant, a second of sampling", ylim=(len(cases) - 0.5, -0.5))
    low, high = axis.get_xlim()
    axis.set_xlim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))
    axis.set_yticks(range(len(cases)), cases)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return canvas


def _mean(tree: xr.DataTree, name: str) -> float | None:
    stats = tree["sample_stats"].to_dataset()
    return float(stats[name].mean()) if name in stats else None


def _total(tree: xr.DataTree, name: str) -> float | None:
    stats = tree["sample_stats"].to_dataset()
    return float(stats[name].sum()) if name in stats else None


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _of_known(function: Callable[[list[float]], float], values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return function(known) if known else None


def _middle(values: list[float | None]) -> float | None:
    return _of_known(median, values)


def _said(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
