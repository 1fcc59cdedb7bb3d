"""Which inference method can be believed for what, and at what cost? Every method on three data sets and one enumerated.

    dpgmm study inference_methods

The stick-breaking model on galaxies, a thousand points of the four Gaussians and faithful. A tenth of the points is held
out, in a new split for every repeat, the same one for all methods; the prior is scaled to all points, once. On every split
a long blocked Gibbs run is the reference. Then eight galaxies, of which every answer is known exactly. Writes
``inference_methods.html``, one page of conclusions and pictures, and ``inference_methods.json``, where an interval is a
list of mean, lower and upper end. If ``calibration.json`` of the study of calibration lies beside, what it found is
shown too; so it is with the option `calibration` of `run`, a path.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dpgmm import Dataset, Posterior, datasets, diagnostics, exact, fit, load_model, methods
from dpgmm.diagnostics.intervals import interval
from dpgmm.draws import answer
from dpgmm.report import inline
from dpgmm.report.study import leave_page
from dpgmm.report.terminal import wide_console

from . import plots, scores, tables
from .scores import Clock, held_out


class Contender(NamedTuple):
    """A method, by name or by the path of its file, with what tells it from its like."""

    method: str
    options: dict[str, Any] = {}  # noqa: RUF012  # never written to

    @property
    def record(self) -> methods.Method:
        """What is known of the method."""
        return methods.find(self.method)

    @property
    def steps(self) -> str | None:
        """The option that a budget scales, of an optimiser; a sampler's draws so far are looked at on its way."""
        return next((name for name in ("steps", "max_steps") if name in self.record.options), None)


CONTENDERS = {
    "MAP": Contender("map"),
    "mean-field SVI": Contender("svi", {"guide": "normal"}),
    "low-rank SVI": Contender("svi", {"guide": "lowrank"}),
    "CAVI": Contender("cavi"),
    "NUTS": Contender("nuts"),
    "collapsed Gibbs": Contender("gibbs"),
    "blocked Gibbs": Contender("blocked_gibbs"),
}
EIGHT = 0, 5, 8, 20, 40, 60, 75, 80
"""The galaxies that are enumerated: some of every part."""
TRUNCATED = 4
"""Components of the model of eight galaxies; collapsed Gibbs is held against the untruncated process, its own target."""


class Problem(NamedTuple):
    """A data set, and the options of every method at the largest budget."""

    data: Callable[[], Dataset]
    effort: dict[str, dict[str, Any]]


class Plan(NamedTuple):
    """What is run. `shares`: budgets as shares of the largest. `exact`: models on eight points, and their contenders."""

    contenders: dict[str, Contender]
    problems: dict[str, Problem]
    truncation: int
    repeats: int
    shares: tuple[float, ...]
    reference: dict[str, Any]
    exact: dict[str, tuple[str, ...]]
    exact_effort: dict[str, dict[str, Any]]


def thinned() -> Dataset:
    """Every nineteenth point of the four Gaussians: N = 1,000."""
    return Dataset(datasets.four_gaussians().points[::19], name="four_gaussians, every 19th")


def effort(
    nuts: tuple[int, int], gibbs: tuple[int, int], blocked: tuple[int, int], map: int, svi: int, *, exact: bool = False
) -> dict[str, dict[str, Any]]:
    """Options of all methods: (warm-up, draws a chain) of samplers, steps of optimisers.

    SVI takes them by 500; CAVI has as many as MAP, and stops when it is settled.
    """
    chain = lambda lengths, **more: {"chains": 2, "warmup": lengths[0], "draws_per_chain": lengths[1], **more}
    return {
        "map": {"restarts": 8, "steps": map, "snapshots": 1},
        "svi": {"restarts": 2, "max_steps": svi, "draws_per_restart": 1_000},
        "cavi": {"restarts": 2, "max_steps": map, "draws_per_restart": 1_000},
        "nuts": chain(nuts),
        "gibbs": chain(gibbs, keep_allocations=exact),
        "blocked_gibbs": chain(blocked, keep_allocations=False),
    }


