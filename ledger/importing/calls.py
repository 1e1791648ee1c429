"""The calls of a file: each becomes one entry, under a key that stays the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from typing import NamedTuple

from ledger.core.checks import (
    I64_MAX,
    Micros,
    check_moment,
    check_not_ahead,
    check_text,
    check_type,
    from_micros,
    to_micros,
)
from ledger.core.errors import BillingFileError, InvalidInputError, UnknownPriceError
from ledger.core.extensions import Attribution
from ledger.core.past_calls import COST_PLACES_MAX, PastCall, import_key
from ledger.core.values import Provenance, Usage
from ledger.files.bill import Bill
from ledger.files.lines import BillLine
from ledger.files.mapping import COST_FIELD, Identical
from ledger.files.numbers import Amount
from ledger.files.rows import digest_of
from ledger.prices import Counts, PriceList

_MICROS = 1_000_000
_EXACT = Context(prec=2 * COST_PLACES_MAX, traps=[Inexact])
_UNIT = "\x1f"
"""The separator of the parts of a name, which request ids and times do not contain."""


class Told(NamedTuple):
    """A call of a file.

    Attributes:
        line: The number of its first line.
        call: The call.
        is_named: Whether it has a request id or another identity, so that a later file with other
            figures means the same call.
        rounded: By how much rounding up increased its cost over the file's, in micro-USD.
        says_cost: Whether the file says its cost, as more than 0.
        without_price: If the given prices lack a price for it: its model, or the reason.
    """

    line: int
    call: PastCall
    is_named: bool
    rounded: Amount
    says_cost: bool
    without_price: str | None

    def says_same(self, usage: Usage, axes: Sequence[str]) -> bool:
        """Tell whether these amounts are those of a usage, apart from the cost."""
        others = [name for name in axes if name != COST_FIELD]
        return amounts_of(others, self.call.usage) == amounts_of(others, usage)

    def with_cost(self, cost: int) -> Told:
        """Return it with the cost that was charged, which neither file nor today's prices change.

        Args:
            cost: The cost, in micro-USD.
        """
        usage = replace(self.call.usage, cost_micros_usd=cost)
        call = replace(self.call, usage=usage, cost_usd=None)
        return self._replace(call=call, without_price=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """The calls of a bill, in the order of its lines.

    Lines with the same request id are one call, whose amounts are added up; so are lines without
    one that say the same beside their amounts, as those of one day and model.

    Attributes:
        bill: The bill, read with `attributed=True` if its lines say for whom calls were made.
        attribution: The attribution of each call, for fields that its line does not have.
        source: What tells lines without a request id apart from those of other files of the same
            kind, such as the account; by default the mapping's name.
        provenance: Where the figures are from.
        prices: What a call costs whose lines say no cost, or 0; such a call costs nothing without
            prices, or where these have none for it.

    Raises:
        InvalidInputError: An argument of another type, or identical lines of which it is not known
            whether each was billed.
    """

    bill: Bill
    attribution: Attribution | None = None
    source: str | None = None
    provenance: Provenance = Provenance.RECOVERED
    prices: PriceList | None = None

    def __post_init__(self) -> None:
        check_type("bill", self.bill, Bill)
        if self.attribution is not None:
            check_type("attribution", self.attribution, Attribution)
            if self.attribution.request_id is not None:
                raise InvalidInputError("attribution", "a request id is of one call, not of all")
        if self.source is not None:
            check_text("source", self.source)
        if self.prices is not None:
            check_type("prices", self.prices, PriceList)
        bill = self.bill
        if bill.mapping.identical is Identical.REFUSE and bill.identical:
            raise InvalidInputError(
                "identical",
                f"line {bill.identical[0]} repeats an earlier line in every cell, as where exports "
                "overlap; say 'once' if they are one line, 'add' if each was billed",
            )

    @property
    def axes(self) -> tuple[str, ...]:
        """The amounts of each call: those of the file, and the cost if calls are priced."""
        axes = self.bill.axes
        return axes if self.prices is None or COST_FIELD in axes else (*axes, COST_FIELD)

    def told(self, now: datetime) -> Iterator[Told]:
        """Yield the calls, each checked. A key of 16 bytes a line is all that memory holds of them.

        Args:
            now: The time by the clock of the store: no call is dated more than a day ahead.

        Raises:
            BillingFileError: A line says no time, or one that is ahead of the clock or that no
                store can hold; or an amount below 0 or above 2^63-1.
        """
        clock = to_micros("now", now)
        sums = self._sums()
        for line in self.bill.lines:
            key = digest_of(self._name(line))
            if key not in sums:
                yield self._told(line, clock)
            elif (amounts := sums[key]) is not None:
                sums[key] = None
                yield self._told(line._replace(amounts=amounts), clock)

    def _sums(self) -> dict[bytes, tuple[Amount, ...] | None]:
        """Return the amounts of each call that has several lines, by the hash of its name."""
        once: dict[bytes, int] = {}
        places: dict[bytes, list[int]] = {}
        for place, line in enumerate(self.bill.lines):
            key = digest_of(self._name(line))
            first = once.setdefault(key, place)
            if first != place:
                places.setdefault(key, [first]).append(place)
        return {
            key: tuple(
                map(sum, zip(*(self.bill.lines[place].amounts for place in of_call), strict=True))
            )
            for key, of_call in places.items()
        }

    def _name(self, line: BillLine) -> str:
        if line.request_id is not None:
            return line.request_id
        source = self.source or self.bill.mapping.name
        if line.identity is not None:
            return _UNIT.join((source, line.identity))
        parts = (line.at, line.end, line.model)
        whom = (line.run_id, line.provider, line.tenant, line.agent)
        return _UNIT.join((source, *(f"{part}" for part in (*map(_moment, parts), *whom))))

    def _told(self, line: BillLine, now: Micros) -> Told:
        try:
            at = check_not_ahead("time", check_moment("time", _time(line)), now)
            amounts = dict(zip(self.bill.axes, line.amounts, strict=True))
            _check_amounts(amounts)
            whom = self._attribution(line)
            usage = Usage(**{name: math.ceil(amount) for name, amount in amounts.items()})
            cost, without_price = amounts.get(COST_FIELD, 0), None
            if self.prices is not None and not cost:
                try:
                    cost = _priced(self.prices, usage, whom, from_micros(at))
                except (UnknownPriceError, InvalidInputError) as error:
                    without_price = (whom and whom.model) or str(error)
            call = PastCall(
                usage=replace(usage, cost_micros_usd=math.ceil(cost)),
                occurred_at=from_micros(at),
                attribution=whom,
                idempotency_key=import_key(self._name(line)),
                provenance=self.provenance,
                cost_usd=_exactly(cost),
            )
        except InvalidInputError as error:
            raise BillingFileError(self.bill.file, line=line.line, reason=str(error)) from error
        is_named = line.request_id is not None or line.identity is not None
        rounded = math.ceil(cost) - Fraction(cost)
        says_cost = bool(amounts.get(COST_FIELD))
        return Told(line.line, call, is_named, rounded, says_cost, without_price)

    def _attribution(self, line: BillLine) -> Attribution | None:
        said = {
            name: value
            for name in ("run_id", "provider", "model", "tenant", "agent", "request_id")
            if (value := getattr(line, name)) is not None
        }
        base = self.attribution or Attribution()
        return replace(base, **said) if said else self.attribution


def _time(line: BillLine) -> datetime:
    if line.at is None:
        raise InvalidInputError("time", "the line says none, and an import counts by it")
    return line.at


def _check_amounts(amounts: Mapping[str, Amount]) -> None:
    for name, amount in amounts.items():
        if not 0 <= amount <= I64_MAX:
            reason = f"{float(amount):,.0f} is not 0 to 2^63-1, which an entry can record"
            raise InvalidInputError(name, reason)


def _priced(prices: PriceList, usage: Usage, whom: Attribution | None, at: datetime) -> Amount:
    """Return what a call costs, in micro-USD.

    Raises:
        UnknownPriceError: There is no price for it, or for all of it.
        InvalidInputError: A part of its input or output is more than the whole.
    """
    if whom is None or whom.model is None:
        raise UnknownPriceError("no model is named")
    if usage.total_tokens > usage.input_tokens + usage.output_tokens:
        raise UnknownPriceError("the total is more than input and output, which have prices")
    counts = Counts.of_usage(usage)
    found = prices.price(counts, model=whom.model, provider=whom.provider, at=at)
    return Fraction(found.cost_usd) * _MICROS


def _exactly(cost: Amount) -> Decimal | None:
    """Return a cost in US dollars, None if it is whole micro-USD."""
    if isinstance(cost, int) or cost.denominator == 1:
        return None
    return _EXACT.divide(Decimal(cost.numerator), Decimal(cost.denominator * _MICROS))


def _moment(part: datetime | str | None) -> str:
    """Return a time as part of a name: the same text for the same time, in any zone."""
    return str(to_micros("time", part)) if isinstance(part, datetime) else f"{part}"


def amounts_of(axes: Sequence[str], usage: Usage) -> dict[str, int]:
    """Return the amounts of a usage that a file has."""
    return {name: getattr(usage, name) for name in axes}
