"""Pools whose capacity comes back with every window."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ledger import (
    AsyncLedger,
    Entry,
    EntryKind,
    IdempotencyKey,
    JournalDamagedError,
    Ledger,
    PoolConflictError,
    PoolStatus,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Totals,
    Unpriced,
    Usage,
    Window,
    WindowState,
)
from ledger.core import rules
from ledger.core.checks import Micros, canonical_json, to_micros
from ledger.core.policy import policy_to_json
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import Clock
from tests.conformance.conftest import spend

HOUR_US = 3_600_000_000
HOURS = Window(period=timedelta(hours=1))
CARRYING = Window(period=timedelta(hours=1), carry_over=True)
BEGIN = 400_000 * HOUR_US
"""Some boundary of hours, in 2015."""

Vandal = Any  # the class is in conftest.py


class HourClock(Clock):
    """A clock that is set in hours, and begins with a window."""

    def __init__(self) -> None:
        super().__init__(BEGIN)

    def at(self, hours: float) -> None:
        """Set the clock, in hours since the beginning."""
        self.now = BEGIN + int(hours * HOUR_US)


@pytest.fixture
def clock() -> HourClock:
    """Return a clock at the beginning of a window."""
    return HourClock()


@pytest.fixture
def two(
    store_url: str, clock: HourClock, request: pytest.FixtureRequest
) -> Callable[[], tuple[Ledger, Ledger]]:
    """Return a function that opens the store twice, on each database in turn."""

    def opened() -> tuple[Ledger, Ledger]:
        books = Ledger.open(store_url, clock=clock), Ledger.open(store_url, clock=clock)
        for book in books:
            request.addfinalizer(book.close)
        return books

    return opened


@pytest.fixture
def timed(two: Callable[[], tuple[Ledger, Ledger]]) -> Ledger:
    """Return a ledger that goes by `clock`."""
    return two()[0]


def policy(window: Window | None = HOURS, capacity: int = 100, **more: Any) -> Any:  # noqa: ANN401 - any option
    """Return a policy of tokens; a hold that ends is given back."""
    more.setdefault("settlement", SettlementPolicy.RELEASE)
    return SharedPoolBudgetOptions(capacity_tokens=capacity, window=window, **more)


def left(budget: Any) -> int:  # noqa: ANN401 - any manager
    """Return what remains of the tokens."""
    found: int = budget.remaining(EXTENSIONS).tokens
    return found


def kinds(book: Ledger) -> list[str]:
    """Return what the pool's entries record."""
    return [entry.kind for entry in book.entries("pool")]


def rollovers(book: Ledger) -> list[Entry]:
    """Return the pool's rollovers, and prove that the journal is sound."""
    assert None is book.verify("pool")[0].damage
    book.replay("pool")
    return list(book.entries("pool", kind=EntryKind.ROLLOVER))


def span(window: WindowState | None) -> tuple[int, int]:
    """Return when a window begins and ends, in hours since the beginning."""
    assert window is not None
    return (window.start - BEGIN) // HOUR_US, (window.end - BEGIN) // HOUR_US


def test_the_first_write_in_a_new_window_begins_it(timed: Ledger, clock: HourClock) -> None:
    """One entry carries the base, and history and lifetime totals stay."""
    budget = timed.pool("pool", policy())
    spend(budget, 80)
    clock.at(0.999)
    assert 20 == left(budget)
    clock.at(1)
    spend(budget, 70)
    assert (30, 150) == (left(budget), budget.status().balance.committed.tokens)
    (rolled,) = rollovers(timed)
    assert ["opening", "reservation", "settlement", "rollover", "reservation", "settlement"] == (
        kinds(timed)
    )
    assert [1, 1, 1, 4, 4, 4] == [entry.window_seq for entry in timed.entries("pool")]
    assert WindowState(Micros(BEGIN + HOUR_US), Micros(BEGIN + 2 * HOUR_US), Totals(80, 0, 1)) == (
        rolled.window
    )
    carried = {"tokens": 0, "cost_micros_usd": 0, "requests": 0}
    assert {
        "window": {
            "start": BEGIN + HOUR_US,
            "end": BEGIN + 2 * HOUR_US,
            "carried": carried,
            "skipped": 0,
        }
    } == rolled.detail


