"""Several limits on one pool: rolling ones and calendar ones, and when a refusal frees up."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from ledger import (
    EntryKind,
    IdempotencyKey,
    LeaseTtl,
    Ledger,
    Limit,
    Period,
    RequestExtensions,
    Rolling,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnpricedCallError,
    Usage,
    UsageEstimate,
    Window,
    reports,
)
from ledger.core.checks import from_micros, to_micros
from ledger.engine.capacity_queue import Action, ThreadWaiter
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import HOUR, Clock
from tests.conformance.conftest import Vandal, refused, spend

FIVE_HOURS = Limit(name="5h", period=Rolling(5 * HOUR), capacity_tokens=100)
RATE = Limit(name="rate", period=Rolling(timedelta(minutes=1)), capacity_requests=3)
DAY = Limit(name="day", period=Window(period=Period.DAY), capacity_tokens=150)


def limited(*limits: Limit, **more: Any) -> SharedPoolBudgetOptions:  # noqa: ANN401 - a policy's
    """Return a policy with limits."""
    return SharedPoolBudgetOptions(limits=limits, **more)


@pytest.fixture
def make(timed_budgets: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that makes a manager that goes by `clock`."""
    return timed_budgets


def test_a_refusal_says_which_limit_and_when_it_frees_up(make: Any, clock: Clock) -> None:  # noqa: ANN401 - makes any manager
    """At that microsecond the same request is admitted, and not one microsecond before."""
    budget = make(limited(FIVE_HOURS, RATE, DAY))
    begin = clock.now
    for _ in range(3):
        spend(budget, 20)
        clock.now += 10_000_000
    assert 40 == budget.remaining(EXTENSIONS).tokens
    assert 0 == budget.remaining(EXTENSIONS).requests
    found = refused(budget, 40)
    assert ("rate", begin + 60_000_000) == (found.limit, to_micros("at", found.retry_at))
    clock.now = begin + 60_000_000 - 1
    assert "rate" == refused(budget, 40).limit
    clock.now += 1
    spend(budget, 40)
    # The five hours are used up now. 20 come back five hours after the first call, 40 after two.
    found = refused(budget, 30)
    assert ("5h", begin + 5 * 3_600_000_000 + 10_000_000) == (
        found.limit,
        to_micros("at", found.retry_at),
    )
    clock.now = begin + 5 * 3_600_000_000 + 9_999_999
    assert 20 == budget.remaining(EXTENSIONS).tokens
    refused(budget, 30)
    clock.now += 1
    spend(budget, 30)
    # Of the 150 of the day 130 are spent; it was 22:13:20 of a day in UTC when all began.
    assert refused(budget, 101).retry_at is None


def test_a_day_begins_at_midnight_and_a_hold_counts_in_both(make: Any, clock: Clock) -> None:  # noqa: ANN401 - as above
    """A lease over midnight takes capacity of the next day until it ends."""
    budget = make(limited(DAY))
    midnight = clock.now - clock.now % 86_400_000_000 + 86_400_000_000
    spend(budget, 100)
    lease = budget.reserve(EXTENSIONS, tokens(50), UNLIMITED)
    assert midnight == to_micros("at", refused(budget, 1).retry_at)
    clock.now = midnight
    assert 100 == budget.remaining(EXTENSIONS).tokens
    assert refused(budget, 120).retry_at is None
    budget.release(lease)
    spend(budget, 120)


def test_late_usage_takes_the_place_of_what_was_assumed(make: Any, clock: Clock) -> None:  # noqa: ANN401 - as above
    """What was assumed of an expired call counts until its usage is known, and never both."""
    budget = make(limited(FIVE_HOURS, lease_ttl=timedelta(minutes=1)))
    lease = budget.reserve(EXTENSIONS, tokens(60), UNLIMITED)
    clock.minutes(2)
    spend(budget, 1)
    assert 39 == budget.remaining(EXTENSIONS).tokens
    clock.minutes(60)
    budget.record_used(lease, Usage(total_tokens=10))
    assert 89 == budget.remaining(EXTENSIONS).tokens
    late = budget.reserve(EXTENSIONS, tokens(80), UNLIMITED)
    clock.minutes(2)
    assert 9 == budget.remaining(EXTENSIONS).tokens
    spend(budget, 0)
    clock.minutes(5 * 60 + 1)
    assert 100 == budget.remaining(EXTENSIONS).tokens
    # The charge has left the five hours: what takes its place counts no second time.
    budget.record_used(late, Usage(total_tokens=30))
    assert 100 == budget.remaining(EXTENSIONS).tokens


