"""What the command line prints: the answer, tables, and one method after the other."""

from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import draws
from ..diagnostics import Diagnosis
from ..diagnostics.answer import Answer
from . import page, views

console = Console()


def print_answer(answer: Answer, agreed: str) -> None:
    """Which answer to believe, before anything else."""
    console.print(f"[bold]{escape(answer.sentence)}[/]")
    if answer.of_components:
        console.print(escape(f"Components of {answer.method}, by weight: {answer.of_components}."))
    console.print(escape(f"{agreed[0].upper()}{agreed[1:]}."))
    for name, wrong in answer.others.items():
        console.print(f"[bold]{escape(name)}[/]: {escape(wrong)}.")


def show(tree, diagnosis: Diagnosis) -> None:
    """Verdict, explanation and components of one method."""
    console.print(
        f"[bold]{tree.attrs.get('method', 'draws')}[/]: [bold]{diagnosis.verdict}[/]. {diagnosis.explanation}"
    )
    shown = draws.answer(tree)
    of = "best restart" if shown is not tree else "all chains"
    table = page.components(shown, views.view([shown]))
    cells = ", mean (scale)" if len(table.columns) and shown["posterior"].sizes["dim"] > 1 else ""
    print_table(table.head(8), f"Components of {of}, relabelled: sorted by weight{cells}")


def print_table(frame: pd.DataFrame, title: str) -> None:
    """A frame as a table, numbers to four digits."""
    table = Table(*map(str, frame.columns), title=title, title_justify="left")
    for row in frame.itertuples(index=False):
        table.add_row(*(_number(v) for v in row))
    console.print(table)


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "–" if value != value else f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
