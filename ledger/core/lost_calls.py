"""What to book for a call if its lease turns out to be lost in a restore.

A finaliser, a task that is thrown away, or an unavailable store may leave the end of a lease in a
queue without a waiting caller. If the store then turns out to have no such lease any more, no
caller is left to book the usage. So the block that ends the lease states in advance what is to be
booked.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import NamedTuple

from ledger.core.contexts import Within
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


class BookedIfLost(Within[Callable[[], LostCall] | None]):
    """A block in which a lease is ended.

    Args:
        told: Returns what is booked if the lease is lost. It is called only if no caller waits for
            the end.
    """

    __slots__ = ()

    def __init__(self, told: Callable[[], LostCall]) -> None:
        super().__init__(_told, told)


def if_lost() -> LostCall | None:
    """Return what is booked if the lease that is being ended is lost; None for nothing."""
    told = _told.get(None)
    return None if told is None else told()
