"""The pools of a store: how they are found, named and numbered."""

from __future__ import annotations

from uuid import UUID, uuid4

from sqlalchemy import Connection, func, insert, select

from ledger.errors import NotALedgerError
from ledger.records import PoolId, PoolInfo
from ledger.schema import FORMAT_VERSION, entries, pools, store


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


def newest_seqs(connection: Connection) -> dict[str, int]:
    """Return the number of each pool's newest entry, by the pool's name."""
    newest = (
        select(pools.c.name, func.max(entries.c.seq).label("seq"))
        .join_from(pools, entries, entries.c.pool_id == pools.c.pool_id)
        .group_by(pools.c.name)
    )
    return {row.name: row.seq for row in connection.execute(newest)}


def find_pools(connection: Connection, name: str | None = None) -> list[PoolInfo]:
    """Return the pools of the store, or the one of this name, by id."""
    query = select(pools).order_by(pools.c.pool_id)
    if name is not None:
        query = query.where(pools.c.name == name)
    return [
        PoolInfo(
            pool_id=row.pool_id,
            identity=UUID(bytes=bytes(row.identity)),
            name=row.name,
            parent_id=row.parent_id,
        )
        for row in connection.execute(query)
    ]


def add_pool(connection: Connection, name: str) -> PoolInfo:
    """Give a new pool its number and its identity."""
    highest = connection.execute(select(func.max(pools.c.pool_id))).scalar()
    info = PoolInfo(pool_id=PoolId((highest or 0) + 1), identity=uuid4(), name=name)
    connection.execute(
        insert(pools), {"pool_id": info.pool_id, "identity": info.identity.bytes, "name": name}
    )
    return info


def stray_pool_ids(connection: Connection) -> list[PoolId]:
    """Return the ids that entries name and `pools` does not."""
    known = select(pools.c.pool_id)
    strays = select(entries.c.pool_id).where(entries.c.pool_id.not_in(known)).distinct()
    return [PoolId(found) for found in connection.execute(strays).scalars()]
