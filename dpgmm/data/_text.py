"""A text as a table: encoding, separator, header, and the rows, read by pandas where lines are regular."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import pandas as pd

from ..errors import InputError
from ._numbers import is_number
from ._source import Source
from ._table import NOTHING, Table, column

MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\x00\x00": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
SEPARATORS = "\t;|,"
BLANKS = r"\s+"
LOOK, HEAD = 50, 2**20
"""Lines that a table's form is told from, and bytes that they are looked for in."""
SHEET_ERROR = re.compile(r"#(N/A|NA\b|VALUE!|DIV/0!|REF!|NUM!|NULL!|NAME\?)", re.IGNORECASE)
EXACT: dict[str, Any] = (
    {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
)
"""Every digit counts: which is what pandas does by itself from version 3.1 on."""
ALL_MISSING = sorted({f(word) for word in NOTHING for f in (str.lower, str.upper, str.title)} | {"NaN", "NaT", "<NA>"})


class _Records(NamedTuple):
    """The records of a text that say something: the first few, all of them as one text, and the line each begins on."""

    first: list[str]
    text: bytes
    size: int
    lines: Callable[[], tuple[list[str], Sequence[int]]]


class _Form(NamedTuple):
    """A text's records, how their cells are separated, the names of its columns, and whether its first row gave them."""

    records: _Records
    separator: str
    names: list[str]
    header: bool
    notes: tuple[str, ...]


def read_text(source: Source, missing: tuple[str, ...] = ()) -> Table:
    """The table of a text. Lines that are blank or begin with # are skipped; a first row that names columns is a header.

    Raises `InputError` for what is no text, for lines with more or fewer cells than others, and where there are no data.
    """
    records, separator, names, header, notes = form = _form(source)
    words = [*ALL_MISSING, *missing]
    frame = _frame(source.where, form, keep_default_na=False, na_values=words, low_memory=False, **EXACT)

    def place(row: int, j: int) -> tuple[str, str]:
        lines, numbers = records.lines()
        return f"{source.where}, line {numbers[row + header]}", _cells(lines[row + header], separator)[j].strip()

    columns = [column(frame.iloc[:, j]) for j in range(len(names))]
    return Table(source.where, names, columns, header, place, separator, notes)


def read_cells(source: Source) -> pd.DataFrame:
    """All cells of the table of a text, as they are written, under the names of their columns, else positions."""
    form = _form(source)
    frame = _frame(source.where, form, keep_default_na=False, na_filter=False, dtype=str)
    frame.attrs["separator"] = form.separator
    return frame.set_axis(form.names, axis=1)


def _form(source: Source) -> _Form:
    records = _records(decoded(source))
    if not records.size:
        raise InputError(f"{source.where}: empty; give at least one line of numbers")
    separator = _separator(records.first)
    try:
        names, header, notes = _header([_cells(line, separator) for line in records.first])
    except csv.Error as error:
        raise InputError(f"{source.where}: not a text table ({error}); save it as CSV") from error
    if records.size == header:
        raise InputError(f"{source.where}: a header and no data; add at least one line of numbers")
    _check_lengths(source.where, records, header=header, separator=separator, width=len(names))
    return _Form(records, separator, names, header, notes)


def decoded(source: Source) -> bytes:
    """The text in UTF-8: by its mark, as UTF-8, or as Windows' Latin-1. Raises `InputError` for what is no text."""
    content = source.content
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), None)
    if encoding is None and content[:400].count(0) > 0.3 * len(content[:400]):
        encoding = "utf-16-le" if content[1:400:2].count(0) >= content[0:400:2].count(0) else "utf-16-be"
    if encoding is None and 0 in content:
        raise InputError(f"{source.where}: not a text table; save it as CSV")
    for tried in (encoding,) if encoding else ("utf-8", "cp1252", "latin-1"):
        try:
            text = content.decode(tried)
        except UnicodeError:
            continue
        if sum(not (c.isprintable() or c.isspace()) for c in text[:4_000]) > 0.05 * len(text[:4_000]):
            break
        return content.removeprefix(codecs.BOM_UTF8) if tried.startswith("utf-8") else text.encode()
    raise InputError(f"{source.where}: not a text table; save it as CSV in UTF-8")


def _records(text: bytes) -> _Records:
    """What a text says, as it is where nothing is to be skipped and nothing is quoted."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not text or text.isspace():
        return _Records([], b"", 0, lambda: ([], []))
    split = cache(lambda: text.decode().removesuffix("\n").split("\n"))
    indented = text[:1] in b" \t" or any(mark[1:] in text and mark in text for mark in (b"\n ", b"\n\t"))
    if not (indented or text[:1] == b"\n" or any(mark in text for mark in (b'"', b"#", b"\n\n"))):
        size = text.count(b"\n") + (not text.endswith(b"\n"))
        first = text[: text.find(b"\n", HEAD) if len(text) > HEAD else None].decode().split("\n")[:LOOK]
        return _Records([line for line in first if line], text, size, lambda: (split(), range(1, size + 1)))
    lines, numbers = _told(split())
    return _Records(lines[:LOOK], "\n".join(lines).encode(), len(lines), lambda: (lines, numbers))


def _told(lines: list[str]) -> tuple[list[str], list[int]]:
    """Records without blank lines and remarks, one that is quoted over several lines as one, and where they begin."""
    records, numbers, inside = [], [], False
    for number, line in enumerate(lines, 1):
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
    return records, numbers


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
        return _cells(line, separator)
    except csv.Error:
        return []


def _cells(line: str, separator: str) -> list[str]:
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


def _check_lengths(where: str, records: _Records, *, header: bool, separator: str, width: int) -> None:
    """Raise `InputError` at the first row with more or fewer cells than the others."""
    regular = separator != BLANKS and b'"' not in records.text
    # Too few cells in one row cannot make up for too many in another: of the latter pandas complains.
    body = records.size - header
    if regular and records.text.count(separator.encode(), _start(records, header=header)) == (width - 1) * body:
        return
    lines, numbers = records.lines()
    if separator == BLANKS:
        rows = (_cells(line, separator) for line in lines[header:])
    else:
        rows = csv.reader(io.StringIO("\n".join(lines[header:])), delimiter=separator, skipinitialspace=True)
    try:
        for number, row in zip(numbers[header:], rows, strict=False):
            if len(row) != width:
                raise InputError(f"{where}, line {number}: found {len(row)} cells, expected {width}; correct the line")
    except csv.Error as error:
        raise InputError(f"{where}: not a text table ({error}); save it as CSV") from error


def _start(records: _Records, *, header: bool) -> int:
    """Where the rows begin in the text."""
    return len(records.first[0].encode()) + 1 if header else 0


def _frame(where: str, form: _Form, **options: Any) -> pd.DataFrame:
    """The rows below the header, as pandas reads them with these options."""
    text, header = io.BytesIO(form.records.text), form.header
    shape = {"sep": form.separator, "header": None, "skiprows": int(header), "skipinitialspace": True}
    try:
        frame = pd.read_csv(text, skip_blank_lines=False, **shape, **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: not a text table ({' '.join(str(error).split())}); save it as CSV") from error
    if len(frame) != form.records.size - header:
        raise InputError(f"{where}: not a text table (a quote is not closed); save it as CSV")
    return frame
