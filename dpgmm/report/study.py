"""What the studies in comparisons/ share: a bar of progress, and the page of conclusions they leave."""

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
from matplotlib.figure import Figure
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import files, page
from .inline import picture
from .terminal import wide_console


class Picture(NamedTuple):
    """A figure, and the sentence that says how to read it."""

    canvas: Figure
    caption: str


class Section(NamedTuple):
    """A part of the page: rows of one table under a title, notes on how they were got, pictures."""

    title: str
    rows: Sequence[dict[str, Any]]
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()


@contextmanager
def bar(title: str, fits: int) -> Iterator[Any]:
    """A bar over all fits of a study: ``next_fit(note)`` gives the `progress` that `dpgmm.fit` takes."""
    columns = TextColumn(f"[bold]{title}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[note]}")
    with Progress(*columns, transient=True) as progress:
        task, begun = progress.add_task(title, total=fits, note=""), 0

        def next_fit(note: str):
            nonlocal begun
            done, begun = begun, begun + 1
            progress.update(task, completed=done, note=note)
            return lambda part, total, _: progress.update(task, completed=done + part / total)

        yield next_fit


def machine() -> dict[str, Any]:
    """What a study keeps of the machine that its times are of: asked at its end, when the load is that of its work."""
    found = {"system": platform.platform(), "cores": os.cpu_count(), "jax": jax.__version__}
    return found | {"load_at_end": os.getloadavg()[0]}


def peak_bytes() -> int:
    """Largest resident memory so far. Linux's ru_maxrss still holds the parent's at the time of the fork: not that."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource  # Not everywhere.

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def leave(
    out: Path,
    name: str,
    title: str,
    question: str,
    numbers: dict[str, Any],
    conclusions: Sequence[str],
    sections: Sequence[Section],
) -> Path:
    """Print the tables and conclusions; write ``NAME.json`` and the page ``NAME.html`` to `out`, each whole or not at all.

    Every number must be finite or None: JSON knows no others.
    """
    console = wide_console()
    parts = [s._replace(pictures=[(picture(p.canvas), p.caption) for p in s.pictures])._asdict() for s in sections]
    content = {"title": title, "question": question, "conclusions": conclusions, "sections": parts}
    path = leave_page(out, name, "study.html.j2", numbers, **content)
    for section in sections:
        console.print(_table(section))
    for sentence in conclusions:
        console.print(f"- {sentence}")
    console.print(f"Page: {path}")
    return path


def leave_page(out: Path, name: str, template: str, record: Any, **content: Any) -> Path:
    """Write ``NAME.json`` and the page ``NAME.html``: both or neither, and each whole. Returns the page's path.

    `record`: what the JSON file holds; every number must be finite or None. `content`: what the template asks for.
    """
    text = page.rendered(template, **content)
    files.write_json(out / f"{name}.json", record)
    return files.write(out / f"{name}.html", text)


def _table(section: Section) -> Table:
    table = Table(*section.rows[0], title=section.title, title_justify="left")
    for row in section.rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    return table
