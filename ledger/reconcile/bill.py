"""A provider's bill: `read_bill` reads and checks every line of a file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from zoneinfo import ZoneInfo

from ledger.core.checks import (
    I64_MAX,
    check_amount,
    check_path,
    check_several,
    check_text,
    check_type,
)
from ledger.errors import BillingFileError, InvalidInputError
from ledger.reconcile.mapping import COST, BillMapping, CostUnit, TokenCounting
from ledger.reconcile.reading import read_bytes, table_in
from ledger.reconcile.ready import fitting
from ledger.reports.buckets import zone_named
from ledger.simulate.pricing import shown

_MICROS_IN = {CostUnit.USD: 1_000_000, CostUnit.CENTS: 10_000, CostUnit.MICROS_USD: 1}
_DECIMAL = re.compile(r"-?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?")
_COUNT = re.compile(r"([0-9]{1,19})(?:\.0)?")
"""A count; some exports write `12.0`. `1.000` is refused: it may stand for a thousand."""

_SECONDS = re.compile(r"[0-9]{9,11}")
"""Seconds since 1970, of the years 1973 to 5138; milliseconds have 13 digits."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE_CHARS = 10  # 2024-02-01
_CACHE = ("cache_creation_tokens", "cache_read_tokens")

Amount = int | Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class BillLine:
    """What a provider billed on one line.

    Attributes:
        line: The line's number in the file; in one JSON document the number of the object; from 1.
        request_id: The provider's request id.
        model: The model, as the journal calls it.
        at: The time of the usage; for a day, its beginning.
        day: The day in the mapping's time zone.
        amounts: The amounts in the order of the bill's axes. A cost is exact: it may be a fraction
            of a micro-USD, and below 0 (a credit).
    """

    line: int
    request_id: str | None
    model: str | None
    at: datetime | None
    day: str | None
    amounts: tuple[Amount, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """The content of a file, read through a mapping.

    Attributes:
        file: The file's name, without its folder.
        sha256: The hash of its bytes, in hexadecimal digits.
        mapping: The mapping, without the optional fields that the file lacks.
        axes: The amounts that the file has, by the journal's names.
        lines: The lines with an amount.
        empty: How many more lines have no amount at all: the empty days of an export.
    """

    file: str
    sha256: str
    mapping: BillMapping
    axes: tuple[str, ...]
    lines: Sequence[BillLine]
    empty: int


def read_bill(path: str | Path, mappings: Sequence[BillMapping]) -> Bill:
    """Return a file's lines, all of them checked.

    Args:
        path: A file of CSV, JSON, or one JSON object a line.
        mappings: The meaning of its columns. The first mapping that fits the columns is used.

    Raises:
        InvalidInputError: An argument of another type, or no mapping.
        BillingFileError: The file cannot be read; the error names the line and what is wrong.
    """
    path = check_path("path", path)
    check_several("mappings", mappings)
    for one in mappings:
        check_type("mappings", one, BillMapping)
    if not mappings:
        raise InvalidInputError("mappings", "must not be empty; READY has those of providers")
    data = read_bytes(path)
    table = table_in(str(path), data)
    try:
        mapping = fitting(mappings, table.columns)
    except InvalidInputError as error:
        raise BillingFileError(str(path), line=None, reason=str(error)) from error
    zone = zone_named(mapping.zone)
    lines, empty = [], 0
    for number, cells in table.rows():
        try:
            found = _line(number, cells, mapping, zone)
        except InvalidInputError as error:
            raise BillingFileError(str(path), line=number, reason=str(error)) from error
        if found is None:
            empty += 1
        else:
            lines.append(found)
    return Bill(
        # The journal holds UTF-8 text; a file's name may have bytes that are none.
        file=path.name.encode(errors="replace").decode(),
        sha256=sha256(data).hexdigest(),
        mapping=mapping,
        axes=mapping.axes,
        lines=lines,
        empty=empty,
    )


def _line(
    number: int, cells: Mapping[str, str], mapping: BillMapping, zone: ZoneInfo
) -> BillLine | None:
    columns = mapping.amounts
    if not any(cells.get(column) for named in columns.values() for column in named):
        return None
    currency = _cell(cells, mapping.currency)
    if currency is not None and currency.lower() != "usd":
        raise InvalidInputError(f"{mapping.currency}", f"{shown(currency)} is not USD")
    request_id = _cell(cells, mapping.request_id)
    at = _cell(cells, mapping.at)
    if request_id is None and at is None:
        raise InvalidInputError("line", "has neither a request id nor a day")
    amounts = {
        name: sum(_amount(column, cells.get(column, ""), name, mapping) for column in named)
        for name, named in columns.items()
    }
    moment = None if at is None else _moment(f"{mapping.at}", at, zone)
    return BillLine(
        line=number,
        request_id=None if request_id is None else check_text(f"{mapping.request_id}", request_id),
        model=_model(cells, mapping),
        at=moment,
        day=None if moment is None else moment.astimezone(zone).date().isoformat(),
        amounts=tuple(_whole(amounts, mapping)[name] for name in mapping.axes),
    )


def _cell(cells: Mapping[str, str], column: str | None) -> str | None:
    return (cells.get(column) or None) if column is not None else None


def _model(cells: Mapping[str, str], mapping: BillMapping) -> str | None:
    model = _cell(cells, mapping.model)
    if model is None:
        return None
    if mapping.model_until is not None:
        model = model.partition(mapping.model_until)[0]
    return check_text(f"{mapping.model}", mapping.models.get(model, model))


def _amount(column: str, text: str, name: str, mapping: BillMapping) -> Amount:
    """Return an amount exactly. An empty cell is 0; a line of empty cells never comes here."""
    if not text:
        return 0
    if name == COST:
        if not _DECIMAL.fullmatch(text):
            raise InvalidInputError(column, f"{shown(text)} is not a decimal number")
        micros = Fraction(text) * _MICROS_IN[mapping.cost_unit]
        check_amount(column, abs(int(micros)), ceiling=I64_MAX)
        return micros
    count = _COUNT.fullmatch(text)
    if not count:
        raise InvalidInputError(column, f"{shown(text)} is not a whole number of 0 or more")
    return check_amount(column, int(count[1]), ceiling=I64_MAX)


def _whole(amounts: dict[str, Amount], mapping: BillMapping) -> dict[str, Amount]:
    """Return amounts as the journal counts them: input with cache tokens, and a total."""
    found = dict(amounts)
    if mapping.tokens is TokenCounting.CACHE_EXCLUDED and "input_tokens" in found:
        found["input_tokens"] += sum(found.get(name, 0) for name in _CACHE)
    if "total_tokens" in mapping.axes:
        summed = found.get("input_tokens", 0) + found.get("output_tokens", 0)
        found.setdefault("total_tokens", summed)
    return found


def _moment(name: str, text: str, zone: ZoneInfo) -> datetime:
    try:
        if _SECONDS.fullmatch(text):
            return _EPOCH + timedelta(seconds=int(text))
        if len(text) == _DATE_CHARS:
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=zone)
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            name, f"{shown(text)} is neither an ISO 8601 day or time nor seconds since 1970"
        ) from None
    try:
        at = at.replace(tzinfo=zone) if at.tzinfo is None else at
        at.astimezone(zone).astimezone(UTC)
    except OverflowError:
        raise InvalidInputError(name, f"{text!r} is outside the years 1 to 9999") from None
    return at
