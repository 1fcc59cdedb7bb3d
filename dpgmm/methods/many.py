"""Many fits, or other tasks that know nothing of each other, here or through any `concurrent.futures.Executor`."""

import contextlib
import functools
import importlib
import importlib.util
import inspect
import multiprocessing
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import jax
import xarray as xr

from ..errors import InputError
from ..model import loading
from ..model.places import folder
from ..model.posterior import Posterior
from ..model.recipes import Origin
from ._method import Method
from .fitting import fit
from .registry import find

AHEAD = 128
"""Tasks that an executor is given at a time: what is drawn ahead of the first that is not done waits in memory."""
SETTINGS = "jax_enable_x64", "jax_threefry_partitionable", "jax_default_prng_impl"
"""Settings of JAX that draws depend on, which travel with every task."""
OF_FIT = {name for name, p in inspect.signature(fit).parameters.items() if p.kind is p.KEYWORD_ONLY} - {"progress"}
"""Options of `fit` itself, which are no method's; progress is told of fits, not within them."""

Task = TypeVar("Task")
Result = TypeVar("Result")
Done = Callable[[int, int], None]
"""``progress(done, total)``, called after every task, in whatever order they end."""


def fit_many(
    fits: Iterable[tuple[Posterior, str | Path | Method, Mapping[str, Any]]],
    *,
    executor: Executor | None = None,
    progress: Done | None = None,
) -> Iterator[xr.DataTree]:
    """Draws of many fits, each ``fit(posterior, method, **options)``, one after the other as they are asked for.

    With an `executor` of `concurrent.futures`, such as `executor_of` gives, they run side by side. Results come in the order
    of `fits` and are those of `fit` to the last bit, but for the seconds, whatever the executor is. Ctrl-C, or an end of the
    loop over them, cancels what has not begun. Posteriors travel as the model that they were made by and the data, to be
    made again where they arrive, and methods as their names or files. Raises `InputError` before anything runs for an
    unknown method or option, and where a method cannot take a posterior; an error of a fit says which one it was.

    Examples:
        >>> many = [(posterior, "map", {"seed": seed, "restarts": 1, "steps": 50}) for seed in range(3)]
        >>> with dpgmm.executor_of("threads:2") as executor:
        ...     trees = list(dpgmm.fit_many(many, executor=executor))
        >>> [tree.attrs["seed"] for tree in trees]
        [0, 1, 2]
    """
    tasks = list(enumerate(fits))
    for index, (posterior, method, options) in tasks:
        with named(f"fit {index}"):
            find(method, set(options) - OF_FIT).checked(posterior)
    return each(_fitted, tasks, executor, called=lambda task: f"fit {task[0]}", progress=progress)


def _fitted(task: tuple[int, tuple[Posterior, str | Path | Method, Mapping[str, Any]]]) -> xr.DataTree:
    posterior, method, options = task[1]
    return fit(posterior, method, **options)


class OfStudy(NamedTuple):
    """A function of a study, by name: a study is loaded from its file, and cannot be imported elsewhere."""

    study: Origin
    function: str

    @classmethod
    def at(cls, file: str, function: str) -> "OfStudy":
        """The function of the study in this file, of ours by the study's name."""
        path = Path(file)
        ours = path.resolve().parent == folder("comparisons").resolve()
        return cls(Origin.of(path.stem if ours else path), function)

    def __call__(self, task: tuple) -> Any:
        """What the function makes of the task, its arguments."""
        return getattr(_study(self.study), self.function)(*task)


@functools.lru_cache
def _study(origin: Origin) -> ModuleType:
    return loading.load(origin.found(), "comparisons")


