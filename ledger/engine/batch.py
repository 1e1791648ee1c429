"""The batch: the pools of one transaction, each with a pool_batch."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from ledger.core.checks import Micros
from ledger.core.entries import PoolId
from ledger.errors import LedgerError
from ledger.store import journal

if TYPE_CHECKING:
    from ledger.engine.pool_batch import PoolBatch


class MorePoolsError(Exception):
    """A transaction must be done again, alone on more pools than it has begun on.

    Locks come before the snapshot, so no pool can be taken in once something was read.
    """

    def __init__(self, pool_ids: Collection[PoolId]) -> None:
        super().__init__(f"pools {sorted(pool_ids)} are needed too")
        self.pool_ids = frozenset(pool_ids)


class Batch:
    """The pools of one transaction."""

    def __init__(self, connection: Connection, now: Micros) -> None:
        self.connection = connection
        self.now = now
        self.pools: dict[PoolId, PoolBatch] = {}
        self.damaged: dict[PoolId, LedgerError] = {}
        """Pools that cannot be read, and why."""
        self._swept_below: set[PoolId] = set()

    def pool_batch(self, pool_id: PoolId) -> PoolBatch:
        """Return a pool's pool_batch.

        Raises:
            JournalDamagedError: The pool cannot be read.
            MorePoolsError: The transaction has not begun on this pool.
        """
        if pool_id in self.damaged:
            raise copy.copy(self.damaged[pool_id])
        if pool_id not in self.pools:
            raise MorePoolsError({pool_id})
        return self.pools[pool_id]

    def sweep_below(self, pool_batch: PoolBatch) -> None:
        """See to it that no lease of a pool below is due before this one refuses a reservation.

        Raises:
            MorePoolsError: Some are, in pools that this transaction does not sweep.
        """
        pool_id = pool_batch.pool.info.pool_id
        if pool_id not in self._swept_below:
            due = journal.sharing_with_due(self.connection, pool_batch.pool, self.now)
            missing = due - self.pools.keys() - self.damaged.keys()  # what is damaged never will
            if missing:
                raise MorePoolsError(missing)
            self._swept_below.add(pool_id)
