"""A clock for tests, in place of the store's, and waits by the real one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from ledger import Ledger

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
MINUTE_US, HOUR_US, DAY_US = 60_000_000, 3_600_000_000, 86_400_000_000

LATE_S = 30.0
"""What should end soon has ended by then, on the slowest machine; what holds it up lasts longer."""


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: int = 1_700_000_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        """Return the time."""
        return self.now

    def minutes(self, number: int) -> None:
        """Move on, or back."""
        self.now += number * MINUTE_US


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + LATE_S
    while not condition():
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.001)


@contextmanager
def impatient(book: Ledger, timeout_s: float) -> Iterator[None]:
    """Let the calls of a ledger give up early inside this block, and only there.

    A slow machine may need longer for calls that are to succeed.
    """
    database, dialect = book._database, book._database.dialect
    usual_s = database.timeout_s
    database.timeout_s = dialect.timeout_s = timeout_s
    try:
        yield
    finally:
        database.timeout_s = dialect.timeout_s = usual_s
