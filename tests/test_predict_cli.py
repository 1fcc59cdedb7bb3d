"""`dpgmm predict`, `assign`, `compare-models` and `compare --holdout`: the user's table comes back; bad input, one line."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from made_up import from_the_prior
from typer.testing import CliRunner

import dpgmm
from dpgmm import InputError, cli
from dpgmm.data.holdout import hold_out
from dpgmm.report import terminal

OWN = "name,age,dose,notes\n" + "\n".join(
    f"p{i},{20 + 3 * i % 17},0.{i:02},{'x;y' if i % 2 else ''}" for i in range(20)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's table of words and numbers, and draws of two of its columns."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.csv").write_text(OWN)
    data = dpgmm.data.read(folder / "own.csv", ["age", "dose"])
    posterior = dpgmm.load_model("stick_breaking")(data, truncation=3)
    for method in ("nuts", "gibbs", "map"):
        tree = from_the_prior(posterior, method, keep_allocations=method == "gibbs", draws_per_chain=20)
        tree.attrs["columns"] = json.dumps(data.columns)
        dpgmm.draws.save(tree, folder / f"{method}.nc")
    return folder


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.mark.quick("cli")
def test_predict_adds_columns_to_the_users_own_table(folder):
    rows = OWN.splitlines()
    (folder / "new.csv").write_text("\n".join([rows[0], rows[3], rows[1]]))
    result = run("predict", folder / "nuts.nc", folder / "new.csv")
    assert result.exit_code == 0, result.output
    found = pd.read_csv(folder / "new-predicted.csv")
    ours = ["cluster", "probability", "probability_mcse", "new_cluster_probability", "log_density", "mcse"]
    assert found.columns.tolist() == ["name", "age", "dose", "notes", *ours]
    assert found["name"].tolist() == ["p2", "p0"]
    tree = dpgmm.draws.load(folder / "nuts.nc")
    direct = dpgmm.predict(tree, found[["age", "dose"]].to_numpy()).table()
    np.testing.assert_allclose(found[ours], direct, rtol=1e-9)


def test_assign_adds_cluster_and_uncertainty_to_the_table_that_was_fitted(folder):
    result = run("assign", folder / "gibbs.nc", folder / "own.csv", "--out", folder / "labels.csv")
    assert result.exit_code == 0, result.output
    found = pd.read_csv(folder / "labels.csv", keep_default_na=False)
    assert found.columns.tolist() == ["name", "age", "dose", "notes", "cluster", "uncertainty", "mcse"]
    own = pd.read_csv(folder / "own.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(found[own.columns.tolist()], own)
    estimate = dpgmm.partition(dpgmm.draws.load(folder / "gibbs.nc"))
    np.testing.assert_array_equal(found["cluster"], estimate.partition)
    np.testing.assert_allclose(found["uncertainty"], estimate.uncertainty, atol=1e-9)
    assert run("assign", folder / "gibbs.nc").exit_code == 0
    assert pd.read_csv(folder / "gibbs-assigned.csv").columns.tolist()[:3] == ["age", "dose", "cluster"]


def test_a_column_that_is_there_keeps_its_name(folder):
    (folder / "again.csv").write_text("age,dose,cluster\n20,0.1,a\n30,0.2,b")
    assert run("predict", folder / "nuts.nc", folder / "again.csv").exit_code == 0
    found = pd.read_csv(folder / "again-predicted.csv")
    assert found["cluster"].tolist() == ["a", "b"]
    assert "dpgmm_cluster" in found


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("predict", "age\n20\n30", "no column 'dose'"),
        ("assign", "age,dose\n20,0.1", "1 rows, and the draws are of 20; give the table that was fitted"),
        ("assign", OWN.replace("p4,32", "p4,33"), r"row 5: \[33.0, 0.04\] where the draws are of \[32.0, 0.04\]"),
    ],
)
def test_a_wrong_table_is_one_line(folder, command, text, message):
    (folder / "wrong.csv").write_text(text)
    result = run(command, folder / "nuts.nc", folder / "wrong.csv", "--out", folder / "never.csv")
    assert isinstance(result.exception, InputError)
    assert re.search(message, str(result.exception))
    assert "\n" not in str(result.exception)
    assert not (folder / "never.csv").exists()


@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_models_are_compared_by_leave_one_out(folder):
    result = run("compare-models", folder / "nuts.nc", folder / "gibbs.nc", "--out", folder / "models.csv")
    assert result.exit_code == 0, result.output
    assert "All 20 rows" in result.output
    assert {"model", "elpd", "elpd_diff", "dse", "weight", "worst_k"} <= set(pd.read_csv(folder / "models.csv"))
    refused = run("compare-models", folder / "nuts.nc", folder / "map.nc")
    assert "map is a point estimate" in str(refused.exception)


@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_held_out_rows_are_the_same_for_every_method(tmp_path, monkeypatch):
    seen = []

    def made_up(posterior, name, seed, options, *, compression):
        seen.append(posterior.data.points)
        tree = from_the_prior(posterior, name, draws_per_chain=20)
        tree.attrs |= {"compression": "{}", "seed": seed}
        return tree.drop_nodes("optimisation", errors="ignore")

    monkeypatch.setattr(terminal, "fitted", made_up)
    arguments = ["--methods", "map,nuts", "--truncation", "3", "--holdout", "0.25", "--out", tmp_path / "out"]
    result = run("compare", "galaxies", *arguments)
    assert result.exit_code == 0, result.output
    assert len(seen[0]) == 82 - 20
    np.testing.assert_array_equal(*seen)
    rows = pd.read_csv(tmp_path / "out" / "summary.csv", index_col="method")
    assert rows["held-out elpd"].notna().all()
    assert rows["elpd (LOO)"].isna().tolist() == [True, False]
    kept, held = hold_out(dpgmm.datasets.galaxies(), 0.25, 0)
    np.testing.assert_array_equal(kept.points, seen[0])
    wanted = dpgmm.diagnostics.elpd.held_out(dpgmm.draws.load(tmp_path / "out" / "nuts.nc"), held)
    assert rows.loc["nuts", "held-out elpd"] == pytest.approx(wanted[0], rel=1e-9)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["holdout"] == {"share": 0.25, "rows": 20}
    assert "held-out elpd" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.quick("data")
@pytest.mark.parametrize("share", [0.0, 1.0, 1e-9, float("nan"), -1.0])
def test_a_share_that_leaves_nothing_is_one_line(share):
    with pytest.raises(InputError, match=r"holdout = .* give a share such as 0.1"):
        hold_out(dpgmm.datasets.galaxies(), share)


def test_rows_held_out_keep_their_weights_and_names():
    data = dpgmm.Dataset(np.arange(10.0), np.arange(10.0), "numbers", ("x",))
    kept, held = hold_out(data, 0.3, seed=1)
    assert (kept.size, held.size, held.columns, kept.name) == (7, 3, ("x",), "numbers")
    for part in (kept, held):
        np.testing.assert_array_equal(part.points[:, 0], part.weights)
    assert 0 not in held.weights  # It carries nothing, and there is nothing to predict.


COMMAS = "name;age;dose\n" + "\n".join(
    f"p{i};{20 + 3 * i % 17};" + ("" if i == 4 else "-9" if i == 7 else f"0,{i:02}") for i in range(20)
)


@pytest.fixture(scope="module")
def commas(tmp_path_factory):
    """A table with decimal commas, of which one row lacks a value and one has -9 for it, and draws of the others."""
    folder = tmp_path_factory.mktemp("commas")
    (folder / "own.csv").write_text(COMMAS)
    data = dpgmm.data.read(folder / "own.csv", ["age", "dose"], drop_missing=True, missing=[-9])
    assert data.size == 18
    tree = from_the_prior(dpgmm.load_model("stick_breaking")(data, truncation=3), "nuts", draws_per_chain=20)
    tree.attrs["columns"] = json.dumps(data.columns)
    dpgmm.draws.save(tree, folder / "nuts.nc")
    return folder


@pytest.mark.parametrize("command", ["assign", "predict"])
def test_rows_that_lack_a_value_get_empty_cells_and_commas_stay(commas, command):
    out = commas / f"{command}.csv"
    result = run(command, commas / "nuts.nc", commas / "own.csv", "--missing", "-9", "--out", out)
    assert result.exit_code == 0, result.output
    assert "2 of 20 rows lack a value and get empty cells: row 5, 8 below the header." in result.output
    lines = out.read_text().splitlines()
    assert [";".join(line.split(";")[:3]) for line in lines] == COMMAS.splitlines()
    found = pd.read_csv(out, sep=";", decimal=",")
    ours = found.iloc[:, 3:]
    assert ours.isna().all(axis=1).to_numpy().nonzero()[0].tolist() == [4, 7]
    tree = dpgmm.draws.load(commas / "nuts.nc")
    points = tree["observed_data"].to_dataset()["points"].values
    direct = dpgmm.assign(tree).table() if command == "assign" else dpgmm.predict(tree, points).table()
    np.testing.assert_allclose(ours.dropna(how="all").astype(float), direct, rtol=1e-9)
    assert "." not in lines[5].split(";")[3]  # Labels are whole numbers beside empty cells.
    if command == "assign":
        assert "dose" in result.output  # The table of clusters knows them by the user's columns.


def test_a_table_with_another_value_for_missing_is_not_the_one_that_was_fitted(commas):
    result = run("assign", commas / "nuts.nc", commas / "own.csv")
    assert isinstance(result.exception, InputError)
    assert "19 rows, and the draws are of 18" in str(result.exception)
