"""Calls of the past are imported once each, and count where they belong, never in today's."""

from __future__ import annotations

import random
import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from ledger import (
    Attribution,
    EntryFlag,
    EntryKind,
    ImportedCall,
    InvalidInputError,
    Ledger,
    LedgerBudgetManager,
    Limit,
    PastCall,
    Period,
    Provenance,
    Rolling,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Totals,
    UncorrectableEntryError,
    Usage,
    UsageEstimate,
    Window,
    from_micros,
)
from ledger.core.rules import counts_from
from ledger.store.writing import Transaction
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import HOUR, Clock

DAILY = Window(period=Period.DAY)
FIVE_HOURS = Limit(name="five", period=Rolling(5 * HOUR), capacity_tokens=900)
TODAY = Limit(name="today", period=DAILY, capacity_tokens=800)


class LostError(Exception):
    """The connection was lost."""


def past(at: datetime, tokens: int, key: str, **more: Any) -> PastCall:  # noqa: ANN401 - any field
    """Return a call of the past."""
    usage = Usage(total_tokens=tokens, cost_micros_usd=tokens)
    return PastCall(usage=usage, occurred_at=at, idempotency_key=key, **more)


def damage(book: Ledger) -> list[object]:
    """Return what `verify` finds wrong."""
    return [found.damage for found in book.verify() if not found.ok]


def spend(budget: LedgerBudgetManager, tokens: int) -> None:
    """Make a call now."""
    lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=tokens), UNLIMITED)
    budget.record_used(lease, Usage(total_tokens=tokens))


def counted(budget: LedgerBudgetManager) -> list[int]:
    """Return the tokens that count in the window, and on each limit."""
    status = budget.status()
    return [status.spent.tokens, *(one.counted.tokens for one in status.limits)]


def test_a_call_counts_when_it_was_made(timed: Ledger, clock: Clock) -> None:
    """The window is of today, 22:13; the pool above has none, so that all of it counts there."""
    above = timed.pool("above", SharedPoolBudgetOptions(capacity_tokens=10**6))
    options = SharedPoolBudgetOptions(window=DAILY, limits=[FIVE_HOURS, TODAY])
    pool = timed.pool("team", options, parent="above")
    spend(pool, 7)
    now = from_micros(clock.now)
    hours = {0: 1, 4: 10, 6: 100, 22: 1_000, 23: 10_000, 400: 100_000}
    calls = [past(now - number * HOUR, tokens, f"k{number}") for number, tokens in hours.items()]
    imported = pool.import_calls(calls, "moved here")
    assert [True] * len(hours) == [one.is_new for one in imported]
    assert [1_118, 18, 1_118] == counted(pool)
    assert 111_118 == pool.status().balance.committed.tokens
    assert 111_118 == above.status().spent.tokens
    clock.minutes(24 * 60)
    spend(pool, 3)
    assert [3, 3, 3] == counted(pool)
    assert [] == damage(timed)


def test_a_call_is_imported_once(timed: Ledger, clock: Clock) -> None:
    """Whoever repeats it gets the same entry; with another usage he is told so."""
    pool = timed.pool("team", SharedPoolBudgetOptions())
    at = from_micros(clock.now) - HOUR
    whom = Attribution(run_id="r", model="m", request_id="q")
    call = PastCall(usage=Usage(total_tokens=5), occurred_at=at, attribution=whom)
    (first,) = pool.import_calls([call], "moved", actor="me")
    (again,) = pool.import_calls([call], "moved again", actor="somebody else")
    other = PastCall(usage=Usage(total_tokens=6), occurred_at=at, attribution=whom)
    (changed,) = pool.import_calls([other], "moved")
    assert [(True, False), (False, False), (False, True)] == [
        (one.is_new, one.is_changed) for one in (first, again, changed)
    ]
    assert {2} == {one.entry for one in (first, again, changed)}
    (entry,) = timed.entries("team", kind=EntryKind.IMPORT)
    assert entry.actor is not None
    assert ("me", "moved") == (entry.actor.name, entry.detail["reason"])
    assert (at, "q", Provenance.RECOVERED) == (entry.at, entry.request_id, entry.provenance)
    assert entry.attribution is not None
    assert ("r", "m") == (entry.attribution.run_id, entry.attribution.model)
    assert EntryFlag.IMPORTED == entry.flags
    assert [] == damage(timed)


