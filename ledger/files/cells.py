"""A row's cells as a line of a bill, by a mapping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TypeVar

from ledger.core.calendar import zone_named
from ledger.core.checks import check_text
from ledger.errors import InvalidInputError
from ledger.files.lines import BillLine
from ledger.files.mapping import ATTRIBUTION, COST, BillMapping, CostUnit, TokenCounting
from ledger.files.moments import ISO, full_time, moment
from ledger.files.numbers import Amount, is_plain, money, shown, tokens, unit_of
from ledger.files.rows import SEPARATOR, Row, digest_of

_MICROS_IN = {CostUnit.USD: 1_000_000, CostUnit.CENTS: 10_000, CostUnit.MICROS_USD: 1}
_CACHE = ("cache_creation_tokens", "cache_read_tokens")
_REMEMBERED = 4_096
"""How many texts of times, models and kinds are remembered with what they mean."""

_T = TypeVar("_T")
Cells = Mapping[str, str]


class CellReader:
    """The meaning of cells.

    Attributes:
        asked: The columns that it reads.
        other_kinds: How many lines each kind of token has that the mapping does not name.
    """

    def __init__(self, mapping: BillMapping, columns: Sequence[str]) -> None:
        self._mapping = mapping
        self._zone = zone_named(mapping.zone)
        self._currencies = _currencies(mapping, columns)
        self._start = None
        if mapping.start is not None:
            self._start = moment("start", mapping.start, (ISO,), self._zone)
        self._empty = frozenset(mapping.empty)
        self.asked = mapping.columns | {*self._currencies}
        self.other_kinds: Counter[str] = Counter()
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
        remember: Callable[[Callable[[str], _T]], Callable[[str], _T]] = lru_cache(_REMEMBERED)
        self._at = remember(lambda text: self._moment(f"{mapping.at}", text))
        self._ends_at = remember(lambda text: self._moment(f"{mapping.end}", text))
        self._model = remember(self._named_model)
        self._named = [
            ("run_id" if name == "run" else name, column)
            for name in ATTRIBUTION
            if (column := getattr(mapping, name)) is not None
        ]
        self._kind = remember(lambda text: _fitting(mapping.kinds, text))
        self._tokens_in = remember(lambda text: unit_of(f"{self._unit_column}", text))

    def is_selected(self, cells: Cells) -> bool:
        """Tell whether a row is one of those that the mapping reads."""
        return _is_one_of(cells, self._mapping.only)

    def begins_session(self, cells: Cells) -> bool:
        """Tell whether a row begins a session: lines before it are no longer repeated."""
        return _is_one_of(cells, self._mapping.begins)

    def times(self, cells: Cells) -> tuple[datetime, str, datetime | None] | None:
        """Return when a row begins, that day in the mapping's zone, and when it ends.

        Raises:
            InvalidInputError: It is no time, or the end is not after the beginning.
        """
        text = self._cell(cells, self._mapping.at)
        if text is None:
            return None
        at, day = self._at(text)
        text = self._cell(cells, self._mapping.end)
        if text is None:
            return at, day, None
        end, _day = self._ends_at(text)
        if end <= at:
            raise InvalidInputError(f"{self._mapping.end}", "is not after the beginning")
        return at, day, end

    def has_amounts(self, cells: Cells) -> bool:
        """Tell whether a row has any amount: an export's empty day has none."""
        for column in self._counted:
            text = cells.get(column)
            if text and text not in self._empty:
                return True
        return False

    def identity(self, cells: Cells, session: bytes) -> bytes:
        """Return a hash of the cells that say which line of its session a row is, and of which."""
        said = [session.hex(), *(cells.get(column, "") for column in self._mapping.identity)]
        return digest_of(SEPARATOR.join(said))

    def line(self, row: Row, when: tuple[datetime, str, datetime | None] | None) -> BillLine:
        """Return a row as a line.

        Raises:
            InvalidInputError: A cell cannot be read.
        """
        cells, mapping = row.cells, self._mapping
        for column in self._currencies:
            currency = self._cell(cells, column)
            if currency and currency.lower() != "usd":
                raise InvalidInputError(column, f"{shown(currency)} is not USD")
        request_id = self._cell(cells, mapping.request_id)
        if request_id is not None:
            check_text(f"{mapping.request_id}", request_id)
        elif when is None:
            raise InvalidInputError("line", "has neither a request id nor a day")
        model = self._cell(cells, mapping.model)
        at, day, end = (None, None, None) if when is None else when
        amounts = self._amounts(cells)
        named = {
            name: check_text(column, text)
            for name, column in self._named
            if (text := self._cell(cells, column)) is not None
        }
        return BillLine(
            line=row.line,
            request_id=request_id,
            model=None if model is None else self._model(model),
            at=at,
            end=end,
            day=day,
            amounts=tuple([amounts[name] for name in self._axes]),
            has_cost=bool(mapping.cost) and any(self._cell(cells, one) for one in mapping.cost),
            identity=row.digest.hex() if mapping.identity else None,
            **named,
        )

    def _cell(self, cells: Cells, column: str | None) -> str | None:
        text = cells.get(column) if column is not None else None
        return text if text and text not in self._empty else None

    def _moment(self, column: str, text: str) -> tuple[datetime, str]:
        found = None if self._mapping.at_format else full_time(text)
        if found is not None:
            return found.replace(tzinfo=self._zone), found.date().isoformat()
        at = moment(column, text, self._mapping.at_format, self._zone, self._start)
        return at, at.astimezone(self._zone).date().isoformat()

    def _named_model(self, text: str) -> str:
        mapping = self._mapping
        if mapping.model_until is not None:
            text = text.partition(mapping.model_until)[0]
        return check_text(f"{mapping.model}", _fitting(mapping.models, text) or text)

    def _amounts(self, cells: Cells) -> dict[str, Amount]:
        """Return amounts as the journal counts them: input with cache tokens, and a total."""
        unit, mapping = self._unit, self._mapping
        if self._unit_column is not None:
            said = self._cell(cells, self._unit_column)
            unit = 1 if said is None else self._tokens_in(said)
        found = {name: self._sum(cells, named, name, unit) for name, named in self._sums.items()}
        kind = self._cell(cells, mapping.kind)
        quantity = self._cell(cells, mapping.quantity)
        if kind is not None and quantity is not None:
            axis = self._kind(kind)
            if axis is None:
                self.other_kinds[kind] += 1
            else:
                found[axis] += tokens(f"{mapping.quantity}", quantity, unit, mapping.decimal)
        if mapping.tokens is TokenCounting.CACHE_EXCLUDED and "input_tokens" in found:
            found["input_tokens"] += sum(found.get(name, 0) for name in _CACHE)
        if "total_tokens" in self._axes and "total_tokens" not in found:
            found["total_tokens"] = found.get("input_tokens", 0) + found.get("output_tokens", 0)
        return found

    def _sum(self, cells: Cells, columns: Sequence[str], name: str, unit: int) -> Amount:
        """Return the sum of several cells. An empty one is 0; the values of a list are added."""
        total: Amount = 0
        mapping = self._mapping
        for column in columns:
            text = cells.get(column)
            if not text:
                continue
            if unit == 1 and name != COST and is_plain(text) and text not in self._empty:
                total += int(text)
                continue
            for one in text.split(SEPARATOR) if SEPARATOR in text else (text,):
                if not one or one in self._empty:
                    continue
                if name == COST:
                    amount = money(column, one, self._micros, mapping.decimal)
                else:
                    amount = tokens(column, one, unit, mapping.decimal)
                total = total + amount if total else amount
        return total


def _is_one_of(cells: Cells, rows: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether a row has one of the values in every column that is named."""
    return all(
        any(fnmatchcase(cells.get(column, ""), pattern) for pattern in patterns)
        for column, patterns in rows.items()
    )


def _fitting(names: Mapping[str, str], text: str) -> str | None:
    """Return what a text is called: as it is given, or by the first pattern that fits."""
    exact = names.get(text)
    if exact is not None:
        return exact
    return next((ours for theirs, ours in names.items() if fnmatchcase(text, theirs)), None)


def _currencies(mapping: BillMapping, columns: Sequence[str]) -> list[str]:
    """Return the columns that must say USD: the mapping's, or all that look like a currency."""
    if COST not in mapping.axes:
        return []
    if mapping.currency is not None:
        return [mapping.currency]
    return [name for name in columns if name.lower().endswith(("currency", "currency_code"))]
