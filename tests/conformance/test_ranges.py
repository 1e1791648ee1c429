"""What a store can hold: 0 .. 2^63-1, and nothing is written where that does not do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ledger import (
    I64_MAX,
    U64_MAX,
    AmountOutOfRangeError,
    BudgetLease,
    EntryFlag,
    Ledger,
    LedgerBudgetManager,
    Remaining,
    RequestBudget,
    SharedPoolBudgetOptions,
    Totals,
    UnknownPoolError,
    Usage,
    UsageEstimate,
)
from ledger.testing.calls import EXTENSIONS, UNLIMITED

OPEN = SharedPoolBudgetOptions()
OVER = pytest.mark.parametrize("amount", [2**63, U64_MAX - 1, U64_MAX])
USAGE = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cost_micros_usd",
    "cache_creation_tokens",
    "cache_read_tokens",
    "reasoning_tokens",
)
Call = Callable[[LedgerBudgetManager, BudgetLease, int], object]


def estimating(name: str) -> Call:
    """Return a reservation with one amount in its estimate."""
    return lambda budget, _, amount: budget.reserve(
        EXTENSIONS, UsageEstimate(**{name: amount}), UNLIMITED
    )


def limiting(name: str) -> Call:
    """Return a reservation with one amount in its request budget."""
    return lambda budget, _, amount: budget.reserve(
        EXTENSIONS, UsageEstimate(), RequestBudget(**{name: amount})
    )


def using(name: str) -> Call:
    """Return a settlement with one amount in its usage."""
    return lambda budget, lease, amount: budget.record_used(lease, Usage(**{name: amount}))


CALLS = [
    *((f"estimate.{name}", estimating(name)) for name in USAGE[:4]),
    *((f"request_budget.{name}", limiting(name)) for name in ("tokens", "cost_micros_usd")),
    *((f"usage.{name}", using(name)) for name in USAGE),
]


@OVER
@pytest.mark.parametrize(("field", "call"), CALLS, ids=[name for name, _ in CALLS])
def test_an_amount_no_store_holds_is_refused_and_nothing_written(
    shared_book: Ledger, fresh_name: str, field: str, call: Call, amount: int
) -> None:
    """The error names the amount; the journal is as long as before and the lease still open."""
    budget = shared_book.pool(fresh_name, OPEN)
    lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=5), UNLIMITED)
    before = budget.status()
    with pytest.raises(AmountOutOfRangeError) as refused:
        call(budget, lease, amount)
    error = refused.value
    assert (field, amount, I64_MAX) == (error.field, error.value, error.ceiling)
    assert before == budget.status()
    assert 2 == len(list(shared_book.entries(fresh_name)))
    assert lease == budget.lease(lease.token)


@pytest.mark.parametrize("call", [call for _, call in CALLS], ids=[name for name, _ in CALLS])
def test_the_largest_amount_a_store_holds_is_kept(
    shared_book: Ledger, fresh_name: str, call: Call
) -> None:
    """2^63-1 is written and read again exactly, wherever it may stand."""
    budget = shared_book.pool(fresh_name, OPEN)
    lease = budget.reserve(EXTENSIONS, UsageEstimate(), UNLIMITED)
    call(budget, lease, I64_MAX)
    newest = list(shared_book.entries(fresh_name))[-1]
    parts = [newest.usage, newest.estimate, newest.request_budget]
    stored = [
        getattr(part, name)
        for part in parts
        if part is not None
        for name in part.__dataclass_fields__
    ]
    assert 1 == stored.count(I64_MAX)
    assert shared_book.verify(fresh_name)[0].ok


@pytest.mark.parametrize(
    ("name", "amount"),
    [
        ("capacity_tokens", 2**63),
        ("capacity_tokens", U64_MAX - 1),
        ("capacity_cost_micros_usd", 2**63),
        ("stop_threshold_tokens", 2**63),
        ("stop_threshold_tokens", U64_MAX),
        ("stop_threshold_cost_micros_usd", U64_MAX),
    ],
)
def test_a_policy_no_store_holds_makes_no_pool(
    shared_book: Ledger, fresh_name: str, name: str, amount: int
) -> None:
    """Neither `pool` nor `adjust` takes it; an unlimited *threshold* means nothing."""
    options = SharedPoolBudgetOptions(**{name: amount})
    with pytest.raises(AmountOutOfRangeError) as refused:
        shared_book.pool(fresh_name, options)
    assert (name, amount) == (refused.value.field, refused.value.value)
    with pytest.raises(UnknownPoolError):
        shared_book.pool(fresh_name)
    budget = shared_book.pool(fresh_name, OPEN)
    with pytest.raises(AmountOutOfRangeError):
        shared_book.adjust(fresh_name, options)
    assert 1 == budget.status().seq


@pytest.mark.parametrize(
    "options",
    [
        OPEN,
        SharedPoolBudgetOptions(capacity_tokens=0, capacity_cost_micros_usd=0),
        SharedPoolBudgetOptions(
            capacity_tokens=I64_MAX,
            capacity_cost_micros_usd=I64_MAX,
            stop_threshold_tokens=I64_MAX,
            stop_threshold_cost_micros_usd=I64_MAX,
        ),
        SharedPoolBudgetOptions(capacity_tokens=3, stop_threshold_cost_micros_usd=4),
    ],
)
def test_a_policy_is_kept_as_it_was_given(
    shared_book: Ledger, fresh_name: str, options: SharedPoolBudgetOptions
) -> None:
    """Unlimited comes back as unlimited, and the largest amount as itself."""
    budget = shared_book.pool(fresh_name, options)
    assert options == budget.status().policy
    assert [options] == [entry.policy for entry in shared_book.entries(fresh_name)]
    assert Remaining(
        options.capacity_tokens,
        options.capacity_cost_micros_usd,
        options.capacity_tokens <= options.stop_threshold_tokens
        or options.capacity_cost_micros_usd <= options.stop_threshold_cost_micros_usd,
    ) == budget.remaining(EXTENSIONS)


@pytest.mark.parametrize(
    ("axis", "field"),
    [("total_tokens", "reserved_tokens"), ("cost_micros_usd", "reserved_cost_micros_usd")],
)
def test_a_reserved_total_over_the_range_is_refused(
    shared_book: Ledger, fresh_name: str, axis: str, field: str
) -> None:
    """Two leases that fit one by one, but not together, in an unlimited pool."""
    budget = shared_book.pool(fresh_name, OPEN)
    budget.reserve(EXTENSIONS, UsageEstimate(**{axis: I64_MAX - 1}), UNLIMITED)
    before = budget.status()
    with pytest.raises(AmountOutOfRangeError) as refused:
        budget.reserve(EXTENSIONS, UsageEstimate(**{axis: 2}), UNLIMITED)
    error = refused.value
    assert (field, 2**63, I64_MAX) == (error.field, error.value, error.ceiling)
    assert before == budget.status()
    budget.reserve(EXTENSIONS, UsageEstimate(**{axis: 1}), UNLIMITED)
    assert I64_MAX in budget.status().balance.reserved


def test_committed_totals_saturate_and_say_so(shared_book: Ledger, fresh_name: str) -> None:
    """Spend is never refused: the total stops at 2^63-1 and the entry is flagged."""
    budget = shared_book.pool(fresh_name, OPEN)
    for tokens in (I64_MAX, 0, 1):
        lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=I64_MAX), UNLIMITED)
        budget.record_used(lease, Usage(total_tokens=tokens, cost_micros_usd=0))
    assert Totals(I64_MAX, 0, 3) == budget.status().balance.committed
    flags = [entry.flags for entry in shared_book.entries(fresh_name) if entry.usage is not None]
    assert [EntryFlag.NONE, EntryFlag.NONE, EntryFlag.SATURATED] == flags
    newest = list(shared_book.entries(fresh_name))[-1]
    assert Usage(total_tokens=1) == newest.usage
    assert shared_book.verify(fresh_name)[0].ok


def test_an_unlimited_capacity_is_stored_as_null(shared_book: Ledger, fresh_name: str) -> None:
    """No number that a database cannot hold stands in the journal."""
    shared_book.pool(fresh_name, SharedPoolBudgetOptions(capacity_cost_micros_usd=5))
    (opening,) = shared_book.entries(fresh_name)
    assert {
        "capacity_tokens": None,
        "capacity_cost_micros_usd": 5,
        "stop_threshold_tokens": 0,
        "stop_threshold_cost_micros_usd": 0,
    } == opening.detail["policy"]


def test_an_overrun_is_flagged_and_kept_in_full(shared_book: Ledger, fresh_name: str) -> None:
    """The entry says all that was used; what was estimated stands in the reservation."""
    budget = shared_book.pool(fresh_name, SharedPoolBudgetOptions(capacity_tokens=10))
    lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=4), UNLIMITED)
    used = Usage(input_tokens=7, total_tokens=25, reasoning_tokens=3)
    budget.record_used(lease, used)
    _, reservation, newest = shared_book.entries(fresh_name)
    assert EntryFlag.OVERRUN == newest.flags
    assert (UsageEstimate(total_tokens=4), used) == (reservation.estimate, newest.usage)
    assert Totals(25, 0, 1) == newest.balance.committed
