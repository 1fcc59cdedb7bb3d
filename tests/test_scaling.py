"""The study of growth: slopes and bounds of made-up seconds, and what its cases run."""

import json

import numpy as np
import pytest

from comparisons import scaling
from dpgmm.data import read

LIMITS = {"exponentials": 1e9, "product": 5e10, "bytes": 1e10}


def case(work="gradient", size=1000, dim=1, num_components=10):
    return {"work": work, "size": size, "dim": dim, "num_components": num_components, "cores": 0}


def test_a_slope_is_the_power_of_the_largest_sizes():
    sizes = [10, 100, 1_000, 10_000]
    assert scaling.slope(sizes, [1.0, 1.0, 7.0, 700.0]) == pytest.approx(2)
    assert scaling.slope([2, 4], [1.0, 8.0]) == pytest.approx(3)


def test_the_bound_is_exponentials_in_one_dimension_and_products_in_many():
    assert scaling.least_seconds(case(), LIMITS) == pytest.approx(1e4 / 1e9)
    # 153 features of 16 dimensions; two products of two operations each.
    assert scaling.least_seconds(case(dim=16), LIMITS) == pytest.approx(4 * 1e4 * 153 / 5e10)
    assert scaling.least_seconds(case(dim=2), LIMITS | {"product": 1e15}) == pytest.approx(1e4 / 1e9)
    assert scaling.least_seconds(case("compression"), LIMITS) is None


def test_a_row_varies_one_size():
    base = scaling.Case("pass", 100, 2, 5)
    [row] = scaling.rows_of(base, dim=(1, 3))
    assert row == scaling.Row("dim", (base._replace(dim=1), base._replace(dim=3)), "pass")


def test_as_many_points_on_more_cores_and_as_many_a_core():
    strong, weak, *others = scaling.on_cores(100, 6)
    assert [(c.size, c.cores) for c in strong.cases] == [(100, 1), (100, 2), (100, 4), (100, 6)]
    assert [(c.size, c.cores) for c in weak.cases] == [(100, 1), (200, 2), (400, 4), (600, 6)]
    assert [row.label for row in others] == [f"{scaling.DEVICES}, strong", f"{scaling.DEVICES}, weak"]
    assert scaling.on_cores(100, 0) == []


def test_the_speed_up_is_of_points_a_second():
    row = {"cases": [case(size=100) | {"seconds": 1.0}, case(size=400) | {"seconds": 2.0}]}
    assert scaling.speed_up(row) == pytest.approx(2)


def test_numbers_on_disk_are_those_of_four_gaussians_whatever_the_block(tmp_path, monkeypatch):
    scaling._write(tmp_path / "x.npy", 2_500)
    points = read(tmp_path / "x.npy").points[:, 0]
    assert points.mean() == pytest.approx(6, abs=4 * (1 + 20) ** 0.5 / 50)
    monkeypatch.setattr(scaling, "BLOCK", 1_000)
    scaling._write(tmp_path / "y.npy", 2_500)
    again = read(tmp_path / "y.npy").points[:, 0]
    assert np.isfinite(again).all()
    assert len(np.unique(again)) == 2_500


def test_the_study_says_what_it_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scaling, "SECONDS", 0.0)
    monkeypatch.setattr(scaling, "machine_limits", lambda: LIMITS)
    monkeypatch.setattr(scaling, "_in_a_child", scaling.child)
    few = [
        *scaling.rows_of(scaling.Case("pass", 100, 1, 2), size=(50, 100)),
        *scaling.rows_of(scaling.Case("compression", 100, 1, 0), size=(100, 200)),
    ]
    monkeypatch.setattr(scaling, "QUICK", few)
    numbers = scaling.run(tmp_path, quick=True)
    assert json.loads((tmp_path / "scaling.json").read_text()) == json.loads(json.dumps(numbers))
    assert [row["varied"] for row in numbers["rows"]] == ["size", "size"]
    for row in numbers["rows"]:
        assert all(c["seconds"] > 0 and c["rounds"] == 3 and c["peak_bytes"] > 1e7 for c in row["cases"])
    assert "pass: seconds grow as the number of points to the power" in capsys.readouterr().out
