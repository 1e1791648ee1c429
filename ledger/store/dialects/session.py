"""PostgreSQL sessions: connections that save round trips, and whose waits are bounded.

A statement is kept back if its answer is not needed yet, and sent in one message with the next one.
So BEGIN travels with a transaction's first read, and COMMIT with its last write: each of the two
is one round trip.

The server's own time-outs end a slow statement, and TCP's end a dead network. Neither helps against
a COMMIT that waits for its standby, a stopped server process, or a proxy that drops answers. So at
the deadline a session asks the server to cancel the statement: a COMMIT then ends at once, and its
locks are free. If no answer comes even then, the session stops waiting.

A report has no deadline while the server works on it. But a lost server, or a proxy that has lost a
connection, sends nothing. So now and then a session asks, on another connection, whether the server
still works on it.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Self, TypeVar

import psycopg
from psycopg import capabilities
from psycopg.pq import Escaping
from sqlalchemy.pool import ConnectionPoolEntry

from ledger.core.errors import RowsDiscardedError
from ledger.store.dialects.base import ROUND_TRIP_S
from ledger.store.dialects.functions import array_of

T = TypeVar("T")

_REPORT_S = 3_600.0
"""How many seconds each answer to a report or a migration may take."""

_LITERAL_ROWS = 8
"""The most rows for which one statement was measured to be quicker than COPY."""

_connecting = threading.local()
"""Its `until_s` is the time at which this thread gives up connecting, on the clock of
`time.monotonic`."""


class _HexDumper(psycopg.adapt.Dumper):
    """Writes bytes for COPY. Psycopg's own doubles a backslash by standard_conforming_strings."""

    oid = psycopg.adapters.types["bytea"].oid

    def dump(self, obj: bytes) -> bytes:
        """Return the bytes as PostgreSQL reads them."""
        return b"\\x" + obj.hex().encode()


