"""The database of a store: serializable transactions, with bounded retries and deadlines."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ledger.errors import (
    ContentionError,
    LedgerUnavailableError,
    NotALedgerError,
    OutcomeUnknownError,
    RowsDiscardedError,
    StoreError,
)
from ledger.store.connections import Connections
from ledger.store.dialects import CommitInDoubtError, Failure, RolledBackError, dialect_for
from ledger.store.dialects.addresses import without_secrets
from ledger.store.statements import Prepared

T = TypeVar("T")

_log = logging.getLogger(__name__)

_PAUSE_MIN_S = 0.001
_PAUSE_MAX_S = 0.1


class Database(Connections):
    """One store, shared by threads.

    Work given to `transact` may run several times, each time in a new transaction, so it must have
    no side effects. From the second time on, it is told that an earlier try may have taken effect,
    and must look that up before it does anything.
    """

    def __init__(self, url: str, *, timeout_s: float, create: bool) -> None:
        super().__init__(dialect_for(url, timeout_s=timeout_s), timeout_s=timeout_s, create=create)
        self.transactions = 0
        """Roughly how many writing transactions were committed through this object."""
        self.retries = 0
        """Roughly how often a writing transaction had to run again."""
        self._held_up: tuple[float, str] | None = None
        self._errors: tuple[type[Exception], ...] = (
            DBAPIError,
            RolledBackError,
            OSError,
            *self.dialect.driver_errors,
        )

    def close(self) -> None:
        """Close every connection, and log what was done on them."""
        if not self._closed:
            _log.info(
                "closed %s: %d transactions, %d repeated", self.url, self.transactions, self.retries
            )
        super().close()

    def transact(
        self,
        work: Callable[[Connection, bool], T],
        *,
        pool_ids: Sequence[int],
        key: str,
        began_s: float | None = None,
    ) -> T:
        """Run `work` in a serializable transaction that has locked these pools, and commit it.

        Args:
            work: Gets the connection, and whether an earlier try may have taken effect.
            pool_ids: The pools it writes to.
            key: The idempotency key under which an earlier try can be looked up.
            began_s: When the caller began to wait, on the clock of `time.monotonic`; the deadline
                counts from there.

        Raises:
            ContentionError: Others kept the store busy until the deadline; nothing was written.
            LedgerUnavailableError: The store cannot be reached or written; nothing was written.
            OutcomeUnknownError: The connection died during COMMIT and no later try got through
                to look the key up, or the server stopped waiting for its standby.
        """
        deadline = (time.monotonic() if began_s is None else began_s) + self.timeout_s
        attempts, in_doubt, committing = 0, False, False

        def once(connection: Connection) -> T:
            nonlocal committing
            self.dialect.begin(connection, pool_ids=pool_ids, timeout_s=deadline - time.monotonic())
            result = work(connection, attempts > 1)
            committing = True
            self.dialect.commit(connection)
            self.transactions += 1
            return result

        while True:
            attempts += 1
            committing = False
            try:
                return self._lend(once, writing=True)
            except CommitInDoubtError as error:
                raise OutcomeUnknownError(key) from error
            except self._errors as error:
                failure = self._failure(error)
                in_doubt |= committing and failure is Failure.LOST
                if time.monotonic() < deadline and (
                    in_doubt or self._worth_another(error, failure, attempts)
                ):
                    self.retries += 1
                    _note_repeat("transaction", failure, attempts, error)
                    time.sleep(_pause_s(attempts))
                    continue
                if in_doubt:
                    raise OutcomeUnknownError(key) from error
                raise self._refused(error, failure, attempts, pool_ids) from error
            except Exception as error:
                if in_doubt:
                    raise OutcomeUnknownError(key) from error
                raise

    def read_rows(self, statement: Prepared, parameters: Mapping[str, int]) -> list[dict[str, Any]]:
        """Run one SELECT in a serializable transaction of its own, in one round trip.

        Raises:
            ContentionError: The snapshot kept clashing with writers until the deadline.
            LedgerUnavailableError: The store cannot be reached or read.
        """
        return self._retried(
            lambda connection: self.dialect.read_alone(connection, statement, parameters)
        )

    def read(self, work: Callable[[Connection], T], *, serializable: bool = True) -> T:
        """Run `work` in a read-only transaction on one snapshot.

        Args:
            work: Gets the connection.
            serializable: False for long reports, which then disturb no writer.

        Raises:
            ContentionError: The snapshot kept clashing with writers until the deadline.
            LedgerUnavailableError: The store cannot be reached or read.
            NotALedgerError: The file is not a database.
        """

        def once(connection: Connection) -> T:
            self.dialect.begin_read(connection, serializable=serializable)
            found = work(connection)
            self.dialect.rollback(connection)
            return found

        return self._retried(once)

    def _retried(self, once: Callable[[Connection], T]) -> T:
        deadline = time.monotonic() + self.timeout_s
        attempts = 0
        while True:
            attempts += 1
            try:
                return self._lend(once)
            except self._errors as error:
                failure = self._failure(error)
                if time.monotonic() < deadline and self._worth_another(error, failure, attempts):
                    _note_repeat("read", failure, attempts, error)
                    time.sleep(_pause_s(attempts))
                    continue
                raise self._refused(error, failure, attempts) from error

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """Turn a driver's error into the one that callers can catch.

        Raises:
            ContentionError: The store stayed busy.
            LedgerUnavailableError: The store cannot be reached, read or written.
            NotALedgerError: The file is not a database.
        """
        try:
            yield
        except self._errors as error:
            failure = self._failure(error)
            raise self._refused(error, failure, attempts=1) from error

    def _failure(self, error: Exception) -> Failure:
        if isinstance(error, RolledBackError):
            return Failure.BUSY
        if isinstance(error, OSError):
            return Failure.BUSY if isinstance(error, TimeoutError) else Failure.UNAVAILABLE
        failure = self.dialect.failure(error)
        if failure is Failure.LOST:
            # The idle connections are likely lost for the same reason.
            self._drop_idle()
        return failure

    def _worth_another(self, error: Exception, failure: Failure, attempts: int) -> bool:
        if failure is Failure.LOST:
            # A pooled connection may have died while idle, so a retry may help. It does not if a
            # new connection cannot be made.
            fresh = isinstance(error, DBAPIError) and error.statement is None
            return attempts == 1 and not fresh
        return failure in {Failure.BUSY, Failure.ENDED}

    def _refused(
        self, error: Exception, failure: Failure, attempts: int, pool_ids: Sequence[int] = ()
    ) -> StoreError:
        if failure is Failure.BUSY:
            holder = self._find_holder(error, pool_ids)
            return ContentionError(timeout_s=self.timeout_s, attempts=attempts, holder=holder)
        text = without_secrets(self.dialect.hint(error), self.dialect.url)
        if failure is Failure.DISCARDED:
            return RowsDiscardedError()
        if failure is Failure.FOREIGN:
            return NotALedgerError(text)
        return LedgerUnavailableError(text)

    def _find_holder(self, error: Exception, pool_ids: Sequence[int]) -> str | None:
        """Return who holds the lock that was waited for in vain, as far as it can be known."""
        unknown: tuple[type[Exception], ...] = (LedgerUnavailableError, *self._errors)
        try:
            holder = self.dialect.holder(error, pool_ids, self._lend)
        except unknown:  # the name only makes the error more helpful
            return None
        if holder is not None:
            self._held_up = time.monotonic(), holder
        return holder

    def last_holder(self) -> str | None:
        """Return the last known holder of the store, if a call found it within `timeout_s`."""
        seen = self._held_up
        if seen is None or time.monotonic() - seen[0] > self.timeout_s:
            return None
        return seen[1]


def _note_repeat(what: str, failure: Failure, attempts: int, error: Exception) -> None:
    """Log that something is done again, by the error's class: its text may hold secrets."""
    name = type(error.__cause__ or error).__name__
    if failure is Failure.LOST:
        _log.warning("connection lost (%s): repeating a %s, attempt %d", name, what, attempts)
    else:
        _log.debug("clash with others (%s): repeating a %s, attempt %d", name, what, attempts)


def _pause_s(attempts: int) -> float:
    ceiling = min(_PAUSE_MAX_S, _PAUSE_MIN_S * 2 ** min(attempts, 10))
    return random.uniform(0, ceiling)  # noqa: S311 - jitter, not a secret
