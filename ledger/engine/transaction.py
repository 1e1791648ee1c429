"""Transactions that lock the pools they work on, also pools that they find out they need."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from ledger.core.checks import Micros
from ledger.core.entries import PoolId
from ledger.engine.batch import MorePoolsError
from ledger.engine.opening import Opening
from ledger.engine.perform import Call, Done, perform
from ledger.errors import ContentionError
from ledger.store.database import Database
from ledger.store.directory import Directory
from ledger.store.journal import PoolJournal

T = TypeVar("T")

Work = Callable[[Connection, bool, Sequence[PoolJournal]], T]
"""Gets the transaction, whether an earlier try may have taken effect, and all its pools."""


_log = logging.getLogger(__name__)

_LONG_WAIT_S = 1.0
"""After how many seconds a wait for other writers is logged."""

_writing: dict[int, Transactions] = {}
"""By thread, the `Transactions` that it used last; `in_turn` tells whether it still does."""


def writing_here() -> Transactions | None:
    """Return the `Transactions` that this thread is writing in now, None if it is not writing."""
    found = _writing.get(threading.get_ident())
    return found if found is not None and found.in_turn else None


class Transactions:
    """The transactions of one store."""

    def __init__(self, database: Database, directory: Directory) -> None:
        self._database = database
        self._directory = directory
        self.reset()

    @property
    def in_turn(self) -> bool:
        """Whether this thread is in the middle of a transaction of this store."""
        return self._turn._is_owned()  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001

    def is_of_same_store(self, other: Transactions) -> bool:
        """Tell whether `other` writes to the same store, even if opened by another address."""
        return self._directory.store == other._directory.store

    def reset(self) -> None:
        """Make a new lock, at first and in a forked child."""
        # In one process, one transaction at a time may use and change what journals remember.
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
        """Do operations on pools; see `engine.perform.perform`.

        Args:
            pools: The pools that are needed, as far as is known.
            calls: Gets the pools that the transaction has locked, and returns the operations.
            key: The idempotency key under which an earlier try can be looked up.
            now: Returns the time, None where the server's clock counts.
            look_up: Whether an earlier try may have taken effect.
            began_s: When the first caller began to wait, on the clock of `time.monotonic`.
        """
        turn_s = 0.0
        """When this thread's turn among the threads of the process began."""

        def work(connection: Connection, again: bool, locked: Sequence[PoolJournal]) -> Done:  # noqa: FBT001 - as `Work`
            def collected() -> Sequence[Call]:  # asked for once the locks are there
                waited_s = time.monotonic() - turn_s
                if waited_s > _LONG_WAIT_S:
                    names = [pool.info.name for pool in locked]
                    _log.warning("waited %.1f s for other writers of pools %s", waited_s, names)
                return calls(locked)

            return perform(connection, locked, collected, now=now, look_up=again or look_up)

        def once() -> Done:
            nonlocal turn_s
            turn_s = time.monotonic()
            done = self._on(pools, work, key=key, began_s=began_s)
            done.remember()
            return done

        return self._alone(once, began_s)

    def open(
        self,
        opening: Opening,
        parent: PoolJournal | None,
        *,
        now: Callable[[], Micros | None],
    ) -> tuple[PoolJournal | None, Done | None]:
        """Find a pool, or create it and also return the result of the transaction that did.

        The pool is None if it must be opened again, see `Opening.make`.
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

        def once() -> tuple[PoolJournal | None, Done | None]:
            found, done = self._on(lineage, work, key=opening.key, began_s=None)
            if done is not None:
                done.remember()
            return found, done

        return self._alone(once, None)

    def _alone(self, once: Callable[[], T], began_s: float | None) -> T:
        """Run a transaction when no other thread of this process is in one of this store.

        Raises:
            ContentionError: It was not this thread's turn until the deadline; or this thread is in
                the middle of a transaction itself, and would wait for its own end.
        """
        timeout_s = self._database.timeout_s
        own = writing_here()
        if own is not None and own.is_of_same_store(self):
            raise ContentionError.in_another_call()
        waited_s = 0.0 if began_s is None else time.monotonic() - began_s
        try:
            if not self._turn.acquire(timeout=max(0.0, timeout_s - waited_s)):
                raise ContentionError(
                    timeout_s=timeout_s, attempts=0, holder="another thread of this process"
                )
            _writing[threading.get_ident()] = self
            return once()
        finally:
            # Not `with`, whose wait has no deadline. To release the lock is one step, so that no
            # interrupt can fall in between.
            try:  # noqa: SIM105 - an interrupt may fall into `suppress`
                self._turn.release()
            except RuntimeError:  # it was not this thread's turn
                pass
            if own is not None:  # this interrupted a transaction of another store
                _writing[threading.get_ident()] = own

    def _on(
        self, pools: Iterable[PoolJournal], work: Work[T], *, key: str, began_s: float | None
    ) -> T:
        needed = {pool.info.pool_id: pool for pool in pools}
        while True:
            try:
                return self._once(needed, work, key=key, began_s=began_s)
            except MorePoolsError as more:  # this ends: each time, more pools are locked
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
