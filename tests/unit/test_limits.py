"""Limits: what counts on them, held against a plain sum over all calls, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import (
    I64_MAX,
    U64_MAX,
    AmountOutOfRangeError,
    InvalidInputError,
    Limit,
    Period,
    RequestBudget,
    Rolling,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UsageEstimate,
    Window,
    from_micros,
)
from ledger.core import rules
from ledger.core.checks import Micros
from ledger.core.entries import Balance, Totals
from ledger.core.policy import check_storable_policy, policy_from_json, policy_to_json

SECOND = 1_000_000
MINUTE = Rolling(timedelta(minutes=1))


class Change(NamedTuple):
    """What one entry of a call does: when, of which call, and by how much."""

    at: int
    call: int
    by: int
    dated: int | None = None
    """When all of the call counts; None for when each change is recorded."""


def history(changes: list[Change]) -> rules.Track:
    """Return the history that these changes make; the first of each call is its settlement."""
    track, first, total = rules.Track(), dict[int, int](), 0
    for seq, (at, call, by, dated) in enumerate(changes, 1):
        total += by
        move: rules.Move | None = None
        if dated is not None:
            move = rules.Dated(seq, Micros(dated), Totals(by))
        elif call in first:
            move = rules.Moved(seq, first[call], Totals(by))
        first.setdefault(call, seq)
        track.add(rules.Point(seq, Micros(at), Totals(total)), move)
    return track


def counted(changes: list[Change], since: int) -> int:
    """Return what counts from a time on: of each call what it added since, as far as it stands.

    What a call uses in the end, less the least that it was said to use since: what was taken back
    was taken from its newest usage first.
    """
    found = 0
    for call in {one.call for one in changes}:
        own = [one for one in changes if one.call == call]
        dated = own[0].dated
        if dated is not None:
            found += sum(one.by for one in own) if dated >= since else 0
            continue
        before = sum(one.by for one in own if one.at < since)
        least = used = before
        for one in own:
            if one.at >= since:
                used += one.by
                least = min(least, used)
        found += used - least
    return found


@st.composite
def journals(draw: st.DrawFn) -> list[Change]:
    """Return calls and their corrections in order of time, a few of them at one time."""
    at, used, changes, dates = 0, dict[int, int](), list[Change](), dict[int, int]()
    for _ in range(draw(st.integers(0, 40))):
        at += draw(st.sampled_from([0, 1, 7, 20, 59, 60])) * SECOND
        call = draw(st.integers(0, 12))
        to = draw(st.integers(0, 9))
        by = to - used.get(call, 0)
        used[call] = to
        if call >= 8:  # an import, or an expiry and what came later: of some time before
            dates.setdefault(call, at - draw(st.sampled_from([0, 1, 20, 60, 90])) * SECOND)
        changes.append(Change(at, call, by, dates.get(call)))
    return changes


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=journals(), later=st.integers(0, 90), asked=st.integers(0, 12), held=st.integers(0, 3)
)
def test_a_rolling_limit_counts_what_a_plain_sum_does(
    changes: list[Change], later: int, asked: int, held: int
) -> None:
    """Verdict, rest and the time at which it frees up agree with a sum over all calls."""
    track, capacity = history(changes), 10
    at = Micros((changes[-1].at if changes else 0) + later * SECOND)
    policy = SharedPoolBudgetOptions(
        limits=[Limit(name="rpm", period=MINUTE, capacity_tokens=capacity)]
    )
    balance = Balance(Totals(sum(one.by for one in changes)), Totals(held))
    estimate = UsageEstimate(total_tokens=asked)

    def used(now: int) -> int:
        return counted(changes, now - 60 * SECOND + 1) + held

    def admits(now: int) -> bool:
        return asked <= max(0, capacity - used(now))  # what uses nothing is never refused

    limits = rules.Limits(policy, at, track)
    (state,) = limits.states(balance)
    assert used(at) == state.counted.tokens
    assert max(0, capacity - used(at)) == state.remaining.tokens
    denial = rules.admit(policy, balance, estimate, RequestBudget.unlimited(), limits=limits)
    assert admits(at) is (denial is None)
    if denial is not None:
        assert isinstance(denial, ThresholdExceededError)
        moments = {one.at if one.dated is None else one.dated for one in changes}
        frees = [now + 60 * SECOND for now in sorted(moments) if now + 60 * SECOND > at]
        first = next((now for now in frees if admits(now)), None)
        assert (None if first is None else from_micros(first)) == denial.retry_at
        # Without what is held all that counts ceases to one day.
        assert (first is None and held > 0 and asked <= capacity) is denial.held_by_leases


@pytest.mark.parametrize("entries", [1, 63, 64, 65, 1_000, 5_000])
def test_a_long_history_is_searched_in_few_steps(entries: int) -> None:
    """The entry before a time is found by looking at few others, whatever their number."""
    looked = []

    class Counting(rules.Track):
        def points(self, numbers: range) -> Any:  # noqa: ANN401 - as it is there
            looked.append(len(numbers))
            return super().points(numbers)

    track = Counting()
    for seq in range(1, entries + 1):
        track.add(rules.Point(seq, Micros(seq * SECOND), Totals(seq)))
    for since in {1, entries // 2, entries, entries + 1}:
        looked.clear()
        assert max(0, since - 1) == track.before(Micros(since * SECOND))
        assert len(looked) <= 5
        assert sum(looked) <= 4 * 64 + 16


def test_a_history_in_memory_forgets_what_no_limit_reaches() -> None:
    """It stays short, and counts the same as one that keeps everything, dated entries too."""
    short, whole = rules.Track(), rules.Track()
    for seq in range(1, 5_001):
        point = rules.Point(seq, Micros(seq * SECOND), Totals(seq * 3))
        move: rules.Move | None = rules.Moved(seq, seq - 1, Totals(-1)) if seq % 3 == 0 else None
        if seq % 5 == 0:
            move = rules.Dated(seq, Micros((seq - seq % 40) * SECOND), Totals(3))
        for track in (short, whole):
            track.add(point, move)
        since = Micros((seq - 100) * SECOND)
        if seq % 700 == 0:
            short.forget(since)
        found = [track.base(track.point(track.before(since)), since) for track in (short, whole)]
        assert found[0] == found[1]
    assert len(short._points) < 900
    assert len(short._dated) == len(short._recorded) < 200
    assert 5_000 == short.last == whole.last


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        # The clocks of Berlin are put forward in the night to March 29th, and back on October 25th.
        (datetime(2026, 3, 29, 22, 30, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC)),
        (datetime(2026, 3, 29, 21, 59, tzinfo=UTC), datetime(2026, 3, 28, 23, tzinfo=UTC)),
        (datetime(2026, 10, 25, 22, 59, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC)),
        (datetime(2026, 10, 25, 23, 0, tzinfo=UTC), datetime(2026, 10, 25, 23, tzinfo=UTC)),
    ],
)
def test_a_day_is_as_long_as_it_is_there(now: datetime, expected: datetime) -> None:
    """A limit of a day counts from local midnight, over 23 hours in spring and 25 in autumn."""
    day = Window(period=Period.DAY, time_zone="Europe/Berlin")
    limit = Limit(name="day", period=day, capacity_tokens=1)
    at = Micros(int(now.timestamp()) * SECOND)
    assert expected == from_micros(rules.since(limit, at))
    rolling = Limit(name="day", period=Rolling(timedelta(days=1)), capacity_tokens=1)
    assert now - timedelta(days=1) + timedelta(microseconds=1) == from_micros(
        rules.since(rolling, at)
    )


def test_the_limit_that_frees_up_last_is_named() -> None:
    """Of several limits that refuse, and the pool's own window, the last to free up counts."""
    policy = SharedPoolBudgetOptions(
        capacity_tokens=5,
        window=Window(period=timedelta(minutes=10)),
        limits=[
            Limit(name="hour", period=Rolling(timedelta(hours=1)), capacity_tokens=5),
            Limit(name="minute", period=MINUTE, capacity_tokens=5),
            Limit(name="calls", period=MINUTE, capacity_requests=1),
        ],
    )
    track = history([Change(0, 1, 5)])
    at, balance = Micros(30 * SECOND), Balance(Totals(5))
    window = rules.begin_window(policy, Micros(0), Totals())
    limits = rules.Limits(policy, at, track)
    asked = UsageEstimate(total_tokens=1), RequestBudget.unlimited(), window
    denial = rules.admit(policy, balance, *asked, limits=limits)
    assert isinstance(denial, ThresholdExceededError)
    assert ("hour", from_micros(3_600 * SECOND)) == (denial.limit, denial.retry_at)
    assert 0 == denial.remaining_tokens
    assert "'hour'" in str(denial)
    # What is held never frees up by itself.
    held = Balance(Totals(5), Totals(5, 0, 1))
    denial = rules.admit(policy, held, *asked, limits=limits)
    assert isinstance(denial, ThresholdExceededError)
    assert denial.retry_at is None


