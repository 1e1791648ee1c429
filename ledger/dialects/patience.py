"""A PostgreSQL connection that stops waiting for a server which has fallen silent.

The server's own time-outs end a slow statement, and TCP's end a dead network. Neither helps
against a server process that is stopped, or a proxy that swallows its answers.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")


class PatientConnection(psycopg.Connection[Any]):
    """Waits for each answer no longer than until a moment that is set before."""

    answers_until_s: float = float("inf")
    """When to give up, on the clock of `time.monotonic`."""

    def wait(
        self, gen: Generator[Any, Any, T], interval: float = 0.1, timeout: float | None = None
    ) -> T:
        """Run one of psycopg's generators until it has its answer, or the time is over.

        Raises:
            psycopg.OperationalError: The server did not answer; the connection is closed.
        """
        return super().wait(self._bounded(gen), interval=interval, timeout=timeout)

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > self.answers_until_s:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the server does not answer")
                wanted = gen.send(ready)
        except StopIteration as stop:
            answer: T = stop.value
            return answer
