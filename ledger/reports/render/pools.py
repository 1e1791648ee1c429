"""The table of pools: what each may spend, has spent, holds, and has left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.text import Text

from ledger.core.axes import AXES
from ledger.core.checks import from_micros
from ledger.core.entries import Totals
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.status import CreditStatus, LimitStatus, PoolStatus
from ledger.core.values import Remaining
from ledger.reports.render.sheet import Column, Sheet, columns
from ledger.reports.render.values import capacity, figure, figures, moment, shown_axes, text
from ledger.reports.standing import PresentWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """A pool as a row of JSON or CSV.

    Attributes:
        pool: Its name.
        seq: Its newest entry.
        policy: The policy in force.
        committed: What was spent from the opening on.
        spent: What was spent in its present window; from the opening on without windows.
        reserved: What open leases hold.
        own: What is left of its own capacity, and of its own limits.
        remaining: What is left here: less, if a pool above has less left; nothing once closed.
        until: When what is left changes first, if nothing is written; see `PoolStatus.until`.
        closed: Whether it takes no new reservations.
        parent: The pool above it.
        carved: Whether it is carved out of its parent, and not only below it.
        window_begun: Whether its present window has begun, None if it has no windows. A session
            begins with the next call once the last one has ended.
        window_start: When it began, or would with a call at this moment.
        window_end: When this window ends.
        window_committed: What was spent in this window.
        window_carried: What was carried into this window.
        limits: How far each of its limits is used.
        credits: How far each of its credits is used, those that it lists.
        debt: What was spent that no credit has paid.
        unpriced: How many records of usage leave out a figure that the pool limits, from the
            opening on, and were not corrected since: less is left in truth.
    """

    pool: str
    seq: int
    policy: SharedPoolBudgetOptions
    committed: Totals
    spent: Totals
    reserved: Totals
    own: Remaining
    remaining: Remaining
    until: datetime | None
    closed: bool
    parent: str | None
    carved: bool
    window_begun: bool | None
    window_start: datetime | None
    window_end: datetime | None
    window_committed: Totals | None
    window_carried: Totals | None
    limits: Sequence[LimitStatus]
    credits: Sequence[CreditStatus]
    debt: Totals
    unpriced: int

    @classmethod
    def of(cls, status: PoolStatus, unpriced: int) -> PoolRow:
        """Return the row of a pool."""
        window = PresentWindow.of(status)
        return cls(
            pool=status.pool.name,
            seq=status.seq,
            policy=status.policy,
            committed=status.balance.committed,
            spent=status.spent,
            reserved=status.balance.reserved,
            own=status.own,
            remaining=status.reservable,
            until=None if status.until is None else from_micros(status.until),
            closed=status.closed,
            parent=status.parent,
            carved=status.pool.carved_lease is not None,
            window_begun=None if window is None else window.begun,
            window_start=None if window is None else window.start,
            window_end=None if window is None else window.end,
            window_committed=None if window is None else window.committed,
            window_carried=None if window is None else window.carried,
            limits=status.limits,
            credits=status.credits,
            debt=status.debt,
            unpriced=unpriced,
        )


def pools_sheet(found: Iterable[PoolStatus], unpriced: Mapping[str, int] | None = None) -> Sheet:
    """Return pools as a table, a line each.

    What is spent is counted from the opening on, or in a pool with windows in the present one:
    beside a capacity that comes back, nothing else says how much of it is used. A capacity without
    a limit says by what an axis is bounded all the same: by credits or limits. The table has the
    column of parents if a pool has a parent, the columns of calls if a pool limits
    them, until when what remains is so, if any of it ends by time, and what is owed and how many
    records of usage were unpriced when they were made, if there are any. Of a closed pool
    nothing remains.

    Args:
        found: The pools.
        unpriced: How many records of usage were unpriced, by the pool's name.
    """
    shown = tuple(found)
    many = {one.pool.name: (unpriced or {}).get(one.pool.name, 0) for one in shown}
    incomplete = any(many.values())
    nested = any(one.parent is not None for one in shown)
    ending = any(one.until is not None for one in shown)
    axes = shown_axes(one.policy for one in shown)
    owing = [axis for axis in AXES if any(getattr(one.debt, axis.name) for one in shown)]
    headings = columns(
        "Pool",
        *(
            f"{what}\n{axis.shown}"
            for what in ("Capacity", "Spent", "Held", "Remaining")
            for axis in axes
        ),
        *(f"Owed\n{axis.shown}" for axis in owing),
        *(["Until"] if ending else []),
        *(["Recorded\nunpriced"] if incomplete else []),
    )
    place = [Column(heading="Parent", left=True)] if nested else []
    sheet = Sheet(columns=[headings[0], *place, *headings[1:]])
    for one in shown:
        sheet.add(
            text(one.pool.name) + Text(" (closed)" * one.closed),
            *([_place(one)] if nested else []),
            *(capacity(axis, one.policy) for axis in axes),
            *figures(axes, one.spent),
            *figures(axes, one.balance.reserved),
            *(figure(axis, axis.left(one.reservable)) for axis in axes),
            *figures(owing, one.debt),
            *([_ends(one)] if ending else []),
            *([f"{many[one.pool.name]:,}"] if incomplete else []),
        )
    return sheet


def _place(one: PoolStatus) -> Text:
    if one.parent is None:
        return Text()
    return text(one.parent) + Text(" (carved)" * (one.pool.carved_lease is not None))


def _ends(status: PoolStatus) -> str:
    return "" if status.until is None else moment(from_micros(status.until))
