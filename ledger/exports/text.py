"""Exports as text: CSV that a spreadsheet can open, and JSON Lines, an object for each row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import chain
from typing import Any, BinaryIO

from ledger.core.checks import canonical_json
from ledger.exports.columns import DIGITS, Column, Kind, Value
from ledger.reports.render.text_formats import GUARD, Figure, csv_row, json_line

_TEXTUAL = (Kind.TEXT, Kind.JSON)


def write_csv(
    columns: Sequence[Column], rows: Iterable[Sequence[Value]], out: BinaryIO, _at: object = None
) -> None:
    """Write rows as CSV by RFC 4180: UTF-8, CRLF, a header; None is an empty cell.

    `csv_row` says how text differs from figures, and how formulas are kept from being computed.
    """
    textual = [column.kind in _TEXTUAL for column in columns]
    out.write(csv_row((Figure(column.name) for column in columns), end="\r\n").encode())
    for row in rows:
        cells = (
            value if is_text and isinstance(value, str) else _figure(value)
            for is_text, value in zip(textual, row, strict=True)
        )
        out.write(csv_row(cells, end="\r\n").encode())


def read_csv(file: BinaryIO) -> tuple[list[str], Iterator[list[Any]]]:
    """Return the header, and an iterator over the rows: texts, or None for an empty cell."""
    reader = csv.reader((line.decode() for line in file), strict=True)
    header = next(reader, [])
    return header, ([cell.removeprefix(GUARD) if cell else None for cell in row] for row in reader)


def write_jsonl(
    columns: Sequence[Column], rows: Iterable[Sequence[Value]], out: BinaryIO, _at: object = None
) -> None:
    """Write each row as one JSON object on a line of its own.

    Integers are numbers, US dollars and times are text, so that no reader rounds them; tags and
    detail are the JSON that they hold.
    """
    nested = [column.kind is Kind.JSON for column in columns]
    names = [column.name for column in columns]
    for row in rows:
        found: dict[str, Any] = {}
        for name, is_json, value in zip(names, nested, row, strict=True):
            if is_json and isinstance(value, str):
                found[name] = json.loads(value)
            else:
                found[name] = value if isinstance(value, int) else written(value)
        out.write(f"{json_line(found)}\n".encode())


def read_jsonl(file: BinaryIO) -> tuple[list[str], Iterator[list[Any]]]:
    """Return the names that the first line has, and the values of each line in that order."""
    first = file.readline()
    if not first:
        return [], iter(())
    names = list(_object(first))
    return names, (_values(_object(line), names) for line in chain([first], file))


def written(value: Value) -> str | None:
    """Return a value as text, exactly: six decimal places, ISO 8601 with a zone."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return None if value is None else str(value)


def parsed(kind: Kind, cell: object) -> Value:
    """Return the value of a cell; a cell that is not of this kind is returned unchanged.

    A comparison can then show the cell as it is in the file.
    """
    if kind in _TEXTUAL or cell is None or isinstance(cell, bool):
        return cell  # type: ignore[return-value]
    text = str(cell)
    try:
        if kind is Kind.MOMENT:
            return cell if isinstance(cell, datetime) else datetime.fromisoformat(text)
        if kind is Kind.INTEGER:
            return int(cell) if isinstance(cell, float) and cell.is_integer() else int(text)
        number = Decimal(text)
        # A number such as 1e999 stays text: no export has one, and shown in full it is all zeros.
        return number if abs(number.adjusted()) <= DIGITS else text
    except (ValueError, ArithmeticError):
        return text


def _figure(value: Value) -> Figure | None:
    text = written(value)
    return None if text is None else Figure(text)


def _object(line: bytes) -> Mapping[str, Any]:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise TypeError("a line is no JSON object")
    return found


def _values(found: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    if list(found) != names:
        raise ValueError("a line has other names than the first one")
    return [
        canonical_json(value) if isinstance(value, dict | list) else value
        for value in found.values()
    ]
