"""Which inference method can be believed for what, and at what cost? Every method on three data sets and one enumerated.

    dpgmm study inference_methods

The stick-breaking model on galaxies, a thousand points of the four Gaussians and faithful. A tenth of the points is held
out, in a new split for every repeat, the same one for all methods; the prior is scaled to all points, once. On every split
a long blocked Gibbs run is the reference. Then eight galaxies, of which every answer is known exactly. Writes
``inference_methods.html``, one page of conclusions and pictures, and ``inference_methods.json``, where an interval is a
list of mean, lower and upper end. If ``calibration.json`` of the study of calibration lies beside, what it found is
shown too; so it is with the option `calibration` of `run`, a path.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dpgmm import Dataset, Posterior, datasets, diagnostics, exact, fit, load_model, method_plots, report, yardsticks
from dpgmm.draws import answer
from dpgmm.errors import InputError
from dpgmm.yardsticks import Clock, held_out, interval


class Contender(NamedTuple):
    """A method with what tells it from its like."""

    method: str
    options: dict[str, Any] = {}  # noqa: RUF012  # never written to


CONTENDERS = {
    "MAP": Contender("map"),
    "SVI, mean field": Contender("svi", {"guide": "normal"}),
    "SVI, low rank": Contender("svi", {"guide": "lowrank"}),
    "NUTS": Contender("nuts"),
    "collapsed Gibbs": Contender("gibbs"),
    "blocked Gibbs": Contender("blocked_gibbs"),
}
STEPS = {"map": "steps", "svi": "max_steps"}
"""What is scaled by a budget, of optimisers; a sampler's draws so far are looked at on its way."""


class Problem(NamedTuple):
    """A data set, and the options of every method at the largest budget."""

    data: Callable[[], Dataset]
    effort: dict[str, dict[str, Any]]


class Plan(NamedTuple):
    """What is run. `shares`: budgets as shares of the largest. `exact`: models on eight points, and their contenders."""

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


def effort(nuts: tuple[int, int], gibbs: tuple[int, int], blocked: tuple[int, int], map: int, svi: int):
    """Options of all methods: (warm-up, draws a chain) of samplers, steps of optimisers."""
    chain = lambda lengths: {"chains": 2, "warmup": lengths[0], "draws_per_chain": lengths[1]}
    return {
        "map": {"restarts": 8, "steps": map, "snapshots": 1},
        "svi": {"restarts": 2, "max_steps": svi, "draws_per_restart": 1_000},
        "nuts": chain(nuts),
        "gibbs": chain(gibbs),
        "blocked_gibbs": chain(blocked),
    }


FULL = Plan(
    problems={
        "galaxies": Problem(datasets.galaxies, effort((200, 800), (100, 3_200), (100, 6_400), 2_000, 8_000)),
        "four_gaussians": Problem(thinned, effort((100, 160), (50, 480), (100, 3_200), 2_000, 8_000)),
        "faithful": Problem(datasets.faithful, effort((100, 320), (50, 800), (100, 3_200), 2_000, 8_000)),
    },
    truncation=15,
    repeats=5,
    shares=(1 / 16, 1 / 4, 1),
    reference={"chains": 2, "warmup": 1_000, "draws_per_chain": 1_000, "thin": 8},
    exact={"stick_breaking": tuple(CONTENDERS), "symmetric_dirichlet": ("NUTS", "blocked Gibbs")},
    exact_effort=effort((300, 3_000), (100, 10_000), (100, 10_000), 1_000, 8_000),
)
QUICK = Plan(
    problems={"galaxies": Problem(datasets.galaxies, effort((25, 25), (20, 40), (20, 40), 100, 1_000))},
    truncation=5,
    repeats=2,
    shares=(1 / 2, 1),
    reference={"chains": 2, "warmup": 20, "draws_per_chain": 100},
    exact={"stick_breaking": ("MAP", "blocked Gibbs")},
    exact_effort=effort((25, 25), (20, 40), (20, 400), 100, 1_000),
)
EIGHT = 0, 5, 8, 20, 40, 60, 75, 80
"""The galaxies that are enumerated: some of every part."""
TRUNCATED = 4
"""Components of the model of eight galaxies; collapsed Gibbs is held against the untruncated process, its own target."""
HELD_OUT = 0.1
K_HAT = 0.7
"""Above it importance weights do not mend a guide (Vehtari et al. 2024)."""
CLOSE = 0.01
"""Nats a held-out point by which a method may miss the reference and count as having arrived."""


def split(data: Dataset, repeat: int) -> tuple[Dataset, np.ndarray]:
    """Points to fit and points held out, at random, another tenth for every repeat."""
    order = np.random.default_rng(repeat).permutation(data.size)
    out = round(HELD_OUT * data.size)
    return Dataset(data.points[np.sort(order[out:])], name=data.name), data.points[np.sort(order[:out])]


