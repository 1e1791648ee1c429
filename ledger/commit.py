"""How operations become durable: each in a serializable transaction of its own, at its pool."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from ledger.checks import Micros
from ledger.database import Database
from ledger.errors import LedgerError
from ledger.journal import PoolJournal
from ledger.operations import Operation, perform
from ledger.rows import Row

T = TypeVar("T")

Clock = Callable[[], int]
"""Returns the time in microseconds since 1970."""


def system_clock() -> int:
    """Return this machine's time in microseconds since 1970."""
    return time.time_ns() // 1_000


class Writer:
    """Runs operations on the pools of one store; shared by the threads of a process."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self._clock = clock

    def now(self) -> Micros:
        """Return the time that new entries are recorded at."""
        return Micros(self._clock())

    def run(self, pool: PoolJournal, operation: Operation[T]) -> T:
        """Do an operation, and return its answer once it is durable.

        Raises:
            LedgerError: Whatever the operation answers with, or what kept it from being done.
        """

        def work(connection: Connection, again: bool) -> Row:  # noqa: FBT001 - transact's
            (outcome,) = perform(connection, pool, [operation], now=self.now(), look_up=again)
            if isinstance(outcome, LedgerError):
                raise outcome
            return outcome

        row = self.database.transact(work, pool_ids=[pool.info.pool_id], key=operation.key)
        return operation.answer(row, pool.info)
