"""Where many fits run: an executor by its name on the command line, shut down when they are done."""

import contextlib
import importlib
import multiprocessing
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

from ..errors import InputError

LOCAL = re.compile(r"(processes|threads)(?::([1-9]\d{0,3}))?")
DASK = re.compile(r"dask://(\[[\da-fA-F:.]+\]|[^\s/:\[\]]+):(\d{1,5})")
PATIENCE = "10s"
"""How long a Dask scheduler has to answer."""


@contextlib.contextmanager
def executor_of(text: str) -> Iterator[Executor]:
    """The executor that a text asks for, within a `with` block, at whose end it is shut down.

    ``processes`` or ``threads``, as many as there are cores, ``processes:4`` or ``threads:4``; ``dask://HOST:PORT``, the
    workers of the Dask cluster whose scheduler listens there. Processes are spawned: JAX survives no fork; they are ended
    where the block ends by an exception, Ctrl-C among them. Raises `InputError` for any other text, where `distributed` is
    not installed, and where no scheduler answers.

    Examples:
        >>> with dpgmm.executor_of("threads:2") as executor:
        ...     print(type(executor).__name__)
        ThreadPoolExecutor
    """
    local, dask = LOCAL.fullmatch(text), DASK.fullmatch(text)
    if local is not None:
        count = int(local[2] or _cores())
        opened = _processes(count) if local[1] == "processes" else ThreadPoolExecutor(count)
    elif dask is not None and int(dask[2]) < 2**16:
        opened = _dask(f"tcp://{dask[1]}:{dask[2]}")
    else:
        raise InputError(f"no executor {text!r}; give processes, processes:4, threads, threads:4 or dask://HOST:PORT")
    with opened as executor:
        yield executor


def _cores() -> int:
    """Cores that this process may use, as far as the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _processes(count: int) -> Iterator[Executor]:
    """Spawned processes, which are not waited for once something has failed."""
    with Processes(count, multiprocessing.get_context("spawn"), _leave_ctrl_c_to_the_parent) as pool:
        try:
            yield pool
        except BaseException:
            pool.end()
            raise


class Processes(ProcessPoolExecutor):
    """A pool whose processes can be ended in the middle of what they do."""

    def __init__(self, *options):
        super().__init__(*options)
        self._others = set(multiprocessing.active_children())

    def end(self) -> None:
        """Wait for nothing: what runs is lost, and the pool takes no more."""
        self.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - self._others:
            process.terminate()


def _leave_ctrl_c_to_the_parent() -> None:
    """A terminal sends it to all processes, and each would print where it was."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Executor]:
    """The workers of a Dask cluster."""
    try:
        distributed = importlib.import_module("distributed")
    except ImportError:
        raise InputError('dask:// needs the package distributed: pip install "dpgmm-suite[dask]"') from None
    try:
        client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{address}: no Dask scheduler answers there; start one, or correct the address") from error
    with client:
        # Draws are a function of their task, but an attempt that failed must not stand for the next one.
        yield client.get_executor(pure=False)