class Fit(NamedTuple):
    """One contender on one split: seconds and held-out density at every budget, and the answer at the largest."""

    seconds: list[float]
    density: list[float]
    compile_seconds: float
    draws: xr.DataTree


def fitted(posterior: Posterior, who: Contender, plan: Plan, options, points, seed: int, next_fit: Callable) -> Fit:
    """Fit by every budget (optimisers), or once, with a look at the draws so far (samplers: warm-up counts in time)."""
    options = options | who.options
    if who.method in STEPS:
        steps, trees = STEPS[who.method], []
        for share in plan.shares:
            own = options | {steps: max(1, round(share * options[steps]))}
            trees.append(fit(posterior, who.method, seed=seed, compression=False, progress=Clock(next_fit()), **own))
        density = [held_out(diagnostics.predictive_density(answer(t), points)[0]) for t in trees]
        seconds, cold = ([float(t.attrs[f"{what}_seconds"]) for t in trees] for what in ("run", "compile"))
        return Fit(seconds, density, max(cold), answer(trees[-1]))
    clock = Clock(next_fit())
    tree = fit(posterior, who.method, seed=seed, compression=False, progress=clock, **options)
    log_density, length, warm = diagnostics.predictive_density(tree, points)[0], *_lengths(options)
    kept = [max(1, round(share * length)) for share in plan.shares]
    seconds = [clock.seconds((warm + n) / (warm + length), float(tree.attrs["run_seconds"])) for n in kept]
    return Fit(seconds, [held_out(log_density[:, :n]) for n in kept], float(tree.attrs["compile_seconds"]), tree)


def _lengths(options: dict[str, Any]) -> tuple[int, int]:
    return options["draws_per_chain"], options["warmup"]


def run(out: Path, quick: bool = False, calibration: Path | None = None) -> dict[str, Any]:
    """Fit, measure, draw; print the tables. `quick`: galaxies alone, short runs. `calibration`: a calibration.json."""
    console, plan = Console(), QUICK if quick else FULL
    if not console.is_terminal:
        console.width = 170  # A pipe has no width to fit.
    rows = _calibration(out, calibration)
    with _bar(console, plan) as next_fit:
        data = {name: measured(name, problem, plan, next_fit) for name, problem in plan.problems.items()}
        eight = {model: enumerated(model, names, plan, next_fit) for model, names in plan.exact.items()}
    for of_data in data.values():
        for name, m in of_data["methods"].items():
            m["calibration"] = yardsticks.calibrated(rows, *CONTENDERS[name], "stick_breaking")
    of = {name: who.method for name, who in CONTENDERS.items()}
    numbers = {"repeats": plan.repeats, "truncation": plan.truncation, "cores": os.cpu_count()}
    numbers |= {"data": data, "exact": eight}
    tables = {name: (_cost(of_data), _belief(of_data)) for name, of_data in data.items()}
    text = json.dumps(numbers, indent=1, allow_nan=False) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    partial = out / "inference_methods.json.partial"
    partial.write_text(text)
    pictures = {f.__name__: report.png(f(numbers, of)) for f in method_plots.PICTURES}
    page = {"tables": tables, "exact": _exact(eight), "pictures": pictures, "numbers": numbers}
    path = out / "inference_methods.html"
    report.render("inference_methods.html.j2", path, conclusions=conclusions(numbers), **page)
    partial.replace(out / "inference_methods.json")
    for name, (cost, belief) in tables.items():
        _print(console, f"{name}: what it costs", cost)
        _print(console, f"{name}: what may be believed", belief)
    _print(console, "Eight galaxies, distance to the exact answer", _exact(eight))
    for sentence in conclusions(numbers):
        console.print(f"- {sentence}")
    console.print(f"Page: {path}")
    return numbers


