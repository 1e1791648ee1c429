"""Limits, strict and soft: what a strict pool denies, and what named thresholds report."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from ledger import (
    AsyncLedger,
    BudgetManager,
    Direction,
    Entry,
    EntryKind,
    InvalidInputError,
    JournalDamagedError,
    Ledger,
    LedgerBudgetManager,
    Remaining,
    SettlementPolicy,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdCrossing,
    ThresholdExceededError,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
    from_micros,
)
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens

if TYPE_CHECKING:
    from tests.conformance.conftest import Vandal

NAMED = {"warning": 80, "half": 50}
OPTIONS = SharedPoolBudgetOptions(capacity_tokens=100, thresholds=NAMED)

Make = Callable[..., Any]


def take(budget: BudgetManager, amount: int) -> Any:  # noqa: ANN401 - either kind of lease
    """Reserve tokens."""
    return budget.reserve(EXTENSIONS, tokens(amount), UNLIMITED)


def reports(entries: list[Entry]) -> list[tuple[int, str, str, int]]:
    """Return the journal's reports: number, direction, name, percentage."""
    return [
        (entry.seq, *(entry.detail["threshold"][name] for name in ("direction", "name", "percent")))
        for entry in entries
        if entry.kind == EntryKind.THRESHOLD
    ]


def told(entries: list[Entry]) -> list[tuple[str, str]]:
    """Return the journal's reports without numbers: name and direction."""
    return [(name, direction) for _, direction, name, _ in reports(entries)]


