"""One suite for every manager: memory, SQLite and PostgreSQL answer alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from ledger import (
    I64_MAX,
    U64_MAX,
    BudgetLease,
    BudgetManager,
    InvalidInputError,
    Remaining,
    RequestBudget,
    RequestBudgetExceededError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
)

Make = Callable[..., BudgetManager]

EXTENSIONS = RequestExtensions()
UNLIMITED = RequestBudget.unlimited()
NOTHING_LEFT = Remaining(0, 0, True)


def tokens(amount: int) -> UsageEstimate:
    """Return an estimate of tokens alone."""
    return UsageEstimate(total_tokens=amount)


def on(axis: str, amount: int) -> dict[str, int]:
    """Return the amount on one axis, as an estimate's or a usage's field."""
    return {"total_tokens" if axis == "tokens" else "cost_micros_usd": amount}


def pool_on(axis: str, capacity: int, threshold: int = 0) -> SharedPoolBudgetOptions:
    """Return a policy that limits one axis alone."""
    name = "tokens" if axis == "tokens" else "cost_micros_usd"
    return SharedPoolBudgetOptions(
        **{f"capacity_{name}": capacity, f"stop_threshold_{name}": threshold}
    )


def left_on(axis: str, remaining: Remaining) -> int:
    """Return what remains on one axis."""
    return remaining.tokens if axis == "tokens" else remaining.cost_micros_usd


AXES = pytest.mark.parametrize("axis", ["tokens", "cost"])


def test_a_manager_keeps_the_protocol(make: Make) -> None:
    """Every manager is a `BudgetManager`."""
    assert isinstance(make(SharedPoolBudgetOptions()), BudgetManager)


def test_a_new_pool_has_its_capacity(make: Make) -> None:
    """Nothing is committed or reserved at first, and leases have positive ids."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=7, capacity_cost_micros_usd=9))
    assert Remaining(7, 9, False) == budget.remaining(EXTENSIONS)
    lease = budget.reserve(EXTENSIONS, tokens(1), RequestBudget.from_tokens(5))
    assert lease.id > 0
    assert (tokens(1), RequestBudget.from_tokens(5)) == (lease.reserved, lease.request_budget)


def test_reserve_holds_and_settlement_commits_what_was_used(make: Make) -> None:
    """A reservation lowers what remains; its settlement gives back what was not used."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=1_000, capacity_cost_micros_usd=500))
    lease = budget.reserve(
        EXTENSIONS, UsageEstimate(total_tokens=400, cost_micros_usd=100), UNLIMITED
    )
    assert Remaining(600, 400, False) == budget.remaining(EXTENSIONS)
    budget.record_used(lease, Usage(total_tokens=250, cost_micros_usd=70))
    assert Remaining(750, 430, False) == budget.remaining(EXTENSIONS)


def test_only_totals_and_cost_count(make: Make) -> None:
    """Input, output, cache and reasoning tokens are parts of the total, not added to it."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=10, capacity_cost_micros_usd=10))
    lease = budget.reserve(
        EXTENSIONS,
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


def test_a_denial_says_what_was_asked_and_what_remained(make: Make) -> None:
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


@AXES
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
    make: Make, axis: str, capacity: int, threshold: int, asked: int, *, admitted: bool
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


@AXES
def test_below_threshold_is_at_or_below(make: Make, axis: str) -> None:
    """One above the threshold is not below it; at it is."""
    budget = make(pool_on(axis, 100, 30))
    budget.reserve(EXTENSIONS, UsageEstimate(**on(axis, 69)), UNLIMITED)
    assert not budget.remaining(EXTENSIONS).below_threshold
    budget.reserve(EXTENSIONS, UsageEstimate(**on(axis, 1)), UNLIMITED)
    assert budget.remaining(EXTENSIONS).below_threshold


def test_either_axis_denies(make: Make) -> None:
    """Plenty of the one does not help where the other is short."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=10, capacity_cost_micros_usd=10))
    for short in ({"total_tokens": 11}, {"cost_micros_usd": 11}):
        with pytest.raises(ThresholdExceededError):
            budget.reserve(EXTENSIONS, UsageEstimate(**short), UNLIMITED)
    assert Remaining(10, 10, False) == budget.remaining(EXTENSIONS)


def test_the_request_s_own_budget_is_asked_before_the_pool(make: Make) -> None:
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


@AXES
@pytest.mark.parametrize(("limit", "asked", "admitted"), [(10, 10, True), (10, 11, False)])
@pytest.mark.parametrize("scale", [0, I64_MAX - 11])
def test_the_request_s_own_limit_is_allowed(
    make: Make, axis: str, limit: int, asked: int, scale: int, *, admitted: bool
) -> None:
    """An amount equal to the limit passes, one more does not, far up as well."""
    budget = make(SharedPoolBudgetOptions())
    name = "tokens" if axis == "tokens" else "cost_micros_usd"
    limits = RequestBudget(**{name: scale + limit})
    estimate = UsageEstimate(**on(axis, scale + asked))
    if admitted:
        budget.reserve(EXTENSIONS, estimate, limits)
    else:
        with pytest.raises(RequestBudgetExceededError):
            budget.reserve(EXTENSIONS, estimate, limits)
        assert Remaining(U64_MAX, U64_MAX, False) == budget.remaining(EXTENSIONS)


def test_a_request_budget_of_0_admits_0(make: Make) -> None:
    """0 is a limit, not the absence of one."""
    budget = make(SharedPoolBudgetOptions())
    budget.reserve(EXTENSIONS, UsageEstimate.zero(), RequestBudget.with_limits(0, 0))
    with pytest.raises(RequestBudgetExceededError):
        budget.reserve(EXTENSIONS, tokens(1), RequestBudget.with_limits(0, 0))


def test_a_zero_estimate_holds_nothing_and_commits_what_is_used(make: Make) -> None:
    """Who cannot estimate reserves 0, in a full pool too; the spend counts all the same."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=10, capacity_cost_micros_usd=10))
    budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=10, cost_micros_usd=10), UNLIMITED)
    lease = budget.reserve(EXTENSIONS, UsageEstimate.zero(), UNLIMITED)
    assert NOTHING_LEFT == budget.remaining(EXTENSIONS)
    budget.record_used(lease, Usage(total_tokens=1))
    assert NOTHING_LEFT == budget.remaining(EXTENSIONS)


