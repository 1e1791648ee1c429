"""Rules of windows: which window an entry begins, its base, and what is carried over."""

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
"""How many future windows are searched for one into which enough is carried over."""


def begin_window(
    policy: SharedPoolBudgetOptions, at: Micros, committed: Totals
) -> WindowState | None:
    """Return the window that an opening or an adjustment begins, None without windows.

    With sessions, this window has ended at once, and the first call begins a session.

    Only an earlier version accepted calendars from which no window can be computed. The capacity of
    such a pool is not restored until the pool is adjusted.
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
    """Return the window that an adjustment begins, None if it does not change the calendar."""
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
    """Return the session that a reservation begins; None during a session, or without sessions.

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
    """Return the window of the next reservation, None without windows.

    If that reservation begins a session, the window's `begun` is False.

    Args:
        policy: The policy in force.
        window: The window of the newest entry.
        balance: The balance, once what is due has expired.
        now: The time.
        recorded_at: When the newest entry was recorded; it may be later than `now`, if a clock was
            ahead.
    """
    at = max(now, recorded_at)
    session = begin_session(policy, window, balance, at)
    if session is not None:
        return session._replace(begun=False)
    return roll_over(policy, window, balance, now) or window


def roll_over(
    policy: SharedPoolBudgetOptions, window: WindowState | None, balance: Balance, now: Micros
) -> WindowState | None:
    """Return the window that begins because another one has ended, None if that has not ended.

    Open holds stay, and count in the new window until they end. So what they hold is carried over,
    too: it is then spent or freed in the new window. A window without entries carries over its
    capacity, like one in which nothing was spent.
    """
    schedule = policy.window
    if schedule is None or window is None or now < window.end or schedule.session:
        return None  # a session begins with a call only
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
    """Return how much a correction takes back of usage that does not count in the present window.

    The corrected entry was written in an earlier window, or replaced a charge of an earlier window.
    Usage that corrections have added to it in this window counts in this window, and is taken back
    first.

    Args:
        by: By how much the correction moves what is committed.
        earlier: By how much earlier corrections in this window moved the same entry. For late
            usage, the first of these is its excess over the charge that it replaced.
    """
    counting = Totals()
    for one in earlier:
        counting = Totals(*(max(0, amount) for amount in counting.plus(one)))
    return Totals(*(max(0, -amount) for amount in counting.plus(by)))


def without(window: WindowState, taken: Totals) -> WindowState:
    """Return the window after usage of earlier windows is taken back, which frees nothing in it.

    The window's base is reduced by as much, since less had been committed before than was recorded.
    """
    return window._replace(base=window.base.minus(taken))


def reopens(
    policy: SharedPoolBudgetOptions,
    window: WindowState | None,
    balance: Balance,
    admits: Callable[[WindowState], bool],
) -> Micros | None:
    """Return when the first window that admits a reservation begins, None if none does.

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

    # A later window is larger than the next one only through what is carried over.
    further = _AHEAD if schedule.carry_over or schedule.deduct_overage else 0
    ahead = 0 if fits(0) else bisect_left(range(further), True, key=fits)
    begun = then(ahead)
    return begun.start if begun is not None and admits(begun) else None


def carried_at_most(policy: SharedPoolBudgetOptions, window: WindowState | None) -> Totals:
    """Return the most that this window or a later one adds to the capacity, on each axis.

    This window may have more than the present cap, if the policy was adjusted since it began.
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
    """Return the unused amount on each axis, at most its cap; 0 on unlimited axes.

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
