"""The rows of a bill's file as text cells: CSV, JSON, pages of an API, or a JSON object a line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ledger.errors import BillingFileError
from ledger.reconcile.objects import Objects, Row
from ledger.simulate.trace import COLUMNS_MAX, LINE_MAX

SIZE_MAX = 256 * 2**20
"""How many bytes a bill may have: it is read whole, so that its hash is of the very bytes read."""

_LINE = re.compile(rb"[^\r\n]+")


class Table(NamedTuple):
    """A file's columns and rows.

    Attributes:
        columns: The names of all columns.
        rows: Returns an iterator over all rows; it may be called again.
        unread: How many values each list within the rows has that is not read.
    """

    columns: list[str]
    rows: Callable[[], Iterator[Row]]
    unread: Mapping[str, int]


def read_bytes(path: Path) -> bytes:
    """Return all bytes of a file.

    Raises:
        BillingFileError: The file cannot be read, or is larger than `SIZE_MAX`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_MAX + 1)
    except OSError as error:
        reason = f"the file cannot be read: {error.strerror}"
        raise BillingFileError(str(path), line=None, reason=reason) from error
    if len(data) > SIZE_MAX:
        reason = f"more than {SIZE_MAX >> 20} MiB; cut it by days, and reconcile each part"
        raise BillingFileError(str(path), line=None, reason=reason)
    return data


def table_in(path: str, data: bytes, *, lists: Sequence[str], asked: Collection[str]) -> Table:
    """Return a file's table. A file that begins with `[` or `{` is JSON, any other is CSV.

    Args:
        path: The file, for errors.
        data: Its bytes.
        lists: In JSON, the keys of the lists that hold rows, from the outermost on.
        asked: In JSON, the columns within other lists that are to be read.

    Raises:
        BillingFileError: The file is neither, is empty, or is one of several pages.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BillingFileError(path, line=line, reason="not UTF-8 text") from error
    _require_short_lines(path, data)
    if not text.strip():
        raise BillingFileError(path, line=None, reason="the file is empty")
    return _json(path, text, lists, asked) if text.lstrip()[0] in "[{" else _csv(path, text)


def _require_short_lines(path: str, data: bytes) -> None:
    for found in _LINE.finditer(data):
        if found.end() - found.start() > LINE_MAX:
            reason = (
                f"longer than {LINE_MAX:,} bytes; put each row on a line of its own (of JSON, "
                "'jq .' does so)"
            )
            line = data.count(b"\n", 0, found.start()) + 1
            raise BillingFileError(path, line=line, reason=reason)


def _require_few_columns(path: str, columns: Collection[str]) -> None:
    if len(columns) > COLUMNS_MAX:
        reason = f"{len(columns):,} columns; at most {COLUMNS_MAX:,} are read"
        raise BillingFileError(path, line=None, reason=reason)


def _csv(path: str, text: str) -> Table:
    header = next(_csv_rows(path, text), (1, []))[1]
    _require_few_columns(path, header)
    columns = [name.strip() for name in header]
    for name in columns:
        if name and columns.count(name) > 1:
            raise BillingFileError(path, line=1, reason=f"two columns are called {name!r}")

    def rows() -> Iterator[Row]:
        found = _csv_rows(path, text)
        next(found)
        for line, cells in found:
            if len(cells) > len(columns):
                reason = f"{len(cells)} cells, where the header has {len(columns)}"
                raise BillingFileError(path, line=line, reason=reason)
            padded = cells + [""] * (len(columns) - len(cells))
            yield line, {name: cell.strip() for name, cell in zip(columns, padded, strict=True)}

    return Table(columns, rows, {})


def _csv_rows(path: str, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        reason = f"not CSV: {error}"
        raise BillingFileError(path, line=reader.line_num + 1, reason=reason) from error


def _json(path: str, text: str, lists: Sequence[str], asked: Collection[str]) -> Table:
    found = Objects(path, text, lists=lists, asked=asked)
    columns = list(dict.fromkeys(name for _line, cells in found.rows for name in cells))
    _require_few_columns(path, columns)
    return Table(columns, lambda: iter(found.rows), found.unread)