def each(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    executor: Executor | None = None,
    *,
    called: Callable[[Task], str],
    progress: Done | None = None,
) -> Iterator[Result]:
    """``function(task)`` of every task, in their order: here, one after the other, or by an executor, `AHEAD` at a time.

    What is random in a task must hang on the task alone. An error of a task is raised at its place in the order, by the
    name that it is `called`. A closed or interrupted iteration cancels what has not begun.
    Raises `InputError` where an executor has broken down, or would fork a process that has JAX in it.
    """
    tasks = list(tasks)
    tell = (lambda done: None) if progress is None else (lambda done: progress(done, len(tasks)))
    if executor is None:
        return _here(function, tasks, called, tell)
    # Whoever catches Ctrl-C to keep what is done does not wait for what runs.
    end = getattr(executor, "end", lambda: None)
    return _through(_sender(function, executor), end, tasks, called, tell)


def _here(function: Callable, tasks: list, called: Callable[[Any], str], tell: Callable[[int], None]) -> Iterator[Any]:
    for done, task in enumerate(tasks, start=1):
        with named(called(task)):
            result = function(task)
        tell(done)
        yield result


def _through(
    send: Callable[[Any], Future],
    end: Callable[[], None],
    tasks: list,
    called: Callable[[Any], str],
    tell: Callable[[int], None],
) -> Iterator[Any]:
    """The results of futures in the order of the tasks, some of which are always ahead."""
    unsent, window, running, done = iter(tasks), deque(), set(), 0
    try:
        while True:
            for task in islice(unsent, AHEAD - len(window)):
                with named(called(task)):
                    window.append((called(task), send(task)))
                running.add(window[-1][1])
            if not window:
                return
            name, first = window[0]
            while first in running:
                wait(running, return_when=FIRST_COMPLETED)
                # All that have ended, also those that nobody waited for: they are told, and their results not kept.
                ended = {future for future in running if future.done()}
                running -= ended
                done = _told(tell, done, len(ended))
            window.popleft()
            with named(name):
                result = first.result()
            yield result
    except KeyboardInterrupt:
        end()
        raise
    finally:
        for _, future in window:
            future.cancel()


def _told(tell: Callable[[int], None], done: int, more: int) -> int:
    """Tell of every single task that has ended."""
    for _ in range(more):
        done += 1
        tell(done)
    return done


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """An error within is told with the name of the task: in its line where it is the user's, else in a note."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{name}: {error}") from error
    except (BrokenExecutor, CancelledError) as error:
        raise InputError(
            f"{name}: what was to run it broke down, of memory perhaps; ask for fewer at a time"
        ) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "distributed":
            raise InputError(f"{name}: Dask gave up: {str(error).strip().splitlines()[0]}") from error
        error.add_note(f"This was {name}.")
        raise


def _sender(function: Callable, executor: Executor) -> Callable[[Any], Future]:
    """How an executor is given a task: as it is to a thread, else in a pickle, which is opened once JAX is set."""
    settings = {name: getattr(jax.config, name) for name in SETTINGS}
    if isinstance(executor, ThreadPoolExecutor):
        return lambda task: executor.submit(_in_thread, function, task, settings["jax_enable_x64"])
    dumps = pickle.dumps
    if isinstance(executor, ProcessPoolExecutor):
        _refuse_fork(executor)
    elif importlib.util.find_spec("cloudpickle"):
        # The functions of a script are unknown to a cluster by name.
        dumps = importlib.import_module("cloudpickle").dumps
    return lambda task: executor.submit(_in_process, settings, dumps((function, task)))


def _refuse_fork(executor: ProcessPoolExecutor) -> None:
    context = getattr(executor, "_mp_context", None) or multiprocessing
    if context.get_start_method() == "fork":
        raise InputError(
            "executor: a process that has JAX in it cannot be forked; give"
            ' ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")), or executor_of("processes")'
        )


def _in_thread(function: Callable, task: Any, x64: bool) -> Any:  # noqa: FBT001
    with jax.enable_x64(x64):
        return function(task)


def _in_process(settings: dict[str, Any], sent: bytes) -> Any:
    """What a worker does: methods have threads of their own, so that settings are those of its whole process."""
    for name, value in settings.items():
        if getattr(jax.config, name) != value:
            jax.config.update(name, value)
    function, task = pickle.loads(sent)
    return function(task)
