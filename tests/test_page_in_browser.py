"""The report in Chromium: nothing is fetched, nothing overflows, every picture is there, and what can be used works."""

import os
import shutil
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from test_plots import tree

from dpgmm import Dataset, diagnostics, report
from dpgmm.diagnostics import choice
from dpgmm.labels import summary
from dpgmm.report import models_page

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    trees = {m: tree(2, m, chains=3, length=12, columns=(HOSTILE, "y")) for m in ("map", "gibbs", "nuts")}
    for name, one in trees.items():
        one.attrs |= {"data": HOSTILE, "method": name}
    found = {name: diagnostics.diagnose(one) for name, one in trees.items()}
    labels = {name: summary.summarise(one) for name, one in trees.items()}
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.write(path, trees, found, labels, {"note": "</script><script>alert(2)</script>"})
    assert path.stat().st_size < 3_000_000
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "no Chromium: install it (Debian: apt install chromium), or name it in the variable CHROMIUM"
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def opened(browser, address, width=1200, scheme="light"):
    """The page, and what it said or asked for while it loaded."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    told = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: told.append(dialog.message))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else told.append(request.url))
    page.goto(address)
    return page, told


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1600, "dark")])
def test_the_index_of_several_models_fits_fetches_nothing_and_escapes(browser, tmp_path, width, scheme):
    rows = pd.DataFrame({"method": ["nuts", "nuts", "map"], "model": [HOSTILE, "b$b$", "b$b$"], "verdict": HOSTILE})
    rows = rows.assign(elpd_diff=[0, -10.0, np.nan], dse=[0, 3.0, np.nan], bad_k=[0, 2, np.nan], held_out=-3.0)
    told_first = choice.Choice(HOSTILE, "b", "nuts", believed=True, told_apart=True, notes=(HOSTILE,))
    answers = {HOSTILE: HOSTILE, "b$b$": "Believe."}
    address = models_page.leave(tmp_path, Dataset([0.0, 1.0], name=HOSTILE), 3, told_first, rows, answers).as_uri()
    page, told = opened(browser, address, width, scheme)
    assert told == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".drawing svg").bounding_box()["width"] <= width
    assert page.locator("img[src=x]").count() == 0
    assert [link.inner_text() for link in page.locator("a").all()] == list(answers)
    page.close()


@pytest.mark.parametrize("width", [400, 800, 1600])
def test_nothing_is_fetched_said_or_wider_than_the_window(browser, address, width):
    page, told = opened(browser, address, width)
    assert told == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0 && image.alt)")
    drawn = page.locator(".drawing svg")
    assert drawn.count() >= 5
    assert all(0 < drawn.nth(i).bounding_box()["width"] <= width for i in range(drawn.count()))
    assert page.evaluate("[...document.querySelectorAll('.drawing')].every(d => d.getAttribute('aria-label'))")
    page.close()


def test_what_the_user_wrote_is_text(browser, address):
    page, told = opened(browser, address)
    assert told == []
    assert HOSTILE in page.locator("h1").inner_text()
    assert page.locator("img[src=x]").count() == 0
    page.close()


def test_the_answer_comes_first_and_links_lead_to_their_sections(browser, address):
    page, _ = opened(browser, address)
    answer, first = page.locator(".answer").bounding_box(), page.locator("h2").first.bounding_box()
    assert answer["y"] < first["y"]
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    page.close()


def test_the_ink_is_legible_in_the_dark(browser, address):
    """Text of drawings has the ink of the page: light on dark."""
    page, _ = opened(browser, address, scheme="dark")
    ink = page.locator(".drawing text").first.evaluate("element => getComputedStyle(element).fill")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    bright = lambda colour: sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) / 3
    assert bright(ink) - bright(ground) > 150
    page.close()


def test_the_training_plays_and_can_be_scrubbed_by_keyboard(browser, address):
    page, told = opened(browser, address)
    frame, slider = page.locator("#frame"), page.locator("#slider")
    last = frame.get_attribute("src")
    slider.focus()
    page.keyboard.press("Home")
    first = frame.get_attribute("src")
    assert first != last
    page.keyboard.press("ArrowRight")
    assert frame.get_attribute("src") != first
    assert slider.get_attribute("aria-valuetext").startswith("step ")
    page.locator("#play").press("Enter")
    page.wait_for_function("document.getElementById('play').textContent === 'Pause'")
    page.wait_for_function("document.getElementById('slider').value === document.getElementById('slider').max")
    assert told == []
    page.close()


def test_a_table_is_sorted_by_the_column_that_is_pressed(browser, address):
    page, _ = opened(browser, address)
    for details in page.locator("details").all():
        details.evaluate("element => element.open = true")
    table = page.locator("table.sortable").filter(has=page.locator("th", has_text="ess_bulk")).first
    heads = table.locator("th").all_inner_texts()
    column = next(i for i, head in enumerate(heads) if head.startswith("mean"))
    button = table.locator("th button").nth(column)
    button.press("Enter")
    cells = table.locator(f"tbody td:nth-child({column + 1})").all_inner_texts()
    known = [float(cell.replace(",", "")) for cell in cells if cell != "–"]
    assert len(known) > 5
    assert all(a >= b for a, b in pairwise(known))
    assert table.locator("th").nth(column).get_attribute("aria-sort") == "descending"
    button.press("Enter")
    cells = table.locator(f"tbody td:nth-child({column + 1})").all_inner_texts()
    assert [float(cell.replace(",", "")) for cell in cells if cell != "–"] == sorted(known)
    page.close()