@pytest.mark.parametrize("to", [0, 4, 9])
@pytest.mark.parametrize("hours", [1, 30])
def test_a_correction_counts_where_its_import_does(
    timed: Ledger, clock: Clock, hours: int, to: int
) -> None:
    """More or less, in the window and limits of the call; also once another window has begun."""
    options = SharedPoolBudgetOptions(window=DAILY, limits=[FIVE_HOURS, TODAY])
    timed.pool("above", options)
    pool = timed.pool("team", options, parent="above")
    at = from_micros(clock.now) - hours * HOUR
    (imported,) = pool.import_calls([past(at, 6, "k")], "moved")
    pool.correct(imported.entry, Usage(total_tokens=to), "billed so")
    counts = to if hours == 1 else 0
    assert [counts] * 3 == counted(pool) == counted(timed.pool("above"))
    clock.minutes(24 * 60)
    pool.correct(imported.entry, Usage(total_tokens=3), "billed so")
    pool.correct(imported.entry, Usage(total_tokens=8), "billed so")
    assert [0] * 3 == counted(pool) == counted(timed.pool("above"))
    flags = {one.flags for one in timed.entries("team", kind=EntryKind.CORRECTION)}
    assert {EntryFlag.IMPORTED} == flags
    assert 8 == pool.status().balance.committed.tokens
    assert [] == damage(timed)


def test_a_denial_says_when_imported_calls_cease_to_count(timed: Ledger, clock: Clock) -> None:
    """On a rolling limit, at a time of their own, although they were recorded together."""
    pool = timed.pool("team", SharedPoolBudgetOptions(limits=[FIVE_HOURS]))
    now = from_micros(clock.now)
    calls = [past(now - hours * HOUR, 300, f"k{hours}") for hours in (1, 2, 3)]
    pool.import_calls(calls, "moved")
    for tokens, hours in ((300, 2), (600, 3), (900, 4)):
        with pytest.raises(ThresholdExceededError) as denied:
            pool.reserve(EXTENSIONS, UsageEstimate(total_tokens=tokens), UNLIMITED)
        assert now + hours * HOUR == denied.value.retry_at
    clock.minutes(2 * 60)
    spend(pool, 300)
    assert [] == damage(timed)


def test_a_session_takes_the_calls_that_were_made_in_it(timed: Ledger, clock: Clock) -> None:
    """It began with a reservation; an import begins none."""
    window = Window(period=5 * HOUR, session=True)
    pool = timed.pool("team", SharedPoolBudgetOptions(capacity_tokens=100, window=window))
    now = from_micros(clock.now)
    pool.import_calls([past(now, 50, "before")], "moved")
    clock.minutes(60)
    spend(pool, 1)
    clock.minutes(60)
    pool.import_calls([past(now, 20, "earlier"), past(now + 1.5 * HOUR, 8, "in it")], "moved")
    assert [9] == counted(pool)
    assert [] == damage(timed)


def test_the_first_window_began_when_the_calendar_says(timed: Ledger, clock: Clock) -> None:
    """A pool that is opened late in the day takes the calls of that day as spent in it."""
    clock.minutes(-60)
    pool = timed.pool("team", SharedPoolBudgetOptions(window=DAILY))
    midnight = from_micros(clock.now).replace(hour=0, minute=0, second=0)
    moment = timedelta(microseconds=1)
    pool.import_calls([past(midnight, 5, "a"), past(midnight - moment, 70, "b")], "moved")
    assert [5] == counted(pool)
    window = pool.status().window
    assert window is not None
    assert midnight == from_micros(counts_from(pool.status().policy, window))
    assert [] == damage(timed)


def test_what_a_closed_pool_is_told_of_is_told_on(timed: Ledger, clock: Clock) -> None:
    """The call was made: a closed pool takes it, and the pool it is carved out of hears of it."""
    org = timed.pool("org", SharedPoolBudgetOptions(capacity_tokens=500))
    run = timed.pool("run", SharedPoolBudgetOptions(capacity_tokens=100), parent="org", carved=True)
    spend(run, 30)
    timed.close_pool("run")
    at = from_micros(clock.now) - 900 * HOUR
    (imported,) = run.import_calls([past(at, 12, "late")], "on the bill")
    assert Totals(tokens=42, cost_micros_usd=12, requests=2) == org.status().balance.committed
    run.correct(imported.entry, Usage(total_tokens=10), "billed so")
    assert 40 == org.status().balance.committed.tokens
    assert [] == damage(timed)


def test_many_calls_share_transactions(timed: Ledger, clock: Clock) -> None:
    """Amounts saturate at the ends of the range, as all spend does, and nothing is refused."""
    pool = timed.pool("team", SharedPoolBudgetOptions(capacity_tokens=5, window=DAILY))
    at = from_micros(clock.now) - 100 * HOUR
    most = Usage(total_tokens=2**63 - 1)
    calls = [past(at, number, f"k{number}") for number in range(600)]
    calls += [PastCall(usage=most, occurred_at=at, idempotency_key=f"m{one}") for one in range(3)]
    assert list(range(2, 605)) == [one.entry for one in pool.import_calls(calls, "moved")]
    assert 2**63 - 1 == pool.status().balance.committed.tokens
    assert [0] == counted(pool)
    assert [] == damage(timed)


