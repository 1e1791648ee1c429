"""Do work in a transaction that is alone on the pools it needs, also on those it finds it needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from ledger.core.checks import Micros
from ledger.core.entries import PoolId
from ledger.engine.batch import MorePoolsError
from ledger.engine.opening import Opening
from ledger.engine.perform import Call, Done, perform
from ledger.store.database import Database
from ledger.store.directory import Directory
from ledger.store.journal import PoolJournal

T = TypeVar("T")

Work = Callable[[Connection, bool, Sequence[PoolJournal]], T]
"""Gets the transaction, whether an earlier try may have taken effect, and all its pools."""


class Transactions:
    """The transactions of one store."""

    def __init__(self, database: Database, directory: Directory) -> None:
        self._database = database
        self._directory = directory
        self.reset()

    def reset(self) -> None:
        """Begin anew, in a forked child."""
        # What journals remember belongs to one transaction of this process at a time.
        self._turn = threading.RLock()

    def perform(
        self,
        pools: Iterable[PoolJournal],
        calls: Callable[[Sequence[PoolJournal]], Sequence[Call]],
        *,
        key: str,
        now: Callable[[], Micros | None],
        look_up: bool,
        began_s: float | None = None,
    ) -> Done:
        """Do operations on pools; see `operations.perform`.

        Args:
            pools: The pools that are needed, as far as is known.
            calls: Gets the pools that the transaction is alone on, and returns the operations.
            key: The idempotency key under which an earlier try can be looked up.
            now: Asked for the time.
            look_up: Whether an earlier try may have taken effect.
            began_s: When the first caller began to wait, on the clock of `time.monotonic`.
        """

        def work(connection: Connection, again: bool, locked: Sequence[PoolJournal]) -> Done:  # noqa: FBT001 - as `Work`
            return perform(
                connection,
                locked,
                lambda: calls(locked),
                now=now,
                look_up=again or look_up,
            )

        with self._turn:
            done = self._on(pools, work, key=key, began_s=began_s)
            done.remember()
            return done

    def open(
        self,
        opening: Opening,
        parent: PoolJournal | None,
        *,
        now: Callable[[], Micros | None],
    ) -> tuple[PoolJournal | None, Done | None]:
        """Find a pool, or make it below its parent; then also return what that came to above.

        None instead of the pool where it must be asked for again, see `Opening.make`.
        """

        def work(
            connection: Connection,
            _again: bool,  # noqa: FBT001 - as `Work`
            locked: Sequence[PoolJournal],
        ) -> tuple[PoolJournal | None, Done | None]:
            found = opening.find(connection, self._directory)
            if found is not None:
                return found, None
            return opening.make(connection, self._directory, parent, locked, now=now)

        lineage = () if parent is None else parent.lineage
        with self._turn:
            found, done = self._on(lineage, work, key=opening.key, began_s=None)
            if done is not None:
                done.remember()
            return found, done

    def _on(
        self, pools: Iterable[PoolJournal], work: Work[T], *, key: str, began_s: float | None
    ) -> T:
        needed = {pool.info.pool_id: pool for pool in pools}
        while True:
            try:
                return self._once(needed, work, key=key, began_s=began_s)
            except MorePoolsError as more:  # each time more of them, and there is an end to pools
                needed |= self._numbered(more.pool_ids)

    def _once(
        self,
        pools: dict[PoolId, PoolJournal],
        work: Work[T],
        *,
        key: str,
        began_s: float | None,
    ) -> T:
        ids = sorted(pools)
        return self._database.transact(
            lambda connection, again: work(connection, again, [pools[one] for one in ids]),
            pool_ids=ids,
            key=key,
            began_s=began_s,
        )

    def _numbered(self, pool_ids: Collection[PoolId]) -> dict[PoolId, PoolJournal]:
        return self._database.read(
            lambda connection: self._directory.numbered(connection, pool_ids), serializable=False
        )
