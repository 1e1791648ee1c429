"""An idempotency key makes a call happen once, whatever its outcome was."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ledger import (
    Attribution,
    EntryKind,
    IdempotencyConflictError,
    IdempotencyKey,
    Ledger,
    LedgerBudgetManager,
    OccurredAt,
    Provenance,
    RequestBudget,
    RequestBudgetExceededError,
    RequestExtensions,
    ThresholdExceededError,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
    UsageReport,
    from_micros,
)
from ledger.testing.calls import UNLIMITED, tokens
from tests.leases import OF_HUNDRED

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def keyed(key: str, *values: object) -> RequestExtensions:
    """Return extensions with a caller's key."""
    return RequestExtensions(IdempotencyKey(key), *values)


@pytest.fixture
def budget(shared_book: Ledger, fresh_name: str) -> LedgerBudgetManager:
    """Return a pool of 100 tokens, on each database in turn."""
    return shared_book.pool(fresh_name, OF_HUNDRED)


def test_a_repeated_reservation_returns_the_first_lease(
    shared_book: Ledger, budget: LedgerBudgetManager
) -> None:
    """The same key with the same arguments takes effect once, also through another manager."""
    first = budget.reserve(keyed("k"), tokens(40), RequestBudget.from_tokens(50))
    again = shared_book.pool(budget.name)
    assert first == budget.reserve(keyed("k"), tokens(40), RequestBudget.from_tokens(50))
    assert first == again.reserve(keyed("k"), tokens(40), RequestBudget.from_tokens(50))
    assert (60, 2) == (budget.remaining(RequestExtensions()).tokens, budget.status().seq)


def test_a_repeated_reservation_of_a_settled_lease_returns_it(budget: LedgerBudgetManager) -> None:
    """The answer is the first one, whatever became of the lease; settling it again is refused."""
    first = budget.reserve(keyed("k"), tokens(40), UNLIMITED)
    budget.record_used(first, Usage(total_tokens=40))
    assert first == budget.reserve(keyed("k"), tokens(40), UNLIMITED)
    with pytest.raises(UnknownLeaseError):
        budget.record_used(first, Usage(total_tokens=40))
    assert (60, 3) == (budget.remaining(RequestExtensions()).tokens, budget.status().seq)


@pytest.mark.parametrize(
    ("extensions", "estimate", "limits"),
    [
        (keyed("k", Attribution(run_id="r"), OccurredAt(NOW)), tokens(41), UNLIMITED),
        (
            keyed("k", Attribution(run_id="r"), OccurredAt(NOW)),
            UsageEstimate(total_tokens=40, input_tokens=1),
            UNLIMITED,
        ),
        (
            keyed("k", Attribution(run_id="r"), OccurredAt(NOW)),
            tokens(40),
            RequestBudget.from_tokens(99),
        ),
        (
            keyed("k", Attribution(run_id="r"), OccurredAt(NOW)),
            tokens(40),
            RequestBudget.from_cost_micros_usd(99),
        ),
        (keyed("k", Attribution(run_id="other"), OccurredAt(NOW)), tokens(40), UNLIMITED),
        (
            keyed("k", Attribution(run_id="r", request_id="q"), OccurredAt(NOW)),
            tokens(40),
            UNLIMITED,
        ),
        (
            keyed("k", Attribution(run_id="r", tags={"a": "b"}), OccurredAt(NOW)),
            tokens(40),
            UNLIMITED,
        ),
        (keyed("k", OccurredAt(NOW)), tokens(40), UNLIMITED),
        (keyed("k", Attribution(run_id="r")), tokens(40), UNLIMITED),
    ],
)
def test_a_key_with_other_arguments_is_a_conflict(
    budget: LedgerBudgetManager,
    extensions: RequestExtensions,
    estimate: UsageEstimate,
    limits: RequestBudget,
) -> None:
    """Every argument belongs to the call; the error names key and entry, nothing is written."""
    first = budget.reserve(
        keyed("k", Attribution(run_id="r"), OccurredAt(NOW)), tokens(40), UNLIMITED
    )
    with pytest.raises(IdempotencyConflictError) as conflict:
        budget.reserve(extensions, estimate, limits)
    assert ("k", first.id) == (conflict.value.idempotency_key, conflict.value.seq)
    assert (60, 2) == (budget.remaining(RequestExtensions()).tokens, budget.status().seq)


def test_a_key_belongs_to_its_pool(shared_book: Ledger, budget: LedgerBudgetManager) -> None:
    """Another pool may use the same one for another call."""
    other = shared_book.pool(f"{budget.name} 2", OF_HUNDRED)
    budget.reserve(keyed("k"), tokens(40), UNLIMITED)
    other.reserve(keyed("k"), tokens(50), UNLIMITED)
    assert 50 == other.remaining(RequestExtensions()).tokens


