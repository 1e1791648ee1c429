"""What a reservation is granted, what it is denied, and in which order that is decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ledger import (
    I64_MAX,
    U64_MAX,
    BudgetLease,
    InvalidInputError,
    Remaining,
    RequestBudget,
    RequestBudgetExceededError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Unpriced,
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

NOTHING_LEFT = Remaining(0, 0, True)


class ReservationContract:
    """What a reservation is granted, what it is denied, and in which order that is decided."""

    def test_a_new_pool_has_its_capacity(self, make: Make) -> None:
        """Nothing is committed or reserved at first, and leases have positive ids."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=7, capacity_cost_micros_usd=9))
        assert Remaining(7, 9, False) == budget.remaining(EXTENSIONS)
        estimate = UsageEstimate(total_tokens=1, cost_micros_usd=1)
        lease = budget.reserve(EXTENSIONS, estimate, RequestBudget.from_tokens(5))
        assert lease.id > 0
        assert (estimate, RequestBudget.from_tokens(5)) == (lease.reserved, lease.request_budget)

    def test_reserve_holds_and_settlement_commits_what_was_used(self, make: Make) -> None:
        """A reservation lowers what remains; its settlement gives back what was not used."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=1_000, capacity_cost_micros_usd=500))
        lease = budget.reserve(
            EXTENSIONS, UsageEstimate(total_tokens=400, cost_micros_usd=100), UNLIMITED
        )
        assert Remaining(600, 400, False) == budget.remaining(EXTENSIONS)
        budget.record_used(lease, Usage(total_tokens=250, cost_micros_usd=70))
        assert Remaining(750, 430, False) == budget.remaining(EXTENSIONS)

    def test_only_totals_and_cost_count(self, make: Make) -> None:
        """Input, output, cache and reasoning tokens are parts of the total, not added to it."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=10, capacity_cost_micros_usd=10))
        lease = budget.reserve(
            RequestExtensions(Unpriced.FLAG),  # without it, such an estimate may be refused
            UsageEstimate(input_tokens=99, output_tokens=99),
            RequestBudget.with_limits(0, 0),
        )
        assert Remaining(10, 10, False) == budget.remaining(EXTENSIONS)
        used = Usage(
            input_tokens=99,
            output_tokens=99,
            cache_creation_tokens=99,
            cache_read_tokens=99,
            reasoning_tokens=99,
        )
        budget.record_used(lease, used)
        assert Remaining(10, 10, False) == budget.remaining(EXTENSIONS)

    def test_a_denial_says_what_was_asked_and_what_remained(self, make: Make) -> None:
        """A denied call carries its figures and changes no balance."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=100, stop_threshold_tokens=20))
        budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=30, cost_micros_usd=5), UNLIMITED)
        with pytest.raises(ThresholdExceededError) as denied:
            budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=51, cost_micros_usd=6), UNLIMITED)
        assert (51, 6, 70, U64_MAX - 5) == (
            denied.value.requested_tokens,
            denied.value.requested_cost_micros_usd,
            denied.value.remaining_tokens,
            denied.value.remaining_cost_micros_usd,
        )
        assert Remaining(70, U64_MAX - 5, False) == budget.remaining(EXTENSIONS)
        budget.reserve(EXTENSIONS, tokens(50), UNLIMITED)
        assert Remaining(20, U64_MAX - 5, True) == budget.remaining(EXTENSIONS)

    @EACH_AXIS
    @pytest.mark.parametrize(
        ("capacity", "threshold", "asked", "admitted"),
        [
            (0, 0, 0, True),
            (0, 0, 1, False),
            (0, 1, 0, False),
            (100, 0, 100, True),
            (100, 0, 101, False),
            (100, 30, 70, True),
            (100, 30, 71, False),
            (100, 100, 0, True),
            (100, 100, 1, False),
            (100, 101, 0, False),
            (I64_MAX, 0, I64_MAX, True),
            (I64_MAX - 1, 0, I64_MAX, False),
            (I64_MAX, 1, I64_MAX, False),
            (I64_MAX, I64_MAX, 0, True),
            (I64_MAX, I64_MAX, 1, False),
            (U64_MAX, 0, I64_MAX, True),
            (U64_MAX, I64_MAX, I64_MAX, True),
        ],
    )
    def test_limits_are_hit_exactly(
        self, make: Make, axis: str, capacity: int, threshold: int, asked: int, *, admitted: bool
    ) -> None:
        """What would leave the threshold is admitted, one less is denied, on either axis."""
        budget = make(pool_on(axis, capacity, threshold))
        if admitted:
            budget.reserve(EXTENSIONS, UsageEstimate(**on(axis, asked)), UNLIMITED)
            expected = capacity - asked
        else:
            with pytest.raises(ThresholdExceededError):
                budget.reserve(EXTENSIONS, UsageEstimate(**on(axis, asked)), UNLIMITED)
            expected = capacity
        after = budget.remaining(EXTENSIONS)
        assert (expected, expected <= threshold) == (left_on(axis, after), after.below_threshold)

    @EACH_AXIS
    def test_below_threshold_is_at_or_below(self, make: Make, axis: str) -> None:
        """One above the threshold is not below it; at it is."""
        budget = make(pool_on(axis, 100, 30))
        budget.reserve(EXTENSIONS, UsageEstimate(**on(axis, 69)), UNLIMITED)
        assert not budget.remaining(EXTENSIONS).below_threshold
        budget.reserve(EXTENSIONS, UsageEstimate(**on(axis, 1)), UNLIMITED)
        assert budget.remaining(EXTENSIONS).below_threshold

    def test_either_axis_denies(self, make: Make) -> None:
        """A large rest on one axis does not help if the other axis is short."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=10, capacity_cost_micros_usd=10))
        for short in ({"total_tokens": 11}, {"cost_micros_usd": 11}):
            with pytest.raises(ThresholdExceededError):
                budget.reserve(EXTENSIONS, UsageEstimate(**short), UNLIMITED)
        assert Remaining(10, 10, False) == budget.remaining(EXTENSIONS)

    def test_the_request_s_own_budget_is_asked_before_the_pool(self, make: Make) -> None:
        """A request over both is told about its own limit, with every figure."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=5))
        with pytest.raises(RequestBudgetExceededError) as exceeded:
            budget.reserve(
                EXTENSIONS,
                UsageEstimate(total_tokens=11, cost_micros_usd=12),
                RequestBudget.with_limits(10, None),
            )
        assert (11, 12, 10, None) == (
            exceeded.value.requested_tokens,
            exceeded.value.requested_cost_micros_usd,
            exceeded.value.budget_tokens,
            exceeded.value.budget_cost_micros_usd,
        )
        assert Remaining(5, U64_MAX, False) == budget.remaining(EXTENSIONS)

    @EACH_AXIS
    @pytest.mark.parametrize(("limit", "asked", "admitted"), [(10, 10, True), (10, 11, False)])
    @pytest.mark.parametrize("scale", [0, I64_MAX - 11])
    def test_the_request_s_own_limit_is_allowed(
        self, make: Make, axis: str, limit: int, asked: int, scale: int, *, admitted: bool
    ) -> None:
        """An amount equal to the limit passes, one more does not, far up as well."""
        budget = make(SharedPoolBudgetOptions())
        limits = RequestBudget(**{axis: scale + limit})
        estimate = UsageEstimate(**on(axis, scale + asked))
        if admitted:
            budget.reserve(EXTENSIONS, estimate, limits)
        else:
            with pytest.raises(RequestBudgetExceededError):
                budget.reserve(EXTENSIONS, estimate, limits)
            assert Remaining(U64_MAX, U64_MAX, False) == budget.remaining(EXTENSIONS)

    def test_a_request_budget_of_0_admits_0(self, make: Make) -> None:
        """0 is a limit, not the absence of one."""
        budget = make(SharedPoolBudgetOptions())
        budget.reserve(EXTENSIONS, UsageEstimate.zero(), RequestBudget.with_limits(0, 0))
        with pytest.raises(RequestBudgetExceededError):
            budget.reserve(EXTENSIONS, tokens(1), RequestBudget.with_limits(0, 0))

    def test_a_zero_estimate_holds_nothing_and_commits_what_is_used(self, make: Make) -> None:
        """A call without an estimate reserves 0, in a full pool too; its usage still counts."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=10, capacity_cost_micros_usd=10))
        budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=10, cost_micros_usd=10), UNLIMITED)
        lease = budget.reserve(EXTENSIONS, UsageEstimate.zero(), UNLIMITED)
        assert NOTHING_LEFT == budget.remaining(EXTENSIONS)
        budget.record_used(lease, Usage(total_tokens=1))
        assert NOTHING_LEFT == budget.remaining(EXTENSIONS)

    def test_what_extensions_carry_changes_nothing_here(self, make: Make) -> None:
        """Types that a manager does not know are no error, and stay as they are."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=10))
        extensions = RequestExtensions("mine")
        extensions.push_fallback(RequestExtensions(b"older"))
        budget.reserve(extensions, tokens(4), UNLIMITED)
        assert Remaining(6, U64_MAX, False) == budget.remaining(extensions)
        assert budget.remaining(EXTENSIONS) == budget.remaining(extensions)
        assert ("mine", b"older") == (extensions.get(str), extensions.get(bytes))

    @EACH_AXIS
    def test_the_largest_amount_goes_through(self, make: Make, axis: str) -> None:
        """2^63-1 is reserved, given back and committed exactly, in a pool of that capacity."""
        budget = make(pool_on(axis, I64_MAX))
        limits = RequestBudget.with_limits(I64_MAX, I64_MAX)
        lease = budget.reserve(EXTENSIONS, UsageEstimate(**on(axis, I64_MAX)), limits)
        assert 0 == left_on(axis, budget.remaining(EXTENSIONS))
        budget.record_used(lease, Usage(**on(axis, I64_MAX - 1)))
        assert 1 == left_on(axis, budget.remaining(EXTENSIONS))
        lease = budget.reserve(EXTENSIONS, UsageEstimate(**on(axis, 1)), limits)
        budget.record_used(lease, Usage(**on(axis, 1)))
        assert 0 == left_on(axis, budget.remaining(EXTENSIONS))

    def test_an_unlimited_pool_behaves_as_2_to_the_64_minus_1(self, make: Make) -> None:
        """Its capacity is a number like any other: it goes down, and comes back."""
        budget = make(SharedPoolBudgetOptions())
        lease = budget.reserve(
            EXTENSIONS, UsageEstimate(total_tokens=I64_MAX, cost_micros_usd=1), UNLIMITED
        )
        assert Remaining(U64_MAX - I64_MAX, U64_MAX - 1, False) == budget.remaining(EXTENSIONS)
        budget.record_used(lease, Usage(total_tokens=I64_MAX))
        assert Remaining(U64_MAX - I64_MAX, U64_MAX, False) == budget.remaining(EXTENSIONS)

    @pytest.mark.parametrize(
        "call",
        [
            lambda budget, _: budget.reserve(None, tokens(1), UNLIMITED),
            lambda budget, _: budget.reserve(EXTENSIONS, 1, UNLIMITED),
            lambda budget, _: budget.reserve(EXTENSIONS, Usage(), UNLIMITED),
            lambda budget, _: budget.reserve(EXTENSIONS, tokens(1), None),
            lambda budget, lease: budget.record_used(lease.id, Usage()),
            lambda budget, lease: budget.record_used(lease, tokens(1)),
            lambda budget, lease: budget.record_used(lease, None),
        ],
    )
    def test_an_argument_of_another_type_is_refused(
        self, make: Make, call: Callable[[Any, BudgetLease], object]
    ) -> None:
        """A typed error, and nothing changes."""
        budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
        lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
        with pytest.raises(InvalidInputError):
            call(budget, lease)
        assert 60 == budget.remaining(EXTENSIONS).tokens
        budget.record_used(lease, Usage())
        assert 100 == budget.remaining(EXTENSIONS).tokens