class Ear:
    """A callback that keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[ThresholdCrossing] = []
        self.threads: set[str] = set()

    def __call__(self, crossing: ThresholdCrossing) -> None:
        """Keep it."""
        self.heard.append(crossing)
        self.threads.add(threading.current_thread().name)

    def names(self, number: int) -> list[tuple[str, str]]:
        """Wait for so many, and return what was heard: name and direction."""
        deadline = time.monotonic() + 20
        while len(self.heard) < number:
            assert time.monotonic() < deadline, "nobody calls"
            time.sleep(0.002)
        return [(one.threshold, str(one.direction)) for one in self.heard]


@pytest.mark.parametrize(
    ("limits", "used"),
    [
        ({"capacity_tokens": 100, "stop_threshold_tokens": 20}, {"total_tokens": 80}),
        (
            {"capacity_cost_micros_usd": 100, "stop_threshold_cost_micros_usd": 20},
            {"cost_micros_usd": 80},
        ),
        ({"capacity_requests": 2, "stop_threshold_requests": 1}, {}),
        ({"capacity_tokens": 100}, {"total_tokens": 100}),
    ],
    ids=["tokens", "cost", "requests", "nothing kept back"],
)
def test_a_strict_pool_denies_everything_at_its_threshold(
    make: Make, limits: dict[str, int], used: dict[str, int]
) -> None:
    """At or below the threshold even an estimate of nothing is denied; a soft pool admits it."""
    for strict in (True, False):
        options = SharedPoolBudgetOptions(**limits, strict=strict)
        budget = make(options, f"strict {strict}")
        lease = budget.reserve(EXTENSIONS, UsageEstimate(**used), UNLIMITED)
        assert budget.remaining(EXTENSIONS).below_threshold
        refused = strict or "capacity_requests" in limits
        for _ in range(2):
            if refused:
                with pytest.raises(ThresholdExceededError):
                    take(budget, 0)
            else:
                take(budget, 0)
        budget.record_used(lease, Usage(**used))
        if strict:
            with pytest.raises(ThresholdExceededError):
                take(budget, 0)


def test_a_strict_pool_admits_again_above_its_threshold(make: Make) -> None:
    """One above the threshold is enough, down to the threshold itself."""
    budget = make(
        SharedPoolBudgetOptions(capacity_tokens=100, stop_threshold_tokens=20, strict=True)
    )
    lease = take(budget, 80)
    with pytest.raises(ThresholdExceededError):
        take(budget, 0)
    budget.record_used(lease, Usage(total_tokens=79))
    take(budget, 0)
    take(budget, 1)
    with pytest.raises(ThresholdExceededError):
        take(budget, 0)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql"])
def test_a_crossing_is_told_once_in_each_direction(kind: str, new_store: Make) -> None:
    """Up, down, up again: the first two are told, in order, with what was left then."""
    ear, now = Ear(), [1_700_000_000_000_000]
    book = None
    if kind == "memory":
        budget: Any = SharedPoolBudgetManager(OPTIONS, clock=lambda: now[0], on_threshold=ear)
    else:
        book = Ledger.open(new_store(kind), clock=lambda: now[0], on_threshold=ear)
        budget = book.pool("pool", OPTIONS)
    small = take(budget, 49)
    now[0] += 1_000
    large = take(budget, 31)  # 80: both at once
    budget.release(large)  # 49
    large = take(budget, 51)
    budget.release(large)
    budget.release(small)
    assert [
        ("half", "reached"),
        ("warning", "reached"),
        ("half", "left"),
        ("warning", "left"),
    ] == ear.names(4)
    first = ear.heard[0]
    assert (
        ThresholdCrossing(
            pool=None if book is None else "pool",
            threshold="half",
            percent=50,
            direction=Direction.REACHED,
            seq=None if book is None else 4,
            remaining=Remaining(20, 2**64 - 1, False),
            recorded_at=from_micros(now[0]),
        )
        == first
    )
    assert 1 == len(ear.threads)
    assert threading.current_thread().name not in ear.threads
    if book is not None:
        assert [True] == [found.ok for found in book.verify()]
        book.close()
    assert 4 == len(ear.heard)


def test_the_journal_reports_behind_the_entry_that_crossed(book: Ledger) -> None:
    """Each report is an entry that changes nothing, and all of it verifies and replays."""
    budget = book.pool("pool", OPTIONS)
    lease = take(budget, 85)
    budget.record_used(lease, Usage(total_tokens=10))
    entries = list(book.entries("pool"))
    assert [
        (3, "reached", "half", 50),
        (4, "reached", "warning", 80),
        (6, "left", "half", 50),
        (7, "left", "warning", 80),
    ] == reports(entries)
    assert entries[1].balance == entries[2].balance == entries[3].balance
    assert entries[4].balance == entries[6].balance == book.replay("pool").balance
    assert [None] == [found.damage for found in book.verify()]


def test_a_lease_behind_a_report_is_its_own_entry(book: Ledger) -> None:
    """Reports take numbers, and leases are still found by theirs, in one batch too."""
    budget = book.pool("pool", OPTIONS)
    with ThreadPoolExecutor(8) as threads:
        leases = list(threads.map(lambda _: take(budget, 10), range(10)))
    assert 10 == len({lease.id for lease in leases})
    for lease in leases:
        assert lease == budget.lease(lease.token)
        budget.record_used(lease, Usage(total_tokens=10))
    assert [("half", "reached"), ("warning", "reached")] == told(list(book.entries("pool")))
    assert [None] == [found.damage for found in book.verify()]


@pytest.mark.parametrize(
    ("limits", "estimates"),
    [
        ({"capacity_tokens": 3}, [{"total_tokens": 1}, {"total_tokens": 1}]),
        ({"capacity_cost_micros_usd": 2**63 - 1}, [{"cost_micros_usd": 2**62 - 1}] * 2),
        ({"capacity_requests": 2}, [{}]),
        (
            {"capacity_tokens": 10**6, "capacity_cost_micros_usd": 10},
            [{"total_tokens": 1, "cost_micros_usd": 4}, {"cost_micros_usd": 1}],
        ),
    ],
    ids=["tokens", "cost", "requests", "whichever comes first"],
)
def test_it_is_reached_at_the_percentage_exactly(
    shared_book: Ledger, fresh_name: str, limits: dict[str, int], estimates: list[dict[str, int]]
) -> None:
    """The last of the estimates crosses, on whatever axis, and none before it."""
    options = SharedPoolBudgetOptions(**limits, thresholds={"half": 50})
    budget = shared_book.pool(fresh_name, options)
    for number, estimate in enumerate(estimates, start=1):
        budget.reserve(EXTENSIONS, UsageEstimate(**estimate), UNLIMITED)
        expected = [("half", "reached")] if number == len(estimates) else []
        assert expected == told(list(shared_book.entries(fresh_name)))


def test_what_has_no_limit_reaches_nothing(book: Ledger) -> None:
    """A pool without capacities has thresholds in vain."""
    budget = book.pool("pool", SharedPoolBudgetOptions(thresholds=NAMED))
    take(budget, 2**62)
    assert [] == told(list(book.entries("pool")))


def test_others_reports_count(store_url: str) -> None:
    """What another ledger reported is not reported again here, nor by this one after a restart."""
    ears = Ear(), Ear()
    with (
        Ledger.open(store_url, on_threshold=ears[0]) as here,
        Ledger.open(store_url, on_threshold=ears[1]) as there,
    ):
        mine, theirs = here.pool("pool", OPTIONS), there.pool("pool")
        lease = take(mine, 60)
        theirs.release(lease)
        mine.release(take(theirs, 90))
    assert [("half", "reached")] == ears[0].names(1)[:1]
    assert [("half", "left"), ("warning", "reached")] == ears[1].names(2)
    with Ledger.open(store_url) as again:
        take(again.pool("pool"), 100)
        assert 4 == len(told(list(again.entries("pool"))))
        assert [None] == [found.damage for found in again.verify()]


def test_another_policy_begins_anew(book: Ledger) -> None:
    """An adjustment crosses by itself, and what was reported before it is reported again."""
    budget = book.pool("pool", OPTIONS)
    take(budget, 60)
    book.adjust("pool", SharedPoolBudgetOptions(capacity_tokens=200, thresholds=NAMED))
    take(budget, 40)
    book.adjust("pool", SharedPoolBudgetOptions(capacity_tokens=100, thresholds=NAMED))
    book.adjust("pool", SharedPoolBudgetOptions(capacity_tokens=100, thresholds={"full": 100}))
    book.adjust("pool", SharedPoolBudgetOptions(capacity_tokens=100))
    assert [
        (3, "reached", "half", 50),
        (5, "left", "half", 50),
        (7, "reached", "half", 50),
        (9, "reached", "warning", 80),
        (11, "reached", "full", 100),
    ] == reports(list(book.entries("pool")))
    assert [None] == [found.damage for found in book.verify()]


def test_an_expiry_leaves_a_threshold(store_url: str) -> None:
    """Sweeping, by itself or before a call, reports too."""
    ear, now = Ear(), [1_700_000_000_000_000]
    options = SharedPoolBudgetOptions(
        capacity_tokens=100,
        lease_ttl=timedelta(seconds=1),
        thresholds=NAMED,
        settlement=SettlementPolicy.RELEASE,
    )
    with Ledger.open(store_url, clock=lambda: now[0], on_threshold=ear) as book:
        take(book.pool("pool", options), 50)
        now[0] += 1_000_000
        assert 1 == book.expire_due()
        assert [("half", "reached"), ("half", "left")] == ear.names(2)
        assert [None] == [found.damage for found in book.verify()]


def test_only_what_crosses_asks_what_was_reported(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that crosses nothing costs no query more than without thresholds."""
    asked = []
    monkeypatch.setattr(
        "ledger.engine.thresholds.reported",
        lambda connection, pool, since: asked.append(since) or set(),  # noqa: ARG005 - by name
    )
    budget = book.pool("pool", OPTIONS)
    take(budget, 49)
    take(budget, 0)
    assert [] == asked
    take(budget, 1)
    assert [1] == asked
    take(budget, 1)
    assert [1] == asked


