import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpgmm.data import Dataset, _scratch, dataset, read
from dpgmm.data import _source as source
from dpgmm.errors import InputError

pytestmark = pytest.mark.quick("data")


def test_points_become_read_only_columns_of_float64():
    given_points = np.array([1, 2, 4], np.int32)
    data = Dataset(given_points)
    assert data.points.shape == (3, 1)
    assert data.points.dtype == data.weights.dtype == np.float64
    assert (data.size, data.dim, data.total_weight, data.name) == (3, 1, 3.0, "data")
    with pytest.raises(ValueError, match="read-only"):
        data.points[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        data.weights[0] = 0


def test_a_dataset_keeps_a_copy():
    points, weights = np.zeros((3, 2)), np.ones(3)
    data = Dataset(points, weights)
    points[:], weights[:] = 7, 7
    assert data.points.max() == 0
    assert data.weights.max() == 1


@given(st.lists(st.tuples(st.floats(-50, 50), st.integers(0, 4)), min_size=1, max_size=20))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_a_weight_is_a_number_of_repetitions(pairs):
    points, counts = (np.array(column) for column in zip(*pairs, strict=True))
    counts[0] += 1
    weighted, repeated = Dataset(points, counts), Dataset(np.repeat(points, counts))
    assert weighted.total_weight == repeated.size
    np.testing.assert_allclose(weighted.mean, repeated.mean, atol=1e-12)
    np.testing.assert_allclose(weighted.mean, np.mean(repeated.points), atol=1e-12)
    np.testing.assert_allclose(weighted.scale, repeated.scale, rtol=1e-9, atol=1e-12)


def test_scale_is_the_population_standard_deviation_and_one_where_there_is_none():
    points = np.random.default_rng(0).normal(size=(50, 2)) * [1, 1e12] + [1e6, 0]
    np.testing.assert_allclose(Dataset(points).scale, points.std(axis=0), rtol=1e-12)
    # The mean of 0.1, 0.1, ... is off by a rounding, and so would be its deviation.
    np.testing.assert_array_equal(Dataset(np.column_stack([[0.1] * 10, range(10)])).scale[0], 1.0)
    np.testing.assert_array_equal(Dataset([3.0, 3.0, 9.0], [1, 1, 0]).scale, [1.0])


@pytest.mark.parametrize(
    ("points", "weights", "message"),
    [
        ([], None, r"points have shape \(0, 1\); give at least one row"),
        (np.zeros((3, 0)), None, r"points have shape \(3, 0\)"),
        (np.zeros((2, 2, 2)), None, r"points have shape \(2, 2, 2\)"),
        (3.0, None, r"points have shape \(\)"),
        ([1.0, np.nan], None, r"points\[1, 0\] is nan; give finite values"),
        ([1.0, -np.inf], None, r"points\[1, 0\] is -inf"),
        ([1.0, 1e200], None, r"points\[1, 0\] is 1e\+200; give finite values of at most 1e100"),
        (["a", "b"], None, "points are not an array of numbers .*give numbers only"),
        (np.array(["1_234"], object), None, "points are not an array of numbers .*'1_234' among them"),
        ([1j], None, "points are not an array of numbers"),
        ([[1, 2], [3]], None, "points are not an array of numbers"),
        ([1, 2], [1], r"weights have shape \(1,\); give one for each of 2 points"),
        ([1, 2], [1, -1], r"weights\[1\] is -1.0; give finite weights of 0 or more"),
        ([1, 2], [1, np.nan], r"weights\[1\] is nan"),
        ([1, 2], [0, 0], "all weights are zero"),
    ],
)
def test_what_cannot_be_a_dataset_is_refused(points, weights, message):
    with pytest.raises(InputError, match=message):
        Dataset(points, weights)


TABLE = np.array([[1.5, 2.0], [-3.0, 4e2]])


@pytest.mark.parametrize(
    "content",
    [
        "x,y\n1.5,2\n-3,4e2\n",
        '"x","y"\r\n"1.5","2"\r\n-3,400\r\n',
        "\ufeffx,y\n1.5,2\n-3,400",
        "\n# a remark\nx;y\n\n1.5;2\n , \n-3;400\n\n".replace(" , ", " ; "),
        "x\ty\n1.5\t2\n-3\t400\n",
        "x  y\n  1.5     2\n -3    400  \n",
        "x, y\n1.5, 2\n-3, 400\n",
        '"","x","y"\n"1",1.5,2\n"2",-3,400\n',
        "1.5,2\n-3,400\n",
        "1.5 2\n-3 400",
    ],
)
def test_read_understands_the_usual_tables(file, content):
    data = read(file(content))
    np.testing.assert_array_equal(data.points, TABLE)
    assert data.name == "file"


def test_read_one_column_whatever_its_header(file):
    for header in ("", "y\n", "Velocity (km/s)\n", '"a; b, c"\n'):
        np.testing.assert_array_equal(read(file(header + "9.172\n9.35\n")).points[:, 0], [9.172, 9.35])
    np.testing.assert_array_equal(read(file("4\n", "one.txt")).points, [[4.0]])


def test_read_returns_every_digit_pandas_wrote(file, tmp_path):
    frame = pd.DataFrame(np.random.default_rng(1).normal(size=(100, 3)) * 1e-7, columns=["a", "b c", "d"])
    for index in (True, False):
        frame.to_csv(tmp_path / "frame.csv", index=index)
        np.testing.assert_array_equal(read(tmp_path / "frame.csv").points, frame.to_numpy())
    frame.to_csv(tmp_path / "frame.TSV", index=False, sep="\t")
    np.testing.assert_array_equal(read(str(tmp_path / "frame.TSV")).points, frame.to_numpy())


def test_read_columns_by_name_and_by_position(file):
    path = file("who,x,y\nann,1.5,2\nbob,-3,400\n")
    np.testing.assert_array_equal(read(path, ["x", "y"]).points, TABLE)
    np.testing.assert_array_equal(read(path, ["y", "1"]).points, TABLE[:, ::-1])
    np.testing.assert_array_equal(read(path, "y").points, TABLE[:, 1:])
    np.testing.assert_array_equal(read(file("1.5,a,2\n-3,400,2\n"), ["2"]).points, [[2.0]])


def test_read_arrays(file, tmp_path):
    np.save(tmp_path / "two.npy", TABLE.astype(np.float32))
    np.save(tmp_path / "one.npy", np.arange(3))
    np.testing.assert_array_equal(read(tmp_path / "two.npy").points, TABLE)
    np.testing.assert_array_equal(read(tmp_path / "two.npy", ["1"]).points, TABLE[:, 1:])
    np.testing.assert_array_equal(read(tmp_path / "one.npy", ["0"]).points[:, 0], [0, 1, 2])
    np.save(tmp_path / "words.npy", np.array(["a"]))
    with pytest.raises(InputError, match=r"words.npy: not an array of numbers \(it holds <U1\)"):
        read(tmp_path / "words.npy")
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    with pytest.raises(InputError, match=r"objects.npy: not an array of numbers .*numpy.save"):
        read(tmp_path / "objects.npy")
    np.savez(tmp_path / "several.npz", a=TABLE, b=TABLE[:, 0])
    with pytest.raises(InputError, match=r"several.npz: several arrays; name one of a, b, as in .*several.npz:a"):
        read(tmp_path / "several.npz")
    np.testing.assert_array_equal(read(f"{tmp_path / 'several.npz'}:b").points, TABLE[:, :1])
    with pytest.raises(InputError, match=r"several.npz: no array 'c'; name one of a, b"):
        read(f"{tmp_path / 'several.npz'}:c")
    np.savez(tmp_path / "one.npz", a=TABLE)
    (tmp_path / "one.npz").rename(tmp_path / "one.csv")  # What it is, not what it is called.
    np.testing.assert_array_equal(read(tmp_path / "one.csv").points, TABLE)
    with pytest.raises(InputError, match=r"empty.npy: empty; give at least one line"):
        read(file(b"", "empty.npy"))


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (
            "x,y\n" + "1,2\n" * 5 + "1,abc\n",
            None,
            r"file.csv, line 7, column 'y': 'abc' is not a number; correct the cell",
        ),
        ("\n\nx,y\n1,2\n\n1,oops\n", None, r"file.csv, line 6, column 'y': 'oops' is not a number"),
        ("x,y\n1,\n3,4\n", None, r"line 2, column 'y': the cell is empty; correct the cell"),
        ("x,y\n1,2\n1,nan\n", None, r"line 3, column 'y': 'nan' is not a finite number"),
        ("x\n1\nNA\n", None, r"line 3, column 'x': 'NA' is not a finite number"),
        ("x\n1\n-inf\n", None, r"line 3, column 'x': '-inf' is not a finite number"),
        ("nan\n1\n2\n", None, r"line 1, column '0': 'nan' is not a finite number"),
        ("x,y\n1,2\n1_234,3\n5,6\n", None, r"line 3, column 'x': '1_234' is not a number; correct the cell"),
        ("x;y\n1,5;2\n2.5;3\n3,5;4\n", None, r"line 3, column 'x': '2.5' is not a number"),
        ("x,y\n1,#N/A\n2,3\n", None, r"line 2, column 'y': '#N/A' is not a finite number"),
        ("x,y\n,\n", None, r"file.csv: column 'x' is not numeric \(empty\), nor is another"),
        ("x\n\x00\x01\x02\n", None, r"file.csv: not a text table"),
        (bytes(range(256)) * 4, None, r"file.csv: not a text table"),
        ("day,t\n2024-01-02,3\n", ["day"], r"column 'day' is not numeric \(line 2: '2024-01-02'\); choose others"),
        ("x\n1e400\n", None, r"line 2, column 'x': '1e400' is not a finite number"),
        ("NA\n1\n", None, r"line 1, column '0': 'NA' is not a finite number"),
        ("who\nann\nbob\n", None, r"column 'who' is not numeric .*give at least one column of numbers"),
        ("who,x\nann,1\n", ["z"], r"no column 'z'; give names or positions \(0, 1, ...\) of: who, x"),
        ("who,x\nann,1\n", ["2"], r"no column '2'"),
        ("x,x\n1,2\n", ["x"], r"more than one column 'x'"),
        ("x,y\n1,2\n", ["x", "0"], r"asked twice for '0'"),
        ("x,y\n1,2\n1,2,3\n", None, r"line 3: found 3 cells, expected 2; correct the line"),
        ("x,y\n1,2\n7\n", None, r"line 3: found 1 cells, expected 2"),
        ("x,y\n", None, r"a header and no data; add at least one line"),
        ("", None, r"file.csv: empty; give at least one line of numbers"),
        ("\n \n# nothing\n", None, r"file.csv: empty"),
        ("x,y\n1," + "9" * 200_000, None, r"file.csv: not a text table .*field limit"),
    ],
)
def test_read_says_what_is_wrong_and_where(file, content, columns, message):
    with pytest.raises(InputError, match=message) as caught:
        read(file(content), columns)
    assert "\n" not in str(caught.value)


