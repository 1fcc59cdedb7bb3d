"""What a comparison leaves in its run folder, and says on the way."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from .. import diagnostics, draws
from ..diagnostics.agreement import agreement
from ..diagnostics.answer import Answer, believe
from ..labels import summary as labelling
from . import files, page, terminal


def leave(folder: Path, trees: dict, settings: dict[str, Any]) -> None:
    """The answer, tables, summary.csv, agreement.csv, run.json and report.html of the methods that finished."""
    found = {name: diagnostics.diagnose(tree) for name, tree in trees.items()}
    summary = pd.DataFrame([diagnostics.summary_row(tree, found[name]) for name, tree in trees.items()])
    files.write_table(folder / "summary.csv", summary)
    agreed = agreement(trees, found)
    files.write_table(folder / "agreement.csv", agreed.table)
    with terminal.console.status("labels and report"):
        labels = {name: labelling.study(tree) for name, tree in trees.items()}
        relabelled = {name: of.relabelling.draws for name, of in labels.items() if of.relabelling is not None}
        answer = believe(trees, found, agreed, relabelled)
        run = settings | _record(trees) | {"answer": _words(answer), "agreement": agreed.sentence}
        files.write_json(folder / "run.json", files.finite(run))
        path = page.write(folder / "report.html", trees, found, labels, run, answer, agreed)
    terminal.print_answer(answer, agreed.sentence)
    terminal.print_table(summary.set_index("method").T.reset_index(names=""), "One model, several methods")
    for name, tree in trees.items():
        terminal.show(tree, found[name])
    terminal.console.print(f"Report: {path}")


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