def test_what_is_left_holds_until_less_counts(timed: Ledger, clock: Clock) -> None:
    """Until the first call, or the first hold that has ended, ceases to count, here or above."""
    begin, us = clock.now, 60_000_000
    cost = Limit(name="cost", period=Rolling(HOUR), capacity_cost_micros_usd=9)
    timed.pool("org", limited(RATE, cost, unpriced="flag"))
    options = limited(FIVE_HOURS, lease_ttl=timedelta(minutes=30), unpriced="flag")
    budget = timed.pool("pool", options, parent="org")
    assert None is budget.status().until
    spend(budget, 20)
    assert begin + us == budget.status().until  # the rate above; what it cost is nothing
    clock.minutes(2)
    assert begin + 300 * us == budget.status().until
    budget.reserve(EXTENSIONS, tokens(30), UNLIMITED)
    budget.reserve(RequestExtensions(LeaseTtl(timedelta(minutes=10))), tokens(10), UNLIMITED)
    for minute, until in ((299, 300), (300, 312), (311, 312), (312, 332), (331, 332), (332, None)):
        clock.now = begin + minute * us
        expected = None if until is None else begin + until * us
        assert expected == budget.status().until
        assert (
            None is until
            or from_micros(begin + until * us) == reports.statement(timed, "pool").until
        )
    assert 1 + 2 + 2 == budget.status().seq, "nothing was written meanwhile"


def test_an_overspent_limit_and_a_missing_figure_are_refused(make: Any) -> None:  # noqa: ANN401 - as above
    """A limit is as strict about both as the capacity is."""
    dollar = Limit(name="usd", period=Rolling(HOUR), capacity_cost_micros_usd=10)
    budget = make(limited(dollar, FIVE_HOURS))
    with pytest.raises(UnpricedCallError):
        budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    asked = UsageEstimate(total_tokens=1, cost_micros_usd=1)
    lease = budget.reserve(EXTENSIONS, asked, UNLIMITED)
    budget.record_used(lease, Usage(total_tokens=1, cost_micros_usd=11))
    with pytest.raises(ThresholdExceededError) as found:
        budget.reserve(EXTENSIONS, asked, UNLIMITED)
    assert "usd" == found.value.limit
    assert found.value.remaining_cost_micros_usd == 0
    assert budget.remaining(EXTENSIONS).below_threshold


def test_a_correction_gives_back_what_still_counts(timed: Ledger, clock: Clock) -> None:
    """A refund frees a limit that holds the call, and none that does not hold it any more."""
    budget = timed.pool("pool", limited(FIVE_HOURS, DAY))

    def settled(amount: int) -> int:
        spend(budget, amount)
        return budget.status().seq

    first = settled(40)
    clock.minutes(4 * 60)  # over midnight in UTC
    second = settled(50)
    assert [10, 100] == [one.remaining.tokens for one in budget.status().limits]
    budget.correct(first, Usage(total_tokens=30), "refund")
    assert [20, 100] == [one.remaining.tokens for one in budget.status().limits]
    clock.minutes(2 * 60)
    budget.correct(first, Usage.zero(), "refund after it has left both")
    assert [50, 100] == [one.remaining.tokens for one in budget.status().limits]
    budget.correct(first, Usage(total_tokens=5), "found late, so it counts now")
    assert [45, 95] == [one.remaining.tokens for one in budget.status().limits]
    budget.correct(first, Usage(total_tokens=2), "and less after all")
    budget.correct(second, Usage(total_tokens=20), "refund")
    assert [78, 128] == [one.remaining.tokens for one in budget.status().limits]
    assert all(found.ok for found in timed.verify())


