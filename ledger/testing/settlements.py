"""What is recorded: real spend, all of it, once."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from ledger import (
    I64_MAX,
    U64_MAX,
    BudgetLease,
    Remaining,
    RequestBudget,
    RequestBudgetExceededError,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
)
from ledger.testing.calls import (
    EACH_AXIS,
    EXTENSIONS,
    UNLIMITED,
    Make,
    left_on,
    on,
    pool_on,
    tokens,
)


class SettlementContract:
    """What is recorded: real spend, all of it, once."""

    def test_a_lease_may_be_settled_with_nothing(self, make: Make) -> None:
        """All of the hold goes back."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=10))
        lease = budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
        budget.record_used(lease, Usage.zero())
        assert Remaining(10, U64_MAX, False) == budget.remaining(EXTENSIONS)

    @pytest.mark.parametrize(
        ("used", "remaining"),
        [(40, 60), (41, 59), (100, 0), (101, 0), (I64_MAX, 0)],
    )
    def test_spend_is_never_refused(self, make: Make, used: int, remaining: int) -> None:
        """More than was estimated, and more than the pool holds, is committed."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
        lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
        budget.record_used(lease, Usage(total_tokens=used))
        assert remaining == budget.remaining(EXTENSIONS).tokens

    def test_an_overspent_pool_stays_overspent(self, make: Make) -> None:
        """What was spent over the capacity is not forgotten when a reservation goes back."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
        first, second = (budget.reserve(EXTENSIONS, tokens(50), UNLIMITED) for _ in range(2))
        budget.record_used(first, Usage(total_tokens=130))
        assert 0 == budget.remaining(EXTENSIONS).tokens
        budget.record_used(second, Usage(total_tokens=0))
        assert 0 == budget.remaining(EXTENSIONS).tokens
        with pytest.raises(ThresholdExceededError) as denied:
            budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        assert (1, 0) == (denied.value.requested_tokens, denied.value.remaining_tokens)

    def test_usage_over_the_request_budget_is_recorded_before_it_is_reported(
        self, make: Make
    ) -> None:
        """The error comes after the settlement, which ends the lease."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=1_000))
        lease = budget.reserve(EXTENSIONS, tokens(50), RequestBudget.from_tokens(50))
        with pytest.raises(RequestBudgetExceededError) as exceeded:
            budget.record_used(lease, Usage(total_tokens=70, cost_micros_usd=8))
        assert (70, 8, 50, None) == (
            exceeded.value.requested_tokens,
            exceeded.value.requested_cost_micros_usd,
            exceeded.value.budget_tokens,
            exceeded.value.budget_cost_micros_usd,
        )
        assert 930 == budget.remaining(EXTENSIONS).tokens
        with pytest.raises(UnknownLeaseError):
            budget.record_used(lease, Usage(total_tokens=70))
        assert 930 == budget.remaining(EXTENSIONS).tokens

    @EACH_AXIS
    def test_usage_at_the_request_budget_is_fine(self, make: Make, axis: str) -> None:
        """The limit itself is allowed at the settlement too."""
        budget = make(SharedPoolBudgetOptions())
        lease = budget.reserve(EXTENSIONS, UsageEstimate.zero(), RequestBudget(**{axis: 50}))
        budget.record_used(lease, Usage(**on(axis, 50)))
        lease = budget.reserve(EXTENSIONS, UsageEstimate.zero(), RequestBudget(**{axis: 50}))
        with pytest.raises(RequestBudgetExceededError):
            budget.record_used(lease, Usage(**on(axis, 51)))
        assert U64_MAX - 101 == left_on(axis, budget.remaining(EXTENSIONS))

    def test_a_lease_is_settled_once(self, make: Make) -> None:
        """The second time it is unknown, whatever the usage, and nothing changes."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
        lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
        other = budget.reserve(EXTENSIONS, tokens(7), UNLIMITED)
        budget.record_used(lease, Usage(total_tokens=10))
        for again in (Usage(total_tokens=10), Usage.zero()):
            with pytest.raises(UnknownLeaseError) as unknown:
                budget.record_used(lease, again)
            assert lease.id == unknown.value.lease_id
        assert 83 == budget.remaining(EXTENSIONS).tokens
        budget.record_used(other, Usage.zero())
        assert 90 == budget.remaining(EXTENSIONS).tokens

    def test_that_a_lease_has_ended_is_said_before_that_usage_is_over_its_limit(
        self, make: Make
    ) -> None:
        """Of two reasons the first counts: nothing is recorded."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
        lease = budget.reserve(EXTENSIONS, tokens(5), RequestBudget.from_tokens(5))
        budget.record_used(lease, Usage(total_tokens=5))
        with pytest.raises(UnknownLeaseError):
            budget.record_used(lease, Usage(total_tokens=50))
        assert 95 == budget.remaining(EXTENSIONS).tokens

    @EACH_AXIS
    def test_a_total_that_leaves_the_range_stops_at_its_end(self, make: Make, axis: str) -> None:
        """Spend is recorded, although the sum is more than can be held; nothing comes back."""
        budget = make(pool_on(axis, I64_MAX))
        for _ in range(3):
            lease = budget.reserve(EXTENSIONS, UsageEstimate.zero(), UNLIMITED)
            budget.record_used(lease, Usage(**on(axis, I64_MAX)))
            assert 0 == left_on(axis, budget.remaining(EXTENSIONS))

    def test_leases_end_in_any_order(self, make: Make) -> None:
        """Each gives back its own hold."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
        leases = [
            budget.reserve(EXTENSIONS, tokens(amount), UNLIMITED) for amount in (1, 20, 30, 4)
        ]
        assert 4 == len({lease.id for lease in leases})
        expected = 45
        for lease in (leases[2], leases[0], leases[3], leases[1]):
            budget.record_used(lease, Usage(total_tokens=1))
            expected += lease.reserved.total_tokens - 1
            assert expected == budget.remaining(EXTENSIONS).tokens

    @pytest.mark.parametrize("lease_id", [0, -1, 2, 999, I64_MAX, I64_MAX + 1, 2**64, -(2**64)])
    def test_an_id_that_was_never_granted_is_unknown(self, make: Make, lease_id: int) -> None:
        """Zero, negative and huge ids too; the error carries the id and nothing changes."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
        granted = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
        if granted.id == lease_id:
            lease_id += 1
        with pytest.raises(UnknownLeaseError) as unknown:
            budget.record_used(replace(granted, id=lease_id), Usage(total_tokens=1))
        assert lease_id == unknown.value.lease_id
        assert 60 == budget.remaining(EXTENSIONS).tokens

    def test_the_pool_s_opening_is_no_lease(self, make: Make) -> None:
        """No entry but a reservation can be settled, although entries and leases share numbers."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
        lease = BudgetLease(
            id=1,
            reserved=tokens(1),
            request_budget=UNLIMITED,
            pool=getattr(budget, "identity", None),
        )
        with pytest.raises(UnknownLeaseError):
            budget.record_used(lease, Usage(total_tokens=1))
        assert 100 == budget.remaining(EXTENSIONS).tokens

    def test_a_lease_of_another_pool_is_unknown(self, make: Make) -> None:
        """It was not granted here: nothing is written here, and it stays open there."""
        here = make(SharedPoolBudgetOptions(capacity_tokens=100))
        there = make(SharedPoolBudgetOptions(capacity_tokens=100))
        there.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        lease = there.reserve(EXTENSIONS, tokens(40), UNLIMITED)
        here.reserve(EXTENSIONS, tokens(5), UNLIMITED)
        with pytest.raises(UnknownLeaseError):
            here.record_used(lease, Usage(total_tokens=30))
        assert (95, 59) == (here.remaining(EXTENSIONS).tokens, there.remaining(EXTENSIONS).tokens)
        there.record_used(lease, Usage(total_tokens=30))
        assert 69 == there.remaining(EXTENSIONS).tokens

    @pytest.mark.parametrize("identity", [UUID(int=0), UUID(int=2**127)])
    def test_a_lease_that_names_another_pool_is_unknown(self, make: Make, identity: UUID) -> None:
        """The number alone does not make a lease: an id of this manager under another identity."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
        lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
        with pytest.raises(UnknownLeaseError):
            budget.record_used(replace(lease, pool=identity), Usage(total_tokens=30))
        assert 60 == budget.remaining(EXTENSIONS).tokens

    def test_the_stored_values_win_over_a_forged_lease(self, make: Make) -> None:
        """Neither a larger limit nor another reservation in the caller's hands is believed."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
        lease = budget.reserve(EXTENSIONS, tokens(40), RequestBudget.from_tokens(45))
        forged = replace(lease, reserved=tokens(99), request_budget=RequestBudget.from_tokens(90))
        with pytest.raises(RequestBudgetExceededError) as exceeded:
            budget.record_used(forged, Usage(total_tokens=50))
        assert (50, 45) == (exceeded.value.requested_tokens, exceeded.value.budget_tokens)
        assert 50 == budget.remaining(EXTENSIONS).tokens

    def test_a_smaller_forged_limit_is_not_believed_either(self, make: Make) -> None:
        """What was granted is what counts."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
        lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
        forged = replace(lease, reserved=tokens(0), request_budget=RequestBudget.from_tokens(0))
        budget.record_used(forged, Usage(total_tokens=50))
        assert 50 == budget.remaining(EXTENSIONS).tokens
