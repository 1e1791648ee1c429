"""Costs of calls as pictures: the most expensive runs, and estimates beside usage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ledger.reports.charts.canvas import (
    MILLION,
    ON_PAPER,
    SERIES,
    Palette,
    Picture,
    amount_axis,
    distinct,
    needed,
    picture,
    shown_name,
    tooltips,
)
from ledger.reports.estimates import EstimateQuality
from ledger.reports.render.values import counted, usd
from ledger.reports.runs import RunCost

_RUNS = 15
_GROUPS = 12
"""How many runs, and how many groups of estimates, a picture shows at most."""


def runs_picture(rows: Sequence[RunCost], palette: Palette = ON_PAPER) -> Picture:
    """Return the most expensive runs as bars, with what was estimated for each.

    Raises:
        MissingExtraError: The extra `html` is not installed.
    """
    alt = needed("altair")
    dearest = most_expensive(rows, _RUNS)
    names = distinct(shown_name(row.run_id) for row in dearest)
    data = [
        {
            "run": name,
            "amount": row.cost_micros_usd / MILLION,
            "estimated": row.estimated_cost_micros_usd / MILLION,
            "exact": usd(row.cost_micros_usd),
            "exact_estimated": usd(row.estimated_cost_micros_usd),
        }
        for name, row in zip(names, dearest, strict=True)
    ]
    base = alt.Chart().encode(
        y=alt.Y("run:N", title=None, sort=names, axis=alt.Axis(labelLimit=170, ticks=False)),
        tooltip=tooltips(
            alt, ("run", "Run"), ("exact", "USD used"), ("exact_estimated", "USD estimated")
        ),
    )
    amount = alt.X("amount:Q", title="USD (the mark: estimated)", axis=amount_axis(alt))
    first = f"; the dearest, {names[0]}, {data[0]['exact']} USD" if data else ""
    return picture(
        [
            base.mark_bar(color=SERIES[0]).encode(x=amount),
            base.mark_tick(color=palette.ink, thickness=2).encode(x="estimated:Q"),
        ],
        data,
        palette,
        title="The most expensive runs",
        words=f"{counted(len(data), 'run')} of {len(rows):,}{first}.",
        height=26 * max(1, len(names)),
    )


def estimates_picture(rows: Sequence[EstimateQuality], palette: Palette = ON_PAPER) -> Picture:
    """Return estimates beside usage in US dollars, as a pair of bars for each group.

    Raises:
        MissingExtraError: The extra `html` is not installed.
    """
    alt = needed("altair")
    dearest = sorted(
        (row for row in rows if row.axis == "cost_micros_usd"), key=lambda row: -row.used
    )[:_GROUPS]
    names = distinct(", ".join(map(shown_name, row.group.values())) for row in dearest)
    data = [
        {"group": name, "what": what, "amount": micros / MILLION, "exact": usd(micros)}
        for name, row in zip(names, dearest, strict=True)
        for what, micros in (("estimated", row.estimated), ("used", row.used))
    ]
    bars = (
        alt.Chart()
        .mark_bar()
        .encode(
            y=alt.Y("group:N", title=None, sort=names, axis=alt.Axis(labelLimit=170, ticks=False)),
            yOffset=alt.YOffset("what:N", sort=["estimated", "used"]),
            x=alt.X("amount:Q", title="USD", axis=amount_axis(alt)),
            color=alt.Color(
                "what:N",
                title=None,
                scale=alt.Scale(domain=["estimated", "used"], range=[SERIES[-1], SERIES[0]]),
            ),
            tooltip=tooltips(alt, ("group", "Calls"), ("what", "What"), ("exact", "USD")),
        )
    )
    used, estimated = (sum(getattr(row, name) for row in dearest) for name in ("used", "estimated"))
    return picture(
        [bars],
        data,
        palette,
        title="Estimated against actual",
        words=f"{usd(used)} USD were used of {usd(estimated)} USD estimated.",
        height=44 * max(1, len(names)),
    )


def most_expensive(rows: Iterable[RunCost], count: int) -> list[RunCost]:
    """Return the most expensive runs, the dearest first."""
    return sorted(rows, key=lambda row: (-row.cost_micros_usd, -row.total_tokens))[:count]
