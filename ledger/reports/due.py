"""Due leases: the charges that sums over entries lack until the expiries are written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from ledger.core import rules
from ledger.core.checks import Micros, to_micros
from ledger.core.entries import PoolId, Totals
from ledger.core.errors import LeftOut
from ledger.ledger import Ledger
from ledger.reports.filters import EVERYTHING, Where
from ledger.reports.position import asked_moment
from ledger.reports.scopes import Scope, snapshot
from ledger.reports.standing import journals_in
from ledger.store import standing as stored


@dataclass(frozen=True, slots=True, kw_only=True)
class DueLeases:
    """Leases whose holds have ended and whose expiries are not written yet.

    Balances count them as expired. Sums over entries count their charges once the expiries are
    written, by the next write to the pool or by `expire_due`.

    Attributes:
        leases: How many there are.
        held: What they held.
        charged: What is charged for them once they expire.
    """

    leases: int = 0
    held: Totals = field(default_factory=Totals)
    charged: Totals = field(default_factory=Totals)


def due(
    book: Ledger,
    where: Where = EVERYTHING,
    *,
    now: datetime | None = None,
    left_out: LeftOut | None = None,
) -> DueLeases:
    """Return the sums of the due leases that the pools of a filter granted.

    Only the filter's choice of pools counts, since due leases have no entry yet. With `as_of`, or
    an `until` in the past, there are none, since their expiries will be later.

    Args:
        book: The store.
        where: Which pools, or the name of one.
        now: The moment; by default the present.
        left_out: A list that gets the error of each damaged pool of the store; these are left out.
            Without it, the first of these errors is raised.

    Raises:
        UnknownPoolError: There is no such pool.
        InvalidInputError: A moment without a time zone.
        LedgerUnavailableError: The store cannot be read.
    """
    at = asked_moment(book, where, now)
    return snapshot(book, where, lambda read, scope: _due(read, scope, at), left_out=left_out)


def _due(connection: Connection, scope: Scope, now: Micros | None) -> DueLeases:
    until = scope.where.until
    if until is not None and now is not None and to_micros("until", until) <= now:
        return DueLeases()
    found = due_of_each(connection, scope, now, scope.pools, below=False).values()
    return DueLeases(
        leases=sum(one.leases for one in found),
        held=Totals.sum(one.held for one in found),
        charged=Totals.sum(one.charged for one in found),
    )


def due_of_each(
    connection: Connection,
    scope: Scope,
    now: Micros | None,
    chosen: Iterable[PoolId],
    *,
    below: bool = True,
) -> dict[PoolId, DueLeases]:
    """Return the sums of due leases by pool number, those of pools below that share included."""
    if scope.where.as_of is not None:
        return {pool_id: DueLeases() for pool_id in chosen}
    known = journals_in(scope)
    journals = [known[pool_id] for pool_id in chosen]
    found = stored.due_of_each(connection, journals, now, below=below)
    # Each lease holds one request until it ends.
    return {
        pool_id: DueLeases(leases=one.held.requests, held=one.held, charged=one.charged)
        for pool_id in (journal.info.pool_id for journal in journals)
        for one in (found.get(pool_id, rules.Due()),)
    }