def test_keys_differ_by_every_character(budget: LedgerBudgetManager) -> None:
    """Case, blanks and accents count, and 255 characters fit."""
    keys = ["k", "K", "k ", "\u00e9", "e\u0301", "k" * 255]
    leases = [budget.reserve(keyed(key), tokens(1), UNLIMITED) for key in keys]
    assert len(keys) == len({lease.id for lease in leases})
    assert leases == [budget.reserve(keyed(key), tokens(1), UNLIMITED) for key in keys]


def test_a_denial_is_kept_under_the_caller_s_key(
    shared_book: Ledger, budget: LedgerBudgetManager
) -> None:
    """The answer to a keyed call stays the same, even when the pool could grant it now."""
    blocker = budget.reserve(RequestExtensions(), tokens(70), UNLIMITED)
    estimate = UsageEstimate(total_tokens=31, cost_micros_usd=8)
    with pytest.raises(ThresholdExceededError) as first:
        budget.reserve(keyed("k"), estimate, UNLIMITED)
    budget.record_used(blocker, Usage())
    with pytest.raises(ThresholdExceededError) as again:
        budget.reserve(keyed("k"), estimate, UNLIMITED)
    for denied in (first, again):
        assert (31, 8, 30, 2**64 - 1) == (
            denied.value.requested_tokens,
            denied.value.requested_cost_micros_usd,
            denied.value.remaining_tokens,
            denied.value.remaining_cost_micros_usd,
        )
        # It is a figure of then, and says so.
        denial = next(iter(shared_book.entries(budget.name, kind=EntryKind.DENIAL)))
        assert from_micros(denial.recorded_at) == denied.value.kept_since
        assert f"the answer of {denied.value.kept_since:%Y-%m-%d %H:%M:%S} UTC" in str(denied.value)
    kinds = [entry.kind for entry in shared_book.entries(budget.name)]
    assert [
        EntryKind.OPENING,
        EntryKind.RESERVATION,
        EntryKind.DENIAL,
        EntryKind.SETTLEMENT,
    ] == kinds
    budget.reserve(keyed("another"), tokens(31), UNLIMITED)
    assert 69 == budget.remaining(RequestExtensions()).tokens


def test_a_denial_by_the_request_s_own_budget_is_kept_too(budget: LedgerBudgetManager) -> None:
    """Its figures come back as they were."""
    for _ in range(2):
        with pytest.raises(RequestBudgetExceededError) as denied:
            budget.reserve(keyed("k"), tokens(31), RequestBudget.with_limits(30, 7))
        assert (31, 0, 30, 7) == (
            denied.value.requested_tokens,
            denied.value.requested_cost_micros_usd,
            denied.value.budget_tokens,
            denied.value.budget_cost_micros_usd,
        )
    assert 2 == budget.status().seq


def test_a_denied_key_with_other_arguments_is_a_conflict(budget: LedgerBudgetManager) -> None:
    """Asking for less is another call, and needs another key."""
    with pytest.raises(ThresholdExceededError):
        budget.reserve(keyed("k"), tokens(101), UNLIMITED)
    with pytest.raises(IdempotencyConflictError):
        budget.reserve(keyed("k"), tokens(1), UNLIMITED)
    assert 100 == budget.remaining(RequestExtensions()).tokens


def test_a_denial_without_a_key_is_not_kept(budget: LedgerBudgetManager) -> None:
    """Unless asked for, refusals leave no trace."""
    with pytest.raises(ThresholdExceededError) as denied:
        budget.reserve(RequestExtensions(), tokens(101), UNLIMITED)
    assert (None, 1) == (denied.value.kept_since, budget.status().seq)


def test_denials_are_recorded_on_request(store_url: str) -> None:
    """With `record_denials` every refusal is an entry with its figures, and moves no balance."""
    with Ledger.open(store_url, record_denials=True) as book:
        budget = book.pool("pool", OF_HUNDRED)
        run = RequestExtensions(Attribution(run_id="r", request_id="q"), OccurredAt(NOW))
        with pytest.raises(ThresholdExceededError):
            budget.reserve(run, tokens(101), UNLIMITED)
        with pytest.raises(RequestBudgetExceededError):
            budget.reserve(run, tokens(5), RequestBudget.from_tokens(4))
        opening, *denials = book.entries("pool")
        assert [EntryKind.DENIAL] * 2 == [entry.kind for entry in denials]
        assert [tokens(101), tokens(5)] == [entry.estimate for entry in denials]
        assert [(Attribution(run_id="r"), "q", NOW)] * 2 == [
            (entry.attribution, entry.request_id, entry.at) for entry in denials
        ]
        assert [opening.balance] * 2 == [entry.balance for entry in denials]
        assert [None] * 2 == [entry.lease for entry in denials]
        assert [] == list(book.open_leases("pool"))
        assert book.verify("pool")[0].ok


