"""A large text in blocks of whole records, each as a small text would be, whatever its encoding and its line ends."""

import codecs
import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ..errors import InputError
from ._source import Source
from ._text import HEAD, LOOK, Records, encodings, is_regular, of_lines, printable, regular, split, told

BLOCK = 2**24
"""Bytes that are read at a time."""
RECORD = 2**24
"""Characters from which on a record that is quoted over several lines is taken to be one whose quote is never closed."""


class Blocks(NamedTuple):
    """An open text: how it is encoded, whether all of its lines are records as they stand, and whether any is quoted."""

    where: str
    file: BinaryIO
    encoding: str
    regular: bool
    quoted: bool

    @classmethod
    def of(cls, source: Source) -> "Blocks":
        """What a first look at all of a text tells. Raises `InputError` for what is no text, or blank."""
        assert source.file is not None
        tried = encodings(source.content)
        for encoding in tried:
            blank, plain, quoted = True, True, False
            try:
                for text in _texts(source.file, encoding):
                    content = text.encode()
                    blank &= content.isspace()
                    plain = plain and is_regular(content)
                    quoted = quoted or b'"' in content
                    if len(tried) > 1 and 0 in content:
                        raise InputError(f"{source.where}: not a text table; save it as CSV")
            except UnicodeError:
                continue
            if not printable(codecs.getincrementaldecoder(encoding)().decode(source.content)[:4_000]):
                break
            if blank:
                raise InputError(f"{source.where}: empty; give at least one line of numbers")
            return cls(source.where, source.file, encoding, plain, quoted)
        raise InputError(f"{source.where}: not a text table; save it as CSV in UTF-8")

    def head(self) -> Records:
        """The first records: as many as tell the form of a text, and at least two where there are two."""
        if self.regular:
            text = b""
            for block in self.records():
                text += block.text
                if len(text) > HEAD and text.count(b"\n") > 1:
                    break
            return regular(text)
        lines: list[str] = []
        for block in self.records():
            lines += block.lines()[0]
            if len(lines) >= LOOK:
                break
        return of_lines(lines, list(range(len(lines))))

    def records(self) -> Iterator[Records]:
        """All records, a block at a time."""
        return self._regular() if self.regular else self._told()

    def _regular(self) -> Iterator[Records]:
        line = 1
        for text in _texts(self.file, self.encoding):
            block = regular(text.encode(), line)
            line += block.size
            yield block

    def _told(self) -> Iterator[Records]:
        rest, line = [], 1
        for text in _texts(self.file, self.encoding):
            lines = rest + split(text.encode())
            records, numbers, inside = told(lines, line)
            rest = []
            if inside and sum(map(len, lines[numbers[-1] - line :])) < RECORD:
                rest = lines[numbers.pop() - line :]
                records.pop()
            line += len(lines) - len(rest)
            if records:
                yield of_lines(records, numbers)
        if rest:
            records, numbers, _ = told(rest, line)
            yield of_lines(records, numbers)


def _texts(file: BinaryIO, encoding: str) -> Iterator[str]:
    """A text from its beginning, in pieces of whole lines that end by a line feed. Raises `UnicodeError`."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=True)
    file.seek(0)
    rest = ""
    while chunk := file.read(BLOCK):
        text = rest + decoder.decode(chunk)
        end = text.rfind("\n") + 1
        rest = text[end:]
        if end:
            yield text[:end]
    if rest := rest + decoder.decode(b"", final=True):
        yield rest