def test_a_callback_that_fails_is_logged(store_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The caller has its lease, the failure is in the log, and the next crossing is told."""
    heard = []

    def fail(crossing: ThresholdCrossing) -> None:
        heard.append(crossing.threshold)
        raise ZeroDivisionError(crossing.threshold)

    with caplog.at_level(logging.ERROR, "ledger"):
        with Ledger.open(store_url, on_threshold=fail) as book:
            assert 2 == take(book.pool("pool", OPTIONS), 90).id
        assert ["half", "warning"] == heard
    assert ["ledger.engine.announcements"] * 2 == [record.name for record in caplog.records]
    assert "ZeroDivisionError: half" in caplog.text


def test_a_callback_may_use_the_budget_and_take_its_time(store_url: str) -> None:
    """It runs beside the callers: they get their answers while it sleeps, and it asks in turn."""
    gate, left = threading.Event(), []
    budgets: list[LedgerBudgetManager] = []

    def slow(_crossing: ThresholdCrossing) -> None:
        assert gate.wait(20)
        left.append(budgets[0].remaining(EXTENSIONS).tokens)
        budgets[0].release(take(budgets[0], 1))

    with Ledger.open(store_url, on_threshold=slow) as book:
        budgets.append(book.pool("pool", OPTIONS))
        take(budgets[0], 50)
        take(budgets[0], 10)
        gate.set()
        deadline = time.monotonic() + 20
        while not left and time.monotonic() < deadline:
            time.sleep(0.002)
    assert [40] == left


def test_a_callback_may_close_the_ledger(store_url: str) -> None:
    """Closing from inside does not wait for itself."""
    closed, books = threading.Event(), []

    def close(_crossing: ThresholdCrossing) -> None:
        books[0].close()
        closed.set()

    books.append(Ledger.open(store_url, on_threshold=close))
    take(books[0].pool("pool", OPTIONS), 50)
    assert closed.wait(20)


def test_in_asyncio_it_does_not_run_on_the_loop(store_url: str) -> None:
    """A callback that sleeps keeps neither the task nor the loop waiting."""
    ear = Ear()

    def slow(crossing: ThresholdCrossing) -> None:
        time.sleep(0.5)
        ear(crossing)

    async def main() -> float:
        async with await AsyncLedger.open(store_url, on_threshold=slow) as book:
            budget = await book.pool("pool", OPTIONS)
            began_s = time.monotonic()
            await budget.reserve(EXTENSIONS, tokens(50), UNLIMITED)
            took_s = time.monotonic() - began_s
            assert [] == ear.heard
        return took_s

    assert 0.4 > asyncio.run(main())
    assert [("half", "reached")] == ear.names(1)


@pytest.mark.parametrize("wrong", [7, "print"])
def test_a_callback_is_a_plain_function(tmp_path: Any, wrong: object) -> None:  # noqa: ANN401 - a path
    """Neither a coroutine function, which nobody would await, nor what cannot be called."""

    async def later(_crossing: ThresholdCrossing) -> None:
        pass

    for callback in (wrong, later):
        with pytest.raises(InvalidInputError, match="on_threshold"):
            SharedPoolBudgetManager(OPTIONS, on_threshold=callback)
        with pytest.raises(InvalidInputError, match="on_threshold"):
            Ledger.open(f"sqlite:///{tmp_path}/l.db", on_threshold=callback)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seq", "changes", "reason"),
    [
        (3, {"name": "half", "percent": 51, "direction": "reached"}, "no entry reports it here"),
        (3, {"name": "half", "percent": 50, "direction": "left"}, "no entry reports it here"),
        (3, {"name": "warning", "percent": 80, "direction": "reached"}, "reports it here"),
    ],
)
def test_a_report_of_something_else_is_damage(
    book: Ledger, vandal: Vandal, seq: int, changes: dict[str, object], reason: str
) -> None:
    """Another percentage, direction or name than what was crossed, rightly chained."""
    take(book.pool("pool", OPTIONS), 50)
    vandal.forge(seq, detail=json.dumps({"threshold": changes}, sort_keys=True))
    (found,) = book.verify()
    assert (seq, True) == (found.damage.seq, reason in found.damage.reason)


def test_a_report_too_many_is_damage(book: Ledger, vandal: Vandal) -> None:
    """What nothing crossed, or was reported before in its window."""
    budget = book.pool("pool", OPTIONS)
    take(budget, 50)
    vandal.add(4, like=3)
    (found,) = book.verify()
    assert (4, True) == (found.damage.seq, "none was crossed" in found.damage.reason)
    with pytest.raises(JournalDamagedError):
        book.replay("pool")


@pytest.mark.parametrize("last", [False, True])
def test_a_report_that_is_missing_is_damage(book: Ledger, vandal: Vandal, *, last: bool) -> None:
    """Cut off the end, or never written: the next number is where it should stand."""
    budget = book.pool("pool", OPTIONS)
    if last:
        take(budget, 50)
        vandal.run("DELETE FROM entries WHERE seq = 3")
    else:
        take(budget, 1)
        take(budget, 1)
        row = vandal.row(3)
        vandal.forge(2, estimate_total_tokens=50, reserved_tokens=50)
        vandal.forge(3, reserved_tokens=row["reserved_tokens"] + 49)
    (found,) = book.verify()
    assert 3 == found.damage.seq
    assert "threshold 'half' was reached, and no entry reports it here" == found.damage.reason
    with pytest.raises(JournalDamagedError, match="entry 3"):
        book.replay("pool")


def test_a_report_that_cannot_be_read_keeps_calls_from_crossing(
    book: Ledger, vandal: Vandal
) -> None:
    """The call that would cross is told of the damage, and writes nothing."""
    budget = book.pool("pool", OPTIONS)
    lease = take(budget, 50)
    vandal.edit(3, detail='{"threshold":{"name":"half"}}')
    with pytest.raises(JournalDamagedError, match="cannot be read"):
        budget.release(lease)
    assert 3 == budget.status().seq


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_the_reports_are_those_that_must_be_there(
    shared_book: Ledger, fresh_name: str, seed: int
) -> None:
    """Random calls and policies, several in a batch: each report is where the verifier wants it."""
    rng = random.Random(seed)

    def options() -> SharedPoolBudgetOptions:
        names = rng.sample(["a", "b", "c", "d"], rng.randint(0, 4))
        return SharedPoolBudgetOptions(
            capacity_tokens=rng.choice([0, 40, 100, 300, 2**64 - 1]),
            capacity_requests=rng.choice([5, 2**64 - 1]),
            thresholds={name: rng.randint(1, 100) for name in names},
        )

    budget = shared_book.pool(fresh_name, OPTIONS)
    leases: list[Any] = []

    def step(number: int) -> None:
        with suppress(ThresholdExceededError, UnknownLeaseError, IndexError):
            match number:
                case 0:
                    shared_book.adjust(fresh_name, options())
                case 1 | 2:
                    budget.record_used(leases.pop(), Usage(total_tokens=rng.randint(0, 40)))
                case 3 | 4:
                    budget.release(leases.pop())
                case 5:
                    budget.observe(leases[-1], Usage(total_tokens=rng.randint(0, 9)))
                case _:
                    leases.append(take(budget, rng.randint(0, 30)))

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(step, [rng.randint(0, 11) for _ in range(120)]))
    (found,) = shared_book.verify(fresh_name)
    assert found.damage is None
    assert 3 <= len(told(list(shared_book.entries(fresh_name))))
