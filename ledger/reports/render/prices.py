"""Tables of prices: what a call costs and why, where sources disagree, other prices."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from ledger.prices.comparison import Disagreement
from ledger.prices.rates import Price, text_of
from ledger.reports.render.sheet import Column, Sheet
from ledger.reports.render.values import decimal, text, usd
from ledger.reports.reprice import Repriced

_RATIO_PLACES = 3


def price_sheet(price: Price, model: str) -> Sheet:
    """Return the lines of a price, and its sum."""
    sheet = Sheet(
        columns=[
            Column(heading="Kind"),
            Column(heading="Count"),
            Column(heading="USD"),
            Column(heading="per"),
            Column(heading="Cost in USD"),
        ],
        title=f"Price of a call to {model}",
    )
    for line in price.lines:
        sheet.add(
            line.kind,
            f"{line.count:,}",
            text_of(line.usd),
            f"{line.per:,}",
            text_of(line.cost_usd),
        )
    sheet.add_section()
    sheet.add("exactly", "", "", "", text_of(price.cost_usd))
    sheet.add("charged", "", "", "", usd(price.cost_micros_usd))
    return sheet


def priced_by(price: Price) -> str:
    """Say what a call was priced with."""
    rates = price.rates
    served = "" if rates.provider is None else f" of {rates.provider}"
    since = "undated" if rates.since is None else f"since {rates.since}"
    under = "".join(f", {name} {value}" for name, value in rates.conditions.items())
    return f"Priced by {rates.named} as {rates.model}{served}, {since}{under}."


def disagreements_sheet(rows: Sequence[Disagreement]) -> Sheet:
    """Return where two sources disagree."""
    first, second = (rows[0].first, rows[0].second) if rows else ("first", "second")
    sheet = Sheet(
        columns=[
            Column(heading="Model"),
            Column(heading="Provider", left=True, rank=1),
            Column(heading="Kind", left=True),
            Column(heading="Above\ninput tokens"),
            Column(heading=_two_lines(first)),
            Column(heading=_two_lines(second)),
            Column(heading="Ratio", rank=2),
        ],
        title=f"Prices that differ: {len(rows):,}",
    )
    for row in rows:
        sheet.add(
            text(row.model),
            text(row.provider),
            row.kind,
            f"{row.above_input_tokens:,}",
            _price(row.first_usd),
            _price(row.second_usd),
            "" if row.ratio is None else decimal(row.ratio, _RATIO_PLACES),
        )
    return sheet


def repriced_sheet(rows: Sequence[Repriced]) -> Sheet:
    """Return what recorded calls cost, and what they would have cost by other prices."""
    done = [row for row in rows if row.reason is None]
    corrected = any(row.corrected_micros_usd for row in done)
    sheet = Sheet(
        columns=[
            Column(heading="Model"),
            Column(heading="Provider", left=True, rank=1),
            Column(heading="Entries"),
            Column(heading="Recorded\nUSD"),
            *([Column(heading="Of it by\ncorrections")] if corrected else []),
            Column(heading="Repriced\nUSD"),
            Column(heading="Difference\nUSD"),
            Column(heading="Priced by", left=True, rank=2),
        ],
        title="Recorded, and by the other prices",
    )
    for row in done:
        sheet.add(
            text(row.model),
            text(row.provider),
            f"{row.entries:,}",
            usd(row.cost_micros_usd),
            *([_signed(row.corrected_micros_usd)] if corrected else []),
            usd(row.repriced_micros_usd or 0),
            _signed(row.difference_micros_usd or 0),
            text(row.priced_by),
        )
    recorded = sum(row.cost_micros_usd for row in done)
    repriced = sum(row.repriced_micros_usd or 0 for row in done)
    sheet.add_section()
    sheet.add(
        "Total",
        "",
        f"{sum(row.entries for row in done):,}",
        usd(recorded),
        *([_signed(sum(row.corrected_micros_usd for row in done))] if corrected else []),
        usd(repriced),
        _signed(repriced - recorded),
        "",
    )
    return sheet


def unrepriced_sheet(rows: Sequence[Repriced]) -> Sheet:
    """Return what could not be priced again, and why."""
    sheet = Sheet(
        columns=[
            Column(heading="Model"),
            Column(heading="Provider", left=True, rank=1),
            Column(heading="Entries"),
            Column(heading="Recorded\nUSD"),
            Column(heading="Why", left=True),
        ],
        title="Not repriced",
    )
    for row in rows:
        if row.reason is not None:
            sheet.add(
                text(row.model),
                text(row.provider),
                f"{row.entries:,}",
                usd(row.cost_micros_usd),
                text(row.reason),
            )
    return sheet


def _signed(micros: int) -> str:
    return f"+{usd(micros)}" if micros > 0 else usd(micros)


def _price(usd_: Decimal | None) -> str:
    return "" if usd_ is None else text_of(usd_)


def _two_lines(source: str) -> str:
    return source.replace(" ", "\n", 1)
