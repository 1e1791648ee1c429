"""Do work in a transaction that is alone on the pools it needs, also on those it finds it needs."""

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
"""After how long a wait for other processes is worth a line in the log."""

_writing: dict[int, Transactions] = {}
"""By thread, the transactions that it was in last; whether it still is, their turn knows."""


def writing_here() -> Transactions | None:
    """Return the transactions that this thread is in the middle of, None where there are none."""
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
        """Whether this thread is in the middle of one."""
        return self._turn._is_owned()  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001

    def is_of_same_store(self, other: Transactions) -> bool:
        """Tell whether the others write to the same store, by whatever address."""
        return self._directory.store == other._directory.store

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
        turn_s = 0.0
        """When this thread got its turn among those of the process."""

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
            # Not `with`, which knows no deadline; one step, so that no interrupt falls between.
            try:  # noqa: SIM105 - an interrupt may fall into `suppress`
                self._turn.release()
            except RuntimeError:  # it was not this thread's turn
                pass
            if own is not None:  # of another store, in the middle of which this came
                _writing[threading.get_ident()] = own

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