def test_a_lease_may_be_settled_with_nothing(make: Make) -> None:
    """All of the hold goes back."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=10))
    lease = budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
    budget.record_used(lease, Usage.zero())
    assert Remaining(10, U64_MAX, False) == budget.remaining(EXTENSIONS)


@pytest.mark.parametrize(
    ("used", "remaining"),
    [(40, 60), (41, 59), (100, 0), (101, 0), (I64_MAX, 0)],
)
def test_spend_is_never_refused(make: Make, used: int, remaining: int) -> None:
    """More than was estimated, and more than the pool holds, is committed."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
    lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
    budget.record_used(lease, Usage(total_tokens=used))
    assert remaining == budget.remaining(EXTENSIONS).tokens


def test_an_overspent_pool_stays_overspent(make: Make) -> None:
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


def test_usage_over_the_request_budget_is_recorded_before_it_is_reported(make: Make) -> None:
    """Real spend is never refused: the error comes after the settlement, which ends the lease."""
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


@AXES
def test_usage_at_the_request_budget_is_fine(make: Make, axis: str) -> None:
    """The limit itself is allowed at the settlement too."""
    budget = make(SharedPoolBudgetOptions())
    name = "tokens" if axis == "tokens" else "cost_micros_usd"
    lease = budget.reserve(EXTENSIONS, UsageEstimate.zero(), RequestBudget(**{name: 50}))
    budget.record_used(lease, Usage(**on(axis, 50)))
    lease = budget.reserve(EXTENSIONS, UsageEstimate.zero(), RequestBudget(**{name: 50}))
    with pytest.raises(RequestBudgetExceededError):
        budget.record_used(lease, Usage(**on(axis, 51)))
    assert U64_MAX - 101 == left_on(axis, budget.remaining(EXTENSIONS))


def test_a_lease_is_settled_once(make: Make) -> None:
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


def test_leases_end_in_any_order(make: Make) -> None:
    """Each gives back its own hold."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
    leases = [budget.reserve(EXTENSIONS, tokens(amount), UNLIMITED) for amount in (1, 20, 30, 4)]
    assert 4 == len({lease.id for lease in leases})
    expected = 45
    for lease in (leases[2], leases[0], leases[3], leases[1]):
        budget.record_used(lease, Usage(total_tokens=1))
        expected += lease.reserved.total_tokens - 1
        assert expected == budget.remaining(EXTENSIONS).tokens


@pytest.mark.parametrize("lease_id", [0, -1, 2, 999, I64_MAX, I64_MAX + 1, 2**64, -(2**64)])
def test_an_id_that_was_never_granted_is_unknown(make: Make, lease_id: int) -> None:
    """Zero, negative and huge ids too; the error carries the id and nothing changes."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
    granted = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
    if granted.id == lease_id:
        lease_id += 1
    with pytest.raises(UnknownLeaseError) as unknown:
        budget.record_used(replace(granted, id=lease_id), Usage(total_tokens=1))
    assert lease_id == unknown.value.lease_id
    assert 60 == budget.remaining(EXTENSIONS).tokens


