"""Calls whose usage is known are written many at once, as if they were made one by one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from operator import attrgetter

import pytest

from ledger import (
    Attribution,
    EntryKind,
    IdempotencyConflictError,
    IdempotencyKey,
    InvalidInputError,
    Ledger,
    LedgerBudgetManager,
    OccurredAt,
    PoolClosedError,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    UsageReport,
    from_micros,
)
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import Clock

Known = tuple[RequestExtensions, UsageEstimate, Usage]


def known(number: int, clock: Clock, held: int = 10, used: int = 7) -> Known:
    """Return a call, of a day before."""
    extensions = RequestExtensions(
        Attribution(run_id=f"run {number % 3}", model="m", request_id=f"q{number}"),
        OccurredAt(from_micros(clock.now) - timedelta(days=1)),
        IdempotencyKey(f"call {number}"),
    )
    return extensions, UsageEstimate(total_tokens=held), Usage(total_tokens=used)


def one_by_one(budget: LedgerBudgetManager, calls: Sequence[Known]) -> list[int | None]:
    """Reserve and settle each call by itself; return the leases."""
    leases: list[int | None] = []
    for extensions, estimate, usage in calls:
        key = extensions.get(IdempotencyKey)
        assert key is not None
        try:
            lease = budget.reserve(extensions, estimate, UNLIMITED)
        except ThresholdExceededError:
            leases.append(None)
        else:
            budget.record_used(lease, usage, report=UsageReport(idempotency_key=f"{key.key}:used"))
            leases.append(lease.id)
    return leases


def ids(budget: LedgerBudgetManager, calls: Sequence[Known], at_once: int = 1) -> list[int | None]:
    """Reserve and settle calls together; return the leases."""
    found = budget.reserve_and_settle(calls, at_once=at_once)
    return [None if lease is None else lease.id for lease in found]


def told(book: Ledger, pool: str) -> list[object]:
    """Return what a pool's entries say, but for what proves them."""
    columns = attrgetter(
        *("seq", "kind", "usage", "balance", "lease", "idempotency_key", "flags"),
        *("attribution", "request_id", "at", "detail", "recorded_at"),
    )
    return [columns(one) for one in book.entries(pool) if one.kind != EntryKind.OPENING]


def damage(book: Ledger) -> list[object]:
    """Return what `verify` finds wrong."""
    return [found.damage for found in book.verify() if not found.ok]


def test_the_entries_are_those_of_single_calls(timed: Ledger, clock: Clock) -> None:
    """Denials, the pool above and the keys among them, over more than one transaction."""
    calls = [known(number, clock) for number in range(200)]
    options = SharedPoolBudgetOptions(capacity_tokens=1_300)
    leases = []
    for name, make in (("single", one_by_one), ("many", ids)):
        timed.pool(f"above {name}", SharedPoolBudgetOptions())
        leases.append(make(timed.pool(name, options, parent=f"above {name}"), calls))
    assert leases[0] == leases[1]
    assert 185 == sum(lease is not None for lease in leases[0])
    assert told(timed, "single") == told(timed, "many")
    assert told(timed, "above single") == told(timed, "above many")
    assert [] == damage(timed)


def test_so_many_are_held_at_once(timed: Ledger, clock: Clock) -> None:
    """Each call is settled as soon as four are reserved, and all at the end of a transaction."""
    pool = timed.pool("pool", SharedPoolBudgetOptions())
    pool.reserve_and_settle([known(number, clock) for number in range(130)], at_once=4)
    held = [entry.balance.reserved.requests for entry in timed.entries("pool")]
    first, last = [1, 2, 3, *[4, 3] * 125, 2, 1, 0], [1, 2, 1, 0]
    assert [0, *first, *last] == held


def test_each_is_written_once(timed: Ledger, clock: Clock) -> None:
    """Again in bulk, by single calls, or where only its lease was reserved: the same entries."""
    pool = timed.pool("pool", SharedPoolBudgetOptions(capacity_tokens=58))
    calls = [known(number, clock) for number in range(8)]
    reserved = pool.reserve(*calls[0][:2], UNLIMITED)
    found = ids(pool, calls)
    assert (reserved.id, None) == (found[0], found[-1])
    before = told(timed, "pool")
    assert found == ids(pool, calls, at_once=3) == one_by_one(pool, calls)
    assert before == told(timed, "pool")
    assert [] == damage(timed)


