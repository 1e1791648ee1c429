"""Tables of how good estimates are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ledger.core.axes import AXES
from ledger.reports.estimates import EstimateQuality, Held
from ledger.reports.ranks import PERCENTS
from ledger.reports.render.sheet import Column, Sheet
from ledger.reports.render.values import decimal, figure, text

_RATIO_PLACES = 3
_AXES: dict[str, tuple[str, Callable[[int], str]]] = {
    axis.name: (axis.shown, partial(figure, axis)) for axis in AXES if axis.amount is not None
}


def estimates_sheet(rows: Sequence[EstimateQuality], by: Sequence[str]) -> Sheet:
    """Return the ratios of what calls used to what was estimated for them."""
    unpriced = any(row.unpriced for row in rows)
    sheet = Sheet(
        columns=[
            *_groups(by),
            Column(heading="Axis", left=True),
            Column(heading="Calls"),
            *([Column(heading="Unpriced", rank=1)] if unpriced else []),
            Column(heading="Estimated", rank=3),
            Column(heading="Used", rank=3),
            Column(heading="Overruns"),
            Column(heading="Share of\noverruns", rank=2),
            *(
                Column(heading=f"Ratio\n{name}", rank=0 if name in {"p50", "max"} else 1)
                for name in PERCENTS
            ),
        ],
        title="Used, divided by estimated",
    )
    for row in rows:
        name, shown = _AXES[row.axis]
        sheet.add(
            *(text(value) for value in row.group.values()),
            name,
            f"{row.calls:,}",
            *([f"{row.unpriced:,}"] if unpriced else []),
            shown(row.estimated),
            shown(row.used),
            f"{row.given.overruns:,}",
            f"{decimal(100 * row.overrun_share, 1)}%",
            *(decimal(getattr(row.ratio, part), _RATIO_PLACES) for part in PERCENTS),
        )
    return sheet


def held_sheet(rows: Sequence[EstimateQuality], by: Sequence[str]) -> Sheet:
    """Return what each estimate would have held too much or too little."""
    sheet = Sheet(
        columns=[
            *_groups(by),
            Column(heading="Axis", left=True),
            Column(heading="Estimate", left=True),
            Column(heading="of"),
            Column(heading="Overruns"),
            Column(heading="Overrun by"),
            Column(heading="Wasted"),
        ],
        title="What one estimate for all calls would have held",
    )
    for row in rows:
        name, shown = _AXES[row.axis]
        tried: dict[str, Held | None] = {"as given": row.given}
        tried |= {part: getattr(row, part) for part in PERCENTS} | {"fixed": row.fixed}
        for part, held in tried.items():
            if held is not None:
                sheet.add(
                    *(text(value) for value in row.group.values()),
                    name,
                    part,
                    "" if held.estimate is None else shown(held.estimate),
                    f"{held.overruns:,}",
                    shown(held.overrun),
                    shown(held.wasted),
                )
        sheet.add_section()
    return sheet


def _groups(by: Sequence[str]) -> list[Column]:
    return [Column(heading=name.removeprefix("tag:").capitalize(), left=True) for name in by]