def test_a_window_that_carries_over_says_which_one_will_be_large_enough() -> None:
    """A request larger than one window waits until enough has been carried over."""
    hours = Window(period=timedelta(hours=1), carry_over=True)
    policy = SharedPoolBudgetOptions(capacity_tokens=10, window=hours)
    window = rules.begin_window(policy, Micros(0), Totals())
    for asked, hour in [(10, 0), (11, 1), (20, 1), (21, 2), (1_000, 99), (20_000, None)]:
        denial = rules.admit(
            policy,
            Balance(Totals()),
            UsageEstimate(total_tokens=asked),
            RequestBudget.unlimited(),
            window,
        )
        expected = None if not hour else from_micros(hour * 3_600 * SECOND)
        assert expected == (denial and denial.retry_at)  # type: ignore[union-attr]
    lapse = SharedPoolBudgetOptions(capacity_tokens=10, window=Window(period=Period.DAY))
    window = rules.begin_window(lapse, Micros(0), Totals())
    for asked, retry in [(10, from_micros(86_400 * SECOND)), (11, None)]:
        denial = rules.admit(
            lapse,
            Balance(Totals(1)),
            UsageEstimate(total_tokens=asked),
            RequestBudget.unlimited(),
            window,
        )
        assert isinstance(denial, ThresholdExceededError)
        assert retry == denial.retry_at


