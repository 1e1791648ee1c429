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
from ledger.core.columns import each_once
from ledger.exports.columns import DIGITS, Column, Kind, Page, Value
from ledger.reports.render.text_formats import GUARD, Figure, csv_cell, csv_row, json_line

_TEXTUAL = (Kind.TEXT, Kind.JSON)


def write_csv(
    columns: Sequence[Column], pages: Iterable[Page], out: BinaryIO, _at: object = None
) -> None:
    """Write rows as CSV by RFC 4180: UTF-8, CRLF, a header; None is an empty cell.

    `csv_row` says how text differs from figures, and how formulas are kept from being computed.
    """
    out.write(csv_row((Figure(column.name) for column in columns), end="\r\n").encode())
    for page in pages:
        cells = [_cells(column.kind, values) for column, values in zip(columns, page, strict=True)]
        out.write("".join([f"{','.join(row)}\r\n" for row in zip(*cells, strict=True)]).encode())


def read_csv(file: BinaryIO) -> tuple[list[str], Iterator[list[Any]]]:
    """Return the header, and an iterator over the rows: texts, or None for an empty cell."""
    reader = csv.reader((line.decode() for line in file), strict=True)
    header = next(reader, [])
    return header, ([cell.removeprefix(GUARD) if cell else None for cell in row] for row in reader)


def write_jsonl(
    columns: Sequence[Column], pages: Iterable[Page], out: BinaryIO, _at: object = None
) -> None:
    """Write each row as one JSON object on a line of its own.

    Integers are numbers, US dollars and times are text, so that no reader rounds them; tags and
    detail are the JSON that they hold.
    """
    names = [json_line(column.name) for column in columns]
    for page in pages:
        members = [
            _members(column.kind, name, values)
            for column, name, values in zip(columns, names, page, strict=True)
        ]
        lines = [f"{{{','.join(row)}}}\n" for row in zip(*members, strict=True)]
        out.write("".join(lines).encode())


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


def _cells(kind: Kind, values: Sequence[Value]) -> Sequence[str]:
    """Return the cells of a column of CSV."""
    if kind is Kind.INTEGER:
        return ["" if value is None else str(value) for value in values]
    return each_once(csv_cell if kind in _TEXTUAL else _figure, values)


def _figure(value: Value) -> str:
    return written(value) or ""


def _members(kind: Kind, name: str, values: Sequence[Value]) -> Sequence[str]:
    """Return the members of a column of JSON Lines, each with its name."""
    if kind is Kind.INTEGER:
        return [f"{name}:null" if value is None else f"{name}:{value}" for value in values]
    shown = _nested if kind is Kind.JSON else written
    return each_once(lambda value: f"{name}:{json_line(shown(value))}", values)


def _nested(value: Value) -> object:
    return json.loads(value) if isinstance(value, str) else value


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
