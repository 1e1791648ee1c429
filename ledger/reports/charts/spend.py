"""Spend per day by model as a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, timedelta

from ledger.reports.charts.canvas import (
    MILLION,
    ON_PAPER,
    SERIES,
    Palette,
    Picture,
    amount_axis,
    needed,
    picture,
    shown_name,
    tooltips,
)
from ledger.reports.render.values import usd
from ledger.reports.spend import Spend

_MODELS = len(SERIES) - 1
"""How many models have a colour of their own; the others share the last one."""
_WEEK, _YEAR = 7, 400
"""At least this many days are shown, and above this many, days without spend are left out."""


def spend_picture(found: Spend, palette: Palette = ON_PAPER) -> Picture:
    """Return spend per day by model as stacked bars; `found` is by day and model.

    Raises:
        MissingExtraError: The extra `html` is not installed.
    """
    alt = needed("altair")
    totals: dict[str, int] = defaultdict(int)
    for row in found.rows:
        totals[shown_name(row.group["model"])] += row.cost_micros_usd
    dearest = sorted(totals, key=lambda name: (-totals[name], name))
    shown = dearest if len(dearest) <= _MODELS + 1 else [*dearest[:_MODELS], "other models"]
    amounts: dict[tuple[str, str], int] = defaultdict(int)
    for row in found.rows:
        model = shown_name(row.group["model"])
        place = (str(row.group["day"]), model if model in shown else "other models")
        amounts[place] += row.cost_micros_usd
    rows = [
        {"day": day, "model": model, "amount": micros / MILLION, "exact": usd(micros)}
        for (day, model), micros in amounts.items()
    ]
    bars = (
        alt.Chart()
        .mark_bar()
        .encode(
            x=alt.X(
                "day:O",
                title=f"day ({found.zone})",
                scale=alt.Scale(domain=_days(day for day, _model in amounts), paddingInner=0.2),
                axis=alt.Axis(labelAngle=0, labelOverlap="greedy", labelSeparation=8, ticks=False),
            ),
            y=alt.Y("sum(amount):Q", title="USD", axis=amount_axis(alt)),
            color=alt.Color(
                "model:N", title=None, scale=alt.Scale(domain=shown, range=list(SERIES))
            ),
            order=alt.Order("amount:Q", sort="descending"),
            tooltip=tooltips(alt, ("day", "Day"), ("model", "Model"), ("exact", "USD")),
        )
    )
    total = usd(found.total.cost_micros_usd)
    return picture(
        [bars],
        rows,
        palette,
        title="Spend per day by model",
        words=f"{total} USD in all; "
        + (f"the largest part for {shown[0]}" if shown else "nothing was spent")
        + ".",
    )


def _days(given: Iterable[str]) -> list[str]:
    """Return every day from the first to the last, and at least a week of them."""
    days = sorted(set(given))
    if not days:
        return []
    first, last = date.fromisoformat(days[0]), date.fromisoformat(days[-1])
    first = min(first, date.fromordinal(max(1, last.toordinal() - _WEEK + 1)))
    length = (last - first).days + 1
    if length > _YEAR:
        return days
    return [(first + timedelta(days=number)).isoformat() for number in range(length)]