@pytest.mark.parametrize("other", [{"held": 9}, {"used": 8}])
def test_the_key_of_another_call_writes_nothing(
    timed: Ledger, clock: Clock, other: dict[str, int]
) -> None:
    """Nothing of its transaction; what came in transactions before it stays."""
    pool = timed.pool("pool", SharedPoolBudgetOptions())
    pool.reserve_and_settle([known(150, clock)])
    calls = [known(number, clock) for number in range(150)]
    with pytest.raises(IdempotencyConflictError, match="call 150"):
        pool.reserve_and_settle([*calls, known(150, clock, **other)])
    assert 2 + 2 * 128 == pool.status().seq - 1


def test_what_another_call_recorded_under_its_name_is_not_its_own(
    timed: Ledger, clock: Clock
) -> None:
    """Its own lease would stay open, and its usage unrecorded."""
    pool = timed.pool("pool", SharedPoolBudgetOptions())
    extensions, estimate, usage = known(1, clock)
    other = pool.reserve(EXTENSIONS, estimate, UNLIMITED)
    pool.record_used(other, usage, report=UsageReport(idempotency_key="call 1:used"))
    for _ in range(2):
        with pytest.raises(IdempotencyConflictError, match="call 1:used"):
            pool.reserve_and_settle([(extensions, estimate, usage)])
    assert [] == list(timed.open_leases("pool"))


def test_a_key_of_any_length_has_one_for_its_usage(timed: Ledger, clock: Clock) -> None:
    """The longest that a caller may give, too, and once."""
    pool = timed.pool("pool", SharedPoolBudgetOptions())
    extensions, estimate, usage = known(1, clock)
    extensions.insert(IdempotencyKey("k" * 255))
    for _ in range(2):
        pool.reserve_and_settle([(extensions, estimate, usage)])
    assert 7 == pool.status().balance.committed.tokens


def test_leases_that_are_due_expire_first(timed: Ledger, clock: Clock) -> None:
    """More of them than one transaction expires: those who wait for them are done behind."""
    options = SharedPoolBudgetOptions(
        capacity_tokens=600,
        lease_ttl=timedelta(minutes=1),
        settlement=SettlementPolicy.OBSERVED,
    )
    pool = timed.pool("pool", options)
    for _ in range(600):
        pool.reserve(EXTENSIONS, UsageEstimate(total_tokens=1), UNLIMITED)
    clock.minutes(2)
    calls = [known(number, clock, held=250, used=2) for number in range(4)]
    leases = pool.reserve_and_settle(calls, at_once=2)
    assert None not in leases
    assert 8 == pool.status().balance.committed.tokens
    assert 0 == pool.status().balance.reserved.tokens
    assert [] == damage(timed)


def test_what_is_refused(timed: Ledger, clock: Clock) -> None:
    """A closed pool, a call without a key, and arguments of another type or out of range."""
    pool = timed.pool("pool", SharedPoolBudgetOptions())
    extensions, estimate, usage = known(1, clock)
    for calls, at_once, named in (
        ([(EXTENSIONS, estimate, usage)], 1, "idempotency key"),
        ([(extensions, estimate, estimate)], 1, "usage"),
        ([(extensions, usage, usage)], 1, "estimate"),
        ([(extensions, estimate, usage)], 0, "at_once"),
        ([(extensions, estimate, usage)], 129, "at_once"),
    ):
        with pytest.raises(InvalidInputError, match=named):
            pool.reserve_and_settle(calls, at_once=at_once)  # type: ignore[arg-type]
    timed.close_pool("pool")
    with pytest.raises(PoolClosedError):
        pool.reserve_and_settle([known(1, clock)])
    assert [EntryKind.OPENING, EntryKind.CLOSING] == [one.kind for one in timed.entries("pool")]
