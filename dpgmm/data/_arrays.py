"""Arrays and frames as tables: .npy, .npz, Parquet, Feather, and tables that are in memory. Nothing is ever unpickled."""

import io
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from ..errors import InputError
from ._scratch import Scratch
from ._source import NPY, PARQUET, ZIP, Source
from ._table import Table, by_row, column

ARROW, FEATHER = b"ARROW1", b"FEA1"
HEADER = 2**17
"""Bytes in which the header of an array lies."""
ALIGNED = 64
"""Bytes."""
BATCH = 2**18
"""Rows of a Parquet file that are read at a time."""


def read_array(source: Source, name: str | None = None) -> Table | None:
    """The table of a file of arrays, by its first bytes; None for what is none of them. `name`: of an array in .npz."""
    content = source.content
    if content.startswith(NPY):
        values = _npy(source.where, content if source.mapped is None else source.mapped)
        return of_array(values, source.where, mapped=source.mapped is not None)
    if content.startswith(ZIP):
        return of_array(_npz(source.where, content, name), source.where)
    if content.startswith((PARQUET, ARROW, FEATHER)):
        return _columnar(source)
    if content.startswith((b"\x89HDF", b"CDF\x01", b"CDF\x02")):
        raise InputError(
            f"{source.where}: HDF5 or NetCDF; draws are read by `dpgmm diagnose`, data as CSV, .npy or Parquet"
        )
    return None


def of_array(values: np.ndarray, where: str, *, mapped: bool = False) -> Table:
    """The table of an array ``(N,)`` or ``(N, D)``, or of records with named fields; a mask is what is missing.

    `mapped`: it lies in a file, and rows of numbers stay on disk.
    """
    values = values if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    if values.dtype.names:
        names = list(values.dtype.names)
        return Table(
            where, names, [of_array(values[name], where).columns[0] for name in names], named=True, places=by_row(where)
        )
    if values.dtype.kind not in "biuf":
        raise InputError(f"{where}: not an array of numbers (it holds {values.dtype}); save one with numpy.save")
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"{where}: an array of shape {values.shape}; give at least one row, as (N,) or (N, D)")
    if isinstance(values, np.ma.MaskedArray):
        filled = np.ma.filled(values.astype(np.float64), np.nan)
    else:
        filled = _on_disk(where, values) if mapped else np.asarray(values, np.float64)
    names = [str(j) for j in range(filled.shape[1])]
    return Table(where, names, list(filled.T), named=False, places=by_row(where), rows=filled)


def of_frame(frame: pd.DataFrame, where: str) -> Table:
    """The table of a frame; its index is left out."""
    if 0 in frame.shape:
        raise InputError(f"{where}: a table of shape {frame.shape}; give at least one row and one column")
    columns = [column(frame.iloc[:, j]) for j in range(frame.shape[1])]
    return Table(where, [str(name) for name in frame.columns], columns, named=True, places=by_row(where))


def frame_of(values: Any) -> pd.DataFrame | None:
    """A table in memory (pandas, Arrow, Polars) as pandas holds it; None for anything else."""
    if isinstance(values, pd.DataFrame):
        return values
    if isinstance(values, pd.Series):
        return values.to_frame("0" if values.name is None else str(values.name))
    known = hasattr(values, "to_pandas") and hasattr(values, "columns")
    if not known or type(values).__module__.partition(".")[0] == "xarray":
        return None
    names = getattr(values, "column_names", None) or list(values.columns)
    if hasattr(values, "get_column"):  # Polars would need pyarrow for to_pandas.
        return pd.DataFrame({str(name): values.get_column(name).to_list() for name in names})
    return values.to_pandas()


def _npy(where: str, content: bytes | memoryview) -> np.ndarray:
    buffer = io.BytesIO(bytes(content[:HEADER]))
    try:
        version = np.lib.format.read_magic(buffer)
        # Version 3 differs from 2 in names of fields alone, which it may write in UTF-8.
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(buffer)
    except Exception as error:  # What a damaged header raises is of many kinds.
        reason = "its header is damaged" if " at 0x" in str(error) else error  # An object, by its address.
        raise InputError(f"{where}: not an array of numbers ({reason}); save one with numpy.save") from error
    rest = content[buffer.tell() :]
    if dtype.hasobject:
        raise InputError(f"{where}: not an array of numbers (it holds pickled objects); save one with numpy.save")
    count = int(np.prod([int(n) for n in shape], dtype=object)) if shape else 1
    if count * dtype.itemsize != len(rest) or min(shape, default=0) < 0:
        raise InputError(
            f"{where}: its header claims {shape} of {dtype}, and {len(rest):,} bytes follow; it is cut off or damaged"
        )
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")


def _on_disk(where: str, rows: np.ndarray) -> np.ndarray:
    """Mapped rows in float64: as they are, or written so to a temporary file that is mapped in their place.

    JAX leaves an array where it lies if that is at a multiple of 64 bytes, which headers of old writers do not fill up to.
    """
    if rows.dtype == np.float64 and rows.flags.c_contiguous and rows.ctypes.data % ALIGNED == 0:
        return rows
    with Scratch(where, rows.shape[1]) as scratch:
        scratch.append(rows)
        return scratch.mapped()


def _npz(where: str, content: bytes, name: str | None) -> np.ndarray:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [member.removesuffix(".npy") for member in archive.namelist()]
            if name is None and len(names) == 1:
                name = names[0]
            if name not in names:
                what = "several arrays" if name is None else f"no array {name!r}"
                raise InputError(f"{where}: {what}; name one of {', '.join(names)}, as in {where}:{names[0]}")
            held = archive.read(f"{name}.npy")
    except InputError:
        raise
    except Exception as error:  # What a damaged archive raises is of many kinds.
        raise InputError(f"{where}: not an archive that can be read ({error}); save one with numpy.savez") from error
    return _npy(f"{where}:{name}", held)


def parquet_pieces(source: Source) -> tuple[list[str], Callable[[], Generator[pd.DataFrame]]]:
    """Names of the columns of an open Parquet file, and its rows, `BATCH` of them at a time."""
    assert source.file is not None
    with _told(source.where) as arrow:
        # What is read ahead would stay.
        parquet = arrow.parquet.ParquetFile(source.file, pre_buffer=False, buffer_size=2**20)
        shape, names = (parquet.metadata.num_rows, len(parquet.schema_arrow.names)), parquet.schema_arrow.names
    if 0 in shape:
        raise InputError(f"{source.where}: a table of shape {shape}; give at least one row and one column")

    def pieces() -> Generator[pd.DataFrame]:
        with _told(source.where):
            for batch in parquet.iter_batches(BATCH):
                yield batch.to_pandas(ignore_metadata=True)

    return [str(name) for name in names], pieces


def _columnar(source: Source) -> Table:
    with _told(source.where) as arrow:
        reader = arrow.BufferReader(source.content)
        if source.content.startswith(PARQUET):
            table = arrow.parquet.ParquetFile(reader).read()
        else:
            table = arrow.feather.read_table(reader)
        frame = table.to_pandas(ignore_metadata=True)
    return of_frame(frame, source.where)


@contextmanager
def _told(where: str) -> Iterator[Any]:
    """pyarrow, whose errors are told in a line."""
    try:
        import pyarrow.feather
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(f"{where}: Parquet and Feather need pyarrow: pip install dpgmm-suite[parquet]") from error
    try:
        yield pyarrow
    except InputError:
        raise
    except Exception as error:  # Arrow's errors are of many kinds.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{where}: not a Parquet or Feather file that can be read ({reason})") from error
