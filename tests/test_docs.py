"""The pages of docs/: every block of Python in them runs as it stands, and every page is in the table of contents."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"```python(?: (\S+))?\n(.*?)```", re.DOTALL)
MINUTES = {"tutorial.md"}
"""Pages whose code fits models for minutes."""
ELSEWHERE = {"own_method.md"}
"""Pages with a test file of their own."""
PAGES = sorted(path.name for path in DOCS.glob("*.md") if BLOCK.search(path.read_text()))


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.slow if p in MINUTES else ()) for p in PAGES if p not in ELSEWHERE],
)
def test_every_block_of_a_page_runs(page, tmp_path, monkeypatch):
    """Blocks marked ``file=NAME`` are written to that file, the others run one after another in one namespace."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page}
    for mark, code in BLOCK.findall((DOCS / page).read_text()):
        if mark.startswith("file="):
            Path(mark.removeprefix("file=")).write_text(code)
        else:
            exec(compile(code, page, "exec"), namespace)


@pytest.mark.quick("architecture")
def test_every_page_is_in_the_table_of_contents():
    contents = (DOCS.parent / "mkdocs.yml").read_text()
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert pages == set(re.findall(r"[\w/]+\.md", contents))
