"""Where pools stand: policy, balance and what remains of each, all on one snapshot."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from sqlalchemy import Connection

from ledger.core import rules
from ledger.core.checks import to_micros
from ledger.core.entries import PoolStatus
from ledger.errors import JournalDamagedError
from ledger.ledger import Ledger
from ledger.reports.filters import EVERYTHING, Scope, Where, snapshot
from ledger.reports.position import newest
from ledger.store import history, pools
from ledger.store.journal import NO_OPENING
from ledger.store.pools import LeftOut
from ledger.store.statements import rows_of_each


def standing(
    book: Ledger, where: Where = EVERYTHING, *, left_out: LeftOut | None = None
) -> list[PoolStatus]:
    """Return where the pools of a filter stand by now, the oldest pool first.

    What other pools passed on to a pool has moved its balance, and is included. Only the filter's
    pools and its `as_of` count, since a balance is that of a whole pool.

    Args:
        book: The books.
        where: Which pools, or the name of one.
        left_out: Gets what is wrong with each damaged pool of the whole store, which is left out.
            Without it, the first of these errors is raised.

    Raises:
        UnknownPoolError: There is no such pool.
        JournalDamagedError: A pool's newest entry, policy or window cannot be read.
        LedgerUnavailableError: The store cannot be read.
    """
    return snapshot(book, where, standing_in, mirrors=True, left_out=left_out)


def standing_in(connection: Connection, scope: Scope) -> list[PoolStatus]:
    """Return where the pools in scope stand; see `standing`."""
    found = []
    known = pools.find_pools(connection).infos
    names = {info.pool_id: info.name for info in known}
    for info in known:
        if info.pool_id not in scope.pools:
            continue
        position = newest(connection, scope.whole(info.pool_id))
        if position is None:
            raise JournalDamagedError(pool=info.name, seq=1, reason=NO_OPENING)
        at = position.recorded_at
        if scope.where.as_of is None:
            at = max(at, to_micros("now", datetime.now(UTC)))
            position = position.at(at)
        limits = history.limits(
            partial(rows_of_each, connection), info, position.policy, upto=position.seq, at=at
        )
        found.append(
            PoolStatus(
                pool=info,
                seq=position.seq,
                policy=position.policy,
                balance=position.balance,
                remaining=rules.remaining(
                    position.policy, position.balance, position.window, limits
                ),
                closed=position.closed,
                parent=None if info.parent_id is None else names[info.parent_id],
                window=position.window,
                limits=() if limits is None else tuple(limits.states(position.balance)),
            )
        )
    return found