def measured(name: str, problem: Problem, plan: Plan, next_fit: Callable) -> dict[str, Any]:
    """The numbers of one data set: every contender on every split, the contenders taking turns in changing order."""
    data = problem.data()
    prior = load_model("stick_breaking")(data, truncation=plan.truncation)
    found: dict[str, list[dict[str, Any]]] = {who: [] for who in CONTENDERS}
    references = []
    for repeat in range(plan.repeats):
        train, points = split(data, repeat)
        posterior = prior.on(train)
        told = lambda who: lambda: next_fit(f"{name}, split {repeat + 1}: {who}")
        options = {"keep_allocations": False} | plan.reference
        # Of another seed than the contender of the same kind: they share no random numbers.
        tree = fit(posterior, "blocked_gibbs", seed=1_000 + repeat, progress=Clock(told("reference")()), **options)
        of_chains, wanted = yardsticks.similarity(tree), yardsticks.spreads(tree)
        reference = held_out(diagnostics.predictive_density(tree, points)[0])
        # Two chains of error e: their difference has error sqrt(2) e, their mean e / sqrt(2), half of that.
        error = float(np.abs(of_chains[0] - of_chains[1]).mean() / 2)
        references.append({"held out": reference, "similarity error": error, "seconds": tree.attrs["run_seconds"]})
        turns = list(CONTENDERS)[repeat % len(CONTENDERS) :] + list(CONTENDERS)[: repeat % len(CONTENDERS)]
        for who in turns:
            one = fitted(
                posterior, CONTENDERS[who], plan, problem.effort[CONTENDERS[who].method], points, repeat, told(who)
            )
            distance = np.abs(yardsticks.similarity(one.draws).mean(axis=0) - of_chains.mean(axis=0)).mean()
            numbers = {
                "fit": one._replace(draws=xr.DataTree()),
                "reference": reference,
                "k-hat": yardsticks.k_hat(one.draws),
            }
            ratios = {q: sd / wanted[q] for q, sd in yardsticks.spreads(one.draws).items()}
            found[who].append(numbers | {"ratios": ratios, "similarity": float(distance)})
    over = lambda what: interval([r[what] for r in references])
    return {
        "points": data.size,
        "reference": {
            "held out": over("held out"),
            "similarity error": over("similarity error"),
            "seconds": over("seconds"),
        },
        "methods": {who: _over_repeats(CONTENDERS[who].method, rows) for who, rows in found.items()},
    }


