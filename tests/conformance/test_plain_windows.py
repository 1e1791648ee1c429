"""Windows of every kind against plain sums: a model that asks none of the library's rules.

Where a window begins is looked for day by day on the wall's calendar. What counts is added up call
by call.
"""

from __future__ import annotations

import calendar
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import (
    BudgetLease,
    Ledger,
    Limit,
    Period,
    Rolling,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    Window,
    from_micros,
)
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import MINUTE_US, Clock

CAPACITY = 20
BERLIN = "Europe/Berlin"


def on_the_wall(zone: str, *parts: int) -> datetime:
    """Return a moment by a wall's clock."""
    return datetime(*parts, tzinfo=ZoneInfo(zone))  # type: ignore[arg-type, misc] - datetime's own


WINDOWS = {
    "days in Berlin": Window(period=Period.DAY, time_zone=BERLIN),
    "days from an hour that comes twice": Window(
        period=Period.DAY, time_zone=BERLIN, anchor=on_the_wall(BERLIN, 2026, 1, 1, 2, 30)
    ),
    "weeks": Window(period=Period.WEEK, time_zone="America/New_York"),
    "weeks from Sunday, 02:30": Window(
        period=Period.WEEK, time_zone=BERLIN, anchor=on_the_wall(BERLIN, 2026, 1, 4, 2, 30)
    ),
    "months": Window(period=Period.MONTH),
    "months from the 31st": Window(
        period=Period.MONTH, time_zone=BERLIN, anchor=on_the_wall(BERLIN, 2026, 1, 31, 2, 30)
    ),
    "months from the 25th": Window(
        period=Period.MONTH, time_zone=BERLIN, anchor=on_the_wall(BERLIN, 2026, 1, 25, 2, 30)
    ),
    "sessions": Window(period=timedelta(hours=5), session=True),
}
STARTS = [
    datetime(2026, 10, 24, 20, tzinfo=UTC),  # the night in which Berlin has 02:30 twice
    datetime(2026, 10, 25, 0, 15, tzinfo=UTC),
    datetime(2026, 3, 28, 20, tzinfo=UTC),  # and the one in which it has none
    datetime(2026, 11, 1, 3, tzinfo=UTC),  # New York's
    datetime(2024, 1, 30, 23, tzinfo=UTC),  # a leap year's February comes
    datetime(2026, 12, 31, 22, tzinfo=UTC),
]


def next_begin(window: Window, at: int) -> int:
    """Return the first moment behind `at` at which a window begins, by looking at each day."""
    zone = ZoneInfo(window.time_zone)
    anchor = None if window.anchor is None else window.anchor.astimezone(zone)
    clock = time() if anchor is None else anchor.time()
    today = from_micros(at).astimezone(zone).date()  # type: ignore[arg-type] - a plain number here
    for ahead in itertools.count(-1):
        day = today + timedelta(days=ahead)
        if window.period is Period.WEEK:
            is_one = day.weekday() == (0 if anchor is None else anchor.weekday())
        elif window.period is Period.MONTH:
            last = calendar.monthrange(day.year, day.month)[1]
            is_one = day.day == min(last, 1 if anchor is None else anchor.day)
        else:
            is_one = True
        begins = datetime.combine(day, clock, zone).astimezone(UTC)
        moment = round(begins.timestamp() * 1_000_000)
        if is_one and moment > at:
            return moment
    raise AssertionError("time has no end")


@dataclass
class Plain:
    """A pool's tokens: what was spent in the window, what is held, what was carried over."""

    window: Window
    end: int | None
    carries: bool = False
    spent: int = 0
    carried: int = 0
    held: list[int] = field(default_factory=list)

    def go_on(self, now: int) -> None:
        """Let windows of the calendar end that are over."""
        while not self.window.session and self.end is not None and self.end <= now:
            rest = CAPACITY + self.carried - self.spent
            self.carried = max(0, rest) if self.carries else 0
            self.spent, self.end = 0, next_begin(self.window, self.end)

    def lasts(self, now: int) -> bool:
        """Tell whether what was spent counts: not between two sessions."""
        return self.end is not None and now < self.end

    def over(self, now: int) -> int:
        """Return what is left, below 0 for what is overspent."""
        spent = self.spent if self.lasts(now) else 0
        return CAPACITY + self.carried - spent - sum(self.held)

    def admits(self, amount: int, now: int) -> bool:
        """Tell whether a call passes; one that uses nothing always does."""
        return amount == 0 or amount <= self.over(now)

    def hold(self, amount: int, now: int) -> None:
        """Grant a call; the first one begins a session."""
        if not self.lasts(now):
            self.spent, self.end = 0, now + round(self.window.period / timedelta(microseconds=1))  # type: ignore[operator] - of sessions
        self.held.append(amount)

    def retry_at(self, amount: int, now: int) -> int | None:
        """Return when a call passes that is refused now, if nothing else happens."""
        carried = 0
        if not self.lasts(now) or amount + sum(self.held) > CAPACITY + carried:
            return None
        return self.end


