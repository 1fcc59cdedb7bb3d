"""What a comparison leaves in its run folder, and says on the way."""

import dataclasses
import json
import os
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pandas as pd
import xarray as xr

from .. import diagnostics, draws
from ..data import Dataset
from ..diagnostics import elpd
from ..diagnostics.agreement import Agreement, agreement
from ..diagnostics.answer import Answer, believe
from ..errors import InputError
from ..labels import summary
from ..labels.summary import Labelling
from . import files, markdown, page, terminal

PREDICTION = (
    f"elpd: expected log predictive density, nats, leaving out one point at a time; of more than {elpd.ROWS:,} rows a random"
    " sample. Where LOO k-hats are too large it is not to be relied on. --holdout 0.1 compares all methods on rows that none"
    " has seen. Means of an optimiser are those of its best restart."
)


class Left(NamedTuple):
    """What a run found, and where it is: draws, diagnoses and labels by method, the table, the answer, report.html."""

    trees: dict[str, xr.DataTree]
    found: dict[str, diagnostics.Diagnosis]
    labels: dict[str, Labelling]
    rows: pd.DataFrame
    answer: Answer
    agreed: Agreement
    report: Path


def made(out: Path | None, name: str) -> Path:
    """The run folder, by default one named by data and time. Raises `InputError` where a file has that name."""
    folder = out or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give --out a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def leave(folder: Path, trees: dict, settings: dict[str, Any], held: Dataset | None = None) -> Left:
    """Write summary.csv, summary.md, agreement.csv, run.json and report.html of the methods that finished.

    `held`: points held out of all of them, on which predictions are compared.
    """
    with terminal.console.status("diagnoses and predictions"):
        found = {
            name: dataclasses.replace(diagnostics.diagnose(tree), predictive=elpd.columns(tree, held))
            for name, tree in trees.items()
        }
    rows = pd.DataFrame([diagnostics.summary_row(tree, found[name]) for name, tree in trees.items()])
    files.write_table(folder / "summary.csv", rows)
    agreed = agreement(trees, found)
    files.write_table(folder / "agreement.csv", agreed.table)
    with terminal.console.status("labels and report"):
        labels = {name: summary.summarise(tree) for name, tree in trees.items()}
        relabelled = {name: of.relabelling.draws for name, of in labels.items() if of.relabelling is not None}
        answer = believe(trees, found, agreed, relabelled)
        run = settings | _record(trees) | {"answer": _words(answer), "agreement": agreed.sentence}
        files.write_json(folder / "run.json", files.finite(run))
        files.write(
            folder / "summary.md",
            markdown.summary(next(iter(trees.values())).attrs["data"], answer, agreed, rows, run.get("read", ())),
        )
        path = page.write(folder / "report.html", trees, found, labels, run, answer, agreed)
    return Left(trees, found, labels, rows, answer, agreed, path)


def tell(left: Left) -> dict[str, Any]:
    """Print the answer, the table, and one method after the other. Returns the same by name."""
    trees, found, labels, rows, answer, agreed, path = left
    terminal.print_answer(answer, agreed.sentence)
    terminal.print_table(rows.set_index("method").T.reset_index(names=""), "One model, several methods")
    terminal.console.print(PREDICTION)
    methods = {name: terminal.show(tree, found[name], labels[name].relabelling) for name, tree in trees.items()}
    terminal.console.print(f"Report: {path}")
    if answer.method is not None and draws.kind(trees[answer.method]) != "point":
        file = path.parent / f"{answer.method}.nc"
        terminal.console.print(
            f"Next: dpgmm assign {file} TABLE, clusters beside your own rows; dpgmm predict {file} NEW."
        )
    told = {"answer": _words(answer), "agreement": agreed.sentence, "summary": rows, "methods": methods}
    return told | {"folder": str(path.parent), "report": str(path)}


def _record(trees: dict) -> dict[str, Any]:
    """What run.json keeps of the machine and of how each method went."""
    return {
        "versions": draws.versions(),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "timings": {n: {k: float(t.attrs[k]) for k in ("compile_seconds", "run_seconds")} for n, t in trees.items()},
        "compression_records": {n: json.loads(t.attrs["compression"]) for n, t in trees.items()},
    }


def _words(answer: Answer) -> dict[str, Any]:
    """What run.json keeps of the answer."""
    clusters = dict(zip(map(str, answer.clusters["clusters"]), answer.clusters["probability"], strict=True))
    return {
        "sentence": answer.sentence,
        "method": answer.method,
        "earned": answer.earned,
        "number_of_clusters": clusters,
        "components": answer.of_components,
        "others": answer.others,
    }
