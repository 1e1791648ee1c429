"""Transactions that write: each is tried again until it is committed or given up."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import Connection

from ledger.core.errors import OutcomeUnknownError, ReadOnlyLedgerError
from ledger.store.connections import Loan
from ledger.store.database import Database, Tries
from ledger.store.dialects import CommitInDoubtError, Failure

_TRIES_BESIDE_OTHERS = 5
"""After how many tries a transaction locks the whole store.

PostgreSQL marks a transaction that reads much as a reader of whole tables, and then every
concurrent write may make it fail. Beside one busy writer of another pool, a transaction of a pool
with limits had to repeat 761 times in a minute.
"""


class Transaction(Loan):
    """A serializable transaction that writes, tried again until it is committed or given up.

    Each try is `begin`, the work, `commit`, and in any case `Database.give_back`. The work may run
    several times, so it must have no side effects. From the second try on, the work must first look
    up whether an earlier try took effect.
    """

    writes = True

    def __init__(self, database: Database, *, key: str, began_s: float | None = None) -> None:
        """Begin nothing yet.

        Args:
            database: The store.
            key: The idempotency key under which an earlier try can be looked up.
            began_s: When the caller began to wait, on the clock of `time.monotonic`; the deadline
                counts from there, or else from now.

        Raises:
            ReadOnlyLedgerError: The store was opened read-only.
        """
        if database.dialect.read_only:
            raise ReadOnlyLedgerError(url=database.url)
        self._database = database
        self._key = key
        self.until_s = (time.monotonic() if began_s is None else began_s) + database.timeout_s
        """The deadline, on the clock of `time.monotonic`."""
        self.tries = Tries(self.until_s)
        self._pool_ids: Sequence[int] | None = ()
        """The pools that the present try locks; None for all pools."""
        self._committing = False
        self._in_doubt = False
        """Whether the connection was lost during the COMMIT of an earlier try."""

    def begin(self, pool_ids: Sequence[int]) -> Connection:
        """Begin a try that locks these pools, at least."""
        self.tries.number += 1
        self.raw, self.sound = None, False  # the connection of an earlier try is not used again
        self._pool_ids = pool_ids if self.tries.number <= _TRIES_BESIDE_OTHERS else None
        self._committing = False
        database = self._database
        connection = database.take(self)
        timeout_s = self.until_s - time.monotonic()
        database.dialect.begin(connection, pool_ids=self._pool_ids, timeout_s=timeout_s)
        return connection

    def commit(self, connection: Connection) -> None:
        """Commit what was done on the connection of this try, durably."""
        self._committing = True
        self._database.dialect.commit(connection)
        self._database.transactions += 1
        self.sound = True

    def is_repeated(self, error: Exception) -> bool:
        """Tell whether a failed try is to be repeated; False if the error is not from the store.

        Raises:
            ContentionError: Others kept the store busy until the deadline; nothing was written.
            LedgerUnavailableError: The store cannot be reached or written; nothing was written.
            OutcomeUnknownError: The connection died during COMMIT and no later try got through
                to look the key up, or the server stopped waiting for its standby.
        """
        database = self._database
        if isinstance(error, CommitInDoubtError):
            raise OutcomeUnknownError(self._key) from error
        if isinstance(error, database.errors):
            failure = database.failure_of(error)
            self._in_doubt |= self._committing and failure is Failure.LOST
            if database.is_repeated(
                "transaction", self.tries, error, failure, surely=self._in_doubt
            ):
                database.retries += 1
                return True
            if not self._in_doubt:
                raise database.refused(error, failure, self.tries, self._pool_ids) from error
        if self._in_doubt:
            raise OutcomeUnknownError(self._key) from error
        return False