def limit(**given: Any) -> Limit:  # noqa: ANN401 - what the test gives
    """Return a limit with some fields."""
    return Limit(**{"name": "x", "period": MINUTE, "capacity_tokens": 1} | given)


@pytest.mark.parametrize(
    "given",
    [
        {"name": ""},
        {"name": "x" * 65},
        {"name": 5},
        {"period": timedelta(minutes=1)},
        {"period": "day"},
        {"period": Window(period=Period.DAY, carry_over=True)},
        {"period": Window(period=timedelta(hours=5), session=True)},
        {"capacity_tokens": U64_MAX},
        {"capacity_tokens": -1},
        {"capacity_tokens": 1.5},
    ],
)
def test_what_is_no_limit_is_refused(given: dict[str, Any]) -> None:
    """A limit needs a name, a period and an amount."""
    with pytest.raises((InvalidInputError, AmountOutOfRangeError)):
        limit(**given)


@pytest.mark.parametrize("length", [timedelta(0), timedelta(days=3_651), 60])
def test_what_is_no_length_is_refused(length: Any) -> None:  # noqa: ANN401 - what the test gives
    """A rolling period lasts from a second to ten years."""
    with pytest.raises(InvalidInputError):
        Rolling(length)


@pytest.mark.parametrize(
    "limits",
    [5, "x", [5], [limit(), limit()], [limit(name=str(number)) for number in range(9)]],
)
def test_what_are_no_limits_is_refused(limits: Any) -> None:  # noqa: ANN401 - what the test gives
    """A policy has at most eight limits, of different names."""
    with pytest.raises(InvalidInputError):
        SharedPoolBudgetOptions(limits=limits)


def test_a_limit_beyond_the_store_is_refused() -> None:
    """A store holds amounts up to 2^63-1, and anchors of the years 1900 to 2999."""
    anchor = datetime(1899, 1, 1, tzinfo=UTC)
    early = limit(period=Window(period=Period.DAY, anchor=anchor))
    for one in (limit(capacity_tokens=I64_MAX + 1), early):
        with pytest.raises((AmountOutOfRangeError, InvalidInputError)):
            check_storable_policy(SharedPoolBudgetOptions(limits=[one]))


def test_limits_are_stored_as_they_are() -> None:
    """What is written can be read, and a policy without limits is stored as before."""
    policy = SharedPoolBudgetOptions(
        limits=[
            limit(),
            limit(name="y", period=Window(period=Period.WEEK, time_zone="Asia/Tokyo")),
            limit(name="z", capacity_tokens=U64_MAX, capacity_requests=0),
        ]
    )
    assert policy == policy_from_json(policy_to_json(policy))
    assert hash(policy) == hash(policy_from_json(policy_to_json(policy)))
    assert "limits" not in policy_to_json(SharedPoolBudgetOptions())
    assert "'x': 1 tokens in any 0:01:00" in str(policy)
    for stored in ({"name": "x", "rolling": 1}, {"name": "x", "window": {}, "rolling": 1}, {}):
        with pytest.raises((InvalidInputError, TypeError)):
            policy_from_json({"limits": [stored]})