FULL = Plan(
    contenders=CONTENDERS,
    problems={
        "galaxies": Problem(datasets.galaxies, effort((200, 640), (100, 1_600), (100, 4_800), 2_000, 5_000)),
        "four_gaussians": Problem(thinned, effort((75, 80), (100, 320), (100, 2_400), 2_000, 5_000)),
        "faithful": Problem(datasets.faithful, effort((100, 240), (50, 800), (100, 3_200), 2_000, 5_000)),
    },
    truncation=15,
    repeats=5,
    shares=(1 / 16, 1 / 4, 1),
    reference={"chains": 2, "warmup": 1_000, "draws_per_chain": 1_000, "thin": 8, "keep_allocations": False},
    exact={"stick_breaking": tuple(CONTENDERS), "symmetric_dirichlet": ("NUTS", "blocked Gibbs")},
    exact_effort=effort((300, 2_400), (100, 8_000), (100, 8_000), 1_000, 5_000, exact=True),
)
QUICK = Plan(
    contenders={name: CONTENDERS[name] for name in ("MAP", "blocked Gibbs")},
    problems={"galaxies": Problem(datasets.galaxies, effort((25, 25), (20, 40), (20, 40), 100, 1_000))},
    truncation=TRUNCATED,
    repeats=2,
    shares=(1.0,),
    # Of the length of the contender: one program serves both.
    reference={"chains": 2, "warmup": 20, "draws_per_chain": 40, "keep_allocations": False},
    exact={"stick_breaking": ("blocked Gibbs",)},
    exact_effort=effort((25, 25), (20, 40), (20, 40), 100, 1_000, exact=True),
)
HELD_OUT = 0.1
K_HAT = 0.7
"""Above it importance weights do not repair a guide (Vehtari et al. 2024)."""
CLOSE = 0.02
"""Nats a held-out point by which the interval of a method may fall below the reference, for it to have arrived."""


class Fit(NamedTuple):
    """One contender on one split: seconds and held-out density at every budget, and the answer at the largest."""

    seconds: list[float]
    density: list[float]
    compile_seconds: float
    draws: xr.DataTree


def fitted(
    posterior: Posterior,
    who: Contender,
    shares: tuple[float, ...],
    options: dict[str, Any],
    points: np.ndarray,
    seed: int,
    begin: Callable[[], Callable[[float], None]],
) -> Fit:
    """Fit by every budget (optimisers), or once, with a look at the draws so far (samplers: warm-up counts in time)."""
    options = options | who.options
    fit_with = partial(fit, posterior, who.method, seed=seed, compression=False)
    predictive = lambda tree: diagnostics.predictive_density(tree, points)[0]
    if (steps := who.steps) is not None:
        budgets = [max(1, round(share * who.record.bound(options)[steps])) for share in shares]
        trees = [fit_with(progress=Clock(begin()), **options | {steps: budget}) for budget in budgets]
        seconds, cold = ([float(t.attrs[f"{what}_seconds"]) for t in trees] for what in ("run", "compile"))
        return Fit(seconds, [held_out(predictive(answer(t))) for t in trees], max(cold), answer(trees[-1]))
    clock = Clock(begin())
    tree = fit_with(progress=clock, **options)
    if not {"warmup", "draws_per_chain"} <= set(options):
        # One budget: a method that takes none.
        own, cold = (float(tree.attrs[f"{what}_seconds"]) for what in ("run", "compile"))
        return Fit([own] * len(shares), [held_out(predictive(answer(tree)))] * len(shares), cold, answer(tree))
    density, length, warm = predictive(tree), options["draws_per_chain"], options["warmup"]
    kept = [max(1, round(share * length)) for share in shares]
    seconds = [clock.seconds((warm + n) / (warm + length), float(tree.attrs["run_seconds"])) for n in kept]
    return Fit(seconds, [held_out(density[:, :n]) for n in kept], float(tree.attrs["compile_seconds"]), tree)


