"""Which methods draw from the posterior that they claim? Simulation-based calibration of all of them.

    dpgmm study calibration
    dpgmm study calibration --executor processes:4

Truths are drawn from the prior, data from truths, every method is refitted, and the truth is ranked among its draws (Talts
et al. 2018): uniform ranks for a method that draws from the posterior. A method that is none, or is overconfident, is
shown as it is. Writes ``calibration.html``, a page with the pictures, and ``calibration.json``, after every method; Ctrl-C
keeps what is finished.
"""

from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax import random
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dpgmm import Dataset, Posterior, calibration, load_model
from dpgmm.report import calibration_plots, inline, study
from dpgmm.report.terminal import wide_console

POINTS = 20
"""Points of a simulated data set."""
SIMULATIONS = 200
DRAWS = 49
"""Thinned draws of a fit among which the truth is ranked: few, so that they are nearly independent."""
OPTIONS: dict[str, dict[str, Any]] = {
    "nuts": {"chains": 2, "warmup": 50, "draws_per_chain": 100, "thin": 10},
    "gibbs": {"chains": 2, "warmup": 200, "draws_per_chain": 100, "thin": 10, "split_merges": 1},
    "blocked_gibbs": {"chains": 2, "warmup": 400, "draws_per_chain": 100, "thin": 20},
    "svi": {"restarts": 2, "max_steps": 4_000, "draws_per_restart": 400},
    "cavi": {"restarts": 2, "moves": 20, "draws_per_restart": 400},
    "map": {"restarts": 4, "steps": 600},
}
QUICK: dict[str, dict[str, Any]] = {
    "nuts": {"chains": 1, "warmup": 20, "draws_per_chain": 50, "thin": 1},
    "gibbs": {"chains": 1, "warmup": 20, "draws_per_chain": 60},
    "blocked_gibbs": {"chains": 1, "warmup": 20, "draws_per_chain": 60},
    "svi": {"restarts": 1, "max_steps": 500, "draws_per_restart": 100},
    "cavi": {"restarts": 1, "moves": 10, "draws_per_restart": 100},
    "map": {"restarts": 2, "steps": 100},
}


class Case(NamedTuple):
    """One method on one model."""

    method: str
    model: str
    truncation: int


TRUNCATED = 4
UNTRUNCATED = 30
"""Components of the model whose simulations stand for the untruncated process: `dpgmm.exact` bounds what that changes."""
CASES = (
    Case("gibbs", "stick_breaking", UNTRUNCATED),
    Case("blocked_gibbs", "stick_breaking", TRUNCATED),
    Case("blocked_gibbs", "symmetric_dirichlet", TRUNCATED),
    Case("nuts", "stick_breaking", TRUNCATED),
    Case("nuts", "symmetric_dirichlet", TRUNCATED),
    Case("svi", "stick_breaking", TRUNCATED),
    Case("svi", "symmetric_dirichlet", TRUNCATED),
    Case("cavi", "stick_breaking", TRUNCATED),
    Case("cavi", "symmetric_dirichlet", TRUNCATED),
    Case("map", "stick_breaking", TRUNCATED),
    Case("map", "symmetric_dirichlet", TRUNCATED),
    Case("gibbs", "escobar_west", UNTRUNCATED),
    Case("blocked_gibbs", "escobar_west", TRUNCATED),
)


def run(out: Path, *, executor: Executor | None = None, quick: bool = False) -> list[dict[str, Any]]:
    """Refit, rank, draw; print a table, a row a case. `quick`: 2 simulations of short runs on one model."""
    console, rows, sections, record = wide_console(), [], [], []
    try:
        for case, ranks in _ranks(console, executor, quick=quick):
            rows.append(row(case, ranks))
            sections.append(_section(case, ranks, rows[-1]))
            names = {"names": list(ranks.names), "ranks": ranks.rank.tolist()}
            record.append(rows[-1] | names | {"table": sections[-1]["table"]})
            _leave(out, rows, sections, record)
    except KeyboardInterrupt:
        console.print("Stopped: what is finished is written.")
    if rows:
        console.print(_table(rows))
        for conclusion in conclusions(rows):
            console.print(f"- {conclusion}")
        console.print(f"Page: {out / 'calibration.html'}")
    return rows


def posterior_of(case: Case) -> Posterior:
    """The model of a case, with hyperparameters scaled to points of mean 0 and standard deviation 1."""
    stand_in = np.linspace(-1, 1, POINTS)
    data = Dataset((stand_in - stand_in.mean()) / stand_in.std(), name="stand-in")
    return load_model(case.model)(data, truncation=case.truncation)


