"""How a pool's balance moved: exact at every point, bounded, and in order."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from ledger import (
    AmountOutOfRangeError,
    InvalidInputError,
    Ledger,
    Limit,
    RequestBudget,
    RequestExtensions,
    Rolling,
    SharedPoolBudgetOptions,
    UnknownPoolError,
    Usage,
    UsageEstimate,
    Window,
    reports,
)
from ledger.core.checks import from_micros, to_micros
from ledger.reports import TimeBasis, render
from ledger.testing.calls import tokens
from tests.clocks import Clock

Call = Callable[..., Any]
TEN = UsageEstimate(total_tokens=10, cost_micros_usd=100)
SEVEN = Usage(total_tokens=7, cost_micros_usd=70)
LIMITED = SharedPoolBudgetOptions(capacity_tokens=1_000, stop_threshold_tokens=50)


def test_every_point_is_an_entry(book: Ledger, call: Call) -> None:
    """A short history is shown whole: each entry with its balance and what it left."""
    book.pool("team", LIMITED)
    call(book, "team", TEN, SEVEN)
    points = reports.burn_down(book, "team").points
    assert [1, 2, 3] == [point.seq for point in points]
    assert [1_000, 990, 993] == [point.remaining_tokens for point in points]
    assert [0, 10, 0] == [point.balance.reserved.tokens for point in points]
    assert {(1_000, 50, None, None)} == {
        (
            point.capacity_tokens,
            point.stop_threshold_tokens,
            point.capacity_cost_micros_usd,
            point.remaining_cost_micros_usd,
        )
        for point in points
    }


def test_a_pool_that_was_only_opened(book: Ledger) -> None:
    """One entry is one point."""
    book.pool("team", LIMITED)
    (point,) = reports.burn_down(book, "team").points
    assert (1, 1_000) == (point.seq, point.remaining_tokens)


@pytest.mark.parametrize("points", [2, 5, 24])
def test_a_long_history_is_bounded(book: Ledger, call: Call, points: int) -> None:
    """About so many points as were asked for, the first and the newest among them, all exact."""
    book.pool("team", LIMITED)
    for _ in range(40):
        call(book, "team", TEN, SEVEN)
    found = reports.burn_down(book, "team", points=points).points
    assert points <= len(found) <= points + 2
    assert (1, 81) == (found[0].seq, found[-1].seq)
    stored = {entry.seq: entry.balance for entry in book.entries("team")}
    assert [stored[point.seq] for point in found] == [point.balance for point in found]
    assert sorted({point.seq for point in found}) == [point.seq for point in found]


def test_an_adjustment_is_a_point(book: Ledger, call: Call) -> None:
    """A capacity changes where it was changed, not at the next point that happens to be taken."""
    book.pool("team", LIMITED)
    for _ in range(20):
        call(book, "team", TEN, SEVEN)
    book.adjust("team", replace(LIMITED, capacity_tokens=2_000))
    for _ in range(20):
        call(book, "team", TEN, SEVEN)
    found = {point.seq: point for point in reports.burn_down(book, "team", points=3).points}
    assert (1_000, 2_000) == (found[41].capacity_tokens, found[42].capacity_tokens)
    assert (860, 1_860) == (found[41].remaining_tokens, found[42].remaining_tokens)


def test_as_of_is_the_same_for_ever(book: Ledger, call: Call) -> None:
    """Up to an entry, whatever comes later."""
    book.pool("team", LIMITED)
    call(book, "team", TEN, SEVEN)
    before = reports.burn_down(book, "team", as_of=3)
    call(book, "team", TEN, SEVEN)
    assert before == reports.burn_down(book, "team", as_of=3)
    assert 5 == reports.burn_down(book, "team").points[-1].seq


def test_times(book: Ledger, call: Call, noon: Callable[[int], datetime]) -> None:
    """By when calls happened, never going back, the opening at the first; or as recorded."""
    book.pool("team", LIMITED)
    for second in (20, 10, 30):
        call(book, "team", TEN, after_noon_s=second)
    times = [point.at for point in reports.burn_down(book, "team").points]
    assert [noon(10), noon(20), noon(20), noon(30)] == times
    recorded = reports.burn_down(book, "team", basis=TimeBasis.RECORDED).points
    assert all(point.at > noon(40) for point in recorded)


def test_what_cannot_be_asked(book: Ledger) -> None:
    """No such pool, an entry it does not have, and more points than anybody could see."""
    book.pool("team", LIMITED)
    with pytest.raises(UnknownPoolError):
        reports.burn_down(book, "others")
    with pytest.raises(InvalidInputError, match="as_of"):
        reports.burn_down(book, "team", as_of=9)
    with pytest.raises(AmountOutOfRangeError, match="points"):
        reports.burn_down(book, "team", points=10_001)


def test_what_remained_as_a_line_of_bars(
    book: Ledger, call: Call, noon: Callable[[int], datetime]
) -> None:
    """Bars are even in time: a pool that is spent at once and then rests is low for long."""
    book.pool("team", SharedPoolBudgetOptions(capacity_tokens=70))
    for second in (0, 10, 20, 400):
        call(book, "team", TEN, after_noon_s=second)
    (line,) = render.burned(reports.burn_down(book, "team"))
    span = f"{render.moment(noon(0))} to {render.moment(noon(400))}"
    assert f"tokens left, {span}: █▆{'▅' * 38}▄" == line


def test_nothing_to_draw_is_no_line(book: Ledger, call: Call) -> None:
    """A pool without a limit, and one that was only opened, have no line."""
    book.pool("team", LIMITED)
    book.pool("free", SharedPoolBudgetOptions())
    call(book, "free", TEN)
    assert [] == render.burned(reports.burn_down(book, "team"))
    assert [] == render.burned(reports.burn_down(book, "free"))


@pytest.mark.parametrize("seed", range(4))
def test_no_point_is_false_however_few_there_are(new_store: Callable[..., str], seed: int) -> None:
    """Windows end one after another between two points: each says what was left at its time."""
    chance, clock = random.Random(seed), Clock()
    window = Window(period=timedelta(hours=1), carry_over=chance.random() < 0.5)
    rolling = Limit(name="rolling", period=Rolling(timedelta(minutes=90)), capacity_tokens=60)
    options = SharedPoolBudgetOptions(
        capacity_tokens=100, window=window, limits=[rolling] if seed % 2 else []
    )
    with Ledger.open(new_store("sqlite"), clock=clock) as book:
        budget = book.pool("pool", options)
        for _ in range(60):
            clock.minutes(chance.choice([1, 5, 20, 70, 200]))
            used = chance.randint(1, 9)
            lease = budget.reserve(RequestExtensions(), tokens(used), RequestBudget.unlimited())
            budget.record_used(lease, Usage(total_tokens=used))
        recorded = [from_micros(entry.recorded_at) for entry in book.entries("pool")]
        found = reports.burn_down(book, "pool", points=chance.randint(2, 12)).points
        for point in found:
            assert all(point.at <= at for at in recorded[point.seq :])
            then = reports.Filter(pools=["pool"], as_of=point.seq)
            (stood,) = reports.standing(book, then, now=point.at)
            # An entry that begins a window ends it at the same moment.
            assert (stood.balance, stood.own.tokens) == (point.balance, point.remaining_tokens)
    assert len(found) > 4


def test_limits_bound_it_and_free_up_by_time(new_store: Callable[[str], str]) -> None:
    """What was left under them, between entries and since the newest, also without a capacity."""
    clock, hour = Clock(), Rolling(timedelta(hours=1))
    options = SharedPoolBudgetOptions(
        limits=[Limit(name="hour", period=hour, capacity_tokens=10)], lease_ttl=timedelta(minutes=5)
    )
    with Ledger.open(new_store("sqlite"), clock=clock) as book:
        budget, begin = book.pool("pool", options), clock.now
        for used in (3, 4):
            lease = budget.reserve(RequestExtensions(), tokens(used), RequestBudget.unlimited())
            budget.record_used(lease, Usage(total_tokens=used))
            clock.minutes(20)
        clock.minutes(30)  # 70 minutes, then a call that nobody records
        budget.reserve(RequestExtensions(), tokens(5), RequestBudget.unlimited())
        clock.minutes(170)
        found = reports.burn_down(book, "pool").points
        drawn = [
            ((to_micros("at", one.at) - begin) // 60_000_000, one.remaining_tokens) for one in found
        ]
        # The first call ceases to count after 60 minutes, the second after 80; the due one an hour
        # after its hold ended, at 75 minutes.
        assert [
            *((0, 10), (0, 7), (0, 7), (20, 3), (20, 3), (60, 6), (70, 1)),
            *((80, 5), (135, 10)),
        ] == drawn
        assert {None} == {one.capacity_tokens for one in found}
        assert 10 == budget.remaining(RequestExtensions()).tokens
