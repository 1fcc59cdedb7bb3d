"""One self-contained HTML file: what the methods found, whether to believe it, and what it cost."""

import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import xarray as xr

from .. import diagnostics
from ..diagnostics.agreement import ERRORS, Agreement, agreement, with_error
from ..diagnostics.answer import Answer, believe
from ..draws import answer, kind
from ..labels import summary
from ..labels.summary import Labelling
from ..partitions import Partition, num_clusters
from . import files, inline, label_plots, pair_plots, partition_plots, plots, predictive_plots, views
from .inline import picture
from .views import View

LARGEST = 12
"""Differences between methods that the page shows."""


def write(
    path: Path,
    trees: dict[str, xr.DataTree],
    found: dict[str, diagnostics.Diagnosis],
    labels: dict[str, Labelling],
    run: dict[str, Any],
    believed: Answer | None = None,
    agreed: Agreement | None = None,
) -> Path:
    """Write the report of the methods in `trees`: diagnoses, what became of labels, and the settings in `run`.

    `believed` and `agreed`, the answer to believe and the agreement between methods, are found where they are not given.
    """
    agreed = agreement(trees, found) if agreed is None else agreed
    believed = believe(trees, found, agreed) if believed is None else believed
    first = {"answer": _answer(believed), "agreement": _agreement(agreed)}
    return render("report.html.j2", path, **first, **_content(trees, found, labels, run))


def render(template: str, path: Path, **content: Any) -> Path:
    """Write a page of dpgmm/report/templates, whole or not at all. Returns the path."""
    return files.write(path, rendered(template, **content))


def rendered(template: str, **content: Any) -> str:
    """A page of dpgmm/report/templates."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dpgmm.report"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(**content)


def _answer(believed: Answer) -> dict[str, Any]:
    """What the page says first."""
    return {
        "sentence": believed.sentence,
        "method": believed.method,
        "earned": believed.earned,
        "clusters": _records(believed.clusters.head(8)),
        "components": believed.of_components,
        "others": believed.others,
    }


def _agreement(agreed: Agreement) -> dict[str, Any]:
    """The sentence, and rows of every two methods' largest differences."""
    usable = [c for c in agreed.comparisons if not c.short]
    largest = sorted(usable, key=lambda c: -c.standard_errors)[:LARGEST]
    rows = [
        {
            "methods": f"{c.first}, {c.second}",
            "quantity": c.quantity,
            "of": c.of,
            "first": with_error(c.value_first, c.mcse_first),
            "second": with_error(c.value_second, c.mcse_second),
            "standard errors": c.standard_errors,
        }
        for c in largest
    ]
    sentence = agreed.sentence[0].upper() + agreed.sentence[1:]
    return {
        "sentence": sentence,
        "rows": rows,
        "compared": len(usable),
        "all": len(agreed.comparisons),
        "limit": ERRORS,
    }


def label_section(tree: xr.DataTree, labels: Labelling, seen: View | None = None) -> dict[str, Any]:
    """What the macro `labels` of templates/macros.html.j2 shows of one method; `seen`: by default its own view."""
    seen = views.view([answer(tree)]) if seen is None else seen
    relabelled, found = labels.relabelling, labels.partition
    moved = "optimisation" in tree.children
    return {
        "switching": [s.row() for s in labels.switching],
        "atlas": _records(labels.atlas.table.head(8)),
        "num_modes": len(labels.atlas.table),
        "num_chains": len(labels.atlas.mode),
        "bump": picture(label_plots.ranks_along_path(tree)) if moved else None,
        "trades": summary.rank_changes(tree) if moved else None,
        "r_hat": _records(labels.r_hat) if labels.r_hat is not None else None,
        "permutations": picture(label_plots.permutations(relabelled)) if relabelled else None,
        "traces": picture(label_plots.traces(tree, relabelled)) if relabelled else None,
        "ranks": picture(label_plots.traces(tree, relabelled, ranks=True)) if relabelled else None,
        "relabelled_by": relabelled.method if relabelled else None,
        "ties": relabelled.ties if relabelled else None,
        "partition": _partition(tree, found, seen) if found else None,
    }


