"""What commands make of words, and a run folder: refused when it is in use or full, gone on with when it was cut off."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dpgmm import InputError, datasets, draws, methods, partitions, relabelling
from dpgmm.cli import app
from dpgmm.commands import _folder, asked, catalogue, comparing

run = lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.quick("commands")
@pytest.mark.parametrize(("time", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), (None, None)])
def test_times(time, seconds):
    assert asked.seconds(time) == seconds


@pytest.mark.parametrize("time", ["", "0", "-3", "ten", "5d", "1e3"])
def test_what_is_no_time_is_told(time):
    with pytest.raises(InputError, match="give a time such as 90s, 10m or 2h"):
        asked.seconds(time)


@pytest.mark.quick("commands")
def test_a_folder_has_one_run_at_a_time(tmp_path):
    refused = pytest.raises(InputError, match="another run is writing to it; wait for it")
    with _folder.claimed(tmp_path), refused, _folder.claimed(tmp_path):
        pass
    with _folder.claimed(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_overwritten_unless_that_is_asked_for(tmp_path):
    (tmp_path / "nuts.nc").write_text("precious")
    (tmp_path / "mine.txt").write_text("not of a run")
    with pytest.raises(InputError, match=r"holds a run already \(nuts.nc\); give --out another folder, --resume"):
        _folder.begun(tmp_path, {}, overwrite=False)
    assert (tmp_path / "nuts.nc").read_text() == "precious"
    _folder.begun(tmp_path, {"data": "galaxies"}, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.txt", "request.json"]
    assert _folder.requested(tmp_path) == {"data": "galaxies"}


def test_what_cannot_be_gone_on_with_is_told(tmp_path):
    with pytest.raises(InputError, match=r"no run to go on with \(request.json is not there\)"):
        _folder.requested(tmp_path)
    (tmp_path / "request.json").write_text("{")
    with pytest.raises(InputError, match="not what a run writes"):
        _folder.requested(tmp_path)
    (tmp_path / "request.json").write_text('{"data": "-"}')
    with pytest.raises(InputError, match="its data came from standard input"):
        comparing.resume(tmp_path)


def test_paths_of_a_request_mean_the_same_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("d.csv", "m.py"):
        Path(name).touch()
    placed = comparing.Request("d.csv", model="m.py", methods="nuts, m.py").placed()
    assert placed.data == str(tmp_path / "d.csv")
    assert (placed.model, placed.methods) == (str(tmp_path / "m.py"), f"nuts,{tmp_path / 'm.py'}")
    assert comparing.Request("galaxies").placed() == comparing.Request("galaxies")


OPTIONS = [
    "--methods",
    "map,gibbs",
    "--chains",
    "2",
    "--warmup",
    "1500",
    "--draws",
    "1500",
    "--option",
    "map.steps=50",
    "--option",
    "map.restarts=2",
]
OPTIONS += ["--option", "gibbs.split_merges=1", "--option", "gibbs.thin=20", "--truncation", "6", "--seed", "3"]


def begin(out, *more):
    command = [sys.executable, "-m", "dpgmm", "compare", "galaxies", *OPTIONS, "--out", str(out), *more]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"COLUMNS": "200"}
    )


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_draws(tmp_path):
    """`DPGMM_KILLS` times (default 3; 50 once): kill -9 at some moment of the run, then --resume, which is killed too."""
    first = begin(tmp_path / "whole")
    first.communicate()
    assert first.returncode == 0
    whole = draws.load(tmp_path / "whole" / "gibbs.nc")
    for i in range(int(os.environ.get("DPGMM_KILLS", "3"))):
        out = tmp_path / f"cut{i}"
        process = begin(out)
        deadline = time.monotonic() + 300
        # Some blocks after its beginning, a moment that differs every time.
        while len(list(out.rglob("*.npz"))) < 2 + i % 7 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.003 * (1 + i % 5))
        process.kill()
        process.communicate()
        assert (out / "request.json").is_file()
        assert not (out / "run.json").exists()
        assert (
            subprocess.run([sys.executable, "-m", "dpgmm", "compare", "--resume", str(out)], check=False).returncode
            == 0
        )
        again = draws.load(out / "gibbs.nc")
        for group in ("posterior", "sample_stats"):
            assert again[group].to_dataset().equals(whole[group].to_dataset())  # Seconds, in attributes, differ.
        assert not (out / "blocks").exists()
        assert json.loads((out / "run.json").read_text())["stopped"] is False


@pytest.mark.slow
def test_a_signal_ends_a_run_with_130_and_it_goes_on(tmp_path):
    process = begin(tmp_path / "run")
    while not list((tmp_path / "run").rglob("*.npz")) and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    errors = process.communicate()[1]
    assert process.returncode == 130
    assert json.loads((tmp_path / "run" / "run.json").read_text())["stopped"] is True
    assert b"Traceback" not in errors


def test_the_catalogue_has_the_names_of_the_registries():
    found = catalogue.found()
    assert found["methods"] == methods.names()
    assert found["data sets"] == list(datasets.REGISTRY)
    assert found["relabelling methods"] == list(relabelling.METHODS)
    assert found["losses"] == list(partitions.LOSSES)


def test_help_and_the_catalogue_load_no_jax():
    for arguments in (["--help"], ["list"], ["list", "--json"]):
        code = f"import sys; sys.argv[1:] = {arguments!r}; from dpgmm.cli import main\n"
        code += "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\nassert 'jax' not in sys.modules"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "stick_breaking" in done.stdout or "compare" in done.stdout
