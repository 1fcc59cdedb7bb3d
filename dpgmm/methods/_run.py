"""What every method needs to run: starts, chains on threads, chunks that show progress and stop."""

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextvars import ContextVar, copy_context
from typing import Any

import jax
from jax import Array, random

from ..model.posterior import Parameters, Posterior

Progress = Callable[[int, int, str], None]
"""``progress(done, total, note)``, called from any thread after every chunk of work."""
DRAWS, LEAST, WORK = 1_000, 10, 10_000_000_000
"""Draws of a guide by default; of very many points as many as take so many point-component pairs, and no fewer than 10."""
USUAL = 4
"""Restarts that share the work; fewer do not get more of it, so that they end earlier."""


class Deadline:
    """When a fit has to end; `met` once something has ended for it."""

    def __init__(self, seconds: float = math.inf):
        self.at, self.met = time.monotonic() + seconds, False

    def over(self) -> bool:
        """Whether it has passed: who asks ends with what it has."""
        self.met |= time.monotonic() > self.at
        return self.met


DEADLINE: ContextVar[Deadline | None] = ContextVar("deadline", default=None)
"""That of the fit that is running; None: it has all the time."""


@contextlib.contextmanager
def until(deadline: Deadline) -> Iterator[None]:
    """Within this, methods end at the deadline."""
    token = DEADLINE.set(deadline)
    try:
        yield
    finally:
        DEADLINE.reset(token)


def expired() -> bool:
    """Whether the time of the fit that is running is over. Asked between chunks of work, after the first."""
    deadline = DEADLINE.get()
    return deadline is not None and deadline.over()


def dispersed(posterior: Posterior, key: Array, count: int) -> Parameters:
    """Unconstrained coordinates of `count` starts from the model's own `initial`, along a new first axis."""
    start = jax.vmap(lambda k: posterior.unconstrain(posterior.initial(k)))
    keys = random.split(key, count)
    return posterior.compile("dispersed", start, keys)[0](keys)


def constrained(posterior: Posterior, unconstrained: Any, axes: int, unravel: Callable = lambda u: u) -> Parameters:
    """Parameters at coordinates with this many leading axes."""
    one = lambda u: posterior.constrain(unravel(u))[0]
    for _ in range(axes):
        one = jax.vmap(one)
    return posterior.compile(("constrained", axes), one, unconstrained)[0](unconstrained)


def guide_draws(posterior: Posterior, restarts: int) -> int:
    """Draws of each of so many guides: every one is a pass over all points."""
    pairs = posterior.data.size * int(posterior.options.get("truncation", 1)) * max(restarts, USUAL)
    return min(DRAWS, max(LEAST, WORK // pairs))


def run_chains(
    chain: Callable[[int, Callable[[int, str], None]], Any], num_chains: int, total: int, progress: Progress | None
) -> tuple[list, float]:
    """Run ``chain(index, advance)`` for every index on as many threads as cores; results in order, and the seconds.

    XLA releases the interpreter's lock, so that chains run side by side, each at its own pace: chains vectorised into
    one program move in lock-step with the longest tree. `advance(work, note)` reports finished work; it raises
    `Interrupted` in every chain once one has failed or the user pressed Ctrl-C, so that nothing runs on unseen.
    """
    lock, stop, done = threading.Lock(), threading.Event(), 0

    def advance(work: int, note: str = "") -> None:
        nonlocal done
        if stop.is_set():
            raise Interrupted
        with lock:
            done += work
            if progress is not None:
                progress(min(done, num_chains * total), num_chains * total, note)

    start = time.perf_counter()
    with ThreadPoolExecutor(min(num_chains, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(copy_context().run, chain, index, advance) for index in range(num_chains)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set() if any(not f.done() or f.exception() for f in futures) else None
            for future in futures:
                future.cancel()
    errors = [future.exception() for future in futures if not future.cancelled()]
    for error in errors:
        if error is not None and not isinstance(error, Interrupted):
            raise error
    return [future.result() for future in futures], time.perf_counter() - start


class Interrupted(RuntimeError):
    """Another chain failed or the user asked to stop."""


def stack(trees: Sequence[Any]) -> Any:
    """Stack like-shaped trees of arrays along a new first axis, on the host."""
    return jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *trees)
