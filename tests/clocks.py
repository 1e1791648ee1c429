"""A clock for tests, in place of the store's."""

from __future__ import annotations


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
