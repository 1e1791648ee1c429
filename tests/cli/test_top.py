"""The live view: what it shows, its keys, a store that goes away, and writers that never notice."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from ledger import (
    Attribution,
    LeasePhase,
    Ledger,
    LedgerUnavailableError,
    Limit,
    RequestBudget,
    RequestExtensions,
    Rolling,
    SharedPoolBudgetOptions,
    Unpriced,
    Usage,
    UsageEstimate,
    reports,
)
from ledger.cli.live import LastMinute, LiveView
from tests.fixtures import Run

CENT = UsageEstimate(total_tokens=100, cost_micros_usd=10_000)
USED = Usage(total_tokens=80, cost_micros_usd=9_000)


def spend(book: Ledger, pool: str, *, settle: bool = True) -> None:
    """Reserve a cent, and settle most of it."""
    who = RequestExtensions(Attribution(run_id="nightly", model="gpt-5"))
    lease = book.pool(pool).reserve(who, CENT, RequestBudget.unlimited())
    if settle:
        book.pool(pool).record_used(lease, USED)


@pytest.fixture
def busy(book: Ledger) -> Ledger:
    """Return books with a limited pool, an unlimited one, and an open lease."""
    book.pool("team", SharedPoolBudgetOptions(capacity_cost_micros_usd=1_000_000))
    book.pool("a sandbox", SharedPoolBudgetOptions())
    spend(book, "team")
    spend(book, "team", settle=False)
    return book


@pytest.fixture
def second(busy: Ledger, store_url: str) -> Iterator[Ledger]:
    """Return the same books as another process has them."""
    assert busy
    with Ledger.open(store_url, create=False, timeout_s=1) as opened:
        yield opened


def view(book: Ledger, *, every_s: int = 60) -> LiveView:
    """Return a view of all pools."""
    where = reports.Filter()
    return LiveView(book, where, every_s=every_s, first=reports.glance(book, where))


def lines(app: LiveView, table: str) -> list[list[str]]:
    """Return the lines of a table as they are read."""
    shown = app.query_one(f"#{table}", DataTable)
    return [[str(cell) for cell in shown.get_row_at(number)] for number in range(shown.row_count)]


def head(app: LiveView) -> str:
    """Return the lines above the tables."""
    return str(app.query_one("#head", Static).content)


async def comes(pilot: Pilot[None], shown: Callable[[], bool]) -> None:
    """Wait until something is shown, a minute at most."""
    for _try in range(600):
        if shown():
            return
        await pilot.pause(0.1)
    pytest.fail("it is never shown")


def test_a_glance_is_the_books(busy: Ledger) -> None:
    """Where pools stand, and the open leases with who holds them."""
    found = reports.glance(busy)
    assert [busy.pool(name).status() for name in ("team", "a sandbox")] == found.pools
    (lease,) = found.leases
    assert ("team", 4, "open", "nightly", "gpt-5", 10_000) == (
        lease.pool,
        lease.lease,
        lease.phase,
        lease.run_id,
        lease.model,
        lease.held.cost_micros_usd,
    )


def test_a_glance_goes_on_from_the_one_before(busy: Ledger) -> None:
    """What was open stays found, what is reserved later too, and what ended is gone."""
    first = reports.glance(busy)
    spend(busy, "team", settle=False)
    spend(busy, "a sandbox", settle=False)
    second = reports.glance(busy, oldest=first.oldest)
    assert [("team", 4), ("team", 5), ("a sandbox", 2)] == [
        (lease.pool, lease.lease) for lease in second.leases
    ]
    for open_lease in list(busy.open_leases("team")):
        busy.pool("team").release(open_lease.lease)
    third = reports.glance(busy, oldest=second.oldest)
    assert ["a sandbox"] == [lease.pool for lease in third.leases]
    fourth = reports.glance(busy, oldest=third.oldest)
    assert third.leases[0].lease == fourth.leases[0].lease


def test_a_glance_behind_a_restored_backup_finds_older_leases(busy: Ledger) -> None:
    """What was seen before it was restored says nothing of the leases that are there now."""
    fresh = reports.glance(busy)
    gone = {one.pool.pool_id: one.seq + 100 for one in fresh.pools}
    found = reports.glance(busy, oldest=gone, now=fresh.at)
    assert (fresh.leases, fresh.holding) == (found.leases, found.holding)
    assert fresh.oldest == found.oldest


def test_a_lease_below_others_is_counted_once(busy: Ledger) -> None:
    """And not again in each pool above; one that is due holds nothing any more."""
    busy.pool("below", SharedPoolBudgetOptions(), parent="team")
    spend(busy, "below", settle=False)
    held = reports.glance(busy)
    assert (2, 2) == (held.holding, len(held.leases))
    brief = SharedPoolBudgetOptions(lease_ttl=timedelta(hours=1))
    busy.pool("brief", brief, parent="team")
    spend(busy, "brief", settle=False)
    assert 3 == reports.glance(busy).holding
    found = reports.glance(busy, now=busy.now() + timedelta(hours=2))
    assert 2 == found.holding == sum(one.held.requests for one in found.leases)
    assert [LeasePhase.EXPIRED] == [one.phase for one in found.leases if one.pool == "brief"]


def test_the_pace_is_that_of_the_last_minute(busy: Ledger) -> None:
    """Spend per minute by the difference of what was committed; none before there are two looks."""
    pace = LastMinute()
    start = datetime(2024, 2, 29, 12, tzinfo=UTC)
    pool_id = next(one.pool.pool_id for one in reports.glance(busy).pools)
    pace.see(reports.glance(busy, now=start))
    assert None is pace.per_minute(pool_id)
    spend(busy, "team")
    pace.see(reports.glance(busy, now=start + timedelta(seconds=30)))
    assert (18_000, [9_000]) == (pace.per_minute(pool_id), pace.steps())
    pace.see(reports.glance(busy, now=start + timedelta(seconds=60)))
    pace.see(reports.glance(busy, now=start + timedelta(seconds=91)))
    assert 0 == pace.per_minute(pool_id)


def test_it_shows_and_follows(busy: Ledger, second: Ledger) -> None:
    """The tables hold the books' figures, and hold the new ones after the next look."""

    async def watch() -> None:
        app = view(second, every_s=1)
        async with app.run_test(size=(140, 40)) as pilot:
            sandbox, team = lines(app, "pools")
            assert "a sandbox" == sandbox[0]
            assert ["1.000000", "0.009000", "0.010000", "0.981000", "USD"] == team[2:7]
            assert re.fullmatch(r"░{16} +1%", team[1])
            assert [["team", "4", "open", "100", "0.010000", "nightly", "gpt-5"]] == [
                line[1:] for line in lines(app, "leases")
            ]
            await asyncio.to_thread(spend, busy, "team")
            await comes(pilot, lambda: "0.018000" == lines(app, "pools")[1][3])
            team = lines(app, "pools")[1]
            assert ["0.018000", "0.010000", "0.972000"] == team[3:6]
            assert re.fullmatch(r"\d+\.\d{6}", team[7])
            assert "USD per look" in head(app)

    asyncio.run(watch())


