"""Every threshold crossing reaches a consumer at least once, whenever it starts and stops."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from ledger import (
    Alert,
    AsyncLedger,
    BudgetManager,
    EntryKind,
    InvalidInputError,
    JournalDamagedError,
    Ledger,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    UnknownPoolError,
    Usage,
    Window,
)
from ledger.core.alerts import NewestCrossings
from ledger.store import journal
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import LATE_S, Clock
from tests.fixtures import Vandal

Read = Callable[[str | None], list[Alert]]

OPTIONS = SharedPoolBudgetOptions(capacity_tokens=100, thresholds={"half": 50, "most": 90})
FOUR = [("half", "reached"), ("most", "reached"), ("half", "left"), ("most", "left")]


def cross(budget: BudgetManager) -> None:
    """Reach both thresholds, and leave them again: four crossings, once in a window."""
    budget.release(budget.reserve(EXTENSIONS, tokens(95), UNLIMITED))


def told(found: list[Alert]) -> list[tuple[str, str]]:
    """Return what alerts say."""
    return [(one.crossing.threshold, one.crossing.direction) for one in found]


@pytest.fixture(params=["memory", "sqlite", "postgresql", "async sqlite"])
def crossed(
    request: pytest.FixtureRequest, new_store: Callable[..., str]
) -> Iterator[tuple[BudgetManager, Read, list[Any]]]:
    """Return a budget, a consumer of its alerts, and what `on_threshold` was called with."""
    heard: list[Any] = []
    if request.param == "memory":
        manager = SharedPoolBudgetManager(OPTIONS, on_threshold=heard.append)
        yield manager, manager.alerts, heard
        manager._announcer.close()
        return
    url = new_store(request.param.split()[-1])

    async def awaited(after: str | None) -> list[Alert]:
        async with AsyncLedger.open(url) as later:
            return [alert async for alert in later.alerts(after)]

    def read(after: str | None) -> list[Alert]:
        if request.param.startswith("async"):
            return asyncio.run(awaited(after))
        with Ledger.open(url) as later:
            return list(later.alerts(after))

    with Ledger.open(url, on_threshold=heard.append) as book:
        yield book.pool("pool", OPTIONS), read, heard


def test_a_cursor_goes_on_where_it_was_kept(
    crossed: tuple[BudgetManager, Read, list[Any]],
) -> None:
    """A consumer that starts later is given what `on_threshold` was, and goes on behind each."""
    budget, read, heard = crossed
    assert [] == read(None)
    cross(budget)
    found = read(None)
    assert FOUR == told(found)
    assert 4 == len({one.key for one in found})
    for number, alert in enumerate(found):
        assert found[number + 1 :] == read(alert.cursor)
    deadline = threading.Event()
    while len(heard) < 4:
        assert not deadline.wait(0.001)
    assert heard == [one.crossing for one in found]


def test_many_pools_are_given_one_after_another(shared_book: Ledger, fresh_name: str) -> None:
    """A cursor is of all pools: what one of them crosses later is given, and of that alone."""
    names = [f"{fresh_name} {number}" for number in range(3)]
    before = [one.cursor for one in shared_book.alerts()][-1:] or [None]
    for name in names:
        cross(shared_book.pool(name, OPTIONS))
    found = list(shared_book.alerts(before[0]))
    assert [name for name in names for _ in FOUR] == [one.crossing.pool for one in found]
    assert found[4:8] == list(shared_book.alerts(pool=names[1]))
    for number, alert in enumerate(found):
        assert found[number + 1 :] == list(shared_book.alerts(alert.cursor))
    shared_book.adjust(names[0], OPTIONS)
    cross(shared_book.pool(names[0]))
    again = list(shared_book.alerts(found[-1].cursor))
    assert ([names[0]] * 4, FOUR) == ([one.crossing.pool for one in again], told(again))
    assert [] == list(shared_book.alerts(again[-1].cursor))
    with pytest.raises(UnknownPoolError):
        shared_book.alerts(pool="none")


def test_a_crossing_that_commits_late_is_not_lost(
    new_store: Callable[..., str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pools commit at once: the cursor of the faster one does not skip the slower one.

    The slower one's entries have an earlier time and lower numbers than what was given already.
    """
    url = new_store("postgresql")
    begun, go_on = threading.Event(), threading.Event()
    with (
        Ledger.open(url) as fast,
        Ledger.open(url, clock=clock) as slow,
        ThreadPoolExecutor(1) as thread,
    ):
        budgets = {name: slow.pool(name, OPTIONS) for name in ("slow", "fast")}
        dialect, commit = slow._database.dialect, slow._database.dialect.commit

        def late(connection: Any) -> None:  # noqa: ANN401 - as the method takes
            begun.set()
            assert go_on.wait(LATE_S)
            commit(connection)

        for _ in range(3):  # the faster pool's entries have higher numbers
            fast.adjust("fast", OPTIONS)
        monkeypatch.setattr(dialect, "commit", late)
        done = thread.submit(budgets["slow"].reserve, EXTENSIONS, tokens(95), UNLIMITED)
        assert begun.wait(LATE_S)
        cross(fast.pool("fast"))
        *_, last = found = list(fast.alerts())
        assert {"fast"} == {one.crossing.pool for one in found}
        go_on.set()
        done.result()
        later = list(fast.alerts(last.cursor))
        assert FOUR[:2] == told(later)
        assert later[0].crossing.recorded_at < found[0].crossing.recorded_at
        assert (later[0].crossing.seq or 0) < (found[0].crossing.seq or 0)