def test_a_window_begins_by_a_denied_call_too(timed: Ledger, clock: HourClock) -> None:
    """Whatever is written to the pool comes behind its rollover."""
    budget = timed.pool("pool", policy())
    clock.at(1)
    with pytest.raises(ThresholdExceededError) as denied:
        budget.reserve(RequestExtensions(IdempotencyKey("k")), tokens(101), UNLIMITED)
    assert 100 == denied.value.remaining_tokens
    assert ["opening", "rollover", "denial"] == kinds(timed)
    assert 1 == len(rollovers(timed))


def test_a_window_is_over_although_nothing_was_written(timed: Ledger, clock: HourClock) -> None:
    """What remains is of the window that it is now, and to ask writes nothing."""
    budget = timed.pool("pool", policy())
    spend(budget, 80)
    budget.reserve(EXTENSIONS, tokens(5), UNLIMITED)
    for hours, expected in ((0.5, 15), (1, 95), (7.5, 95)):
        clock.at(hours)
        status: PoolStatus = budget.status()
        assert (expected, expected, 4) == (left(budget), status.remaining.tokens, status.seq)
        assert (int(hours), int(hours) + 1) == span(status.window)
    status = budget.status()
    assert status.window is not None
    assert (Totals(80, 0, 1), 6) == (status.window.base, status.window.skipped)
    assert [] == rollovers(timed)


@pytest.mark.parametrize(
    ("window", "carried"),
    [
        (HOURS, 0),
        (CARRYING, 70 + 3 * 100),
        (Window(period=timedelta(hours=1), carry_over=True, carry_cap_tokens=150), 150),
    ],
)
def test_a_store_that_was_not_written_for_three_windows(
    timed: Ledger, clock: HourClock, window: Window, carried: int
) -> None:
    """One rollover begins the window that it is; each silent one left its capacity over."""
    budget = timed.pool("pool", policy(window))
    spend(budget, 30)
    clock.at(4.5)
    seen = budget.status()
    spend(budget, 10)
    (rolled,) = rollovers(timed)
    assert rolled.window == seen.window
    assert rolled.window is not None
    assert ((4, 5), 3, carried) == (
        span(rolled.window),
        rolled.window.skipped,
        rolled.window.carried.tokens,
    )
    assert (100 + carried, 90 + carried) == (seen.remaining.tokens, left(budget))


def test_a_lease_that_crosses_the_boundary(timed: Ledger, clock: HourClock) -> None:
    """It is still held in the new window, and counts in the window in which it is settled."""
    budget = timed.pool("pool", policy())
    lease = budget.reserve(EXTENSIONS, tokens(60), UNLIMITED)
    clock.at(1.5)
    assert 40 == left(budget)
    spend(budget, 10)
    assert 30 == left(budget)
    budget.record_used(lease, Usage(total_tokens=50))
    assert 40 == left(budget)
    clock.at(2)
    assert 100 == left(budget)
    assert 1 == len(rollovers(timed))


def test_a_part_that_was_observed_counts_in_its_own_window(timed: Ledger, clock: HourClock) -> None:
    """The rest of the lease counts in the next one."""
    budget = timed.pool("pool", policy())
    lease = budget.reserve(EXTENSIONS, tokens(60), UNLIMITED)
    budget.observe(lease, Usage(total_tokens=20))
    clock.at(1)
    assert 60 == left(budget)
    budget.record_used(lease, Usage(total_tokens=45))
    assert 55 == left(budget)
    assert 1 == len(rollovers(timed))


def test_a_lease_due_before_the_boundary_expires_first(timed: Ledger, clock: HourClock) -> None:
    """What it held is part of the rest, and late usage counts when it comes."""
    budget = timed.pool("pool", policy(CARRYING, lease_ttl=timedelta(minutes=30)))
    lease = budget.reserve(EXTENSIONS, tokens(60), UNLIMITED)
    clock.at(1.25)
    spend(budget, 10)
    assert ["opening", "reservation", "expiry", "rollover"] == kinds(timed)[:4]
    assert 190 == left(budget)
    budget.record_used(lease, Usage(total_tokens=70))
    assert 120 == left(budget)
    assert 100 == rollovers(timed)[0].detail["window"]["carried"]["tokens"]


