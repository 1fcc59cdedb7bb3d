"""Data as people bring them: packed, with decimal commas, dates, missing cells, from memory; and any bytes at all."""

import bz2
import gzip
import io
import lzma
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpgmm.data import Dataset, read
from dpgmm.errors import InputError

pytestmark = pytest.mark.quick("data")
TABLE = np.array([[1.5, 2.0], [-3.0, 400.0], [0.25, 7.0]])
TEXT = b"x,y\n1.5,2\n-3,400\n0.25,7\n"


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            # The same bytes at any time: workers name tests by them.
            member = zipfile.ZipInfo(name.replace("_csv", ".csv").replace("xl_", "xl/"))
            archive.writestr(member, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("pack", "name"),
    [
        (gzip.compress, "table.csv.gz"),
        (bz2.compress, "table.csv.bz2"),
        (lzma.compress, "table.csv.xz"),
        (lambda text: zipped(a_csv=text), "table.zip"),
        (gzip.compress, "table.csv"),
    ],
)
def test_packed_files_are_unpacked(file, pack, name):
    data = read(file(pack(TEXT), name))
    np.testing.assert_array_equal(data.points, TABLE)
    assert (data.name, data.columns) == ("table", ("x", "y"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"])
def test_encodings(file, encoding):
    data = read(file("größe;wert\n1,5;2\n-3;400\n0,25;7\n".encode(encoding)))
    np.testing.assert_array_equal(data.points, TABLE)
    assert data.columns == ("größe", "wert")


def test_tables_of_other_programs(file, tmp_path):
    frame = pd.DataFrame(TABLE, columns=["x", "y"]).assign(who=["a", "b", "c"])
    frame.to_parquet(tmp_path / "t.parquet")
    pyarrow.feather.write_feather(frame, tmp_path / "t.feather")
    for name in ("t.parquet", "t.feather"):
        data = read(tmp_path / name)
        np.testing.assert_array_equal(data.points, TABLE)
        assert data.columns == ("x", "y")
        assert "left out: who (text); --columns chooses" in data.notes
    frame.loc[1, "y"] = np.nan
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"t.parquet, row 1, column 'y': the cell is empty; correct the cell"):
        read(tmp_path / "t.parquet")


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(gzip.compress(TEXT))))
    data = read("-")
    np.testing.assert_array_equal(data.points, TABLE)
    assert data.name == "stdin"
    assert data.notes[0] == "read 3 rows from standard input: columns x, y"


@pytest.mark.parametrize(
    ("text", "columns", "points", "said"),
    [
        # Decimal commas, dates, times, separators at the end of lines, CRLF.
        (
            "Date;Time;T;RH;;\r\n01/03/2024;00.00.00;13,0;52,7;;\r\n02/03/2024;01.00.00;11,2;41,1;;\r\n",
            ("T", "RH"),
            [[13.0, 52.7], [11.2, 41.1]],
            "left out: Date (dates), Time (dates); --columns chooses",
        ),
        ('"a";"b"\n"1.234,5";"2"\n"7,25";"3"\n', ("a", "b"), [[1234.5, 2], [7.25, 3]], None),
        ('a,b\n"1,234.5",2\n"12,345",3\n', ("a", "b"), [[1234.5, 2], [12345, 3]], None),
        ('a,b\n"1,5",2\n"2,25",3\n', ("a", "b"), [[1.5, 2], [2.25, 3]], None),
        ("a\tb\n1 234,5\t2\n7,25\t3\n", ("a", "b"), [[1234.5, 2], [7.25, 3]], None),
        # Columns that count rows.
        (",x\n0,1.5\n1,2.5\n2,4\n", ("x",), [[1.5], [2.5], [4]], "left out: 0 (no name); --columns chooses"),
        ("id,x\n1,1.5\n2,2.5\n3,4\n", ("x",), [[1.5], [2.5], [4]], "left out: id (counts the rows); --columns chooses"),
        ("id,x\n107,1.5\n2,2.5\n31,4\n", ("x",), [[1.5], [2.5], [4]], "left out: id (counts the rows)"),
        ("id,x\n7,1.5\n7,2.5\n3,4\n", ("id", "x"), [[7, 1.5], [7, 2.5], [3, 4]], None),
        ("1 1.5\n2 2.5\n3 4\n", (), [[1.5], [2.5], [4]], "left out: 0 (counts the rows); --columns chooses"),
        (
            '"x" "y"\n"1" 1.5 2\n"2" 2.5 3\n',
            ("x", "y"),
            [[1.5, 2], [2.5, 3]],
            "left out: 0 (no name); --columns chooses",
        ),
        # Headers of numbers.
        (",0\n0,1.5\n1,2.5\n", ("0",), [[1.5], [2.5]], "the first row, of numbers alone, was taken for a header"),
        (
            "0,1\n0.5,1.5\n1,2.5\n",
            ("0", "1"),
            [[0.5, 1.5], [1, 2.5]],
            "the first row, of numbers alone, was taken for a header",
        ),
        # Text, comments, empty rows, trailing separators.
        ("a,b,kind\n1,2,x\n3,4,y\n", ("a", "b"), [[1, 2], [3, 4]], "left out: kind (text); --columns chooses"),
        ("5.1,setosa\n4.9,setosa\n", (), [[5.1], [4.9]], "left out: 1 (text); --columns chooses"),
        ("# made by hand\na|b\n1|2\n# a remark\n3|4\n", ("a", "b"), [[1, 2], [3, 4]], None),
        ("a,b\n1,2\n,\n3,4\n", ("a", "b"), [[1, 2], [3, 4]], "dropped 1 row empty: line 3"),
        ("a,b\n1,2,\n3,4,\n", ("a", "b"), [[1, 2], [3, 4]], None),
        ('a,b\n"1\n",2\n3,4\n', ("a", "b"), [[1, 2], [3, 4]], None),
        ("1,5\n2,7\n3,1\n9,4\n", (), [[1, 5], [2, 7], [3, 1], [9, 4]], "two columns of whole numbers"),
        ("flag,x\nTrue,1\nFalse,2\n", ("x",), [[1], [2]], "left out: flag (text); --columns chooses"),
    ],
)
def test_tables_as_people_write_them(file, text, columns, points, said):
    data = read(file(text))
    np.testing.assert_array_equal(data.points, points)
    assert data.columns == columns
    assert data.notes[0].startswith(f"read {len(points)} rows")
    assert said is None or any(note.startswith(said) for note in data.notes)
    assert (said is None) == (len(data.notes) == 1)


