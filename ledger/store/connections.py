"""The connection pool of one store: lends connections to calls, and closes them before a fork."""

from __future__ import annotations

import math
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import ArgumentError, SAWarning

from ledger.core.errors import InvalidUrlError, LedgerError, LedgerUnavailableError
from ledger.store.dialects import Dialect
from ledger.store.dialects.addresses import shown_address
from ledger.store.statements import driver_of

T = TypeVar("T")

_IDLE_MAX = 10
"""How many idle connections are kept, since opening one takes as long as a short query."""
_LENT_MAX = 30
"""How many connections are in use at the same time at most."""
_LOOK_S = 0.001
"""How many seconds a caller sleeps before it checks again whether a connection is free."""


class Loan:
    """One call's connection, from before it is taken until after it is given back.

    An interrupt may come at any point, also inside SQLAlchemy, which then forgets the driver's
    connection without ending its transaction. So the loan keeps the driver's connection itself.
    """

    writes = False
    """Whether `Dialect.end` must follow."""
    lent: Connection | None = None
    raw: Any = None
    """The driver's connection."""
    sound = False
    """Whether no transaction is open on the connection, and nothing went wrong with it."""
    thread = 0
    """The thread that took it."""
    until_s = math.inf
    """The deadline of the call, on the clock of `time.monotonic`."""


class Connections:
    """One store's connections, shared by threads."""

    def __init__(self, dialect: Dialect, *, timeout_s: float, create: bool) -> None:
        self.dialect = dialect
        self.timeout_s = timeout_s
        self.after_fork: Callable[[], None] | None = None
        self._closed = False
        # No lock guards these: each change is one step of the interpreter. So an interrupt or a
        # finaliser between two changes leaves nothing locked.
        self._lent: set[Loan] = set()
        self._forking = False
        self._idle: list[Connection] = []
        try:
            self.engine = dialect.create_engine(create=create)
        except LedgerError:
            raise
        except (ArgumentError, TypeError, ValueError, SAWarning):
            reason = "a parameter behind its ? has a value that the driver does not take"
            raise InvalidUrlError("url", f"{reason}; check {self.url}") from None
        _open_stores.add(self)

    @property
    def url(self) -> str:
        """The store's address, without its password."""
        return shown_address(self.dialect.url)

    def close(self) -> None:
        """Close every connection."""
        self._closed = True
        _open_stores.discard(self)
        self._drop_idle()
        self.engine.dispose()
        self.dialect.close()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Lend a connection. The caller translates the driver's errors; see `named_errors`."""
        loan = Loan()
        loan.until_s = time.monotonic() + self.timeout_s
        try:
            connection = self.take(loan)
            self.dialect.expect_answers(connection, None)
            yield connection
            try:
                connection.rollback()
            except AssertionError as error:
                # SQLAlchemy asserts in a `finally` that it has ended: that hides an interrupt.
                raise (error.__context__ or error) from None
            loan.sound = True
        finally:
            self._give_back_surely(loan)

    def before_fork(self) -> None:
        """Close every connection that a forked child could not use, once no thread uses it.

        SQLite keeps its locks in the memory of the process: a child that inherited an open
        connection would find its parent's locks there for ever.
        """
        if self.dialect.connections_survive_fork:
            return
        self._forking = True  # first, so that a new caller sees it or is counted
        deadline = time.monotonic() + self.timeout_s
        own = threading.get_ident()  # waiting cannot end this thread's own loans
        while any(loan.thread != own for loan in tuple(self._lent)):
            if time.monotonic() > deadline:
                break
            time.sleep(_LOOK_S)
        self._drop_idle()

    def after_fork_in_parent(self) -> None:
        """Let callers in again."""
        self._forking = False

    def after_fork_in_child(self) -> None:
        """Drop the parent's connections without closing them, which a forked child must not do."""
        self._lent = set()
        self._forking = False
        self._idle.clear()
        self.engine.dispose(close=False)
        self.dialect.forget_after_fork()
        if self.after_fork is not None:
            self.after_fork()

    def _lend(self, work: Callable[[Connection], T], *, until_s: float) -> T:
        """Run `work` on a connection. If it raises, a transaction that it left open is undone.

        Args:
            work: Gets the connection.
            until_s: Until when to wait for a connection, on the clock of `time.monotonic`.

        Raises:
            TimeoutError: All connections were in use until then.
        """
        loan = Loan()
        loan.until_s = until_s
        try:
            result = work(self.take(loan))
            loan.sound = True
            return result
        finally:
            # Written out and not in a context manager or a function, since an interrupt on entering
            # one would leave the connection lent. After an interrupt in the middle, this runs
            # again.
            try:
                self.give_back(loan)
            except BaseException:
                self.give_back(loan)
                raise

    def take(self, loan: Loan) -> Connection:
        """Return a connection for a loan, which holds it before any transaction begins.

        Raises:
            TimeoutError: All were in use, or a fork was under way, until the deadline.
            LedgerUnavailableError: The ledger is closed.
        """
        if self._closed:
            text = f"the ledger at {self.url} is closed; open it again"
            raise LedgerUnavailableError(text, closed=True)
        loan.thread = threading.get_ident()
        self._lent.add(loan)
        if self._forking or len(self._lent) > _LENT_MAX:
            self._wait_for_one(loan)
        try:
            loan.lent = connection = self._idle.pop()
        except IndexError:
            self.dialect.connect_until_s[loan.thread] = loan.until_s
            loan.lent = connection = self.engine.connect()
        loan.raw = driver_of(connection)
        return connection

    def _wait_for_one(self, loan: Loan) -> None:
        deadline = min(loan.until_s, time.monotonic() + self.timeout_s)
        while True:
            self._lent.discard(loan)
            if time.monotonic() > deadline:
                raise TimeoutError("every connection is in use")
            time.sleep(_LOOK_S * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
            self._lent.add(loan)
            if not self._forking and len(self._lent) <= _LENT_MAX:
                return

    def give_back(self, loan: Loan) -> None:
        """End what was begun on a connection, and keep or close it. It may be called again."""
        try:
            if loan.raw is not None and not loan.sound:
                self.dialect.undo(loan.raw)
        finally:
            if loan.writes:
                self.dialect.end()
        connection, loan.lent = loan.lent, None  # a connection must not be kept twice
        if connection is not None:
            if loan.sound and not self._closed and len(self._idle) < _IDLE_MAX:
                self._idle.append(connection)
                if self._closed:  # meanwhile
                    self._drop_idle()
            else:
                _discard(connection)
        self._lent.discard(loan)

    def _give_back_surely(self, loan: Loan) -> None:
        try:
            self.give_back(loan)
        except BaseException:
            self.give_back(loan)
            raise

    def _drop_idle(self) -> None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return
            _discard(connection)


def _discard(connection: Connection) -> None:
    """Close the driver's connection itself, and drop SQLAlchemy's wrapper around it."""
    connection.invalidate()


_open_stores: weakref.WeakSet[Connections] = weakref.WeakSet()


def _for_each(method: Callable[[Connections], None]) -> Callable[[], None]:
    def call() -> None:
        for store in list(_open_stores):
            method(store)

    return call


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_for_each(Connections.before_fork),
        after_in_parent=_for_each(Connections.after_fork_in_parent),
        after_in_child=_for_each(Connections.after_fork_in_child),
    )
