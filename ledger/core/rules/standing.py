"""Rules of standing: what is left of a pool by now, as the next write would find it."""

from __future__ import annotations

from typing import NamedTuple

from ledger.core.checks import Micros
from ledger.core.entries import Balance, Totals, WindowState
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.rules.assumed import swept
from ledger.core.rules.carry_over import current_window, roll_over
from ledger.core.rules.overdue import Due


class Standing(NamedTuple):
    """A pool's balance and its window, once what is due has happened."""

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
    """Return where a pool stands by now, in the order of every write.

    First, the leases expire that were due before the present window began. Then the window rolls
    over, if one has ended: it may carry over what they give back, and what they are charged counts
    in the window before. Then the others expire. Between two sessions, it is the one that a
    reservation would begin.

    Args:
        policy: The policy in force.
        balance: The balance that the newest entry holds.
        window: The window that the newest entry was written in.
        now: The time.
        recorded_at: When the newest entry was recorded.
        due: What the leases that are due come to, those of the pools below included.
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
    """Return what was committed in a window, or from the opening on where there are no windows.

    It is never below 0, although corrections may take back more than was spent in this window:
    they may be about a call of an earlier one.
    """
    if window is None:
        return balance.committed
    return Totals(*(max(0, amount) for amount in balance.committed.minus(window.base)))
