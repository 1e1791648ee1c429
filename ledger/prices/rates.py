"""What a model's tokens cost by kind, and what a request costs at these rates, exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_DOWN, Context, Decimal, Inexact
from functools import cached_property, lru_cache
from typing import NamedTuple

from ledger.core.errors import UnknownPriceError
from ledger.prices.counts import OVERLAPS, Counts
from ledger.prices.kinds import (
    AUDIO_SECONDS,
    CACHE_WRITE,
    DEEPEST_FIRST,
    INPUT,
    OUTPUT,
    PARTS,
    PER_HOUR,
    PER_MILLION,
    PER_THOUSAND,
    PRICE_KINDS,
    REQUESTS,
)

_MICRO_PLACES = 6
_MICROS = {PER_MILLION: 1, PER_THOUSAND: 1_000}
"""The cost of one in micro-USD, at a price of 1 US dollar for this many."""
_NOTHING = Decimal(0)
_OUTPUTS = frozenset({OUTPUT, *PARTS[OUTPUT]})
_TOKENS = frozenset({INPUT, *PARTS[INPUT], *_OUTPUTS})
_ORDER = {name: place for place, name in enumerate(PRICE_KINDS)}
PRICE_DIGITS = 30
"""How many digits a price may have before and after the point. A count has at most 19."""

# The program's own decimal context may round to few digits; this one rounds nothing.
_EXACT = Context(prec=2 * PRICE_DIGITS + 40, traps=[Inexact])
_ENDLESS = Context(prec=2 * PRICE_DIGITS + 40, rounding=ROUND_DOWN, traps=[])
_FINEST = Decimal(1).scaleb(-PRICE_DIGITS - _MICRO_PLACES)


@dataclass(frozen=True, slots=True)
class Rate:
    """The price of one kind in US dollars, per million tokens or per thousand times.

    Attributes:
        base: The price of a request whose input is below every step.
        steps: Pairs of a number of input tokens and the price above it, ascending. The price
            applies to the whole request.
    """

    base: Decimal
    steps: tuple[tuple[int, Decimal], ...] = ()

    def at(self, input_tokens: int) -> Decimal:
        """Return the price for a request with this much input, cached or not."""
        found = self.base
        for above, price in self.steps:
            if input_tokens > above:
                found = price
        return found


@dataclass(frozen=True, kw_only=True)
class Rates:
    """The prices of a model at one time, from one source.

    Attributes:
        source: Where the prices are from: `own`, `genai-prices` or `litellm`.
        version: The version of the source.
        model: The model's name in the source.
        provider: The provider's name in the source, None if it names none.
        since: The first day of these prices, `YYYY-MM-DD`; None if the source has no date.
        conditions: The conditions under which they apply, such as `{"service_tier": "flex"}`.
        rates: By kind, see `ledger.prices.kinds`.
    """

    source: str
    version: str
    model: str
    provider: str | None = None
    since: str | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    rates: Mapping[str, Rate]

    @property
    def named(self) -> str:
        """The source and its version."""
        return f"{self.source} {self.version}"

    @cached_property
    def order(self) -> Order:
        """The order in which counts are charged at these rates."""
        return _order(frozenset(self.rates))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One kind of a request's price.

    Attributes:
        kind: Its name in `PRICE_KINDS`.
        count: How many of them are charged at this rate; parts with a price of their own are not
            counted again.
        usd: The price, in US dollars.
        per: How many the price is for.
    """

    kind: str
    count: int
    usd: Decimal
    per: int

    @property
    def cost_usd(self) -> Decimal:
        """What these cost, exactly."""
        return _micros(self.count, self.usd, self.per).scaleb(-_MICRO_PLACES, context=_EXACT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a call costs, and why.

    Attributes:
        rates: The rates that were used.
        requests: What was used, a count for each request of the call.
        used: The usage by names of kinds, without kinds that were not used.
        charges: The parts of the price: for each the kind, the count, the rate, and how many the
            rate is for.
        cost_usd: Their sum, exactly. Seconds are priced by the hour: a sum of theirs without an end
            is cut after more than thirty places.
        cost_micros_usd: The same in millionths of a US dollar, rounded up once.
    """

    rates: Rates
    requests: tuple[Counts, ...]
    used: tuple[Mapping[str, int], ...]
    charges: tuple[tuple[str, int, Decimal, int], ...]
    cost_usd: Decimal
    cost_micros_usd: int

    @property
    def lines(self) -> tuple[Line, ...]:
        """The parts of the price, each with what it costs."""
        return tuple(
            Line(kind=kind, count=count, usd=usd, per=per) for kind, count, usd, per in self.charges
        )


def price(rates: Rates, requests: Sequence[Counts]) -> Price:
    """Return what a call of several requests costs, which are its attempts or iterations.

    Each request is charged at the rates that its own input leads to. The sum is rounded up once.

    Raises:
        UnknownPriceError: There is no price for a kind that was used.
    """
    found: dict[tuple[int, str, Decimal], int] = {}
    used = tuple([request.used() for request in requests])
    for request, kinds in zip(requests, used, strict=True):
        for kind, count in _charged(rates, request, kinds):
            place = _ORDER[kind], kind, rates.rates[kind].at(request.input_tokens)
            found[place] = found.get(place, 0) + count
    charges, micros = [], _NOTHING
    for (_, kind, usd), count in sorted(found.items()):
        per = PRICE_KINDS[kind].per
        charges.append((kind, count, usd, per))
        if per == PER_HOUR:
            micros = _EXACT.add(micros, _micros(count, usd, per))
        else:
            micros = _EXACT.fma(count * _MICROS[per], usd, micros)
    return Price(
        rates=rates,
        requests=tuple(requests),
        used=used,
        charges=tuple(charges),
        cost_usd=micros.scaleb(-_MICRO_PLACES, context=_EXACT),
        cost_micros_usd=int(micros.to_integral_value(ROUND_CEILING)),
    )


def _micros(count: int, usd: Decimal, per: int) -> Decimal:
    """Return what so many cost in micro-USD, at a price for `per` of them.

    It is exact, unless it has no end in decimals: then it is cut so far behind the point that it is
    rounded up to the same micro-USD.
    """
    if per != PER_HOUR:
        return _EXACT.multiply(count * _MICROS[per], usd)
    found = _ENDLESS.divide(_EXACT.multiply(count * PER_MILLION, usd), per)
    return found.quantize(_FINEST, context=_ENDLESS).normalize(_ENDLESS)


def most(rates: Rates, input_tokens: int, output_tokens: int, kinds: Sequence[str] = ()) -> int:
    """Return the most that a request with these tokens may cost, in micro-USD, rounded up.

    It is the highest `price` of a request whose input is uncached or all written to a cache, and
    whose tokens are all of one kind.

    Args:
        rates: The model's.
        input_tokens: All input.
        output_tokens: All output.
        kinds: What input and output may be besides text.

    Raises:
        UnknownPriceError: There is no price for a kind that is used.
    """
    priced = rates.rates
    if INPUT not in priced or OUTPUT not in priced:
        used = Counts(input_tokens=input_tokens, output_tokens=output_tokens).used()
        _check_priced(rates, used, ())
    input_usd = output_usd = _NOTHING
    for kind in (INPUT, CACHE_WRITE, OUTPUT, *kinds):
        if kind in priced:
            usd = priced[kind].at(input_tokens)
            if kind in _OUTPUTS:
                output_usd = max(output_usd, usd)
            else:
                input_usd = max(input_usd, usd)
    # A price per million in USD is the price of one in micro-USD.
    micros = _EXACT.multiply(input_tokens, input_usd)
    micros = _EXACT.fma(output_tokens, output_usd, micros)
    if REQUESTS in priced:
        once = priced[REQUESTS].at(input_tokens)
        micros = _EXACT.fma(_MICROS[PRICE_KINDS[REQUESTS].per], once, micros)
    return int(micros.to_integral_value(ROUND_CEILING))


def text_of(usd: Decimal) -> str:
    """Return a decimal as people write it: without an exponent and without zeros at the end."""
    text = format(usd, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _charged(rates: Rates, request: Counts, used: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    """Return how many of each priced kind are charged at its price, each token once."""
    order = rates.order
    _check_priced(rates, used, order.ambiguous)
    charged: dict[str, int] = {}
    for name, parts in order.kinds:
        count = request.requests if name == REQUESTS else used.get(name, 0)
        if not count:  # nor has it parts
            continue
        for part in parts:
            count -= charged.get(part, 0)
        if count < 0:
            raise UnknownPriceError(
                f"{rates.model}: the parts of {_said(name)} are more than the whole, unless some "
                "are of two kinds; give their number, such as cache_read_audio_tokens"
            )
        charged[name] = count
    return [one for one in charged.items() if one[1]]


class Order(NamedTuple):
    """The order in which counts are charged, for rates of some kinds.

    Attributes:
        kinds: The kinds, each after its parts, with the names of the parts.
        ambiguous: Two kinds, and one that is both and has no price.
    """

    kinds: tuple[tuple[str, tuple[str, ...]], ...]
    ambiguous: tuple[tuple[str, str, str], ...]


@lru_cache(maxsize=256)
def _order(priced: frozenset[str]) -> Order:
    return Order(
        kinds=tuple(
            (name, tuple(part for part in PARTS[name] if part in priced))
            for name in DEEPEST_FIRST
            if name in priced
        ),
        ambiguous=tuple(
            (one, two, both)
            for one, two, both in OVERLAPS
            if both not in priced and {one, two} <= priced
        ),
    )


def _check_priced(
    rates: Rates, used: Mapping[str, int], ambiguous: Iterable[tuple[str, str, str]]
) -> None:
    priced = rates.rates
    # A model that is charged by the hour says how many tokens that were, too.
    by_the_hour = AUDIO_SECONDS in used and AUDIO_SECONDS in priced and INPUT not in priced
    for name in used:
        kind = PRICE_KINDS[name]
        if name in priced or kind.beside or (by_the_hour and name in _TOKENS):
            continue
        wider = [other for other in PRICE_KINDS if name in PARTS[other] and other in priced]
        if not wider or kind.apart:
            instead = f"; the price of {_said(wider[0])} is not what they cost" if wider else ""
            raise UnknownPriceError(
                f"{rates.named} has no price for {_said(name)} of {rates.model}"
                f"{instead}. Add {name!r} for this model to a price table of your own "
                '(prices=PriceList("prices.toml"), --prices)'
            )
    for one, two, both in ambiguous:
        if both in used:
            raise UnknownPriceError(
                f"{rates.named} has prices for {_said(one)} and {_said(two)} of {rates.model}, but "
                f"none for what is both. Add {both!r} to the price table"
            )


def _said(kind: str) -> str:
    return kind.replace("_", " ")
