"""Tables of denials."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ledger.core.axes import AXES, Axis
from ledger.reports.denials import Denied, DeniedGroup
from ledger.reports.increases import Increase
from ledger.reports.render.sheet import Column, Sheet
from ledger.reports.render.text_formats import printable
from ledger.reports.render.values import figure, moment, text, usd

_WHO = ("tenant", "agent", "operation", "provider", "model")


def denials_sheet(rows: Iterable[Denied], *, title: str | None = None) -> Sheet:
    """Return denials as a table."""
    denied = list(rows)
    named = any(row.request_id is not None for row in denied)
    several = len({row.pool for row in denied}) > 1
    axes = [
        axis
        for axis in AXES
        if not axis.only_if_limited or any(_left(axis, row) is not None for row in denied)
    ]
    sheet = Sheet(
        columns=[
            Column(heading="Run"),
            Column(heading="Pool", left=True, wide=not several),
            Column(heading="At"),
            Column(heading="Refusal", left=True),
            *(
                Column(heading=f"{axis.heading}\n{what}")
                for axis in axes
                for what in (["asked", "left"] if axis.amount else ["left"])
            ),
            *(Column(heading=f"More\n{axis.shown}", wide=True) for axis in axes),
            *(Column(heading=name.capitalize(), wide=True, left=True) for name in _WHO),
            Column(heading="Free at", wide=True),
            Column(heading="Request", rank=5, wide=not named, left=True),
        ],
        title=f"Denied: {len(denied):,}" if title is None else title,
    )
    for row in denied:
        sheet.add(
            text(row.run_id),
            text(row.pool),
            moment(row.at),
            printable(row.refusal),
            *(cell for axis in axes for cell in _asked_and_left(axis, row)),
            *(_increased(axis, row) for axis in axes),
            *(text(getattr(row, name)) for name in _WHO),
            _frees(row),
            text(row.request_id),
        )
    return sheet


def _frees(row: Denied) -> str:
    """Return when a call would have passed, as far as that was known."""
    if row.retry_at is not None:
        return moment(row.retry_at)
    if row.too_large:
        return "never: too large"
    return "as leases end" if row.held_by_leases else ""


def _left(axis: Axis, row: Denied) -> int | None:
    found: int | None = getattr(row, f"remaining_{axis.name}")
    return found


def _asked_and_left(axis: Axis, row: Denied) -> list[str]:
    # If the request's own budget refused, no pool was looked at, so there is no remaining amount.
    # A limit, and credits, say nothing of an axis that they do not bound.
    known, partly = _left(axis, row), row.limit is not None or row.by_credits
    left = "" if row.refused_by is None or (known is None and partly) else figure(axis, known)
    if axis.amount is None:
        return [left]
    return [figure(axis, getattr(row, f"requested_{axis.name}")), left]


def _increased(axis: Axis, row: Denied) -> str:
    more: int | None = getattr(row, f"increase_{axis.name}")
    return "" if more is None else figure(axis, more)


def denied_groups_sheet(rows: Sequence[DeniedGroup], by: Sequence[str]) -> Sheet:
    """Return groups of denials, with how much more capacity would have admitted them."""
    axes = [
        axis
        for axis in AXES
        if not axis.only_if_limited or any(_most(axis, row) > 0 for row in rows)
    ]
    sheet = Sheet(
        columns=[
            Column(heading="Pool"),
            *(Column(heading=name.capitalize(), left=True) for name in by),
            Column(heading="Denials"),
            Column(heading="By their\nown budget", rank=5),
            # They say why there is no increase: more capacity would not have helped.
            Column(heading="By pools\nabove", wide=not any(row.by_pools_above for row in rows)),
            Column(heading="By\nlimits", wide=not any(row.by_limits for row in rows)),
            Column(heading="Tokens\nasked", rank=3),
            Column(heading="USD\nasked", rank=3),
            *(
                Column(heading=f"{what}\n+ {axis.shown}", rank=rank, wide=what == "9 in 10")
                for what, rank in (
                    ("Half of them", 2),
                    ("9 in 10", 0),
                    ("Each alone", 1),
                    ("All of them", 0),
                )
                for axis in axes
            ),
            Column(heading="First", rank=6),
            Column(heading="Last", rank=6),
        ],
        title="Denials, and the capacity that would have let them in",
    )
    for row in rows:
        sheet.add(
            text(row.pool),
            *(text(value) for value in row.group.values()),
            f"{row.denials:,}",
            f"{row.by_request_budget:,}",
            f"{row.by_pools_above:,}",
            f"{row.by_limits:,}",
            f"{row.requested_tokens:,}",
            usd(row.requested_cost_micros_usd),
            *(
                cell
                for part in ("half", "most", "each", "all")
                for cell in _increases(part, row, axes)
            ),
            moment(row.first_at),
            moment(row.last_at),
        )
    return sheet


def _of_axis(axis: Axis, row: DeniedGroup) -> Increase | None:
    found: Increase | None = getattr(row, axis.name)
    return found


def _most(axis: Axis, row: DeniedGroup) -> int:
    found = _of_axis(axis, row)
    return 0 if found is None else found.all


def _increases(part: str, row: DeniedGroup, axes: Sequence[Axis]) -> list[str]:
    found = [(axis, _of_axis(axis, row)) for axis in axes]
    return ["" if more is None else figure(axis, getattr(more, part)) for axis, more in found]
