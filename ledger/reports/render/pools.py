"""The table of pools: what each may spend, has spent, holds, and has left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.text import Text

from ledger.core.axes import AXES
from ledger.core.checks import from_micros
from ledger.core.entries import Balance, LimitStatus, PoolStatus, Totals, WindowState
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.values import Remaining
from ledger.reports.render.sheet import Column, Sheet, columns
from ledger.reports.render.text_formats import printable
from ledger.reports.render.values import figure, figures, in_words, moment, shown_axes, text


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """A pool as a row of JSON or CSV.

    Attributes:
        pool: Its name.
        seq: Its newest entry.
        policy: The policy in force.
        committed: What was spent.
        reserved: What open leases hold.
        remaining: What is left of its own capacity; the pools above may have less left.
        closed: Whether it takes no new reservations.
        parent: The pool above it.
        carved: Whether it is carved out of its parent, and not only below it.
        window_start: When its present window began, None if it has no windows.
        window_end: When this window ends.
        window_committed: What was spent in this window.
        window_carried: What was carried into this window.
        limits: How far each of its limits is used.
    """

    pool: str
    seq: int
    policy: SharedPoolBudgetOptions
    committed: Totals
    reserved: Totals
    remaining: Remaining
    closed: bool
    parent: str | None
    carved: bool
    window_start: datetime | None
    window_end: datetime | None
    window_committed: Totals | None
    window_carried: Totals | None
    limits: Sequence[LimitStatus]

    @classmethod
    def of(cls, status: PoolStatus) -> PoolRow:
        """Return the row of a pool."""
        window = status.window
        return cls(
            pool=status.pool.name,
            seq=status.seq,
            policy=status.policy,
            committed=status.balance.committed,
            reserved=status.balance.reserved,
            remaining=status.remaining,
            closed=status.closed,
            parent=status.parent,
            carved=status.pool.carved_lease is not None,
            window_start=None if window is None else from_micros(window.start),
            window_end=None if window is None else from_micros(window.end),
            window_committed=None if window is None else _spent(status.balance, window),
            window_carried=None if window is None else window.carried,
            limits=status.limits,
        )


def limit_line(status: LimitStatus) -> str:
    """Return a line of text about a limit of a pool: what is left of it, and since when."""
    limit = status.limit
    axes = [axis for axis in AXES if not axis.is_unlimited(limit)]
    counted = in_words(axes, [getattr(status.counted, axis.name) for axis in axes])
    left = in_words(axes, [axis.left(status.remaining) for axis in axes])
    return (
        f"Limit {printable(limit.name)}, since {moment(status.since)}: used {counted}, "
        f"remaining {left}"
    )


def window_line(status: PoolStatus) -> str:
    """Return a line of text about the present window of a pool."""
    window = status.window
    assert window is not None  # noqa: S101 - the caller asks only then
    axes = shown_axes([status.policy])

    def said(amounts: Totals) -> str:
        return in_words(axes, [getattr(amounts, axis.name) for axis in axes])

    line = (
        f"Window {moment(from_micros(window.start))} to {moment(from_micros(window.end))}: "
        f"committed {said(_spent(status.balance, window))}, "
        f"remaining {in_words(axes, [axis.left(status.remaining) for axis in axes])}"
    )
    if window.carried != Totals():
        line += f", of which {said(window.carried)} were carried over"
    return line


def _spent(balance: Balance, window: WindowState) -> Totals:
    return Totals(*(now - then for now, then in zip(balance.committed, window.base, strict=True)))


def pools_sheet(found: Iterable[PoolStatus]) -> Sheet:
    """Return pools as a table, a line each.

    It has the column of parents if a pool has a parent, the columns of calls if a pool limits
    them, and the end of the window if a pool has windows.
    """
    shown = tuple(found)
    nested = any(one.parent is not None for one in shown)
    windowed = any(one.window is not None for one in shown)
    axes = shown_axes(one.policy for one in shown)
    headings = columns(
        "Pool",
        *(
            f"{what}\n{axis.shown}"
            for what in ("Capacity", "Committed", "Held", "Remaining")
            for axis in axes
        ),
        *(["Window ends"] if windowed else []),
    )
    place = [Column(heading="Parent", left=True)] if nested else []
    sheet = Sheet(columns=[headings[0], *place, *headings[1:]])
    for one in shown:
        sheet.add(
            text(one.pool.name) + Text(" (closed)" * one.closed),
            *([_place(one)] if nested else []),
            *(figure(axis, axis.limit(one.policy)) for axis in axes),
            *figures(axes, one.balance.committed),
            *figures(axes, one.balance.reserved),
            *(figure(axis, axis.left(one.remaining)) for axis in axes),
            *([_ends(one)] if windowed else []),
        )
    return sheet


def _place(one: PoolStatus) -> Text:
    if one.parent is None:
        return Text()
    return text(one.parent) + Text(" (carved)" * (one.pool.carved_lease is not None))


def _ends(status: PoolStatus) -> str:
    return "" if status.window is None else moment(from_micros(status.window.end))
