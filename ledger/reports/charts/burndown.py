"""A pool's burn-down as a picture: what remained, with capacity and stop threshold."""

from __future__ import annotations

from ledger.core.axes import COST, MONEY_FIRST, Axis
from ledger.reports.burndown import BurnDown, BurnPoint
from ledger.reports.charts.canvas import (
    MILLION,
    ON_PAPER,
    SERIES,
    Palette,
    Picture,
    amount_axis,
    needed,
    picture,
    time_axis,
    tooltips,
)
from ledger.reports.render.text_formats import printable
from ledger.reports.render.values import capacity, counted, figure, moment, usd

_WHOLES = {
    "prepaid": "its credits",
    "by limits": "its limits",
    "unlimited": "an unlimited capacity",
}
"""The name of what remains, on an axis without a capacity."""


def burn_down_pictures(found: BurnDown, palette: Palette = ON_PAPER) -> dict[str, Picture]:
    """Return a pool's burn-down on each limited axis, or else the picture of its spend.

    Raises:
        MissingExtraError: The extra `html` is not installed.
    """
    limited = [
        axis
        for axis in MONEY_FIRST
        if any(getattr(point, f"remaining_{axis.name}") is not None for point in found.points)
    ]
    if not limited:
        return {COST.name: _spent(found, palette)}
    return {axis.name: _burn_down(found, axis, palette) for axis in limited}


def _burn_down(found: BurnDown, axis: Axis, palette: Palette) -> Picture:
    alt = needed("altair")
    unit = axis.shown
    lines = (
        ("remaining", f"remaining_{axis.name}"),
        ("capacity", axis.capacity),
        ("stop threshold", axis.stop_threshold),
    )
    rows = [
        {
            "at": _when(point),
            "what": what,
            "amount": amount / axis.scale,
            "exact": figure(axis, amount),
        }
        for what, name in lines
        for point in found.points
        if (amount := getattr(point, name)) is not None
    ]
    names = [what for what, _name in lines]
    base = alt.Chart().encode(
        x=time_axis(alt),
        y=alt.Y("amount:Q", title=f"{unit} remaining", stack=False, axis=amount_axis(alt)),
        tooltip=tooltips(alt, ("at", "Time (UTC)"), ("what", "What"), ("exact", unit)),
    )
    remaining = base.transform_filter("datum.what == 'remaining'")
    colour = alt.Color(
        "what:N",
        title=None,
        scale=alt.Scale(domain=names, range=[SERIES[0], palette.ink, palette.alert]),
    )
    last = found.points[-1]
    left, kept = getattr(last, f"remaining_{axis.name}"), getattr(last, axis.stop_threshold)
    whole = capacity(axis, found.policy)
    return picture(
        [
            remaining.mark_area(
                interpolate="step-after", opacity=0.18, color=SERIES[0], aria=False
            ),
            base.mark_line(interpolate="step-after").encode(
                color=colour,
                strokeDash=alt.StrokeDash(
                    "what:N",
                    title=None,
                    scale=alt.Scale(domain=names, range=[[1, 0], [6, 4], [2, 3]]),
                ),
            ),
        ],
        rows,
        palette,
        title=f"Pool {printable(found.pool)}: {unit} remaining",
        words=f"{figure(axis, left) if left is not None else 'No limit'} {unit} of "
        f"{_WHOLES.get(whole, whole)} remained at "
        f"{moment(last.at)}, with {figure(axis, kept)} kept back.{_remarks(found)}",
    )


def _spent(found: BurnDown, palette: Palette) -> Picture:
    alt = needed("altair")
    rows = [
        {
            "at": _when(point),
            "amount": point.balance.committed.cost_micros_usd / MILLION,
            "exact": usd(point.balance.committed.cost_micros_usd),
        }
        for point in found.points
    ]
    base = alt.Chart().encode(
        x=time_axis(alt),
        y=alt.Y("amount:Q", title="USD spent", stack=False, axis=amount_axis(alt)),
        tooltip=tooltips(alt, ("at", "Time (UTC)"), ("exact", "USD")),
    )
    last = found.points[-1]
    return picture(
        [
            base.mark_area(interpolate="step-after", opacity=0.18, color=SERIES[0], aria=False),
            base.mark_line(interpolate="step-after", color=SERIES[0]),
        ],
        rows,
        palette,
        title=f"Pool {printable(found.pool)}: USD spent, of an unlimited capacity",
        words=f"{usd(last.balance.committed.cost_micros_usd)} USD were spent by "
        f"{moment(last.at)}; the capacity has no limit.{_remarks(found)}",
    )


def _remarks(found: BurnDown) -> str:
    said = ""
    if found.points[0].at < found.opened_at:
        said = f" It was opened at {moment(found.opened_at)}; calls of before that count in it."
    if found.unpriced:
        said += (
            f" {counted(found.unpriced, 'record')} said nothing of a figure that the pool limits, "
            "which is not in it."
        )
    return said


def _when(point: BurnPoint) -> str:
    return point.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
