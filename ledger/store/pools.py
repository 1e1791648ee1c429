"""The pools of a store: how they are found, named and numbered."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Column, Connection, RowMapping, Select, bindparam, func, select

from ledger.core.checks import I64_MAX, check_text
from ledger.core.entries import EntryFlag, PoolId, PoolInfo
from ledger.core.errors import (
    InvalidInputError,
    JournalDamagedError,
    LeftOut,
    NotALedgerError,
)
from ledger.store.columns import Columns
from ledger.store.dialects import dialect_named
from ledger.store.schema import FORMAT_VERSION, entries, pools, store

_IDENTITY_BYTES = 16


def store_identity(connection: Connection) -> bytes:
    """Return the store's random identity.

    Raises:
        NotALedgerError: Its entries are written in a format this version does not know.
    """
    found = connection.execute(select(store.c.identity, store.c.format_version)).all()
    if not found:
        raise NotALedgerError("the table 'store' is empty: the store's data is not all there yet")
    row = found[0] if len(found) == 1 else None
    if row is None or type(row.identity) is not bytes or len(row.identity) != _IDENTITY_BYTES:
        raise NotALedgerError("the store's row in 'store', which names it, is damaged")
    if row.format_version != FORMAT_VERSION:
        raise NotALedgerError(
            f"the store's entries have format {row.format_version}, this version of ledger reads "
            f"and writes {FORMAT_VERSION}. Run: pip install --upgrade budget-ledger"
        )
    identity: bytes = row.identity
    return identity


def newest_seqs(
    connection: Connection, pool_ids: Collection[PoolId] | None = None
) -> dict[PoolId, int]:
    """Return the number of the newest entry of each pool, or of these pools, oldest pool first."""
    if pool_ids is None:
        found = connection.execute(_newest())
    else:
        found = connection.execute(_newest(some=True), {"pool_ids": list(pool_ids)})
    return {row.pool_id: row.seq for row in found if row.seq is not None}


@functools.cache
def _newest(*, some: bool = False) -> Select[Any]:
    # One index lookup for each pool, since grouping by pool would read every entry.
    newest = select(func.max(entries.c.seq)).where(entries.c.pool_id == pools.c.pool_id)
    query = select(pools.c.pool_id, newest.scalar_subquery().label("seq")).order_by(pools.c.pool_id)
    wanted = pools.c.pool_id.in_(bindparam("pool_ids", expanding=True))
    return query.where(wanted) if some else query


_newest_entry = entries.alias("newest_entry")
_FLAGS = (
    select(_newest_entry.c.flags)
    .where(_newest_entry.c.pool_id == pools.c.pool_id)
    .order_by(_newest_entry.c.seq.desc())
    .limit(1)
)
_CLOSED = select(pools.c.pool_id).where(
    _FLAGS.scalar_subquery().bitwise_and(int(EntryFlag.CLOSED)) != 0
)


def closed_pools(connection: Connection) -> set[PoolId]:
    """Return the pools that take no new reservations."""
    return set(connection.execute(_CLOSED).scalars())


_ALL = select(pools).order_by(pools.c.pool_id)


class FoundPools(NamedTuple):
    """Pools of a store, oldest first, so that a parent comes before its children."""

    infos: list[PoolInfo]
    damaged: dict[PoolId, JournalDamagedError]
    """The errors of pools that cannot be read, because of their own row or that of a pool above."""


def find_pools(connection: Connection) -> FoundPools:
    """Return every pool of the store."""
    return _found(connection.execute(_ALL).mappings())


def find_lines(
    connection: Connection, column: Column[Any], sought: Collection[object]
) -> FoundPools:
    """Return the pools with one of these values in a column, and all above them."""
    return _found(connection.execute(_line_from(column), {"sought": list(sought)}).mappings())


def find_above(
    connection: Connection, column: Column[Any], sought: Collection[object]
) -> list[PoolInfo]:
    """Return one pool and those above it, parents first. Each look-up by name begins here.

    Raises:
        JournalDamagedError: The row of one of them cannot be read.
    """
    found = find_lines(connection, column, sought)
    for error in found.damaged.values():
        raise error
    return found.infos


# Built once: SQLAlchemy needs several times as long to build this statement as the database to
# answer it.
@functools.cache
def _line_from(column: Column[Any]) -> Select[Any]:
    sought = column.in_(bindparam("sought", expanding=True))
    line = select(pools).where(sought).cte("line", recursive=True)
    line = line.union(select(pools).join(line, pools.c.pool_id == line.c.parent_id))
    return select(line).order_by(line.c.pool_id)


def next_pool_id(connection: Connection) -> PoolId:
    """Return the number for a new pool.

    Raises:
        NotALedgerError: A pool has a number that leaves none for another.
    """
    highest = connection.execute(select(func.max(pools.c.pool_id))).scalar() or 0
    if type(highest) is not int or highest >= I64_MAX:
        raise NotALedgerError(f"no number is left for a new pool behind {highest!r:.40}")
    return PoolId(highest + 1)


def add_pool(connection: Connection, info: PoolInfo) -> None:
    """Write the row of a new pool."""
    row = {
        "pool_id": info.pool_id,
        "identity": info.identity.bytes,
        "name": info.name,
        "parent_id": info.parent_id,
        "carved_lease": info.carved_lease,
    }
    dialect_named(connection.dialect.name).insert(
        connection, pools.name, tuple(row), [tuple(row.values())]
    )


def _found(rows: Iterable[RowMapping]) -> FoundPools:
    infos: dict[PoolId | None, PoolInfo] = {}
    damaged: dict[PoolId, JournalDamagedError] = {}
    for row in rows:
        try:
            info = _info(row)
            if info.parent_id is not None and info.parent_id not in infos:
                raise ValueError(f"the pool above, {info.parent_id}, cannot be read")  # noqa: TRY301 - one way out
        except (ValueError, InvalidInputError) as error:
            name = row["name"] if isinstance(row["name"], str) else f"(pool {row['pool_id']})"
            reason = f"the pool's row in pools cannot be read: {error}"
            damaged[row["pool_id"]] = JournalDamagedError(pool=name, seq=1, reason=reason)
        else:
            infos[info.pool_id] = info
    return FoundPools(list(infos.values()), damaged)


def _info(row: RowMapping) -> PoolInfo:
    _COLUMNS.check(dict(row))
    check_text("name", row["name"])
    if row["carved_lease"] is not None and row["parent_id"] is None:
        raise ValueError("carved_lease names a lease, and there is no pool above")
    return PoolInfo(
        pool_id=row["pool_id"],
        identity=UUID(bytes=row["identity"]),
        name=row["name"],
        parent_id=row["parent_id"],
        carved_lease=row["carved_lease"],
    )


_COLUMNS = Columns(pools, [column.name for column in pools.columns])


def leave_out(damaged: Iterable[JournalDamagedError], left_out: LeftOut | None) -> None:
    """Add pools' errors to the caller's list, or raise the first error if there is no list.

    Raises:
        JournalDamagedError: Some pools are damaged, and the caller gave no list.
    """
    for error in damaged:
        if left_out is None:
            raise error
        left_out.append(error)


def stray_pool_ids(connection: Connection) -> list[PoolId]:
    """Return the pool ids that occur in entries and not in the table `pools`."""
    known = select(pools.c.pool_id)
    strays = select(entries.c.pool_id).where(entries.c.pool_id.not_in(known)).distinct()
    return [PoolId(found) for found in connection.execute(strays).scalars()]
