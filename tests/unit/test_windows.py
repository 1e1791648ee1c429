"""The calendar: where windows begin and end."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ledger import (
    I64_MAX,
    U64_MAX,
    AmountOutOfRangeError,
    Balance,
    InvalidInputError,
    LeaseTtl,
    Period,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Totals,
    Usage,
    UsageEstimate,
    Window,
    WindowState,
)
from ledger.core import calendar, rules
from ledger.core.checks import Micros, from_micros, to_micros
from ledger.core.policy import check_storable_policy, policy_from_json, policy_to_json
from tests.clocks import HOUR, HOUR_US

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")


def at(*parts: int, zone: ZoneInfo | None = None) -> datetime:
    """Return a moment, of UTC unless a zone is named."""
    return datetime(*parts, tzinfo=zone or UTC)  # type: ignore[arg-type, misc] - datetime's own


def span(window: Window, moment: datetime) -> tuple[datetime, datetime]:
    """Return when the window that a moment is in begins and ends, in UTC."""
    found = calendar.number(window, to_micros("at", moment))
    begins, ends = calendar.begins(window, found), calendar.begins(window, found + 1)
    assert begins <= to_micros("at", moment) < ends
    assert (found, found) == (calendar.number(window, begins), calendar.number(window, ends - 1))
    assert ends == calendar.begins(window, calendar.number(window, ends))
    return from_micros(begins), from_micros(ends)


def hours(window: Window, moment: datetime) -> float:
    """Return how long the window is that a moment is in."""
    begins, ends = span(window, moment)
    return (ends - begins) / HOUR


@pytest.mark.parametrize(
    ("zone", "day", "length"),
    [
        ("Europe/Berlin", (2026, 3, 28), 24),
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("Europe/Berlin", (2026, 10, 24), 24),
        ("Europe/Berlin", (2026, 10, 25), 25),
        ("Europe/Berlin", (2026, 10, 26), 24),
        ("America/New_York", (2026, 3, 8), 23),
        ("America/New_York", (2026, 11, 1), 25),
        ("Australia/Lord_Howe", (2026, 4, 5), 24.5),  # its summer is half an hour ahead
        ("Asia/Kolkata", (2026, 3, 29), 24),
        ("UTC", (2026, 3, 29), 24),
    ],
)
def test_a_day_is_as_long_as_the_clocks_say(zone: str, day: tuple[int, ...], length: float) -> None:
    """It lasts from midnight to midnight on the wall, whatever happens to the clocks between."""
    window = Window("day", time_zone=zone)
    assert Window(period=Period.DAY, time_zone=zone) == window
    for hour in (0, 1, 2, 3, 4, 12, 23):
        moment = at(*day, hour, zone=ZoneInfo(zone))
        assert length == hours(window, moment)
        begins, _ = span(window, moment)
        assert at(*day, zone=ZoneInfo(zone)) == begins


def test_both_readings_of_an_hour_are_of_one_day() -> None:
    """On the day in autumn on which 02:30 comes twice, both are in the window of that day."""
    window = Window(period=Period.DAY, time_zone="Europe/Berlin")
    first = at(2026, 10, 25, 2, 30, zone=BERLIN)
    second = first.replace(fold=1)
    assert HOUR == second.astimezone(UTC) - first.astimezone(UTC)
    assert span(window, first) == span(window, second)


def test_a_window_begins_at_the_first_of_two_equal_times() -> None:
    """Anchored at 02:30, the day after 24 October begins at the first 02:30 of the 25th."""
    anchor = at(2026, 1, 1, 2, 30, zone=BERLIN)
    window = Window(period=Period.DAY, time_zone="Europe/Berlin", anchor=anchor)
    begins, ends = span(window, at(2026, 10, 25, 12))
    assert (at(2026, 10, 25, 0, 30), at(2026, 10, 26, 1, 30)) == (begins, ends)


def test_a_window_begins_where_a_time_is_skipped() -> None:
    """There is no 02:30 on 29 March: the window begins an hour after 01:30, at 03:30."""
    anchor = at(2026, 1, 1, 2, 30, zone=BERLIN)
    window = Window(period=Period.DAY, time_zone="Europe/Berlin", anchor=anchor)
    begins, ends = span(window, at(2026, 3, 29, 12))
    assert (at(2026, 3, 29, 1, 30), at(2026, 3, 30, 0, 30)) == (begins, ends)
    assert (3, 30) == (begins.astimezone(BERLIN).hour, begins.astimezone(BERLIN).minute)


def test_a_day_that_a_country_skipped_has_no_window() -> None:
    """Samoa went from 29 December 2011 to the 31st: one boundary, and no window in between."""
    window = Window(period=Period.DAY, time_zone="Pacific/Apia")
    apia = ZoneInfo("Pacific/Apia")
    assert at(2011, 12, 30, 10) == span(window, at(2011, 12, 29, 12, zone=apia))[1]
    assert at(2011, 12, 30, 10) == span(window, at(2011, 12, 31, 12, zone=apia))[0]


@pytest.mark.parametrize("day", [28, 29, 30, 31])
def test_months_end_where_they_end(day: int) -> None:
    """Anchored at a day that some months have not, those begin their window on their last one."""
    window = Window(period=Period.MONTH, anchor=at(2026, 1, day))
    lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    expected = [date(2026, month + 1, min(day, last)) for month, last in enumerate(lengths)]
    moment, begun = at(2026, 1, day), []
    while moment.year == 2026:
        begins, moment = span(window, moment)
        begun.append(begins.date())
    assert expected == begun
    leap, _ = span(window, at(2028, 3, 1))
    assert date(2028, 2, min(day, 29)) == leap.date()
    century, _ = span(window, at(2100, 3, 1))
    assert date(2100, 2, 28) == century.date()


def test_months_before_the_anchor_are_counted_too() -> None:
    """The anchor says where, not from when on."""
    window = Window(period=Period.MONTH, anchor=at(2026, 5, 31))
    assert (at(2025, 1, 31), at(2025, 2, 28)) == span(window, at(2025, 2, 27, 23, 59))
    assert (at(2025, 2, 28), at(2025, 3, 31)) == span(window, at(2025, 2, 28))


def test_a_month_in_a_time_zone() -> None:
    """It begins at midnight there: an hour or two before that of UTC."""
    window = Window(period=Period.MONTH, time_zone="Europe/Berlin")
    assert (at(2026, 2, 28, 23), at(2026, 3, 31, 22)) == span(window, at(2026, 3, 15))
    assert at(2026, 3, 31, 22) == span(window, at(2026, 3, 31, 22))[0]


@pytest.mark.parametrize(
    ("anchor", "begins"),
    [
        (None, at(2026, 11, 23)),
        (at(2020, 1, 1), at(2026, 11, 25)),
        (at(2030, 1, 6, 18), at(2026, 11, 22, 18)),
    ],
)
def test_weeks_begin_on_monday_or_as_anchored(anchor: datetime | None, begins: datetime) -> None:
    """A Wednesday; a Sunday evening that is still to come."""
    window = Window(period=Period.WEEK, anchor=anchor)
    moment = at(2026, 11, 26, 12)
    assert (begins, begins + timedelta(days=7)) == span(window, moment)


@pytest.mark.parametrize(("month", "length"), [(3, 7 * 24 - 1), (10, 7 * 24 + 1), (6, 7 * 24)])
def test_a_week_with_a_change_of_the_clocks(month: int, length: int) -> None:
    """The last week of March is an hour shorter in Berlin, that of October longer."""
    last_sunday = {3: 29, 6: 28, 10: 25}[month]
    window = Window(period=Period.WEEK, time_zone="Europe/Berlin")
    assert length == hours(window, at(2026, month, last_sunday, 12))


@pytest.mark.parametrize("period", [timedelta(seconds=1), timedelta(hours=6), timedelta(days=30)])
def test_a_fixed_length_is_always_the_same(period: timedelta) -> None:
    """It knows neither zones nor summers; without an anchor it is counted from 1970."""
    for moment in (at(2026, 3, 29, 1, 30), at(1969, 12, 31, 23, 59, 59), at(2026, 10, 25)):
        begins, ends = span(Window(period=period), moment)
        assert period == ends - begins
        assert timedelta(0) == (begins - at(1970, 1, 1)) % period
    anchor = at(2026, 1, 1, 0, 0, 0, 7)
    begins, ends = span(Window(period=period, anchor=anchor), at(2024, 2, 29))
    assert (period, timedelta(0)) == (ends - begins, (begins - anchor) % period)


CALENDARS = [
    Window(period=Period.DAY, time_zone="Europe/Berlin"),
    Window(period=Period.DAY, time_zone="America/New_York", anchor=at(2026, 1, 1, 7, 15)),
    Window(period=Period.WEEK, time_zone="Pacific/Apia"),
    Window(period=Period.WEEK, time_zone="America/Sao_Paulo", anchor=at(2026, 1, 1)),
    Window(period=Period.MONTH, time_zone="Europe/Berlin", anchor=at(2026, 1, 31)),
    Window(period=Period.MONTH, time_zone="Asia/Kathmandu"),
    Window(period=timedelta(hours=5), anchor=at(2026, 1, 1, 1)),
]


@pytest.mark.parametrize("window", CALENDARS, ids=str)
def test_windows_lie_side_by_side(window: Window) -> None:
    """From 1970 to 2100, at any moment: one window, which the next one follows."""
    chance = random.Random(7)
    for _ in range(300):
        span(window, from_micros(chance.randrange(0, 4_100_000_000_000_000)))


@pytest.mark.parametrize("window", CALENDARS, ids=str)
def test_a_long_silence_takes_no_longer(window: Window) -> None:
    """Eight thousand years later the window is found at once: nothing is counted on."""
    start = Micros(0)
    policy = SharedPoolBudgetOptions(capacity_tokens=1, window=window)
    state = rules.begin_window(policy, start, Totals())
    began_s = time.thread_time()
    far = rules.roll_over(policy, state, Balance(), to_micros("at", at(9000, 6, 15)))
    assert time.thread_time() - began_s < 5
    assert state is not None
    assert far is not None
    assert calendar.number(window, far.start) - calendar.number(window, state.end) == far.skipped
    assert far.skipped > 80_000


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"period": "hour"}, "window.period"),
        ({"period": 3600}, "window.period"),
        ({"period": None}, "window.period"),
        ({"period": timedelta(0)}, "window.period"),
        ({"period": timedelta(milliseconds=999)}, "window.period"),
        ({"period": timedelta(days=3_651)}, "window.period"),
        ({"period": "day", "time_zone": "Europe/Nowhere"}, "window.time_zone"),
        ({"period": "day", "time_zone": "Europe"}, "window.time_zone"),
        ({"period": "day", "time_zone": "../etc/passwd"}, "window.time_zone"),
        ({"period": "day", "time_zone": ""}, "window.time_zone"),
        ({"period": "day", "time_zone": None}, "window.time_zone"),
        ({"period": HOUR, "time_zone": "Europe/Berlin"}, "window.time_zone"),
        ({"period": "day", "anchor": datetime(2026, 1, 1)}, "window.anchor"),  # noqa: DTZ001
        ({"period": "day", "anchor": 31}, "window.anchor"),
        ({"period": "day", "carry_over": 1}, "window.carry_over"),
        ({"period": "day", "carry_cap_tokens": 5}, "window.carry_cap_tokens"),
        ({"period": "day", "carry_over": True, "carry_cap_tokens": 1.5}, "window.carry_cap_tokens"),
        ({"period": "day", "carry_over": True, "carry_cap_requests": -1}, "window.carry_cap_reque"),
        ({"period": "day", "session": True}, "window.session"),
        ({"period": HOUR, "session": 1}, "window.session"),
        ({"period": HOUR, "session": True, "carry_over": True}, "window.session"),
        ({"period": HOUR, "session": True, "anchor": at(2026, 1, 31)}, "window.session"),
    ],
)
def test_what_is_no_window(given: dict[str, Any], field: str) -> None:
    """A typed error that names the part."""
    with pytest.raises(InvalidInputError) as refused:
        Window(**given)
    assert refused.value.field.startswith(field)


def test_a_policy_has_a_window_or_none() -> None:
    """Nothing else, and no cap that a store cannot hold."""
    with pytest.raises(InvalidInputError):
        SharedPoolBudgetOptions(window="day")  # type: ignore[arg-type]
    large = Window(period=Period.DAY, carry_over=True, carry_cap_tokens=I64_MAX + 1)
    with pytest.raises(AmountOutOfRangeError):
        check_storable_policy(SharedPoolBudgetOptions(window=large))


STORED = [
    (Window(period=HOUR, session=True), {"period": 3_600_000_000, "session": True}),
    (Window(period=Period.DAY), {"period": "day"}),
    (Window(period=HOUR), {"period": 3_600_000_000}),
    (Window(period=HOUR, deduct_overage=True), {"period": 3_600_000_000, "deduct_overage": True}),
    (
        Window(
            period=Period.MONTH,
            time_zone="Europe/Berlin",
            anchor=at(1970, 1, 31),
            carry_over=True,
            carry_cap_tokens=0,
            carry_cap_requests=7,
        ),
        {
            "period": "month",
            "time_zone": "Europe/Berlin",
            "anchor": 30 * 24 * 3_600_000_000,
            "carry_over": True,
            "carry_cap_tokens": 0,
            "carry_cap_requests": 7,
        },
    ),
]


@pytest.mark.parametrize(("window", "stored"), STORED)
def test_a_window_is_stored_and_read_again(window: Window, stored: dict[str, Any]) -> None:
    """What is the default is not stored, and comes back."""
    policy = SharedPoolBudgetOptions(window=window)
    assert stored == policy_to_json(policy)["window"]
    assert policy == policy_from_json(policy_to_json(policy))


def test_one_anchor_is_one_value() -> None:
    """The same moment given in two zones makes the same window."""
    here, there = at(2026, 1, 31, zone=BERLIN), at(2026, 1, 31, zone=BERLIN).astimezone(NEW_YORK)
    windows_ = {Window(period=Period.MONTH, anchor=anchor) for anchor in (here, there)}
    assert 1 == len(windows_)
    assert 1 == len({str(window) for window in windows_})


@pytest.mark.parametrize(
    ("window", "shown"),
    [
        (Window(period=HOUR, session=True), "1:00:00, each from its first call on"),
        (Window(period=HOUR), "1:00:00"),
        (Window(period=HOUR, deduct_overage=True), "1:00:00, deducting overage"),
        (Window(period=Period.WEEK, time_zone="Asia/Tokyo"), "a week in Asia/Tokyo"),
        (
            Window(period=Period.DAY, anchor=at(2026, 1, 1, 6), carry_over=True),
            "a day in UTC, beginning as at 2026-01-01T06:00:00+00:00, carrying over what is left",
        ),
        (
            Window(period=HOUR, carry_over=True, carry_cap_tokens=1_500, carry_cap_requests=2),
            "1:00:00, carrying over what is left, at most 1,500 tokens and 2 requests",
        ),
    ],
)
def test_a_window_in_words(window: Window, shown: str) -> None:
    """As a conflict between policies shows it."""
    assert shown == str(window)
    assert f", in windows of {shown}" in str(SharedPoolBudgetOptions(window=window))


@pytest.mark.parametrize("period", [Period.DAY, Period.MONTH, HOUR])
@pytest.mark.parametrize("moment", [-(2**60), 2**60, I64_MAX])
def test_no_calendar_reaches_so_far(period: Period | timedelta, moment: int) -> None:
    """A clock that is wrong by thousands of years is named, whatever the period."""
    with pytest.raises(InvalidInputError, match="no calendar has"):
        calendar.number(Window(period=period), moment)


HOURS = SharedPoolBudgetOptions(
    capacity_tokens=100, window=Window(period=HOUR, carry_over=True, carry_cap_tokens=250)
)
FIRST = WindowState(Micros(0), Micros(HOUR_US), Totals(40, 0, 0))


@pytest.mark.parametrize(
    ("committed", "reserved", "silent", "carried"),
    [
        (40, 0, 0, 100),
        (70, 0, 0, 70),
        (70, 30, 0, 70),
        (140, 0, 0, 0),
        (200, 0, 0, 0),
        (200, 0, 1, 100),
        (70, 0, 1, 170),
        (70, 0, 2, 250),
        (70, 0, 9, 250),
        (70, 30, 1, 170),
        (40, 130, 3, 250),
        (10, 0, 0, 130),
    ],
)
def test_the_rest_is_carried_over(committed: int, reserved: int, silent: int, carried: int) -> None:
    """What was spent is no rest; it never falls below 0 nor above its cap.

    What is held is part of it, since it counts in the new window. A silent window leaves its
    capacity; a correction may leave more than that.
    """
    balance = Balance(Totals(tokens=committed), Totals(tokens=reserved))
    now = Micros((1 + silent) * HOUR_US)
    assert None is rules.roll_over(HOURS, FIRST, balance, Micros(HOUR_US - 1))
    begun = rules.roll_over(HOURS, FIRST, balance, now)
    assert WindowState(now, Micros(now + HOUR_US), balance.committed, Totals(carried), silent) == (
        begun
    )


@pytest.mark.parametrize(
    ("cap", "committed", "silent", "carried"),
    [
        (None, 140, 0, 0),
        (None, 100, 0, 0),
        (None, 200, 0, -60),
        (None, 200, 1, 0),
        (None, 390, 0, -250),
        (None, 390, 1, -150),
        (None, 390, 2, -50),
        (None, 390, 3, 0),
        (250, 200, 0, -60),
        (250, 200, 1, 40),
        (250, 70, 9, 250),
    ],
)
def test_overage_is_deducted_until_it_is_made_up_for(
    cap: int | None, committed: int, silent: int, carried: int
) -> None:
    """Windows give what was spent beyond them, and no call is admitted for what is not there."""
    carrying: dict[str, Any] = {} if cap is None else {"carry_over": True, "carry_cap_tokens": cap}
    hours = Window(period=HOUR, deduct_overage=True, **carrying)
    policy = replace(HOURS, window=hours)
    balance, now = Balance(Totals(tokens=committed)), Micros((1 + silent) * HOUR_US)
    begun = rules.roll_over(policy, FIRST, balance, now)
    assert begun is not None
    assert Totals(carried) == begun.carried
    step: WindowState | None = FIRST
    for number in range(1, silent + 2):
        step = rules.roll_over(policy, step, balance, Micros(number * HOUR_US))
    assert step is not None
    assert Totals(carried) == step.carried
    left = max(0, 100 + carried)
    assert left == rules.remaining(policy, balance, begun).tokens
    more = UsageEstimate(total_tokens=left + 1), RequestBudget.unlimited()
    denial = rules.admit(policy, balance, *more, begun)
    assert isinstance(denial, ThresholdExceededError)
    told = rules.reached(replace(policy, thresholds={"all": 100}), balance, begun)
    assert (left == 0) == ("all" in told)
    if carried < 0:  # the next windows make up for it
        assert denial.retry_at is not None


@pytest.mark.parametrize("reserved", [0, 30, 100, 130])
@pytest.mark.parametrize("silent", [1, 2, 3, 7])
def test_silence_is_as_good_as_writing_nothing(reserved: int, silent: int) -> None:
    """One rollover over many windows carries what one in each of them would have carried."""
    balance = Balance(Totals(tokens=70), Totals(tokens=reserved))
    state: WindowState | None = FIRST
    for number in range(1, silent + 2):
        state = rules.roll_over(HOURS, state, balance, Micros(number * HOUR_US))
    assert state is not None
    at_once = rules.roll_over(HOURS, FIRST, balance, Micros((silent + 1) * HOUR_US))
    assert state._replace(skipped=silent) == at_once


@pytest.mark.parametrize(
    ("committed", "reserved", "left"),
    [(40, 0, 107), (50, 0, 97), (50, 90, 7), (160, 0, 0), (30, 0, 117)],
)
def test_what_counts_in_a_window(committed: int, reserved: int, left: int) -> None:
    """What is above the base, and held, against the capacity and what was carried."""
    window = FIRST._replace(carried=Totals(7, 0, 0))
    balance = Balance(Totals(tokens=committed), Totals(tokens=reserved))
    found = rules.remaining(HOURS, balance, window)
    assert (left, U64_MAX, U64_MAX) == (found.tokens, found.cost_micros_usd, found.requests)
    unlimited = RequestBudget.unlimited()
    fits, more = UsageEstimate(total_tokens=left), UsageEstimate(total_tokens=left + 1)
    assert None is rules.admit(HOURS, balance, fits, unlimited, window)
    assert None is not rules.admit(HOURS, balance, more, unlimited, window)


def test_nothing_of_what_is_unlimited_is_carried_over() -> None:
    """There is no rest of it; and credit does not lift it over the domain."""
    policy = replace(HOURS, capacity_tokens=U64_MAX)
    begun = rules.roll_over(policy, FIRST, Balance(), Micros(HOUR_US))
    assert begun is not None
    assert Totals() == begun.carried
    assert U64_MAX == rules.remaining(policy, Balance(), FIRST).tokens


def test_memory_begins_windows_by_its_clock() -> None:
    """A lease that crosses the boundary is held in the new window, and counts where it settles."""
    now = [500_000 * HOUR_US]
    options = SharedPoolBudgetOptions(capacity_tokens=100, window=Window(period=HOUR))
    budget = SharedPoolBudgetManager(options, clock=lambda: now[0])
    nothing, unlimited = RequestExtensions(), RequestBudget.unlimited()
    lease = budget.reserve(nothing, UsageEstimate(total_tokens=60), unlimited)
    gone = RequestExtensions(LeaseTtl(timedelta(minutes=5)))
    budget.reserve(gone, UsageEstimate(total_tokens=30), unlimited)
    now[0] += HOUR_US
    other = budget.reserve(nothing, UsageEstimate(total_tokens=40), unlimited)
    budget.record_used(other, Usage(total_tokens=40))
    budget.record_used(lease, Usage(total_tokens=50))
    assert 10 == budget.remaining(nothing).tokens
    now[0] += HOUR_US
    assert 100 == budget.remaining(nothing).tokens