def _over_repeats(method: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Intervals over repeats of one contender; differences are taken split by split."""
    fits = [r["fit"] for r in rows]
    each = range(len(fits[0].seconds))
    ratios = {q: interval([r["ratios"][q] for r in rows]) for q in rows[0]["ratios"]}
    k_hats = [r["k-hat"] for r in rows]
    return {
        "seconds": [median(f.seconds[b] for f in fits) for b in each],
        "held out": [interval([f.density[b] for f in fits]) for b in each],
        "above reference": [
            interval([f.density[b] - r["reference"] for f, r in zip(fits, rows, strict=True)]) for b in each
        ],
        "compile seconds": max(f.compile_seconds for f in fits),
        "sd ratios": ratios,
        "similarity": interval([r["similarity"] for r in rows]),
        "k-hat": None if None in k_hats else interval(k_hats),
        "mark": yardsticks.mark(method, ratios),
    }


def enumerated(model: str, names: tuple[str, ...], plan: Plan, next_fit: Callable) -> dict[str, Any]:
    """Distances to the exact answer for eight galaxies: total variation of the number of clusters, similarity."""
    eight = Dataset(datasets.galaxies().points[list(EIGHT)], name="eight galaxies")
    posterior = load_model(model)(eight, truncation=TRUNCATED)
    truncated = exact.allocations(posterior).partitions
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for seed in range(plan.repeats):
        for name in names:
            method, own = CONTENDERS[name]
            progress = Clock(next_fit(f"eight galaxies, {model}, repeat {seed + 1}: {name}"))
            keep = {"keep_allocations": True} if method == "gibbs" else {}
            options = plan.exact_effort[method] | own | keep
            tree = answer(fit(posterior, method, seed=seed, compression=False, progress=progress, **options))
            truth = exact.partitions(posterior) if method == "gibbs" else truncated
            clusters, together = yardsticks.of_partition(tree)
            pairs = np.triu_indices(eight.size, 1)
            found[name].append(
                (
                    float(0.5 * np.abs(clusters - truth.num_clusters).sum()),
                    float(np.abs(together - truth.similarity)[pairs].mean()),
                    float(tree.attrs["run_seconds"]),
                )
            )
    return {
        name: {"total variation": interval(tv), "similarity": interval(pairs), "seconds": median(seconds)}
        for name, (tv, pairs, seconds) in ((name, zip(*rows, strict=True)) for name, rows in found.items())
    }


def conclusions(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say, a sentence or two each."""
    sentences = []
    for name, of_data in numbers["data"].items():
        methods, reference = of_data["methods"], of_data["reference"]
        sentences += [f"{name}: {_arrivals(methods)}", f"{name}: {_losers(methods)}"]
        error = reference["similarity error"].value
        nearest, farthest = (pick(methods, key=lambda who: methods[who]["similarity"].value) for pick in (min, max))
        sentences.append(
            f"{name}: the similarity matrix of {nearest} is nearest to the long run's (mean absolute difference "
            f"{methods[nearest]['similarity']}), that of {farthest} farthest ({methods[farthest]['similarity']}); "
            f"the long run's own error is about {error:.2g}."
        )
        marked = [f"{who}, {m['mark']}" for who, m in methods.items() if not m["mark"].startswith("no fault")]
        sentences.append(f"{name}, marks: {'; '.join(marked)}." if marked else f"{name}: no method bears a mark.")
        tails = [f"{who} {m['k-hat']}" for who, m in methods.items() if m["k-hat"]]
        if tails:
            bad = all(m["k-hat"].value > K_HAT for m in methods.values() if m["k-hat"])
            sentences.append(
                f"{name}: k-hat of {', '.join(tails)}"
                + (f": above {K_HAT}, no weighting turns these draws into the posterior." if bad else ".")
            )
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
        times = [s for s, d in zip(m["seconds"], m["above reference"], strict=True) if d.value > -CLOSE]
        first |= {who: min(times)} if times else {}
    words = f"within {CLOSE:g} nats a held-out point of long Gibbs"
    if not first:
        return f"no method comes {words}."
    quickest = sorted(first, key=lambda who: first[who])
    listed = ", ".join(f"{who} after {first[who]:.2g} s" for who in quickest)
    others = [who for who in methods if who not in first]
    return f"{words} at the smallest budget that we looked at: {listed}" + (
        f"; never {', '.join(others)}." if others else "."
    )


def _losers(methods: dict[str, Any]) -> str:
    """Who predicts worse than the reference at the largest budget, by an interval that lies below zero."""
    last = {who: m["above reference"][-1] for who, m in methods.items()}
    worse = [f"{who} {d}" for who, d in last.items() if d.high < 0]
    better = [f"{who} {d}" for who, d in last.items() if d.low > 0]
    if not worse + better:
        return "at the largest budget no method's held-out density can be told from that of long Gibbs."
    parts = [f"worse {', '.join(worse)}"] * bool(worse) + [f"better {', '.join(better)}"] * bool(better)
    return f"at the largest budget, against long Gibbs on the same split, nats a point: {'; '.join(parts)}."


def _cost(of_data: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table of costs: held-out density against seconds, one row a method and budget."""
    reference = of_data["reference"]
    rows = [
        {
            "method": who,
            "seconds": f"{seconds:.3g}",
            "compiling": f"{m['compile seconds']:.2g}" if budget == 0 else "",
            "held out, nats a point": str(m["held out"][budget]),
            "above long Gibbs": str(m["above reference"][budget]),
        }
        for who, m in of_data["methods"].items()
        for budget, seconds in enumerate(m["seconds"])
    ]
    of_reference = {
        "seconds": f"{reference['seconds'].value:.3g}",
        "held out, nats a point": str(reference["held out"]),
    }
    return [*rows, dict.fromkeys(rows[0], "") | {"method": "long Gibbs"} | of_reference]


def _belief(of_data: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table of what may be believed at the largest budget, one a method."""
    return [
        {
            "method": who,
            **{
                f"sd ratio, {q}": "none" if m["mark"].startswith("point") else str(r) for q, r in m["sd ratios"].items()
            },
            "similarity": str(m["similarity"]),
            "k-hat": str(m["k-hat"] or ""),
            "mark": m["mark"],
            "calibration": m["calibration"],
        }
        for who, m in of_data["methods"].items()
    ]


def _exact(eight: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "method": name,
            "number of clusters, total variation": str(d["total variation"]),
            "similarity, mean absolute difference": str(d["similarity"]),
            "seconds": f"{d['seconds']:.2g}",
        }
        for model, of_model in eight.items()
        for name, d in of_model.items()
    ]


def _print(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(*rows[0], title=title, title_justify="left")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


def _calibration(out: Path, path: Path | None) -> list[dict[str, Any]] | None:
    """Rows of a calibration.json, of the one beside where no path is given and there is one."""
    if path is None and not (path := out / "calibration.json").is_file():
        return None
    try:
        rows = json.loads(Path(path).read_text())
        return [{k: r[k] for k in ("method", "model", "inside", "quantities", "simulations")} for r in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not what dpgmm study calibration writes ({error!r}); run it again") from error


@contextmanager
def _bar(console: Console, plan: Plan) -> Iterator[Callable]:
    """A bar over all fits: ``next_fit(title)`` begins one and gives the function that is told the share done of it."""
    of_split = 1 + sum(len(plan.shares) if who.method in STEPS else 1 for who in CONTENDERS.values())
    fits = plan.repeats * (len(plan.problems) * of_split + sum(map(len, plan.exact.values())))
    columns = BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console, transient=True) as bar:
        task, begun = bar.add_task("", total=fits), iter(range(fits))

        def next_fit(title: str) -> Callable[[float], None]:
            before = next(begun)
            bar.update(task, completed=before, description=title)
            return lambda share: bar.update(task, completed=before + share)

        yield next_fit
