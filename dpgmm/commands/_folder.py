"""A run folder while a run goes on: whose it is, and what was asked for."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..report import files

try:
    import fcntl
except ImportError:  # Windows has no locks that a killed process gives up.
    fcntl = None

REQUEST, BLOCKS, LOCK = "request.json", "blocks", ".lock"
LEFT = ("*.nc", "report.html", "summary.csv", "summary.md", "agreement.csv", "run.json", REQUEST)
"""What a run leaves in its folder."""


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within this the folder is ours; another process is refused in a line. A process that dies gives it up."""
    try:
        with open(folder / LOCK, "w") as lock:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.write(str(os.getpid()))
            lock.flush()
            try:
                yield
            finally:
                (folder / LOCK).unlink(missing_ok=True)
    except BlockingIOError as error:
        raise InputError(
            f"{folder}: another run is writing to it; wait for it, or give --out another folder"
        ) from error
    except PermissionError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give --out another folder") from error


def free(folder: Path, *, overwrite: bool) -> None:
    """Raise `InputError` where the folder holds a run that is not to be overwritten."""
    left = _left(folder)
    if left and not overwrite:
        raise InputError(
            f"{folder}: holds a run already ({left[0].name}); give --out another folder, --resume {folder} to go on with"
            " it, or --overwrite"
        )


def begun(folder: Path, request: dict[str, Any], *, overwrite: bool) -> None:
    """Write down what was asked for, in place of what the folder holds; `InputError` as `free` raises it."""
    free(folder, overwrite=overwrite)
    _clear(folder)
    files.write_json(folder / REQUEST, request)


def _left(folder: Path) -> list[Path]:
    return [path for pattern in LEFT for path in folder.glob(pattern)]


def _clear(folder: Path) -> None:
    """Remove what a run left, and what it left of single models in folders of their own."""
    with contextlib.suppress(InputError):
        for name in requested(folder).get("models", {}):
            if Path(name).name == name and (folder / name).is_dir():
                _clear(folder / name)
                with contextlib.suppress(OSError):  # What is not of a run stays.
                    (folder / name).rmdir()
    for path in _left(folder):
        path.unlink()
    shutil.rmtree(folder / BLOCKS, ignore_errors=True)


def requested(folder: Path) -> dict[str, Any]:
    """What the run in a folder was asked for. Raises `InputError` where there is none."""
    path = folder / REQUEST
    if not path.is_file():
        raise InputError(f"--resume {folder}: no run to go on with ({REQUEST} is not there); give the folder of one")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not what a run writes ({error}); begin anew") from error
