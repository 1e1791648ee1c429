"""Books in which every figure is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from ledger import (
    Attribution,
    BudgetLease,
    Ledger,
    OccurredAt,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
)

NOON = datetime(2024, 2, 29, 12, 0, 0, 250_000, tzinfo=UTC)

Call = Callable[..., BudgetLease]


@pytest.fixture
def noon() -> Callable[[int], datetime]:
    """Return a function that gives the time so many seconds after noon of one day."""
    return lambda seconds: NOON + timedelta(seconds=seconds)


@pytest.fixture
def audited(store_url: str) -> Iterator[Ledger]:
    """Return books that keep denials, on each database in turn."""
    with Ledger.open(store_url, record_denials=True) as opened:
        yield opened


@pytest.fixture
def call() -> Call:
    """Return a function that reserves, and settles if a usage is given."""

    def make(
        book: Ledger,
        pool: str,
        estimate: UsageEstimate,
        used: Usage | None = None,
        *,
        run: str | None = None,
        after_noon_s: int | None = None,
        limit: RequestBudget | None = None,
    ) -> BudgetLease:
        extensions = RequestExtensions()
        if run is not None:
            extensions.insert(Attribution(run_id=run))
        if after_noon_s is not None:
            extensions.insert(OccurredAt(NOON + timedelta(seconds=after_noon_s)))
        budget = book.pool(pool)
        lease = budget.reserve(extensions, estimate, limit or RequestBudget.unlimited())
        if used is not None:
            budget.record_used(lease, used)
        return lease

    return make


@pytest.fixture
def busy(audited: Ledger, call: Call) -> Ledger:
    """Return books with two runs, calls without a run, a denial, an open lease, two pools.

    ========== ===== ============== ================== ==================
    pool       run   seconds        estimate           used
    ========== ===== ============== ================== ==================
    team       one   10             100+50 = 150, 900  100+20 = 120, 700
    team       one   30             200+60 = 260, 800  200+90 = 290, 990
    team       two   20             10+5 = 15, 40      still open
    team       two   40             denied: 9,999
    team       -     50             1+1 = 2, 3         1+0 = 1, 1
    other      one   5              7+3 = 10, 20       7+2 = 9, 15
    ========== ===== ============== ================== ==================
    """
    audited.pool("team", SharedPoolBudgetOptions(capacity_tokens=5_000))
    audited.pool("other", SharedPoolBudgetOptions())
    call(audited, "team", estimate(100, 50, 900), used(100, 20, 700), run="one", after_noon_s=10)
    call(audited, "team", estimate(10, 5, 40), run="two", after_noon_s=20)
    call(audited, "team", estimate(200, 60, 800), used(200, 90, 990), run="one", after_noon_s=30)
    with pytest.raises(ThresholdExceededError):
        call(audited, "team", estimate(9_000, 999, 7), run="two", after_noon_s=40)
    call(audited, "team", estimate(1, 1, 3), used(1, 0, 1), after_noon_s=50)
    call(audited, "other", estimate(7, 3, 20), used(7, 2, 15), run="one", after_noon_s=5)
    return audited


def estimate(input_tokens: int, output_tokens: int, cost: int) -> UsageEstimate:
    """Return an estimate whose total is the sum of its parts."""
    return UsageEstimate(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=input_tokens + output_tokens,
        cost_micros_usd=cost,
    )


def used(input_tokens: int, output_tokens: int, cost: int) -> Usage:
    """Return a usage whose total is the sum of its parts."""
    return Usage.from_estimate(estimate(input_tokens, output_tokens, cost))
