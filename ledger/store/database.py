"""The database of a store: serializable transactions, with bounded retries and deadlines."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ledger.core.errors import (
    ContentionError,
    LedgerUnavailableError,
    NotALedgerError,
    NotPermittedError,
    RowsDiscardedError,
    StoreError,
)
from ledger.store.connections import Connections
from ledger.store.dialects import (
    Failure,
    FileChangedError,
    RolledBackError,
    dialect_for,
)
from ledger.store.dialects.addresses import without_secrets
from ledger.store.dialects.base import ROUND_TRIP_S
from ledger.store.dialects.expressions import LOGIN_ROLE
from ledger.store.statements import Prepared, rows_of_each

T = TypeVar("T")

_log = logging.getLogger(__name__)

_LEAST_S = 0.001
"""The least time, in seconds, that a read gets once it has a connection."""
_PAUSE_MIN_S = 0.001
_PAUSE_MAX_S = 0.1
_PAUSE_LOST_MAX_S = 0.5  # the server cannot be reached

_began_s: ContextVar[float | None] = ContextVar("began_s", default=None)
"""When the call that this thread is about to make began, if it has waited since."""


def begun(began_s: float, call: Callable[[], T]) -> T:
    """Make a call that has waited for a thread, with a deadline counted from when it began.

    It needs a context of its own, as `asyncio.to_thread` gives it.
    """
    _began_s.set(began_s)
    return call()


@dataclass(slots=True)
class Tries:
    """The tries of one call: it runs again while that may help, until its deadline."""

    until_s: float = math.inf
    """The deadline, on the clock of `time.monotonic`."""
    number: int = 0
    """How many tries have begun."""
    lost: int = 0
    """How many tries ended with a lost connection."""
    busy: Exception | None = None
    """The error of an earlier try, if others kept the store busy."""


class Database(Connections):
    """One store, shared by threads."""

    def __init__(
        self, url: str, *, timeout_s: float, create: bool, read_only: bool = False
    ) -> None:
        dialect = dialect_for(url, timeout_s=timeout_s, read_only=read_only)
        super().__init__(dialect, timeout_s=timeout_s, create=create and not read_only)
        self.transactions = 0
        """About how many writing transactions were committed through this object."""
        self.retries = 0
        """About how often a writing transaction had to run again."""
        self.until_s = math.inf
        """The deadline for opening the store, on the clock of `time.monotonic`; then infinite."""
        self._held_up: tuple[float, str] | None = None
        self.errors: tuple[type[Exception], ...] = (
            DBAPIError,
            RolledBackError,
            FileChangedError,
            OSError,
            *self.dialect.driver_errors,
        )
        """The classes of errors that mean that the store did not do what it was asked."""
        self._unanswered: tuple[type[Exception], ...] = (LedgerUnavailableError, *self.errors)

    def close(self) -> None:
        """Close every connection, and log how many transactions were done."""
        if not self._closed:
            _log.info(
                "closed %s: %d transactions, %d repeated", self.url, self.transactions, self.retries
            )
        super().close()

    def reads(self) -> Reads:
        """Begin a call that reads, or that reads before it writes."""
        began_s = _began_s.get()
        if began_s is not None:
            _began_s.set(None)  # a call of many transactions has a deadline for each
        return Reads(self, time.monotonic() if began_s is None else began_s)

    def read_each(
        self, asked: Sequence[tuple[Prepared, Mapping[str, Any]]]
    ) -> list[list[dict[str, Any]]]:
        """Run several SELECTs for a report; see `Reads.read_each`."""
        return self.read(lambda connection: rows_of_each(connection, asked), serializable=False)

    def read(self, work: Callable[[Connection], T], *, serializable: bool = True) -> T:
        """Run `work` in a call of its own; see `Reads.read`.

        Args:
            work: Gets the connection.
            serializable: False for reports, which disturb no writer and have no deadline while the
                server works on them.
        """
        is_bounded = serializable or self.until_s < math.inf
        return self.reads().read(work, serializable=serializable, is_bounded=is_bounded)

    def retried(self, once: Callable[[Connection, float], T], deadline_s: float) -> T:
        """Run a read until it succeeds, or until its deadline; see `Reads`.

        Args:
            once: Gets the connection, and how many seconds are left.
            deadline_s: The deadline, on the clock of `time.monotonic`.
        """
        tries = Tries(deadline_s)

        def in_time(connection: Connection) -> T:
            # The wait for a free connection may have taken time.
            left_s = max(_LEAST_S, deadline_s - time.monotonic())
            if not self.dialect.read_only:  # a connection that writes notices changes by itself
                return once(connection, left_s)
            try:
                found = once(connection, left_s)
            except Exception:
                self.dialect.check_unchanged(connection)
                raise
            self.dialect.check_unchanged(connection)
            return found

        while True:
            tries.number += 1
            try:
                return self._lend(in_time, until_s=deadline_s)
            except self.errors as error:
                failure = self.failure_of(error)
                if not self.is_repeated("read", tries, error, failure):
                    raise self.refused(error, failure, tries) from error

    def mend(self) -> None:
        """Restore settings that a copy of a store may have lost, before it is written to.

        Raises:
            ContentionError: Others kept the store busy.
            LedgerUnavailableError: The store cannot be reached or written.
        """
        with self.named_errors(), self.connect() as connection:
            self.dialect.mend(connection)

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
        except self.errors as error:
            failure = self.failure_of(error)
            raise self.refused(error, failure, Tries(number=1)) from error

    def failure_of(self, error: Exception) -> Failure:
        """Return what one of `errors` means for the transaction that it came from."""
        if isinstance(error, RolledBackError):
            return Failure.BUSY
        if isinstance(error, FileChangedError):
            self._drop_idle()  # they read the file as it was
            return Failure.BUSY
        if isinstance(error, OSError):
            return Failure.BUSY if isinstance(error, TimeoutError) else Failure.UNAVAILABLE
        failure = self.dialect.failure(error)
        if failure is Failure.LOST:
            # The idle connections are probably lost for the same reason.
            self._drop_idle()
        return failure

    def is_repeated(
        self, what: str, tries: Tries, error: Exception, failure: Failure, *, surely: bool = False
    ) -> bool:
        """Pause before another try, if there is time for one and it may succeed; return whether so.

        Args:
            what: What is tried, for the log.
            tries: The tries so far; the last one failed.
            error: The error of the last try.
            failure: What the error means.
            surely: Whether another try is worth it whatever failed.
        """
        if time.monotonic() >= tries.until_s:
            return False
        if not surely and not self._is_worth_another(error, failure, tries.number):
            return False
        if failure is Failure.BUSY:
            tries.busy = error
        tries.lost += failure is Failure.LOST
        _pause(what, failure, tries, error)
        return True

    def _is_worth_another(self, error: Exception, failure: Failure, attempts: int) -> bool:
        if failure is Failure.LOST:
            # A pooled connection may have died while it was idle, so a retry may help. It does not
            # help if no new connection can be made.
            return attempts == 1 and not _is_fresh(error)
        return failure in {Failure.BUSY, Failure.ENDED}

    def refused(
        self,
        error: Exception,
        failure: Failure,
        tries: Tries,
        pool_ids: Sequence[int] | None = (),
    ) -> StoreError:
        """Return the error that callers get instead of one of `errors`.

        Args:
            error: The error.
            failure: What it means.
            tries: The tries so far. Queries that only explain the error end at most one round trip
                after their deadline.
            pool_ids: The pools that were to be locked; None for all pools.
        """
        now_s = time.monotonic()
        late = now_s >= tries.until_s
        if tries.busy is not None and late and failure is Failure.LOST and _is_fresh(error):
            # No time was left for a new connection, so the error says nothing about the server.
            error, failure = tries.busy, Failure.BUSY
        until_s = min(tries.until_s, now_s)
        if failure is Failure.BUSY:
            holder = self._find_holder(error, pool_ids, until_s)
            return ContentionError(timeout_s=self.timeout_s, attempts=tries.number, holder=holder)
        text = without_secrets(self.dialect.hint(error), self.dialect.url)
        if failure is Failure.FORBIDDEN:
            return NotPermittedError(role=self._role(until_s), operation="do this", reason=text)
        if failure is Failure.DISCARDED:
            return RowsDiscardedError()
        if failure is Failure.FOREIGN:
            return NotALedgerError(text)
        return LedgerUnavailableError(text)

    def _find_holder(
        self, error: Exception, pool_ids: Sequence[int] | None, until_s: float
    ) -> str | None:
        """Return who holds the lock that the call waited for in vain, None if unknown."""
        try:
            lend = partial(self._lend_soon, until_s=until_s)
            holder = self.dialect.holder(error, pool_ids, lend)
        except self._unanswered:  # the name only makes the error more helpful
            return None
        if holder is not None:
            self._held_up = time.monotonic(), holder
        return holder

    def _lend_soon(self, work: Callable[[Connection], T], *, until_s: float) -> T:
        """Lend a connection for a query that explains an error, which may take one round trip."""

        def soon(connection: Connection) -> T:
            self.dialect.expect_answers(connection, until_s)
            return work(connection)

        return self._lend(soon, until_s=until_s + ROUND_TRIP_S)

    def _role(self, until_s: float) -> str | None:
        """Return the role that the database refused, None if unknown."""
        try:
            (found,) = self._lend_soon(
                lambda connection: LOGIN_ROLE.rows(connection, {}), until_s=until_s
            )
        except self._unanswered:  # as above; the role may not even be allowed to log in
            return None
        role: str | None = found["role"]
        return role

    def last_holder(self) -> str | None:
        """Return the last known holder of the lock, if a call found it within `timeout_s`."""
        seen = self._held_up
        if seen is None or time.monotonic() - seen[0] > self.timeout_s:
            return None
        return seen[1]


class Reads:
    """The reads of one call, which share its deadline."""

    def __init__(self, database: Database, began_s: float) -> None:
        """Read nothing yet.

        Args:
            database: The store.
            began_s: When the call began, on the clock of `time.monotonic`.
        """
        self._database = database
        self.began_s = began_s
        self._until_s = min(began_s + database.timeout_s, database.until_s)

    def read_rows(
        self, statement: Prepared, parameters: Mapping[str, int | None]
    ) -> list[dict[str, Any]]:
        """Run one SELECT in a serializable transaction of its own, in one round trip.

        Raises:
            ContentionError: The snapshot kept clashing with writers until the deadline.
            LedgerUnavailableError: The store cannot be reached or read.
        """
        read_alone = self._database.dialect.read_alone
        return self._database.retried(
            lambda connection, left_s: read_alone(
                connection, statement, parameters, timeout_s=left_s
            ),
            self._until_s,
        )

    def read_each(
        self, asked: Sequence[tuple[Prepared, Mapping[str, Any]]]
    ) -> list[list[dict[str, Any]]]:
        """Run several SELECTs of entries, which never change, and return the rows of each.

        Raises:
            LedgerUnavailableError: The store cannot be reached or read.
        """
        return self.read(lambda connection: rows_of_each(connection, asked), serializable=False)

    def read(
        self,
        work: Callable[[Connection], T],
        *,
        serializable: bool = True,
        is_bounded: bool = True,
    ) -> T:
        """Run `work` in a read-only transaction on one snapshot.

        Args:
            work: Gets the connection.
            serializable: Whether the transaction is serializable, or only reads one snapshot.
            is_bounded: False for reports, on which the server may work past the deadline.

        Raises:
            ContentionError: The snapshot kept clashing with writers until the deadline.
            LedgerUnavailableError: The store cannot be reached or read.
            NotALedgerError: The file is not a database.
        """
        dialect = self._database.dialect

        def once(connection: Connection, left_s: float) -> T:
            timeout_s = left_s if is_bounded else None
            dialect.begin_read(connection, serializable=serializable, timeout_s=timeout_s)
            found = work(connection)
            dialect.rollback(connection)
            return found

        return self._database.retried(once, self._until_s)


def _is_fresh(error: Exception) -> bool:
    """Tell whether the error means that no new connection could be made."""
    return isinstance(error, DBAPIError) and error.statement is None


def _pause(what: str, failure: Failure, tries: Tries, error: Exception) -> None:
    """Pause before a repetition, and log the error's class, since its text may hold secrets.

    A lost COMMIT is looked up until the deadline, so only the 1st, 2nd, 4th, ... loss is logged.
    """
    name = type(error.__cause__ or error).__name__
    if failure is not Failure.LOST:
        _log.debug("clash with others (%s): repeating a %s, attempt %d", name, what, tries.number)
    elif tries.lost & (tries.lost - 1) == 0:
        _log.warning("connection lost (%s): repeating a %s, attempt %d", name, what, tries.number)
    longest_s = _PAUSE_LOST_MAX_S if failure is Failure.LOST else _PAUSE_MAX_S
    ceiling = min(longest_s, _PAUSE_MIN_S * 2 ** min(tries.number, 10))
    left_s = max(0.0, tries.until_s - time.monotonic())
    time.sleep(random.uniform(0, min(ceiling, left_s)))  # noqa: S311 - jitter, not a secret
