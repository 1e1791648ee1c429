"""The rows of a bill's file as text cells: CSV, JSON, pages of an API, or a JSON object a line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ledger.errors import BillingFileError
from ledger.simulate.trace import COLUMNS_MAX, LINE_MAX

SIZE_MAX = 256 * 2**20
"""How many bytes a bill may have: it is read whole, so that its hash is of the very bytes read."""

_LINE = re.compile(rb"[^\r\n]+")

Row = tuple[int, Mapping[str, str]]
"""A row's number in the file, and its cells by column."""

_LISTS = ("data", "results")
"""Keys of lists in an API's page: the buckets of the page, and the objects of a bucket."""


class Table(NamedTuple):
    """A file's columns and rows.

    Attributes:
        columns: The names of all columns.
        rows: Returns an iterator over all rows; it may be called again.
    """

    columns: list[str]
    rows: Callable[[], Iterator[Row]]


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


def table_in(path: str, data: bytes) -> Table:
    """Return a file's table. A file that begins with `[` or `{` is JSON, any other is CSV.

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
    return _json(path, text) if text.lstrip()[0] in "[{" else _csv(path, text)


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

    return Table(columns, rows)


def _csv_rows(path: str, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        reason = f"not CSV: {error}"
        raise BillingFileError(path, line=reader.line_num + 1, reason=reason) from error


def _json(path: str, text: str) -> Table:
    values = _documents(path, text)
    _require_all_pages(path, values)
    whole = len(values) == 1
    found: list[Row] = []
    for line, value in values:
        for number, cells in enumerate(_objects(path, line, value, {}), start=1):
            found.append((number if whole else line, cells))
    if not found:
        raise BillingFileError(path, line=None, reason="there is no object in it")
    columns = list(dict.fromkeys(name for _line, cells in found for name in cells))
    _require_few_columns(path, columns)
    return Table(columns, lambda: iter(found))


def _documents(path: str, text: str) -> list[tuple[int, Any]]:
    """Return the file's one JSON document, or the documents of its lines; with line numbers."""
    # Numbers stay texts as written: a float would lose digits of an amount.
    decoder = json.JSONDecoder(
        parse_float=str, parse_int=str, parse_constant=_refuse, object_pairs_hook=_unambiguous
    )
    line = 1
    try:
        begin = len(text) - len(text.lstrip())
        value, end = decoder.raw_decode(text, begin)
        if not text[end:].strip():
            return [(1, value)]
        found = []
        for line, one in enumerate(text.split("\n"), start=1):
            if one.strip():
                found.append((line, decoder.decode(one)))
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg}"
        raise BillingFileError(path, line=line + error.lineno - 1, reason=reason) from error
    except (ValueError, RecursionError) as error:
        raise BillingFileError(path, line=line, reason=f"not JSON: {error}") from error
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _require_all_pages(path: str, values: list[tuple[int, Any]]) -> None:
    last = values[-1][1]
    if isinstance(last, list) and last:
        last = last[-1]
    if isinstance(last, dict) and last.get("has_more") is True:
        reason = "this page says that there are more (has_more); put all of them into the file"
        raise BillingFileError(path, line=None, reason=reason)


def _objects(
    path: str,
    line: int,
    value: Any,  # noqa: ANN401 - whatever JSON is
    around: Mapping[str, str],
) -> Iterator[Mapping[str, str]]:
    """Yield the innermost objects, each with the cells of those around it: a bucket's time."""
    if isinstance(value, list):
        for one in value:
            yield from _objects(path, line, one, around)
        return
    if not isinstance(value, dict):
        raise BillingFileError(path, line=line, reason="not an object, nor a list of objects")
    cells = {**around, **dict(_cells(value))}
    for key in _LISTS:
        if isinstance(value.get(key), list):
            yield from _objects(path, line, value[key], cells)
            return
    yield cells


def _cells(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, one in value.items():
        if isinstance(one, dict):
            yield from _cells(one, f"{prefix}{key}.")
        elif one is None:
            yield f"{prefix}{key}", ""
        elif isinstance(one, bool):
            yield f"{prefix}{key}", str(one).lower()
        elif isinstance(one, str):
            yield f"{prefix}{key}", one.strip()
