"""The bytes of a data set, whatever they are wrapped in: a file, standard input, gz, bz2, xz or zip."""

import bz2
import gzip
import io
import lzma
import mmap
import sys
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError

STDIN = "-"
UNPACK = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ\x00": lzma.decompress}
ZIP = b"PK\x03\x04"
NPY = b"\x93NUMPY"
MAPPED = 2**26
"""Bytes from which on a .npy file is mapped: whoever writes over a mapped file takes the numbers from under us."""
WRAPPINGS = (".gz", ".bz2", ".xz", ".zip")
MOST = 64 * 2**30
"""Bytes that a member of a zip archive may claim, at most."""


class Source(NamedTuple):
    """`where` it is, as a message calls it; `name`, the file's without its endings; and its bytes, unpacked.

    `mapped`: in place of the bytes, the file in memory as far as it is looked at, of a .npy file.
    """

    where: str
    name: str
    content: bytes
    mapped: memoryview | None = None


def source(path: str | Path) -> Source:
    """What is at a path; ``-`` is standard input. By their first bytes, not their ending, archives are unpacked.

    Raises `InputError` where there is no file, where it cannot be read or unpacked, or is empty.
    """
    where = "standard input" if str(path) == STDIN else str(path)
    try:
        if str(path) != STDIN and (mapped := _mapped(_file(Path(path)))) is not None:
            return Source(where, _stem(Path(path)), bytes(mapped[: len(NPY)]), mapped)
        content = sys.stdin.buffer.read() if str(path) == STDIN else Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror}; check the file's permissions") from error
    for start, unpack in UNPACK.items():
        if content.startswith(start):
            try:
                content = unpack(content)
            except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
                raise InputError(f"{where}: cannot be unpacked ({error}); it is cut off or damaged") from error
            break
    if content.startswith(ZIP):
        content = _member(where, content)
    if not content:
        raise InputError(f"{where}: empty; give at least one line of numbers")
    return Source(where, "stdin" if str(path) == STDIN else _stem(Path(path)), content)


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


def _member(where: str, content: bytes) -> bytes:
    """The one file of a zip archive; an archive of arrays (.npz) or a workbook stays as it is."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
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
            return archive.read(members[0])
    except InputError:
        raise
    except Exception as error:  # What a damaged archive raises is of many kinds.
        raise InputError(f"{where}: not a zip archive that can be read ({error}); it is cut off or damaged") from error