@pytest.mark.parametrize("rival", [True, False])
def test_who_imported_a_call_is_known_after_a_second_try(
    store_url: str, monkeypatch: pytest.MonkeyPatch, *, rival: bool
) -> None:
    """Not the first try, if that was rolled back and another process came between the two."""
    commit, is_repeated = Transaction.commit, Transaction.is_repeated
    with Ledger.open(store_url) as book, Ledger.open(store_url) as other:
        pool = book.pool("team", SharedPoolBudgetOptions())
        elsewhere = other.pool("team", SharedPoolBudgetOptions())
        call = past(book.now() - HOUR, 5, "k")
        others: list[ImportedCall] = []

        def import_it() -> None:
            others.extend(elsewhere.import_calls([call], "theirs"))

        def fail(transaction: Transaction, connection: Connection) -> None:
            monkeypatch.setattr(Transaction, "commit", commit)
            if not rival:  # the connection is lost, and the call is there all the same
                commit(transaction, connection)
            raise LostError

        def repeat(transaction: Transaction, error: Exception) -> bool:
            if not isinstance(error, LostError):
                return is_repeated(transaction, error)
            if rival:
                thread = threading.Thread(target=import_it)
                thread.start()
                thread.join()
            return True

        monkeypatch.setattr(Transaction, "commit", fail)
        monkeypatch.setattr(Transaction, "is_repeated", repeat)
        (found,) = pool.import_calls([call], "ours")
        assert [True] * rival == [one.is_new for one in others]
        assert (2, not rival) == (found.entry, found.is_new)
        assert 5 == pool.status().balance.committed.tokens


def test_bad_calls_are_refused(timed: Ledger, clock: Clock) -> None:
    """A call ahead of the clock, one without a name, and an entry that is no import."""
    pool = timed.pool("team", SharedPoolBudgetOptions())
    ahead = past(from_micros(clock.now) + timedelta(days=2), 1, "k")
    with pytest.raises(InvalidInputError, match="ahead of the clock"):
        pool.import_calls([ahead], "moved")
    with pytest.raises(InvalidInputError, match="no request id says"):
        PastCall(usage=Usage(), occurred_at=from_micros(0))
    with pytest.raises(InvalidInputError, match="reason"):
        pool.import_calls([], "")
    with pytest.raises(UncorrectableEntryError):
        pool.correct(1, Usage(), "why")
    assert 1 == timed.size("team")


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))]
)
def test_random_books_agree_with_a_plain_count(timed: Ledger, clock: Clock, seed: int) -> None:
    """Imports, calls and corrections mixed: what counts is what a sum over the calls says."""
    chance = random.Random(seed)
    options = SharedPoolBudgetOptions(
        window=DAILY,
        limits=[Limit(name="rolling", period=Rolling(5 * HOUR), capacity_tokens=800), TODAY],
    )
    pool = timed.pool("team", options)
    made: dict[int, tuple[datetime, int]] = {}
    """By entry, when its call counts, and how much."""
    for step in range(60):
        clock.minutes(chance.choice([0, 1, 40, 200]))
        now = from_micros(clock.now)
        tokens = chance.randrange(50)
        what = chance.random()
        if what < 0.5 or not made:
            at = now - chance.choice([0, 3, 6, 20, 50]) * HOUR
            (imported,) = pool.import_calls([past(at, tokens, f"k{step}")], "moved")
            made[imported.entry] = at, tokens
        elif what < 0.75:
            entry = chance.choice(list(made))
            at, before = made[entry]
            if before != tokens:
                usage = Usage(total_tokens=tokens, cost_micros_usd=before)
                pool.correct(entry, usage, "billed so", expected=None)
                made[entry] = at, tokens
        elif what < 0.9:
            spend(pool, 0)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        begins = (midnight, now - 5 * HOUR + timedelta(microseconds=1), midnight)
        expected = [sum(used for at, used in made.values() if at >= begin) for begin in begins]
        assert expected == counted(pool)
        left = 800 - max(expected)
        if left >= 0:  # a reservation goes by sums that earlier ones have kept
            with pytest.raises(ThresholdExceededError):
                pool.reserve(EXTENSIONS, UsageEstimate(total_tokens=left + 1), UNLIMITED)
            pool.release(pool.reserve(EXTENSIONS, UsageEstimate(total_tokens=left), UNLIMITED))
    assert [] == damage(timed)
