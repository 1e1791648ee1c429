"""The price in an entry's detail: written by `PriceList.recording`, and read to price it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from ledger.core.checks import JsonObject, canonical_json
from ledger.core.entries import Entry
from ledger.core.past_calls import exact_cost_in
from ledger.core.usage_reports import written_detail
from ledger.core.values import Usage
from ledger.prices.counts import Counts
from ledger.prices.kinds import PRICE_KINDS
from ledger.prices.rates import Price, text_of

PRICE = "price"
"""The part of an entry's detail that is about its price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The usage of an entry, as finely as it was kept.

    Attributes:
        requests: By kind, a count for each request.
        conditions: The conditions under which it was charged.
    """

    requests: tuple[Counts, ...]
    conditions: Mapping[str, str]


def detail_of(
    requests: Sequence[Counts],
    conditions: Mapping[str, str],
    priced: Price | None,
    unpriced: str | None,
    more: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Return what an entry keeps, enough to compute its price again without a table.

    Args:
        requests: What was used, by request.
        conditions: Under what.
        priced: What it cost.
        unpriced: Why there is no price, if there is none.
        more: What else it keeps.
    """
    kept = _written(requests, conditions, priced, unpriced)
    try:
        parts = [
            f"{_quoted(name)}:{kept if name == PRICE else _text(more[name])}"
            for name in sorted({*more, PRICE})
        ]
    except (TypeError, ValueError, RecursionError):  # not JSON, so it is shortened as a whole
        return {**more, PRICE: JsonObject.written(kept).content}
    return written_detail(f"{{{','.join(parts)}}}")


def _written(
    requests: Sequence[Counts],
    conditions: Mapping[str, str],
    priced: Price | None,
    unpriced: str | None,
) -> str:
    """Return the canonical text of usage and cost; names and kinds need no escapes.

    It is written part by part, in the order of names, since a JSON encoder takes twice as long.
    """
    used = [one.used() for one in requests] if priced is None else priced.used
    counts = ",".join([_counts(one) for one in used])
    said = f'"conditions":{canonical_json(dict(conditions))},' if conditions else ""
    if priced is None:
        why = "" if unpriced is None else f',"unpriced":{_quoted(unpriced)}'
        return f'{{{said}"requests":[{counts}]{why}}}'
    rates = priced.rates
    lines = ",".join(
        [f'["{kind}",{count},"{_rate(usd)}",{per}]' for kind, count, usd, per in priced.charges]
    )
    whose, source = _names(rates.model, rates.provider, rates.since, rates.source, rates.version)
    cost = text_of(priced.cost_usd)
    return f'{{{said}"cost_usd":"{cost}","lines":[{lines}],{whose},"requests":[{counts}],{source}}}'


@lru_cache(maxsize=1_000)
def _names(
    model: str, provider: str | None, since: str | None, source: str, version: str
) -> tuple[str, str]:
    """Return the text before and after the requests, which is the same for many calls."""
    first = {"model": model, "provider": provider}
    last = {"since": since, "source": source, "version": version}
    before, behind = (
        canonical_json({name: value for name, value in part.items() if value is not None})[1:-1]
        for part in (first, last)
    )
    return before, behind


def _counts(used: Mapping[str, int]) -> str:
    said = [f'"{name}":{count}' for name, count in used.items()]
    return f"{{{','.join(said)}}}"


_rate = lru_cache(maxsize=1_000)(text_of)


def _text(value: object) -> str:
    return value.text if isinstance(value, JsonObject) else canonical_json(value)


def _quoted(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError("names in JSON are texts")
    return canonical_json(text)


def kept_in(detail: Mapping[str, Any], usage: Usage) -> Kept:
    """Return the usage of an entry's call by kind.

    Args:
        detail: The entry's detail.
        usage: Its usage, after corrections. It decides if the two differ.

    Raises:
        InvalidInputError: A part of the usage is more than the whole.
    """
    report = detail.get("report")
    said: Any = report.get(PRICE) if isinstance(report, Mapping) else None
    try:
        requests = tuple(
            Counts(**{PRICE_KINDS[name].field: count for name, count in one.items()})
            for one in said["requests"]
        )
        conditions = {str(name): str(value) for name, value in said.get("conditions", {}).items()}
        first, *others = requests
        for other in others:
            first = first.plus(other)
    except (TypeError, KeyError, ValueError, AttributeError):
        requests, conditions, first = (), {}, Counts()
    recorded = Counts.of_usage(usage)
    if not requests or first.usage(0) != recorded.usage(0):
        return Kept(requests=(recorded,), conditions=conditions)
    return Kept(requests=requests, conditions=conditions)


def exact_cost(entry: Entry) -> Decimal | None:
    """Return the exact cost of an entry in US dollars, None if it has none.

    That is the exact cost that was kept, if its micro-USD are that cost rounded up, and otherwise
    its micro-USD. Without corrections, the sum over all entries of a pool is exactly what was
    spent. A correction starts from the rounded cost and is in whole micro-USD, so a corrected
    charge adds up to less than it should, by what rounding had added.
    """
    if entry.usage is None:
        return None
    micros = entry.usage.cost_micros_usd
    report = entry.detail.get("report")
    said: Any = report if isinstance(report, Mapping) else {}
    price = said.get(PRICE)
    kept = price.get("cost_usd") if isinstance(price, Mapping) else said.get("cost_usd")
    exactly = exact_cost_in(kept, micros)
    return Decimal(micros).scaleb(-6) if exactly is None else exactly