def test_missing_cells(file):
    path = file("a;b;c\n1,5;-200;x\n2,5;3,5;y\n;4;z\nNA;5;z\n-200;6;z\n")
    with pytest.raises(
        InputError, match=r"line 4, column 'a': the cell is empty; 2 of 5 rows lack a value; .*--drop-missing"
    ):
        read(path)
    data = read(path, drop_missing=True)
    np.testing.assert_array_equal(data.points, [[1.5, -200], [2.5, 3.5], [-200, 6]])
    assert "dropped 2 rows lacking a value: line 4, line 5" in data.notes
    data = read(path, ["b", "a"], drop_missing=True, missing=[-200])
    np.testing.assert_array_equal(data.points, [[3.5, 2.5]])
    assert data.columns == ("b", "a")
    with pytest.raises(InputError, match=r"line 2, column 'b': '-200' is not a finite number"):
        read(path, ["b"], missing=["-200"])
    with pytest.raises(InputError, match="no row has a value in every column"):
        read(file("a,b\n1,\n,2\n"), drop_missing=True)


def test_a_column_of_weights(file):
    path = file("x,w,y\n1,2,3\n4,0,6\n7,1,9\n")
    data = read(path, weights="w")
    np.testing.assert_array_equal(data.points, [[1, 3], [4, 6], [7, 9]])
    np.testing.assert_array_equal(data.weights, [2, 0, 1])
    assert "weights: w" in data.notes
    with pytest.raises(InputError, match=r"no column 'z'; give names or positions \(0, 1, ...\) of: x, w, y"):
        read(path, weights="z")
    with pytest.raises(InputError, match=r"file: weights\[1\] is -1.0; give finite weights of 0 or more"):
        read(file("x,w\n1,2\n4,-1\n"), weights="w")


def test_tables_in_memory():
    frame = pd.DataFrame(TABLE, columns=["x", "y"])
    for table in (frame, pyarrow.table(frame), polars.DataFrame({"x": TABLE[:, 0], "y": TABLE[:, 1]})):
        data = Dataset(table)
        np.testing.assert_array_equal(data.points, TABLE)
        assert data.columns == ("x", "y")
    np.testing.assert_array_equal(Dataset(frame["x"]).points, TABLE[:, :1])
    with pytest.raises(InputError, match="data: column 'who' is not numeric; give columns of numbers only"):
        Dataset(frame.assign(who="a"))
    with pytest.raises(InputError, match=r"points\[1, 1\] is nan"):
        Dataset(frame.mask(frame == 400))
    with pytest.raises(InputError, match=r"points\[2, 0\] is nan"):
        Dataset(np.ma.masked_equal([1, 2, 3], 3))
    np.testing.assert_array_equal(Dataset(np.ma.masked_equal([1, 2, 3], 9)).points[:, 0], [1, 2, 3])