def test_what_an_expiry_crosses_is_reported_before_the_rollover(
    timed: Ledger, clock: HourClock
) -> None:
    """The report belongs to the expiry, in the window that has ended, and that is sound."""
    options = policy(lease_ttl=timedelta(minutes=30), thresholds={"half": 50})
    budget = timed.pool("pool", options)
    budget.reserve(EXTENSIONS, tokens(60), UNLIMITED)
    clock.at(1.25)
    timed.expire_due("pool")
    assert ["reservation", "threshold", "expiry", "threshold", "rollover"] == kinds(timed)[1:]
    assert 1 == len(rollovers(timed))


def test_what_is_held_at_the_boundary_counts_once(timed: Ledger, clock: HourClock) -> None:
    """A hold counts in the new window, so that nothing is lost when it is released unused."""
    budget = timed.pool("pool", policy(CARRYING))
    spend(budget, 30)
    lease = budget.reserve(EXTENSIONS, tokens(60), UNLIMITED)
    clock.at(1)
    assert 100 + 70 - 60 == left(budget)
    budget.release(lease)
    assert 170 == left(budget)
    spend(budget, 165)
    clock.at(2)
    assert 105 == left(budget)
    spend(budget, 1)
    assert [70, 5] == [one.detail["window"]["carried"]["tokens"] for one in rollovers(timed)]


def test_overage_is_taken_off_the_next_windows(timed: Ledger, clock: HourClock) -> None:
    """Real spend above the capacity is made up for by the windows behind it, and that verifies."""
    owing = Window(period=timedelta(hours=1), deduct_overage=True)
    budget = timed.pool("pool", policy(owing))
    budget.record_used(budget.reserve(EXTENSIONS, tokens(10), UNLIMITED), Usage(total_tokens=170))
    clock.at(1)
    assert 30 == left(budget)
    with pytest.raises(ThresholdExceededError):
        budget.reserve(EXTENSIONS, tokens(31), UNLIMITED)
    spend(budget, 20)
    clock.at(2)
    assert 100 == left(budget)
    spend(budget, 1)
    assert [-70, 0] == [one.detail["window"]["carried"]["tokens"] for one in rollovers(timed)]
    assert timed.verify("pool")[0].ok


def test_a_refund_of_an_earlier_window_frees_nothing(timed: Ledger, clock: HourClock) -> None:
    """What a correction takes back of it is of the past; what it adds here can be taken back here.

    So no window spends more than its capacity, also in a pool above.
    """
    above = timed.pool("above", policy(thresholds={"half": 50}))
    budget = timed.pool("pool", policy(), parent="above")
    spend(budget, 60)
    clock.at(1)
    spend(budget, 70)
    earlier, present = timed.entries("pool", kind=EntryKind.SETTLEMENT)
    said = []
    for entry, real in ((earlier, 40), (earlier, 55), (earlier, 50), (earlier, 10), (present, 65)):
        budget.correct(entry, Usage(total_tokens=real), "the invoice")
        said.append((left(budget), left(above), above.status().spent.tokens))
    assert [(30, 30, 70), (15, 15, 85), (20, 20, 80), (30, 30, 70), (35, 35, 65)] == said
    with Ledger.open(timed.url, clock=clock) as other:
        assert 35 == left(other.pool("pool"))
        budget.correct(earlier, Usage(), "the invoice")
        spend(other.pool("pool"), 35)
    with pytest.raises(ThresholdExceededError):
        budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    assert [0, 0] == [timed.replay(name).window.base.tokens for name in ("pool", "above")]
    crossed = [one.detail["threshold"] for one in timed.entries("above", kind=EntryKind.THRESHOLD)]
    assert [("half", "reached"), ("half", "left"), ("half", "reached")] == [
        (one["name"], one["direction"]) for one in crossed
    ]
    clock.at(2)
    assert 100 == left(budget)
    spend(budget, 1)
    assert [None, None] == [one.damage for one in timed.verify()]


