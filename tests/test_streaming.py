"""Files that are read in pieces: of them is read what is read of the same file in memory, to the last bit and line."""

import errno
import gzip
import os
import subprocess
import sys
import tempfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data import (  # noqa: F401  # the same tests, of pieces
    test_columns_of_one_name_are_refused,
    test_read_arrays,
    test_read_columns_by_name_and_by_position,
    test_read_one_column_whatever_its_header,
    test_read_returns_every_digit_pandas_wrote,
    test_read_says_what_is_wrong_and_where,
    test_read_understands_the_usual_tables,
)
from test_reading import (  # noqa: F401
    MUTANTS,
    OPTIONS,
    TABLES,
    test_a_column_of_weights,
    test_encodings,
    test_missing_cells,
    test_packed_files_are_unpacked,
    test_standard_input,
    test_tables_as_people_write_them,
    test_tables_of_other_programs,
    test_what_is_damaged_is_told_in_a_line,
)

from dpgmm.data import _arrays, _blocks, _columns, _source, _streaming, dataset, read
from dpgmm.data.reading import read_rows
from dpgmm.errors import InputError

pytestmark = pytest.mark.quick("data")
SMALL = {
    (_source, "STREAMED"): 1,
    (_source, "MAPPED"): 1,
    (_source, "PIECE"): 7,
    (_blocks, "BLOCK"): 16,
    (_arrays, "BATCH"): 2,
    (_columns, "LARGE"): 1,
    (_columns, "ROWS"): 3,
    (dataset, "ROWS"): 3,
}


@pytest.fixture(autouse=True)
def in_pieces(monkeypatch):
    for (module, name), value in SMALL.items():
        monkeypatch.setattr(module, name, value)


def outcome(path, **options):
    try:
        data, rows = read_rows(path, **options)
    except InputError as error:
        return str(error)
    return (
        data.points.shape,
        data.points.tobytes(),
        data.weights.tobytes(),
        data.name,
        data.columns,
        data.notes,
        [*rows],
    )


