"""Exports as text: CSV that a spreadsheet can open, and JSON Lines, an object for each row."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

from ledger.core.checks import canonical_json, from_micros, to_micros
from ledger.core.columns import each_once
from ledger.exports.columns import DIGITS, UNIT, ColumnType, ExportCell, ExportColumn, RowGroup
from ledger.reports.render.text_formats import GUARD, Figure, csv_cell, csv_row, json_line

_TEXTUAL = (ColumnType.TEXT, ColumnType.JSON)


def write_csv(
    columns: Sequence[ExportColumn], pages: Iterable[RowGroup], out: BinaryIO, _at: object = None
) -> None:
    """Write rows as CSV by RFC 4180: UTF-8, CRLF, a header; None is an empty cell.

    `csv_row` says how text is told from numbers, and how formulas are disarmed.
    """
    out.write(csv_row((Figure(column.name) for column in columns), end="\r\n").encode())
    before = ["", *[","] * (len(columns) - 1)]
    _write_rows(columns, pages, out, _Form(before, "\r\n", "", _CSV))


def read_csv(file: BinaryIO) -> tuple[list[str], Iterator[list[Any]]]:
    """Return the header, and an iterator over the rows: texts, or None for an empty cell."""
    reader = csv.reader((line.decode() for line in file), strict=True)
    header = next(reader, [])
    return header, ([cell.removeprefix(GUARD) if cell else None for cell in row] for row in reader)


def write_jsonl(
    columns: Sequence[ExportColumn], pages: Iterable[RowGroup], out: BinaryIO, _at: object = None
) -> None:
    """Write each row as one JSON object on a line of its own.

    Integers are numbers. US dollars and times are text, so that no reader rounds them. Tags and
    detail are JSON.
    """
    before = [f",{json_line(column.name)}:" for column in columns]
    before[0] = f"{{{before[0][1:]}"
    _write_rows(columns, pages, out, _Form(before, "}\n", "null", _JSON))


def read_jsonl(file: BinaryIO) -> tuple[list[str], Iterator[list[Any]]]:
    """Return the names that the first line has, and the values of each line in that order."""
    first = file.readline()
    if not first:
        return [], iter(())
    names = list(_object(first))
    return names, (_values(_object(line), names) for line in chain([first], file))


def dollars(millionths: int) -> str:
    """Return a decimal, which is given in millionths, with six places."""
    if millionths < 0:
        return f"-{dollars(-millionths)}"
    return "%d.%06d" % divmod(millionths, UNIT)  # noqa: UP031 - 0.75 of the time of an f-string


def moment(micros: int) -> str:
    """Return a time, which is given in microseconds since 1970, by ISO 8601 with its zone."""
    return from_micros(micros).isoformat().replace("+00:00", "Z")


def written(kind: ColumnType, value: ExportCell) -> str | None:
    """Return a value as exact text; a value of another kind unchanged."""
    if kind is ColumnType.DECIMAL and isinstance(value, int):
        return dollars(value)
    if kind is ColumnType.MOMENT and isinstance(value, int):
        return moment(value)
    return None if value is None else str(value)


def parsed(kind: ColumnType, cell: object) -> ExportCell:
    """Return the value of a cell, or its text if it is not of this kind.

    A comparison can then show the cell as it is in the file.
    """
    if cell is None or (kind in _TEXTUAL and isinstance(cell, str)):
        return cell
    text = str(cell)
    if kind in _TEXTUAL or isinstance(cell, bool):
        return text
    try:
        if kind is ColumnType.MOMENT:
            at = cell if isinstance(cell, datetime) else datetime.fromisoformat(text)
            return to_micros("cell", at)
        if kind is ColumnType.INTEGER:
            return int(cell) if isinstance(cell, float) and cell.is_integer() else int(text)
        return _millionths(text)
    except (ValueError, ArithmeticError):
        return text


def _millionths(text: str) -> int:
    """Return a decimal in millionths.

    Raises:
        ValueError: It has more digits than one in an export.
    """
    number = Decimal(text)
    # A number such as 1e999 is refused before it is computed.
    found = Fraction(number) * UNIT if abs(number.adjusted()) <= DIGITS else None
    if found is None or found.denominator != 1:
        raise ValueError(text)
    return int(found)


class _Shown(dict[ExportCell, str]):
    """The texts of values of one kind, cached, since most are repeated nearby."""

    def __init__(self, nothing: str, shown: Callable[[Any], str]) -> None:
        self._nothing, self._shown = nothing, shown

    def __missing__(self, value: ExportCell) -> str:
        if len(self) >= _REMEMBERED:
            self.clear()
        text = self[value] = self._nothing if value is None else self._shown(value)
        return text


_REMEMBERED = 8_192


class _Form(NamedTuple):
    """How a format writes rows.

    Attributes:
        before: The text before the cell of each column.
        end: The text at the end of a row.
        nothing: The text of a cell without a value.
        shown: The function that returns the text of a value, by its kind; integers need none.
    """

    before: Sequence[str]
    end: str
    nothing: str
    shown: Mapping[ColumnType, Callable[[Any], str]]


_CSV: Mapping[ColumnType, Callable[[Any], str]] = {
    ColumnType.TEXT: csv_cell,
    ColumnType.JSON: csv_cell,
    ColumnType.DECIMAL: dollars,
    ColumnType.MOMENT: moment,
}
_JSON: Mapping[ColumnType, Callable[[Any], str]] = {
    ColumnType.TEXT: json_line,
    ColumnType.JSON: lambda text: json_line(json.loads(text)),
    ColumnType.DECIMAL: lambda millionths: f'"{dollars(millionths)}"',
    ColumnType.MOMENT: lambda micros: f'"{moment(micros)}"',
}


def _write_rows(
    columns: Sequence[ExportColumn], pages: Iterable[RowGroup], out: BinaryIO, form: _Form
) -> None:
    texts = {
        kind: _Shown(form.nothing, form.shown[kind])
        for kind in (ColumnType.DECIMAL, ColumnType.MOMENT)
    }
    for page in pages:
        row, cells = "", []
        for column, before, values in zip(columns, form.before, page, strict=True):
            shown = form.shown.get(column.kind, str)
            first = values[0]
            row += before.replace("%", "%%")
            # A third of the columns have the same value in all rows of a page.
            if first == values[-1] and values.count(first) == len(values):
                row += (form.nothing if first is None else shown(first)).replace("%", "%%")
            else:
                row += "%s"
                known = texts.get(column.kind)
                cells.append(
                    _cells(values, form.nothing, shown)
                    if known is None
                    else [*map(known.__getitem__, values)]
                )
        row += form.end
        rows = zip(*cells, strict=True) if cells else [()] * len(page[0])
        out.write("".join([row % found for found in rows]).encode())


def _cells(
    values: Sequence[ExportCell], nothing: str, shown: Callable[[Any], str]
) -> Sequence[ExportCell]:
    """Return the cells of a column. Integers are not converted, since `%s` writes them."""
    if None not in values:
        return values if shown is str else each_once(shown, values)
    if shown is str:
        return [nothing if value is None else value for value in values]
    return each_once(lambda value: nothing if value is None else shown(value), values)


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