def test_a_limit_counts_what_came_before_it(timed: Ledger, clock: Clock) -> None:
    """A limit that is set at noon counts the whole day, and one that is changed goes on."""
    budget = timed.pool("pool", limited())
    spend(budget, 60)
    timed.adjust("pool", limited(FIVE_HOURS), reason="a limit")
    assert ("5h", 40) == (refused(budget, 50).limit, budget.remaining(EXTENSIONS).tokens)
    more = Limit(name="5h", period=Rolling(5 * HOUR), capacity_tokens=120)
    timed.adjust("pool", limited(more), reason="more of it")
    assert 60 == budget.remaining(EXTENSIONS).tokens
    clock.minutes(5 * 60)
    assert 120 == budget.remaining(EXTENSIONS).tokens
    assert all(found.ok for found in timed.verify())
    assert timed.replay("pool").balance == budget.status().balance


def test_limits_above_count_what_pools_below_spend(timed: Ledger, clock: Clock) -> None:
    """The refusal names the pool and its limit, and its key gives the same one again."""
    timed.pool("org", limited(FIVE_HOURS))
    team = timed.pool("team", limited(RATE), parent="org")
    other = timed.pool("other", limited(), parent="org")
    spend(other, 60)
    clock.minutes(1)
    spend(team, 30)
    keyed = RequestExtensions(IdempotencyKey("once"))
    said = []
    for _ in range(2):
        with pytest.raises(ThresholdExceededError) as found:
            team.reserve(keyed, tokens(20), UNLIMITED)
        said.append(found.value)
        clock.minutes(1)
    assert vars(said[0].kept_at(from_micros(clock.now - 2 * 60_000_000))) == vars(said[1])
    assert ("org", "5h", 10) == (said[0].pool, said[0].limit, said[0].remaining_tokens)
    assert clock.now == to_micros("at", said[0].retry_at) - 5 * 3_600_000_000 + 3 * 60_000_000
    assert 10 == team.remaining(EXTENSIONS).tokens
    # A pool that is carved out holds its whole capacity here, for as long as it is open.
    with pytest.raises(ThresholdExceededError) as found:
        timed.pool("box", SharedPoolBudgetOptions(capacity_tokens=11), parent="org", carved=True)
    assert "5h" == found.value.limit
    assert all(found.ok for found in timed.verify())


def test_clocks_that_disagree_never_count_less(store_url: str) -> None:
    """A process whose clock is behind counts by the newest entry's time, and so frees nothing."""
    ahead, behind = Clock(), Clock()
    ahead.minutes(30)
    with (
        Ledger.open(store_url, clock=ahead) as one,
        Ledger.open(store_url, clock=behind, record_denials=True) as other,
    ):
        hour = limited(Limit(name="hour", period=Rolling(HOUR), capacity_tokens=100))
        spend(one.pool("org", hour), 50)
        slow = other.pool("org")
        spend(slow, 40)
        assert 10 == slow.remaining(EXTENSIONS).tokens
        found = refused(slow, 20)
        assert ahead.now + 3_600_000_000 == to_micros("at", found.retry_at)
        behind.minutes(89)
        refused(slow, 20)
        behind.minutes(1)
        spend(slow, 20)
        # A refusal by the pool above says at which time that was, if the journals' times differ.
        team = one.pool("team", limited(), parent="org")
        ahead.now = behind.now + 60_000_000
        spend(team, 1)
        ahead.minutes(-30)
        other.pool("other", limited(), parent="org")
        refused(other.pool("other"), 90)
        refused(other.pool("team"), 90)
        assert [True] * 3 == [found.ok for found in one.verify()]


