"""The way in and out of a store: serializable transactions, bounded retries, deadlines."""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import ArgumentError, DBAPIError, SAWarning
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ledger.errors import (
    ContentionError,
    InvalidUrlError,
    LedgerError,
    LedgerUnavailableError,
    NotALedgerError,
    OutcomeUnknownError,
    RowsDiscardedError,
    StoreError,
)
from ledger.store.dialects import CommitInDoubtError, Failure, RolledBackError, dialect_for
from ledger.store.dialects.addresses import shown_address, without_secrets
from ledger.store.statements import Prepared

T = TypeVar("T")

_IDLE_MAX = 4
_PAUSE_MIN_S = 0.001
_PAUSE_MAX_S = 0.1


class Database:
    """One store's connections, shared by threads.

    A piece of work given to `transact` may run several times, each time in a new transaction, so
    it must not have effects of its own. From the second time on it is told so, and must look up
    whether an earlier time took effect before it does anything.
    """

    def __init__(self, url: str, *, timeout_s: float, create: bool) -> None:
        self.dialect = dialect_for(url, timeout_s=timeout_s)
        self.timeout_s = timeout_s
        self._closed = False
        self.transactions = 0
        """How many writing transactions were committed here, about."""
        self.retries = 0
        """How often one had to be run again, about."""
        self._reset_gate()
        self._idle: list[Connection] = []
        self.after_fork: Callable[[], None] | None = None
        try:
            self.engine = self.dialect.create_engine(create=create)
        except LedgerError:
            raise
        except (ArgumentError, TypeError, ValueError, SAWarning):
            reason = "a parameter behind its ? has a value that the driver does not take"
            raise InvalidUrlError("url", f"{reason}; check {self.url}") from None
        self._errors: tuple[type[Exception], ...] = (
            DBAPIError,
            PoolTimeoutError,
            RolledBackError,
            OSError,
            *self.dialect.driver_errors,
        )
        _open_databases.add(self)

    @property
    def url(self) -> str:
        """The store's address, without its password."""
        return shown_address(self.dialect.url)

    def close(self) -> None:
        """Close every connection."""
        self._closed = True
        _open_databases.discard(self)
        self._drop_idle()
        self.engine.dispose()
        self.dialect.close()

    def transact(
        self,
        work: Callable[[Connection, bool], T],
        *,
        pool_ids: Sequence[int],
        key: str,
        began_s: float | None = None,
    ) -> T:
        """Run `work` in a serializable transaction, alone on these pools, and commit it.

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
        attempts, in_doubt = 0, False
        while True:
            attempts += 1
            committing = False
            try:
                with self._begun(pool_ids, deadline - time.monotonic()) as connection:
                    result = work(connection, attempts > 1)
                    committing = True
                    self.dialect.commit(connection)
                    self.transactions += 1
                    return result
            except CommitInDoubtError as error:
                raise OutcomeUnknownError(key) from error
            except self._errors as error:
                failure = self._failure(error)
                in_doubt |= committing and failure is Failure.LOST
                if time.monotonic() < deadline and (
                    in_doubt or self._worth_another(error, failure, attempts)
                ):
                    self.retries += 1
                    time.sleep(_pause_s(attempts))
                    continue
                if in_doubt:
                    raise OutcomeUnknownError(key) from error
                raise self._refused(error, failure, attempts) from error
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
        return self._retried(lambda: self._read_rows(statement, parameters))

    def _read_rows(
        self, statement: Prepared, parameters: Mapping[str, int]
    ) -> list[dict[str, Any]]:
        with self._lent() as connection:
            return self.dialect.read_alone(connection, statement, parameters)

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

        def once() -> T:
            with self._lent() as connection:
                self.dialect.begin_read(connection, serializable=serializable)
                try:
                    return work(connection)
                finally:
                    self.dialect.rollback(connection)

        return self._retried(once)

    def _retried(self, once: Callable[[], T]) -> T:
        deadline = time.monotonic() + self.timeout_s
        attempts = 0
        while True:
            attempts += 1
            try:
                return once()
            except self._errors as error:
                failure = self._failure(error)
                if time.monotonic() < deadline and self._worth_another(error, failure, attempts):
                    time.sleep(_pause_s(attempts))
                    continue
                raise self._refused(error, failure, attempts) from error

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Lend a connection; an error of the driver that escapes is the caller's to name."""
        with self._entered(), self.engine.connect() as connection:
            yield connection

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

    def before_fork(self) -> None:
        """Close every connection that the child could not use, once nobody uses it.

        SQLite keeps its locks in the memory of the process: a child that inherited an open
        connection would find its parent's locks there for ever.
        """
        if not self.dialect.connections_survive_fork:
            with self._gate:
                self._forking = True
                self._gate.wait_for(lambda: self._lent_out == 0, timeout=self.timeout_s)
            self._drop_idle()
            self.engine.dispose()

    def after_fork_in_parent(self) -> None:
        """Let callers in again."""
        with self._gate:
            self._forking = False
            self._gate.notify_all()

    def after_fork_in_child(self) -> None:
        """Leave the parent's connections alone: a forked child must not even close them."""
        self._reset_gate()
        self._idle.clear()
        self.engine.dispose(close=False)
        self.dialect.forget_after_fork()
        if self.after_fork is not None:
            self.after_fork()

    @contextmanager
    def _begun(self, pool_ids: Sequence[int], timeout_s: float) -> Iterator[Connection]:
        with self._lent() as connection:
            try:
                # Inside: what begin took before an interrupt must be given back as well.
                self.dialect.begin(connection, pool_ids=pool_ids, timeout_s=timeout_s)
                yield connection
            finally:
                try:
                    self.dialect.rollback(connection)
                finally:
                    try:
                        self.dialect.end()
                    except BaseException:  # an interrupt must not leave the store locked
                        self.dialect.end()
                        raise

    @contextmanager
    def _lent(self) -> Iterator[Connection]:
        """Lend a connection that is kept at hand: a checkout costs as much as a short query.

        One that saw an error is closed instead of kept.
        """
        with self._entered():
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self.engine.connect()
            try:
                yield connection
            except BaseException:
                _discard(connection)
                raise
            if self._closed:
                _discard(connection)  # the pool that would close it is gone
            elif len(self._idle) >= _IDLE_MAX:
                connection.close()
            else:
                self._idle.append(connection)

    def _drop_idle(self) -> None:
        while self._idle:
            _discard(self._idle.pop())

    @contextmanager
    def _entered(self) -> Iterator[None]:
        if self._closed:
            raise LedgerUnavailableError(f"the ledger at {self.url} is closed; open it again")
        with self._gate:
            self._gate.wait_for(lambda: not self._forking)
            self._lent_out += 1
        try:
            yield
        finally:
            with self._gate:
                self._lent_out -= 1
                if self._forking:
                    self._gate.notify_all()

    def _reset_gate(self) -> None:
        self._gate = threading.Condition(threading.Lock())
        self._lent_out = 0
        self._forking = False

    def _failure(self, error: Exception) -> Failure:
        if isinstance(error, RolledBackError | PoolTimeoutError):
            return Failure.BUSY
        if isinstance(error, OSError):
            return Failure.BUSY if isinstance(error, TimeoutError) else Failure.UNAVAILABLE
        failure = self.dialect.failure(error)
        if failure is Failure.LOST:
            # What took this connection away took the idle ones as well.
            self._drop_idle()
            self.engine.dispose()
        return failure

    def _worth_another(self, error: Exception, failure: Failure, attempts: int) -> bool:
        if failure is Failure.LOST:
            # A pooled connection may have died of old age; one that cannot even be made has not.
            fresh = isinstance(error, DBAPIError) and error.statement is None
            return attempts == 1 and not fresh
        return failure is Failure.BUSY

    def _refused(self, error: Exception, failure: Failure, attempts: int) -> StoreError:
        if failure is Failure.BUSY:
            return ContentionError(timeout_s=self.timeout_s, attempts=attempts)
        text = without_secrets(self.dialect.hint(error), self.dialect.url)
        if failure is Failure.DISCARDED:
            return RowsDiscardedError()
        if failure is Failure.FOREIGN:
            return NotALedgerError(text)
        return LedgerUnavailableError(text)


def _discard(connection: Connection) -> None:
    """Close the driver's connection itself, not only give it back."""
    connection.invalidate()
    connection.close()


def _pause_s(attempts: int) -> float:
    ceiling = min(_PAUSE_MAX_S, _PAUSE_MIN_S * 2 ** min(attempts, 10))
    return random.uniform(0, ceiling)  # noqa: S311 - jitter, not a secret


_open_databases: weakref.WeakSet[Database] = weakref.WeakSet()


def _for_each(method: Callable[[Database], None]) -> Callable[[], None]:
    def call() -> None:
        for database in list(_open_databases):
            method(database)

    return call


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_for_each(Database.before_fork),
        after_in_parent=_for_each(Database.after_fork_in_parent),
        after_in_child=_for_each(Database.after_fork_in_child),
    )