def _ranks(console: Console, executor: Executor | None, *, quick: bool) -> Iterator[tuple[Case, calibration.Ranks]]:
    """Ranks of every case, those of an interrupted one as far as it came."""
    simulations, draws = (2, 19) if quick else (SIMULATIONS, DRAWS)
    columns = TextColumn("{task.description}"), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn()
    with Progress(*columns, console=console) as bar:
        for number, case in enumerate(CASES):
            if quick and case.model != "stick_breaking":
                continue
            task = bar.add_task(f"{case.method}, {case.model}", total=simulations)
            posterior, refits = posterior_of(case), []
            options = (QUICK if quick else OPTIONS).get(case.method, {})
            key = random.fold_in(random.PRNGKey(0), number)
            told: dict[str, Any] = {
                "executor": executor,
                "progress": lambda done, _, task=task: bar.update(task, completed=done),
            }
            try:
                for refit in calibration.refits(
                    posterior, case.method, key, simulations=simulations, draws=draws, **told, **options
                ):
                    refits.append(refit)
            except KeyboardInterrupt:
                if len(refits) > 1:
                    yield case, calibration.as_ranks(posterior, case.method, refits, draws)
                raise
            yield case, calibration.as_ranks(posterior, case.method, refits, draws)


def row(case: Case, ranks: calibration.Ranks) -> dict[str, Any]:
    """The numbers of one case: `calibration.summary`, bias by VSBC, k-hat where there are importance weights, a verdict."""
    numbers: dict[str, Any] = calibration.summary(ranks)
    bias = calibration.vsbc(ranks)["p"].to_numpy()[ranks.invariant]
    numbers["truth above"] = float(calibration.inside(ranks)["truth above"].to_dict()["log likelihood"])
    numbers["biased"] = int((bias * len(bias) < 0.05).sum())
    numbers["k-hat"] = float(np.median(ranks.k_hat)) if ranks.k_hat is not None else None
    numbers["k-hat > 0.7"] = float((ranks.k_hat > 0.7).mean()) if ranks.k_hat is not None else None
    if ranks.point_estimate:
        # Of one draw there is no interval.
        numbers["coverage"] = None
        numbers["verdict"] = "point estimate: no posterior"
    else:
        numbers["verdict"] = "calibrated" if numbers["inside"] == numbers["quantities"] else "not calibrated"
    return numbers | {"truncation": case.truncation}


def conclusions(rows: list[dict[str, Any]]) -> list[str]:
    """What the numbers say, a sentence or two each."""
    sentences = []
    for r in rows:
        where = f"{r['method']} on {r['model']}"
        if r["verdict"] == "calibrated":
            sentences.append(
                f"{where}: all {r['quantities']} quantities lie within the bands over {r['simulations']} simulations;"
                f" the worst is {r['worst quantity']} (p = {r['p']:.2g})."
            )
        elif r["verdict"] == "not calibrated":
            sentences.append(
                f"{where}: {r['quantities'] - r['inside']} of {r['quantities']} quantities leave the bands,"
                f" {r['worst quantity']} most (p = {r['p']:.2g}); central 90 % intervals hold the truth"
                f" {r['coverage']:.0%} of the time at worst, and {r['biased']} quantities are biased to one side."
                + ("" if r["k-hat"] is None else f" k-hat exceeds 0.7 in {r['k-hat > 0.7']:.0%} of the fits.")
            )
        else:
            sentences.append(
                f"{where}: a point estimate, no posterior. The truth's log likelihood lies above the mode's in"
                f" {r['truth above']:.0%} of the simulations; a draw of the posterior would give one half."
            )
    return sentences


def _section(case: Case, ranks: calibration.Ranks, numbers: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of one case: table of quantities, worst first, with VSBC's p-values, and the picture."""
    table = calibration.inside(ranks)
    table["bias, p"] = calibration.vsbc(ranks)["p"]
    table = table.reset_index()
    return {
        "title": f"{case.method}, {case.model}",
        "verdict": numbers["verdict"],
        "table": [{str(k): _or_none(v) for k, v in line.items()} for line in table.to_dict("records")],
        "picture": None if ranks.point_estimate else inline.picture(calibration_plots.picture(ranks), 100),
    }


def _or_none(value: Any) -> Any:
    """JSON and pages know no NaN: there is no interval of one draw."""
    return None if value != value else value


def _leave(out: Path, rows: list, sections: list, record: list) -> None:
    """Write numbers, ranks and page of what is finished."""
    shown = [{name: value for name, value in r.items() if name != "truncation"} for r in rows]
    page = {"rows": shown, "sections": sections, "conclusions": conclusions(rows), "points": POINTS}
    study.leave_page(out, "calibration", "calibration.html.j2", record, **page)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "method", "model", "inside", "worst quantity", "p", "coverage", "k-hat", "verdict", title="Calibration"
    )
    number = lambda v: "" if v is None else f"{v:.3g}"
    for r in rows:
        inside = f"{r['inside']} / {r['quantities']}"
        numbers = (number(r[name]) for name in ("p", "coverage", "k-hat"))
        table.add_row(r["method"], r["model"], inside, r["worst quantity"], *numbers, r["verdict"])
    return table
