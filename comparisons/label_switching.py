"""What does label switching do to MCMC, and what to optimisation? Three problems; NUTS alone, NUTS with moves, MAP.

    dpgmm study label_switching

Four Gaussians and the galaxies under the stick-breaking model, whose prior knows an order of labels, and the galaxies
under the symmetric Dirichlet model, whose labels are exactly exchangeable. NUTS alone cannot change labels. Where labels
are exchangeable this costs nothing: every labelling holds the same answer. Under sticks it does: labellings differ in
probability and in what they say, so that chains which stay in theirs agree on wrong numbers. NUTS with moves, the default,
shows by how much. Writes ``label_switching.html``, one page of conclusions with the numbers and pictures,
``label_switching.json``, and the draws of every problem and method.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from rich.table import Table

import dpgmm
from dpgmm import datasets, diagnostics, draws, fit, load_model, relabel, relabelling, report
from dpgmm.labels import summary
from dpgmm.report import files, inline, label_plots, plots, study
from dpgmm.report.terminal import wide_console


class Problem(NamedTuple):
    """One data set under one model."""

    title: str
    data: Callable
    model: str
    truncation: int


PROBLEMS = (
    Problem("four Gaussians, stick breaking", datasets.four_gaussians, "stick_breaking", 50),
    Problem("galaxies, stick breaking", datasets.galaxies, "stick_breaking", 20),
    Problem("galaxies, symmetric Dirichlet", datasets.galaxies, "symmetric_dirichlet", 6),
)
ALONE, MOVES, MAP = "NUTS alone", "NUTS with moves", "MAP"
METHOD = {ALONE: "nuts", MOVES: "nuts", MAP: "map"}
OPTIONS: dict[str, dict[str, Any]] = {
    ALONE: {"chains": 4, "warmup": 1_000, "draws_per_chain": 2_000, "moves": "none"},
    MOVES: {"chains": 4, "warmup": 500, "draws_per_chain": 1_500},
    MAP: {"restarts": 16, "steps": 3_000},
}
QUICK: dict[str, dict[str, Any]] = {
    ALONE: {"chains": 2, "warmup": 100, "draws_per_chain": 60, "max_tree_depth": 5, "moves": "none"},
    MOVES: {"chains": 2, "warmup": 60, "draws_per_chain": 60, "thin": 1},
    MAP: {"restarts": 4, "steps": 300},
}
FIFTH = "weight, 5. largest"
"""A quantity that knows no labels, and that chains which cannot change them still get wrong."""
METHODS = "ecr", "ecr_iterative_1", "ecr_iterative_2", "stephens", "transport", "aic"
"""Relabelling methods whose agreement is reported."""
THINNED = 100
"""Draws a chain on which the relabelling methods are compared."""


def run(out: Path, *, quick: bool = False) -> dict[str, Any]:
    """Fit, measure, draw; print a table of the numbers. `quick`: short runs and 5 components, to see that all works."""
    console, numbers, sections, agreements, lessons = wide_console(), {}, {}, {}, {}
    for problem in PROBLEMS:
        with console.status(problem.title):
            trees = _fitted(problem, quick=quick)
            for name, tree in trees.items():
                draws.save(
                    tree, out / f"{problem.title.replace(', ', '-').replace(' ', '_')}-{name.replace(' ', '_')}.nc"
                )
            found = {name: summary.summarise(tree) for name, tree in trees.items()}
            table = agreement(trees[ALONE])
            numbers[problem.title] = _numbers(trees, found, table)
            sections[problem.title] = {n: report.label_section(trees[n], found[n]) for n in trees}
            agreements[problem.title] = inline.picture(label_plots.agreement(table))
            lessons[problem.title] = inline.picture(lesson(trees))
    pictures = {"sections": sections, "agreements": agreements, "lessons": lessons}
    page = pictures | {"numbers": numbers, "conclusions": conclusions(numbers)}
    path = study.leave_page(out, "label_switching", "label_switching.html.j2", files.finite(numbers), **page)
    console.print(_table(numbers))
    for conclusion in conclusions(numbers):
        console.print(f"- {conclusion}")
    console.print(f"Page: {path}")
    return numbers


def _fitted(problem: Problem, *, quick: bool) -> dict[str, xr.DataTree]:
    posterior = load_model(problem.model)(problem.data(), truncation=5 if quick else problem.truncation)
    return {name: fit(posterior, METHOD[name], **options) for name, options in (QUICK if quick else OPTIONS).items()}


def _numbers(
    trees: dict[str, xr.DataTree], found: dict[str, summary.Labelling], agreements: xr.DataArray
) -> dict[str, Any]:
    """The numbers of one problem."""
    nuts, of_nuts, of_map = trees[ALONE], found[ALONE], found[MAP]
    assert of_nuts.r_hat is not None
    assert of_nuts.partition is not None
    diagnosis, moved = (diagnostics.diagnose(trees[name]) for name in (ALONE, MOVES))
    compared = dpgmm.agreement({ALONE: nuts, MOVES: trees[MOVES]}, {ALONE: diagnosis, MOVES: moved})
    path = of_map.switching[1]
    return {
        "verdict": diagnosis.verdict,
        "R-hat, raw": diagnosis.worst("raw")[1],
        "R-hat, relabelled": float(of_nuts.r_hat["weights, relabelled"].to_numpy().max()),
        "R-hat, invariant": diagnosis.worst("invariant")[1],
        "with moves: verdict": moved.verdict,
        "with moves: R-hat, invariant": moved.worst("invariant")[1],
        **_fifth(diagnosis, ALONE),
        **_fifth(moved, MOVES),
        "NUTS alone against NUTS with moves": compared.sentence,
        "NUTS: switches per 1,000 draws": of_nuts.switching[0].per_1000,
        "NUTS: chain pairs labelled differently": of_nuts.switching[0].different_pairs,
        "NUTS: labellings": of_nuts.switching[0].labellings,
        "NUTS: modes": len(of_nuts.atlas.table),
        "MAP: switches per 1,000 steps": path.per_1000,
        "MAP: trades of rank per 1,000 steps": summary.rank_changes(trees[MAP]),
        "MAP: restarts": len(of_map.atlas.mode),
        "MAP: modes": len(of_map.atlas.table),
        "MAP: basin of the best mode": float(of_map.atlas.table["basin"].iloc[0]),
        "MAP: restart pairs labelled differently": of_map.switching[0].different_pairs,
        "relabelling methods, least agreement": float(agreements.min()),
        "clusters in the partition": of_nuts.partition.num_clusters,
        "expected VI (bits)": of_nuts.partition.expected_loss,
        "radius of the 95 % ball (bits)": of_nuts.partition.credible_ball.radius,
    }


def _fifth(diagnosis: diagnostics.Diagnosis, name: str) -> dict[str, float]:
    """Mean and standard error of the fifth largest weight, NaN where nothing is seen of it."""
    row = diagnosis.table.loc[FIFTH] if FIFTH in diagnosis.table.index else {"mean": np.nan, "mcse_mean": np.nan}
    return {f"{name}: {FIFTH}": float(row["mean"]), f"{name}: standard error": float(row["mcse_mean"])}


def lesson(trees: dict[str, xr.DataTree]) -> Figure:
    """Weight of the first label and the fifth largest weight, chain by chain, by NUTS alone and with moves."""
    canvas, axes = plots.figure(2, 2, height=5.0, sharex="col", sharey="row")
    for column, name in zip(axes.T, (ALONE, MOVES), strict=True):
        weights = trees[name]["posterior"].to_dataset()["weights"].values
        fifth = -np.sort(-weights, axis=-1)[..., 4]
        for chain, (one, other) in enumerate(zip(weights[..., 0], fifth, strict=True)):
            column[0].plot(one, lw=0.6, color=f"C{chain}")
            column[1].plot(other, lw=0.6, color=f"C{chain}")
        column[0].set_title(name)
        column[1].axhline(fifth.mean(), color="black", lw=1, ls="--")
        column[1].set_title(f"mean {fifth.mean():.4f}", fontsize=10)
        column[1].set_xlabel("draw")
    axes[0, 0].set_ylabel("weight of label 1")
    axes[1, 0].set_ylabel("5th largest weight\n(knows no labels)")
    return canvas


def agreement(tree: xr.DataTree) -> xr.DataArray:
    """Share of draws that two relabelling methods label alike, of `METHODS`, on `THINNED` draws a chain."""
    thin = tree.isel(draw=slice(None, None, max(1, tree["posterior"].sizes["draw"] // THINNED)))
    few = summary.few_points(tree)
    align = lambda method: relabel(thin, method, points=few.points, point_weights=few.weights)
    return relabelling.agreement({method: align(method) for method in METHODS})


def conclusions(numbers: dict[str, dict[str, Any]]) -> list[str]:
    """What the numbers say, a sentence or two each."""
    sentences = []
    for title, n in numbers.items():
        resolved = n["R-hat, relabelled"] < diagnostics.THRESHOLD
        fifth = [f"{n[f'{name}: {FIFTH}']:.4f} +- {n[f'{name}: standard error']:.4f}" for name in (ALONE, MOVES)]
        sentences += [
            f"{title}: NUTS alone is {n['verdict']}. Read by label, weights have R-hat up to {n['R-hat, raw']:.2f}; "
            f"relabelled, {n['R-hat, relabelled']:.3f}: relabelling "
            f"{'resolves it' if resolved else 'does not resolve all of it'}. "
            f"The worst quantity that knows no labels has {n['R-hat, invariant']:.3f}.",
            f"{title}: {n['NUTS alone against NUTS with moves']}. The fifth largest weight is {fifth[0]} by NUTS alone and "
            f"{fifth[1]} with moves ({n['with moves: verdict']}, R-hat {n['with moves: R-hat, invariant']:.3f}).",
            f"{title}: a NUTS chain switches labels {n['NUTS: switches per 1,000 draws']:.0f} times in 1,000 draws, and in "
            f"{n['NUTS: chain pairs labelled differently']:.0%} of the comparisons two chains call the same components "
            f"by other names; the number of modes behind them is {n['NUTS: modes']}.",
            f"{title}: {n['MAP: restarts']} restarts of MAP end in {n['MAP: modes']} different modes, permutations "
            f"set aside; the best attracts {n['MAP: basin of the best mode']:.0%}. "
            + ("That is more than other names: no relabelling resolves it. " if n["MAP: modes"] > 1 else "")
            + f"The four heaviest components of the best restart trade ranks "
            f"{n['MAP: trades of rank per 1,000 steps']:.1f} times in 1,000 steps.",
            f"{title}: relabelling methods agree on at least {n['relabelling methods, least agreement']:.0%} of the draws, "
            f"pair by pair. The partition of least expected loss, which needs none of them, has "
            f"{n['clusters in the partition']} clusters (95 % ball: {n['radius of the 95 % ball (bits)']:.2f} bits).",
        ]
    return sentences


def _table(numbers: dict[str, dict[str, Any]]) -> Table:
    table = Table("", *numbers, title="Label switching", title_justify="left")
    for name in next(iter(numbers.values())):
        values = [n[name] for n in numbers.values()]
        table.add_row(name, *(f"{v:.4g}" if isinstance(v, float | np.floating) else str(v) for v in values))
    return table