AMOUNTS = st.integers(0, 12)
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("wait"), st.sampled_from([1, 29, 30, 31, 60, 299, 300, 1_439, 10_080, 45_000])
        ),
        st.tuples(st.just("reserve"), AMOUNTS),
        st.tuples(st.just("settle"), AMOUNTS),
        st.tuples(st.just("release"), AMOUNTS),
    ),
    max_size=25,
)


def follow(
    manager: Any,  # noqa: ANN401 - any manager
    plain: Plain,
    clock: Clock,
    steps: list[tuple[str, int]],
) -> None:
    """Do the same to both, and compare what is left, what passes, and when what is refused does."""
    open_leases: list[BudgetLease] = []
    for what, number in steps:
        if what == "wait":
            clock.minutes(number)
        plain.go_on(clock.now)
        if what == "reserve":
            denied = None
            try:
                open_leases.append(manager.reserve(EXTENSIONS, tokens(number), UNLIMITED))
            except ThresholdExceededError as refused:
                denied = refused
            assert plain.admits(number, clock.now) is (denied is None)
            if denied is None:
                plain.hold(number, clock.now)
            else:
                assert max(0, plain.over(clock.now)) == denied.remaining_tokens
                if not plain.carries:
                    at = plain.retry_at(number, clock.now)
                    assert (at and from_micros(at)) == denied.retry_at  # type: ignore[arg-type] - as above
        elif what != "wait" and open_leases:
            which = number % len(open_leases)
            lease = open_leases.pop(which)
            plain.held.pop(which)
            if what == "settle":
                manager.record_used(lease, Usage(total_tokens=number))
                plain.spent += number
            else:
                manager.release(lease)
        assert max(0, plain.over(clock.now)) == manager.remaining(EXTENSIONS).tokens, (what, number)


def policies(window: Window) -> dict[str, SharedPoolBudgetOptions]:
    """Return the policies that one window makes: of a pool, of a limit, one that carries over."""
    limit = [] if window.session else [Limit(name="it", period=window, capacity_tokens=CAPACITY)]
    found = {"window": SharedPoolBudgetOptions(capacity_tokens=CAPACITY, window=window)}
    if limit:
        found["limit"] = SharedPoolBudgetOptions(limits=limit)
        carrying = replace(window, carry_over=True)
        found["carried"] = SharedPoolBudgetOptions(capacity_tokens=CAPACITY, window=carrying)
    return found


def begin(window: Window, how: str, clock: Clock) -> Plain:
    """Return the model of a pool that is opened now."""
    end = None if window.session else next_begin(window, clock.now)
    return Plain(window, end, carries=how == "carried")


@pytest.mark.parametrize("name", WINDOWS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(start=st.sampled_from(STARTS), steps=STEPS)
def test_memory_counts_what_a_plain_sum_does(
    name: str, start: datetime, steps: list[tuple[str, int]]
) -> None:
    """As a window, as a limit, and with what is left carried over."""
    window = WINDOWS[name]
    for how, policy in policies(window).items():
        clock = Clock(round(start.timestamp()) * 1_000_000)
        manager = SharedPoolBudgetManager(policy, clock=clock)
        follow(manager, begin(window, how, clock), clock, steps)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_stores_count_what_a_plain_sum_does(kind: str, new_store: Callable[[str], str]) -> None:
    """And their journals are sound: windows that were written are decided anew."""
    clock, numbers = Clock(), itertools.count()
    with Ledger.open(new_store(kind), clock=clock) as book:

        @settings(
            max_examples=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(name=st.sampled_from(sorted(WINDOWS)), start=st.sampled_from(STARTS), steps=STEPS)
        def run(name: str, start: datetime, steps: list[tuple[str, int]]) -> None:
            window = WINDOWS[name]
            for how, policy in policies(window).items():
                clock.now = round(start.timestamp()) * 1_000_000
                manager = book.pool(f"{how} {next(numbers)}", policy)
                follow(manager, begin(window, how, clock), clock, steps)

        run()
        assert {None} == {one.damage for one in book.verify()}


def test_the_model_knows_the_nights_on_which_clocks_change() -> None:
    """Of an hour that comes twice the first counts; one that is skipped is where it would be."""
    window = WINDOWS["days from an hour that comes twice"]
    for day, begins in (
        ((2026, 10, 25), (0, 30)),
        ((2026, 3, 29), (1, 30)),
        ((2026, 7, 1), (0, 30)),
    ):
        noon = datetime(*day, 12, tzinfo=UTC) - timedelta(days=1)
        found = from_micros(next_begin(window, round(noon.timestamp()) * 1_000_000))  # type: ignore[arg-type] - as above
        assert datetime(*day, *begins, tzinfo=UTC) == found
    month = WINDOWS["months from the 31st"]
    begun = datetime(2026, 2, 10, tzinfo=UTC)
    found = from_micros(next_begin(month, round(begun.timestamp()) * 1_000_000))  # type: ignore[arg-type] - as above
    assert on_the_wall(BERLIN, 2026, 2, 28, 2, 30) == found


LIMITS: dict[str, Rolling | Window] = {
    "five hours": Rolling(timedelta(hours=5)),
    "an hour": Rolling(timedelta(hours=1)),
    **{name: window for name, window in WINDOWS.items() if not window.session},
}


@dataclass
class PlainLeases:
    """A limit and leases that end by themselves: what counts, and when."""

    period: Rolling | Window
    counts: list[tuple[int, int]] = field(default_factory=list)
    """When usage counts, and how much."""
    leases: list[tuple[int, int]] = field(default_factory=list)
    """When each lease that has not ended ceases to hold, and what it holds, or is charged."""

    def since(self, now: int) -> int:
        """Return the first moment that counts."""
        if isinstance(self.period, Rolling):
            return now - round(self.period.length / timedelta(microseconds=1)) + 1
        begin = next_begin(self.period, now - 40 * 24 * 60 * MINUTE_US)
        while (later := next_begin(self.period, begin)) <= now:
            begin = later
        return begin

    def over(self, now: int) -> int:
        """Return what is left, below 0 for what is overspent."""
        since = self.since(now)
        spent = sum(amount for at, amount in self.counts if at >= since)
        # A hold counts as long as it lasts, and from its end on as any usage of that time does.
        held = sum(amount for end, amount in self.leases if now < end or end >= since)
        return CAPACITY - spent - held

    def use(self, which: int, amount: int, now: int, *, last: bool) -> None:
        """Record usage: it counts now, or when the hold ended if that was before."""
        end, held = self.leases[which]
        self.counts.append((min(now, end), amount))
        self.leases[which] = end, max(0, held - amount)
        if last:
            del self.leases[which]


PARTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("wait"), st.sampled_from([1, 9, 10, 11, 50, 60, 290, 300, 310, 1_439, 10_080])
        ),
        *(
            st.tuples(st.just(what), AMOUNTS)
            for what in ("reserve", "observe", "settle", "release")
        ),
    ),
    max_size=25,
)


