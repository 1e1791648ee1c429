"""Pools side by side: what each may spend, has spent, holds, and has left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from rich.text import Text

from ledger.core.checks import U64_MAX, from_micros
from ledger.core.entries import Balance, PoolStatus, Totals, WindowState
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.values import Remaining
from ledger.reports.render.sheet import Column, Sheet, columns
from ledger.reports.render.values import limit, moment, text, usd


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """A pool for programs.

    Attributes:
        pool: Its name.
        seq: Its newest entry.
        policy: The policy in force.
        committed: Spent for good.
        reserved: Held by open leases.
        remaining: What is left of it, whatever the pools above have left.
        closed: Whether it takes nothing new.
        parent: The pool above it.
        carved: Whether it is carved out of that, and not only below it.
        remaining: What is left.
        window_start: When the window began that it is by now, None without windows.
        window_end: When that ends.
        window_committed: What was spent in it.
        window_carried: What was carried into it.
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
        )


def window_line(status: PoolStatus) -> str:
    """Return what is to be said of the window that a pool is in by now."""
    window = status.window
    assert window is not None  # noqa: S101 - the caller asks only then
    spent, left, policy = _spent(status.balance, window), status.remaining, status.policy
    line = (
        f"Window {moment(from_micros(window.start))} to {moment(from_micros(window.end))}: "
        f"committed {spent.tokens:,} tokens and {usd(spent.cost_micros_usd)} USD, "
        f"remaining {limit(policy.capacity_tokens, f'{left.tokens:,}')} tokens and "
        f"{limit(policy.capacity_cost_micros_usd, usd(left.cost_micros_usd))} USD"
    )
    if window.carried != Totals():
        carried = window.carried
        line += (
            f", of which {carried.tokens:,} tokens and {usd(carried.cost_micros_usd)} USD "
            "were carried over"
        )
    return line


def _spent(balance: Balance, window: WindowState) -> Totals:
    return Totals(*(now - then for now, then in zip(balance.committed, window.base, strict=True)))


def pools_sheet(found: Iterable[PoolStatus]) -> Sheet:
    """Return pools as a table, a line each.

    Where they are is said if one of them has a parent, calls are counted if one limits them, and
    when windows end if one has any.
    """
    shown = tuple(found)
    nested = any(one.parent is not None for one in shown)
    windowed = any(one.window is not None for one in shown)
    counted = any(one.policy.capacity_requests != U64_MAX for one in shown)
    units = ("tokens", "USD", "requests") if counted else ("tokens", "USD")
    figures = columns(
        "Pool",
        *(
            f"{figure}\n{unit}"
            for figure in ("Capacity", "Committed", "Held", "Remaining")
            for unit in units
        ),
        *(["Window ends"] if windowed else []),
    )
    place = [Column(heading="Parent", left=True)] if nested else []
    sheet = Sheet(columns=[figures[0], *place, *figures[1:]])
    for one in shown:
        rules, (committed, held), left = one.policy, one.balance, one.remaining
        sheet.add(
            text(one.pool.name) + Text(" (closed)" * one.closed),
            *([_place(one)] if nested else []),
            limit(rules.capacity_tokens, f"{rules.capacity_tokens:,}"),
            limit(rules.capacity_cost_micros_usd, usd(rules.capacity_cost_micros_usd)),
            *([limit(rules.capacity_requests, f"{rules.capacity_requests:,}")] if counted else []),
            f"{committed.tokens:,}",
            usd(committed.cost_micros_usd),
            *([f"{committed.requests:,}"] if counted else []),
            f"{held.tokens:,}",
            usd(held.cost_micros_usd),
            *([f"{held.requests:,}"] if counted else []),
            limit(rules.capacity_tokens, f"{left.tokens:,}"),
            limit(rules.capacity_cost_micros_usd, usd(left.cost_micros_usd)),
            *([limit(rules.capacity_requests, f"{left.requests:,}")] if counted else []),
            *([_ends(one)] if windowed else []),
        )
    return sheet


def _place(one: PoolStatus) -> Text:
    if one.parent is None:
        return Text()
    return text(one.parent) + Text(" (carved)" * (one.pool.carved_lease is not None))


def _ends(status: PoolStatus) -> str:
    return "" if status.window is None else moment(from_micros(status.window.end))
