"""Callers at the same time: no capacity is granted twice, and no spend is lost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import TypeVar

from ledger import (
    BudgetLease,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownLeaseError,
    Usage,
)
from ledger.testing.calls import EXTENSIONS, UNLIMITED, Make, tokens

CALLERS = 8
CALLS_EACH = 25
ADMITTED = CALLERS * CALLS_EACH // 2  # the pool has room for half of the calls

T = TypeVar("T")


@contextmanager
def _switching_often() -> Iterator[None]:
    """Let threads take turns as often as they can, so that a missing lock shows."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)


def _at_once(call: Callable[[], T]) -> list[T]:
    """Run a call in every thread, begun at the same time."""
    barrier = Barrier(CALLERS)

    def run(_number: int) -> T:
        barrier.wait(timeout=30)
        return call()

    with _switching_often(), ThreadPoolExecutor(CALLERS) as threads:
        return list(threads.map(run, range(CALLERS)))


class ConcurrencyContract:
    """Callers at the same time: no capacity is granted twice, and no spend is lost."""

    def test_callers_at_once_get_what_is_there_and_no_more(self, make: Make) -> None:
        """Of twice as many calls as fit, as many as fit are admitted, each under its own id."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=10 * ADMITTED))

        def call() -> list[BudgetLease]:
            granted = []
            for _ in range(CALLS_EACH):
                try:
                    lease = budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
                except ThresholdExceededError:
                    continue
                granted.append(lease)
                budget.record_used(lease, Usage(total_tokens=10))
            return granted

        leases = [lease for granted in _at_once(call) for lease in granted]
        assert ADMITTED == len(leases) == len({lease.id for lease in leases})
        assert 0 == budget.remaining(EXTENSIONS).tokens

    def test_a_lease_is_settled_once_by_callers_at_once(self, make: Make) -> None:
        """One of them commits its usage; to all others the lease is unknown."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
        lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)

        def settle() -> bool:
            try:
                budget.record_used(lease, Usage(total_tokens=30))
            except UnknownLeaseError:
                return False
            return True

        assert [True] == [settled for settled in _at_once(settle) if settled]
        assert 70 == budget.remaining(EXTENSIONS).tokens
