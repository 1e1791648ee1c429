"""One suite for every manager: memory, SQLite and PostgreSQL answer alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ledger import (
    BudgetManager,
    Ledger,
    Remaining,
    RequestBudget,
    RequestBudgetExceededError,
    RequestExtensions,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
)

Make = Callable[[SharedPoolBudgetOptions], BudgetManager]

EXTENSIONS = RequestExtensions()
UNLIMITED = RequestBudget.unlimited()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, new_store: Callable[..., str]) -> Iterator[Make]:
    """Return a function that makes a manager of each kind in turn."""
    if request.param == "memory":
        yield SharedPoolBudgetManager
        return
    with Ledger.open(new_store(request.param)) as book:
        yield lambda options: book.pool("pool", options)


def tokens(amount: int) -> UsageEstimate:
    """Return an estimate of tokens alone."""
    return UsageEstimate(total_tokens=amount)


def test_reserve_holds_and_settlement_commits_what_was_used(make: Make) -> None:
    """A reservation lowers what remains; its settlement gives back what was not used."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=1_000, capacity_cost_micros_usd=500))
    lease = budget.reserve(
        EXTENSIONS, UsageEstimate(total_tokens=400, cost_micros_usd=100), UNLIMITED
    )
    assert Remaining(600, 400, False) == budget.remaining(EXTENSIONS)
    budget.record_used(lease, Usage(total_tokens=250, cost_micros_usd=70))
    assert Remaining(750, 430, False) == budget.remaining(EXTENSIONS)


def test_a_denial_says_what_was_asked_and_what_remained(make: Make) -> None:
    """A denied call carries its figures and changes no balance."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=100, stop_threshold_tokens=20))
    budget.reserve(EXTENSIONS, tokens(30), UNLIMITED)
    with pytest.raises(ThresholdExceededError) as denied:
        budget.reserve(EXTENSIONS, tokens(51), UNLIMITED)
    assert (51, 70) == (denied.value.requested_tokens, denied.value.remaining_tokens)
    assert 70 == budget.remaining(EXTENSIONS).tokens
    budget.reserve(EXTENSIONS, tokens(50), UNLIMITED)
    assert Remaining(20, 2**64 - 1, True) == budget.remaining(EXTENSIONS)


def test_usage_over_the_request_budget_is_recorded_before_it_is_reported(make: Make) -> None:
    """Real spend is never refused: the error comes after the settlement, which ends the lease."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=1_000))
    lease = budget.reserve(EXTENSIONS, tokens(50), RequestBudget.from_tokens(50))
    with pytest.raises(RequestBudgetExceededError) as exceeded:
        budget.record_used(lease, Usage(total_tokens=70))
    assert (70, 50) == (exceeded.value.requested_tokens, exceeded.value.budget_tokens)
    assert 930 == budget.remaining(EXTENSIONS).tokens
    with pytest.raises(UnknownLeaseError):
        budget.record_used(lease, Usage(total_tokens=70))
    assert 930 == budget.remaining(EXTENSIONS).tokens
