"""What a comparison of models leaves above the models' own runs, and says: summary.csv, summary.md, report.html."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.markup import escape

from ..data import Dataset
from ..diagnostics.choice import Choice
from ..methods import colour
from . import files, markdown, page, plots, terminal
from .inline import picture

NOTE = (
    "elpd: expected log predictive density, nats, leaving out one point at a time (PSIS-LOO), se its standard error;"
    " elpd_diff, dse: the difference to the best model and its standard error; p: effective number of parameters;"
    " worst_k, bad_k: the largest Pareto k-hat, and how many are too large; weight: for stacking."
)
HELD_OUT = " held_out: log density of the rows held out, the same for all, with difference and standard errors."


def leave(
    folder: Path, data: Dataset, held: int, choice: Choice, rows: pd.DataFrame, answers: Mapping[str, str]
) -> Path:
    """Write the tables, and the page that links to every model's own report. Returns the page's path.

    `data`: the points that were fitted, and `held`: the number held out; `rows`: a row a method and model; `answers`:
    the first line of each model's own run.
    """
    files.write_table(folder / "summary.csv", rows)
    files.write(folder / "summary.md", markdown.of_models(data.name, choice, rows, answers))
    return page.render(
        "models.html.j2",
        folder / "report.html",
        data=data.name,
        size=data.size,
        held=held,
        picture=picture(differences(rows)) if "elpd_diff" in rows else None,
        choice=choice,
        answers=answers,
        tables={str(method): _table(part) for method, part in rows.groupby("method", sort=False)} if len(rows) else {},
        note=note(rows),
    )


def differences(rows: pd.DataFrame) -> Figure:
    """Every model's elpd less that of the best under the same method, two standard errors to either side."""
    rows = rows.dropna(subset=["elpd_diff"])
    models, by_method = list(dict.fromkeys(rows["model"])), list(rows.groupby("method", sort=False))
    canvas, [[axis]] = plots.figure(height=1.2 + 0.25 * len(rows), width=5.6)
    for i, (method, part) in enumerate(by_method):
        places = [models.index(model) + 0.6 * ((i + 0.5) / len(by_method) - 0.5) for model in part["model"]]
        dots = axis.errorbar(
            part["elpd_diff"], places, xerr=2 * part["dse"], fmt="o", color=colour(str(method)), label=str(method)
        )
        dots.lines[0].set_markerfacecolor("none")
        sound = (part["bad_k"] == 0).to_numpy()
        axis.plot(part["elpd_diff"][sound], np.array(places)[sound], "o", color=colour(str(method)))
    axis.axvline(0, color="#888888", lw=0.8, zorder=0)
    axis.set_yticks(range(len(models)), models, parse_math=False)  # A model may have a dollar in its name.
    axis.set(ylim=(len(models) - 0.5, -0.5), xlabel="elpd less that of the best model, nats")
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return canvas


def tell(choice: Choice, rows: pd.DataFrame, answers: Mapping[str, str], report: Path) -> None:
    """Print the comparison, its first line before all else, then each model's own answer."""
    terminal.console.print(f"[bold]{escape(choice.sentence)}[/]")
    for told in choice.notes:
        terminal.console.print(escape(told))
    if len(rows):
        terminal.print_table(rows, "Several models, by method, best first")
        terminal.console.print(note(rows))
    for name, sentence in answers.items():
        terminal.console.print(f"[bold]{escape(name)}[/]: {escape(sentence)} {escape(str(report.parent / name))}")
    terminal.console.print(f"Report: {report}")


def note(rows: pd.DataFrame) -> str:
    """What the columns of the table are."""
    return NOTE + (HELD_OUT if "held_out" in rows else "")


def _table(part: pd.DataFrame) -> list[dict[str, object]]:
    """Rows of one method, without the columns that say nothing of it."""
    shown = part.drop(columns="method").dropna(axis=1, how="all")
    return [{str(name): value for name, value in row.items()} for row in shown.to_dict("records")]
