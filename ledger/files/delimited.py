"""Tables of delimited text: CSV with any of the usual signs, below any lines of a preamble."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Sequence
from itertools import islice

from ledger.files.rows import COLUMNS_MAX, LINE_MAX, SEPARATOR, Row, digest_of
from ledger.files.source import Source

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SAMPLE_LINES = 50
"""How many lines are searched for the header."""

_BROKEN = re.compile("[\ud800-\udfff]")
"""Bytes that are not UTF-8, as `Source.text` gives them."""


class Delimited:
    """A table under one header.

    Attributes:
        columns: The names of the columns.
        looks: What the file looks like, for people.
        unread: Nothing: text has no lists.
    """

    has_rows = True

    def __init__(self, source: Source, delimiter: str, skip: int, header: Sequence[str]) -> None:
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

    def rows(self, asked: Collection[str], *, hashed: bool = True) -> Generator[Row, None, None]:
        """Yield the rows.

        Raises:
            LedgerError: A line is not CSV, or has more cells than the header.
        """
        places = [(name, place) for place, name in enumerate(self.columns) if name in asked]
        size = len(self.columns)
        with self._source.text() as text:
            found = _records(self._source, text, self._delimiter, self._skip)
            next(found, None)
            for line, cells in found:
                if len(cells) != size:
                    if len(cells) > size:
                        reason = f"{len(cells)} cells, where the header has {size}"
                        raise self._source.refuse(line, reason)
                    cells.extend([""] * (size - len(cells)))
                yield Row(
                    line,
                    {name: cells[place].strip() for name, place in places},
                    digest_of(SEPARATOR.join(cells)) if hashed else b"",
                )


def delimited(source: Source, *, delimiter: str | None, skip: int | None) -> Iterator[Delimited]:
    """Yield the tables that a text may be, from the one that it looks like on.

    Args:
        source: The file.
        delimiter: The sign between cells; None if it is to be found out.
        skip: How many lines stand above the header; None if that is to be found out.

    Raises:
        LedgerError: The file is empty, or cannot be read as lines.
    """
    with source.text() as text:
        sample = [*islice(_lines(source, text), (skip or 0) + _SAMPLE_LINES)]
    if not any(line.strip() for line in sample):
        raise source.refuse(None, "the file is empty")
    signs = [*_DELIMITERS] if delimiter is None else [delimiter]
    starts = range(len(sample)) if skip is None else [skip]
    found: dict[tuple[str, int], list[str]] = {}
    for start in starts:
        for sign in signs:
            # A header may go over several lines, within quotes.
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
    """Return the sign, and the first line, of the cells that most lines have."""
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


def _lines(source: Source, text: io.TextIOWrapper) -> Iterator[str]:
    """Yield the lines of a text, each with its end, in bounded memory."""
    number = 0
    while line := text.readline(LINE_MAX + 1):
        number += 1
        if len(line) > LINE_MAX:
            raise source.refuse(number, f"longer than {LINE_MAX:,} characters; is it a table?")
        if not line.isascii() and _BROKEN.search(line):
            raise source.refuse(number, "not UTF-8 text; save the file as UTF-8")
        yield line


def _records(
    source: Source, text: io.TextIOWrapper, delimiter: str, skip: int
) -> Iterator[tuple[int, list[str]]]:
    lines = _lines(source, text)
    for _line in islice(lines, skip):
        pass
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if cells:
                yield skip + reader.line_num, cells
    except csv.Error as error:
        raise source.refuse(skip + reader.line_num, f"not CSV: {error}") from error
