"""What a call used whose lease is lost in a restore, told ahead by who ends the lease.

The end of a lease may be left in a queue without a caller: by a finaliser, by a task that is thrown
away, or while the store is away. Then nobody is there to book the call when it turns out that the
store has no such lease any more. So a block says ahead what is to be booked then.
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
        told: Returns what is booked if the lease is lost. It is asked where nobody waits for the
            end, and no more.
    """

    __slots__ = ()

    def __init__(self, told: Callable[[], LostCall]) -> None:
        super().__init__(_told, told)


def if_lost() -> LostCall | None:
    """Return what is booked if the lease is lost that is being ended here; None if nothing is."""
    told = _told.get(None)
    return None if told is None else told()
