"""A call that plainly uses something, and says 0 where the pool has a limit, is not taken as free.

Its reservation is refused, unless the caller says otherwise; its usage is recorded and flagged.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from ledger import (
    BudgetManager,
    EntryFlag,
    EntryKind,
    IdempotencyKey,
    Ledger,
    RequestExtensions,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Unpriced,
    UnpricedCallError,
    Usage,
    UsageEstimate,
)
from ledger.testing.calls import EXTENSIONS, UNLIMITED

Make = Callable[..., BudgetManager]

TOKENS = SharedPoolBudgetOptions(capacity_tokens=1_000)
COST = SharedPoolBudgetOptions(capacity_cost_micros_usd=1_000)
BOTH = SharedPoolBudgetOptions(capacity_tokens=1_000, capacity_cost_micros_usd=1_000)
NONE = SharedPoolBudgetOptions()

PARTS = {"input_tokens": 5, "output_tokens": 7}
FLAGGED = RequestExtensions(Unpriced.FLAG)


def flags(book: Ledger, pool: str, kind: EntryKind) -> list[EntryFlag]:
    """Return the flags of a pool's entries of a kind."""
    return [one.flags for one in book.entries(pool) if one.kind == kind]


@pytest.mark.parametrize(
    ("options", "given", "missing"),
    [
        (TOKENS, PARTS, ("total_tokens",)),
        (TOKENS, {"output_tokens": 1, "cost_micros_usd": 3}, ("total_tokens",)),
        (COST, {"total_tokens": 5}, ("cost_micros_usd",)),
        (COST, PARTS, ("cost_micros_usd",)),
        (BOTH, {"total_tokens": 5}, ("cost_micros_usd",)),
        (BOTH, PARTS, ("total_tokens", "cost_micros_usd")),
    ],
)
def test_an_estimate_that_leaves_out_what_is_limited_is_refused(
    make: Make, options: SharedPoolBudgetOptions, given: dict[str, int], missing: tuple[str, ...]
) -> None:
    """Nothing is reserved, and the error says what to give."""
    budget = make(options)
    before = budget.remaining(EXTENSIONS)
    with pytest.raises(UnpricedCallError) as caught:
        budget.reserve(EXTENSIONS, UsageEstimate(**given), UNLIMITED)
    assert missing == caught.value.missing
    assert all(name in str(caught.value) for name in (*missing, "unpriced='flag'", "FLAG"))
    assert before == budget.remaining(EXTENSIONS)
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert (missing, str(caught.value)) == (again.missing, str(again))


@pytest.mark.parametrize(
    ("options", "given"),
    [
        (BOTH, {}),
        (TOKENS, {"total_tokens": 5}),
        (TOKENS, {"total_tokens": 5, **PARTS}),
        (COST, {"cost_micros_usd": 5}),
        (BOTH, {"cost_micros_usd": 5}),
        (NONE, PARTS),
        (NONE, {"total_tokens": 5}),
    ],
)
def test_an_estimate_that_leaves_nothing_out_is_taken_as_it_is(
    make: Make, options: SharedPoolBudgetOptions, given: dict[str, int]
) -> None:
    """Nothing at all is nothing; an image has a cost and no tokens; what has no limit is free."""
    budget = make(options)
    lease = budget.reserve(EXTENSIONS, UsageEstimate(**given), UNLIMITED)
    assert UsageEstimate(**given) == lease.reserved


@pytest.mark.parametrize("said_by", ["the policy", "the call"])
def test_a_caller_can_say_that_it_is_meant(make: Make, said_by: str) -> None:
    """Then the reservation counts as it is given, on the axis where it gives something."""
    policy = Unpriced.FLAG if said_by == "the policy" else Unpriced.REFUSE
    call = EXTENSIONS if said_by == "the policy" else FLAGGED
    budget = make(SharedPoolBudgetOptions(capacity_cost_micros_usd=1_000, unpriced=policy))
    lease = budget.reserve(call, UsageEstimate(total_tokens=5), UNLIMITED)
    budget.record_used(lease, Usage(total_tokens=5))
    assert 1_000 == budget.remaining(EXTENSIONS).cost_micros_usd


def test_the_call_wins_over_the_policy(make: Make) -> None:
    """A call can be stricter than its pool."""
    budget = make(SharedPoolBudgetOptions(capacity_cost_micros_usd=9, unpriced=Unpriced.FLAG))
    with pytest.raises(UnpricedCallError):
        budget.reserve(RequestExtensions(Unpriced.REFUSE), UsageEstimate(total_tokens=5), UNLIMITED)


