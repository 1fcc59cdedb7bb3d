"""A text as a table: encoding, separator, header, and the rows, read by pandas where lines are regular."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..errors import InputError
from ._numbers import is_number
from ._source import Source
from ._table import NOTHING, Table, column

MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\x00\x00": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
SEPARATORS = "\t;|,"
BLANKS = r"\s+"
BLANK = re.compile(rb"\n\n")  # Found in half the time that `in` takes where lines are short.
LOOK, HEAD = 50, 2**20
"""Lines that a table's form is told from, and bytes that they are looked for in."""
SHEET_ERROR = re.compile(r"#(N/A|NA\b|VALUE!|DIV/0!|REF!|NUM!|NULL!|NAME\?)", re.IGNORECASE)
EXACT: dict[str, Any] = (
    {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
)
"""Every digit counts: which is what pandas does by itself from version 3.1 on."""
ALL_MISSING = sorted({f(word) for word in NOTHING for f in (str.lower, str.upper, str.title)} | {"NaN", "NaT", "<NA>"})


class Records(NamedTuple):
    """The records of a text that say something: the first few, all of them as one text, and the line each begins on."""

    first: list[str]
    text: bytes
    size: int
    lines: Callable[[], tuple[list[str], Sequence[int]]]


class Form(NamedTuple):
    """How the cells of a text are separated, the names of its columns, and whether its first row gave them."""

    separator: str
    names: list[str]
    header: bool
    notes: tuple[str, ...]


def read_text(source: Source, missing: tuple[str, ...] = ()) -> Table:
    """The table of a text. Lines that are blank or begin with # are skipped; a first row that names columns is a header.

    Raises `InputError` for what is no text, for lines with more or fewer cells than others, and where there are no data.
    """
    records, form = _told(source)
    read = frame(source.where, records, form, **exact(missing))

    def places(rows: Sequence[int]) -> list[str]:
        numbers = records.lines()[1]
        return [f"{source.where}, line {numbers[row + form.header]}" for row in rows]

    cell = lambda row, j: cells(records.lines()[0][row + form.header], form.separator)[j].strip()
    columns = [column(read.iloc[:, j]) for j in range(len(form.names))]
    return Table(source.where, form.names, columns, form.header, places, cell, form.separator, form.notes)


def read_cells(source: Source) -> pd.DataFrame:
    """All cells of the table of a text, as they are written, under the names of their columns, else positions."""
    records, form = _told(source)
    read = frame(source.where, records, form, keep_default_na=False, na_filter=False, dtype=str)
    read.attrs["separator"] = form.separator
    return read.set_axis(form.names, axis=1)


def _told(source: Source) -> tuple[Records, Form]:
    """The records of a text, each of them one row, and their form."""
    records = _records(decoded(source))
    form = form_of(source.where, records)
    check_quotes(source.where, records, form.separator)
    return records, form


def exact(missing: Sequence[str]) -> dict[str, Any]:
    """How pandas reads numbers to the last digit, and what it takes for missing."""
    return {"keep_default_na": False, "na_values": [*ALL_MISSING, *missing], "low_memory": False, **EXACT}


def form_of(where: str, records: Records) -> Form:
    """The form of a text, from its first records."""
    if not records.size:
        raise InputError(f"{where}: empty; give at least one line of numbers")
    separator = _separator(records.first)
    try:
        names, header, notes = _header([cells(line, separator) for line in records.first])
    except csv.Error as error:
        raise InputError(f"{where}: not a text table ({error}); save it as CSV") from error
    if records.size == header:
        raise InputError(f"{where}: a header and no data; add at least one line of numbers")
    return Form(separator, names, header, notes)


def decoded(source: Source) -> bytes:
    """The text in UTF-8: by its mark, as UTF-8, or as Windows' Latin-1. Raises `InputError` for what is no text."""
    content = source.content
    tried = encodings(content)
    if len(tried) > 1 and 0 in content:
        raise InputError(f"{source.where}: not a text table; save it as CSV")
    if len(tried) > 1 and content.isascii() and printable(content[:4_000].decode()):
        return content  # Which is UTF-8 as it stands, and told ten times as fast.
    for encoding in tried:
        try:
            text = content.decode(encoding)
        except UnicodeError:
            continue
        if not printable(text[:4_000]):
            break
        return content.removeprefix(codecs.BOM_UTF8) if encoding.startswith("utf-8") else text.encode()
    raise InputError(f"{source.where}: not a text table; save it as CSV in UTF-8")


def encodings(start: bytes) -> tuple[str, ...]:
    """What a text that begins so may be encoded in: one by its mark or its zeros, else several to be tried in turn."""
    marked = next((name for mark, name in MARKS.items() if start.startswith(mark)), None)
    if marked is None and start[:400].count(0) > 0.3 * len(start[:400]):
        marked = "utf-16-le" if start[1:400:2].count(0) >= start[0:400:2].count(0) else "utf-16-be"
    return (marked,) if marked else ("utf-8", "cp1252", "latin-1")


def printable(text: str) -> bool:
    """Whether this is text, and not bytes that mean something else."""
    return sum(not (c.isprintable() or c.isspace()) for c in text) <= 0.05 * len(text)


def _records(text: bytes) -> Records:
    """What a text says, as it is where nothing is to be skipped and nothing is quoted."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not text or text.isspace():
        return Records([], b"", 0, lambda: ([], []))
    if is_regular(text):
        return regular(text)
    lines, numbers, _ = told(split(text))
    return of_lines(lines, numbers)


def is_regular(text: bytes) -> bool:
    """Whether every line of a text is a record as it stands."""
    indented = text[:1] in b" \t" or any(mark[1:] in text and mark in text for mark in (b"\n ", b"\n\t"))
    return not (indented or text[:1] == b"\n" or b'"' in text or b"#" in text or BLANK.search(text))


def regular(text: bytes, line: int = 1) -> Records:
    """The records of a text every line of which is one, the first line being number `line`."""
    size = _count(text, b"\n") + (not text.endswith(b"\n"))
    first = text[: text.find(b"\n", HEAD) if len(text) > HEAD else None].decode().split("\n")[:LOOK]
    lines = cache(lambda: split(text))
    return Records([line for line in first if line], text, size, lambda: (lines(), range(line, line + size)))


def _count(text: bytes, mark: bytes, start: int = 0) -> int:
    """How often a byte occurs from a place on: NumPy takes half the time of `bytes.count` where it occurs often."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8, offset=start) == ord(mark))) if start < len(text) else 0


def of_lines(lines: list[str], numbers: list[int]) -> Records:
    """Records that were told apart."""
    return Records(lines[:LOOK], "\n".join(lines).encode(), len(lines), lambda: (lines, numbers))


def split(text: bytes) -> list[str]:
    """The lines of a text."""
    return text.decode().removesuffix("\n").split("\n")


def told(lines: list[str], first: int = 1) -> tuple[list[str], list[int], bool]:
    """Records without blank lines and remarks, one that is quoted over several lines as one, and where they begin.

    `first`: the number of the first line. Also tells whether the last record ends inside quotes.
    """
    records, numbers, inside = [], [], False
    for number, line in enumerate(lines, first):
        odd = line.count('"') % 2 == 1
        if inside:
            records[-1] += f"\n{line}"
            inside = not odd
            continue
        bare = line.strip(" ")
        if not bare.strip() or (bare[0] == "#" and not SHEET_ERROR.match(bare)):
            continue
        records.append(bare)
        numbers.append(number)
        inside = odd
    return records, numbers, inside


def _separator(lines: list[str]) -> str:
    """The separator that parts most lines into the same number of cells, more than one; blanks last.

    A header such as "Velocity (km/s), low" may hold another separator: the lines below it decide.
    """
    below = lines[1:] or lines
    for separator in SEPARATORS:
        counts = [len(_try(line, separator)) for line in below]
        common = max(set(counts), key=counts.count)
        if common > 1 and counts.count(common) >= 0.8 * len(counts):
            return separator
    if all(len(line.split()) > 1 and all(map(_is_cell, line.split())) for line in below):
        return BLANKS
    several = [s for s in SEPARATORS if any(len(_try(line, s)) > 1 for line in below)]
    return several[0] if several else "\t"


def _is_cell(word: str) -> bool:
    return is_number(word) or word.lower() in NOTHING or word[:1] in "\"'" or word.isidentifier()


def _try(line: str, separator: str) -> list[str]:
    try:
        return cells(line, separator)
    except csv.Error:
        return []


def cells(line: str, separator: str) -> list[str]:
    """The cells of one record."""
    if separator == BLANKS:
        return next(csv.reader([re.sub(r"[ \t]+", " ", line.strip())], delimiter=" "))
    return next(csv.reader(io.StringIO(line), delimiter=separator, skipinitialspace=True), [""])


def _header(sample: list[list[str]]) -> tuple[list[str], bool, tuple[str, ...]]:
    """Names of the columns, positions where there is no header; whether the first row is one; and what to say of it."""
    first, below = [" ".join(cell.split()) for cell in sample[0]], sample[1:]
    width = len(below[0]) if below else len(first)
    is_header = _names(first, below)
    if not is_header:
        return [str(j) for j in range(len(first))], False, ()
    if below and width == len(first) + 1:
        # Rows have one cell more: a separator at their end, or, as R writes them, names at their beginning.
        ends = all(not row[-1].strip() for row in below if len(row) == width)
        first = [*first, ""] if ends else ["", *first]
    words = any(cell and not is_number(cell) for cell in first)
    return first, True, () if words else ("the first row, of numbers alone, was taken for a header",)


def _names(first: list[str], below: list[list[str]]) -> bool:
    """Whether the first row names columns: by a word above numbers, by words alone, or as pandas numbers its columns."""
    words = [cell != "" and not is_number(cell) and cell.lower() not in NOTHING for cell in first]
    if not any(words):
        counted = [cell for cell in first if cell]
        numbered = counted == [str(j) for j in range(len(counted))] and len(first) - len(counted) <= 1
        fractions = any("." in cell or "e" in cell.lower() for row in below for cell in row if is_number(cell))
        return bool(numbered and below and (len(first) > len(counted) or fractions))
    rows = [row for row in below if any(cell.strip() for cell in row)]
    over = [j for j, word in enumerate(words) if word]
    numeric = lambda j: [is_number(row[j]) for row in rows if j < len(row) and row[j].strip().lower() not in NOTHING]
    if any(any(numeric(j)) and sum(numeric(j)) * 2 >= len(numeric(j)) for j in over):
        return True
    return all(word or cell == "" for word, cell in zip(words, first, strict=True))


def check_quotes(where: str, records: Records, separator: str) -> None:
    """Raise `InputError` at the first record of several lines, or of an odd number of quotes, that is not one row.

    Lines are put together while their quotes are odd, but a quote in the middle of a cell opens nothing.
    """
    if b'"' not in records.text:
        return
    lines, numbers = records.lines()
    for number, line in zip(numbers, lines, strict=True):
        if ("\n" in line or line.count('"') % 2 == 1) and not _is_one(line, separator):
            raise InputError(f"{where}, line {number}: a quote is not closed; close it, or remove it")


def _is_one(record: str, separator: str) -> bool:
    """Whether a record is one row, after which another begins."""
    text = io.StringIO(f"{record}\n0")
    try:
        rows = list(csv.reader(text, delimiter=" " if separator == BLANKS else separator, skipinitialspace=True))
    except csv.Error:  # A cell of more than 131,072 characters.
        return False
    return rows[1:] == [["0"]]


def check_lengths(where: str, records: Records, form: Form, *, surely: bool = False) -> None:
    """Raise `InputError` at the first row with more or fewer cells than the others; `surely`: look at every row."""
    separator, header, width = form.separator, form.header, len(form.names)
    countable = separator != BLANKS and b'"' not in records.text
    # Too few cells in one row may make up for too many in another: of the latter pandas complains.
    below = records.text.find(b"\n") + 1 if header else 0
    if (
        countable
        and not surely
        and _count(records.text, separator.encode(), below) == (width - 1) * (records.size - header)
    ):
        return
    lines, numbers = records.lines()
    if separator == BLANKS:
        rows = (cells(line, separator) for line in lines[header:])
    else:
        rows = csv.reader(io.StringIO("\n".join(lines[header:])), delimiter=separator, skipinitialspace=True)
    try:
        for number, row in zip(numbers[header:], rows, strict=False):
            if len(row) != width:
                raise InputError(f"{where}, line {number}: found {len(row)} cells, expected {width}; correct the line")
    except csv.Error as error:
        raise InputError(f"{where}: not a text table ({error}); save it as CSV") from error


def frame(where: str, records: Records, form: Form, **options: Any) -> pd.DataFrame:
    """The rows below the header, as pandas reads them with these options."""
    check_lengths(where, records, form)
    text, header = io.BytesIO(records.text), form.header
    shape = {"sep": form.separator, "header": None, "skiprows": int(header), "skipinitialspace": True}
    try:
        read = pd.read_csv(text, skip_blank_lines=False, **shape, **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, OverflowError) as error:
        check_lengths(where, records, form, surely=True)
        reason = (
            "a quote is not closed"
            if "EOF inside string" in str(error)
            else " ".join(re.sub(r"in line \d+", "in a line", str(error)).split())
        )
        raise InputError(f"{where}: not a text table ({reason}); save it as CSV") from error
    if len(read) != records.size - header:
        raise InputError(f"{where}: not a text table (a quote is not closed); save it as CSV")
    if read.shape[1] != len(form.names):
        check_lengths(where, records, form, surely=True)
    return read
