"""A clock for tests, in place of the store's, and waits by the real one."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: int = 1_700_000_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        """Return the time."""
        return self.now

    def minutes(self, number: int) -> None:
        """Move on, or back."""
        self.now += number * 60_000_000


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds, 20 seconds at most."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.001)
