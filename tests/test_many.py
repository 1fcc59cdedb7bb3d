"""Many fits: posteriors and methods that travel, and results that do not depend on where and in what order fits run."""

import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax import random
from made_up import from_the_prior
from typer.testing import CliRunner

import dpgmm
from dpgmm import Dataset, InputError, calibration, executor_of, fit_many, load_model
from dpgmm.cli import app, main
from dpgmm.methods import executors, many, registry
from dpgmm.model.loading import load
from dpgmm.model.recipes import _made

TOY = '''
"""Draws of the prior's starts, moved towards the data: a method that compiles next to nothing."""
import os

import jax

import dpgmm


def run(posterior, key, *, progress=None, shift=0.0):
    one = jax.vmap(jax.vmap(posterior.initial))
    keys = jax.random.split(key, (2, 15))
    parameters = posterior.compile("toy", one, keys)[0](keys)
    parameters["means"] = parameters["means"] + posterior.data.points.mean() + shift
    END
    return dpgmm.draws.build(posterior, parameters)


METHOD = dpgmm.methods.Method("toy", run)
'''
SIMULATIONS = {"simulations": 6, "draws": 19}
MODELS = {
    "stick_breaking": {"truncation": 4, "covariance": "diagonal", "df": 5.0},
    "symmetric_dirichlet": {"shape": 2},
    "escobar_west": {"truncation": 4, "component_sd": 0.7},
}


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(registry, "OTHERS", {})
    _made.cache_clear()
    registry._found_again.cache_clear()


@pytest.fixture
def toy(tmp_path):
    """A function that writes the method file, with what else a fit does, and returns its path."""

    def write(end="pass"):
        path = tmp_path / "toy.py"
        path.write_text(TOY.replace("END", end.replace("\n", "\n    ")))
        return str(path)

    return write


def points(size=12, dim=1, seed=0):
    return Dataset(np.random.default_rng(seed).normal(size=(size, dim)), np.arange(size) + 1.0, "made up")


def posterior(model="stick_breaking", size=6):
    return load_model(model)(Dataset(np.linspace(-1, 1.3, size)), truncation=3)


def copy(thing):
    """What arrives in another process, without what this one keeps."""
    text = pickle.dumps(thing)
    _made.cache_clear()
    return pickle.loads(text)


def same(first, second):
    """The same draws to the last bit."""
    for group in ("posterior", "sample_stats"):
        one, other = first[group].to_dataset(), second[group].to_dataset()
        assert set(one) == set(other)
        for name in one:
            np.testing.assert_array_equal(one[name].values, other[name].values)


# What travels.


@pytest.mark.quick("model")
@pytest.mark.parametrize("model", MODELS)
def test_a_posterior_arrives_to_the_last_bit(model):
    """On other data than it was made for, with hyperparameters of those that it was."""
    own = load_model(model)(points(dim=2), **MODELS[model]).on(points(size=9, dim=2, seed=1))
    arrived = copy(own)
    start = own.initial(random.PRNGKey(3))
    for name, leaf in arrived.initial(random.PRNGKey(3)).items():
        np.testing.assert_array_equal(leaf, start[name])
    assert own.log_joint(start) == arrived.log_joint(start)
    assert own.options == arrived.options
    np.testing.assert_array_equal(own.data.points, arrived.data.points)
    np.testing.assert_array_equal(own.data.weights, arrived.data.weights)
    assert own.data.size == 9
    # Again, from the copy.
    assert copy(arrived).log_joint(start) == own.log_joint(start)


@pytest.mark.quick("model")
@pytest.mark.parametrize("model", MODELS)
def test_resolved_options_make_the_same_posterior(model):
    own = load_model(model)(points(), **MODELS[model])
    given = {k: v for k, v in own.options.items() if v is not None}
    again = load_model(model)(points(), **given)
    start = own.initial(random.PRNGKey(0))
    assert own.log_joint(start) == again.log_joint(start)
    assert own.options == again.options


@pytest.mark.quick("model")
def test_copies_of_one_prior_share_its_programs():
    own = posterior()
    first, second = (pickle.loads(pickle.dumps(own.on(points(seed=seed)))) for seed in (1, 2))
    assert first.programs is second.programs
    assert not np.array_equal(first.data.points, second.data.points)


@pytest.mark.quick("model")
def test_a_posterior_arrives_in_its_own_precision():
    with jax.enable_x64(False):
        single = posterior()
    assert copy(single).conjugate.base.scale_tril.dtype == np.float32
    assert copy(posterior()).conjugate.base.scale_tril.dtype == np.float64


