"""The meter: the state of pools and counts of what happened in them, for repeated readings."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, case, func, select

from ledger.core.checks import Micros
from ledger.core.entries import EntryFlag, PoolId
from ledger.core.errors import LeftOut
from ledger.core.kinds import COUNTED_AS
from ledger.core.status import PoolStatus
from ledger.ledger import Ledger
from ledger.reports.filters import EVERYTHING, Where
from ledger.reports.leases import holding_of_each
from ledger.reports.live import search_from, searched_to
from ledger.reports.position import asked_moment, moment_of
from ledger.reports.scopes import Scope, snapshot
from ledger.reports.standing import standing_in
from ledger.store.schema import entries
from ledger.store.statements import Prepared, rows_of_each

_FLAGS = {"overruns": EntryFlag.OVERRUN, "late": EntryFlag.LATE, "unpriced": EntryFlag.UNPRICED}

METERED = (*COUNTED_AS, *_FLAGS)
"""The counts: kinds of entries, by their names in reports, and flags."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One pool at present.

    Attributes:
        status: Its status.
        open_leases: How many leases that it granted hold something.
        counted: How many calls it admitted (`requests`), denied (`denied`) and so on, by the names
            in `METERED`. A call counts in the pool that was asked, and not again in those above.
    """

    status: PoolStatus
    open_leases: int
    counted: Mapping[str, int] = field(hash=False)


class _Read(NamedTuple):
    """The progress of reading a pool.

    Attributes:
        seq: Its newest entry then.
        oldest: No lease below this entry holds anything.
        counted: What was counted up to then.
    """

    seq: int
    oldest: int
    counted: Mapping[str, int]


_UNREAD = _Read(0, 1, dict.fromkeys(METERED, 0))


class Meter:
    """Reads pools repeatedly. Each reading counts only the entries since the reading before.

    It may be shared by threads.
    """

    def __init__(self, book: Ledger, where: Where = EVERYTHING) -> None:
        """Choose the pools to read.

        Args:
            book: The store.
            where: Which pools, or the name of one.
        """
        self._book = book
        self._where = where
        self._known: dict[PoolId, _Read] = {}
        self._one = threading.Lock()

    def read(self, *, left_out: LeftOut | None = None) -> list[Reading]:
        """Return the present state of the pools, on one snapshot, the oldest first.

        Args:
            left_out: Gets what is wrong with each damaged pool that is left out: one of those that
                are named, or one of the whole store. Without it, the first of these errors is
                raised.

        Raises:
            UnknownPoolError: There is no such pool.
            JournalDamagedError: A pool cannot be read.
            LedgerUnavailableError: The store cannot be read.
        """
        with self._one:
            read = functools.partial(self._in, asked_moment(self._book, self._where, None))
            return snapshot(
                self._book, self._where, read, mirrors=True, left_out=left_out, named=True
            )

    def _in(self, asked: Micros | None, connection: Connection, scope: Scope) -> list[Reading]:
        now = moment_of(connection, scope, asked)
        stand = {one.pool.pool_id: one for one in standing_in(connection, scope, now)}
        known: dict[PoolId, _Read] = {}
        for pool_id, status in stand.items():
            read = self._known.get(pool_id, _UNREAD)
            # An entry that was read is missing after a restored backup.
            known[pool_id] = _UNREAD if status.seq < read.seq else read
        oldest_of = {pool_id: read.oldest for pool_id, read in known.items()}
        first = search_from(stand.values(), oldest_of)
        holding = holding_of_each(connection, scope, now, first=first)
        more = _counted(connection, known, stand)
        found = []
        for pool_id, status in stand.items():
            leases, oldest = holding.get(pool_id, (0, None))
            counted = {
                name: count + int(more[pool_id][name] or 0) if pool_id in more else count
                for name, count in known[pool_id].counted.items()
            }
            self._known[pool_id] = _Read(status.seq, searched_to(status.seq, oldest), counted)
            found.append(Reading(status=status, open_leases=leases, counted=counted))
        return found


def _counted(
    connection: Connection, known: Mapping[PoolId, _Read], stand: Mapping[PoolId, PoolStatus]
) -> dict[PoolId, Mapping[str, Any]]:
    """Count the entries written to each pool since it was read; leave out pools without any."""
    asked = [
        {"pool": pool_id, "after": read.seq, "upto": stand[pool_id].seq}
        for pool_id, read in known.items()
        if read.seq < stand[pool_id].seq
    ]
    read = rows_of_each(connection, [(_counts(), one) for one in asked])
    return {PoolId(one["pool"]): row for one, (row,) in zip(asked, read, strict=True)}


@functools.cache
def _counts() -> Prepared:
    e = entries.c
    wanted: dict[str, ColumnElement[bool]] = {
        name: e.kind == kind for name, kind in COUNTED_AS.items()
    }
    wanted |= {name: e.flags.bitwise_and(int(flag)) != 0 for name, flag in _FLAGS.items()}
    return Prepared(
        select(
            *(func.sum(case((which, 1), else_=0)).label(name) for name, which in wanted.items())
        ).where(
            e.pool_id == bindparam("pool"),
            e.seq > bindparam("after"),
            e.seq <= bindparam("upto"),
            e.origin_seq.is_(None),
        )
    )