def test_a_policy_takes_the_word_too() -> None:
    """As `settlement` does; another word is refused."""
    assert Unpriced.FLAG is SharedPoolBudgetOptions(unpriced="flag").unpriced  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="refuse, flag"):
        SharedPoolBudgetOptions(unpriced="free")  # type: ignore[arg-type]


@pytest.mark.parametrize("record", ["record_used", "observe"])
@pytest.mark.parametrize("given", [{"total_tokens": 5}, {"reasoning_tokens": 2}])
def test_usage_that_leaves_something_out_is_recorded(
    make: Make, record: str, given: dict[str, int]
) -> None:
    """Real spend is never refused."""
    budget: Any = make(BOTH)
    lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=9, cost_micros_usd=9), UNLIMITED)
    getattr(budget, record)(lease, Usage(**given))
    left = budget.remaining(EXTENSIONS)
    held = 0 if record == "record_used" else 9 - given.get("total_tokens", 0)
    assert 1_000 - given.get("total_tokens", 0) - held == left.tokens


def test_entries_of_such_calls_are_flagged(shared_book: Ledger, fresh_name: str) -> None:
    """The reservation that was let through, each part, and the settlement; others are not."""
    budget = shared_book.pool(fresh_name, COST)
    right = UsageEstimate(total_tokens=5, cost_micros_usd=5)
    lease = budget.reserve(EXTENSIONS, right, UNLIMITED)
    budget.observe(lease, Usage(total_tokens=1))
    budget.observe(lease, Usage(total_tokens=1, cost_micros_usd=1))
    budget.record_used(lease, Usage(input_tokens=1))
    lease = budget.reserve(FLAGGED, UsageEstimate(total_tokens=1), UNLIMITED)
    budget.release(lease)
    no, yes = EntryFlag.NONE, EntryFlag.UNPRICED
    assert [no, yes] == flags(shared_book, fresh_name, EntryKind.RESERVATION)
    assert [yes, no] == flags(shared_book, fresh_name, EntryKind.OBSERVATION)
    assert [yes] == flags(shared_book, fresh_name, EntryKind.SETTLEMENT)
    assert [no] == flags(shared_book, fresh_name, EntryKind.RELEASE)
    assert [None] == [one.damage for one in shared_book.verify(fresh_name)]


def test_pools_above_limit_it_too(shared_book: Ledger, fresh_name: str) -> None:
    """What shares capacity with a pool that limits cost needs a cost, and is flagged in both."""
    org = f"{fresh_name} org"
    shared_book.pool(org, COST)
    team = shared_book.pool(fresh_name, TOKENS, parent=org)
    with pytest.raises(UnpricedCallError, match="org") as caught:
        team.reserve(EXTENSIONS, UsageEstimate(total_tokens=5), UNLIMITED)
    assert (org, ("cost_micros_usd",)) == (caught.value.pool, caught.value.missing)
    with pytest.raises(UnpricedCallError) as caught:
        team.reserve(EXTENSIONS, UsageEstimate(**PARTS, cost_micros_usd=1), UNLIMITED)
    assert (fresh_name, ("total_tokens",)) == (caught.value.pool, caught.value.missing)
    lease = team.reserve(EXTENSIONS, UsageEstimate(total_tokens=5, cost_micros_usd=5), UNLIMITED)
    team.record_used(lease, Usage(total_tokens=5))
    for pool in (org, fresh_name):
        assert [EntryFlag.UNPRICED] == flags(shared_book, pool, EntryKind.SETTLEMENT)
        assert [None] == [one.damage for one in shared_book.verify(pool)]


def test_a_carved_share_is_no_call(shared_book: Ledger, fresh_name: str) -> None:
    """What is set aside, and what comes back, gives no cost where the share has none."""
    parent = f"{fresh_name} parent"
    shared_book.pool(parent, BOTH)
    shared_book.pool(
        fresh_name,
        SharedPoolBudgetOptions(capacity_tokens=9, capacity_cost_micros_usd=0),
        parent=parent,
        carved=True,
    )
    shared_book.close_pool(fresh_name)
    assert {EntryFlag.NONE} == {one.flags for one in shared_book.entries(parent)}
    assert [None, None] == [
        one.damage for name in (parent, fresh_name) for one in shared_book.verify(name)
    ]