def test_limits_fill_the_bar_and_unpriced_leases_say_so(book: Ledger) -> None:
    """A pool that has limits alone is used up when one of them is."""
    limit = Limit(name="day", period=Rolling(timedelta(days=1)), capacity_cost_micros_usd=10_000)
    limited = SharedPoolBudgetOptions(limits=[limit], unpriced=Unpriced.FLAG)
    book.pool("team", limited)
    spend(book, "team", settle=False)
    book.pool("free", SharedPoolBudgetOptions(capacity_cost_micros_usd=9, unpriced=Unpriced.FLAG))
    book.pool("free").reserve(
        RequestExtensions(), UsageEstimate(total_tokens=1), RequestBudget.unlimited()
    )

    async def watch() -> None:
        app = view(book, every_s=60)
        async with app.run_test(size=(140, 40)):
            shown = {line[0]: line[1] for line in lines(app, "pools")}
            assert "█" * 16 + " 100%" == shown["team"]
            assert "░" * 16 + "   0%" == shown["free"]
            leases = {line[1]: line[3] for line in lines(app, "leases")}
            assert {"team": "open", "free": "open, unpriced"} == leases

    asyncio.run(watch())


def test_the_keys(busy: Ledger, second: Ledger) -> None:
    """P stops looking and goes on, r looks once, s sorts, arrows move, q quits."""

    async def watch() -> None:
        app = view(second)
        async with app.run_test(size=(140, 40)) as pilot:
            await pilot.press("p")
            assert "paused" in head(app)
            await asyncio.to_thread(spend, busy, "team")
            app.look()
            await pilot.pause(0.3)
            assert "0.009000" == lines(app, "pools")[1][3]
            await pilot.press("r")
            await comes(pilot, lambda: "0.018000" == lines(app, "pools")[1][3])
            await pilot.press("p")
            assert "paused" not in head(app)
            await pilot.press("s")
            assert ["team", "a sandbox"] == [line[0] for line in lines(app, "pools")]
            assert "by use" in head(app)
            await pilot.press("down")
            assert 1 == app.query_one("#pools", DataTable).cursor_row
            app.draw()
            await pilot.pause()
            assert 1 == app.query_one("#pools", DataTable).cursor_row
            await pilot.press("q")
        assert 0 == (app.return_code or 0)

    asyncio.run(watch())


