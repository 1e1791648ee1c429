"""The threshold crossings of a store's pools as alerts, from a consumer's cursor on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from ledger.core import rules
from ledger.core.alerts import Alert, Given, Place, read_cursor
from ledger.core.checks import check_amount, check_text, from_micros
from ledger.core.entries import Direction, PoolId
from ledger.core.errors import JournalDamagedError, LeftOut
from ledger.core.kinds import EntryKind
from ledger.core.status import ThresholdCrossing
from ledger.store import rows
from ledger.store.bounds import credits_at
from ledger.store.database import Database
from ledger.store.history import StoredHistory
from ledger.store.journal import PoolJournal
from ledger.store.pools import leave_out
from ledger.store.rows import Row
from ledger.store.schema import REPORTS_THRESHOLD, entries, pools
from ledger.store.verify import stream

_PERCENT_MAX = 100

_reported = entries.alias("reported")
# One index lookup for each pool: grouping by pool would read every crossing.
_NEWEST = select(pools.c.pool_id, _reported.c.seq, _reported.c.hash).join_from(
    pools,
    _reported,
    (_reported.c.pool_id == pools.c.pool_id)
    & (
        _reported.c.seq
        == select(func.max(entries.c.seq))
        .where(entries.c.pool_id == pools.c.pool_id, REPORTS_THRESHOLD)
        .scalar_subquery()
    ),
)


def alerts(
    database: Database,
    store: bytes,
    journals: Sequence[PoolJournal],
    *,
    after: str | None,
    damaged: LeftOut,
    left_out: LeftOut | None,
) -> Iterator[Alert]:
    """Return every crossing of some pools after a cursor: pool by pool, in the order of entries.

    Args:
        database: The store.
        store: Its identity.
        journals: The pools.
        after: The cursor; None starts at the first crossing.
        damaged: The errors of pools that cannot be read.
        left_out: As in `Books.alerts`.

    Raises:
        InvalidInputError: `after` is no cursor, or one of another store.
    """
    given = read_cursor(after, store)  # checked now, and not when the first alert is asked for
    return _alerts(database, store, journals, given, damaged, left_out)


def _alerts(
    database: Database,
    store: bytes,
    journals: Sequence[PoolJournal],
    given: Mapping[int, Given],
    damaged: LeftOut,
    left_out: LeftOut | None,
) -> Iterator[Alert]:
    only = journals[0].info.pool_id if len(journals) == 1 else None
    newest = database.read(lambda connection: _newest(connection, only), serializable=False)
    passed: list[tuple[int, Given]] = []
    for pool in journals:
        pool_id = pool.info.pool_id
        last = given.get(pool_id)
        if newest.get(pool_id) in {None, last}:
            continue
        number = len(passed)
        for row in _behind(database, pool, last):
            try:
                crossing = _crossing(database, pool, row)
            except JournalDamagedError as error:
                damaged.append(error)
                continue
            last = Given.of(row["seq"], row["hash"])
            place = Place(store, given, passed, number, (pool_id, last))
            yield Alert(crossing=crossing, key=row["hash"].hex(), _place=place)
        if last is not None:
            passed.append((pool_id, last))
    leave_out(damaged, left_out)


def _newest(connection: Connection, only: PoolId | None) -> dict[PoolId, Given]:
    """Return the newest crossing of each pool that has one, or only that of one pool."""
    query = _NEWEST if only is None else _NEWEST.where(pools.c.pool_id == only)
    return {row.pool_id: Given.of(row.seq, row.hash) for row in connection.execute(query)}


def _behind(database: Database, pool: PoolJournal, given: Given | None) -> Iterator[dict[str, Any]]:
    """Return the entries of a pool that report crossings not given yet.

    If another entry now has the number of the last crossing that was given, a backup was restored,
    or a failover lost the newest entries. Then all crossings are given again, since it is not known
    which are new.
    """
    if given is not None:
        found = stream(database, pool, after=given.seq - 1, kind=EntryKind.THRESHOLD)
        first = next(found, None)
        if first is not None and Given.of(first["seq"], first["hash"]) == given:
            return found
    return stream(database, pool, kind=EntryKind.THRESHOLD)


def _crossing(database: Database, pool: PoolJournal, row: Row) -> ThresholdCrossing:
    """Return the crossing that an entry reports.

    Raises:
        JournalDamagedError: It cannot be read.
    """
    head = pool.head_of(database.reads(), row)
    history = StoredHistory(database.read_each, pool.info, upto=head.seq)
    credits = credits_at(
        database.read_each, pool, head.policy, head.policy_seq, head.recorded_at, history
    )
    try:
        said = rows.detail_of(row)["threshold"]
        return ThresholdCrossing(
            pool=pool.info.name,
            threshold=check_text("threshold", said["name"]),
            percent=check_amount("percent", said["percent"], ceiling=_PERCENT_MAX),
            direction=Direction(said["direction"]),
            seq=row["seq"],
            remaining=rules.remaining(*(head.policy, head.balance, head.window, None, credits)),
            recorded_at=from_micros(row["recorded_at"]),
        )
    except rows.UNREADABLE as error:
        reason = f"the threshold it reports cannot be read: {error}"
        raise pool.damaged(row["seq"], reason) from error