def chosen(plan: Plan, wanted: Sequence[str] | None) -> Plan:
    """The plan with the contenders of these methods alone, names of ours or paths of method files; all if None."""
    if wanted is None:
        return plan
    ours = {name: who for name, who in CONTENDERS.items() if who.method in wanted}
    others = [name for name in wanted if name not in {who.method for who in ours.values()}]
    contenders = ours | {name: Contender(name) for name in (methods.find(other).name for other in others)}
    own = [name for name in contenders if name not in ours]
    exact = {model: tuple(n for n in names if n in ours) + tuple(own) for model, names in plan.exact.items()}
    return plan._replace(contenders=contenders, exact={model: names for model, names in exact.items() if names})


def budget(effort: dict[str, dict[str, Any]], who: Contender) -> dict[str, Any]:
    """Options of a contender at the largest budget; those of a short run where nothing is planned for its method."""
    return effort.get(who.method, dict(who.record.quick))


def run(
    out: Path, *, quick: bool = False, calibration: Path | None = None, methods: Sequence[str] | None = None
) -> dict[str, Any]:
    """Fit, measure, draw; print the tables. `quick`: galaxies, two methods, short runs. `calibration`: its JSON file.

    `methods`: names, or paths of method files, to compare in place of ours.
    """
    console, plan = wide_console(), chosen(QUICK if quick else FULL, methods)
    rows = scores.calibration_rows(calibration or out / "calibration.json", required=calibration is not None)
    with _bar(console, plan) as next_fit:
        data = {name: measured(name, problem, plan, next_fit) for name, problem in plan.problems.items()}
        eight = {model: enumerated(model, names, plan, next_fit) for model, names in plan.exact.items()}
    for of_data in data.values():
        for name, m in of_data["methods"].items():
            m["calibration"] = scores.calibrated(rows, *plan.contenders[name], "stick_breaking")
    numbers = {"repeats": plan.repeats, "truncation": plan.truncation, "cores": os.cpu_count()}
    numbers |= {"contenders": list(plan.contenders), "data": data, "exact": eight}
    found, of = tables.of(numbers), {name: who.record.name for name, who in plan.contenders.items()}
    pictures = {draw.__name__: inline.picture(draw(numbers, of)) for draw in plots.PICTURES}
    page = {"tables": found, "pictures": pictures, "numbers": numbers, "conclusions": conclusions(numbers)}
    path = leave_page(out, "inference_methods", "inference_methods.html.j2", numbers, **page)
    for title, lines in found.items():
        table = Table(*lines[0], title=title, title_justify="left")
        for line in lines:
            table.add_row(*line.values())
        console.print(table)
    for sentence in conclusions(numbers):
        console.print(f"- {sentence}")
    console.print(f"Page: {path}")
    return numbers


