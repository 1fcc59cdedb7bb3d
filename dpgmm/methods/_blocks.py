"""Blocks of draws, kept on disk while a sampler runs: what a run that was cut off goes on from, to the same bits."""

import contextlib
import errno
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import InputError

RECORD, STATE = "run.json", "state.npz"


class Blocks:
    """The folder of one fit: what the fit is, and for every chain its blocks and the state after the last of them.

    A file is written beside its place and moved into it, the state after the block: cut off at any moment, a chain has
    as many blocks as its state says, or one more, which is then written again.
    """

    def __init__(self, folder: str | Path, record: dict[str, Any]):
        """Open or begin a folder. Raises `InputError` where it holds blocks of another fit."""
        self.folder, path = Path(folder), Path(folder) / RECORD
        record = json.loads(json.dumps(record, default=str))
        if path.is_file():
            self._check(json.loads(path.read_text()), record)
            return
        self._write(path, json.dumps(record, indent=1).encode())

    def _check(self, known: dict[str, Any], record: dict[str, Any]) -> None:
        for name in known | record:
            if known.get(name) != record.get(name):
                raise InputError(
                    f"{self.folder}: holds blocks of another fit, {name} {known.get(name)!r} in place of"
                    f" {record.get(name)!r}; choose another folder, or remove this one"
                )

    def length(self, chain: int) -> int:
        """Number of blocks that a chain has."""
        path = self._of(chain) / STATE
        if not path.is_file():
            return 0
        with np.load(path) as state:
            return int(state["number"])

    def load(self, chain: int, number: int, like: Any) -> Any:
        """Block `number` of a chain, of the structure of `like`."""
        return self._read(self._path(chain, number), like)

    def state(self, chain: int, like: Any) -> Any:
        """The state after the last block of a chain, of the structure of `like`."""
        return self._read(self._of(chain) / STATE, like)

    def save(self, chain: int, number: int, block: Any, state: Any) -> None:
        """Keep a block, then the state after it."""
        self._write(self._path(chain, number), _packed(block))
        self._write(self._of(chain) / STATE, _packed(state, number=np.asarray(number + 1)))

    def remove(self) -> None:
        """All of it goes: the fit is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _of(self, chain: int) -> Path:
        return self.folder / f"chain-{chain}"

    def _path(self, chain: int, number: int) -> Path:
        return self._of(chain) / f"{number:06d}.npz"

    def _read(self, path: Path, like: Any) -> Any:
        leaves, structure = jax.tree.flatten(like)
        try:
            with np.load(io.BytesIO(path.read_bytes())) as arrays:
                found = [arrays[f"leaf{i}"] for i in range(len(leaves))]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not a block of draws ({error}); remove {self.folder} to begin anew") from error
        return jax.tree.unflatten(structure, [_typed(array, leaf) for array, leaf in zip(found, leaves, strict=True)])

    def _write(self, path: Path, content: bytes) -> None:
        partial = path.with_suffix(".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            what = "make room" if full else "choose a folder that can be written"
            raise InputError(f"{path}: {error.strerror}; {what}. Earlier blocks are as they were") from error


BLOCKS: ContextVar[Blocks | None] = ContextVar("blocks", default=None)
"""Where the fit that is running keeps its blocks; None: nowhere."""


@contextlib.contextmanager
def kept_in(blocks: Blocks | None) -> Iterator[None]:
    """Within this, samplers keep their blocks there."""
    token = BLOCKS.set(blocks)
    try:
        yield
    finally:
        BLOCKS.reset(token)


def _packed(tree: Any, **more: np.ndarray) -> bytes:
    """The arrays of a tree in memory, so that a file is written in one piece."""
    buffer = io.BytesIO()
    arrays = {f"leaf{i}": _plain(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))} | more
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def _plain(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _typed(array: np.ndarray, like: Any) -> Any:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    return jnp.asarray(array) if isinstance(like, jax.Array) else array


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
