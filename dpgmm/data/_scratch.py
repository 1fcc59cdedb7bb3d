"""Numbers on disk in place of memory: in a file without a name, which is gone when nobody holds it any more."""

import contextlib
import mmap
import tempfile
from typing import BinaryIO

import numpy as np

from ..errors import InputError

CELLS = 2**20
"""Numbers that are written at a time: as float64 they take no memory beside the rows."""


class Scratch:
    """Rows of `width` float64, appended piece by piece and then mapped into memory.

    The file lies where Python puts temporary ones (``TMPDIR``, else /tmp), and has no name there: whatever ends the
    process, nothing is left. `where`: what the numbers are of, for the `InputError` of a disk that is full.
    """

    def __init__(self, where: str, width: int):
        self._where, self._width, self.size = where, width, 0
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # outlives this call
        except OSError as error:
            raise no_room(self._where, error) from error

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, rows: np.ndarray) -> None:
        """Write rows ``(n, width)``. Raises `InputError` where there is no room for them."""
        try:
            # Written, not mapped: a full disk is an error here, and the end of the process there.
            step = max(1, CELLS // self._width)
            for start in range(0, len(rows), step):
                self._file.write(np.ascontiguousarray(rows[start : start + step], np.float64).data)
            self.size += len(rows)
        except OSError as error:
            self.close()
            raise no_room(self._where, error) from error

    def mapped(self, *, writable: bool = False) -> np.ndarray:
        """All rows ``(N, width)``. Nothing can be appended any more."""
        try:
            self._file.flush()
        except OSError as error:
            self.close()
            raise no_room(self._where, error) from error
        if not self.size:
            self.close()
            return np.empty((0, self._width))
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        rows = np.frombuffer(mmap.mmap(self._file.fileno(), 0, access=access)).reshape(self.size, self._width)
        self.close()
        return rows

    def close(self) -> None:
        """Let go of the file; what was mapped of it stays."""
        close(self._file)


def no_room(where: str, error: OSError) -> InputError:
    """The error of a temporary file that cannot be written."""
    try:
        folder = f" in {tempfile.gettempdir()}"
    except OSError:
        folder = ""
    return InputError(
        f"{where}: finds no room on disk{folder} ({error.strerror}); set TMPDIR to a folder that has more"
    )


def close(file: BinaryIO) -> None:
    """Close a temporary file; what could not be written to it is given up."""
    with contextlib.suppress(OSError):
        file.close()