def _partition(tree: xr.DataTree, found: Partition, seen: View) -> dict[str, Any]:
    ball = found.credible_ball
    return {
        "clustered": picture(partition_plots.clusters(tree, found, seen)),
        "words": partition_plots.words(found),
        "unsure": partition_plots.UNSURE,
        "picture": picture(label_plots.similarity(found)),
        "sizes": sorted(np.bincount(found.partition.values).tolist(), reverse=True),
        "clusters": found.num_clusters,
        "loss": found.expected_loss,
        "units": found.units,
        "radius": ball.radius,
        "extremes": (num_clusters(ball.upper).min(), num_clusters(ball.lower).max()),
        "level": ball.level,
        "notes": found.notes,
    }


def _content(
    trees: dict[str, xr.DataTree],
    found: dict[str, diagnostics.Diagnosis],
    labels: dict[str, Labelling],
    run: dict[str, Any],
) -> dict[str, Any]:
    first = next(iter(trees.values()))
    paths = {name: tree for name, tree in trees.items() if "optimisation" in tree.children}
    answers = {name: answer(tree) for name, tree in trees.items()}
    rows = [diagnostics.summary_row(tree, found[name]) for name, tree in trees.items()]
    seen = views.view(list(answers.values()))
    return {
        "data": first.attrs["data"],
        "model": first.attrs["model"],
        "size": first["observed_data"].attrs.get("rows", first["observed_data"].sizes["obs"]),
        "shown": first["observed_data"].sizes["obs"],
        "read": run.get("read", ()),
        "view": _view(seen),
        "methods": list(trees),
        "summary": _records(pd.DataFrame(rows).set_index("method").T.reset_index(names="")),
        "verdicts": {name: (d.verdict, d.explanation) for name, d in found.items()},
        "colours": {name: plots.colour(name) for name in trees},
        "fits": picture(plots.fits(trees, seen)),
        "pairs": _pairs(answers, labels, seen) if seen.dim > 1 else {},
        "checks": _checks(trees, seen),
        "components": {name: _components(tree, labels.get(name), seen) for name, tree in trees.items()},
        "training": next((_training(tree, seen) for tree in paths.values() if kind(tree) == "point"), None),
        "paths": {name: picture(plots.paths(tree, seen)) for name, tree in paths.items()},
        "tables": {name: _both(d) for name, d in found.items() if bool(d.table["r_hat"].notna().to_numpy().any())},
        "traces": _traces(trees, found),
        "clusters": picture(counted) if (counted := plots.clusters(trees)) else None,
        "active": picture(plots.active(trees)),
        "chains": {name: d.chains for name, d in found.items() if d.chains},
        "labels": {name: label_section(tree, labels[name], seen) for name, tree in trees.items() if name in labels},
        "certificates": {name: json.loads(tree.attrs["compression"]) for name, tree in trees.items()},
        "run": json.dumps(run, indent=1),
    }


def _view(seen: View) -> dict[str, Any]:
    """What captions say of the coordinates and the plane that are looked at."""
    return {
        "dim": seen.dim,
        "names": [seen.names[d] for d in seen.shown],
        "separation": {seen.names[d]: float(seen.separation[d]) for d in seen.shown},
        "projected": seen.projected,
        "axes": seen.axes,
    }


def _pairs(answers: dict[str, xr.DataTree], labels: dict[str, Labelling], seen: View) -> dict[str, dict[str, Any]]:
    """The pair plot of every method's answer and what its colours mean."""
    of = {name: labels[name].partition if name in labels else None for name in answers}
    return {
        name: {
            "picture": picture(pair_plots.pairs(tree, seen, plots.colour(name), of[name])),
            "partition": of[name] is not None,
            "point": kind(tree) == "point",
        }
        for name, tree in answers.items()
    }


