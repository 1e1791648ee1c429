"""What a call used whose lease is lost in a restore, told ahead by who ends the lease.

The end of a lease may be left in a queue without a caller: by a finaliser, by a task that is thrown
away, or while the store is away. Then nobody is there to book the call when it turns out that the
store has no such lease any more. So a block says ahead what is to be booked then.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import NamedTuple

from ledger.core.extensions import Attribution
from ledger.core.usage_reports import UsageReport
from ledger.core.values import BudgetLease, Usage, UsageEstimate


class LostCall(NamedTuple):
    """The arguments of `record_lost`, by their names and in their order."""

    lease: BudgetLease
    usage: Usage
    estimate: UsageEstimate | None
    attribution: Attribution | None
    report: UsageReport | None


_told: ContextVar[Callable[[], LostCall] | None] = ContextVar("what is booked if a lease is lost")


class BookedIfLost:
    """A block in which a lease is ended.

    Args:
        told: Returns what is booked if the lease is lost. It is asked where nobody waits for the
            end, and no more.
    """

    __slots__ = ("_before", "_told")

    def __init__(self, told: Callable[[], LostCall]) -> None:
        self._told = told

    def __enter__(self) -> None:
        self._before: Token[Callable[[], LostCall] | None] = _told.set(self._told)

    def __exit__(self, *error: object) -> None:
        with suppress(ValueError):  # a coroutine that is thrown away may end in another context
            _told.reset(self._before)


def if_lost() -> LostCall | None:
    """Return what is booked if the lease is lost that is being ended here; None if nothing is."""
    told = _told.get(None)
    return None if told is None else told()