def test_thousands_of_entries_and_corrections_are_counted_right(
    timed: Ledger, clock: Clock
) -> None:
    """Limits are read from the journal in pages, and what a batch has staged counts too."""
    minute = Limit(name="minute", period=Rolling(timedelta(minutes=1)), capacity_tokens=10**6)
    long = Limit(name="long", period=Rolling(timedelta(days=30)), capacity_tokens=10**6)
    budget = timed.pool("pool", limited(minute, long))
    spent = []
    for number in range(75):
        spend(budget, 7)
        spent.append((clock.now, budget.status().seq))
        if number % 3 == 2:
            budget.correct(spent[-2][1], Usage(total_tokens=2), "refund")
        clock.now += 1_000_000
    fresh = [one.counted.tokens for one in timed.pool("pool").status().limits]
    recent = [seq for at, seq in spent if at > clock.now - 60_000_000]
    corrected = {spent[number - 1][1] for number in range(2, 75, 3)}
    assert sum(2 if seq in corrected else 7 for seq in recent) == fresh[0]
    assert 75 * 7 - 25 * 5 == fresh[1]
    assert all(found.ok for found in timed.verify())


def test_the_journal_proves_that_limits_held(timed: Ledger, clock: Clock, vandal: Vandal) -> None:
    """A reservation over a limit, and a refusal that names another time, are damage."""
    budget = timed.pool("pool", limited(FIVE_HOURS))
    spend(budget, 60)
    clock.minutes(1)
    keyed = RequestExtensions(IdempotencyKey("once"))
    with pytest.raises(ThresholdExceededError):
        budget.reserve(keyed, tokens(50), UNLIMITED)
    spend(budget, 40)
    denial = vandal.row(4)
    assert EntryKind.DENIAL == denial["kind"]
    for name in ("retry_at", "limit"):
        figures = json.loads(denial["detail"])
        del figures["denial"][name]
        forged = json.dumps(figures, sort_keys=True, separators=(",", ":"))
        vandal.forge(4, detail=forged)
        (found,) = timed.verify()
        assert found.damage is not None
        assert 4 == found.damage.seq
    vandal.forge(4, detail=denial["detail"])
    opening = vandal.row(1)["detail"].replace('"capacity_tokens":100', '"capacity_tokens":99')
    vandal.forge(1, detail=opening)
    vandal.forge(
        4, detail=denial["detail"].replace('"remaining_tokens":40', '"remaining_tokens":39')
    )
    (found,) = timed.verify()
    assert found.damage is not None
    assert 5 == found.damage.seq


def test_whoever_waits_asks_when_the_limit_frees_up() -> None:
    """A waiting call asks again at the time that its refusal named, and not only by chance."""
    for asks_in in (None, 3_600.0):
        waiter = ThreadWaiter([1], 1_000)
        assert Action.ASK is waiter.next_action(first=True)
        waiter.note_refusal(asks_in, too_large=False)
        assert Action.SLEEP is waiter.next_action(first=True)
    waiter = ThreadWaiter([1], 1_000)
    assert Action.ASK is waiter.next_action(first=True)
    waiter.note_refusal(0.0, too_large=False)
    while (action := waiter.next_action(first=True)) is Action.SLEEP:
        waiter.sleep()
    assert Action.ASK is action


class Going(Clock):
    """A clock that goes on whenever it is read."""

    def __call__(self) -> int:
        """Return the time, a tenth of a second after the last one."""
        self.now += 100_000
        return self.now


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_call_that_waits_is_admitted_once_the_limit_frees_up(
    kind: str, new_store: Callable[[str], str]
) -> None:
    """Time alone brings capacity back: no other call has to come."""
    second = limited(Limit(name="s", period=Rolling(timedelta(seconds=1)), capacity_tokens=1))
    if kind == "memory":
        budget: Any = SharedPoolBudgetManager(second, clock=Going())
        spend(budget, 1)
        assert budget.reserve(EXTENSIONS, tokens(1), UNLIMITED, wait_s=60).id > 0
        return
    with Ledger.open(new_store(kind), clock=Going()) as book:
        budget = book.pool("pool", second)
        spend(budget, 1)
        assert budget.reserve(EXTENSIONS, tokens(1), UNLIMITED, wait_s=60).id > 0
