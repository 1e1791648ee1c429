"""Rules of imports: calls of the past, which count at the time when they were made."""

from __future__ import annotations

from ledger.core import calendar
from ledger.core.checks import I64_MAX, Micros
from ledger.core.entries import (
    Balance,
    EntryFlag,
    LeaseState,
    Totals,
    WindowState,
)
from ledger.core.kinds import LeasePhase
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.rules.leases import Effect
from ledger.core.values import RequestBudget, Usage, UsageEstimate


def record_import(balance: Balance, usage: Usage, *, lease_id: int, ceiling: int) -> Effect:
    """Return the effect of importing a call: a whole lease that held nothing.

    The usage is committed, whatever it is. Committed totals stop at `ceiling` (flagged saturated).
    """
    exact = balance.committed.plus(Totals.of(usage, requests=1))
    committed = Totals(*(min(value, ceiling) for value in exact))
    flags = EntryFlag.IMPORTED
    if committed != exact:
        flags |= EntryFlag.SATURATED
    lease = LeaseState(
        lease=lease_id,
        estimate=UsageEstimate.zero(),
        request_budget=RequestBudget.unlimited(),
        phase=LeasePhase.ENDED,
        held=Totals(),
        used=usage,
    )
    return Effect(Balance(committed, balance.reserved), lease, flags)


def counts_from(policy: SharedPoolBudgetOptions, window: WindowState) -> Micros:
    """Return the time from which imported calls count in a window.

    That is the beginning of the window by the calendar, even if the pool was opened later, or got
    this calendar later.
    """
    schedule = policy.window
    if schedule is None or schedule.session or window.end >= calendar.NEVER:
        return window.start
    return calendar.begins(schedule, calendar.number(schedule, window.start))


def with_import(
    policy: SharedPoolBudgetOptions, window: WindowState | None, at: Micros, by: Totals
) -> WindowState | None:
    """Return the window after a call of an earlier window is imported, or that import is corrected.

    None if the call counts in the present window. Otherwise the window's base grows by as much,
    since more had been committed before than was recorded.

    Args:
        policy: The policy in force.
        window: The present window, None without windows.
        at: When the call was made.
        by: By how much the entry moves what is committed.
    """
    if window is None or at >= counts_from(policy, window):
        return None
    base = Totals(*(min(amount, I64_MAX) for amount in window.base.plus(by)))
    return window._replace(base=base)
