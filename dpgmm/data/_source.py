"""The bytes of a data set, whatever they are wrapped in: a file, standard input, gz, bz2, xz or zip."""

import bz2
import contextlib
import gzip
import io
import lzma
import mmap
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..errors import InputError
from ._scratch import close, no_room

STDIN = "-"
UNPACK: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
ZIP, NPY, PARQUET = b"PK\x03\x04", b"\x93NUMPY", b"PAR1"
WHOLE = (ZIP, NPY, b"ARROW1", b"FEA1", b"\x89HDF", b"CDF\x01", b"CDF\x02")
"""How files begin that are not read in pieces."""
MAPPED = 2**26
"""Bytes from which on a .npy file is mapped: whoever writes over a mapped file takes the numbers from under us."""
STREAMED = 2**28
"""Bytes from which on a text is read in pieces; Parquet, which is packed, from `MAPPED` on."""
START = 2**14
"""Bytes that tell what a file is."""
PIECE = 2**24
"""Bytes that are unpacked at a time."""
WRAPPINGS = (".gz", ".bz2", ".xz", ".zip")
MOST = 64 * 2**30
"""Bytes that a member of a zip archive may claim, at most."""


class Source(NamedTuple):
    """`where` it is, as a message calls it; `name`, the file's without its endings; and its bytes, unpacked.

    `mapped`: in place of the bytes, the file in memory as far as it is looked at, of a .npy file. `file`: in place of them,
    an open file, unpacked, of a large text or Parquet file; `content` is how it begins.
    """

    where: str
    name: str
    content: bytes
    mapped: memoryview | None = None
    file: BinaryIO | None = None


def source(path: str | Path) -> Source:
    """What is at a path, in memory; ``-`` is standard input. By their first bytes, not their ending, archives are unpacked.

    Raises `InputError` where there is no file, where it cannot be read or unpacked, or is empty.
    """
    return _source(path, None)


@contextmanager
def opened(path: str | Path) -> Iterator[Source]:
    """`source`, but an open file for text of `STREAMED` bytes or more, and for Parquet, in a plain file of `MAPPED` or more.

    What is packed is unpacked on disk.
    """
    held = _source(path, STREAMED)
    try:
        yield held
    finally:
        if held.file is not None:
            held.file.close()


def _source(path: str | Path, most: int | None) -> Source:
    """What is at a path; of `most` bytes or more an open file."""
    where = "standard input" if str(path) == STDIN else str(path)
    name = "stdin" if str(path) == STDIN else _stem(Path(path))
    try:
        if str(path) != STDIN and (mapped := _mapped(_file(Path(path)))) is not None:
            return Source(where, name, bytes(mapped[: len(NPY)]), mapped)
        content = _taken(where, sys.stdin.buffer, most) if str(path) == STDIN else _content(where, Path(path), most)
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror}; check the file's permissions") from error
    for mark, unpack in UNPACK.items():
        if _start(content).startswith(mark):
            try:
                with _as_file(content) as packed, unpack(packed) as reader:
                    content = _taken(where, reader, most)
            except InputError:
                raise
            except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
                raise InputError(f"{where}: cannot be unpacked ({error}); it is cut off or damaged") from error
            break
    if _start(content).startswith(ZIP):
        content = _member(where, content, most)
    if not isinstance(content, bytes) and not (start := _start(content)).startswith(WHOLE):
        return Source(where, name, start, file=content)
    if not isinstance(content, bytes):
        with content:
            content = content.read()
    if not content:
        raise InputError(f"{where}: empty; give at least one line of numbers")
    return Source(where, name, content)


def _content(where: str, path: Path, most: int | None) -> bytes | BinaryIO:
    """The bytes of a file, or the file; what a pipe holds is laid down."""
    with contextlib.ExitStack() as unless_large:
        file = unless_large.enter_context(path.open("rb"))
        if not path.is_file():
            return _taken(where, file, most)
        size = path.stat().st_size
        if most is not None and (size >= most or (size >= MAPPED and _start(file).startswith(PARQUET))):
            unless_large.pop_all()
            return file
        return file.read()


def _taken(where: str, reader: Any, most: int | None) -> bytes | BinaryIO:
    """All that a reader gives; in a temporary file without a name where it is `most` bytes or more."""
    if most is None:
        return reader.read()
    pieces, size = [], 0
    while size < most:
        if not (piece := reader.read(PIECE)):
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
    return _on_disk(where, chain(pieces, iter(lambda: reader.read(PIECE), b"")))


def _on_disk(where: str, pieces: Iterable[bytes]) -> BinaryIO:
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # outlives this call
    except OSError as error:
        raise no_room(where, error) from error
    with contextlib.ExitStack() as unless_done:
        unless_done.callback(close, file)
        for piece in pieces:
            try:
                file.write(piece)
                file.flush()
            except OSError as error:
                raise no_room(where, error) from error
        file.seek(0)
        unless_done.pop_all()
    return file


def _as_file(content: bytes | BinaryIO) -> BinaryIO:
    return io.BytesIO(content) if isinstance(content, bytes) else content


def _start(content: bytes | BinaryIO) -> bytes:
    """The first bytes."""
    if isinstance(content, bytes):
        return content[:START]
    content.seek(0)
    start = content.read(START)
    content.seek(0)
    return start


def _file(path: Path) -> Path:
    try:
        if path.is_dir():
            raise InputError(f"{path}: a folder, not a file; give a data file")
        if not path.exists():
            raise InputError(f"{path}: no such file; give a data file")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no such file ({error}); give a data file") from error
    return path


def _mapped(path: Path) -> memoryview | None:
    """A large .npy file mapped into memory; None for others."""
    if not path.is_file() or path.stat().st_size < MAPPED:
        return None
    with path.open("rb") as file:
        if file.read(len(NPY)) != NPY:
            return None
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _stem(path: Path) -> str:
    name = path.name
    while Path(name).suffix.lower() in WRAPPINGS:
        name = Path(name).stem
    return Path(name).stem


def _member(where: str, content: bytes | BinaryIO, most: int | None) -> bytes | BinaryIO:
    """The one file of a zip archive; an archive of arrays (.npz) or a workbook stays as it is."""
    try:
        with zipfile.ZipFile(_as_file(content)) as archive:
            members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
            names = [m.filename for m in members]
            if any(name.startswith("xl/") for name in names):
                raise InputError(f"{where}: a workbook; save its sheet as CSV")
            if names and all(name.endswith(".npy") for name in names):
                return content
            if len(members) != 1:
                raise InputError(
                    f"{where}: an archive of {len(members)} files ({', '.join(names[:5])}); give one of one file"
                )
            if members[0].file_size > MOST:
                raise InputError(f"{where}: {names[0]} claims {members[0].file_size:,} bytes; unpack it by hand")
            with archive.open(members[0]) as reader:
                taken = _taken(where, reader, most)
        _as_file(content).close()
        return taken
    except InputError:
        _as_file(content).close()
        raise
    except Exception as error:  # What a damaged archive raises is of many kinds.
        _as_file(content).close()
        # A place before its beginning: bytes and files say that in words of their own.
        reason = "its index is wrong" if isinstance(error, OSError | ValueError) else error
        raise InputError(f"{where}: not a zip archive that can be read ({reason}); it is cut off or damaged") from error
