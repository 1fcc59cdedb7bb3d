"""The command line: a whole comparison on a small file, and one clear line for what is wrong."""

import json

import pytest
from typer.testing import CliRunner

import dpgmm
from dpgmm import InputError
from dpgmm.cli import app

SHORT = ["--truncation", "4", "--quick"]
DEFAULT = "map", "cavi", "svi", "nuts", "gibbs"
FEW = "map", "nuts"
"""Of a point and of a sampler, which is told to leave labels alone: it compiles in a third of the time."""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return compared(tmp_path_factory.mktemp("run"), "--methods", ",".join(FEW), "--option", "nuts.moves=none")


def compared(folder, *options):
    data = folder / "my <b>data.csv"
    data.write_text("y\n" + "\n".join(str(0.1 * i + 10 * (i % 2)) for i in range(60)))
    result = CliRunner().invoke(app, ["compare", str(data), *SHORT, *options, "--out", str(folder / "out")])
    assert result.exit_code == 0, result.output
    return folder / "out", result.output


def test_compare_leaves_everything(run_folder):
    left(*run_folder, methods=FEW)


@pytest.mark.slow
def test_compare_runs_every_default_method(tmp_path):
    left(*compared(tmp_path), DEFAULT)


def test_by_default_there_are_the_methods_that_suit_the_model():
    posterior = dpgmm.load_model("stick_breaking")(dpgmm.datasets.galaxies(), truncation=3)
    assert set(dpgmm.methods.suited(posterior)) == set(DEFAULT)


def left(folder, output, methods):
    """All files are there, of these methods."""
    of_methods = {f"{name}.nc" for name in methods}
    assert {p.name for p in folder.iterdir()} == of_methods | {
        "report.html",
        "run.json",
        "summary.csv",
        "summary.md",
        "request.json",
        "agreement.csv",
    }
    assert "One model, several methods" in output
    run = json.loads((folder / "run.json").read_text())
    assert set(run["timings"]) == set(methods)
    assert dpgmm.draws.load(folder / "map.nc").attrs["columns"] == '["y"]'


def test_report_is_one_file_and_escapes_names(run_folder):
    page = (run_folder[0] / "report.html").read_text()
    assert "<b>data" not in page
    assert "my &lt;b&gt;data" in page
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("<figure>") >= 7
    assert page.count("<figcaption>") == page.count("<figure>")


def test_diagnose_reads_what_compare_wrote(run_folder):
    result = CliRunner().invoke(app, ["diagnose", str(run_folder[0] / "nuts.nc")])
    assert result.exit_code == 0
    assert "nuts:" in result.output


def test_relabel_and_partition_read_what_compare_wrote(run_folder, tmp_path):
    draws = str(run_folder[0] / "nuts.nc")
    result = CliRunner().invoke(app, ["relabel", draws, "--out", str(tmp_path / "aligned.nc")])
    assert result.exit_code == 0, result.output
    assert "relabelled by ecr_iterative_1" in result.output
    aligned = dpgmm.draws.load(tmp_path / "aligned.nc")
    assert aligned.attrs["relabelled"] == "ecr_iterative_1"
    result = CliRunner().invoke(app, ["partition", draws, "--loss", "binder", "--out", str(tmp_path / "labels.csv")])
    assert result.exit_code == 0, result.output
    assert "expected loss" in result.output
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 61


@pytest.mark.parametrize(
    ("options", "said", "columns"),
    [
        (["chips", "--level", "0.3"], "of 60 observations", ["observation", "cluster"]),
        (["wasabi", "--num", "2"], "Wasserstein distance", ["observation", "particle_0", "particle_1"]),
        (["cbi", "--num", "2"], "p-values", ["observation", "mode_0", "mode_1"]),
    ],
)
def test_other_summaries_of_partitions(run_folder, tmp_path, options, said, columns):
    out = tmp_path / "labels.csv"
    arguments = ["partition", str(run_folder[0] / "nuts.nc"), "--out", str(out), "--summary", *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert said in result.output
    rows = out.read_text().splitlines()
    assert (rows[0].split(","), len(rows)) == (columns, 61)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["relabel", "--method", "sorting"], "sorting"),
        (["partition", "--loss", "vl"], "vl"),
        (["partition", "--summary", "chip"], "point, chips, wasabi, cbi"),
        (["partition", "--summary", "chips", "--level", "2"], "gamma is 2"),
    ],
)
def test_unknown_relabelling_and_loss_are_named(run_folder, arguments, message):
    result = CliRunner().invoke(app, [arguments[0], str(run_folder[0] / "nuts.nc"), *arguments[1:]])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


@pytest.mark.quick("cli")
@pytest.mark.parametrize(
    "stated",
    [
        "METHOD = dpgmm.methods.Method('m', lambda posterior, key, *, steps=3, progress=None: 0)",
        "def posterior(data, *, steps=3): ...",
    ],
)
def test_a_file_that_is_listed_is_read_once(stated, tmp_path):
    note = f"with open({str(tmp_path / 'seen')!r}, 'a') as seen:\n    seen.write('once ')"
    (tmp_path / "own.py").write_text(f"import dpgmm\n{note}\n{stated}\n")
    result = CliRunner().invoke(app, ["list", str(tmp_path / "own.py")])
    assert "steps" in result.output
    assert (tmp_path / "seen").read_text() == "once "


@pytest.mark.quick("cli")
def test_list_names_everything():
    output = CliRunner().invoke(app, ["list"]).output
    for name in ("stick_breaking", "symmetric_dirichlet", "nuts", "four_gaussians", "article_training"):
        assert name in output


@pytest.mark.quick("cli")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "galaxy"], "no data set 'galaxy': there are four_gaussians"),
        (["compare", "nothing.csv"], "nothing.csv"),
        (["compare", "galaxies", "--methods", "map,hmc"], "no method 'hmc': there are map, svi, nuts"),
        (["compare", "galaxies", "--model", "sticks"], "no model 'sticks'"),
        (["compare", "galaxies", "--truncation", "0"], "truncation = 0"),
        (["compare", "galaxies", "--set", "covariance"], "--set covariance: give NAME=VALUE"),
        (["compare", "galaxies", "--set", "covariance=round"], "covariance = 'round': it must be one of full"),
        (["compare", "galaxies", "--set", "colour=3"], "has no option 'colour'"),
        (["compare", "galaxies", "--set", "truncation=10"], "give the truncation itself, by --truncation"),
        (["compare", "galaxies", "--set", "shape=abc"], "option shape = 'abc': it must be a positive number"),
        (["compare", "galaxies", "--set", "df=abc"], "option df = 'abc': it must be a number above 2"),
        (
            ["compare", "galaxies", "--model", "symmetric_dirichlet", "--methods", "nuts,gibbs"],
            "model symmetric_dirichlet is not; choose blocked_gibbs",
        ),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path):
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "out").exists()
