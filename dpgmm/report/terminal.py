"""What the command line prints: the answer, tables, and one method after the other."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
import xarray as xr
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from ..diagnostics import Diagnosis, sorted_components
from ..diagnostics.answer import Answer
from ..draws import affinity
from ..labels import summary
from ..methods.fitting import fit
from ..model.posterior import Posterior
from ..relabelling.labelled import Relabelling
from . import page, views

SETTLED, WINDOW = 10.0, 120.0
"""Seconds of work before a time left is shown, and seconds over which speed is measured: warm-up has its own."""
PIPE = 10_000
"""Columns where nothing has a width to fit: no table and no path is broken."""


class TimeLeft(TimeRemainingColumn):
    """Time left, once `SETTLED` seconds of work have been seen: those of compiling and the first chunks tell nothing.

    `at_most`: seconds after which the task ends in any case.
    """

    def __init__(self, at_most: float | None = None):
        super().__init__(compact=True)
        self.at_most = math.inf if at_most is None else at_most

    def render(self, task: Task) -> Text:
        """Such as ``12:34 left``; nothing while it is not known, and at the end."""
        elapsed = task.elapsed or 0.0
        worked = elapsed - task.fields.get("compiled", math.inf) >= SETTLED
        if not worked or task.finished or task.time_remaining is None:
            return Text("")
        seconds = min(task.time_remaining, max(0.0, self.at_most - elapsed))
        minutes, seconds = divmod(math.ceil(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
        return Text(f"{clock} left", style="progress.remaining")


def wide_console() -> Console:
    """A console as wide as its terminal; `PIPE` columns wide where the output goes to a pipe or a file."""
    found = Console()
    if not found.is_terminal:
        found.width = PIPE
    return found


console = wide_console()


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Within this nothing is printed, and what is printed returns what it would have said."""
    console.quiet = True
    try:
        yield
    finally:
        console.quiet = False


def print_answer(answer: Answer, agreed: str) -> None:
    """Which answer to believe, before anything else."""
    console.print(f"[bold]{escape(answer.sentence)}[/]")
    if answer.of_components:
        console.print(escape(f"Components of {answer.method}, by weight: {answer.of_components}."))
    console.print(escape(f"{agreed[0].upper()}{agreed[1:]}."))
    for name, wrong in answer.others.items():
        console.print(f"[bold]{escape(name)}[/]: {escape(wrong)}.")


def show(tree: xr.DataTree, diagnosis: Diagnosis, relabelled: Relabelling | None = None) -> dict[str, Any]:
    """Verdict, explanation and components of one method; `relabelled`, where that is at hand. Returns the same by name."""
    console.print(
        f"[bold]{escape(str(tree.attrs.get('method', 'draws')))}[/]: [bold]{escape(diagnosis.verdict)}[/]."
        f" {escape(diagnosis.explanation)}"
    )
    found = summary.aligned(tree, relabelled)
    components = sorted_components(found.draws, keep_labels=True)
    table = page.cells(components, views.view([found.draws]))
    cells = "; mean (scale)" if len(table.columns) and tree["posterior"].sizes["dim"] > 1 else ""
    print_table(table.head(8), f"Components {found.how}{cells}")
    if note := affinity.by_variances(tree["posterior"].to_dataset()):
        console.print(note)
    told = {"verdict": diagnosis.verdict, "explanation": diagnosis.explanation}
    return told | {"components": components, "components_are": found.how}


def fitted(
    posterior: Posterior, name: str, seed: int, options: dict[str, Any], *, compression: bool = True
) -> xr.DataTree:
    """`fit` with a progress bar, on standard error."""
    screen = Console(stderr=True)
    length, left = (BarColumn(20), [TimeLeft(options.get("time_budget"))]) if screen.is_terminal else (BarColumn(), [])
    columns = [TextColumn(f"[bold]{name:>5}"), length, TimeElapsedColumn(), *left, TextColumn("{task.fields[note]}")]
    with Progress(*columns, console=screen, speed_estimate_period=WINDOW) as bar:
        task = bar.add_task(name, total=None, note="compiling", compiled=math.inf)

        def progress(done: int, total: int, note: str) -> None:
            state = bar.tasks[0]
            compiled = state.elapsed if math.isinf(state.fields["compiled"]) else state.fields["compiled"]
            bar.update(task, completed=done, total=total, note=note, compiled=compiled)

        tree = fit(posterior, name, seed=seed, compression=compression, progress=progress, **options)
        if bar.tasks[0].total is None:  # A method that reports nothing.
            bar.update(task, completed=1, total=1, note="done")
        return tree


def print_clusters(frame: pd.DataFrame, title: str) -> pd.DataFrame:
    """One row a cluster: how many points it gets, and the means of what is said of them. Returns the table."""
    told = {name: (name, "mean") for name in frame.columns if name != "cluster"}
    table = frame.groupby("cluster").agg(points=("cluster", "size"), **told).reset_index()
    print_table(table, title)
    return table


def print_table(frame: pd.DataFrame, title: str) -> None:
    """A frame as a table, numbers to four digits; in a terminal too narrow for it, as its rows one below the other."""
    names = [escape(str(name)) for name in frame.columns]
    cells = [[escape(_number(v)) for v in row] for row in frame.itertuples(index=False)]
    table = Table(*(Column(name, overflow="fold") for name in names), title=escape(title), title_justify="left")
    for row in cells:
        table.add_row(*row)
    if Measurement.get(console, console.options.update_width(PIPE), table).minimum <= console.width:
        console.print(table)
        return
    console.print(f"[italic]{escape(title)}[/]")
    for row in cells:
        console.print("\n".join(f"[bold]{name}[/]: {cell}" for name, cell in zip(names, row, strict=True)), end="\n\n")


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "–" if value != value else f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