@pytest.mark.quick("model")
def test_a_posterior_without_a_recipe_says_so():
    own = posterior()
    changed = dataclasses.replace(own, log_prior=lambda parameters: 0.0)
    with pytest.raises(
        InputError, match="posterior stick_breaking was changed after it was made, so that it cannot be"
    ):
        pickle.dumps(changed)
    by_hand = dataclasses.replace(own, recipe=None)
    with pytest.raises(
        InputError, match=r"was made by hand.*state it in a model file and make it by load_model\(path\)"
    ):
        pickle.dumps(by_hand)


@pytest.mark.quick("model")
def test_a_users_model_travels_as_its_file(tmp_path, monkeypatch):
    text = (Path(load("stick_breaking", "models").__file__)).read_text()
    file = tmp_path / "mine.py"
    file.write_text(text)
    monkeypatch.chdir(tmp_path)
    own = load_model("mine.py")(points(), truncation=3)
    monkeypatch.chdir("/")
    start = own.initial(random.PRNGKey(0))
    assert copy(own).log_joint(start) == own.log_joint(start)
    sent = pickle.dumps(own)
    file.write_text(text + "\n")
    _made.cache_clear()
    with pytest.raises(InputError, match=r"mine\.py: the file here is not the one that was loaded"):
        pickle.loads(sent)
    file.unlink()
    with pytest.raises(
        InputError, match=r"mine\.py: there is no such file here; put it at the same path on every machine"
    ):
        pickle.loads(sent)


@pytest.mark.quick("data")
def test_data_arrive_read_only_and_without_weights_that_are_all_one(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(10_000.0))
    mapped = Dataset(np.load(tmp_path / "x.npy", mmap_mode="r"), columns=("x",))
    for own in (mapped, points(), Dataset([1.0, 2.0], [1.0, 1.0])):
        arrived = pickle.loads(pickle.dumps(own))
        for name in ("points", "weights"):
            np.testing.assert_array_equal(getattr(own, name), getattr(arrived, name))
            assert not getattr(arrived, name).flags.writeable
        assert (arrived.name, arrived.columns, arrived.mean) == (own.name, own.columns, own.mean)
    assert len(pickle.dumps(mapped)) < 81_000


@pytest.mark.quick("methods")
def test_methods_arrive(toy):
    assert pickle.loads(pickle.dumps(registry.find("nuts"))) is registry.find("nuts")
    path = toy()
    first, second = (pickle.loads(pickle.dumps(registry.find(path))) for _ in range(2))
    assert first.name == "toy"
    assert first is second  # Read once: what it has compiled stays.
    own = dpgmm.methods.Method("own", registry.find("map").run, kind="point", quick={"steps": 3})
    assert pickle.loads(pickle.dumps(own)) == own
    # A changed copy of a file's method is not that of the file.
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(dataclasses.replace(registry.find(path), run=lambda posterior, key, *, progress=None: None))


# In what order, and what goes wrong.


class Backwards(Executor):
    """Runs what it has been given in turn from the last to the first, whenever it holds `most`, or someone waits."""

    def __init__(self):
        self.held, self.most = [], 0

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.held.append((future, functools.partial(fn, *args, **kwargs)))
        self.most = max(self.most, len(self.held))
        return future

    def run_all(self):
        while self.held:
            future, call = self.held.pop()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except Exception as error:
                    future.set_exception(error)


@pytest.fixture
def backwards(monkeypatch):
    executor = Backwards()

    def wait(futures, return_when):
        executor.run_all()
        return {f for f in futures if f.done()}, {f for f in futures if not f.done()}

    monkeypatch.setattr(many, "wait", wait)
    return executor


def double(x):
    if x == 13:
        raise ZeroDivisionError("thirteen")
    if x == 14:
        raise InputError("fourteen; give fifteen")
    return 2 * x


called = lambda x: f"number {x}"


@pytest.mark.quick("methods")
def test_results_are_in_the_order_of_the_tasks_and_few_are_ahead(backwards, monkeypatch):
    monkeypatch.setattr(many, "AHEAD", 3)
    told = []
    found = list(many.each(double, range(10), backwards, called=called, progress=lambda *done: told.append(done)))
    assert found == list(map(double, range(10)))
    assert backwards.most == 3
    assert told == [(i, 10) for i in range(1, 11)]
    assert list(many.each(double, [], backwards, called=called)) == []


