"""What an entry keeps of its price: written by `PriceList.recording`, read to price it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ledger.core.entries import Entry
from ledger.core.past_calls import exact_cost_in
from ledger.core.values import Usage
from ledger.prices.counts import Counts
from ledger.prices.kinds import PRICE_KINDS
from ledger.prices.rates import Price, text_of

PRICE = "price"
"""The part of an entry's detail that is about its price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was used, as finely as an entry says it.

    Attributes:
        requests: By kind, a count for each request.
        conditions: Under what it was charged.
    """

    requests: tuple[Counts, ...]
    conditions: Mapping[str, str]


def detail_of(
    requests: Sequence[Counts],
    conditions: Mapping[str, str],
    priced: Price | None,
    unpriced: str | None,
) -> dict[str, Any]:
    """Return what an entry keeps: enough to compute its price again, without any table.

    Args:
        requests: What was used, by request.
        conditions: Under what.
        priced: What it cost.
        unpriced: Why there is no price, where there is none.
    """
    kept: dict[str, Any] = {
        "requests": [request.used() for request in requests],
        "conditions": dict(conditions),
        "unpriced": unpriced,
    }
    if priced is not None:
        rates = priced.rates
        kept |= {
            "source": rates.source,
            "version": rates.version,
            "model": rates.model,
            "provider": rates.provider,
            "since": rates.since,
            "cost_usd": text_of(priced.cost_usd),
            "lines": [
                [line.kind, line.count, text_of(line.usd), line.per] for line in priced.lines
            ],
        }
    return {PRICE: {name: value for name, value in kept.items() if value not in (None, {})}}


def kept_in(detail: Mapping[str, Any], usage: Usage) -> Kept:
    """Return what an entry says of its call, by kind.

    Args:
        detail: The entry's detail.
        usage: Its usage, or what a correction made of it: that decides where the two differ.

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
    """Return what an entry says that was spent, in US dollars; None if it says nothing of it.

    That is the cost that was kept with it, where its micro-USD are that cost rounded up, and else
    its micro-USD. The sum over all entries of a pool is exactly what was spent as long as none of
    them is a correction: that moves from the cost as it was rounded up, and is in whole micro-USD,
    so that each corrected charge adds up to less than it should by what rounding it up had added.
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
