"""Carved pools: the entries, in the pool above, of the lease that funds a carved pool.

The write path and the verifier both ask here, so that they cannot differ.
"""

from __future__ import annotations

from typing import TypeVar

from ledger.core.axes import AXES
from ledger.core.entries import Totals
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.values import Usage, UsageDifference, UsageEstimate

_Amounts = TypeVar("_Amounts", UsageEstimate, Usage, UsageDifference)


def funding(policy: SharedPoolBudgetOptions) -> tuple[UsageEstimate, int]:
    """Return the estimate and the requests that are reserved for a carved pool: its whole capacity.

    An axis without a limit holds nothing. At least one request is held, as by any lease.
    """
    held = Totals(*(axis.limit(policy) or 0 for axis in AXES))
    return _amounts(UsageEstimate, held), held.requests or 1


def spent_usage(spent: Totals) -> Usage:
    """Return what a carved pool had committed at its closing, as its lease's last usage."""
    return _amounts(Usage, spent)


def late_usage(usage: Usage | UsageDifference) -> UsageDifference:
    """Return usage after the closing as a correction states it: only the amounts that count."""
    return _amounts(UsageDifference, Totals.of(usage, requests=0))


def detail(pool: str, requests: int) -> dict[str, dict[str, str | int]]:
    """Return the detail of an entry of the lease: the pool it funds, and how many calls it adds."""
    return {"carving": {"pool": pool, "requests": requests}}


def late_reason(pool: str, kind: str) -> str:
    """Return the reason of a correction that a closed pool's late entry of this kind leads to."""
    return f"late {kind} in pool {pool!r}"


def _amounts(kind: type[_Amounts], totals: Totals) -> _Amounts:
    return kind(**{axis.amount: getattr(totals, axis.name) for axis in AXES if axis.amount})
