"""When a rolling limit is used up, if its pool is spent on evenly."""

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
"""In how many steps at most the length of a limit is looked through."""


class Pace(NamedTuple):
    """How fast an axis of a pool is spent on: how much, from when until now."""

    spent: int
    begin: Micros
    now: Micros

    def lasts_until(self, amount: int) -> Micros:
        """Return the first microsecond at which an amount, 0 or more, is spent."""
        return Micros(self.now - (-amount * (self.now - self.begin) // self.spent))


def used_up_at(
    connection: Connection, one: PoolStatus, limit: LimitStatus, axis: Axis, pace: Pace
) -> Micros | None:
    """Return when nothing is left of a rolling limit, None if that never comes to pass.

    What was spent comes back when it no longer counts, each entry at its time. What is held does
    not. The answer is exact where nothing comes back before, and early by at most a hundredth of
    the limit's length where much comes back in small parts.

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
        """Return how much of what was ever committed no longer counts at a time."""
        since = rules.since(limit.limit, at)
        return int(getattr(history.base(history.newest_before(since), since), axis.name))

    at, by_now = pace.now, passed(pace.now)
    back = 0
    # Behind it only what is spent from now on counts: as much at any time.
    while at < pace.now + length:
        empty = pace.lasts_until(left + back)
        if empty <= at:  # within the step that led here
            return at
        if empty > pace.now + length:
            return None
        if passed(empty) - by_now == back:
            return empty
        at = max(empty, Micros(at + length // _STEPS))
        back = passed(at) - by_now
    return None
