"""Transactions that lock the pools they work on, and begin again if they need more pools."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from ledger.core.entries import PoolId
from ledger.core.errors import ContentionError, NotPermittedError
from ledger.engine.batch import MorePoolsError
from ledger.store.database import Database, Reads
from ledger.store.directory import Directory
from ledger.store.journal import PoolJournal
from ledger.store.writing import Transaction


class _Remembers(Protocol):
    """The result of a transaction."""

    def remember(self) -> None:
        """Keep in memory what is known after COMMIT."""


_number: Callable[[PoolJournal], PoolId] = attrgetter("info.pool_id")

T = TypeVar("T", bound=_Remembers)
T_co = TypeVar("T_co", covariant=True)


class Do(Protocol[T_co]):
    """What is done inside a transaction."""

    def __call__(
        self, connection: Connection, pools: Sequence[PoolJournal], *, look_up: bool
    ) -> T_co:
        """Do the work with all the pools that are locked.

        Args:
            connection: The transaction.
            pools: All the pools that it has locked.
            look_up: Whether an earlier try may have taken effect.

        Raises:
            MorePoolsError: More pools are needed. The work is done again once these are locked,
                too.
        """


_log = logging.getLogger(__name__)

_LONG_WAIT_S = 1.0
"""After how many seconds a wait for other writers is logged."""

_writing: dict[int, tuple[Transactions, ...]] = {}
"""The `Transactions` that each thread uses. Their lock tells whether it is the thread's turn.

A thread uses several if a signal handler writes to one store during a write to another.
"""


@contextmanager
def named(operation: str) -> Iterator[None]:
    """Name the operation in the error if the role may not do it."""
    try:
        yield
    except NotPermittedError as error:
        raise error.of_call(operation) from error.__cause__


class Transactions:
    """The transactions of one store."""

    def __init__(self, database: Database, directory: Directory) -> None:
        self._database = database
        self._directory = directory
        self.reset()

    def is_written_here(self) -> bool:
        """Tell whether this thread is writing to the store, even through another address of it."""
        for one in _writing.get(threading.get_ident(), ()):
            if one._turn._is_owned() and one._directory.store == self._directory.store:  # type: ignore[attr-defined]  # noqa: SLF001
                return True
        return False

    def reset(self) -> None:
        """Make a new lock, at first and in a forked child."""
        # In one process, only one transaction at a time may use and change what journals remember.
        self._turn = threading.RLock()
        self._turn_s = 0.0
        """When the turn of the present thread began, on the clock of `time.monotonic`."""

    def run(
        self,
        do: Do[T],
        pools: Sequence[PoolJournal],
        *,
        key: str,
        look_up: bool = False,
        began_s: float | None = None,
    ) -> T:
        """Do work with pools in a transaction that locks them, and return the result.

        One thread of this process at a time is in a transaction of this store. The transaction
        begins again if others keep the store busy, or if it turns out to need more pools.

        Args:
            do: The work. It must have no side effects, since it may run several times.
            pools: The pools that are needed, as far as is known.
            key: The idempotency key under which an earlier try can be looked up.
            look_up: Whether an earlier call may have done it already.
            began_s: When the first caller began to wait, on the clock of `time.monotonic`.

        Raises:
            ContentionError: It was not this thread's turn, or others kept the store busy, until the
                deadline; or this thread would wait for the end of its own transaction.
            LedgerUnavailableError: The store cannot be reached or written; nothing was written.
            OutcomeUnknownError: The connection died during COMMIT, and no later try got through.
        """
        here = threading.get_ident()
        outer = _writing.get(here, ())
        if outer and self.is_written_here():
            raise ContentionError.in_another_call()
        transaction = Transaction(self._database, key=key, began_s=began_s)
        locked = dict(zip(map(_number, pools), pools, strict=True))
        try:
            # Set before the turn, since a finaliser may run as soon as this thread has the turn.
            _writing[here] = (*outer, self)
            if not self._turn.acquire(timeout=max(0.0, transaction.until_s - time.monotonic())):
                raise self._turn_is_taken()
            self._turn_s = time.monotonic()
            while True:
                try:
                    # No `with` and no function of ours ends this, since an interrupt on entering
                    # it would leave the store locked. After one inside, this runs again.
                    try:
                        pool_ids = sorted(locked)
                        connection = transaction.begin(pool_ids)
                        look_up |= transaction.tries.number > 1
                        done = do(connection, [*map(locked.__getitem__, pool_ids)], look_up=look_up)
                        transaction.commit(connection)
                        break
                    finally:
                        try:
                            self._database.give_back(transaction)
                        except BaseException:
                            self._database.give_back(transaction)
                            raise
                except MorePoolsError as more:  # this ends: each time, more pools are locked
                    locked |= self._numbered(transaction, more.pool_ids)
                except Exception as error:
                    if not transaction.is_repeated(error):
                        raise
            done.remember()
            return done
        finally:
            # Releasing the lock is one step, so no interrupt can fall in between.
            try:  # noqa: SIM105 - an interrupt may fall into `suppress`
                self._turn.release()
            except RuntimeError:  # it was not this thread's turn
                pass
            _writing[here] = outer

    def note_wait(self, pools: Iterable[PoolJournal]) -> None:
        """Log a long wait for the locks of these pools, now that the transaction has them."""
        waited_s = time.monotonic() - self._turn_s
        if waited_s > _LONG_WAIT_S:
            names = [pool.info.name for pool in pools]
            _log.warning("waited %.1f s for other writers of pools %s", waited_s, names)

    def _turn_is_taken(self) -> ContentionError:
        holder = "another thread of this process"
        return ContentionError(timeout_s=self._database.timeout_s, attempts=0, holder=holder)

    def _numbered(
        self, transaction: Transaction, pool_ids: Collection[PoolId]
    ) -> dict[PoolId, PoolJournal]:
        reads = Reads(self._database, transaction.until_s - self._database.timeout_s)
        return reads.read(
            lambda connection: self._directory.numbered(connection, pool_ids), serializable=False
        )
