"""Times at the door: what no store could show again is refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger import (
    InvalidInputError,
    Ledger,
    OccurredAt,
    Period,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    Window,
    from_micros,
)
from ledger.core.checks import CLOCK_EARLIEST, EARLIEST, LATEST
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import Clock

FIRST, LAST = from_micros(EARLIEST), from_micros(LATEST - 1)
EDGES = [
    datetime.min.replace(tzinfo=UTC),
    FIRST - timedelta(microseconds=1),
    from_micros(LATEST),
    datetime.max.replace(tzinfo=UTC),
]
"""Times that are refused."""
PERIODS: list[Any] = [*Period, timedelta(seconds=1), timedelta(days=3_650)]
ZONES = ["UTC", "Asia/Tokyo", "America/New_York", "Pacific/Kiritimati", "Etc/GMT+12"]
ANSWERS: list[Any] = [
    1_700_000_000,
    1_700_000_000_000,
    1_700_000_000_000_000_000,
    1_700_000_000_000_000.0,
    float("nan"),
    -1,
    0,
    None,
    True,
    "1700000000000000",
    CLOCK_EARLIEST - 1,
    LATEST,
    2**63,
    10**30,
]
"""Answers of clocks that count seconds, milliseconds, nanoseconds, or nothing of use."""


def windowed(anchor: datetime, period: Any = Period.DAY, zone: str = "UTC") -> Any:  # noqa: ANN401 - a period of either type
    """Return a policy with a window."""
    zone = "UTC" if isinstance(period, timedelta) else zone
    return SharedPoolBudgetOptions(
        capacity_tokens=100, window=Window(period=period, time_zone=zone, anchor=anchor)
    )


@pytest.mark.parametrize("anchor", EDGES)
def test_an_anchor_at_the_edge_of_the_calendar_is_refused(book: Ledger, anchor: datetime) -> None:
    """By opening, by adjusting and in memory; nothing is written, and the store stays readable."""
    book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=100))
    for period in PERIODS:
        for zone in ZONES:
            policy = windowed(anchor, period, zone)
            with pytest.raises(InvalidInputError, match=r"window\.anchor"):
                book.pool("edge", policy)
            with pytest.raises(InvalidInputError, match=r"window\.anchor"):
                book.adjust("pool", policy)
            with pytest.raises(InvalidInputError, match=r"window\.anchor"):
                SharedPoolBudgetManager(policy)
    assert (["pool"], 1) == ([info.name for info in book.pools()], book.size())
    assert all(found.ok for found in book.verify())


@pytest.mark.parametrize("anchor", [FIRST, LAST])
def test_every_window_of_an_accepted_anchor_can_be_read(
    store_url: str, clock: Clock, anchor: datetime
) -> None:
    """At the first and the last time that the clock may show, in every zone."""
    with Ledger.open(store_url, clock=clock) as book:
        for number, (period, zone) in enumerate((p, z) for p in PERIODS for z in ZONES):
            policy = windowed(anchor, period, zone)
            clock.now = CLOCK_EARLIEST
            pool = book.pool(f"pool {number}", policy)
            memory = SharedPoolBudgetManager(policy, clock=clock)
            clock.now = LATEST - 1
            for budget in (pool, memory):
                lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=60), UNLIMITED)
                budget.renew(lease, timedelta(days=3_650))
                assert 40 == budget.remaining(EXTENSIONS).tokens
            window = pool.status().window
            assert window is not None
            assert from_micros(window.start) <= LAST < from_micros(window.end)
        assert all(found.ok for found in book.verify())


@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
def test_a_clock_that_counts_something_else_is_refused(
    store_url: str, clock: Clock, answer: object
) -> None:
    """Before anything is written, and what was written before stays as it was."""
    policy = SharedPoolBudgetOptions(lease_ttl=timedelta(days=3_650))
    with Ledger.open(store_url, clock=clock) as book:
        budget = book.pool("pool", policy)
        lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=1), UNLIMITED)
        good, clock.now = clock.now, answer  # type: ignore[assignment] - what is tested
        calls: list[Callable[[], object]] = [
            lambda: book.pool("another", policy),
            lambda: budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=1), UNLIMITED),
            lambda: budget.record_used(lease, Usage(total_tokens=1)),
            lambda: budget.renew(lease, timedelta(days=1)),
            lambda: book.adjust("pool", SharedPoolBudgetOptions()),
            book.expire_due,
        ]
        for call in calls:
            with pytest.raises(InvalidInputError, match="clock"):
                call()
        clock.now = good
        assert (2, ["pool"]) == (book.size(), [info.name for info in book.pools()])
        budget.record_used(lease, Usage(total_tokens=1))
        assert all(found.ok for found in book.verify())


@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
def test_memory_refuses_such_a_clock_and_goes_on(clock: Clock, answer: object) -> None:
    """The manager is not poisoned: nothing was changed."""
    budget = SharedPoolBudgetManager(
        SharedPoolBudgetOptions(capacity_tokens=9, lease_ttl=timedelta(days=1)), clock=clock
    )
    lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=1), UNLIMITED)
    good, clock.now = clock.now, answer  # type: ignore[assignment] - what is tested
    calls: list[Callable[[], object]] = [
        lambda: budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=1), UNLIMITED),
        lambda: budget.record_used(lease, Usage(total_tokens=1)),
        lambda: budget.remaining(EXTENSIONS),
        lambda: SharedPoolBudgetManager(SharedPoolBudgetOptions(), clock=clock),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError, match="clock"):
            call()
    clock.now = good
    budget.record_used(lease, Usage(total_tokens=1))
    assert 8 == budget.remaining(EXTENSIONS).tokens


def test_a_clock_must_be_callable(store_url: str) -> None:
    """A time that is given in place of a function is refused, by stores and in memory."""
    number: Any = 1_700_000_000_000_000
    with pytest.raises(InvalidInputError, match="clock: must be callable"):
        Ledger.open(store_url, clock=number)
    with pytest.raises(InvalidInputError, match="clock: must be callable"):
        SharedPoolBudgetManager(SharedPoolBudgetOptions(), clock=number)


@pytest.mark.parametrize("moment", EDGES)
def test_a_call_at_the_edge_of_the_calendar_is_refused(moment: datetime) -> None:
    """When a call happened is written as it was said, so it must be a time that can be shown."""
    with pytest.raises(InvalidInputError, match="occurred_at"):
        OccurredAt(moment)
    assert [FIRST, LAST] == [OccurredAt(at).at for at in (FIRST, LAST)]


def test_memory_and_a_store_agree_when_the_clock_goes_back(store_url: str) -> None:
    """A hold lasts from the newest change on, a crossing is never told before an earlier one."""
    policy = SharedPoolBudgetOptions(capacity_tokens=10, thresholds={"half": 50})
    told: list[list[Any]] = [[], []]
    clock = Clock()
    with Ledger.open(store_url, clock=clock, on_threshold=told[0].append) as book:
        memory = SharedPoolBudgetManager(policy, clock=clock, on_threshold=told[1].append)
        ends = []
        start = clock.now
        for budget in (book.pool("pool", policy), memory):
            clock.now = start
            clock.minutes(60)
            lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=1), UNLIMITED)
            clock.minutes(-60)
            ends.append(budget.renew(lease, timedelta(minutes=30)))
            budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=6), UNLIMITED)
        memory._announcer.close()
    assert ends[0] == ends[1] == from_micros(start) + timedelta(minutes=90)
    (stored,), (kept,) = told
    assert stored.recorded_at == kept.recorded_at == from_micros(start) + timedelta(minutes=60)