def test_a_repeated_settlement_changes_nothing(budget: LedgerBudgetManager) -> None:
    """The second time it simply succeeds, where without a key the lease would be unknown."""
    lease = budget.reserve(RequestExtensions(), tokens(40), UNLIMITED)
    report = UsageReport(idempotency_key="s", model="m", detail={"a": 1}, occurred_at=NOW)
    for _ in range(3):
        budget.record_used(lease, Usage(total_tokens=30), report=report)
    assert (70, 3) == (budget.remaining(RequestExtensions()).tokens, budget.status().seq)


def test_a_repeated_settlement_over_its_limit_says_so_again(budget: LedgerBudgetManager) -> None:
    """The error is part of the answer; the usage is recorded once."""
    lease = budget.reserve(RequestExtensions(), tokens(10), RequestBudget.from_tokens(10))
    for _ in range(2):
        with pytest.raises(RequestBudgetExceededError) as exceeded:
            budget.record_used(
                lease, Usage(total_tokens=30), report=UsageReport(idempotency_key="s")
            )
        assert (30, 10) == (exceeded.value.requested_tokens, exceeded.value.budget_tokens)
    assert (70, 3) == (budget.remaining(RequestExtensions()).tokens, budget.status().seq)


@pytest.mark.parametrize(
    ("usage", "report"),
    [
        (Usage(total_tokens=31), UsageReport(idempotency_key="s", model="m")),
        (Usage(total_tokens=30, reasoning_tokens=1), UsageReport(idempotency_key="s", model="m")),
        (Usage(total_tokens=30), UsageReport(idempotency_key="s")),
        (Usage(total_tokens=30), UsageReport(idempotency_key="s", model="other")),
        (Usage(total_tokens=30), UsageReport(idempotency_key="s", model="m", provider="p")),
        (Usage(total_tokens=30), UsageReport(idempotency_key="s", model="m", request_id="q")),
        (Usage(total_tokens=30), UsageReport(idempotency_key="s", model="m", tags={})),
        (Usage(total_tokens=30), UsageReport(idempotency_key="s", model="m", detail={})),
        (Usage(total_tokens=30), UsageReport(idempotency_key="s", model="m", occurred_at=NOW)),
        (
            Usage(total_tokens=30),
            UsageReport(idempotency_key="s", model="m", provenance=Provenance.UNKNOWN),
        ),
    ],
)
def test_a_settlement_s_key_with_other_arguments_is_a_conflict(
    budget: LedgerBudgetManager, usage: Usage, report: UsageReport
) -> None:
    """Usage and report belong to the call."""
    lease = budget.reserve(RequestExtensions(), tokens(40), UNLIMITED)
    first = UsageReport(idempotency_key="s", model="m")
    budget.record_used(lease, Usage(total_tokens=30), report=first)
    with pytest.raises(IdempotencyConflictError) as conflict:
        budget.record_used(lease, usage, report=report)
    assert ("s", 3) == (conflict.value.idempotency_key, conflict.value.seq)
    assert (70, 3) == (budget.remaining(RequestExtensions()).tokens, budget.status().seq)


def test_a_settlement_s_key_belongs_to_its_lease(budget: LedgerBudgetManager) -> None:
    """The same usage of another lease is another call; that lease stays open."""
    first, second = (budget.reserve(RequestExtensions(), tokens(40), UNLIMITED) for _ in range(2))
    report = UsageReport(idempotency_key="s")
    budget.record_used(first, Usage(total_tokens=30), report=report)
    with pytest.raises(IdempotencyConflictError):
        budget.record_used(second, Usage(total_tokens=30), report=report)
    assert second == budget.lease(second.token)


def test_a_reservation_s_key_is_no_settlement_s_key(budget: LedgerBudgetManager) -> None:
    """One key is one call, of whatever kind, both ways round."""
    lease = budget.reserve(keyed("k"), tokens(40), UNLIMITED)
    with pytest.raises(IdempotencyConflictError):
        budget.record_used(lease, Usage(), report=UsageReport(idempotency_key="k"))
    budget.record_used(lease, Usage(), report=UsageReport(idempotency_key="s"))
    with pytest.raises(IdempotencyConflictError):
        budget.reserve(keyed("s"), tokens(40), UNLIMITED)


def test_a_failed_settlement_leaves_its_key_free(budget: LedgerBudgetManager) -> None:
    """Where nothing was written there is nothing to repeat."""
    lease = budget.reserve(RequestExtensions(), tokens(40), UNLIMITED)
    budget.record_used(lease, Usage())
    report = UsageReport(idempotency_key="s")
    with pytest.raises(UnknownLeaseError):
        budget.record_used(lease, Usage(), report=report)
    other = budget.reserve(RequestExtensions(), tokens(40), UNLIMITED)
    budget.record_used(other, Usage(total_tokens=1), report=report)
    assert 99 == budget.remaining(RequestExtensions()).tokens