def test_a_repeated_key_gives_the_first_answer(shared_book: Ledger, fresh_name: str) -> None:
    """A refused call left nothing under its key, so that it can be repeated with its figures."""
    budget = shared_book.pool(fresh_name, COST)
    call = RequestExtensions(IdempotencyKey("one call"))
    with pytest.raises(UnpricedCallError):
        budget.reserve(call, UsageEstimate(total_tokens=5), UNLIMITED)
    priced = UsageEstimate(total_tokens=5, cost_micros_usd=5)
    assert budget.reserve(call, priced, UNLIMITED) == budget.reserve(call, priced, UNLIMITED)


OVERSPENT = pytest.mark.parametrize("strict", [False, True])


@OVERSPENT
@pytest.mark.parametrize(
    ("used", "asked"),
    [
        ({"total_tokens": 1_001}, {"cost_micros_usd": 1}),
        ({"cost_micros_usd": 1_001}, {"total_tokens": 1, "cost_micros_usd": 0}),
        ({"cost_micros_usd": 1_001}, {"input_tokens": 1}),
    ],
)
def test_an_overspent_pool_admits_nothing_that_uses_anything(
    make: Make,
    used: dict[str, int],
    asked: dict[str, int],
    strict: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Not on the axis that has something left either, whether the pool is strict or not."""
    budget = make(
        SharedPoolBudgetOptions(
            capacity_tokens=1_000,
            capacity_cost_micros_usd=1_000,
            strict=strict,
            unpriced=Unpriced.FLAG,
        )
    )
    budget.record_used(budget.reserve(EXTENSIONS, UsageEstimate.zero(), UNLIMITED), Usage(**used))
    for extensions in (EXTENSIONS, RequestExtensions(IdempotencyKey("kept"))):
        with pytest.raises(ThresholdExceededError, match="It is overspent by 1 ") as denied:
            budget.reserve(extensions, UsageEstimate(**asked), UNLIMITED)
        assert [1] == [*(denied.value.overspent or {}).values()]
        assert "sk for less" not in str(denied.value)


def test_an_overspent_pool_admits_what_uses_nothing(make: Make) -> None:
    """A call that estimates 0 on every axis is granted."""
    budget = make(TOKENS)
    budget.record_used(
        budget.reserve(EXTENSIONS, UsageEstimate.zero(), UNLIMITED), Usage(total_tokens=1_001)
    )
    assert budget.reserve(EXTENSIONS, UsageEstimate.zero(), UNLIMITED)


def test_a_pool_that_is_used_up_exactly_is_not_overspent(make: Make) -> None:
    """The other axis goes on as before."""
    budget = make(BOTH)
    all_of_it = Usage(total_tokens=1_000)
    budget.record_used(budget.reserve(EXTENSIONS, UsageEstimate.zero(), UNLIMITED), all_of_it)
    assert budget.reserve(EXTENSIONS, UsageEstimate(cost_micros_usd=1), UNLIMITED)


def test_a_pool_above_that_is_overspent_admits_nothing(
    shared_book: Ledger, fresh_name: str
) -> None:
    """It shares its capacity, so what is below draws on it."""
    org = shared_book.pool(f"{fresh_name} org", COST)
    team = shared_book.pool(fresh_name, TOKENS, parent=org.name)
    org.record_used(
        org.reserve(EXTENSIONS, UsageEstimate.zero(), UNLIMITED), Usage(cost_micros_usd=1_001)
    )
    with pytest.raises(ThresholdExceededError) as denied:
        team.reserve(FLAGGED, UsageEstimate(total_tokens=1), UNLIMITED)
    assert org.name == denied.value.pool


def test_unlimited_axes_are_never_overspent() -> None:
    """In memory a total may pass 2^64-1 with what is held; that is no limit."""
    budget = SharedPoolBudgetManager(TOKENS)
    huge = Usage(cost_micros_usd=2**64 - 1)
    budget.record_used(budget.reserve(EXTENSIONS, UsageEstimate.zero(), UNLIMITED), huge)
    assert budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=1), UNLIMITED)


def test_a_call_does_not_wait_for_what_it_cannot_get(make: Make) -> None:
    """Where there is no room it is denied; but capacity that comes back would not help it."""
    budget: Any = make(BOTH)
    budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=1_000, cost_micros_usd=1), UNLIMITED)
    asked = EXTENSIONS, UsageEstimate(total_tokens=5), UNLIMITED
    with pytest.raises(ThresholdExceededError):
        budget.reserve(*asked)
    with pytest.raises(UnpricedCallError):
        budget.reserve(*asked, wait_s=60)