def agree(path, **options):
    """What is read in pieces of several sizes is what is read whole."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in SMALL:
            patch.setattr(module, name, 2**20)
        whole = outcome(path, **options)
    with pytest.MonkeyPatch.context() as patch:
        for size in (7, 61, 2**20):
            patch.setattr(_blocks, "BLOCK", size)
            patch.setattr(_arrays, "BATCH", size)
            assert outcome(path, **options) == whole
    return whole


@given(st.one_of(TABLES, MUTANTS, st.binary(max_size=60)), OPTIONS)
@settings(deadline=None, derandomize=True, max_examples=100)
def test_any_bytes_are_read_alike(tmp_path_factory, content, options):
    alike(tmp_path_factory.getbasetemp() / "alike.csv", content, options)


def alike(path, content, options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.MonkeyPatch.context() as patch:
        for (module, name), value in SMALL.items():
            patch.setattr(module, name, value)
        agree(path, **options)


COLUMNS = [
    *(["1", "2.5", "-3", "4e2"], ["1", "2", "3", "7"], ["1,5", "2,25", "7"], ["1.234,5", "7", "1.000"], ["x", "y", ""]),
    *(["", "1.5", "NA"], ["True", "False"], ["2024-01-02", "2024-02-03"], ["inf", "1", "2"], [" 5", "6 ", "7"], [""]),
    *(["1", "99999999999999999999", "5.5"], ["-2.5", "-2.50"], ['"a b"', '"1"', "1"], ["x", "1", "2", "3", "4", "5"]),
]


@st.composite
def tables(draw):
    """Tables whose columns are of one kind each, most of them regular, some with a row too long or too short."""
    pools = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=4))
    size = draw(st.integers(1, 14))
    rows = [[draw(st.sampled_from(pool)) for pool in pools] for _ in range(size)]
    if draw(st.booleans()):
        order = draw(st.sampled_from([range(size), range(1, size + 1), range(size, 0, -1), [7] * size]))
        rows = [[str(i), *row] for i, row in zip(order, rows, strict=True)]
    if draw(st.booleans()):
        rows.insert(0, ["id", "x", "y", "z", "w"][: len(rows[0])])
    damage = draw(st.sampled_from([None] * 8 + ["longer", "shorter", "both"]))
    if damage in ("longer", "both"):
        rows[draw(st.integers(0, len(rows) - 1))].append("1")
    if damage in ("shorter", "both"):
        rows[draw(st.integers(0, len(rows) - 1))].pop()
    separator, end = draw(st.sampled_from(",;\t| ")), draw(st.sampled_from(["\n", "\r\n"]))
    lines = [separator.join(f'"{c}"' if separator in c and '"' not in c else c for c in row) for row in rows]
    if draw(st.integers(0, 4)) == 0:
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(["", "# a remark", "  "])))
    return end.join(lines) + draw(st.sampled_from(["", end]))


@given(tables(), OPTIONS)
@settings(deadline=None, derandomize=True, max_examples=40)
def test_tables_are_read_alike(tmp_path_factory, content, options):
    alike(tmp_path_factory.getbasetemp() / "alike.csv", content, options)


@pytest.mark.slow
@given(st.one_of(tables(), TABLES, MUTANTS, st.binary(max_size=60)), OPTIONS)
@settings(deadline=None, max_examples=10_000, database=None)
def test_ten_thousand_inputs_are_read_alike(tmp_path_factory, content, options):
    alike(tmp_path_factory.getbasetemp() / "alike.csv", content, options)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        # What the end of a column says of its beginning.
        ("x,y\n" + "1,2\n" * 20 + "1,oops\n", {}),
        ("x,y\n" + "1,2\n" * 20 + "1,\n" + "1,2\n" * 20 + ",3\n", {}),
        ("x,y\n" + "1,2\n" * 20 + "1,\n" + ",\n" * 9 + "1,2\n" * 20, {"drop_missing": True}),
        ("x;y\n" + "1;2\n" * 20 + "1;2,5\n", {}),
        ("x;y\n" + "1.234;2\n" * 20 + "1,5;2,5\n", {}),
        ("x\ty\n" + "1,234\t2\n" * 20 + "1,5\t2,5\n", {}),
        ("x,y\n" + "1,2\n" * 9 + "1,a\n" * 20, {}),
        ("x,y\n" + "1,a\n" * 9 + "1,2\n" * 8, {}),
        ("x,y\n" + "1,a\n" * 9 + "1,2\n" * 9, {}),
        ("x,y\n" + "1,True\n" * 9 + "1,2\n" * 8, {}),
        ("x,y\n" + "1,\n" * 9, {}),
        ("x,y\n" + "1,\n" * 9 + "1,a\n", {}),
        ("x,y\n" + "1,2\n" * 9 + "-inf,2\n", {}),
        ("x,y,w\n" + "1,2,3\n" * 9 + "1,2,-200.0\n", {"missing": ["-200"], "weights": "w", "drop_missing": True}),
        # Columns that count the rows, and some that do not.
        ("id,x\n" + "".join(f"{i},1\n" for i in range(20)), {}),
        ("id,x\n" + "".join(f"{i * 7 % 20},1\n" for i in range(20)), {}),
        ("id,x\n" + "".join(f"{i * 7 % 20},1\n" for i in range(21)), {}),
        ("id,x\n" + "".join(f"{i},1\n" for i in range(20)) + "20.5,1\n", {}),
        ("id,x\n" + "".join(f"{i % 3},1\n" for i in range(21)), {}),
        ("".join(f"{i},1.5\n" for i in range(20)), {}),
        ("".join(f"{i},1.5\n" for i in range(1, 20)) + "21,1\n", {}),
        ("1,5\n" * 9, {}),
        ("1,5\n" * 9 + "1,5.5\n", {}),
        # Lines that are no records, or records of several lines.
        ("x,y\n" + "1,2\n" * 9 + "# a remark\n\n" + "1,\n1,2\n", {}),
        ("x,y\n" + "1,2\n" * 9 + '"1\n\n\n",2\n' + "1,2\n" * 9 + "1,b\n", {"columns": ["y"]}),
        ("x,y\n" + "1,2\n" * 9 + '"1,2\n' + "1,2\n" * 9, {}),
        ("x,y\n" + "1,2\n" * 9 + "1,2,3\n" + "1,2\n" * 9 + "7\n", {}),
        ("x y\n" + "1  2\n" * 9 + "1 2 3\n", {}),
        ("x\n", {}),
        # Quotes in the middle of a cell, and some that are never closed.
        ('\x0b"\n"\n!', {}),
        ('size,x,y\nsmall,81,46\nlarge,85,44\n5",22,99\n"two\nlines","3",72\n', {"columns": ["x", "y"]}),
        ('size,x\n5",22\n6",23\n', {"columns": ["x"]}),
        ('size,x\n"5"" pipe",22\n"two\nlines",23\n', {"columns": ["x"]}),
        ('x y\n1 2\n"3\n4" 5\n', {}),
    ],
)
@pytest.mark.parametrize(("encoding", "end"), [("utf-8", "\n"), ("utf-16", "\r\n")])
def test_what_comes_late_is_read_alike(file, text, options, encoding, end):
    agree(file(text.replace("\n", end).encode(encoding)), **options)


def test_a_late_letter_tells_the_encoding(file):
    path = file(("x,who\n" + "1,a\n" * 50).encode() + "2,\u00e9\n".encode("latin-1"))
    assert agree(path)[:1] == ((51, 1),)
    assert agree(file(("x\n" + "1\n" * 50).encode() + b"\0\n")).endswith("not a text table; save it as CSV")


def test_parquet_is_read_alike(tmp_path):
    frame = pd.DataFrame({"id": range(9), "x": [0.5] * 8 + [np.nan], "n": [2**60 + 1] * 9, "who": [None] * 8 + ["a"]})
    frame["words"] = ["1,5"] * 9
    frame["flag"] = [True, None] * 4 + [False]
    frame["day"] = pd.Timestamp("2024-01-02")
    for columns in (None, ["x", "words"], ["who"], ["n"], ["flag"]):
        for drop in (True, False):
            frame.to_parquet(tmp_path / "t.parquet")
            agree(tmp_path / "t.parquet", columns=columns, drop_missing=drop)
    assert agree(tmp_path / "t.parquet", columns=["n"])[0] == (9, 1)
    frame.iloc[:0].to_parquet(tmp_path / "t.parquet")
    assert "a table of shape (0, 7)" in agree(tmp_path / "t.parquet")


def base_of(array):
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def test_numbers_are_on_disk_and_no_more_of_the_text_is_held_than_a_block(file, monkeypatch):
    text = b"who,x,y,z\n" + b"a,1.5,2,3\n" * 300
    paths = [file(text), file(gzip.compress(text), "x.csv.gz")]
    sizes, frame = [], _streaming.frame
    monkeypatch.setattr(_blocks, "BLOCK", 100)
    monkeypatch.setattr(_streaming, "frame", lambda w, b, *a, **k: sizes.append(len(b.text)) or frame(w, b, *a, **k))
    for columns in (None, ["y"], ["z", "x"]):
        for path in paths:
            data = read(path, columns)
            assert isinstance(base_of(data.points), memoryview)
            assert not data.points.flags.writeable
    assert max(sizes) < 200
    assert len(sizes) > 6 * 25


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_full_disk_is_told_in_a_line(file, monkeypatch, pack):
    path = file(pack(b"x,y\n" + b"1,2\n" * 20))
    made = tempfile.TemporaryFile

    class Full:
        def __init__(self):
            self.file = made()
            self.write = full
            self.close = self.file.close

    for name, of in ("write", Full), ("open", full):
        monkeypatch.setattr(tempfile, "TemporaryFile", of)
        with pytest.raises(
            InputError, match=r"finds no room on disk in .* \(No space left.*\); set TMPDIR to"
        ) as caught:
            read(path)
        assert "\n" not in str(caught.value), name


def test_nothing_is_left_of_what_was_broken_off(file, monkeypatch, tmp_path):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    path = file("x,y\n" + "1,2\n" * 20)
    kept = read(path)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert kept.points.sum() == 60
    pieces = iter([_streaming.frame] * 3)

    def broken(*args, **kwargs):
        of = next(pieces, None)
        if of is None:
            raise KeyboardInterrupt
        return of(*args, **kwargs)

    monkeypatch.setattr(_streaming, "frame", broken)
    with pytest.raises(KeyboardInterrupt):
        read(path)
    assert list((tmp_path / "scratch").iterdir()) == []


PEAK = """
import sys
import dpgmm.data
from pathlib import Path
peak = lambda: int(next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM")).split()[1])
dpgmm.data.read(sys.argv[1])
before = peak()
data = dpgmm.data.read(sys.argv[2])
print(data.size, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch, ending):
    """Beside the numbers themselves, which are pages of a file that the system may take back: 8 bytes each."""
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=16_000_000)})
    paths = [tmp_path / f"{rows}.{ending}" for rows in (1_000_000, len(frame))]
    for path in paths:
        part = frame[: int(path.stem)]
        part.to_csv(path, index=False) if ending == "csv" else part.to_parquet(path)
    ran = subprocess.run([sys.executable, "-c", PEAK, *map(str, paths)], capture_output=True, text=True, check=True)
    size, grown = map(int, ran.stdout.split())
    assert size == len(frame)
    assert grown * 1024 < 8 * size + 2**27
