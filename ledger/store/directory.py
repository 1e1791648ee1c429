"""The directory of a store: one journal object for each pool, shared by all callers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Connection

from ledger.core.entries import PoolId, PoolInfo
from ledger.store import pools
from ledger.store.journal import PoolJournal
from ledger.store.restored import Seen
from ledger.store.schema import pools as table


class Directory:
    """Finds journals. There is one for each pool, so that all callers share what it remembers."""

    def __init__(self, store: bytes) -> None:
        self.store = store
        """The store's identity."""
        # No lock guards it, since each change is one step of the interpreter. With a lock, a
        # finaliser that runs in this thread could wait for a batch whose leader needs the lock to
        # look up a pool.
        self._journals: dict[PoolId, PoolJournal] = {}
        self._seen: dict[UUID, Seen] = {}

    def named(self, connection: Connection, name: str) -> PoolJournal | None:
        """Return the pool of this name, None if there is no such pool."""
        return self._newest(connection, table.c.name, name)

    def identified(self, connection: Connection, identity: UUID) -> PoolJournal | None:
        """Return the pool with this identity, None if there is no such pool."""
        return self._newest(connection, table.c.identity, identity.bytes)

    def numbered(
        self, connection: Connection, pool_ids: Collection[PoolId]
    ) -> dict[PoolId, PoolJournal]:
        """Return the pools of these numbers, and all above them."""
        found = pools.find_above(connection, table.c.pool_id, pool_ids)
        return {info.pool_id: self.of(info) for info in found}

    def all(self, connection: Connection) -> tuple[list[PoolJournal], pools.FoundPools]:
        """Return every pool that can be read, oldest first, and what was found of all pools."""
        found = pools.find_pools(connection)
        return [self.of(info) for info in found.infos], found

    def of(self, info: PoolInfo) -> PoolJournal:
        """Return the journal of a pool. That of its parent must have been returned before."""
        parent = None if info.parent_id is None else self._journals[info.parent_id]
        known = self._journals.get(info.pool_id)
        if known is None:  # two threads that come here at once get the same journal
            known = self._journals.setdefault(info.pool_id, self.fresh(info, parent))
        # A pool may have been renamed in the database itself, so the old name is removed.
        if known.info != info or known.parent is not parent:
            known = self._journals[info.pool_id] = self.fresh(info, parent)
        return known

    def fresh(self, info: PoolInfo, parent: PoolJournal | None) -> PoolJournal:
        """Return a journal that is not remembered, since its pool is not committed yet."""
        return PoolJournal(info, store=self.store, parent=parent, seen=self.seen(info))

    def seen(self, info: PoolInfo) -> Seen:
        """Return what readers have seen of a pool, by its identity."""
        return self._seen.setdefault(info.identity, Seen())

    def _newest(
        self, connection: Connection, column: Column[Any], sought: object
    ) -> PoolJournal | None:
        found = [self.of(info) for info in pools.find_above(connection, column, [sought])]
        return found[-1] if found else None