def header(shape, rest=b""):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + rest


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (gzip.compress(TEXT)[:-9], "a.csv.gz", "cannot be unpacked .*cut off or damaged"),
        (zipped(a_csv=TEXT, b_csv=TEXT), "a.zip", r"an archive of 2 files \(a.csv, b.csv\); give one of one file"),
        (zipped(xl_sheet=TEXT), "a.xlsx", "a workbook; save its sheet as CSV"),
        (zipped(a_csv=TEXT)[:40], "a.zip", "not a zip archive that can be read"),
        (zipped(a_csv=TEXT)[:4] + zipped(a_csv=TEXT)[5:], "a.zip", r"can be read \(its index is wrong\)"),
        (header((10**12,)), "a.npy", r"claims \(1000000000000,\) of float64, and 0 bytes follow"),
        (header((2**62, 4), bytes(8)), "a.npy", "its header claims"),
        (header((3,), bytes(23)), "a.npy", "23 bytes follow; it is cut off or damaged"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "a.npy", "not an array of numbers"),
        (b"PAR1" + bytes(50), "a.parquet", "not a Parquet or Feather file that can be read"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "a.nc", "HDF5 or NetCDF; draws are read by `dpgmm diagnose`"),
    ],
    ids=range(11),
)
def test_what_is_damaged_is_told_in_a_line(file, content, name, message):
    with pytest.raises(InputError, match=message) as caught:
        read(file(content, name))
    assert "\n" not in str(caught.value)


def test_pickles_stay_closed(tmp_path):
    opened = []

    class Trap:
        def __reduce__(self):
            return opened.append, (1,)

    np.save(tmp_path / "trap.npy", np.array([Trap()], object), allow_pickle=True)
    np.savez(tmp_path / "trap.npz", a=np.array([Trap()], object))
    for name in ("trap.npy", "trap.npz"):
        with pytest.raises(InputError, match="it holds pickled objects"):
            read(tmp_path / name)
    assert opened == []


CELL = st.one_of(
    st.sampled_from(
        ["", "1", "-2.5", "1,5", "NA", "#N/A", "x", '"', "1_0", "inf", "1e400", "2024-01-02", " ", "#", "é"]
    ),
    st.text(max_size=4),
)
ROWS = st.lists(st.lists(CELL, min_size=1, max_size=4), max_size=8)
TABLES = st.builds(
    lambda rows, separator, end, encoding: end.join(separator.join(r) for r in rows).encode(encoding, "replace"),
    ROWS,
    st.sampled_from([",", ";", "\t", " ", "|"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
)


def _archive():
    buffer, frame = io.BytesIO(), io.BytesIO()
    np.savez(buffer, a=TABLE)
    pd.DataFrame(TABLE, columns=["x", "y"]).to_parquet(frame)
    return buffer.getvalue(), frame.getvalue()


SEEDS = [
    TEXT,
    gzip.compress(TEXT),
    bz2.compress(TEXT),
    lzma.compress(TEXT),
    zipped(a_csv=TEXT),
    header((3, 2), bytes(48)),
]
SEEDS += _archive()
CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6)


def changed(seed, changes, cut):
    content = bytearray(seed)
    for place, value in changes:
        content[place % len(content)] = value
    return bytes(content[: len(content) - cut % len(content)] if cut % 3 == 0 else content)


MUTANTS = st.builds(changed, st.sampled_from(SEEDS), CHANGES, st.integers(0, 10**6))
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "columns": st.sampled_from([["0"], ["x"], ["1", "0"]]),
        "weights": st.sampled_from(["y", "1"]),
        "drop_missing": st.booleans(),
        "missing": st.sampled_from([[], [-2.5], ["x"]]),
    },
)


def survives(path, content, options):
    path.write_bytes(content)
    message, data = "", None
    try:
        data = read(path, **options)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    assert data is None or np.isfinite(data.points).all()


@given(st.one_of(TABLES, MUTANTS, st.binary(max_size=60)), OPTIONS)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_any_bytes_are_data_or_an_error_in_a_line(tmp_path_factory, content, options):
    survives(tmp_path_factory.getbasetemp() / "fuzz.csv", content, options)


@pytest.mark.slow
@given(st.one_of(TABLES, MUTANTS, st.binary(max_size=60)), OPTIONS)
@settings(deadline=None, max_examples=100_000, database=None)
def test_a_hundred_thousand_inputs(tmp_path_factory, content, options):
    survives(tmp_path_factory.getbasetemp() / "fuzz.csv", content, options)