def test_a_store_that_goes_away_comes_back(
    busy: Ledger, second: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was shown stays, why it is old is said, and the next look that succeeds says so."""

    async def watch() -> None:
        app = view(second)
        async with app.run_test(size=(140, 40)) as pilot:
            with monkeypatch.context() as broken:

                def away(*_words: object, **_named: object) -> None:
                    raise LedgerUnavailableError("the server is [red]away[/red]")

                broken.setattr(second, "read", away)
                app.look()
                await app.workers.wait_for_complete()
            await comes(pilot, lambda: "looking again: the server is [red]away[/red]" in head(app))
            assert "0.009000" == lines(app, "pools")[1][3]
            await asyncio.to_thread(spend, busy, "team")
            app.look()
            await comes(pilot, lambda: "looking again" not in head(app))
            assert "0.018000" == lines(app, "pools")[1][3]

    asyncio.run(watch())


def test_writers_never_notice(busy: Ledger, second: Ledger) -> None:
    """While looks follow each other without a break, no writer has to try again."""
    busy.adjust("team", SharedPoolBudgetOptions())  # however many calls there are meanwhile
    stop, looks, calls = threading.Event(), [reports.glance(second)], 1

    def follow() -> None:
        while not stop.is_set():
            looks.append(reports.glance(second, oldest=looks[-1].oldest))

    with ThreadPoolExecutor(1) as thread:
        follower = thread.submit(follow)
        try:
            while (calls < 40 or len(looks) < 7) and not follower.done():
                spend(busy, "team")
                calls += 1
        finally:
            stop.set()
        follower.result()
    assert 0 == busy._database.retries
    assert calls * 9_000 == busy.pool("team").status().balance.committed.cost_micros_usd


def test_looks_are_plain_snapshots(second: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """No look is a serializable transaction, which writers would have to give way to."""
    asked = []
    read = second._database.read

    def spied(work: Callable[..., Any], *, serializable: bool = True) -> Any:  # noqa: ANN401
        asked.append(serializable)
        return read(work, serializable=serializable)

    monkeypatch.setattr(second._database, "read", spied)
    monkeypatch.setattr(second._database.dialect, "read_alone", None)
    reports.glance(second, oldest=reports.glance(second).oldest)
    assert not any(asked)


def test_one_frame_for_scripts(busy: Ledger, store_url: str, program: Run) -> None:
    """--once, or a pipe, prints what is now without colours and ends."""
    assert busy
    for words in (("--once",), ()):
        shown = program("top", "--url", store_url, "--pool", "team", *words).out
        assert shown.startswith("At 20")
        assert "Not ended: 1 lease\n" in shown
        assert "a sandbox" not in shown
        assert {"\n"} == {char for char in shown if ord(char) < 32}


def test_what_cannot_be_followed(refused: Callable[..., str], busy: Ledger, store_url: str) -> None:
    """Looking without pause, and a pool that is not there, are refused in a line."""
    assert busy
    assert "--every: must be 1s or more" in refused("top", "--every", "0s", "--url", store_url)
    assert "'no'" in refused("top", "--pool", "no", "--url", store_url)
