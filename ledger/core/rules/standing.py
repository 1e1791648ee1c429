"""Rules of standing: a pool's present balance and window, as the next write would find them."""

from __future__ import annotations

from typing import NamedTuple

from ledger.core.checks import Micros
from ledger.core.entries import Balance, Totals, WindowState
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.rules.assumed import swept
from ledger.core.rules.carry_over import current_window, roll_over
from ledger.core.rules.overdue import Due


class Standing(NamedTuple):
    """A pool's balance and window, after due leases have expired and its window has rolled over."""

    balance: Balance
    window: WindowState | None


def stand(
    policy: SharedPoolBudgetOptions,
    balance: Balance,
    window: WindowState | None,
    now: Micros,
    *,
    recorded_at: Micros,
    due: Due,
    ceiling: int,
) -> Standing:
    """Return a pool's present balance and window.

    The order is that of every write. First, leases expire whose holds ended before the present
    window began. Then the window rolls over, if it has ended: it may carry over what these leases
    give back, and their charges count in the window before. Then the other due leases expire.
    Between two sessions, the window is the one that a reservation would begin.

    Args:
        policy: The policy in force.
        balance: The balance that the newest entry holds.
        window: The window that the newest entry was written in.
        now: The time.
        recorded_at: When the newest entry was recorded.
        due: The sums of the due leases, those of the pools below included.
        ceiling: The most that a total may be.
    """
    if any(due.held):
        rolled = roll_over(policy, window, balance, now)
        if rolled is not None:
            held, charged = due.before(rolled.start)
            early = swept(balance, held, charged, ceiling=ceiling)
            window = roll_over(policy, window, early, now)
        balance = swept(balance, due.held, due.charged, ceiling=ceiling)
    return Standing(balance, current_window(policy, window, balance, now, recorded_at=recorded_at))


def spent_in(window: WindowState | None, balance: Balance) -> Totals:
    """Return what was committed in a window; without windows, since the opening.

    It is at least 0, although corrections of calls of earlier windows may take back more than was
    spent in this one.
    """
    if window is None:
        return balance.committed
    return Totals(*(max(0, amount) for amount in balance.committed.minus(window.base)))
