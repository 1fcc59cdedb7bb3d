"""Compiled programs, kept: fitting one prior again, to data of the same shape, compiles nothing."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

import jax


class Programs:
    """Compiled functions by key and by the shapes of their arguments. Threads may share it."""

    def __init__(self):
        self._made, self._lock = {}, threading.RLock()

    def compile(self, key: Hashable, function: Callable, *args: Any) -> tuple[Callable, float]:
        """`function` compiled for arguments like `args`, and the seconds that took: none where `key` has been seen.

        Whatever `function` closes over becomes part of the program, so `key` must tell it.
        """
        leaves, structure = jax.tree.flatten(args)
        like = key, structure, tuple(jax.typeof(leaf) for leaf in leaves), _precision()
        with self._lock:
            start = time.perf_counter()
            if like not in self._made:
                self._made[like] = jax.jit(function).lower(*args).compile()
                return self._made[like], time.perf_counter() - start
            return self._made[like], 0.0

    def keep(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returned the first time that it was asked for under `key`."""
        like = key, _precision()
        with self._lock:
            if like not in self._made:
                self._made[like] = make()
            return self._made[like]


def _precision() -> Any:
    """What a program of keys alone depends on, though no argument tells it: float64 may be switched on in between."""
    return jax.dtypes.canonicalize_dtype(float)
