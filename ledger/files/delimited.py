"""Tables of delimited text: CSV with any usual delimiter, below any lines of a preamble."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Sequence
from itertools import islice

from ledger.files.rows import (
    CHARS_MAX,
    COLUMNS_MAX,
    LINE_MAX,
    ROWS_MAX,
    SEPARATOR,
    FileRows,
    digest_of,
)
from ledger.files.source import SourceFile

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SAMPLE_LINES = 50
"""How many lines are searched for the header."""

_CHUNK = 1 << 16
"""How many characters are read at once."""

_BROKEN = re.compile("[\ud800-\udfff]")
"""Bytes that are not UTF-8, as `Source.text` gives them."""


class Delimited:
    """A table under one header.

    Attributes:
        columns: The names of the columns.
        looks: What the file looks like, for people.
        unread: Always empty, since text has no lists.
    """

    has_rows = True

    def __init__(
        self, source: SourceFile, delimiter: str, skip: int, header: Sequence[str]
    ) -> None:
        self._source = source
        self._delimiter = delimiter
        self._skip = skip
        self.columns = [name.strip() for name in header]
        sign = _DELIMITERS.get(delimiter, repr(delimiter))
        below = f", its header on line {skip + 1}" if skip else ""
        self.looks = f"CSV with {sign}{below}"
        self.unread: Counter[str] = Counter()

    def require_sound(self) -> None:
        """Refuse a header that is too long, or that has a name twice.

        Raises:
            LedgerError: It is one of them.
        """
        line = self._skip + 1
        if len(self.columns) > COLUMNS_MAX:
            reason = f"{len(self.columns):,} columns; at most {COLUMNS_MAX:,} are read"
            raise self._source.refuse(line, reason)
        for name, count in Counter(self.columns).items():
            if name and count > 1:
                raise self._source.refuse(line, f"two columns are called {name!r}")

    def rows(
        self, asked: Collection[str], *, hashed: bool = True
    ) -> Generator[FileRows, None, None]:
        """Yield the rows, some at a time.

        Raises:
            LedgerError: A line is not CSV, or has more cells than the header.
        """
        places = {name: place for place, name in enumerate(self.columns) if name in asked}
        with self._source.text() as text:
            for numbers, found in _records(self._source, text, self._delimiter, self._skip):
                self._fill(numbers, found)
                blank = [""] * len(found)
                cells = {name: blank for name in asked if name not in places}
                for name, place in places.items():
                    cells[name] = [row[place].strip() for row in found]
                hashes = [b""] * len(found)
                if hashed:
                    hashes = [digest_of(SEPARATOR.join(row)) for row in found]
                yield FileRows(numbers, cells, hashes)

    def _fill(self, numbers: Sequence[int], found: Sequence[list[str]]) -> None:
        """Add the missing cells to rows that are too short."""
        size = len(self.columns)
        if set(map(len, found)) == {size}:
            return
        for number, row in zip(numbers, found, strict=True):
            if len(row) > size:
                reason = f"{len(row)} cells, where the header has {size}"
                raise self._source.refuse(number, reason)
            row.extend([""] * (size - len(row)))


def delimited(
    source: SourceFile, *, delimiter: str | None, skip: int | None
) -> Iterator[Delimited]:
    """Yield the tables that a text may hold, the likeliest first.

    Args:
        source: The file.
        delimiter: The sign between cells; None to detect it.
        skip: How many lines are above the header; None to detect it.

    Raises:
        LedgerError: The file is empty, or cannot be read as lines.
    """
    with source.text() as text:
        sample = [*islice(_Lines(source, text), (skip or 0) + _SAMPLE_LINES)]
    if not any(line.strip() for line in sample):
        raise source.refuse(None, "the file is empty")
    signs = [*_DELIMITERS] if delimiter is None else [delimiter]
    starts = range(len(sample)) if skip is None else [skip]
    found: dict[tuple[str, int], list[str]] = {}
    for start in starts:
        for sign in signs:
            # A header may have several lines, within quotes.
            reader = csv.reader(sample[start:], delimiter=sign)
            try:
                header = next(reader, [])
            except csv.Error:
                continue
            if len(header) > 1 or (header and len(signs) == 1):
                found[sign, start] = header
    if not found:
        found[",", skip or 0] = next(csv.reader(sample[skip or 0 :]), [])
    likely = _likely(sample, found)
    order = sorted(found, key=lambda one: (one != likely, one[1], -len(found[one])))
    for sign, start in order:
        yield Delimited(source, sign, start, found[sign, start])


def _likely(sample: Sequence[str], found: Collection[tuple[str, int]]) -> tuple[str, int]:
    """Return the delimiter that fits most lines, and the first line that fits."""
    counts = {
        sign: Counter(line.count(sign) for line in sample if line.strip())
        for sign in dict.fromkeys(sign for sign, _start in found)
    }
    scored = [
        (lines * (cells > 0), cells, sign)
        for sign, counted in counts.items()
        for cells, lines in counted.items()
    ]
    _lines_of_it, cells, sign = max(scored, key=lambda one: one[:2])
    starts = [start for one, start in found if one == sign and sample[start].count(sign) == cells]
    return (sign, min(starts)) if starts else next(iter(found))


class _Lines:
    """The lines of a text, each with its end, in bounded memory.

    Attributes:
        chars: How many characters are read so far.
    """

    def __init__(self, source: SourceFile, text: io.TextIOWrapper) -> None:
        self._source = source
        self._text = text
        self.chars = 0

    def __iter__(self) -> Iterator[str]:
        number = 0
        rest = ""
        while more := self._text.read(_CHUNK):
            self.chars += len(more)
            found = rest + more
            # A carriage return at the end may be the first half of an end of line.
            end = max(found.rfind("\n"), found.rfind("\r", 0, -1)) + 1
            rest = found[end:]
            lines = self._checked(found[:end], number)
            yield from lines
            number += len(lines)
            if len(rest) > LINE_MAX:
                raise self._too_long(number + 1)
        yield from self._checked(rest, number)

    def _checked(self, found: str, before: int) -> list[str]:
        lines = io.StringIO(found, newline="").readlines()
        if not found.isascii() and (broken := _BROKEN.search(found)):
            number = before + len(io.StringIO(found[: broken.end()], newline="").readlines())
            raise self._source.refuse(number, "not UTF-8 text; save the file as UTF-8")
        # Only the first line may have begun before the text that was just read.
        if lines and len(lines[0]) > LINE_MAX:
            raise self._too_long(before + 1)
        return lines

    def _too_long(self, number: int) -> Exception:
        return self._source.refuse(number, f"longer than {LINE_MAX:,} characters; is it a table?")


def _records(
    source: SourceFile, text: io.TextIOWrapper, delimiter: str, skip: int
) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Yield the rows below the header, some at a time, each with its last line and its cells."""
    lines = _Lines(source, text)
    reader = csv.reader(islice(lines, skip, None), delimiter=delimiter, strict=True)
    numbers: list[int] = []
    rows: list[list[str]] = []
    chars = 0
    try:
        next((cells for cells in reader if cells), None)
        for cells in reader:
            if cells:
                numbers.append(skip + reader.line_num)
                rows.append(cells)
            if len(rows) == ROWS_MAX or lines.chars - chars > CHARS_MAX:
                chars = lines.chars
                if rows:
                    yield numbers, rows
                numbers, rows = [], []
    except csv.Error as error:
        if rows:
            yield numbers, rows
        raise source.refuse(skip + reader.line_num, f"not CSV: {error}") from error
    if rows:
        yield numbers, rows
