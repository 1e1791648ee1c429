"""Verdicts and balances: limits hit exactly, in the contract's order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ledger import (
    I64_MAX,
    U64_MAX,
    AmountOutOfRangeError,
    Balance,
    EntryFlag,
    InvalidInputError,
    LeasePhase,
    LeaseState,
    Remaining,
    RequestBudget,
    RequestBudgetExceededError,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Totals,
    UncorrectableEntryError,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
)
from ledger.core import rules
from ledger.testing.calls import UNLIMITED

CEILINGS = pytest.mark.parametrize("ceiling", [I64_MAX, U64_MAX])


def policy(capacity: int = U64_MAX, threshold: int = 0) -> SharedPoolBudgetOptions:
    """Return a policy on tokens alone."""
    return SharedPoolBudgetOptions(capacity_tokens=capacity, stop_threshold_tokens=threshold)


def estimate(tokens: int = 0, cost: int = 0) -> UsageEstimate:
    """Return an estimate of what counts."""
    return UsageEstimate(total_tokens=tokens, cost_micros_usd=cost)


def usage(tokens: int = 0, cost: int = 0) -> Usage:
    """Return usage of what counts."""
    return Usage(total_tokens=tokens, cost_micros_usd=cost)


def held(
    tokens: int = 0,
    cost: int = 0,
    *,
    balance: Balance | None = None,
    budget: RequestBudget = UNLIMITED,
) -> rules.Effect:
    """Return what reserving leaves behind, on an empty pool unless another is given."""
    return rules.reserve(
        balance or Balance(),
        lease_id=7,
        estimate=estimate(tokens, cost),
        request_budget=budget,
        ceiling=U64_MAX,
    )


@pytest.mark.parametrize(
    ("committed", "reserved", "expected"),
    [
        (0, 0, 100),
        (30, 20, 50),
        (99, 0, 1),
        (100, 0, 0),
        (0, 100, 0),
        (60, 50, 0),
        (U64_MAX, U64_MAX, 0),
    ],
)
def test_remaining_is_capacity_minus_both_and_stops_at_zero(
    committed: int, reserved: int, expected: int
) -> None:
    """Committed and reserved count alike, on each axis by itself."""
    options = SharedPoolBudgetOptions(capacity_tokens=100, capacity_cost_micros_usd=100)
    there = Balance(Totals(tokens=committed), Totals(tokens=reserved))
    assert Remaining(expected, 100, expected == 0) == rules.remaining(options, there)
    there = Balance(Totals(cost_micros_usd=committed), Totals(cost_micros_usd=reserved))
    assert Remaining(100, expected, expected == 0) == rules.remaining(options, there)


def test_requests_are_counted_but_not_limited() -> None:
    """The third axis of the totals takes nothing from what remains."""
    there = Balance(Totals(requests=9), Totals(requests=9))
    assert Remaining(5, U64_MAX, False) == rules.remaining(policy(5), there)


@pytest.mark.parametrize(("spent", "below"), [(79, False), (80, True), (81, True), (200, True)])
def test_below_threshold_is_at_or_below(spent: int, *, below: bool) -> None:
    """With 20 left of 100 and a threshold of 20 the pool is at its threshold already."""
    options = SharedPoolBudgetOptions(
        capacity_tokens=100,
        capacity_cost_micros_usd=100,
        stop_threshold_tokens=20,
        stop_threshold_cost_micros_usd=20,
    )
    for totals in (Totals(tokens=spent), Totals(cost_micros_usd=spent)):
        assert below is rules.remaining(options, Balance(totals)).below_threshold


@pytest.mark.parametrize(
    ("capacity", "threshold", "asked", "admitted"),
    [
        (0, 0, 0, True),
        (0, 0, 1, False),
        (0, 1, 0, False),
        (100, 0, 100, True),
        (100, 0, 101, False),
        (100, 20, 80, True),
        (100, 20, 81, False),
        (100, 100, 0, True),
        (100, 101, 0, False),
        (U64_MAX, 0, U64_MAX, True),
        (U64_MAX, U64_MAX, 0, True),
        (U64_MAX, U64_MAX, 1, False),
        (I64_MAX, 0, I64_MAX, True),
        (I64_MAX, 0, I64_MAX + 1, False),
    ],
)
@pytest.mark.parametrize("axis", ["tokens", "cost"])
def test_a_reservation_may_leave_the_threshold_but_not_less(
    capacity: int, threshold: int, asked: int, axis: str, *, admitted: bool
) -> None:
    """Denied is what does not fit and what would leave *less than* the threshold, on each axis."""
    if axis == "tokens":
        options, wanted = policy(capacity, threshold), estimate(asked)
    else:
        options = SharedPoolBudgetOptions(
            capacity_cost_micros_usd=capacity, stop_threshold_cost_micros_usd=threshold
        )
        wanted = estimate(cost=asked)
    assert admitted is (None is rules.admit(options, Balance(), wanted, UNLIMITED))


def test_a_denial_shows_what_remained_before_it() -> None:
    """Both axes are told, the one that has enough as well."""
    options = SharedPoolBudgetOptions(capacity_tokens=100, capacity_cost_micros_usd=50)
    there = Balance(Totals(10, 5), Totals(20, 6))
    denial = rules.admit(options, there, estimate(71, 3), UNLIMITED)
    assert isinstance(denial, ThresholdExceededError)
    assert (71, 3, 70, 39) == (
        denial.requested_tokens,
        denial.requested_cost_micros_usd,
        denial.remaining_tokens,
        denial.remaining_cost_micros_usd,
    )


def test_the_request_s_own_budget_is_asked_first() -> None:
    """A request over both limits is told about its own."""
    denial = rules.admit(policy(1), Balance(), estimate(11, 12), RequestBudget.with_limits(10, 20))
    assert isinstance(denial, RequestBudgetExceededError)
    assert (11, 12, 10, 20) == (
        denial.requested_tokens,
        denial.requested_cost_micros_usd,
        denial.budget_tokens,
        denial.budget_cost_micros_usd,
    )


@pytest.mark.parametrize(
    ("asked", "admitted"), [((10, 20), True), ((11, 20), False), ((10, 21), False)]
)
def test_the_request_s_own_limit_is_allowed(asked: tuple[int, int], *, admitted: bool) -> None:
    """Exactly the limit passes, one more does not."""
    budget = RequestBudget.with_limits(10, 20)
    denial = rules.admit(policy(), Balance(), estimate(*asked), budget)
    assert admitted is (denial is None)


def test_an_overspent_pool_admits_nothing_but_nothing() -> None:
    """Overruns may commit more than the capacity; 0 still fits if no threshold is set."""
    there = Balance(Totals(tokens=500))
    assert None is rules.admit(policy(100), there, estimate(0), UNLIMITED)
    assert None is not rules.admit(policy(100), there, estimate(1), UNLIMITED)
    assert None is not rules.admit(policy(100, 1), there, estimate(0), UNLIMITED)


def test_a_reservation_is_held_and_counted() -> None:
    """The hold is the total and the cost of the estimate, and one request."""
    full = UsageEstimate(input_tokens=1, output_tokens=2, total_tokens=30, cost_micros_usd=40)
    budget = RequestBudget.from_tokens(99)
    before = Balance(Totals(1, 2, 3), Totals(4, 5, 6))
    effect = rules.reserve(
        before, lease_id=9, estimate=full, request_budget=budget, ceiling=U64_MAX
    )
    assert Balance(Totals(1, 2, 3), Totals(34, 45, 7)) == effect.balance
    assert EntryFlag.NONE == effect.flags
    assert (
        LeaseState(
            lease=9,
            estimate=full,
            request_budget=budget,
            phase=LeasePhase.OPEN,
            held=Totals(30, 40, 1),
            used=Usage.zero(),
        )
        == effect.lease
    )


@pytest.mark.parametrize(
    ("field", "asked", "before"),
    [
        ("reserved_tokens", estimate(2), Totals(tokens=I64_MAX - 1)),
        ("reserved_cost_micros_usd", estimate(0, 2), Totals(cost_micros_usd=I64_MAX - 1)),
        ("reserved_requests", estimate(), Totals(requests=I64_MAX)),
    ],
)
def test_a_reserved_total_over_the_ceiling_is_refused(
    field: str, asked: UsageEstimate, before: Totals
) -> None:
    """What cannot be held cannot be promised; the error names the total that would be reached."""
    with pytest.raises(AmountOutOfRangeError) as refused:
        rules.reserve(
            Balance(reserved=before),
            lease_id=1,
            estimate=asked,
            request_budget=UNLIMITED,
            ceiling=I64_MAX,
        )
    error = refused.value
    assert (field, I64_MAX + 1, I64_MAX) == (error.field, error.value, error.ceiling)


@CEILINGS
def test_a_reserved_total_at_the_ceiling_is_held(ceiling: int) -> None:
    """The ceiling itself is inside."""
    effect = rules.reserve(
        Balance(reserved=Totals(tokens=1)),
        lease_id=1,
        estimate=estimate(ceiling - 1),
        request_budget=UNLIMITED,
        ceiling=ceiling,
    )
    assert ceiling == effect.balance.reserved.tokens


@pytest.mark.parametrize(
    ("used", "flags"),
    [
        ((0, 0), EntryFlag.NONE),
        ((29, 39), EntryFlag.NONE),
        ((30, 40), EntryFlag.NONE),
        ((31, 0), EntryFlag.OVERRUN),
        ((0, 41), EntryFlag.OVERRUN),
        ((I64_MAX, I64_MAX), EntryFlag.OVERRUN),
    ],
)
def test_a_settlement_gives_the_hold_back_and_commits_what_was_used(
    used: tuple[int, int], flags: EntryFlag
) -> None:
    """Whatever it is; more than the estimate on either axis is flagged as an overrun."""
    before = Balance(reserved=Totals(5, 6, 1))
    balance, lease, _ = held(30, 40, balance=before)
    effect = rules.settle(balance, lease, usage(*used), lease_id=7, ceiling=I64_MAX)
    assert Balance(Totals(*used, 1), Totals(5, 6, 1)) == effect.balance
    assert flags == effect.flags
    assert (LeasePhase.ENDED, Totals(), usage(*used)) == (
        effect.lease.phase,
        effect.lease.held,
        effect.lease.used,
    )


def test_parts_of_the_usage_are_no_overrun() -> None:
    """Only the total and the cost are held against the estimate."""
    balance, lease, _ = held(10, 10)
    used = Usage(input_tokens=99, output_tokens=99, cache_read_tokens=99, reasoning_tokens=99)
    effect = rules.settle(balance, lease, used, lease_id=7, ceiling=I64_MAX)
    assert EntryFlag.NONE == effect.flags
    assert used == effect.lease.used


@CEILINGS
@pytest.mark.parametrize(
    ("used", "saturated"), [(4, False), (5, False), (6, True), (U64_MAX, True)]
)
def test_committed_totals_stop_at_the_ceiling(ceiling: int, used: int, *, saturated: bool) -> None:
    """Spend is never refused; where the total cannot hold it, the entry is flagged."""
    before = Balance(Totals(ceiling - 5, ceiling - 5, 5))
    balance, lease, _ = held(10, 10, balance=before)
    effect = rules.settle(balance, lease, usage(used, used), lease_id=7, ceiling=ceiling)
    expected = min(ceiling, ceiling - 5 + used)
    assert Totals(expected, expected, 6) == effect.balance.committed
    assert saturated is (EntryFlag.SATURATED in effect.flags)


@pytest.mark.parametrize("axis", range(3))
def test_each_axis_saturates_by_itself(axis: int) -> None:
    """One axis at its ceiling neither stops nor hides the others."""
    committed = Totals(*(I64_MAX if index == axis else 10 for index in range(3)))
    balance, lease, _ = held(10, 10, balance=Balance(committed))
    effect = rules.settle(balance, lease, usage(1, 1), lease_id=7, ceiling=I64_MAX)
    expected = Totals(*(I64_MAX if index == axis else 11 for index in range(3)))
    assert expected == effect.balance.committed
    assert EntryFlag.SATURATED == effect.flags


@pytest.mark.parametrize("phase", [None, LeasePhase.ENDED])
def test_an_unknown_or_ended_lease_cannot_be_settled(phase: LeasePhase | None) -> None:
    """The error carries the id that was asked for."""
    balance, lease, _ = held(10)
    known = None if phase is None else lease._replace(phase=phase)
    with pytest.raises(UnknownLeaseError) as unknown:
        rules.settle(balance, known, usage(1), lease_id=99, ceiling=I64_MAX)
    assert 99 == unknown.value.lease_id


def expire(balance: Balance, lease: LeaseState | None, lease_id: int = 7) -> rules.Effect:
    """Return the effect of an expiry by which nothing is assumed."""
    return rules.expire(balance, lease, None, lease_id=lease_id, ceiling=I64_MAX)


def ending(phase: LeasePhase) -> Callable[[Balance, LeaseState | None, int], rules.Effect]:
    """Return what leaves a lease in this phase and commits nothing."""
    if phase is LeasePhase.EXPIRED:
        return expire
    return lambda balance, lease, lease_id: rules.release(balance, lease, lease_id=lease_id)


@pytest.mark.parametrize("phase", [LeasePhase.ENDED, LeasePhase.EXPIRED])
def test_release_and_expiry_give_the_hold_back(phase: LeasePhase) -> None:
    """Nothing is committed, the rest of the pool is not touched."""
    before = Balance(Totals(1, 2, 3), Totals(4, 5, 6))
    balance, lease, _ = held(10, 20, balance=before)
    effect = ending(phase)(balance, lease, 7)
    assert before == effect.balance
    assert (phase, Totals(), Usage.zero()) == (
        effect.lease.phase,
        effect.lease.held,
        effect.lease.used,
    )
    assert EntryFlag.NONE == effect.flags


def test_a_settlement_after_expiry_is_committed_and_late() -> None:
    """The hold went back once, at the expiry; the spend is real all the same."""
    balance, lease, _ = held(10, 20, balance=Balance(reserved=Totals(3, 3, 1)))
    expired = expire(balance, lease)
    effect = rules.settle(expired.balance, expired.lease, usage(4, 5), lease_id=7, ceiling=I64_MAX)
    assert Balance(Totals(4, 5, 1), Totals(3, 3, 1)) == effect.balance
    assert (EntryFlag.LATE, LeasePhase.ENDED) == (effect.flags, effect.lease.phase)


def test_remarkable_things_add_up() -> None:
    """A settlement may be late, an overrun, and more than the totals hold, at once."""
    balance, lease, _ = held(1, balance=Balance(Totals(tokens=I64_MAX)))
    expired = expire(balance, lease)
    effect = rules.settle(expired.balance, expired.lease, usage(2), lease_id=7, ceiling=I64_MAX)
    assert EntryFlag.OVERRUN | EntryFlag.LATE | EntryFlag.SATURATED == effect.flags


def settled(used: Usage, *, committed: int = 0) -> rules.Effect:
    """Return what settling a lease of 10 of both leaves behind, beside what is committed."""
    balance, lease, _ = held(10, 10, balance=Balance(Totals(tokens=committed)))
    return rules.settle(balance, lease, used, lease_id=7, ceiling=I64_MAX)


@pytest.mark.parametrize(
    ("before", "after", "flags"),
    [
        (usage(8, 5), usage(3, 9), EntryFlag.NONE),
        (usage(8, 0), usage(10, 0), EntryFlag.NONE),
        (usage(8, 0), usage(11, 0), EntryFlag.OVERRUN),
        (usage(20, 1), usage(11, 0), EntryFlag.OVERRUN),
        (usage(20, 0), usage(10, 0), EntryFlag.NONE),
        (usage(1, 1), Usage(), EntryFlag.NONE),
    ],
)
def test_a_correction_moves_by_the_difference(
    before: Usage, after: Usage, flags: EntryFlag
) -> None:
    """What is committed and what the lease has used; not the requests, and nothing that is held."""
    balance, lease, _ = settled(before, committed=100)
    effect = rules.correct(balance, lease, before, after, seq=9, ceiling=I64_MAX)
    committed = Totals(100 + after.total_tokens, after.cost_micros_usd, 1)
    assert (Balance(committed), lease._replace(used=after), flags) == effect


@pytest.mark.parametrize(
    ("committed", "before", "after", "expected"),
    [(0, 9, 0, 0), (5, 9, 0, 0), (9, 9, 0, 0), (10, 9, 0, 1), (90, 5, 15, 100), (99, 5, 15, 100)],
)
def test_corrected_totals_stop_at_the_ends(
    committed: int, before: int, after: int, expected: int
) -> None:
    """At 0 and at the ceiling, and the entry is flagged if there was more to go."""
    _, lease, _ = settled(usage(before))
    balance = Balance(Totals(tokens=committed))
    effect = rules.correct(balance, lease, usage(before), usage(after), seq=9, ceiling=100)
    cut = committed + after - before != expected
    assert (expected, cut) == (
        effect.balance.committed.tokens,
        EntryFlag.SATURATED in effect.flags,
    )


@pytest.mark.parametrize("phase", [LeasePhase.OPEN, LeasePhase.EXPIRED])
def test_only_ended_leases_are_corrected(phase: LeasePhase) -> None:
    """As long as more usage may come, what was used is not final."""
    balance, lease, _ = settled(usage(5))
    with pytest.raises(UncorrectableEntryError) as refused:
        rules.correct(
            balance, lease._replace(phase=phase), usage(5), usage(4), seq=9, ceiling=I64_MAX
        )
    assert (9, "lease 7 has not ended") == (refused.value.seq, refused.value.reason)


def test_a_correction_must_change_something() -> None:
    """Usage that is right already is refused."""
    balance, lease, _ = settled(usage(5))
    with pytest.raises(InvalidInputError):
        rules.correct(balance, lease, usage(5), usage(5), seq=9, ceiling=I64_MAX)


@pytest.mark.parametrize(
    ("phase", "earlier"),
    [
        (LeasePhase.ENDED, None),
        (LeasePhase.ENDED, LeasePhase.ENDED),
        (LeasePhase.EXPIRED, None),
        (LeasePhase.EXPIRED, LeasePhase.EXPIRED),
        (LeasePhase.EXPIRED, LeasePhase.ENDED),
    ],
)
def test_a_hold_ends_once(earlier: LeasePhase | None, phase: LeasePhase) -> None:
    """No release of a lease that is unknown or ended, and no expiry of one that has expired."""
    balance, lease, _ = held(10)
    known = None if earlier is None else lease._replace(phase=earlier)
    with pytest.raises(UnknownLeaseError) as unknown:
        ending(phase)(balance, known, 42)
    assert 42 == unknown.value.lease_id


@pytest.mark.parametrize(
    ("used", "over"), [((5, 7), False), ((6, 7), True), ((5, 8), True), ((0, 0), False)]
)
def test_usage_over_the_request_s_budget_is_told(used: tuple[int, int], *, over: bool) -> None:
    """The figures are what was really used against the limits."""
    excess = rules.over_request_budget(RequestBudget.with_limits(5, 7), usage(*used))
    assert over is (excess is not None)
    if excess is not None:
        assert (*used, 5, 7) == (
            excess.requested_tokens,
            excess.requested_cost_micros_usd,
            excess.budget_tokens,
            excess.budget_cost_micros_usd,
        )


def test_the_rules_change_nothing_they_are_given() -> None:
    """Balance, lease and policy before a call are the same after it."""
    balance, lease, _ = held(10, 10)
    copies = (balance, lease)
    rules.settle(balance, lease, usage(99), lease_id=7, ceiling=I64_MAX)
    expire(balance, lease)
    assert (Balance(reserved=Totals(10, 10, 1)), LeasePhase.OPEN) == (balance, lease.phase)
    assert copies == (balance, lease)
