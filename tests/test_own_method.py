"""A user's own method: the page that shows how, by path and entry point, everywhere ours go; mistakes in one line."""

import dataclasses
import functools
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import from_the_prior
from typer.testing import CliRunner

import dpgmm
from comparisons.inference_methods import study
from dpgmm import Dataset, InputError, calibration, load_model, methods
from dpgmm.cli import app
from dpgmm.methods import budgets, registry
from dpgmm.model import loading
from dpgmm.report import described

PAGE = (Path(__file__).parents[1] / "docs" / "own_method.md").read_text()
BLOCKS = dict(re.findall(r"```python file=(\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
PEERS = Path(__file__).parents[1] / "comparisons" / "peers"
TOY = '''"""Starts as if they were draws: cheap, and wrong."""
import jax

import dpgmm


def run(posterior, key, *, chains=2, warmup=0, draws_per_chain=100, shift=0.0, progress=None):
    """Starts.

    Options:
        `chains`: how many.
        `shift`: of means, a test of options.
    """
    keys = jax.random.split(key, (chains, draws_per_chain))
    one = jax.vmap(jax.vmap(posterior.initial))
    parameters = posterior.compile("toy", one, keys)[0](keys)
    parameters["means"] = parameters["means"] + shift
    return dpgmm.draws.build(posterior, parameters)


METHOD = dpgmm.methods.Method("NAME", run, quick={"chains": 2, "draws_per_chain": 20})
'''


@pytest.fixture(autouse=True)
def _forget_methods(monkeypatch):
    monkeypatch.setattr(registry, "OTHERS", {})


@pytest.fixture
def toy(tmp_path):
    """A function that writes the toy, pieces of it replaced, and returns its path."""

    def write(*changes, name="toy", file="toy.py"):
        text = TOY.replace("NAME", name)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / file
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def made_up(monkeypatch):
    """Methods of ours whose fits are made up: what they find is no matter beside a file's."""

    def install(*names):
        for name in names:
            ours = methods.REGISTRY[name]

            @functools.wraps(ours.run)
            def run(posterior, key, *, progress, name=name, **options):
                progress(1, 2, "half")
                progress(2, 2, "all")
                return from_the_prior(posterior, name, **options)

            monkeypatch.setitem(methods.REGISTRY, name, dataclasses.replace(ours, run=run))

    return install


@pytest.fixture(scope="module")
def posterior():
    rng = np.random.default_rng(0)
    return load_model("stick_breaking")(Dataset(np.r_[rng.normal(size=25), rng.normal(8, 1, 15)]), truncation=4)


@pytest.fixture
def csv(tmp_path, posterior):
    path = tmp_path / "data.csv"
    path.write_text("y\n" + "\n".join(map(str, posterior.data.points[:, 0])))
    return str(path)


def cli(*args):
    result = CliRunner().invoke(app, [str(a) for a in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def line_of(path, text):
    return next(i for i, line in enumerate(Path(path).read_text().splitlines(), 1) if text in line)


# The page.


def written(tmp_path, name):
    path = tmp_path / name
    path.write_text(BLOCKS[name])
    return path


def weighed(path, points, truncation):
    """Log mean importance weight, its standard error, exact log evidence of the guide's allocation; log weights."""
    prior = {"shape": 2.0, "rate": 2.0, "component_scale": 0.1}
    posterior = load_model("stick_breaking")(Dataset(points), truncation=truncation, **prior)
    draws = dpgmm.fit(posterior, path, seed=1, draws_per_restart=2_000)
    log_weight = draws["sample_stats"]["log_weight"].values[0]
    ratio = np.exp(log_weight - log_weight.max())
    exact = dpgmm.exact.allocations(posterior)
    means = draws["posterior"]["means"].values[0].mean(axis=0)
    labels = ((posterior.data.points[:, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
    [row] = np.flatnonzero((exact.labels == labels).all(axis=1))
    error = ratio.std() / ratio.mean() / np.sqrt(len(ratio))
    return log_weight.max() + np.log(ratio.mean()), error, exact.log_evidence + exact.log_posterior[row], log_weight


def test_guide_of_the_page_weighs_one_component_exactly(tmp_path):
    """Of one component q is the posterior: every draw weighs the evidence."""
    _, _, exact, log_weight = weighed(written(tmp_path, "my_method.py"), np.array([0.1, 1.0, 0.4, 2.0]), 1)
    np.testing.assert_allclose(log_weight, exact, atol=1e-4)  # scikit-learn adds 1e-6 to variances.


FAR = np.stack([np.r_[np.linspace(0, 1, 4), np.linspace(20, 21, 3)], [0.0, 1.0, 0.0, 0.5, 9.0, 8.0, 8.5]], axis=1)
"""Clusters so far apart that their allocation is certain: the guide holds one of its labellings, of known evidence."""


def test_guide_of_the_page_weighs_far_clusters_rightly(tmp_path):
    found, error, exact, _ = weighed(written(tmp_path, "my_method.py"), FAR, 2)
    assert abs(found - exact) < 4 * error + 1e-4


def test_a_wrong_density_of_the_guide_is_seen(tmp_path):
    """That of a stick where its logit is drawn: the planted bug is the Jacobian."""
    path = tmp_path / "my_method.py"
    right = "alpha * log_sigmoid(logits) + beta * log_sigmoid(-logits)"
    assert right in BLOCKS["my_method.py"]
    wrong = "(alpha - 1) * log_sigmoid(logits) + (beta - 1) * log_sigmoid(-logits)"
    path.write_text(BLOCKS["my_method.py"].replace(right, wrong))
    found, error, exact, _ = weighed(path, FAR, 2)
    assert abs(found - exact) > 10 * error


def test_peer_draws_as_the_page_does():
    drawn = BLOCKS["my_method.py"].split("def draw(")[1].split("def run(")[0]
    assert drawn in (PEERS / "scikit_learn.py").read_text()


@pytest.mark.long
def test_sampler_of_the_page(tmp_path, posterior):
    pytest.importorskip("blackjax")
    draws = dpgmm.fit(posterior, written(tmp_path, "my_nuts.py"), chains=2, warmup=100, draws_per_chain=100)
    assert draws["posterior"]["means"].shape == (2, 100, 4, 1)
    assert draws["sample_stats"]["log_joint"].values[:, 50:].std() > 0
    assert draws.attrs["method"] == "my_nuts"


# Everywhere ours go.


def test_compare_takes_a_file(toy, csv, tmp_path, made_up):
    out = tmp_path / "out"
    made_up("blocked_gibbs")
    short = ["--truncation", 4, "--quick", "--chains", 2, "--draws", 20, "--out", out, "--option", "toy.shift=0.5"]
    output = cli("compare", csv, "--methods", f"blocked_gibbs,{toy()}", *short)
    assert re.search(r"\btoy\b", output)
    assert "toy" in pd.read_csv(out / "summary.csv")["method"].tolist()
    assert "toy" in (out / "report.html").read_text()
    run = json.loads((out / "run.json").read_text())
    assert run["method_options"]["toy"] == {"chains": 2, "draws_per_chain": 20, "shift": 0.5}
    tree = dpgmm.draws.load(out / "toy.nc")
    assert tree.attrs["method"] == "toy"
    assert tree.attrs["run_seconds"] > 0
    assert json.loads(tree.attrs["options"])["method"]["warmup"] == 0
    # Later, where nobody has loaded the file.
    registry.OTHERS.clear()
    assert methods.colour("toy") == methods.registry.GREY
    assert dpgmm.diagnose(tree).verdict
    cli("relabel", out / "toy.nc")
    cli("partition", out / "toy.nc")


def test_a_file_is_a_contender_of_the_study(toy):
    """With the options of its short run, on the data and on the points that are enumerated."""
    plan = study.chosen(study.QUICK, ["blocked_gibbs", toy()])
    assert {name: who.method for name, who in plan.contenders.items()} == {
        "blocked Gibbs": "blocked_gibbs",
        "toy": "toy",
    }
    assert plan.exact == {"stick_breaking": ("blocked Gibbs", "toy")}
    assert study.budget(plan.exact_effort, plan.contenders["toy"]) == {"chains": 2, "draws_per_chain": 20}


@pytest.mark.long
def test_study_of_methods_takes_a_file(toy, tmp_path, made_up):
    """Ours, beside which it stands, is made up: what it finds is the study's own test."""
    made_up("blocked_gibbs")
    cli("study", "inference_methods", "--quick", "--methods", f"blocked_gibbs,{toy()}", "--out", tmp_path)
    numbers = json.loads((tmp_path / "inference_methods.json").read_text())
    assert numbers["contenders"] == ["blocked Gibbs", "toy"]
    assert min(numbers["data"]["galaxies"]["methods"]["toy"]["seconds"]) > 0
    assert set(numbers["exact"]["stick_breaking"]) == {"blocked Gibbs", "toy"}
    assert "toy" in (tmp_path / "inference_methods.html").read_text()


def test_calibration_takes_a_file(toy, posterior):
    ranks = calibration.simulate(posterior, toy(), 0, simulations=3, draws=9, draws_per_chain=20)
    assert ranks.method == "toy"
    assert ranks.rank.shape == (3, len(ranks.names))


@pytest.mark.parametrize("kind", ["guide", "point"])
def test_restarts_of_a_file_are_restarts(toy, posterior, kind):
    """No pictures of a way, and yet: the best restart is the answer, and restarts are neither relabelled nor partitioned."""
    more = '"log_weight": 0.0 * parameters["concentration"] + jax.numpy.arange(chains)[:, None]'
    path = toy(
        ("build(posterior, parameters)", f"build(posterior, parameters, sample_stats={{{more}}})"),
        ("run, quick", f'run, kind="{kind}", quick'),
    )
    tree = dpgmm.fit(posterior, path, chains=3, draws_per_chain=1 if kind == "point" else 20)
    assert dpgmm.draws.answer(tree).sizes == {} or dpgmm.draws.answer(tree)["posterior"].sizes["chain"] == 1
    if kind == "guide":
        np.testing.assert_allclose(tree.attrs["elbo"], [0, 1, 2])
        assert dpgmm.draws.best_chain(tree) == 2
    assert dpgmm.labels.summary.summarise(tree).relabelling is None
    assert tree.attrs["point_estimate"] == (kind == "point")
    agreed = dpgmm.agreement({"toy": tree, "again": dpgmm.fit(posterior, path, seed=1, draws_per_chain=20)})
    assert agreed.sentence


def test_entry_point_of_an_installed_package(toy, tmp_path, monkeypatch, csv):
    site = tmp_path / "site"
    info = site / "toy_package-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-package\nVersion: 1.0\n")
    entries = "toy_entry = toy_package_:METHOD\nother_name = toy_package_:METHOD\nbroken = toy_package_:NOTHING\n"
    (info / "entry_points.txt").write_text("[dpgmm.methods]\n" + entries)
    (site / "toy_package_.py").write_text(Path(toy(name="toy_entry")).read_text())
    monkeypatch.syspath_prepend(str(site))
    assert methods.names()[-3:] == ["toy_entry", "other_name", "broken"]
    assert "toy_entry" in cli("list")
    assert "a test of options" in cli("list", "toy_entry")
    output = cli("fit", csv, "--method", "toy_entry", "--truncation", 4, "--quick", "--out", tmp_path / "draws.nc")
    assert "toy_entry" in output
    with pytest.raises(
        InputError, match="entry point 'other_name' has a method called 'toy_entry'; give them one name"
    ):
        methods.find("other_name")
    with pytest.raises(InputError, match="method broken of toy_package_:NOTHING: AttributeError"):
        methods.find("broken")


def test_a_file_with_a_dash(toy, csv, tmp_path):
    path = toy(name="my-toy", file="my-toy.py")
    out = tmp_path / "draws.nc"
    cli(
        "fit", csv, "--method", path, "--truncation", 4, "--quick", "--option", "my-toy.draws_per_chain=7", "--out", out
    )
    assert dpgmm.draws.load(out)["posterior"].sizes["draw"] == 7


def test_a_changed_file_is_read_again(toy, posterior):
    first = dpgmm.fit(posterior, toy(), draws_per_chain=20)
    second = dpgmm.fit(posterior, toy(("shift=0.0", "shift=1.0")), draws_per_chain=20)
    np.testing.assert_allclose(second["posterior"]["means"] - first["posterior"]["means"], 1.0)
    assert json.loads(second.attrs["options"])["method"]["shift"] == 1.0


def test_progress_and_interruption_go_through(toy, posterior):
    path = toy(("    keys =", '    progress(1, 2, "half")\n    keys ='))
    told = []
    dpgmm.fit(posterior, path, draws_per_chain=20, progress=lambda *report: told.append(report))
    assert told == [(1, 2, "half")]

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dpgmm.fit(posterior, path, draws_per_chain=20, progress=stop)


# What is wrong, in a line.


@pytest.mark.parametrize(
    ("changes", "line", "message"),
    [
        ([("METHOD =", "METHODS =")], None, "a method file states METHOD = dpgmm.methods.Method(...), found none"),
        ([("METHOD = ", "METHOD = 3  # ")], None, "states METHOD = dpgmm.methods.Method(...), found int"),
        ([("    keys =", "    1 / 0; keys =")], "1 / 0", "ZeroDivisionError: division by zero; correct the method"),
        ([("return dpgmm", "return 3  # ")], "def run", "run(...) of toy returned int; return dpgmm.draws.build(...)"),
        (
            [("return dpgmm", "import xarray\n    return xarray.DataTree()  # ")],
            "def run",
            "run(...) of toy returned a DataTree that it did not make",
        ),
        ([("run, quick", 'run, kind="guide", quick')], "def run", "need sample_stats/log_weight"),
        ([("run, quick", 'run, kind="oracle", quick')], "METHOD", "no kind 'oracle'; there are point, guide, sampler"),
        ([("run, quick", 'run, colour="red", quick')], "METHOD", "colour must be of the form #rrggbb, found 'red'"),
        ([('"chains": 2', '"chain": 2')], "METHOD", "toy has no option 'chain'; it takes chains, warmup"),
        ([('"toy"', '"nuts"')], None, "there is a method 'nuts' already; give METHOD another name"),
        ([("key, *, chains", "key, chains")], "METHOD", "takes options by name, each with a default; 'chains' is none"),
        ([("shift=0.0", "shift")], "METHOD", "each with a default; 'shift' is none"),
        ([("import jax", "import jax_of_nobody")], "import jax", "cannot be imported: ModuleNotFoundError"),
        ([("def run(", "def run((")], None, "cannot be imported: SyntaxError"),
        (
            [("parameters)\n", "parameters, optimisation=xr.Dataset())\n"), ("import jax", "import jax, xarray as xr")],
            "def run",
            "make the group optimisation of toy by dpgmm.draws.paths(...)",
        ),
    ],
)
def test_mistakes_of_a_file(toy, posterior, changes, line, message):
    path = toy(*changes)
    where = path if line is None else f"{path}, line {line_of(path, line)}"
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        dpgmm.fit(posterior, path, draws_per_chain=4)
    assert str(caught.value).startswith(where + ":")
    assert "\n" not in str(caught.value)


def test_a_file_named_like_ours_tells_its_own_line(toy, posterior):
    """`schema.py` is also where `build` fails: the line is that of the user's file."""
    path = toy(("build(posterior, parameters)", "build(posterior, {})"), file="schema.py")
    with pytest.raises(InputError, match=re.escape(f"{path}, line {line_of(path, 'build(posterior')}:")):
        dpgmm.fit(posterior, path, draws_per_chain=4)


def test_mistakes_of_the_command(toy, csv, tmp_path):
    path, out = toy(), tmp_path / "draws.nc"
    fit = ("fit", csv, "--truncation", 4, "--quick", "--out", out, "--method", path)
    for option, message in {
        "toy.size=3": "toy has no option 'size'; it takes chains, warmup, draws_per_chain, shift",
        "nuts.thin=3": "nuts does not run; the methods are toy",
        "shift=3": "give METHOD.NAME=VALUE",
        "toy.shift": "give METHOD.NAME=VALUE",
    }.items():
        with pytest.raises(InputError, match=re.escape(message)):
            cli(*fit, "--option", option)
    with pytest.raises(InputError, match=r"no method file .*nowhere\.py: there is no such file"):
        cli(*fit[:-1], tmp_path / "nowhere.py")
    with pytest.raises(InputError, match="no method 'toi'"):
        cli(*fit[:-1], "toi")
    with pytest.raises(InputError, match="are both called 'toy'; give one another name"):
        cli("compare", csv, "--methods", f"{path},{toy(file='other.py')}")
    with pytest.raises(InputError, match="study truncation takes no --methods"):
        cli("study", "truncation", "--quick", "--methods", path, "--out", tmp_path / "study")


@pytest.mark.skipif(importlib.util.find_spec("blackjax") is not None, reason="blackjax is installed")
def test_a_peer_that_is_not_installed_says_so():
    with pytest.raises(
        InputError, match=re.escape("method blackjax_nuts needs blackjax: pip install dpgmm-suite[peers]")
    ):
        methods.find("blackjax_nuts")


@pytest.mark.parametrize("name", [pytest.param("blackjax_nuts", marks=pytest.mark.long), "nutpie_nuts"])
def test_peers_that_are_installed_run(name, posterior):
    pytest.importorskip(name.removesuffix("_nuts"))
    tree = dpgmm.fit(posterior, name, chains=2, warmup=50, draws_per_chain=30)
    assert tree["posterior"]["means"].shape == (2, 30, 4, 1)
    assert tree.attrs["method"] == name


def test_scikit_learn_is_a_peer(posterior):
    assert methods.peers() == ["blackjax_nuts", "nutpie_nuts", "scikit_learn"]
    assert "peers" in loading.names("comparisons")  # The study of them, which is no method of theirs.
    tree = dpgmm.fit(posterior, "scikit_learn", restarts=1, draws_per_restart=50)
    assert tree["sample_stats"]["log_weight"].shape == (1, 50)
    with pytest.raises(InputError, match="has weighted points; give points of weight 1"):
        dpgmm.fit(posterior.on(Dataset(posterior.data.points, 2 * posterior.data.weights)), "scikit_learn")
    diagonal = load_model("stick_breaking")(posterior.data, truncation=4, covariance="diagonal")
    with pytest.raises(InputError, match="choose stick_breaking with covariance=full"):
        dpgmm.fit(diagonal, "scikit_learn")


# Options and budgets.


def test_what_is_given_wins_over_quick(toy, csv, tmp_path):
    """Of a method that says what it was asked for, and draws as many whatever that is."""
    build = "dpgmm.draws.build(posterior, parameters)"
    told = f"tree = {build}; tree.attrs['asked'] = [chains, draws_per_chain]; return tree"
    path, out = toy(("(chains, draws_per_chain)", "(2, 20)"), (f"return {build}", told)), tmp_path / "draws.nc"
    fit = ("fit", csv, "--method", path, "--truncation", 4, "--quick", "--out", out)
    for given, wanted in {(): (2, 20), ("--chains", 3): (3, 20), ("--chains", 3, "--draws", 40): (3, 40)}.items():
        cli(*fit, *given)
        assert tuple(dpgmm.draws.load(out).attrs["asked"]) == wanted


def test_settings_are_read_as_what_they_are(toy):
    path = toy()
    name = methods.find(path).name
    settings = ["chains=3", "warmup=1e3", "draws_per_chain=none", "shift=low_rank"]
    found = budgets.parsed([name], [f"{name}.{setting}" for setting in settings])[name]
    assert found == {"chains": 3, "warmup": 1000.0, "draws_per_chain": None, "shift": "low_rank"}
    assert budgets.parsed([name], [f"{name}.shift=TRUE"])[name]["shift"] is True
    assert budgets.parsed([name], [f"{name}.shift=a=b"])[name]["shift"] == "a=b"


FUNCTIONS = [(name, method.run) for name, method in methods.REGISTRY.items()]
FUNCTIONS += [(name, loading.posterior_function(name)) for name in loading.names("models")]
FUNCTIONS += [("scikit_learn", loading.load(str(PEERS / "scikit_learn.py"), "methods").run)]


@pytest.mark.parametrize(("name", "function"), FUNCTIONS, ids=[name for name, _ in FUNCTIONS])
def test_every_option_has_its_line(name, function):
    table = described.options(function)
    assert len(table) > 2
    assert table.loc[table["what it is"] == "", "option"].tolist() == []
    assert table["what it is"].map(len).max() < 120


def test_an_option_without_a_line_is_seen():
    def run(posterior, key, *, told=1, untold=2, progress=None):
        """Speaks of `untold` in a sentence.

        Options:
            `told`: what it is.
        """

    assert described.options(run)["what it is"].tolist() == ["what it is.", ""]