def _checks(trees: dict[str, xr.DataTree], seen: View) -> dict[str, dict[str, Any]]:
    """The posterior predictive check of every method that has a posterior or a guide."""
    found = {name: predictive_plots.check(tree, seen) for name, tree in trees.items()}
    return {
        name: {
            "picture": picture(predictive_plots.picture(margins, plots.colour(name))),
            "words": [of.words() for of in margins],
            "guide": kind(trees[name]) == "guide",
        }
        for name, margins in found.items()
        if margins
    }


def _components(tree: xr.DataTree, labels: Labelling | None, seen: View) -> dict[str, Any]:
    """Rows of the table of components of a method, and what they are of."""
    found = summary.aligned(tree, None if labels is None else labels.relabelling)
    return {"rows": _records(components(found.draws, seen)), "how": found.how}


def components(tree: xr.DataTree, seen: View) -> pd.DataFrame:
    """`diagnostics.sorted_components` of draws under one labelling; D > 1: mean and scale in one cell, of what is shown."""
    return cells(diagnostics.sorted_components(tree, keep_labels=True), seen)


def cells(table: pd.DataFrame, seen: View) -> pd.DataFrame:
    """A table of `diagnostics.sorted_components` as it is shown."""
    if seen.dim == 1:
        return table
    found = pd.DataFrame({name: table[name] for name in ("weight", "weight_sd")})
    for d in seen.shown:
        # A column of the data may be called weight as well, and names cut short may be alike.
        name = seen.names[d] if seen.names[d] not in found else f"{seen.names[d]} (x{d})"
        found[name] = [f"{m:.4g} ({s:.3g})" for m, s in zip(table[f"mean_{d}"], table[f"scale_{d}"], strict=True)]
    return found


def _training(tree: xr.DataTree, seen: View) -> dict[str, Any]:
    frames = [(step, inline.png(canvas, 80)) for step, canvas in plots.frames(tree, seen)]
    counts = tree["sample_stats"].to_dataset()["active_components"].values
    weights = tree["posterior"].to_dataset()["weights"].values[plots.best_chain(tree), -1]
    return {
        "frames": [picture for _, picture in frames],
        "steps": [step for step, _ in frames],
        "loss": picture(plots.loss(tree)),
        "weights": picture(plots.final_weights(tree)),
        "restarts": tree["posterior"].sizes["chain"],
        "active": (int(counts.min()), int(counts.max())),
        "components": len(weights),
        "dead": int((weights < diagnostics.VISIBLE).sum()),
    }


def _traces(trees: dict[str, xr.DataTree], found: dict[str, diagnostics.Diagnosis]) -> dict[str, Any] | None:
    """Traces of the first sampler in the run, with its verdict; None without one."""
    name = next((name for name, tree in trees.items() if kind(tree) == "sampler"), None)
    if name is None:
        return None
    diagnosis = found[name]
    return {
        "method": name,
        "picture": picture(plots.traces(trees[name])),
        "verdict": diagnosis.verdict,
        "raw": diagnosis.worst("raw"),
        "invariant": diagnosis.worst("invariant"),
        "chains": trees[name]["posterior"].sizes["chain"],
    }


def _both(diagnosis: diagnostics.Diagnosis) -> list[dict[str, Any]]:
    """Rows of the R-hat table: all invariants but the whole density grid, then the worst raw weights."""
    table = diagnosis.table.reset_index()
    dense = table["quantity"].str.startswith("predictive")
    worst = lambda rows, n: rows.sort_values("r_hat", ascending=False).head(n)
    invariant = table[(table["kind"] == "invariant") & ~dense]
    return _records(
        pd.DataFrame(pd.concat([invariant, worst(table[dense], 2), worst(table[table["kind"] == "raw"], 5)]))
    )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]
