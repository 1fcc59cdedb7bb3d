"""The answer and the table of methods as Markdown, to be pasted into an issue, a notebook or a letter."""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import pandas as pd

from ..diagnostics.agreement import Agreement
from ..diagnostics.answer import Answer
from ..diagnostics.choice import Choice


def summary(title: str, answer: Answer, agreed: Agreement, rows: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """The answer to believe, what each other method gets wrong, and the table: methods in columns, as on the page.

    `notes`: how the data were read.
    """
    parts = [f"# {_plain(title)}", f"**{_plain(answer.sentence)}**"]
    if answer.of_components:
        parts.append(_plain(f"Components of {answer.method}, by weight: {answer.of_components}."))
    parts.append(_plain(f"{agreed.sentence[0].upper()}{agreed.sentence[1:]}."))
    if answer.others:
        parts.append("\n".join(f"- **{_plain(name)}**: {_plain(wrong)}." for name, wrong in answer.others.items()))
    parts.append(table(rows.set_index("method").T.reset_index(names="")))
    return "\n\n".join([*parts, *([_plain(f"Data: {'; '.join(notes)}.")] if notes else [])]) + "\n"


def of_models(title: str, choice: Choice, rows: pd.DataFrame, answers: Mapping[str, str]) -> str:
    """Which model predicts best, if any, what each model's own run says, with a link, and the table."""
    parts = [f"# {_plain(title)}", f"**{_plain(choice.sentence)}**", *map(_plain, choice.notes)]
    link = lambda name: f"[{_plain(name)}]({quote(name)}/report.html)"
    parts.append("\n".join(f"- {link(name)}: {_plain(sentence)}" for name, sentence in answers.items()))
    return "\n\n".join([*parts, *([table(rows)] if len(rows) else [])]) + "\n"


def table(frame: pd.DataFrame) -> str:
    """A frame as a table in GitHub's Markdown, numbers to four digits."""
    line = lambda cells: f"| {' | '.join(cells)} |"
    head = [line(map(_plain, map(str, frame.columns))), line(["---"] + ["---:"] * (len(frame.columns) - 1))]
    return "\n".join(head + [line(map(_cell, row)) for row in frame.itertuples(index=False)])


def _cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else _plain(str(value))


def _plain(words: str) -> str:
    """Words that Markdown leaves as they are."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", words)