def measured(name: str, problem: Problem, plan: Plan, next_fit: Callable) -> dict[str, Any]:
    """The numbers of one data set: every contender on every split, the contenders taking turns in changing order."""
    data = problem.data()
    prior = load_model("stick_breaking")(data, truncation=plan.truncation)
    found: dict[str, list[dict[str, Any]]] = {who: [] for who in plan.contenders}
    references = []
    for repeat in range(plan.repeats):
        train, points = scores.split(data, HELD_OUT, repeat)
        posterior, told = prior.on(train), partial(next_fit, f"{name}, split {repeat + 1}")
        # Of another seed than the contender of the same kind: they share no random numbers.
        tree = fit(
            posterior, "blocked_gibbs", seed=1_000 + repeat, progress=Clock(told("long Gibbs")), **plan.reference
        )
        of_chains, sds = scores.similarity(tree), scores.spreads(tree)
        density = held_out(diagnostics.predictive_density(tree, points)[0])
        # Two chains of error e: their difference has error sqrt(2) e, their mean e / sqrt(2), half of that.
        error = float(np.abs(of_chains[0] - of_chains[1]).mean() / 2)
        references.append({"held out": density, "similarity error": error, "seconds": tree.attrs["run_seconds"]})
        first, names = repeat % len(plan.contenders), list(plan.contenders)
        for who in names[first:] + names[:first]:
            contender, begin = plan.contenders[who], partial(told, who)
            own = budget(problem.effort, contender)
            one = fitted(posterior, contender, plan.shares, own, points, repeat, begin)
            distance = np.abs(scores.similarity(one.draws).mean(axis=0) - of_chains.mean(axis=0)).mean()
            found[who].append(
                {
                    "seconds": one.seconds,
                    "held out": one.density,
                    "above reference": [d - density for d in one.density],
                    "compile seconds": one.compile_seconds,
                    "sd ratios": {q: sd / sds[q] for q, sd in scores.spreads(one.draws).items()},
                    "similarity": float(distance),
                    "k-hat": scores.k_hat(one.draws),
                }
            )
    return {
        "points": data.size,
        "reference": {what: interval([r[what] for r in references]) for what in references[0]},
        "methods": {who: _over_repeats(plan.contenders[who], rows) for who, rows in found.items()},
    }