@pytest.mark.quick("methods")
def test_tasks_that_nobody_waits_for_are_told_too():
    """Those that have ended before they are asked for."""

    class AtOnce(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            future = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    told = []
    with AtOnce(1) as executor:
        assert list(many.each(double, range(4), executor, called=called, progress=lambda *done: told.append(done)))
    assert told == [(i, 4) for i in range(1, 5)]


@pytest.mark.quick("methods")
@pytest.mark.parametrize("where", ["here", "backwards"])
def test_a_task_that_fails_names_itself_at_its_place(where, backwards):
    executor = None if where == "here" else backwards
    found = many.each(double, [1, 13, 2], executor, called=called)
    assert next(found) == 2
    with pytest.raises(ZeroDivisionError, match="thirteen") as told:
        next(found)
    assert told.value.__notes__ == ["This was number 13."]
    with pytest.raises(InputError, match="number 14: fourteen; give fifteen"):
        list(many.each(double, [1, 14], executor, called=called))


@pytest.mark.quick("methods")
def test_a_loop_that_is_left_cancels_what_has_not_begun():
    executor = Backwards()
    found = many.each(double, range(5), executor, called=called)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(found)
    assert [future.cancelled() for future, _ in executor.held] == [True] * 5


@pytest.mark.quick("methods")
def test_a_pool_that_can_be_ended_is_where_someone_interrupts(backwards, monkeypatch):
    """And not where a loop over results is merely left: the pool may be asked again."""
    monkeypatch.setattr(many, "AHEAD", 2)
    ended = []
    backwards.end = lambda: ended.append(True)
    found = many.each(double, range(5), backwards, called=called)
    assert next(found) == 0
    found.close()
    assert not ended

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(many, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(many.each(double, range(5), backwards, called=called))
    assert ended == [True]


@pytest.mark.quick("methods")
def test_what_cannot_be_sent_is_told_before_it_is(backwards):
    by_hand = dataclasses.replace(posterior(), recipe=None)
    with pytest.raises(InputError, match="fit 0: posterior stick_breaking was made by hand"):
        list(fit_many([(by_hand, "map", {})], executor=backwards))
    with pytest.raises(InputError, match="fit 1: map has no option 'step'"):
        fit_many([(posterior(), "map", {"seed": 1}), (posterior(), "map", {"step": 1})])
    if "fork" in multiprocessing.get_all_start_methods():
        with (
            ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as forking,
            pytest.raises(InputError, match="a process that has JAX in it cannot be forked; give ProcessPoolExecutor"),
        ):
            many.each(double, [1], forking, called=called)


@pytest.mark.quick("truth")
def test_ranks_do_not_depend_on_the_order_of_the_fits(toy, backwards):
    told = []
    here = calibration.simulate(posterior(), toy(), 0, **SIMULATIONS)
    there = calibration.simulate(
        posterior(), toy(), 0, executor=backwards, progress=lambda *done: told.append(done), **SIMULATIONS
    )
    np.testing.assert_array_equal(here.rank, there.rank)
    assert told == [(i, 6) for i in range(1, 7)]
    assert len(np.unique(here.rank, axis=0)) == 6


def test_fits_do_not_depend_on_the_executor(toy, backwards):
    fits = [(posterior(size=size), toy(), {"seed": 5 - size, "shift": 1.0}) for size in (4, 5)]
    here = list(fit_many(fits))
    with executor_of("threads:2") as threads:
        for executor in (backwards, threads):
            for one, other in zip(here, fit_many(fits, executor=executor), strict=True):
                same(one, other)
    assert [tree.attrs["seed"] for tree in here] == [1, 0]


# Executors by name.


@pytest.mark.quick("commands")
@pytest.mark.parametrize(
    "text",
    ["", "process", "processes:", "processes:0", "threads:-1", "threads:x", "dask:", "dask://here", "dask://a:99999"],
)
def test_other_texts_are_refused(text):
    with pytest.raises(InputError, match=r"no executor '.*'; give processes, processes:4"), executor_of(text):
        pass


@pytest.mark.quick("commands")
def test_the_command_line_refuses_in_one_line(tmp_path, monkeypatch):
    study = lambda *args: CliRunner().invoke(app, ["study", *args, "--quick", "--out", str(tmp_path / "out")])
    with pytest.raises(InputError, match="study mixing takes no --executor: it compares seconds"):
        raise study("mixing", "--executor", "threads").exception
    with pytest.raises(InputError, match="no executor 'fast'"):
        raise study("calibration", "--executor", "fast").exception
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"dask:// needs the package distributed: pip install \"dpgmm-suite\[dask\]\""):
        raise study("calibration", "--executor", "dask://127.0.0.1:8786").exception
    assert not (tmp_path / "out").exists()


@pytest.mark.quick("cli")
def test_a_wrong_executor_ends_with_code_2_and_one_line(tmp_path, monkeypatch, capsys):
    for name in ("JAX_ENABLE_X64", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(
        sys, "argv", ["dpgmm", "study", "calibration", "--executor", "fast", "--out", str(tmp_path / "out")]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: no executor 'fast'; give processes")
    assert len(told.splitlines()) == 1


def test_importing_loads_no_dask():
    program = "import sys, dpgmm, dpgmm.cli; print([m for m in ('dask', 'distributed', 'jax') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_concentration_goes_through_an_executor(tmp_path, monkeypatch):
    """To the same numbers as without, but for seconds."""
    study = load("concentration", "comparisons")
    monkeypatch.setattr(study, "fit", from_the_prior)
    monkeypatch.setattr(many, "fit", from_the_prior)
    with executor_of("threads:2") as executor:
        numbers = study.run(tmp_path / "there", executor=executor, quick=True)
    alone = study.run(tmp_path / "here", quick=True)
    for row in alone["galaxies"] + alone["four_gaussians"]:
        assert row["seconds"] == 10
        row["seconds"] = None
    assert json.dumps(numbers) == json.dumps(alone)


def test_a_study_s_own_function_is_found_by_name_where_it_runs(monkeypatch):
    """Of ours by the study's name, of a copy by its path."""
    defaults = load("defaults", "comparisons")
    ours, place = many.OfStudy.at(defaults.__file__, "log_prior_of_number"), (5,)
    assert ours.study == ("defaults", None)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ours))(place), defaults.log_prior_of_number(5))


