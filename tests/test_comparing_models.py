"""`dpgmm compare` of several models: one folder each, one comparison above them, and one line for what is wrong."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from made_up import from_the_prior
from typer.testing import CliRunner

import dpgmm
from dpgmm import InputError
from dpgmm.cli import app
from dpgmm.report import terminal

run = lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])
MODELS = "stick_breaking", "symmetric_dirichlet"
TWO = "--model", MODELS[0], "--model", MODELS[1]
SHORT = "--methods", "map,nuts", "--truncation", "3"
LEFT = {"report.html", "request.json", "summary.csv", "summary.md"}
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")


class Fits:
    """In place of fits: draws of the prior, after `good` of which `error` is raised; and what was fitted."""

    def __init__(self):
        self.done, self.points, self.good, self.error = [], [], np.inf, KeyboardInterrupt

    def __call__(self, posterior, name, seed, options, *, compression):
        if len(self.done) >= self.good:
            raise self.error
        self.done.append((posterior.name, name, seed))
        self.points.append(posterior.data.points)
        tree = from_the_prior(posterior, name, draws_per_chain=20, chains=2)
        tree.attrs |= {"compression": "{}", "seed": seed}
        return tree.drop_nodes("optimisation", errors="ignore")


@pytest.fixture
def fits(monkeypatch):
    made = Fits()
    monkeypatch.setattr(terminal, "fitted", made)
    return made


def test_every_model_has_its_run_and_one_comparison_stands_above(fits, tmp_path):
    out = tmp_path / "out"
    points = np.r_[np.linspace(-1, 1, 20), np.linspace(9, 11, 20)]
    np.savetxt(tmp_path / "y.csv", points)
    data = tmp_path / "y.csv"
    result = run("compare", data, *TWO, *SHORT, "--holdout", "0.25", "--seed", "3", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    told = [
        line for line in result.stderr.splitlines() if re.match("No comparison|Several models|stick_breaking: No", line)
    ]
    assert [line.split()[0] for line in told] == ["No", "Several", "stick_breaking:"]
    found = json.loads(result.stdout)
    assert fits.done == [(model, method, 3) for model in MODELS for method in ("map", "nuts")]
    for points in fits.points:
        np.testing.assert_array_equal(points, fits.points[0])
    assert {p.name for p in out.iterdir()} == LEFT | set(MODELS)
    for model in MODELS:
        assert {p.name for p in (out / model).iterdir()} == LEFT | {"map.nc", "nuts.nc", "run.json", "agreement.csv"}
        assert json.loads((out / model / "request.json").read_text())["model"] == model
        assert found["models"][model]["answer"] == json.loads((out / model / "run.json").read_text())["answer"]
    rows = pd.read_csv(out / "summary.csv")
    assert rows["method"].tolist() == ["nuts", "nuts", "map", "map"]
    assert set(rows["model"]) == set(MODELS)
    assert [row["held_out"] for row in found["comparison"]] == pytest.approx(rows["held_out"].tolist())
    trees = {model: dpgmm.draws.load(out / model / "nuts.nc") for model in MODELS}
    wanted = dpgmm.diagnostics.elpd.compare(trees)
    np.testing.assert_allclose(rows["elpd_diff"][:2], wanted["elpd_diff"], rtol=1e-9)
    assert rows["elpd"].isna().tolist() == [False, False, True, True]
    page = (out / "report.html").read_text()
    links = re.findall(r'<a href="([^"]+)"', page)
    assert links == [f"{model}/report.html" for model in MODELS]
    assert "<svg" in page
    assert "30 points fitted, 10 held out" in page
    assert r"[stick\_breaking](stick_breaking/report.html)" in (out / "summary.md").read_text()


@pytest.mark.long
def test_a_run_that_was_cut_off_goes_on_with_the_models_that_it_was_of(fits, tmp_path):
    out = tmp_path / "out"
    fits.good = 3
    stopped = run("compare", "galaxies", *TWO, *SHORT, "--out", out)
    assert isinstance(stopped.exception, KeyboardInterrupt) or stopped.exit_code == 130
    assert f"--resume {out} goes on" in stopped.stdout
    assert not (out / "report.html").exists()
    assert json.loads((out / "symmetric_dirichlet" / "run.json").read_text())["stopped"] is True
    fits.good = np.inf
    result = run("compare", "--resume", out)
    assert result.exit_code == 0, result.output
    assert fits.done == [(model, method, 0) for model in MODELS for method in ("map", "nuts")]
    assert (out / "report.html").exists()
    assert json.loads((out / "symmetric_dirichlet" / "run.json").read_text())["stopped"] is False
    first, *_, sticks, dirichlet, report = [line for line in result.stdout.splitlines() if " components, " not in line]
    assert first.startswith("No comparison of the models has earned belief yet (nuts: under stick_breaking ")
    assert sticks.startswith("stick_breaking: ")
    assert dirichlet.startswith("symmetric_dirichlet: ")
    assert report == f"Report: {out / 'report.html'}"


def test_a_folder_is_not_overwritten_unless_asked_and_then_nothing_old_is_left(fits, tmp_path):
    out = tmp_path / "out"
    (out / "symmetric_dirichlet").mkdir(parents=True)
    (out / "symmetric_dirichlet" / "nuts.nc").write_text("precious")
    refused = run("compare", "galaxies", *TWO, *SHORT, "--out", out)
    assert "symmetric_dirichlet: holds a run already (nuts.nc)" in str(refused.exception)
    assert [p.name for p in out.iterdir()] == ["symmetric_dirichlet"]
    fits.good = 0
    assert run("compare", "galaxies", *TWO, *SHORT, "--out", out, "--overwrite").exit_code
    assert not (out / "symmetric_dirichlet" / "nuts.nc").exists()
    (out / "symmetric_dirichlet" / "mine.txt").write_text("not of a run")
    one = run("compare", "galaxies", *SHORT, "--out", out, "--overwrite")
    assert one.exit_code
    assert sorted(p.name for p in out.iterdir()) == ["request.json", "symmetric_dirichlet"]
    assert [p.name for p in (out / "symmetric_dirichlet").iterdir()] == ["mine.txt"]
    assert "models" not in json.loads((out / "request.json").read_text())


@pytest.mark.quick("commands")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model", "escobar_west", "--model", "escobar_west"],
            "--model: escobar_west is given twice; give every model once",
        ),
        (["--model", "escobar_west", "--model", "sticks"], "no model 'sticks'"),
        (
            ["--model", "escobar_west", "--model", "other/escobar_west.py"],
            "escobar_west and other/escobar_west.py have one name",
        ),
        ([*TWO, "--set", "colour=3"], "model stick_breaking has no option 'colour'; it takes"),
        (
            ["--model", "stick_breaking", "--model", "escobar_west", "--set", "kappa_shape=3"],
            "model stick_breaking has no option 'kappa_shape'; it takes truncation, shape",
        ),
        (
            ["--model", "stick_breaking", "--model", "escobar_west", "--set", "stick_breaking.kappa_shape=3"],
            "model stick_breaking has no option 'kappa_shape'",
        ),
        (
            [*TWO, "--set", "article.shape=3"],
            "article does not run; the models are stick_breaking, symmetric_dirichlet",
        ),
        ([*TWO, "--methods", "nuts,gibbs"], "model symmetric_dirichlet is not; choose blocked_gibbs"),
        ([*TWO, "--methods", "map"], "--methods map: a point estimate has no leave-one-out density"),
        ([*TWO, "--option", "gibbs.thin=2"], "--option gibbs.thin=2: gibbs does not run"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_runs(fits, tmp_path, arguments, message):
    result = run("compare", "galaxies", *arguments, "--out", tmp_path / "out")
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "out").exists()
    assert fits.done == []


def test_a_setting_is_every_models_or_that_of_one(fits, tmp_path):
    out, fits.good = tmp_path / "out", 0
    settings = "--set", "covariance=diagonal", "--set", "symmetric_dirichlet.df=7.5"
    result = run("compare", "faithful", *TWO, *settings, "--truncation", "3", "--out", out)
    assert "Not run, as not every model takes them: gibbs." in result.stderr
    of = {model: json.loads((out / model / "request.json").read_text()) for model in MODELS}
    assert of["stick_breaking"]["settings"] == ["covariance=diagonal"]
    assert of["symmetric_dirichlet"]["settings"] == ["covariance=diagonal", "df=7.5"]
    assert {request["methods"] for request in of.values()} == {"map,svi,nuts,cavi"}


@pytest.mark.long
def test_a_model_of_ones_own_is_compared_with_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = dpgmm.model.loading.folder("models") / "stick_breaking.py"
    (tmp_path / "my <b>model.py").write_text(ours.read_text().replace("df: float | None = None", "df: float = 9.0"))
    np.savetxt("y.csv", np.r_[np.linspace(-1, 1, 30), np.linspace(9, 11, 30)])
    short = "--methods", "map,cavi", "--truncation", "3", "--quick", "--holdout", "0.1"
    result = run("compare", "y.csv", "--model", "stick_breaking", "--model", "./my <b>model.py", *short, "--out", "out")
    assert result.exit_code == 0, result.output
    assert "my <b>model: " in result.stdout
    rows = pd.read_csv("out/summary.csv")
    assert rows.groupby("method")["held_out"].nunique().tolist() == [2, 2]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>model" not in page
    assert 'href="my%20%3Cb%3Emodel/report.html"' in page
    again = run("compare", "--resume", "out")
    assert again.exit_code == 0, again.output
    pd.testing.assert_frame_equal(pd.read_csv("out/summary.csv"), rows)
