"""The pools of a store: how they are found, named and numbered."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Connection, Row, Select, bindparam, func, insert, select

from ledger.core.entries import PoolId, PoolInfo
from ledger.errors import NotALedgerError
from ledger.store.schema import FORMAT_VERSION, entries, pools, store


def store_identity(connection: Connection) -> bytes:
    """Return the store's random identity.

    Raises:
        NotALedgerError: Its entries are written in a format this version does not know.
    """
    row = connection.execute(select(store.c.identity, store.c.format_version)).one()
    if row.format_version != FORMAT_VERSION:
        raise NotALedgerError(
            f"the store's entries have format {row.format_version}, this version of ledger reads "
            f"and writes {FORMAT_VERSION}. Run: pip install --upgrade budget-ledger"
        )
    return bytes(row.identity)


def newest_seqs(
    connection: Connection, pool_ids: Collection[PoolId] | None = None
) -> dict[PoolId, int]:
    """Return the number of each pool's newest entry, or of these pools', the oldest pool first."""
    # One look at the end of an index for each pool: to group by pool is to read every entry.
    newest = select(func.max(entries.c.seq)).where(entries.c.pool_id == pools.c.pool_id)
    query = select(pools.c.pool_id, newest.scalar_subquery().label("seq")).order_by(pools.c.pool_id)
    if pool_ids is not None:
        query = query.where(pools.c.pool_id.in_(pool_ids))
    return {row.pool_id: row.seq for row in connection.execute(query) if row.seq is not None}


_ALL = select(pools).order_by(pools.c.pool_id)


def find_pools(connection: Connection) -> list[PoolInfo]:
    """Return every pool of the store, oldest first: a parent before what is below it."""
    return _infos(connection.execute(_ALL))


def find_above(
    connection: Connection, column: Column[Any], sought: Collection[object]
) -> list[PoolInfo]:
    """Return the pools whose column of `pools` is one of these, and all above them, parents first.

    Every operation by a pool's name begins here.
    """
    return _infos(connection.execute(_line_from(column), {"sought": list(sought)}))


# Putting this statement together takes SQLAlchemy several times as long as the database needs
# to answer it.
@functools.cache
def _line_from(column: Column[Any]) -> Select[Any]:
    sought = column.in_(bindparam("sought", expanding=True))
    line = select(pools).where(sought).cte("line", recursive=True)
    line = line.union(select(pools).join(line, pools.c.pool_id == line.c.parent_id))
    return select(line).order_by(line.c.pool_id)


def next_pool_id(connection: Connection) -> PoolId:
    """Return the number of the next pool that is made."""
    highest = connection.execute(select(func.max(pools.c.pool_id))).scalar()
    return PoolId((highest or 0) + 1)


def add_pool(connection: Connection, info: PoolInfo) -> None:
    """Make a new pool known."""
    connection.execute(
        insert(pools),
        {
            "pool_id": info.pool_id,
            "identity": info.identity.bytes,
            "name": info.name,
            "parent_id": info.parent_id,
            "carved_lease": info.carved_lease,
        },
    )


def _infos(found: Iterable[Row[Any]]) -> list[PoolInfo]:
    return [
        PoolInfo(
            pool_id=row.pool_id,
            identity=UUID(bytes=bytes(row.identity)),
            name=row.name,
            parent_id=row.parent_id,
            carved_lease=row.carved_lease,
        )
        for row in found
    ]


def stray_pool_ids(connection: Connection) -> list[PoolId]:
    """Return the ids that entries name and `pools` does not."""
    known = select(pools.c.pool_id)
    strays = select(entries.c.pool_id).where(entries.c.pool_id.not_in(known)).distinct()
    return [PoolId(found) for found in connection.execute(strays).scalars()]
