"""Files are written whole or not at all, and JSON holds nothing that readers of JSON do not know."""

import json
import os

import pandas as pd
import pytest

from dpgmm.report import files, study


def test_a_text_is_there_whole_and_nothing_else(tmp_path):
    path = files.write(tmp_path / "new" / "page.html", "é")
    assert path.read_bytes() == "é".encode()
    assert os.listdir(path.parent) == ["page.html"]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = files.write(tmp_path / "page.html", "before")
    with pytest.raises(UnicodeEncodeError):
        files.write(path, "\ud800")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["page.html"]


def test_numbers_that_are_not_finite_are_refused_or_none(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not os.listdir(tmp_path)
    told = {"x": [1.5, float("inf"), "nan"], "y": (float("nan"), None, 2)}
    path = files.write_json(tmp_path / "a.json", files.finite(told))
    assert json.loads(path.read_text()) == {"x": [1.5, None, "nan"], "y": [None, None, 2]}


def test_a_table_has_no_index(tmp_path):
    path = files.write_table(tmp_path / "a.csv", pd.DataFrame({"a": [1], "b": ["x"]}))
    assert path.read_text().splitlines() == ["a,b", "1,x"]


def test_a_study_leaves_page_and_numbers_or_neither(tmp_path):
    content = {"title": "t", "question": "q", "conclusions": [], "sections": []}
    with pytest.raises(ValueError, match="not JSON compliant"):
        study.leave_page(tmp_path, "a", "study.html.j2", {"x": float("nan")}, **content)
    assert not os.listdir(tmp_path)
    study.leave_page(tmp_path, "a", "study.html.j2", {"x": 1}, **content)
    assert sorted(os.listdir(tmp_path)) == ["a.html", "a.json"]
