"""When a pool runs out, as a table."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from ledger.reports.burndown import BurnDown
from ledger.reports.forecast import AxisForecast, Forecast, Outlook
from ledger.reports.render.sheet import Column, Sheet
from ledger.reports.render.values import duration, moment, sparkline, usd

_STEPS = 40
_WORDS = {
    Outlook.OUT: "it has run out",
    Outlook.UNLIMITED: "never: unlimited",
    Outlook.NO_SPEND: "never: no spend",
    Outlook.BEYOND: "after the year 9999",
}


def forecast_sheet(found: Forecast) -> Sheet:
    """Return a forecast, a line for each axis."""
    sheet = Sheet(
        columns=[
            Column(heading="Axis"),
            Column(heading="Capacity", rank=3),
            Column(heading="Remaining"),
            Column(heading="Kept back", rank=4),
            Column(heading="Held", rank=4),
            Column(heading="Spent", rank=2),
            Column(heading="Per day", rank=1),
            Column(heading="Runs out"),
        ],
        title=f"Forecast of pool {found.pool} at {moment(found.now)}",
    )
    for axis in found.axes:
        cost = axis.axis == "cost_micros_usd"
        sheet.add("USD" if cost else "tokens", *_figures(axis, usd if cost else "{:,}".format))
    return sheet


def assumptions(found: Forecast) -> str:
    """Return in words what a forecast assumes."""
    life = " (the pool is no older)" if found.younger else ""
    return (
        f"If it goes on being spent as in the {duration(found.window_s)}{life} since "
        f"{moment(found.window_begin)}, evenly; what open leases hold is taken as spent; nobody "
        "adjusts the pool."
    )


def burned(found: BurnDown) -> list[str]:
    """Return what remained as a line of bars, evenly in time, for each axis that is limited."""
    first, last = found.points[0].at, found.points[-1].at
    lines = []
    for axis, unit in (("cost_micros_usd", "USD"), ("tokens", "tokens")):
        left = [getattr(point, f"remaining_{axis}") for point in found.points]
        if last == first or all(amount is None for amount in left):
            continue
        levels = [left[0] or 0]
        for step in range(1, _STEPS + 1):
            at = first + (last - first) * step / _STEPS
            place = bisect_right(found.points, at, key=lambda point: point.at)
            levels.append(left[max(0, place - 1)] or 0)
        lines.append(f"{unit} left, {moment(first)} to {moment(last)}: {sparkline(levels)}")
    return lines


def _figures(axis: AxisForecast, shown: Callable[[int], str]) -> list[str]:
    at = moment(axis.runs_out_at) if axis.runs_out_at else _WORDS[axis.outlook]
    return [
        "unlimited" if axis.capacity is None else shown(axis.capacity),
        "unlimited" if axis.remaining is None else shown(axis.remaining),
        shown(axis.stop_threshold),
        shown(axis.held),
        shown(axis.spent),
        shown(round(axis.per_day)),
        at,
    ]
