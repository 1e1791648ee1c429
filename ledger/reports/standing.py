"""The state of pools: policy, balance and what is left of each, on one snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from ledger.core import rules
from ledger.core.checks import Micros, from_micros
from ledger.core.entries import PoolId, Totals
from ledger.core.errors import JournalDamagedError, LeftOut
from ledger.core.status import PoolStatus
from ledger.ledger import Ledger
from ledger.reports.filters import EVERYTHING, Where
from ledger.reports.position import asked_moment, newest, unpriced_of_each
from ledger.reports.scopes import Scope, snapshot
from ledger.store import standing as stored
from ledger.store import statuses
from ledger.store.bounds import bounds_of
from ledger.store.journal import NO_OPENING, PoolJournal
from ledger.store.statements import rows_of_each


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentWindow:
    """The present window of a pool.

    Attributes:
        start: When it began.
        end: When it ends.
        committed: What was spent in it.
        carried: What was carried into it.
        begun: Whether it has begun; False for the session that a call now would begin.
    """

    start: datetime
    end: datetime
    committed: Totals
    carried: Totals
    begun: bool

    @classmethod
    def of(cls, status: PoolStatus) -> PresentWindow | None:
        """Return the window of a pool, None without windows."""
        window = status.window
        if window is None:
            return None
        return cls(
            start=from_micros(window.start),
            end=from_micros(window.end),
            committed=status.spent,
            carried=window.carried,
            begun=window.begun,
        )


def standing(
    book: Ledger,
    where: Where = EVERYTHING,
    *,
    now: datetime | None = None,
    left_out: LeftOut | None = None,
) -> list[PoolStatus]:
    """Return the present status of a filter's pools, the oldest pool first.

    Mirrors of other pools' entries have moved the balance and are included. Of the filter only the
    pools and `as_of` count, since a balance belongs to a whole pool.

    Args:
        book: The store.
        where: Which pools, or the name of one. With `as_of` the status is that after the entry, and
            pools above do not count in what is left.
        now: The moment at which due leases count as expired and ended windows as rolled over. By
            default the present, or with `as_of` when that entry was recorded.
        left_out: A list that gets the error of each damaged pool of the store; these are left out.
            Without it, the first of these errors is raised.

    Raises:
        UnknownPoolError: There is no such pool.
        InvalidInputError: A moment without a time zone.
        JournalDamagedError: A pool's newest entry, policy or window cannot be read, or that of a
            pool above it.
        LedgerUnavailableError: The store cannot be read.
    """
    at = asked_moment(book, where, now)
    return snapshot(
        book,
        where,
        lambda connection, scope: standing_in(connection, scope, at),
        mirrors=True,
        left_out=left_out,
    )


def unpriced(
    book: Ledger, where: Where = EVERYTHING, *, left_out: LeftOut | None = None
) -> dict[str, int]:
    """Return how many records of usage of each pool leave out a figure that the pool limits.

    That is `Figures.unpriced` over all entries that moved a pool's balance, mirrors included: those
    that a correction completed do not count. Less is left in truth than stated. Pools without any
    are left out. An index holds the flagged entries, so only they are read.

    Args:
        book: The store.
        where: Which pools, or the name of one, and which of their entries.
        left_out: Gets what is wrong with each damaged pool of the whole store. Without it, the
            first of these errors is raised.

    Raises:
        UnknownPoolError: There is no such pool.
        InvalidInputError: An argument of another type.
        LedgerUnavailableError: The store cannot be read.
    """
    return snapshot(book, where, unpriced_of_each, mirrors=True, left_out=left_out)


def standing_in(connection: Connection, scope: Scope, now: Micros | None) -> list[PoolStatus]:
    """Return the status of the pools in scope; see `standing`."""
    journals = journals_in(scope)
    return _statuses(connection, scope, [journals[pool_id] for pool_id in scope.pools], now)


def lineage_in(connection: Connection, scope: Scope, now: Micros) -> list[PoolStatus]:
    """Return the status of the one pool in scope, then of those above that share its capacity.

    With `as_of` only that of the pool, since an entry does not show the state of pools above.
    """
    pool = journals_in(scope)[scope.pool]
    above = pool.lineage[1:] if scope.where.as_of is None else ()
    return _statuses(connection, scope, [pool, *above], now)


def own_in(connection: Connection, scope: Scope, now: Micros) -> stored.Present:
    """Return the present state of the one pool in scope, without those above it."""
    pool = journals_in(scope)[scope.pool]
    found = stored.own(pool, stored.present_of_each(connection, [pool], now))
    scope.newest[scope.pool] = found.head.seq
    return found


def journals_in(scope: Scope) -> dict[PoolId, PoolJournal]:
    """Return every pool that was looked up for a scope, by its number."""
    found: dict[PoolId, PoolJournal] = {}
    for info in scope.infos:
        parent = None if info.parent_id is None else found[info.parent_id]
        found[info.pool_id] = PoolJournal(info, store=b"", parent=parent)
    return found


def _statuses(
    connection: Connection, scope: Scope, chosen: Sequence[PoolJournal], now: Micros | None
) -> list[PoolStatus]:
    if scope.where.as_of is not None:
        return [_as_of(connection, scope, pool, now) for pool in chosen]
    needed = {one.info.pool_id: one for pool in chosen for one in reversed(pool.lineage)}
    found = stored.present_of_each(connection, list(needed.values()), now)
    readable = [
        (one, there)
        for one in needed.values()
        if isinstance(there := found[one.info.pool_id], stored.Present)
    ]
    scope.newest.update((one.info.pool_id, there.head.seq) for one, there in readable)
    holds = statuses.hold_ends(partial(rows_of_each, connection), readable, now)
    return [_status(pool, found, holds) for pool in chosen]


def _status(
    pool: PoolJournal, found: stored.PresentOfEach, holds: Mapping[PoolId, Micros]
) -> PoolStatus:
    try:
        return statuses.status_of(pool, stored.line_of(pool, found), holds)
    except JournalDamagedError as error:
        if error.pool == pool.info.name:
            raise
        # Without the pools above, what is left of a pool is not known.
        reason = f"a pool above cannot be read: {error}"
        raise JournalDamagedError(pool=pool.info.name, seq=1, reason=reason) from error


def _as_of(
    connection: Connection, scope: Scope, pool: PoolJournal, now: Micros | None
) -> PoolStatus:
    """Return a pool after an entry, in the window of `now` if that is given."""
    found = newest(connection, scope.whole(pool.info.pool_id))
    if found is None:
        raise JournalDamagedError(pool=pool.info.name, seq=1, reason=NO_OPENING)
    if now is not None:
        stood = found.policy, found.window, found.balance
        window = rules.current_window(*stood, now, recorded_at=found.recorded_at)
        found = found._replace(window=window)
    bounds = bounds_of(
        partial(rows_of_each, connection),
        pool,
        found.policy,
        policy_seq=found.policy_seq,
        upto=found.seq,
        at=max(now or found.recorded_at, found.recorded_at),
    )
    left = rules.remaining(found.policy, found.balance, found.window, *bounds)
    states = statuses.states_of(found, bounds)
    return PoolStatus(
        pool=pool.info,
        seq=found.seq,
        policy=found.policy,
        balance=found.balance,
        spent=rules.spent_in(found.window, found.balance),
        own=left,
        remaining=left,
        until=min(statuses.ends_of(found, bounds, states), default=None),
        closed=found.closed,
        parent=None if pool.parent is None else pool.parent.info.name,
        window=found.window,
        **states._asdict(),
    )