def test_read_says_which_file_is_missing(tmp_path, file):
    with pytest.raises(InputError, match=r"nowhere.csv: no such file; give a data file"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match="a folder, not a file"):
        read(tmp_path)


def test_columns_of_one_name_are_refused(file):
    with pytest.raises(InputError, match="file: two columns are called 'age'; rename one, or choose others"):
        read(file("age,age,b\n1,2,3\n4,5,6\n"))


def test_a_point_of_no_weight_gives_no_scale():
    """The mean of three equal points is rounded, so that their deviation is not quite nought."""
    data = Dataset(np.array([0.1, 0.1, 0.1, 5.0]), np.array([1.0, 1.0, 1.0, 0.0]))
    assert data.mean[0] != 0.1
    assert data.scale[0] == 1.0


def test_pieces_change_nothing(monkeypatch):
    points = np.random.default_rng(0).normal(size=(1000, 3)) * [1, 1e3, 1e-3] + [5, 0, 1]
    data, weights = Dataset(points), np.arange(1000) % 3
    monkeypatch.setattr(dataset, "ROWS", 64)
    for omega in (None, weights):
        cut = Dataset(points, omega)
        w = np.ones(1000) if omega is None else omega
        mean = np.average(points, axis=0, weights=w)
        np.testing.assert_allclose(cut.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(cut.scale, np.average((points - mean) ** 2, axis=0, weights=w) ** 0.5, rtol=1e-12)
    assert sum(len(x) for x, _ in data.pieces()) == 1000
    np.testing.assert_array_equal(Dataset([7.0] * 100 + [8.0] * 100, [1] * 100 + [0] * 100).scale, [1.0])
    points[777, 1] = np.nan
    with pytest.raises(InputError, match=r"points\[777, 1\] is nan"):
        Dataset(points)
    with pytest.raises(InputError, match=r"weights\[99\] is -1"):
        Dataset(np.zeros(100), np.where(np.arange(100) == 99, -1, 1))


def test_what_nobody_can_write_to_is_not_copied(tmp_path):
    points = np.zeros((5, 2))
    points.setflags(write=False)
    assert Dataset(points).points is points
    below = np.zeros((5, 2))
    view = below[:]
    view.setflags(write=False)
    held = Dataset(view)
    below[:] = 7  # Through what it is a view of.
    assert held.points.max() == 0
    assert Dataset(np.zeros(5)).weights.strides == (0,)


def test_a_large_array_is_mapped_and_a_small_one_read(tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=(1000, 1))
    np.save(tmp_path / "x.npy", values)
    whole = read(tmp_path / "x.npy")
    monkeypatch.setattr(source, "MAPPED", 1_000)
    mapped = read(tmp_path / "x.npy")
    np.testing.assert_array_equal(mapped.points, values)
    np.testing.assert_array_equal(whole.points, values)
    assert not isinstance(lowest(mapped.points), np.ndarray)
    np.save(tmp_path / "two.npy", np.column_stack([values, values]).astype(np.float32))
    np.testing.assert_array_equal(read(tmp_path / "two.npy", ["1"]).points, values.astype(np.float32))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-8])
    with pytest.raises(InputError, match="cut off or damaged"):
        read(tmp_path / "cut.npy")