@pytest.mark.parametrize(("usage", "remaining"), [(40, 100), (60, 100), (85, 75)])
def test_late_usage_counts_by_how_much_it_differs(
    timed: Ledger, clock: HourClock, usage: int, remaining: int
) -> None:
    """It replaces what an earlier window was charged, and frees nothing in this one."""
    charged = policy(settlement=SettlementPolicy.ESTIMATED, lease_ttl=timedelta(minutes=5))
    above = timed.pool("above", policy())
    budgets: list[Any] = [
        timed.pool("pool", charged, parent="above"),
        SharedPoolBudgetManager(charged, clock=clock),
    ]
    leases = [budget.reserve(EXTENSIONS, tokens(60), UNLIMITED) for budget in budgets]
    clock.at(1)
    for budget, lease in zip(budgets, leases, strict=True):
        spend(budget, 0)
        budget.observe(lease, Usage(total_tokens=30))
        assert 100 == left(budget)
        budget.record_used(lease, Usage(total_tokens=usage - 30))
        assert remaining == left(budget)
        budget.release(budget.reserve(EXTENSIONS, tokens(remaining), UNLIMITED))
    assert remaining == left(above)
    *_, settled = timed.entries("pool", kind=EntryKind.SETTLEMENT)
    for real in (usage - 35, 0):  # takes back what counted here, and nothing of what was charged
        budgets[0].correct(settled, Usage(total_tokens=real), "the invoice")
        assert 100 - max(0, real - 30) == left(budgets[0]) == left(above)
    assert all(one.ok for one in timed.verify())


def test_what_a_correction_added_to_a_charge_stays_counted_in_its_window(
    timed: Ledger, clock: HourClock
) -> None:
    """Late usage replaces the charge, and leaves that much counted until the window ends."""
    charged = policy(settlement=SettlementPolicy.ESTIMATED, lease_ttl=timedelta(minutes=5))
    budget = timed.pool("pool", charged)
    lease = budget.reserve(EXTENSIONS, tokens(30), UNLIMITED)
    clock.at(0.5)
    timed.expire_due()
    (expiry,) = timed.entries("pool", kind=EntryKind.EXPIRY)
    clock.at(1)
    budget.correct(expiry, Usage(total_tokens=50), "the invoice")
    assert 80 == left(budget)
    budget.record_used(lease, Usage(total_tokens=40))
    assert 80 == left(budget)  # 10 more than the earlier window was charged, and 10 that stay
    clock.at(2)
    assert 100 == left(budget)
    assert [None] == [one.damage for one in timed.verify()]


def test_every_axis_has_its_own_window(timed: Ledger, clock: HourClock) -> None:
    """Cost and requests come back like tokens, each with its own cap."""
    window = Window(
        period=timedelta(hours=1),
        carry_over=True,
        carry_cap_cost_micros_usd=7,
        carry_cap_requests=1,
    )
    options = SharedPoolBudgetOptions(
        capacity_cost_micros_usd=50, capacity_requests=3, window=window, unpriced=Unpriced.FLAG
    )
    budget = timed.pool("pool", options)
    spend(budget, 5)
    clock.at(1)
    found = budget.remaining(EXTENSIONS)
    assert (57, 4) == (found.cost_micros_usd, found.requests)
    for _ in range(4):
        spend(budget, 5)
    with pytest.raises(ThresholdExceededError) as denied:
        spend(budget, 5)
    assert 0 == denied.value.remaining_requests
    assert 1 == len(rollovers(timed))


