"""The rows of a table, and the limits that all readers of tables share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

from ledger.core.columns import kept

LINE_MAX = 2**20
"""How many characters a line of text or an object of JSON may have.

2^20 characters take up to 100 MB of memory to read.
"""

COLUMNS_MAX = 1_000
"""How many columns a table may have."""

LIST = "[]"
"""The text after the key of a list in a column's name: `credits[].amount`."""

SEPARATOR = "\x1f"
"""The separator of a list's values in one cell, a control character of ASCII."""


ROWS_MAX = 1_000
"""How many rows are read together."""

CHARS_MAX = 2**20
"""The number of characters after which a group of rows ends."""


class FileRow(NamedTuple):
    """One row.

    Attributes:
        line: Its number in the file, from 1: a line of text, or an object of one JSON document.
        cells: The texts of the columns asked for; a column without a text may be missing.
        digest: A hash of all of its cells, 16 bytes; empty if not asked for.
    """

    line: int
    cells: Mapping[str, str]
    digest: bytes


class FileRows(NamedTuple):
    """Some rows, column by column.

    Attributes:
        lines: The number of each in the file.
        cells: The texts of each column asked for; "" if a row has none.
        digests: The hash of each.
    """

    lines: Sequence[int]
    cells: Mapping[str, Sequence[str]]
    digests: Sequence[bytes]

    def kept(self, mask: Sequence[bool]) -> FileRows:
        """Return the rows that a mask keeps."""
        if all(mask):
            return self
        return FileRows(
            kept(self.lines, mask),
            {name: kept(texts, mask) for name, texts in self.cells.items()},
            kept(self.digests, mask),
        )

    def each(self) -> Iterator[FileRows]:
        """Yield each row by itself."""
        for place, line in enumerate(self.lines):
            cells = {name: [texts[place]] for name, texts in self.cells.items()}
            yield FileRows([line], cells, [self.digests[place]])


def together(rows: Iterable[FileRow], asked: Collection[str]) -> Generator[FileRows, None, None]:
    """Yield rows, several at a time."""
    waiting: list[FileRow] = []
    chars = 0
    for row in rows:
        waiting.append(row)
        chars += sum(map(len, row.cells.values()))
        if len(waiting) == ROWS_MAX or chars > CHARS_MAX:
            yield _columns(waiting, asked)
            waiting, chars = [], 0
    if waiting:
        yield _columns(waiting, asked)


def _columns(rows: Sequence[FileRow], asked: Collection[str]) -> FileRows:
    return FileRows(
        [row.line for row in rows],
        {name: [row.cells.get(name, "") for row in rows] for name in asked},
        [row.digest for row in rows],
    )


class FileTable(Protocol):
    """A file's rows under one header.

    Attributes:
        columns: The names of all columns.
        looks: What the file looks like, for people.
        has_rows: False if it is known to have no rows, so that its columns are not known.
        unread: How many values each list within the rows has, by the full name of its column; and
            how many rows each further sheet of a workbook has.
    """

    @property
    def columns(self) -> Sequence[str]:
        """See above."""

    @property
    def looks(self) -> str:
        """See above."""

    @property
    def has_rows(self) -> bool:
        """See above."""

    @property
    def unread(self) -> Counter[str]:
        """See above."""

    def require_sound(self) -> None:
        """Refuse a header with too many columns, or with a name twice."""

    def rows(
        self, asked: Collection[str], *, hashed: bool = True
    ) -> Generator[FileRows, None, None]:
        """Yield the rows, some at a time. It may be called again once the call before has ended.

        Args:
            asked: The columns that are read.
            hashed: Whether rows have a digest, which takes longer than to read a short row.
        """


DIGEST_BYTES = 16


def digest_of(content: str) -> bytes:
    """Return a hash of a row's content."""
    return blake2b(content.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()


def cell_of(value: Any) -> str:  # noqa: ANN401 - whatever a file holds
    """Return a value of JSON, a workbook or Parquet as text. Numbers keep every digit."""
    if isinstance(value, str):
        return value.strip()
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    return str(value)  # for a float it is the shortest number that reads as it