class Session(psycopg.Connection[Any]):
    """A connection that holds statements back, and whose waits are bounded."""

    answers_until_s: float | None = None
    """When to cancel, on the clock of `time.monotonic`; None to wait while the server works."""
    silent_s = _REPORT_S
    """After how many seconds without an answer the server is asked whether it still works."""
    another: Callable[[float], Session] | None = None
    """Connects to the same server once more, until a time."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - psycopg's own
        super().__init__(*args, **options)
        self.cursor_factory = SessionCursor
        self._unsent: list[str] = []
        self._escape = Escaping(self.pgconn).escape_literal

    @classmethod
    def connect_until(cls, until_s: float, *args: Any, **options: Any) -> Self:  # noqa: ANN401 - psycopg's own
        """Return a new connection, made by a given time, to any of several hosts."""
        _connecting.until_s = until_s
        try:
            return cls.connect(*args, **options)
        finally:
            _connecting.until_s = math.inf

    @classmethod
    def connect(cls, *args: Any, **options: Any) -> Self:  # noqa: ANN401 - psycopg's own
        """Return a new connection."""
        made = super().connect(*args, **options)
        # Set only now, since a new connection takes over the adapters of its context.
        made.adapters.register_dumper(bytes, _HexDumper)
        return made

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> Generator[Any, Any, Self]:
        # The driver's time-out is in whole seconds, at least two, and for each host.
        until_s = getattr(_connecting, "until_s", math.inf)
        gen = super()._connect_gen(conninfo)
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if time.monotonic() > until_s:
                    raise psycopg.errors.ConnectionTimeout("connection timeout expired")
                wanted = gen.send(ready)
        except StopIteration as stop:
            made: Self = stop.value
            return made

    def cursor(self, name: str = "", **options: Any) -> Any:  # noqa: ANN401 - psycopg's own
        """Return a cursor; one with a name is the server's, and does not send held statements."""
        if name:
            self.flush()
        return super().cursor(name, **options)

    def later(self, *statements: str) -> None:
        """Send statements in front of the next one, or with `flush`."""
        self._unsent += statements

    def unsent(self) -> list[str]:
        """Return the statements that were held back, and forget them."""
        kept, self._unsent = self._unsent, []
        return kept

    def flush(self) -> None:
        """Send the statements that were held back."""
        if self._unsent:
            self.execute(";".join(self.unsent()))

    def literal(self, value: str | bytes | int | None) -> str:
        """Return a value as SQL text."""
        if value is None:
            return "NULL"
        if isinstance(value, int):
            # Negative numbers are quoted, since a cast binds closer than a minus sign.
            return str(int(value)) if value >= 0 else f"'{int(value)}'"
        if isinstance(value, bytes):
            # Written so that it means the same whatever standard_conforming_strings is.
            return f"E'\\\\x{value.hex()}'"
        return bytes(self._escape(value.encode())).decode()

    def insert(self, table: str, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert a few rows with the next message, such as COMMIT, many by COPY.

        COPY needs round trips of its own, but only a third of the server's time for each row.
        """
        if len(rows) <= _LITERAL_ROWS:
            self.later(f"SELECT {table}_write({self.literal(array_of(rows))})")
            return
        self.flush()
        cursor = self.cursor()
        with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        if cursor.rowcount != len(rows):
            raise RowsDiscardedError

    def wait(
        self, gen: Generator[Any, Any, T], interval: float = 0.1, timeout: float | None = None
    ) -> T:
        """Run one of psycopg's generators until it has its answer or the time is over.

        Raises:
            psycopg.OperationalError: The server did not answer, not even after it was asked to
                cancel. The connection is closed.
        """
        return super().wait(self._bounded(gen), interval=interval, timeout=timeout)

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        until_s = self.answers_until_s
        if until_s is not None:
            ask_s, end_s = until_s, until_s + ROUND_TRIP_S
        else:
            ask_s, end_s = self._asked_in(time.monotonic())
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                now_s = time.monotonic()
                if ready:
                    if until_s is None:
                        ask_s, end_s = self._asked_in(now_s)
                elif now_s > end_s:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the server does not answer")
                elif now_s > ask_s:
                    if until_s is not None:
                        self._ask_to_cancel(end_s - now_s)
                        ask_s = math.inf
                    elif self._is_worked_on(now_s + ROUND_TRIP_S):
                        ask_s = time.monotonic() + self.silent_s
                    else:  # its answer may be on its way
                        ask_s, end_s = math.inf, now_s + ROUND_TRIP_S
                wanted = gen.send(ready)
        except StopIteration as stop:
            answer: T = stop.value
            return answer

    def _asked_in(self, now_s: float) -> tuple[float, float]:
        """Return when the server is asked whether it works on a report, and until when."""
        return now_s + self.silent_s, now_s + _REPORT_S

    def _ask_to_cancel(self, timeout_s: float) -> None:
        # Before libpq 17 no time-out bounds the cancel request, and no other thread runs meanwhile.
        if capabilities.has_cancel_safe():
            with contextlib.suppress(psycopg.Error):
                self.cancel_safe(timeout=timeout_s)

    def _is_worked_on(self, until_s: float) -> bool:
        """Tell whether the server works on this session; True if it does not say.

        Sessions of a pooler have their own numbers, which the server does not know.
        """
        if self.another is None:
            return True
        try:
            other = self.another(until_s)
            other.answers_until_s = until_s - ROUND_TRIP_S
            try:
                asked = "SELECT state FROM pg_stat_activity WHERE pid = %s"
                found = other.execute(asked, [self.pgconn.backend_pid]).fetchone()
            finally:
                other.pgconn.finish()
        except psycopg.Error:
            return time.monotonic() < until_s
        return found is None or found[0] in {None, "active"}


class SessionCursor(psycopg.Cursor[Any]):
    """A cursor that first sends held statements, and then returns its own statement's result."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:  # noqa: ANN401 - psycopg's own
        """Run a statement. One without parameters is sent together with the held ones."""
        session: Any = self.connection
        ahead = session.unsent()
        if ahead and params is not None:
            super().execute(";".join(ahead))
        elif ahead:
            super().execute(";".join([*ahead, query]))
            for _ in ahead:
                self.nextset()
            return self
        return super().execute(query, params, **options)


def collect_warnings(connection: Session, record: ConnectionPoolEntry) -> None:
    """Keep the server's warnings in the connection's `info`, for `commit` to look at."""
    warnings: list[str] = []
    record.info["warnings"] = warnings

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        # A warning with a context comes from a trigger on rows sent in the same message.
        if diagnostic.severity_nonlocalized == "WARNING" and diagnostic.context is None:
            warnings.append(diagnostic.message_primary or "warning")

    connection.add_notice_handler(note)