def follow_leases(
    manager: Any,  # noqa: ANN401 - any manager
    plain: PlainLeases,
    clock: Clock,
    steps: list[tuple[str, int]],
) -> None:
    """Do the same to both, and compare what is left and what passes; holds last ten minutes."""
    open_leases: list[BudgetLease] = []
    for what, number in steps:
        which = number % max(1, len(open_leases))
        if what == "wait":
            clock.minutes(number)
        elif what == "reserve":
            passes = number == 0 or number <= plain.over(clock.now)
            try:
                open_leases.append(manager.reserve(EXTENSIONS, tokens(number), UNLIMITED))
            except ThresholdExceededError:
                assert not passes
            else:
                assert passes
                plain.leases.append((clock.now + 10 * MINUTE_US, number))
        elif open_leases and what == "release":
            manager.release(open_leases.pop(which))
            del plain.leases[which]
        elif open_leases:
            last = what == "settle"
            lease = open_leases.pop(which) if last else open_leases[which]
            (manager.record_used if last else manager.observe)(lease, Usage(total_tokens=number))
            plain.use(which, number, clock.now, last=last)
        assert max(0, plain.over(clock.now)) == manager.remaining(EXTENSIONS).tokens, (what, number)


def limited(period: Rolling | Window) -> SharedPoolBudgetOptions:
    """Return the policy of a pool with one limit, whose leases hold for ten minutes."""
    limit = Limit(name="it", period=period, capacity_tokens=CAPACITY)
    return SharedPoolBudgetOptions(limits=[limit], lease_ttl=timedelta(minutes=10))


@pytest.mark.parametrize("name", LIMITS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(start=st.sampled_from(STARTS), steps=PARTS)
def test_memory_counts_expired_leases_as_a_plain_sum_does(
    name: str, start: datetime, steps: list[tuple[str, int]]
) -> None:
    """When their holds ended, whoever wrote, and what came late in their place."""
    clock = Clock(round(start.timestamp()) * 1_000_000)
    manager = SharedPoolBudgetManager(limited(LIMITS[name]), clock=clock)
    follow_leases(manager, PlainLeases(LIMITS[name]), clock, steps)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_stores_count_expired_leases_as_a_plain_sum_does(
    kind: str, new_store: Callable[[str], str]
) -> None:
    """And their journals are sound."""
    clock, numbers = Clock(), itertools.count()
    with Ledger.open(new_store(kind), clock=clock) as book:

        @settings(
            max_examples=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(name=st.sampled_from(sorted(LIMITS)), start=st.sampled_from(STARTS), steps=PARTS)
        def run(name: str, start: datetime, steps: list[tuple[str, int]]) -> None:
            clock.now = round(start.timestamp()) * 1_000_000
            manager = book.pool(f"pool {next(numbers)}", limited(LIMITS[name]))
            follow_leases(manager, PlainLeases(LIMITS[name]), clock, steps)

        run()
        assert {None} == {one.damage for one in book.verify()}
