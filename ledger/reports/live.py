"""The live report: the state of pools and their open leases, cheap enough to ask often."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection

from ledger.core.checks import check_type, from_micros
from ledger.core.entries import PoolId
from ledger.core.errors import LeftOut
from ledger.core.status import PoolStatus
from ledger.ledger import Ledger
from ledger.reports.filters import EVERYTHING, Where
from ledger.reports.leases import AgedLease, holding_of_each, open_leases_of_each
from ledger.reports.position import asked_moment, moment_of, unpriced_of_each
from ledger.reports.scopes import Scope, snapshot
from ledger.reports.standing import standing_in

LEASES = 100
"""How many open leases of each pool are listed at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """The books at one moment, on one snapshot.

    Attributes:
        at: The moment.
        pools: The status of each pool.
        leases: The leases that have not ended, the oldest first, a bounded number of each pool.
        holding: How many leases of these pools hold something. Each counts once, not again in pools
            above.
        oldest: The entry of each pool from which the next glance needs to search for open leases.
            Pass it to that glance.
        left_out: What is wrong with each damaged pool that was left out, if no pool was named.
        unpriced: How many records of usage of each pool are unpriced, if there are any; see
            `reports.unpriced`.
    """

    at: datetime
    pools: list[PoolStatus]
    leases: list[AgedLease]
    holding: int
    oldest: Mapping[PoolId, int] = field(hash=False)
    left_out: LeftOut = field(default_factory=list, hash=False)
    unpriced: Mapping[str, int] = field(default_factory=dict, hash=False)


def glance(
    book: Ledger,
    where: Where = EVERYTHING,
    *,
    oldest: Mapping[PoolId, int] | None = None,
    now: datetime | None = None,
) -> Glance:
    """Return the books at this moment, without disturbing writers.

    Without `oldest` all reservations of each pool are searched for open leases. An ended lease
    never opens again, so with `oldest` the search starts at the lease that was the oldest.

    Args:
        book: The store.
        where: Which pools, or the name of one.
        oldest: `Glance.oldest` of the glance before.
        now: The moment of the statuses and ages; by default the present.

    Raises:
        UnknownPoolError: There is no such pool.
        JournalDamagedError: A pool cannot be read.
        LedgerUnavailableError: The store cannot be read.
    """
    known = oldest or {}
    check_type("oldest", known, Mapping)

    asked = asked_moment(book, where, now)

    def query(connection: Connection, scope: Scope) -> Glance:
        at = moment_of(connection, scope, asked)
        pools = standing_in(connection, scope, at)
        first = search_from(pools, known)
        found = open_leases_of_each(connection, scope, at, first=first, limit=LEASES)
        holding = holding_of_each(connection, scope, at, first=first)
        leases = [lease for of_pool in found.values() for lease in of_pool]
        oldest_of = {pool_id: of_pool[0].lease for pool_id, of_pool in found.items() if of_pool}
        places = {
            one.pool.pool_id: searched_to(one.seq, oldest_of.get(one.pool.pool_id)) for one in pools
        }
        leases.sort(key=lambda lease: lease.reserved_at)
        return Glance(
            at=from_micros(at),
            pools=pools,
            leases=leases,
            holding=sum(count for count, _ in holding.values()),
            oldest=places,
            unpriced=unpriced_of_each(connection, scope),
        )

    lost: LeftOut = []
    found = snapshot(book, where, query, mirrors=True, left_out=lost)
    return replace(found, left_out=lost)


def search_from(stand: Iterable[PoolStatus], known: Mapping[PoolId, int]) -> dict[PoolId, int]:
    """Return the pools in which a lease may be open, each with the entry to search from.

    Args:
        stand: The statuses of the pools.
        known: What `searched_to` returned of each at an earlier look.
    """
    first = {}
    for one in stand:
        place = known.get(one.pool.pool_id, 1)
        # Nothing is open if nothing was open at the last look and no entry was written since.
        if place != one.seq + 1:
            # An entry that was seen is missing after a restored backup.
            first[one.pool.pool_id] = place if place <= one.seq else 1
    return first


def searched_to(newest: int, oldest: int | None) -> int:
    """Return the entry from which the next look must search, since an ended lease stays ended.

    Args:
        newest: The pool's newest entry.
        oldest: The oldest lease that is open there, None without one.
    """
    return newest + 1 if oldest is None else oldest