def _over_repeats(who: Contender, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians and intervals over repeats of one contender."""
    columns = {what: [r[what] for r in rows] for what in rows[0]}
    by_budget = lambda what: [interval(values) for values in zip(*columns[what], strict=True)]
    ratios = {q: interval([r[q] for r in columns["sd ratios"]]) for q in columns["sd ratios"][0]}
    return {
        "seconds": [median(values) for values in zip(*columns["seconds"], strict=True)],
        "held out": by_budget("held out"),
        "above reference": by_budget("above reference"),
        "compile seconds": max(columns["compile seconds"]),
        "sd ratios": ratios,
        "similarity": interval(columns["similarity"]),
        "k-hat": None if None in columns["k-hat"] else interval(columns["k-hat"]),
        "mark": scores.mark(who.record.kind, ratios),
    }


def enumerated(model: str, names: tuple[str, ...], plan: Plan, next_fit: Callable) -> dict[str, Any]:
    """Distances to the exact answer for eight galaxies: total variation of the number of clusters, similarity."""
    eight = Dataset(datasets.galaxies().points[list(EIGHT)], name="eight galaxies")
    posterior = load_model(model)(eight, truncation=TRUNCATED)
    truncated, pairs = exact.allocations(posterior).partitions, np.triu_indices(eight.size, 1)
    untruncated = (
        exact.partitions(posterior)
        if any(plan.contenders[name].record.target == "process" for name in names)
        else truncated
    )
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for seed, name in product(range(plan.repeats), names):
        who = plan.contenders[name]
        options = budget(plan.exact_effort, who) | who.options
        clock = Clock(next_fit(f"eight galaxies, {model}, repeat {seed + 1}", name))
        tree = fit(posterior, who.method, seed=seed, compression=False, progress=clock, **options)
        truth = untruncated if tree.attrs["untruncated"] else truncated
        clusters, together = scores.partition_scores(answer(tree))
        variation = 0.5 * np.abs(clusters - truth.num_clusters).sum()
        distance = np.abs(together - truth.similarity)[pairs].mean()
        found[name].append((float(variation), float(distance), float(tree.attrs["run_seconds"])))
    columns = {name: list(zip(*rows, strict=True)) for name, rows in found.items()}
    return {
        name: {"total variation": interval(variation), "similarity": interval(distance), "seconds": median(seconds)}
        for name, (variation, distance, seconds) in columns.items()
    }


def conclusions(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say, a sentence or two each."""
    sentences = []
    for name, of_data in numbers["data"].items():
        methods, error = of_data["methods"], of_data["reference"]["similarity error"].value
        distance = lambda who, methods=methods: methods[who]["similarity"]
        nearest, farthest = min(methods, key=distance), max(methods, key=distance)
        sentences += [
            f"{name}: {_arrivals(methods)}",
            f"{name}: {_losers(methods)}",
            f"{name}: the similarity matrix of {nearest} is nearest to the long run's (mean absolute difference "
            f"{distance(nearest)}), that of {farthest} farthest ({distance(farthest)}); the long run's own error is about "
            f"{error:.2g}.",
            f"{name}: {_marks(methods)}",
        ]
    for model, of_model in numbers["exact"].items():
        listed = sorted(of_model.items(), key=lambda item: item[1]["total variation"].value)
        sentences.append(
            f"Eight galaxies, {model}, total variation of the number of clusters from the exact answer: "
            + ", ".join(f"{name} {d['total variation']}" for name, d in listed)
            + "."
        )
    return sentences


def _arrivals(methods: dict[str, Any]) -> str:
    """Who comes within `CLOSE` of the reference, and when first, quickest first."""
    first = {}
    for who, m in methods.items():
        times = [s for s, d in zip(m["seconds"], m["above reference"], strict=True) if d.low > -CLOSE]
        first |= {who: min(times)} if times else {}
    words = f"no more than {CLOSE:g} nats a held-out point below long Gibbs, by the whole interval,"
    if not first:
        return f"no method is shown to be {words[:-1]}."
    quickest = sorted(first, key=lambda who: first[who])
    listed = ", ".join(f"{who} after {first[who]:.2g} s" for who in quickest)
    others = [who for who in methods if who not in first]
    never = f"; not shown of {', '.join(others)}" * bool(others)
    return f"{words} at the earliest look: {listed}{never}."


def _losers(methods: dict[str, Any]) -> str:
    """Who predicts worse than the reference at the largest budget, by an interval that lies below zero."""
    last = {who: m["above reference"][-1] for who, m in methods.items()}
    worse = [f"{who} {d}" for who, d in last.items() if d.high < 0]
    better = [f"{who} {d}" for who, d in last.items() if d.low > 0]
    if not worse + better:
        return "at the largest budget no method's held-out density can be told from that of long Gibbs."
    parts = [f"worse {', '.join(worse)}"] * bool(worse) + [f"better {', '.join(better)}"] * bool(better)
    return f"at the largest budget, against long Gibbs on the same split, nats a point: {'; '.join(parts)}."


def _marks(methods: dict[str, Any]) -> str:
    """What every method is not, and where it was not found out; k-hat of guides."""
    marks = [f"{who}: {m['mark']}" for who, m in methods.items()]
    tails = {who: m["k-hat"] for who, m in methods.items() if m["k-hat"]}
    above = [f"{who} {k}" for who, k in tails.items() if k.low > K_HAT]
    beyond = f" k-hat above {K_HAT}, so that no weighting turns draws into the posterior: {', '.join(above)}."
    return f"{'; '.join(marks)}." + beyond * bool(above)


@contextmanager
def _bar(console: Console, plan: Plan) -> Iterator[Callable]:
    """A bar over all fits: ``next_fit(where, who)`` begins one; it gives the function that is told the share done."""
    of_split = 1 + sum(len(plan.shares) if who.steps else 1 for who in plan.contenders.values())
    fits = plan.repeats * (len(plan.problems) * of_split + sum(map(len, plan.exact.values())))
    columns = BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console, transient=True) as bar:
        task, begun = bar.add_task("", total=fits), iter(range(fits))

        def next_fit(where: str, who: str) -> Callable[[float], None]:
            before = next(begun)
            bar.update(task, completed=before, description=f"{where}: {who}")
            return lambda share: bar.update(task, completed=before + share)

        yield next_fit
