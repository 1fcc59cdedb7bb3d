"""What other programs get: `--json`, pipes, narrow and plain terminals, closed and full outputs, exit codes."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from made_up import from_the_prior
from rich.console import Console
from typer.testing import CliRunner

import dpgmm
from dpgmm import InputError
from dpgmm.cli import app
from dpgmm.commands import document
from dpgmm.report import terminal

run = lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Draws of two columns by two samplers, one of which keeps allocations, and by a point estimate; and new points."""
    folder = tmp_path_factory.mktemp("drawn")
    points = np.random.default_rng(1).normal(size=(20, 2))
    posterior = dpgmm.load_model("stick_breaking")(points, truncation=3)
    for method in ("gibbs", "nuts", "map"):
        tree = from_the_prior(posterior, method, keep_allocations=method == "gibbs", draws_per_chain=20)
        dpgmm.draws.save(tree, folder / f"{method}.nc")
    np.savetxt(folder / "new.csv", points[:3], delimiter=",", header="x0,x1", comments="")
    return folder


def told(*arguments):
    """The document that a command prints: the only thing on standard output."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout, parse_constant=pytest.fail), result.stderr


@pytest.mark.quick("commands")
def test_a_document_has_no_numbers_that_json_lacks():
    frame = pd.DataFrame({"x": [math.nan, 1.0]}, index=pd.Index(["a", "b"], name="of"))
    found = {"y": np.float32("inf"), "n": np.int64(3), "t": frame, "a": np.array([[1.5, -math.inf]]), "z": True}
    assert json.loads(document.dumps(found)) == {
        "y": None,
        "n": 3,
        "t": [{"of": "a", "x": None}, {"of": "b", "x": 1.0}],
        "a": [[1.5, None]],
        "z": True,
    }


def test_diagnose_tells_machines_what_it_tells_people(folder):
    found, read = told("diagnose", folder / "gibbs.nc")
    diagnosis = dpgmm.diagnose(dpgmm.draws.load(folder / "gibbs.nc"))
    assert (found["verdict"], found["explanation"]) == (diagnosis.verdict, diagnosis.explanation)
    numbers = {name: None if math.isnan(x) else x for name, x in diagnosis.chains.items()}
    assert found["chains"] == numbers
    assert None in numbers.values()
    of = {row["quantity"]: row for row in found["diagnostics"]}
    for name, row in diagnosis.table.iterrows():
        assert of[name]["mean"] == row["mean"]
    assert "Diagnostics" in read
    point, _ = told("diagnose", folder / "map.nc")
    assert point["verdict"] == "point estimate"
    assert all(row["r_hat"] is None for row in point["diagnostics"])


@pytest.mark.parametrize("summary", ["point", "chips", "wasabi", "cbi"])
def test_partition_tells_the_table_and_every_observation(folder, tmp_path, summary):
    out = tmp_path / "out.csv"
    options = ("--summary", summary, "--level", "0.2", "--num", "2", "--out", out)
    found, _ = told("partition", folder / "gibbs.nc", *options)
    assert pd.DataFrame(found["observations"]).equals(pd.read_csv(out))
    assert found["saved"] == str(out)
    number = {"point": "expected_loss", "chips": "probability", "wasabi": "distance", "cbi": "p_value_of_all_apart"}
    assert isinstance(found[number[summary]], float)
    assert found["table"]


def test_predict_assign_and_relabel_tell_their_rows(folder, tmp_path):
    found, _ = told("predict", folder / "gibbs.nc", folder / "new.csv", "--out", tmp_path / "p.csv")
    assert found["log_density"] == pytest.approx(pd.read_csv(tmp_path / "p.csv")["log_density"].sum())
    assert len(found["rows"]) == sum(c["points"] for c in found["clusters"]) == 3
    found, _ = told("assign", folder / "gibbs.nc", "--out", tmp_path / "a.csv")
    assert len(found["rows"]) == 20
    found, _ = told("relabel", folder / "gibbs.nc", "--out", tmp_path / "r.nc")
    assert (found["method"], found["saved"]) == ("ecr_iterative_1", str(tmp_path / "r.nc"))
    assert found["r_hat"]


@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_models_and_lists_are_told(folder, tmp_path):
    found, _ = told("compare-models", folder / "gibbs.nc", folder / "nuts.nc", "--out", tmp_path / "m.csv")
    pd.testing.assert_frame_equal(pd.DataFrame(found["models"]), pd.read_csv(tmp_path / "m.csv"), check_dtype=False)
    assert found["rows"] == "all 20 rows"
    found, _ = told("list")
    assert "nuts" in found["methods"]
    found, _ = told("list", "map")
    assert "steps" in [row["option"] for row in found["options"]]


def test_a_comparison_is_told_in_one_document(tmp_path, monkeypatch):
    monkeypatch.setattr(terminal, "fitted", made_up)
    out = tmp_path / "out"
    found, read = told("compare", "galaxies", "--methods", "map,nuts", "--truncation", "3", "--out", out)
    recorded = json.loads((out / "run.json").read_text())
    assert found["answer"] == recorded["answer"]
    summary = pd.read_csv(out / "summary.csv")
    assert [row["best log joint"] for row in found["summary"]] == pytest.approx(summary["best log joint"].tolist())
    assert found["methods"]["map"]["verdict"] == "point estimate"
    assert found["report"] == str(out / "report.html")
    assert "Believe" in read or "belief" in read


def made_up(posterior, name, seed, options, *, compression):
    tree = from_the_prior(posterior, name, draws_per_chain=20)
    tree.attrs |= {"compression": "{}", "seed": seed}
    return tree.drop_nodes("optimisation", errors="ignore")


def test_wrong_input_leaves_standard_output_empty(tmp_path):
    result = run("diagnose", tmp_path / "none.nc", "--json")
    assert isinstance(result.exception, InputError)
    assert result.stdout == ""
    assert not terminal.console.stderr


WIDE = pd.DataFrame({f"quantity {k} of many": [f"cell-{k}-of-the-first-row", "x"] for k in range(12)})


@pytest.mark.quick("report")
@pytest.mark.parametrize("columns", [40, 80, None])
def test_nothing_of_a_table_is_cut(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", "80")
    console = terminal.wide_console() if columns is None else Console(width=columns)
    monkeypatch.setattr(terminal, "console", console)
    terminal.print_table(WIDE, "Quantities")
    output = capsys.readouterr().out
    assert "…" not in output
    for cell in [*WIDE.iloc[0], *WIDE.columns]:
        assert cell in output
    if columns is not None:
        assert max(map(len, output.splitlines())) <= columns


def test_colours_are_for_terminals_that_want_them(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(terminal, "console", Console(width=40))
    terminal.console.print("[yellow]Stopped.[/]")
    assert "\x1b[33m" not in capsys.readouterr().out


def process(*arguments, out=subprocess.PIPE, **environment):
    command = [sys.executable, "-m", "dpgmm", *arguments]
    return subprocess.run(
        command, stdout=out, stderr=subprocess.PIPE, env=os.environ | environment, text=True, check=False
    )


@pytest.mark.parametrize("arguments", [["--version"], ["compare", "--help"], ["list", "map"]])
def test_ascii_and_a_full_device(arguments):
    plain = process(*arguments, PYTHONIOENCODING="ascii")
    assert (plain.returncode, plain.stderr) == (0, "")
    assert plain.stdout.isascii()
    with open("/dev/full", "w") as full:
        ended = process(*arguments, out=full)
    assert (ended.returncode, ended.stderr) == (2, "error: No space left on device\n")


@pytest.mark.quick("cli")
@pytest.mark.parametrize("command", [c.name or c.callback.__name__ for c in app.registered_commands])
def test_every_command_has_an_example(command):
    said = next(c.callback.__doc__ for c in app.registered_commands if (c.name or c.callback.__name__) == command)
    assert f"`dpgmm {command}" in said