def test_the_pool_s_opening_is_no_lease(make: Make) -> None:
    """No entry but a reservation can be settled, although entries and leases share numbers."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
    lease = BudgetLease(
        id=1, reserved=tokens(1), request_budget=UNLIMITED, pool=getattr(budget, "identity", None)
    )
    with pytest.raises(UnknownLeaseError):
        budget.record_used(lease, Usage(total_tokens=1))
    assert 100 == budget.remaining(EXTENSIONS).tokens


def test_a_lease_of_another_pool_is_unknown(make: Make) -> None:
    """It was not granted here: nothing is written here, and it stays open there."""
    here = make(SharedPoolBudgetOptions(capacity_tokens=100), "here")
    there = make(SharedPoolBudgetOptions(capacity_tokens=100), "there")
    there.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    lease = there.reserve(EXTENSIONS, tokens(40), UNLIMITED)
    here.reserve(EXTENSIONS, tokens(5), UNLIMITED)
    with pytest.raises(UnknownLeaseError):
        here.record_used(lease, Usage(total_tokens=30))
    assert (95, 59) == (here.remaining(EXTENSIONS).tokens, there.remaining(EXTENSIONS).tokens)
    there.record_used(lease, Usage(total_tokens=30))
    assert 69 == there.remaining(EXTENSIONS).tokens


@pytest.mark.parametrize("identity", [UUID(int=0), uuid4()])
def test_a_lease_that_names_another_pool_is_unknown(make: Make, identity: UUID) -> None:
    """The number alone does not make a lease: an id of this manager under another identity."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
    lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
    with pytest.raises(UnknownLeaseError):
        budget.record_used(replace(lease, pool=identity), Usage(total_tokens=30))
    assert 60 == budget.remaining(EXTENSIONS).tokens


def test_the_stored_values_win_over_a_forged_lease(make: Make) -> None:
    """Neither a larger limit nor another reservation in the caller's hands is believed."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
    lease = budget.reserve(EXTENSIONS, tokens(40), RequestBudget.from_tokens(45))
    forged = replace(lease, reserved=tokens(99), request_budget=RequestBudget.from_tokens(90))
    with pytest.raises(RequestBudgetExceededError) as exceeded:
        budget.record_used(forged, Usage(total_tokens=50))
    assert (50, 45) == (exceeded.value.requested_tokens, exceeded.value.budget_tokens)
    assert 50 == budget.remaining(EXTENSIONS).tokens


def test_a_smaller_forged_limit_is_not_believed_either(make: Make) -> None:
    """What was granted is what counts."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
    lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
    forged = replace(lease, reserved=tokens(0), request_budget=RequestBudget.from_tokens(0))
    budget.record_used(forged, Usage(total_tokens=50))
    assert 50 == budget.remaining(EXTENSIONS).tokens


def test_a_release_gives_everything_back_and_ends_the_lease(make: Make) -> None:
    """Nothing is committed; the lease can neither be settled nor released again."""
    budget: Any = make(SharedPoolBudgetOptions(capacity_tokens=100))
    lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
    budget.release(lease)
    assert Remaining(100, U64_MAX, False) == budget.remaining(EXTENSIONS)
    for call in (budget.release, lambda lease: budget.record_used(lease, Usage(total_tokens=1))):
        with pytest.raises(UnknownLeaseError) as unknown:
            call(lease)
        assert lease.id == unknown.value.lease_id
    assert 100 == budget.remaining(EXTENSIONS).tokens


def test_a_settled_or_foreign_lease_cannot_be_released(make: Make) -> None:
    """Neither what was settled, nor an unknown id, nor another pool's lease; nothing changes."""
    budget: Any = make(SharedPoolBudgetOptions(capacity_tokens=100))
    settled, open_lease = (budget.reserve(EXTENSIONS, tokens(10), UNLIMITED) for _ in range(2))
    budget.record_used(settled, Usage(total_tokens=10))
    foreign = [replace(open_lease, pool=uuid4())]
    for lease in (settled, *(replace(settled, id=number) for number in (0, -1, 2**64)), *foreign):
        with pytest.raises(UnknownLeaseError):
            budget.release(lease)
    assert 80 == budget.remaining(EXTENSIONS).tokens


def test_a_release_of_another_type_is_refused(make: Make) -> None:
    """The id alone is no lease."""
    budget: Any = make(SharedPoolBudgetOptions(capacity_tokens=100))
    lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
    with pytest.raises(InvalidInputError):
        budget.release(lease.id)
    budget.release(lease)


@AXES
def test_the_largest_amount_goes_through(make: Make, axis: str) -> None:
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


def test_an_unlimited_pool_behaves_as_2_to_the_64_minus_1(make: Make) -> None:
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
    make: Make, call: Callable[[Any, BudgetLease], object]
) -> None:
    """A typed error, and nothing changes."""
    budget = make(SharedPoolBudgetOptions(capacity_tokens=100))
    lease = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
    with pytest.raises(InvalidInputError):
        call(budget, lease)
    assert 60 == budget.remaining(EXTENSIONS).tokens
    budget.record_used(lease, Usage())
    assert 100 == budget.remaining(EXTENSIONS).tokens
