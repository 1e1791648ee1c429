"""The table of a forecast: when a pool runs out."""

from __future__ import annotations

from bisect import bisect_right

from ledger.core.axes import AXES, MONEY_FIRST, Axis
from ledger.reports.burndown import BurnDown
from ledger.reports.forecast import AxisForecast, Forecast, Outlook
from ledger.reports.render.sheet import Column, Sheet
from ledger.reports.render.text_formats import printable
from ledger.reports.render.values import capacity, counted, duration, figure, moment, sparkline

_STEPS = 40
"""How many equal steps of time a line of bars has."""

_WORDS = {
    Outlook.OUT: "it has run out",
    Outlook.REFILLS: "never at this rate: what was spent comes back",
    Outlook.UNLIMITED: "never: unlimited",
    Outlook.NO_SPEND: "never: no spend",
    Outlook.BEYOND: "after the year 9999",
}


def forecast_sheet(found: Forecast) -> Sheet:
    """Return a forecast, a line for each axis."""
    sheet = Sheet(
        columns=[
            Column(heading="Axis"),
            Column(heading="Own\ncapacity", rank=3),
            Column(heading="Remaining"),
            Column(heading="Kept back", rank=4),
            Column(heading="Held", rank=4),
            Column(heading=f"Spent in\n{duration(found.window_s)}", rank=2),
            Column(heading="Per day", rank=1),
            Column(heading="Runs out"),
        ],
        title=f"Forecast of pool {found.pool} at {moment(found.now)}",
    )
    for axis, shown in zip(AXES, found.axes, strict=True):
        own = capacity(axis, found.policy)
        sheet.add(axis.shown, own, *_figures(axis, shown, found.pool))
    return sheet


def assumptions(found: Forecast) -> str:
    """Return in words what a forecast assumes."""
    life = " (the pool is no older)" if found.younger else ""
    said = (
        f"Assumed: spend goes on at the rate of the {duration(found.window_s)}{life} since "
        f"{moment(found.window_begin)}, what open leases hold is spent, and the policy stays."
    )
    if found.unpriced:
        records = counted(found.unpriced, "record of spend then is", "records of spend then are")
        said += f" {records} unpriced, so it may run out sooner."
    return said


def burned(found: BurnDown) -> list[str]:
    """Return what remained as a line of bars, evenly in time, for each axis that is limited."""
    first, last = found.points[0].at, found.points[-1].at
    lines = []
    for axis in MONEY_FIRST:
        left = [getattr(point, f"remaining_{axis.name}") for point in found.points]
        if last == first or all(amount is None for amount in left):
            continue
        levels = [left[0] or 0]
        for step in range(1, _STEPS + 1):
            at = first + (last - first) * step / _STEPS
            place = bisect_right(found.points, at, key=lambda point: point.at)
            levels.append(left[max(0, place - 1)] or 0)
        lines.append(f"{axis.shown} left, {moment(first)} to {moment(last)}: {sparkline(levels)}")
    return lines


def _figures(axis: Axis, found: AxisForecast, pool: str) -> list[str]:
    at = moment(found.runs_out_at) if found.runs_out_at else _WORDS[found.outlook]
    if found.refills_at is not None and found.outlook is Outlook.OUT:
        at += f", and refills at {moment(found.refills_at)}"
    elif found.refills_at is not None and found.outlook is Outlook.REFILLS:
        at = f"not before it refills at {moment(found.refills_at)}"
    decided_by = [f"limit {printable(found.limit)}"] if found.limit is not None else []
    decided_by += [f"pool {printable(found.decided_by)}"] if found.decided_by != pool else []
    if decided_by:
        at += f" ({' of '.join(decided_by)})"
    amounts = [
        found.remaining,
        found.stop_threshold,
        found.held,
        found.spent,
        round(found.per_day),
    ]
    return [*(figure(axis, amount) for amount in amounts), at]
