"""A provider's bill: `read_bill` reads and checks every line of a file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from itertools import count
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
from ledger.reconcile.mapping import (
    COST,
    BillMapping,
    CostUnit,
    Identical,
    Repeats,
    TokenCounting,
)
from ledger.reconcile.moments import moment
from ledger.reconcile.objects import SEPARATOR
from ledger.reconcile.reading import Table, read_bytes, table_in
from ledger.reports.buckets import zone_named
from ledger.simulate.pricing import shown

_MICROS_IN = {CostUnit.USD: 1_000_000, CostUnit.CENTS: 10_000, CostUnit.MICROS_USD: 1}
_DECIMAL = re.compile(r"-?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?")
_COUNT = re.compile(r"([0-9]{1,19})(?:\.0)?")
"""A count; some exports write `12.0`. `1.000` is refused: it may stand for a thousand."""

_MICROSECOND = timedelta(microseconds=1)
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
        end: The time at which it ends, which is not part of it; None if the line does not say it.
        day: The day in the mapping's time zone.
        amounts: The amounts in the order of the bill's axes. A cost is exact: it may be a fraction
            of a micro-USD, and below 0 (a credit).
    """

    line: int
    request_id: str | None
    model: str | None
    at: datetime | None
    end: datetime | None
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
        replaced: How many more lines were replaced by a later line of their request.
        identical: The numbers of the lines that repeat an earlier line in every cell.
        first: The earliest time that a line says, also one without amounts; None if none says one.
        last: The latest time at which a line ends, or begins if it says no end.
        unread_columns: The columns that the mapping does not name.
        unread_lists: How many values each list within the rows has that the mapping does not name.
    """

    file: str
    sha256: str
    mapping: BillMapping
    axes: tuple[str, ...]
    lines: Sequence[BillLine]
    empty: int
    replaced: int
    identical: Sequence[int]
    first: datetime | None
    last: datetime | None
    unread_columns: Sequence[str]
    unread_lists: Mapping[str, int]


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
    mapping, table = _fitting(str(path), data, mappings)
    reader = _Lines(mapping, table.columns)
    for number, cells in table.rows():
        try:
            reader.add(number, cells)
        except InvalidInputError as error:
            raise BillingFileError(str(path), line=number, reason=str(error)) from error
    return Bill(
        # The journal holds UTF-8 text; a file's name may have bytes that are none.
        file=path.name.encode(errors="replace").decode(),
        sha256=sha256(data).hexdigest(),
        mapping=mapping,
        axes=mapping.axes,
        lines=list(reader.lines.values()),
        empty=reader.empty,
        replaced=reader.replaced,
        identical=reader.identical,
        first=reader.first,
        last=reader.last,
        unread_columns=[name for name in table.columns if name and name not in mapping.columns],
        unread_lists=table.unread,
    )


def _fitting(path: str, data: bytes, mappings: Sequence[BillMapping]) -> tuple[BillMapping, Table]:
    """Return the first mapping that fits the file, and the table that it reads.

    Raises:
        BillingFileError: The file cannot be read, or no mapping fits; the error is the last one's.
    """
    for mapping in mappings:
        table = table_in(path, data, lists=mapping.rows, asked=mapping.columns)
        if next(table.rows(), None) is None and not table.columns:  # a bill of nothing
            return mapping, table
        try:
            return mapping.fitted(table.columns), table
        except InvalidInputError as error:
            refusal = error
    raise BillingFileError(path, line=None, reason=str(refusal)) from refusal


class _Lines:
    """The lines of a bill, while its rows are added one after the other."""

    def __init__(self, mapping: BillMapping, columns: Sequence[str]) -> None:
        self._mapping = mapping
        self._zone = zone_named(mapping.zone)
        self._currencies = _currencies(mapping, columns)
        self._seen: dict[bytes, int] = {}
        self._billed: dict[str, dict[str, int]] = {}
        """By request id, the line that gave each amount."""
        self.lines: dict[str | int, BillLine] = {}
        """By their order; by request id where the last line of a request counts."""
        self._order = count()
        self.empty = self.replaced = 0
        self.identical: list[int] = []
        self.first: datetime | None = None
        self.last: datetime | None = None

    def add(self, number: int, cells: Mapping[str, str]) -> None:
        """Add a row.

        Raises:
            InvalidInputError: A cell cannot be read, or the row repeats one that it must not.
        """
        at, end = self._times(cells)
        amounts = self._mapping.amounts
        if not any(cells.get(column) for named in amounts.values() for column in named):
            self.empty += 1
            return
        repeated = self._repeats(number, cells)
        if repeated and self._mapping.identical is Identical.ONCE:
            return
        for column in self._currencies:
            currency = cells.get(column)
            if currency and currency.lower() != "usd":
                raise InvalidInputError(column, f"{shown(currency)} is not USD")
        line = _line(number, cells, self._mapping, at=at, end=end, zone=self._zone)
        key: str | int = next(self._order)
        if line.request_id is not None:
            added = repeated and self._mapping.identical is Identical.ADD
            if self._mapping.repeats is Repeats.REFUSE and not added:
                self._require_new(line, repeated=repeated)
            if self._mapping.repeats is Repeats.LAST:
                key = line.request_id
        self.replaced += key in self.lines
        self.lines[key] = line

    def _times(self, cells: Mapping[str, str]) -> tuple[datetime | None, datetime | None]:
        """Return when a row begins and ends; an empty one says what time the bill is for."""
        at, end = (
            None if text is None else moment(f"{column}", text, form, self._zone)
            for column in (self._mapping.at, self._mapping.end)
            for form in (self._mapping.at_format,)
            for text in (_cell(cells, column),)
        )
        if at is not None and end is not None and end <= at:
            raise InvalidInputError(f"{self._mapping.end}", "is not after the beginning")
        if at is not None:
            last = at if end is None else end - _MICROSECOND
            self.first = at if self.first is None else min(self.first, at)
            self.last = last if self.last is None else max(self.last, last)
        return at, end

    def _repeats(self, number: int, cells: Mapping[str, str]) -> bool:
        digest = sha256(repr(sorted(cells.items())).encode(errors="surrogatepass")).digest()
        if self._seen.setdefault(digest, number) == number:
            return False
        self.identical.append(number)
        return True

    def _require_new(self, line: BillLine, *, repeated: bool) -> None:
        """Refuse an amount that another line of the request has, too."""
        before = self._billed.setdefault(f"{line.request_id}", {})
        for axis, amount in zip(self._mapping.axes, line.amounts, strict=True):
            if not amount or axis not in self._mapping.amounts:
                continue
            if axis in before:
                meaning = "repeats 'add' (each line is a part) or 'last' (the last line says all)"
                if repeated:
                    meaning = "identical 'once' (they are one line) or 'add' (each was billed)"
                raise InvalidInputError(
                    f"{self._mapping.request_id}",
                    f"{shown(f'{line.request_id}')} has {axis} on line {before[axis]} already; say "
                    f"what that means, in the mapping or as an option: {meaning}",
                )
            before[axis] = line.line


def _currencies(mapping: BillMapping, columns: Sequence[str]) -> list[str]:
    """Return the columns that must say USD: the mapping's, or all that look like a currency."""
    if COST not in mapping.axes:
        return []
    if mapping.currency is not None:
        return [mapping.currency]
    return [name for name in columns if name.lower().endswith(("currency", "currency_code"))]