def test_concurrent_writers_lose_no_crossing(store_url: str) -> None:
    """While pools cross at once, a consumer that polls gets each crossing, each pool's in order."""
    names = [f"pool {number}" for number in range(6)]
    with Ledger.open(store_url) as book, ThreadPoolExecutor(3) as threads:
        work = [threads.submit(lambda name=name: cross(book.pool(name, OPTIONS))) for name in names]
        found: list[Alert] = []
        cursor = None
        while len(found) < 4 * len(names):
            done = all(one.done() for one in work)
            more = list(book.alerts(cursor))
            found += more
            cursor = more[-1].cursor if more else cursor
            assert more or not done, "a crossing is lost"
        for name in names:
            assert FOUR == told([one for one in found if one.crossing.pool == name])
        assert 4 * len(names) == len({one.key for one in found})


def test_many_crossings_are_read_in_parts(
    shared_book: Ledger, fresh_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory does not grow with the history; in memory, the manager keeps the newest."""
    monkeypatch.setattr(journal, "PAGE", 3)
    monkeypatch.setattr(NewestCrossings, "KEPT", 3)
    budget, manager = shared_book.pool(fresh_name, OPTIONS), SharedPoolBudgetManager(OPTIONS)
    cross(budget)
    cross(manager)
    first = manager.alerts()
    shared_book.adjust(fresh_name, OPTIONS)
    cross(budget)
    found = list(shared_book.alerts(pool=fresh_name))
    assert 2 * FOUR == told(found)
    for one in 2 * first:
        manager._state.crossings.add(one.crossing)
    assert 3 <= len(kept := manager.alerts(first[0].cursor)) < 11
    assert kept[-1:] == manager.alerts(kept[-2].cursor)


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "[]", "{}", "null", "[" * 100_000, '{"alerts":[],"store":""}',
     '{"alerts":{"1":[1]},"store":""}', '{"alerts":{"x":[1,"00"]},"store":""}',
     '{"alerts":{"1":[-1,"00"]},"store":""}', '{"alerts":{"1":[1,"no"]},"store":""}',
     '{"alerts":{},"store":"00"}', '{"alerts":{},"store":null}', 7],
    ids=lambda cursor: str(cursor)[:40],
)  # fmt: skip
def test_what_is_no_cursor_is_refused(shared_sqlite: Ledger, cursor: Any) -> None:  # noqa: ANN401 - any value
    """At once, and not when the first alert is asked for; so is that of another store."""
    for alerts in (shared_sqlite.alerts, SharedPoolBudgetManager(OPTIONS).alerts):
        with pytest.raises(InvalidInputError, match="after"):
            alerts(cursor)


def test_a_backup_that_was_restored_hides_nothing(book: Ledger) -> None:
    """Numbers come again with other entries: all of the pool's crossings are given once more."""
    cross(book.pool("pool", OPTIONS))
    *_, last = book.alerts()
    said = json.loads(last.cursor)
    for seq in (9_999, said["alerts"]["1"][0], 3, 2):
        said["alerts"]["1"] = [seq, "00" * 8]
        assert FOUR == told(list(book.alerts(json.dumps(said))))


def test_a_damaged_crossing_hides_no_other(book: Ledger, vandal: Vandal) -> None:
    """It is named, once all that can be read was given, of its own pool too."""
    for pool in ("a", "b"):
        cross(book.pool(pool, OPTIONS))
    first, *_ = [one.seq for one in book.entries("a", kind=EntryKind.THRESHOLD)]
    vandal.run(f"UPDATE entries SET detail = '{{}}' WHERE pool_id = 1 AND seq = {first + 1}")
    lost: list[JournalDamagedError] = []
    found = list(book.alerts(left_out=lost))
    assert [*"aaabbbb"] == [one.crossing.pool for one in found]
    assert first + 1 not in [one.crossing.seq for one in found if one.crossing.pool == "a"]
    assert found[2:] == list(book.alerts(found[1].cursor, left_out=[]))
    assert [("a", first + 1)] == [(one.pool, one.seq) for one in lost]
    with pytest.raises(JournalDamagedError):
        list(book.alerts())


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql"])
def test_a_percentage_is_of_what_the_window_has(
    kind: str, new_store: Callable[..., str], clock: Clock
) -> None:
    """What was carried over counts as capacity: 80 % of 150 are 120, and not 130."""
    options = SharedPoolBudgetOptions(
        capacity_tokens=100,
        thresholds={"most": 80},
        window=Window(period=timedelta(hours=1), carry_over=True),
    )
    budget: Any
    alerts: Callable[[], Any]
    book = None
    if kind == "memory":
        budget = SharedPoolBudgetManager(options, clock=clock)
        alerts = budget.alerts
    else:
        book = Ledger.open(new_store(kind), clock=clock)
        budget, alerts = book.pool("pool", options), book.alerts

    def use(amount: int) -> int:
        lease = budget.reserve(EXTENSIONS, tokens(amount), UNLIMITED)
        budget.record_used(lease, Usage(total_tokens=amount))
        return len(list(alerts()))

    assert 0 == use(50)
    clock.minutes(60)
    assert [0, 0, 1] == [use(amount) for amount in (79, 40, 1)]
    if book is not None:
        assert [None] == [one.damage for one in book.verify()]
        book.close()
