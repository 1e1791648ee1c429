"""PostgreSQL sessions: connections that save round trips and wait within bounds.

A statement is kept back if its answer is not needed yet, and sent in one message with the next one.
So BEGIN travels with a transaction's first read, and COMMIT with its last write: each of the two
is one round trip.

The server's own time-outs end a slow statement, and TCP's end a dead network. Neither helps
against a COMMIT that waits for its standby, a server process that is stopped, or a proxy that
swallows its answers. So at the deadline a session asks the server to cancel what it does: a COMMIT
then ends at once, and its locks are free. If that brings no answer either, it stops waiting.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from typing import Any, Self, TypeVar

import psycopg
from psycopg import capabilities
from psycopg.pq import Escaping
from sqlalchemy.pool import ConnectionPoolEntry

T = TypeVar("T")

_CANCEL_S = 1.0
"""How many seconds a session takes to ask the server to cancel, and as many it waits afterwards."""

_REPORT_S = 3_600.0
"""How many seconds each answer to a report, or a migration, may take."""


class _HexDumper(psycopg.adapt.Dumper):
    """Bytes as text of COPY. Psycopg's own doubles a backslash by standard_conforming_strings."""

    oid = psycopg.adapters.types["bytea"].oid

    def dump(self, obj: bytes) -> bytes:
        """Return the bytes as PostgreSQL reads them."""
        return b"\\x" + obj.hex().encode()


class Session(psycopg.Connection[Any]):
    """A connection that keeps statements back, and waits no longer than it was told to."""

    answers_until_s: float | None = None
    """When to cancel, on the clock of `time.monotonic`; None: an hour after each question."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - psycopg's own
        super().__init__(*args, **options)
        self.cursor_factory = SessionCursor
        self._unsent: list[str] = []
        self._escape = Escaping(self.pgconn).escape_literal

    @classmethod
    def connect(cls, *args: Any, **options: Any) -> Self:  # noqa: ANN401 - psycopg's own
        """Return a new connection."""
        made = super().connect(*args, **options)
        # Only now: a new connection takes over the adapters of its context.
        made.adapters.register_dumper(bytes, _HexDumper)
        return made

    def cursor(self, name: str = "", **options: Any) -> Any:  # noqa: ANN401 - psycopg's own
        """Return a cursor; one with a name is the server's, and sends nothing ahead by itself."""
        if name:
            self.flush()
        return super().cursor(name, **options)

    def later(self, *statements: str) -> None:
        """Send statements in front of the next one, or with `flush`."""
        self._unsent += statements

    def unsent(self) -> list[str]:
        """Return what was kept back, and keep it no longer."""
        kept, self._unsent = self._unsent, []
        return kept

    def flush(self) -> None:
        """Send what was kept back."""
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
            # Spelled so that it means the same whatever standard_conforming_strings says.
            return f"E'\\\\x{value.hex()}'"
        return bytes(self._escape(value.encode())).decode()

    def wait(
        self, gen: Generator[Any, Any, T], interval: float = 0.1, timeout: float | None = None
    ) -> T:
        """Run one of psycopg's generators until it has its answer, or the time is over.

        Raises:
            psycopg.OperationalError: The server did not answer, not even when it was asked to
                cancel; the connection is closed.
        """
        return super().wait(self._bounded(gen), interval=interval, timeout=timeout)

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        until_s = self.answers_until_s
        if until_s is None:
            until_s = time.monotonic() + _REPORT_S
        cancelled = False
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > until_s:
                    if cancelled:
                        self.pgconn.finish()
                        raise psycopg.OperationalError("the server does not answer")
                    self._ask_to_cancel()
                    cancelled, until_s = True, time.monotonic() + _CANCEL_S
                wanted = gen.send(ready)
        except StopIteration as stop:
            answer: T = stop.value
            return answer

    def _ask_to_cancel(self) -> None:
        # With a libpq before 17 no time-out bounds that, and no other thread runs meanwhile.
        if capabilities.has_cancel_safe():
            with contextlib.suppress(psycopg.Error):
                self.cancel_safe(timeout=_CANCEL_S)


class SessionCursor(psycopg.Cursor[Any]):
    """A cursor that sends what its session kept back, and stands at its own statement's result."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:  # noqa: ANN401 - psycopg's own
        """Run a statement; one without parameters travels with what was kept back."""
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
