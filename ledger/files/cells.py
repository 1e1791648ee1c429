"""Rows as lines of a bill, by a mapping, column by column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import partial
from typing import NamedTuple, TypeVar

from ledger.core.calendar import zone_named
from ledger.core.checks import check_text, from_micros
from ledger.core.columns import each_once
from ledger.core.errors import InvalidInputError
from ledger.files.lines import LineColumns
from ledger.files.mapping import COST_FIELD, BillMapping, CostUnit, TokenCounting
from ledger.files.moments import ISO, full_time, moment
from ledger.files.numbers import Amount, money, plain_numbers, shown, tokens, unit_of
from ledger.files.rows import SEPARATOR, FileRows, digest_of

_MICROS_IN = {CostUnit.USD: 1_000_000, CostUnit.CENTS: 10_000, CostUnit.MICROS_USD: 1}
_CACHE = ("cache_creation_tokens", "cache_read_tokens")
_EPOCH = from_micros(0)
_MICROSECOND = timedelta(microseconds=1)

T = TypeVar("T")
Moments = Sequence[int | None]
"""Times in microseconds since 1970. A bill may have times that no journal can hold."""


class ReadRows(NamedTuple):
    """Several rows as lines.

    Attributes:
        columns: The lines, column by column.
        other_kinds: How many lines each kind of token has that the mapping does not name.
    """

    columns: LineColumns
    other_kinds: Counter[str]


class CellReader:
    """The meaning of cells.

    Attributes:
        asked: The columns that it reads.
    """

    def __init__(self, mapping: BillMapping, columns: Sequence[str]) -> None:
        self._mapping = mapping
        self._zone = zone_named(mapping.zone)
        self._currencies = _currencies(mapping, columns)
        offset = self._zone.utcoffset(None)
        self._begin = None if offset is None else _EPOCH.replace(tzinfo=None) + offset
        """When 1970 began in the zone, if its clock is never changed. It halves the work for a
        time."""
        self._start = None
        if mapping.start is not None:
            self._start = moment("start", mapping.start, (ISO,), self._zone)
        self._nothing = frozenset(("", *mapping.empty))
        """The texts of cells without a value."""
        self.asked = mapping.columns | {*self._currencies}
        self._sums = {
            name: [column for column in named if column != mapping.quantity]
            for name, named in mapping.amounts.items()
        }
        self._counted = [*{column for named in mapping.amounts.values() for column in named}]
        self._axes = mapping.axes
        self._micros = _MICROS_IN[mapping.cost_unit]
        self._unit = 1
        self._unit_column = mapping.unit_column
        if mapping.token_unit is not None and self._unit_column is None:
            self._unit = unit_of("token_unit", mapping.token_unit)

    def selected(self, rows: FileRows) -> Sequence[bool]:
        """Tell which rows are those that the mapping reads."""
        return _are_of(rows, self._mapping.only)

    def begin_session(self, rows: FileRows) -> Sequence[bool]:
        """Tell which rows begin a session. Lines are compared only within one session."""
        return _are_of(rows, self._mapping.begins)

    def have_amounts(self, rows: FileRows) -> Sequence[bool]:
        """Tell which rows have any amount. An export's empty day has none."""
        return self._say_any(rows, self._counted)

    def identities(self, rows: FileRows, sessions: Sequence[bytes]) -> list[bytes]:
        """Return for each row a hash of its identifying cells and of its session.

        Args:
            rows: The rows.
            sessions: For each row the hash of the row that began its session.
        """
        said = [rows.cells[column] for column in self._mapping.identity]
        of_session = [session.hex() for session in sessions]
        return [digest_of(SEPARATOR.join(one)) for one in zip(of_session, *said, strict=True)]

    def times(self, rows: FileRows) -> tuple[Moments, Moments]:
        """Return when each row begins, and when it ends.

        Raises:
            InvalidInputError: A cell is no time, or an end is not after its beginning.
        """
        begins = self._each(rows, self._mapping.at, self._moment)
        if self._mapping.end is None:
            return begins, [None] * len(begins)
        # On a line without a beginning, such as one of totals, the cell is no end.
        dated = rows.kept([at is not None for at in begins])
        found = iter(self._each(dated, self._mapping.end, self._moment))
        ends = [None if at is None else next(found) for at in begins]
        pairs = [*zip(begins, ends, strict=True)]
        if any(at is not None and end is not None and end <= at for at, end in pairs):
            raise InvalidInputError(f"{self._mapping.end}", "is not after the beginning")
        return begins, ends

    def lines(self, rows: FileRows, begins: Moments, ends: Moments) -> ReadRows:
        """Return rows as lines.

        Args:
            rows: The rows.
            begins: When each begins, as `times` says.
            ends: When each ends.

        Raises:
            InvalidInputError: A cell cannot be read.
        """
        mapping = self._mapping
        for column in self._currencies:
            for currency in {*rows.cells[column]} - self._nothing:
                if currency.lower() != "usd":
                    raise InvalidInputError(column, f"{shown(currency)} is not USD")
        request_ids = self._each(rows, mapping.request_id, check_text)
        if (None, None) in zip(request_ids, begins, strict=True):
            raise InvalidInputError("line", "has neither a request id nor a day")
        amounts, other_kinds = self._amounts(rows)
        identities: Sequence[str | None] = [None] * len(rows.lines)
        if mapping.identity:
            identities = [digest.hex() for digest in rows.digests]
        columns = LineColumns(
            line=rows.lines,
            request_id=request_ids,
            model=self._each(rows, mapping.model, self._model),
            at=begins,
            end=ends,
            amounts=[*zip(*(amounts[name] for name in self._axes), strict=True)],
            has_cost=self._say_any(rows, mapping.cost),
            run_id=self._each(rows, mapping.run, check_text),
            provider=self._each(rows, mapping.provider, check_text),
            tenant=self._each(rows, mapping.tenant, check_text),
            agent=self._each(rows, mapping.agent, check_text),
            identity=identities,
            digest=rows.digests,
        )
        return ReadRows(columns, other_kinds)

    def _each(
        self, rows: FileRows, column: str | None, meaning: Callable[[str, str], T]
    ) -> list[T | None]:
        """Return the meaning of each text of a column; None for an empty text."""
        if column is None:
            return [None] * len(rows.lines)
        nothing = self._nothing
        return each_once(
            lambda text: None if text in nothing else meaning(column, text), rows.cells[column]
        )

    def _say_any(self, rows: FileRows, columns: Sequence[str]) -> Sequence[bool]:
        """Tell which rows have a value in any of several columns."""
        texts = [rows.cells[column] for column in columns]
        if any(self._nothing.isdisjoint(column) for column in texts):
            return [True] * len(rows.lines)
        if not texts:
            return [False] * len(rows.lines)
        return [not self._nothing.issuperset(one) for one in zip(*texts, strict=True)]

    def _moment(self, column: str, text: str) -> int:
        found = None if self._mapping.at_format else full_time(text)
        if found is not None and self._begin is not None:
            return (found - self._begin) // _MICROSECOND
        if found is not None:
            at = found.replace(tzinfo=self._zone)
        else:
            at = moment(column, text, self._mapping.at_format, self._zone, self._start)
        return (at - _EPOCH) // _MICROSECOND

    def _model(self, column: str, text: str) -> str:
        mapping = self._mapping
        if mapping.model_until is not None:
            text = text.partition(mapping.model_until)[0]
        return check_text(column, _fitting(mapping.models, text) or text)

    def _amounts(self, rows: FileRows) -> tuple[dict[str, list[Amount]], Counter[str]]:
        """Return amounts as the journal counts them: input with cache tokens, and a total."""
        units = self._units(rows)
        found = {name: self._sum(rows, named, name, units) for name, named in self._sums.items()}
        other_kinds = self._add_kinds(rows, units, found)
        if self._mapping.tokens is TokenCounting.CACHE_EXCLUDED and "input_tokens" in found:
            for name in _CACHE:
                if name in found:
                    found["input_tokens"] = _added(found["input_tokens"], found[name])
        if "total_tokens" in self._axes and "total_tokens" not in found:
            none: list[Amount] = [0] * len(rows.lines)
            found["total_tokens"] = _added(
                found.get("input_tokens", none), found.get("output_tokens", none)
            )
        return found, other_kinds

    def _units(self, rows: FileRows) -> Sequence[int] | None:
        """Return how many tokens a unit has in each row; None if it is the same in every row."""
        if self._unit_column is None:
            return None
        said = self._each(rows, self._unit_column, unit_of)
        return [1 if unit is None else unit for unit in said]

    def _sum(
        self, rows: FileRows, columns: Sequence[str], name: str, units: Sequence[int] | None
    ) -> list[Amount]:
        """Return the sums of several columns."""
        if not columns:
            return [0] * len(rows.lines)
        first, *others = (self._values(rows, column, name, units) for column in columns)
        for values in others:
            first = _added(first, values)
        return first

    def _values(
        self, rows: FileRows, column: str, name: str, units: Sequence[int] | None
    ) -> list[Amount]:
        """Return the amounts in a column. An empty cell is 0."""
        texts = rows.cells[column]
        if units is not None:
            pairs = zip(texts, units, strict=True)
            return each_once(lambda one: self._value(column, name, *one), pairs)
        if self._unit == 1 and name != COST_FIELD and self._nothing.isdisjoint(texts):
            whole = plain_numbers(texts)
            if whole is not None:
                return [*whole]
        return each_once(lambda text: self._value(column, name, text, self._unit), texts)

    def _value(self, column: str, name: str, text: str, unit: int) -> Amount:
        """Return the amount in a cell; the values of a list are added."""
        total: Amount = 0
        for one in text.split(SEPARATOR):
            if one in self._nothing:
                continue
            if name == COST_FIELD:
                amount = money(column, one, self._micros, self._mapping.decimal)
            else:
                amount = tokens(column, one, unit, self._mapping.decimal)
            total = total + amount if total else amount
        return total

    def _add_kinds(
        self, rows: FileRows, units: Sequence[int] | None, found: Mapping[str, list[Amount]]
    ) -> Counter[str]:
        """Add the tokens of rows by kind; return the number of rows of each unnamed kind."""
        others: Counter[str] = Counter()
        mapping = self._mapping
        if mapping.kind is None or mapping.quantity is None:
            return others
        kinds, quantities = rows.cells[mapping.kind], rows.cells[mapping.quantity]
        axes = each_once(lambda text: _fitting(mapping.kinds, text), kinds)
        units = units or [self._unit] * len(kinds)
        for place, (kind, axis, quantity, unit) in enumerate(
            zip(kinds, axes, quantities, units, strict=True)
        ):
            if kind in self._nothing or quantity in self._nothing:
                continue
            if axis is None:
                others[kind] += 1
            else:
                found[axis][place] += tokens(mapping.quantity, quantity, unit, mapping.decimal)
        return others


def _added(known: Sequence[Amount], more: Sequence[Amount]) -> list[Amount]:
    return [one + other if one else other for one, other in zip(known, more, strict=True)]


def _are_of(rows: FileRows, wanted: Mapping[str, Sequence[str]]) -> Sequence[bool]:
    """Tell which rows have, in every named column, one of its values."""
    found = [
        each_once(partial(_fits_any, patterns), rows.cells[column])
        for column, patterns in wanted.items()
    ]
    return [*map(all, zip(*found, strict=True))] if found else [True] * len(rows.lines)


def _fits_any(patterns: Sequence[str], text: str) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _fitting(names: Mapping[str, str], text: str) -> str | None:
    """Return the name for a text: by its own item, or by the first pattern that fits."""
    exact = names.get(text)
    if exact is not None:
        return exact
    return next((ours for theirs, ours in names.items() if fnmatchcase(text, theirs)), None)


def _currencies(mapping: BillMapping, columns: Sequence[str]) -> list[str]:
    """Return the columns that must say USD: the mapping's, or all that look like currencies."""
    if COST_FIELD not in mapping.axes:
        return []
    if mapping.currency is not None:
        return [mapping.currency]
    return [name for name in columns if name.lower().endswith(("currency", "currency_code"))]