@pytest.mark.parametrize(("dtype", "order"), [("f4", "C"), ("i8", "C"), ("?", "C"), (">f8", "C"), ("f8", "F")])
@pytest.mark.parametrize("shape", [(900,), (450, 2)])
def test_a_large_array_of_another_type_or_order_is_mapped_as_float64_rows(tmp_path, monkeypatch, dtype, order, shape):
    monkeypatch.setattr(source, "MAPPED", 500)
    monkeypatch.setattr(_scratch, "CELLS", 100)
    values = np.random.default_rng(0).normal(0, 50, shape).astype(dtype).copy(order)
    np.save(tmp_path / "x.npy", values)
    points = read(tmp_path / "x.npy").points
    np.testing.assert_array_equal(points, values.reshape(-1, points.shape[1]).astype(float))
    assert points.dtype == float
    assert points.flags.c_contiguous
    assert not isinstance(lowest(points), np.ndarray)


def test_a_mapped_array_that_lies_askew_is_laid_down_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAPPED", 500)
    values = np.random.default_rng(0).normal(size=(450, 2))
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (450, 2), }".ljust(69) + b"\n"  # 80 bytes, as of old.
    (tmp_path / "old.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + values.tobytes()
    )
    points = read(tmp_path / "old.npy").points
    np.testing.assert_array_equal(points, values)
    assert points.ctypes.data % 64 == 0


def lowest(array):
    """What an array is a view of, in the end: memory, or a mapped file."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def test_a_sample_is_of_rows_that_carry_weight_and_stands_for_all():
    rng = np.random.default_rng(1)
    data = Dataset(rng.normal(size=(1000, 2)), np.where(np.arange(1000) % 2, 1.0 + np.arange(1000) % 3, 0.0))
    some = data.sample(100)
    assert some.size == 100
    assert some.total_weight == pytest.approx(data.total_weight)
    rows = [int(np.flatnonzero((data.points == x).all(axis=1))[0]) for x in some.points]
    assert rows == sorted(set(rows))
    np.testing.assert_allclose(some.weights / data.weights[rows], some.weights[0] / data.weights[rows[0]])
    assert data.sample(500) is data
    assert Dataset(data.points).sample(1000).size == 1000
    # Every row alike: of 2,000 samples of 10 of 50, each row is in a fifth.
    few = Dataset(np.arange(50.0))
    counts = np.bincount(np.concatenate([few.sample(10, seed).points[:, 0] for seed in range(2_000)]).astype(int))
    assert np.abs(counts - 400).max() < 4.5 * (2_000 * 0.2 * 0.8) ** 0.5
