"""Compiled programs, kept: fitting a model again, to the same or to other data of the same shape, compiles nothing."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import jax
from jax.core import eval_jaxpr

from ..densities import passes

MOST = 64
"""Programs that are kept for posteriors to come, the last ones used."""


class Programs:
    """Compiled functions by key and by the shapes of their arguments. Threads may share it."""

    def __init__(self):
        self._made, self._lock = {}, threading.RLock()

    def compile(self, key: Hashable, function: Callable, *args: Any) -> tuple[Callable, float]:
        """`function` compiled for arguments like `args`, and the seconds that took: none where `key` has been seen.

        Whatever `function` closes over becomes part of the program, so `key` must tell it. A `function` under a new key
        is traced; it is not compiled where another one came to the same program, up to the arrays that it closes over.
        """
        leaves, structure = jax.tree.flatten(args)
        like = key, structure, tuple(jax.typeof(leaf) for leaf in leaves), context()
        with self._lock:
            start = time.perf_counter()
            if like not in self._made:
                self._made[like] = SHARED.compile(function, *args)
                return self._made[like], time.perf_counter() - start
            return self._made[like], 0.0

    def keep(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returned the first time that it was asked for under `key`."""
        like = key, context()
        with self._lock:
            if like not in self._made:
                self._made[like] = make()
            return self._made[like]


class _Shared:
    """Programs by what they compute: by their text, in which arrays that were closed over are arguments like others.

    The numbers of a prior scale with the data and are therefore no part of a program, and nobody has to say which they
    are: tracing finds what a model's functions close over. What enters as a Python number is part of the text.
    """

    def __init__(self):
        self._made, self._lock = OrderedDict(), threading.Lock()

    def compile(self, function: Callable, *args: Any) -> Callable:
        """`function` for arguments like `args`: a program, which others may share, and the arrays that it closes over."""
        traced = jax.jit(function).trace(*args)
        closed, structure = traced.jaxpr, jax.tree.structure(traced.out_info)

        def program(closed_over, *args):
            leaves = eval_jaxpr(closed.jaxpr, closed_over, *jax.tree.leaves(args))
            return jax.tree.unflatten(structure, leaves)

        lowered = jax.jit(program).lower(closed.consts, *args)
        # The text leaves out arguments that are not used, and what they are called.
        text = f"{lowered.in_tree} {jax.tree.leaves(lowered.in_avals)} {lowered.as_text()}"
        # Functions of Python that a program calls back are numbered in its text, not told apart.
        compiled = lowered.compile() if "callback" in text else self._found(text, lowered.compile)
        return lambda *args: compiled(closed.consts, *args)

    def forget(self) -> None:
        """Give up all programs but those that posteriors hold."""
        with self._lock:
            self._made.clear()

    def _found(self, text: str, make: Callable[[], Callable]) -> Callable:
        key = hashlib.sha256(text.encode()).digest()
        compiled = self._made.get(key) or make()
        with self._lock:
            self._made[key] = compiled
            self._made.move_to_end(key)
            while len(self._made) > MOST:
                self._made.popitem(last=False)
        return compiled


SHARED = _Shared()


def context() -> Any:
    """What a program depends on though no argument tells it: float64 may be switched on in between, or devices."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.dtypes.canonicalize_dtype(float), mesh, passes.in_single_precision()
