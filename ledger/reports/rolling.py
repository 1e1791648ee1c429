"""When a rolling limit is used up, if its pool is spent evenly."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection

from ledger.core import rules
from ledger.core.axes import Axis
from ledger.core.checks import Micros
from ledger.core.limits import Rolling
from ledger.core.status import LimitStatus, PoolStatus
from ledger.store.history import StoredHistory
from ledger.store.statements import rows_of_each

_STEPS = 100
"""The most steps in which the length of a limit is searched."""


class Pace(NamedTuple):
    """The rate of spend on an axis of a pool: how much was spent, from when until now."""

    spent: int
    begin: Micros
    now: Micros

    def lasts_until(self, amount: int) -> Micros:
        """Return the first microsecond at which an amount, 0 or more, is spent."""
        return Micros(self.now - (-amount * (self.now - self.begin) // self.spent))


def used_up_at(
    connection: Connection, one: PoolStatus, limit: LimitStatus, axis: Axis, pace: Pace
) -> Micros | None:
    """Return when nothing is left of a rolling limit, None if that never happens.

    Usage is freed when it no longer counts, each entry at its own time. Held amounts are not freed.
    The answer is exact if nothing is freed before, and otherwise early by at most a hundredth of
    the limit's length.

    Args:
        connection: A transaction.
        one: The pool.
        limit: The limit, of which something is left on this axis.
        axis: The axis, which it limits.
        pace: The pace, above 0.
    """
    assert isinstance(limit.limit.period, Rolling)  # noqa: S101 - no other is asked about
    left, length = getattr(limit.remaining, axis.name), limit.limit.period.length_us
    history = StoredHistory(partial(rows_of_each, connection), one.pool, upto=one.seq)

    def passed(at: Micros) -> int:
        """Return how much of all that was committed no longer counts at a time."""
        since = rules.since(limit.limit, at)
        return int(getattr(history.base(history.newest_before(since), since), axis.name))

    at, by_now = pace.now, passed(pace.now)
    back = 0
    # One length from now, only later spend counts, which is the same amount at any time.
    while at < pace.now + length:
        empty = pace.lasts_until(left + back)
        if empty <= at:  # it came within the last step
            return at
        if empty > pace.now + length:
            return None
        if passed(empty) - by_now == back:
            return empty
        at = max(empty, Micros(at + length // _STEPS))
        back = passed(at) - by_now
    return None