def test_defaults_go_through_an_executor(tmp_path, monkeypatch, backwards):
    """Cells made up; the rows are in the order of the grid."""
    study = load("defaults", "comparisons")

    def cells(size, dim, kind, *_):
        made_up = dict.fromkeys(study.PRIORS, 0.6)
        return [{"N": size, "D": dim, "kind": kind, "covariance": "full", "exact": made_up, "sampled": made_up}]

    monkeypatch.setattr(many, "_study", lambda origin: SimpleNamespace(cells=cells))
    rows = study.run(tmp_path, executor=backwards, quick=True)["cells"]
    assert [(row["D"], row["kind"]) for row in rows] == list(itertools.product((1, 5), study.KINDS))
    assert backwards.most == 8


# Processes, and a cluster.


KILLED = """
if posterior.data.name == "simulation 2":
    try:
        os.mkdir("MARK")
    except FileExistsError:
        pass
    else:
        os.kill(os.getpid(), 9)"""
"""The process that has this simulation for the first time ends as if it had run out of memory."""


@pytest.fixture(scope="module")
def cluster():
    """Two workers of one thread each, on loopback, which are started again once they have died."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(host="127.0.0.1", **options) as found:
        yield found.scheduler_address.replace("tcp", "dask")


@pytest.mark.long
def test_processes_and_a_cluster_give_the_same_ranks_and_draws(toy, cluster):
    path = toy()
    ranks = functools.partial(calibration.simulate, posterior(), path, 0, **SIMULATIONS)
    fits = [(posterior(size=size), path, {"seed": size}) for size in (4, 5)]
    here, drawn = ranks().rank, list(fit_many(fits))
    for text in ("processes:2", cluster):
        with executor_of(text) as executor:
            np.testing.assert_array_equal(ranks(executor=executor).rank, here)
            for one, other in zip(drawn, fit_many(fits, executor=executor), strict=True):
                same(one, other)


@pytest.mark.long
def test_a_worker_that_is_killed_loses_nothing(toy, cluster, tmp_path):
    here = calibration.simulate(posterior(), toy(), 0, **SIMULATIONS).rank
    mark, told = tmp_path / "killed", []
    path = toy(KILLED.replace("MARK", str(mark)))
    with executor_of(cluster) as executor:
        told_of = lambda *done: told.append(done)
        there = calibration.simulate(posterior(), path, 0, executor=executor, progress=told_of, **SIMULATIONS).rank
    assert mark.is_dir()
    np.testing.assert_array_equal(there, here)
    assert told == [(i, 6) for i in range(1, 7)]


@pytest.mark.long
def test_a_pool_that_breaks_keeps_what_came_before(toy, tmp_path):
    path = toy(KILLED.replace("MARK", str(tmp_path / "killed")))
    here = list(calibration.refits(posterior(), toy(), 0, **SIMULATIONS))
    toy(KILLED.replace("MARK", str(tmp_path / "killed")))
    found = []
    with (
        executor_of("processes:1") as executor,
        pytest.raises(InputError, match="simulation 2: what was to run it broke down, of memory perhaps"),
    ):
        found.extend(refit.rank for refit in calibration.refits(posterior(), path, 0, executor=executor, **SIMULATIONS))
    assert len(found) <= 2 < len(here)


@pytest.mark.long
def test_a_pool_is_ended_in_the_middle_of_what_it_does():
    with executor_of("processes:1") as executor:
        executor.submit(os.getpid).result()
        paused = executor.submit(signal.pause)
        executor.end()
    assert isinstance(paused.exception(), BrokenExecutor)


@pytest.mark.long
def test_no_scheduler_is_told_in_one_line(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "PATIENCE", "500ms")
    with (
        pytest.raises(InputError, match=r"tcp://127\.0\.0\.1:9: no Dask scheduler answers there"),
        executor_of("dask://127.0.0.1:9"),
    ):
        pass
