"""Rules of windows: which window an entry begins, from what base, and what is carried over."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable

from ledger.core import calendar
from ledger.core.axes import AXES
from ledger.core.checks import I64_MAX, Micros
from ledger.core.entries import Balance, Totals, WindowState
from ledger.core.errors import InvalidInputError
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.rules.remainder import counted

_AHEAD = 1_024
"""How many windows ahead are searched for one that has carried over enough."""


def begin_window(
    policy: SharedPoolBudgetOptions, at: Micros, committed: Totals
) -> WindowState | None:
    """Return the window that an opening or an adjustment begins, None without windows.

    With sessions it has ended at once: the first call begins one.

    If no window can be computed from the calendar, which only an earlier version accepted, the
    capacity does not come back until the pool is adjusted.
    """
    if policy.window is None:
        return None
    if policy.window.session:
        return WindowState(at, at, committed)
    try:
        number = calendar.number(policy.window, at)
    except InvalidInputError:
        return WindowState(at, calendar.NEVER, committed)
    return WindowState(at, calendar.begins(policy.window, number + 1), committed)


def adjust_window(
    before: SharedPoolBudgetOptions,
    after: SharedPoolBudgetOptions,
    at: Micros,
    committed: Totals,
) -> WindowState | None:
    """Return the window that an adjustment begins, None where it leaves the calendar alone."""
    if (
        before.window is not None
        and after.window is not None
        and before.window.calendar == after.window.calendar
    ):
        return None
    return begin_window(after, at, committed)


def begin_session(
    policy: SharedPoolBudgetOptions, window: WindowState | None, balance: Balance, at: Micros
) -> WindowState | None:
    """Return the session that a reservation begins, None while one lasts, or without sessions.

    Args:
        policy: The policy in force.
        window: The last session.
        balance: The balance before the reservation.
        at: When the reservation is recorded.
    """
    schedule = policy.window
    if schedule is None or window is None or at < window.end or not schedule.session:
        return None
    return WindowState(at, Micros(at + schedule.length_us), balance.committed)


def current_window(
    policy: SharedPoolBudgetOptions,
    window: WindowState | None,
    balance: Balance,
    now: Micros,
    *,
    recorded_at: Micros,
) -> WindowState | None:
    """Return the window that the next reservation is in, None without windows.

    A session that it begins has not begun yet.

    Args:
        policy: The policy in force.
        window: The window of the newest entry.
        balance: The balance, once what is due has expired.
        now: The time.
        recorded_at: When the newest entry was recorded, perhaps by a clock that is ahead.
    """
    at = max(now, recorded_at)
    session = begin_session(policy, window, balance, at)
    if session is not None:
        return session._replace(begun=False)
    return roll_over(policy, window, balance, now) or window


def roll_over(
    policy: SharedPoolBudgetOptions, window: WindowState | None, balance: Balance, now: Micros
) -> WindowState | None:
    """Return the window that begins because another one has ended, None while it has not.

    Open holds stay, and count in the new window until they end. So they are part of the rest that
    is carried over: what becomes of them is spent, or free again, in a window that has it. A window
    in which nothing was written carries over its capacity, like one with entries in which nothing
    was spent.
    """
    schedule = policy.window
    if schedule is None or window is None or now < window.end or schedule.session:
        return None  # a session does not begin by itself
    try:
        number = calendar.number(schedule, now)
        skipped = max(0, number - calendar.number(schedule, window.end))
    except InvalidInputError:  # see begin_window
        return None
    return WindowState(
        calendar.begins(schedule, number),
        calendar.begins(schedule, number + 1),
        balance.committed,
        _carried(policy, schedule, counted(Balance(balance.committed), window), skipped),
        skipped,
    )


def taken_back(by: Totals, earlier: Iterable[Totals] = ()) -> Totals:
    """Return how much of a correction takes back what does not count in the present window.

    The corrected entry was written in an earlier window, or in place of what one was charged. What
    corrections have added to it since counts in this one, and is taken back first.

    Args:
        by: By how much the correction moves what is committed.
        earlier: By how much corrections of the same entry moved it before, in this window; ahead of
            them, of late usage, by how much it was more than the charge that it replaced.
    """
    counting = Totals()
    for one in earlier:
        counting = Totals(*(max(0, amount) for amount in counting.plus(one)))
    return Totals(*(max(0, -amount) for amount in counting.plus(by)))


def without(window: WindowState, taken: Totals) -> WindowState:
    """Return a window once usage of earlier windows was taken back: it frees nothing in this one.

    The window counts from that much less, since less than was thought had been committed before.
    """
    return window._replace(base=window.base.minus(taken))


def reopens(
    policy: SharedPoolBudgetOptions,
    window: WindowState | None,
    balance: Balance,
    admits: Callable[[WindowState], bool],
) -> Micros | None:
    """Return when the first window begins that admits a reservation, None where none does.

    Args:
        policy: The policy in force.
        window: The window that the pool is in.
        balance: Its balance, which stays as it is.
        admits: Tells whether a window admits the reservation.
    """
    schedule = policy.window
    if schedule is None or window is None or window.end >= calendar.NEVER:
        return None
    if schedule.session:
        session = begin_session(policy, window, balance, window.end)
        return window.end if session is not None and admits(session) else None
    following = calendar.number(schedule, window.end)

    def then(ahead: int) -> WindowState | None:
        try:
            at = calendar.begins(schedule, following + ahead)
        except (InvalidInputError, OverflowError):  # beyond the calendar
            return None
        return roll_over(policy, window, balance, at)

    def fits(ahead: int) -> bool:
        begun = then(ahead)
        return begun is not None and admits(begun)

    # Only what is carried over makes a later window larger than the next one.
    further = _AHEAD if schedule.carry_over or schedule.deduct_overage else 0
    ahead = 0 if fits(0) else bisect_left(range(further), True, key=fits)
    begun = then(ahead)
    return begun.start if begun is not None and admits(begun) else None


def carried_at_most(policy: SharedPoolBudgetOptions, window: WindowState | None) -> Totals:
    """Return the most that this window or a later one has beside the capacity, on each axis.

    This one may have more than what is carried over at most by now: the policy was adjusted.
    """
    schedule = policy.window
    if schedule is None or window is None:
        return Totals()
    caps = (getattr(schedule, axis.carry_cap) if schedule.carry_over else 0 for axis in AXES)
    return Totals(*map(max, caps, window.carried))


def _carried(
    policy: SharedPoolBudgetOptions,
    schedule: calendar.Window,
    used: Totals,
    skipped: int,
) -> Totals:
    """Return the unused rest on each axis, at most its cap; nothing of what is unlimited.

    It is below 0 only where overage is deducted.
    """
    carried = []
    for axis, one_used in zip(AXES, used, strict=True):
        capacity: int = getattr(policy, axis.capacity)
        least = -I64_MAX if schedule.deduct_overage else 0
        cap = min(getattr(schedule, axis.carry_cap), I64_MAX) if schedule.carry_over else 0
        if axis.is_unlimited(policy):
            least = cap = 0
        rest = min(max(least, capacity - one_used), cap)
        # All skipped windows add the same amount, so adding them at once reaches the same bounds
        # as adding them one by one.
        carried.append(min(rest + skipped * capacity, cap))
    return Totals(*carried)