def test_a_window_that_an_adjustment_sets(timed: Ledger, clock: HourClock) -> None:
    """It begins at the adjustment: what was committed until then does not count in it."""
    budget = timed.pool("pool", policy(None))
    spend(budget, 80)
    clock.at(1.5)
    timed.adjust("pool", policy(HOURS))
    status = budget.status()
    assert status.window is not None
    assert (100, Totals(80, 0, 1)) == (status.remaining.tokens, status.window.base)
    assert (BEGIN + 3 * HOUR_US // 2, BEGIN + 2 * HOUR_US) == status.window[:2]
    spend(budget, 10)
    assert 90 == left(budget)
    clock.at(2)
    assert 100 == left(budget)
    assert [] == rollovers(timed)
    assert [None, None, None, 4, 4, 4] == [entry.window_seq for entry in timed.entries("pool")]


def test_a_window_that_an_adjustment_changes(timed: Ledger, clock: HourClock) -> None:
    """Another calendar begins another window; another capacity or carry-over does not."""
    budget = timed.pool("pool", policy())
    spend(budget, 80)
    timed.adjust("pool", policy(capacity=120))
    assert 40 == left(budget)
    timed.adjust("pool", policy(CARRYING, 120))
    assert 40 == left(budget)
    timed.adjust("pool", policy(Window(period=timedelta(hours=2)), 120))
    assert (120, (0, 2)) == (left(budget), span(budget.status().window))
    clock.at(1.5)
    timed.adjust("pool", policy(CARRYING))
    assert (100, 2) == (left(budget), span(budget.status().window)[1])
    assert [] == rollovers(timed)
    assert [1, 1, 1, 1, 1, 6, 7] == [entry.window_seq for entry in timed.entries("pool")]


def test_a_window_that_an_adjustment_takes_away(timed: Ledger, clock: HourClock) -> None:
    """All that was ever committed counts again; set once more, the window begins anew."""
    budget = timed.pool("pool", policy())
    spend(budget, 80)
    clock.at(1)
    spend(budget, 70)
    timed.adjust("pool", policy(None, 200))
    assert (50, None) == (left(budget), budget.status().window)
    clock.at(5)
    assert 50 == left(budget)
    timed.adjust("pool", policy())
    assert (100, (5, 6)) == (left(budget), span(budget.status().window))
    assert 1 == len(rollovers(timed))


def test_an_adjustment_comes_behind_the_rollover(timed: Ledger, clock: HourClock) -> None:
    """The rest is carried over by the policy under which it was left."""
    budget = timed.pool("pool", policy(CARRYING))
    spend(budget, 80)
    clock.at(1)
    timed.adjust("pool", policy(CARRYING, 1_000))
    assert ["rollover", "adjustment"] == kinds(timed)[-2:]
    assert 1_020 == left(budget)
    assert 1 == len(rollovers(timed))


def test_a_pool_with_a_window_is_opened_again(
    two: Callable[[], tuple[Ledger, Ledger]], clock: HourClock
) -> None:
    """The base is read from the journal; another window is another policy."""
    here, _ = two()
    spend(here.pool("pool", policy()), 80)
    clock.at(1)
    spend(here.pool("pool", policy()), 70)
    there, _ = two()
    assert 30 == left(there.pool("pool", policy()))
    with pytest.raises(PoolConflictError, match="in windows of 1:00:00"):
        there.pool("pool", policy(CARRYING))


def test_two_managers_begin_a_window_once(
    two: Callable[[], tuple[Ledger, Ledger]], clock: HourClock
) -> None:
    """Whichever comes first, and both see the same, hour after hour."""
    books = two()
    budgets = [book.pool("pool", policy(CARRYING)) for book in books]
    for hour in range(6):
        clock.at(hour)
        spend(budgets[hour % 2], 60)
        spend(budgets[(hour + 1) % 2], 30)
        assert budgets[0].status() == budgets[1].status()
        assert 10 * (hour + 1) == left(budgets[0])
    assert 5 == len(rollovers(books[0]))


def test_threads_of_two_ledgers_begin_a_window_once(
    two: Callable[[], tuple[Ledger, Ledger]], clock: HourClock
) -> None:
    """All at once, in the first moment of a window: nothing is overspent, and one rolls over."""
    books = two()
    budgets = [book.pool("pool", policy(capacity=12)) for book in books]
    spend(budgets[0], 12)
    clock.at(1)
    granted: list[int] = []
    together = threading.Barrier(8)

    def work(budget: Any) -> None:  # noqa: ANN401 - a manager
        together.wait()
        for _ in range(3):
            try:
                granted.append(budget.reserve(EXTENSIONS, tokens(1), UNLIMITED).id)
            except ThresholdExceededError:
                return

    threads = [threading.Thread(target=work, args=(budgets[n % 2],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 12 == len(set(granted))
    assert (1, 0) == (len(rollovers(books[0])), left(budgets[1]))


def test_a_window_waits_for_the_clock(store_url: str, clock: HourClock) -> None:
    """A ledger whose clock is behind writes into the window that the other one has begun."""
    slow = HourClock()
    with Ledger.open(store_url, clock=clock) as book, Ledger.open(store_url, clock=slow) as behind:
        budget, late = book.pool("pool", policy()), behind.pool("pool", policy())
        clock.at(1)
        spend(budget, 80)
        slow.at(0.9)
        assert 20 == left(late)
        spend(late, 15)
        slow.at(1.1)
        spend(late, 2)
        assert 3 == left(budget)
        slow.at(2)
        assert 100 == left(late)
        spend(late, 1)
        assert 2 == len(rollovers(book))


def test_a_repeated_call_gets_its_first_answer_in_the_next_window(
    timed: Ledger, clock: HourClock
) -> None:
    """A denial under a key stands, although there would be enough now."""
    budget = timed.pool("pool", policy())
    spend(budget, 80)
    once = RequestExtensions(IdempotencyKey("once"))
    with pytest.raises(ThresholdExceededError):
        budget.reserve(once, tokens(30), UNLIMITED)
    clock.at(1)
    with pytest.raises(ThresholdExceededError) as again:
        budget.reserve(once, tokens(30), UNLIMITED)
    assert 20 == again.value.remaining_tokens
    assert ["settlement", "denial"] == kinds(timed)[-2:]
    assert [] == rollovers(timed)


def test_a_sweep_begins_the_window_too(timed: Ledger, clock: HourClock) -> None:
    """It is a write like others."""
    timed.pool("pool", policy(lease_ttl=timedelta(minutes=1))).reserve(
        EXTENSIONS, tokens(5), UNLIMITED
    )
    clock.at(1)
    assert 1 == timed.expire_due("pool")
    assert ["expiry", "rollover"] == kinds(timed)[-2:]
    assert 1 == len(rollovers(timed))


def test_a_day_in_spring_has_twenty_three_hours(store_url: str, clock: HourClock) -> None:
    """The pool's day ends at midnight in Berlin, not in UTC, and not a day after it began."""
    berlin = ZoneInfo("Europe/Berlin")
    clock.now = to_micros("at", datetime(2026, 3, 29, 0, 0, tzinfo=berlin))
    began = clock.now
    with Ledger.open(store_url, clock=clock) as book:
        days = Window(period="day", time_zone="Europe/Berlin")  # type: ignore[arg-type]
        budget = book.pool("pool", policy(days))
        spend(budget, 80)
        clock.now = began + 23 * HOUR_US - 1
        assert 20 == left(budget)
        clock.now += 1
        assert 100 == left(budget)
        spend(budget, 1)
        assert 1 == len(rollovers(book))


def test_windows_go_by_the_store_s_own_clock(book: Ledger) -> None:
    """Without a clock of the test's: the server's time, or this machine's."""
    budget = book.pool("pool", policy(Window(period=timedelta(seconds=1)), 10**9))
    spend(budget, 80)
    ended = budget.status().window
    assert ended is not None
    deadline = time.monotonic() + 10
    while budget.status().window == ended and time.monotonic() < deadline:
        time.sleep(0.05)
    assert 10**9 == left(budget)
    spend(budget, 7)
    assert 1 <= len(rollovers(book))


def test_windows_in_asyncio(store_url: str, clock: HourClock) -> None:
    """A new window begins with the first call behind its limit, awaited as well."""

    async def main() -> None:
        async with await AsyncLedger.open(store_url, clock=clock) as book:
            budget = await book.pool("pool", policy())
            for hours, expected in ((0, 20), (1, 20), (3.5, 20)):
                clock.at(hours)
                lease = await budget.reserve(EXTENSIONS, tokens(90), UNLIMITED)
                await budget.record_used(lease, Usage(total_tokens=80))
                assert expected == (await budget.remaining(EXTENSIONS)).tokens
                assert (int(hours), int(hours) + 1) == span((await budget.status()).window)
            assert [0, 1] == [one.detail["window"]["skipped"] for one in rollovers(book.sync)]

    asyncio.run(main())


def test_memory_has_the_same_windows(timed: Ledger, clock: HourClock) -> None:
    """Step by step, what remains is what remains of a pool in a store."""
    options = policy(CARRYING, lease_ttl=timedelta(minutes=40))
    budgets: list[Any] = [
        timed.pool("pool", options),
        SharedPoolBudgetManager(options, clock=clock),
    ]
    steps: list[list[int]] = []
    for budget in budgets:
        clock.at(0)
        found = [left(budget)]
        for hours in (0, 0.5, 1, 1.2, 2.5, 7.25):
            clock.at(hours)
            found.append(left(budget))
            spend(budget, 20)
            budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
            found.append(left(budget))
        steps.append(found)
    assert steps[0] == steps[1]
    assert 1 < len(set(steps[0]))


def fill(book: Ledger, clock: HourClock) -> None:
    """Write into three windows: 1 opening, 4 rollover, 7 adjustment, 8 rollover, 9 denial."""
    budget = book.pool("pool", policy(CARRYING))
    spend(budget, 80)
    clock.at(1)
    spend(budget, 70)
    book.adjust("pool", policy(CARRYING, 120))
    clock.at(3)
    with pytest.raises(ThresholdExceededError):
        budget.reserve(RequestExtensions(IdempotencyKey("k")), tokens(10_000), UNLIMITED)
    assert ["rollover", "denial"] == kinds(book)[-2:]


def detail(begin: float, end: float, carried: int, skipped: int) -> str:
    """Return the text of a rollover's detail."""
    start, stop = (BEGIN + int(hours * HOUR_US) for hours in (begin, end))
    amounts = f'{{"cost_micros_usd":0,"requests":0,"tokens":{carried}}}'
    return f'{{"window":{{"carried":{amounts},"end":{stop},"skipped":{skipped},"start":{start}}}}}'


def without_windows(capacity: int) -> str:
    """Return the text of the detail of an opening or adjustment that begins no window."""
    options = SharedPoolBudgetOptions(capacity_tokens=capacity)
    return canonical_json(
        {"actor": {"user": "u"}, "policy": policy_to_json(options), "rules": rules.stamp()}
    )


LIES: list[tuple[int, dict[str, Any], int, str]] = [
    (4, {"detail": detail(1, 2, 21, 0)}, 4, "window should be"),
    (4, {"detail": detail(1, 2, 20, 1)}, 4, "window should be"),
    (4, {"detail": detail(1, 3, 20, 0)}, 4, "window should be"),
    (4, {"detail": detail(0.5, 2, 20, 0)}, 4, "window should be"),
    (4, {"detail": None}, 4, "window should be"),
    (4, {"detail": '{"window":{}}'}, 4, "cannot be read"),
    (4, {"committed_tokens": 50}, 4, "window should be"),
    (4, {"window_seq": 1}, 4, "window_seq should be 4"),
    (5, {"window_seq": 1}, 5, "window_seq should be 4"),
    (4, {"recorded_at": BEGIN + HOUR_US - 1}, 4, "had not ended"),
    (4, {"kind": "adjustment"}, 4, "adjustment"),
    (4, {"recorded_at": 2**62}, 4, "recorded_at: "),
    (7, {"recorded_at": 2**62}, 7, "recorded_at: "),
    (5, {"recorded_at": BEGIN + 2 * HOUR_US}, 5, "reservation in a window that had ended"),
    (1, {"detail": without_windows(100)}, 1, "window_seq should be None"),
    (7, {"detail": without_windows(120)}, 7, "window_seq should be None"),
    (9, {"window_seq": 4}, 9, "window_seq should be 8"),
]
"""An entry, what is changed in it, and where that is found, and why."""


def test_a_forged_window_is_found(
    timed: Ledger, clock: HourClock, vandal: Vandal, store_url: str
) -> None:
    """Base, times, what was carried over, and when it was written: the rules say it all."""
    assert store_url
    fill(timed, clock)
    missed = []
    for seq, changes, bad, reason in LIES:
        before = vandal.row(seq)
        vandal.forge(seq, **changes)
        found = timed.verify("pool")[0].damage
        if found is None or bad != found.seq or reason not in found.reason:
            missed.append((seq, changes, found))
        vandal.forge(seq, **{name: before[name] for name in changes})
    assert [] == missed
    assert 2 == len(rollovers(timed))


def test_a_rollover_that_is_missing_is_found(
    timed: Ledger, clock: HourClock, vandal: Vandal
) -> None:
    """Made another kind of entry, or taken out and the others moved up."""
    fill(timed, clock)
    vandal.run(
        "DELETE FROM entries WHERE seq = 8",
        "UPDATE entries SET seq = 8, window_seq = 4 WHERE seq = 9",
    )
    vandal.rechain()
    found = timed.verify("pool")[0].damage
    assert found is not None
    assert (8, "denial in a window that had ended") == (found.seq, found.reason)
    with pytest.raises(JournalDamagedError, match="window that had ended"):
        timed.replay("pool")


def test_a_pool_whose_window_is_missing_is_not_written_to(
    timed: Ledger, clock: HourClock, vandal: Vandal, store_url: str
) -> None:
    """No base is guessed: neither to write nor to read."""
    fill(timed, clock)
    vandal.run("UPDATE entries SET detail = NULL WHERE seq = 8")
    with Ledger.open(store_url, clock=clock) as book:
        budget = book.pool("pool")
        for call in (budget.status, lambda: budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)):
            with pytest.raises(JournalDamagedError, match=r"entry 8.*begin|entry 8.*window"):
                call()


NAMED = {"half": 50}


def test_a_threshold_is_reported_once_in_every_window(timed: Ledger, clock: HourClock) -> None:
    """A rollover leaves it, and that is reported; memory tells the same."""
    heard: list[tuple[str, int]] = []
    memory = SharedPoolBudgetManager(
        policy(thresholds=NAMED),
        clock=clock,
        on_threshold=lambda one: heard.append((str(one.direction), one.remaining.tokens)),
    )
    budgets: list[Any] = [timed.pool("pool", policy(thresholds=NAMED)), memory]
    for hour in range(3):
        clock.at(hour)
        for budget in budgets:
            spend(budget, 60)
            spend(budget, 5)
    told = [
        entry.detail["threshold"]["direction"]
        for entry in timed.entries("pool", kind=EntryKind.THRESHOLD)
    ]
    assert ["reached", "left", "reached", "left", "reached"] == told
    deadline = time.monotonic() + 20
    while len(heard) < len(told) and time.monotonic() < deadline:
        time.sleep(0.002)
    assert told == [direction for direction, _ in heard]
    assert [40, 100, 40, 100, 40] == [left for _, left in heard]
    assert 2 == len(rollovers(timed))


def test_each_pool_of_a_tree_has_windows_of_its_own(timed: Ledger, clock: HourClock) -> None:
    """A write to the leaf rolls over what has ended above; holds cross every boundary."""
    timed.pool("org", policy(Window(period=timedelta(hours=2)), 150))
    pool = timed.pool("pool", policy(thresholds=NAMED), parent="org")
    spend(pool, 80)
    lease = pool.reserve(EXTENSIONS, tokens(15), UNLIMITED)
    clock.at(1)
    assert 150 - 95 == left(pool)
    with pytest.raises(ThresholdExceededError, match="'org'"):
        pool.reserve(EXTENSIONS, tokens(60), UNLIMITED)
    clock.at(2)
    assert 100 - 15 == left(pool)
    pool.record_used(lease, Usage(total_tokens=10))
    assert (90, 140) == (left(pool), timed.pool("org").remaining(EXTENSIONS).tokens)
    assert (2, 1) == (
        len(list(timed.entries("pool", kind=EntryKind.ROLLOVER))),
        len(list(timed.entries("org", kind=EntryKind.ROLLOVER))),
    )
    assert [None, None] == [found.damage for found in timed.verify()]


def test_a_lease_that_expires_below_in_a_new_window_above(timed: Ledger, clock: HourClock) -> None:
    """The expiry's mirror comes ahead of the parent's rollover, as the expiry of the child's."""
    timed.pool("org", policy(CARRYING, 100))
    pool = timed.pool("pool", policy(None, 100, lease_ttl=timedelta(minutes=30)), parent="org")
    lease = pool.reserve(EXTENSIONS, tokens(60), UNLIMITED)
    clock.at(1.5)
    assert 1 == timed.expire_due("pool")
    assert 200 == timed.pool("org").remaining(EXTENSIONS).tokens
    pool.record_used(lease, Usage(total_tokens=70))
    assert 130 == timed.pool("org").remaining(EXTENSIONS).tokens
    assert [None, None] == [found.damage for found in timed.verify()]