def _line(
    number: int,
    cells: Mapping[str, str],
    mapping: BillMapping,
    *,
    at: datetime | None,
    end: datetime | None,
    zone: ZoneInfo,
) -> BillLine:
    request_id = _cell(cells, mapping.request_id)
    if request_id is None and at is None:
        raise InvalidInputError("line", "has neither a request id nor a day")
    amounts = {
        name: sum(_amount(column, cells.get(column, ""), name, mapping) for column in named)
        for name, named in mapping.amounts.items()
    }
    return BillLine(
        line=number,
        request_id=None if request_id is None else check_text(f"{mapping.request_id}", request_id),
        model=_model(cells, mapping),
        at=at,
        end=end,
        day=None if at is None else at.astimezone(zone).date().isoformat(),
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
    """Return an amount exactly. An empty cell is 0; the values of a list are added up."""
    if not text:
        return 0
    if SEPARATOR in text:
        return sum(_amount(column, one, name, mapping) for one in text.split(SEPARATOR))
    if name == COST:
        if not _DECIMAL.fullmatch(text):
            raise InvalidInputError(column, f"{shown(text)} is not a decimal number")
        micros = Fraction(text) * _MICROS_IN[mapping.cost_unit]
        check_amount(column, abs(int(micros)), ceiling=I64_MAX)
        return micros
    whole = _COUNT.fullmatch(text)
    if not whole:
        raise InvalidInputError(column, f"{shown(text)} is not a whole number of 0 or more")
    return check_amount(column, int(whole[1]), ceiling=I64_MAX)


def _whole(amounts: dict[str, Amount], mapping: BillMapping) -> dict[str, Amount]:
    """Return amounts as the journal counts them: input with cache tokens, and a total."""
    found = dict(amounts)
    if mapping.tokens is TokenCounting.CACHE_EXCLUDED and "input_tokens" in found:
        found["input_tokens"] += sum(found.get(name, 0) for name in _CACHE)
    if "total_tokens" in mapping.axes:
        summed = found.get("input_tokens", 0) + found.get("output_tokens", 0)
        found.setdefault("total_tokens", summed)
    return found
