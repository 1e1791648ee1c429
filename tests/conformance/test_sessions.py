"""Sessions: windows that begin with the first call after the last one has ended."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from ledger import (
    I64_MAX,
    AmountOutOfRangeError,
    EntryKind,
    IdempotencyKey,
    Ledger,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnpricedCallError,
    Usage,
    UsageEstimate,
    Window,
    reports,
)
from ledger.core.checks import to_micros
from ledger.reports.render.statement import statement_notes
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import Clock
from tests.conformance.conftest import Vandal, refused, spend

FIVE_HOURS = Window(period=timedelta(hours=5), session=True)
FIVE_HOURS_US = 5 * 3_600_000_000
OPTIONS = SharedPoolBudgetOptions(capacity_tokens=100, window=FIVE_HOURS, thresholds={"half": 50})


@pytest.fixture
def budget(timed_budgets: Callable[..., Any], clock: Clock) -> Any:  # noqa: ANN401 - any manager
    """Return a manager with sessions that goes by `clock`."""
    clock.now = 1_774_738_000_000_000  # in the night in which Berlin puts its clocks forward
    return timed_budgets(OPTIONS)


def left(budget: Any) -> int:  # noqa: ANN401 - any manager
    """Return what remains, in tokens."""
    found: int = budget.remaining(EXTENSIONS).tokens
    return found


def rollovers(book: Ledger, pool: str) -> int:
    """Return how many sessions a pool has had."""
    return len(list(book.entries(pool, kind=EntryKind.ROLLOVER)))


def test_a_session_begins_with_a_call_and_lasts_its_length(budget: Any, clock: Clock) -> None:  # noqa: ANN401 - any manager
    """Not with the pool, and not where the last one ended; a change of the clocks is nothing."""
    clock.minutes(7 * 60)
    begin = clock.now
    spend(budget, 60)
    clock.minutes(4 * 60)
    spend(budget, 40)
    assert begin + FIVE_HOURS_US == to_micros("at", refused(budget, 1).retry_at)
    clock.now = begin + FIVE_HOURS_US - 1
    assert 0 == left(budget)
    refused(budget, 1)
    clock.now += 1
    assert 100 == left(budget)
    clock.minutes(33)  # no session lasts, so no time of one goes by
    assert refused(budget, 101).retry_at is None
    begin = clock.now
    spend(budget, 100)
    assert begin + FIVE_HOURS_US == to_micros("at", refused(budget, 1).retry_at)


def test_what_comes_between_two_sessions_counts_in_the_first(budget: Any, clock: Clock) -> None:  # noqa: ANN401 - any manager
    """But what is held counts on: it may be spent in the second."""
    first = budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)
    second = budget.reserve(EXTENSIONS, tokens(30), UNLIMITED)
    clock.minutes(6 * 60)
    assert 30 == left(budget)
    budget.record_used(first, Usage(total_tokens=90))
    assert 70 == left(budget)
    spend(budget, 10)
    assert 60 == left(budget)
    budget.record_used(second, Usage(total_tokens=25))
    assert 65 == left(budget)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_only_a_call_that_is_granted_begins_one(
    kind: str, new_store: Callable[[str], str], clock: Clock
) -> None:
    """Denied, refused, out of range, expired, adjusted: the session has not begun by that."""
    clock.now = 1_774_738_000_000_000
    with Ledger.open(new_store(kind), clock=clock, record_denials=True) as book:
        options = SharedPoolBudgetOptions(
            capacity_tokens=100, window=FIVE_HOURS, lease_ttl=timedelta(minutes=1)
        )
        budget = book.pool("pool", options)
        refused(budget, 101)
        with pytest.raises(UnpricedCallError):
            budget.reserve(EXTENSIONS, UsageEstimate(input_tokens=1), UNLIMITED)
        assert 0 == rollovers(book, "pool")
        budget.reserve(EXTENSIONS, tokens(30), UNLIMITED)
        clock.minutes(6 * 60)
        assert 1 == book.expire_due()
        book.adjust("pool", SharedPoolBudgetOptions(capacity_tokens=50, window=FIVE_HOURS))
        clock.minutes(60)
        assert (1, 50) == (rollovers(book, "pool"), left(budget))
        wide = SharedPoolBudgetOptions(window=FIVE_HOURS)
        book.adjust("pool", wide)
        spend(budget, 10)
        held = budget.reserve(EXTENSIONS, tokens(I64_MAX), UNLIMITED)
        clock.minutes(6 * 60)
        with pytest.raises(AmountOutOfRangeError):
            budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        assert 2 == rollovers(book, "pool")
        budget.release(held)
        day = SharedPoolBudgetOptions(window=Window(period=timedelta(days=1)))
        for other in (day, wide):
            book.adjust("pool", other)
        assert (2, 0) == (rollovers(book, "pool"), budget.status().spent.tokens)
        assert all(found.ok for found in book.verify())


def test_two_processes_that_begin_one_at_once_agree(store_url: str) -> None:
    """Both calls are in the one session that the first of them began."""
    ahead, behind = Clock(), Clock()
    with (
        Ledger.open(store_url, clock=ahead) as one,
        Ledger.open(store_url, clock=behind) as other,
        ThreadPoolExecutor(6) as threads,
    ):
        budgets = [one.pool("pool", OPTIONS), other.pool("pool", OPTIONS)]
        for number in (1, 2):
            list(threads.map(lambda budget: spend(budget, 5), 3 * budgets))
            assert number == rollovers(one, "pool")
            assert [70, 70] == [left(budget) for budget in budgets]
            for clock in (ahead, behind):
                clock.minutes(5 * 60)
        # The slow clock is in a session that the fast one has begun, or has seen the end of.
        ahead.minutes(30)
        spend(budgets[0], 50)
        assert 50 == left(budgets[1])
        end = ahead.now + FIVE_HOURS_US
        assert end == to_micros("at", refused(budgets[1], 60).retry_at)
        late = budgets[0].reserve(EXTENSIONS, tokens(10), UNLIMITED)
        ahead.minutes(5 * 60)
        budgets[0].record_used(late, Usage(total_tokens=10))
        assert [100, 100] == [left(budget) for budget in budgets]
        spend(budgets[1], 60)
        assert [40, 40] == [left(budget) for budget in budgets]
        assert 4 == rollovers(one, "pool")
        assert all(found.ok for found in one.verify())


def test_a_call_begins_the_sessions_of_all_pools_that_share(timed: Ledger, clock: Clock) -> None:
    """A share that is carved out is a call, too; a kept denial of a pool above verifies."""
    timed.pool("org", OPTIONS)
    team = timed.pool("team", SharedPoolBudgetOptions(window=FIVE_HOURS), parent="org")
    other = timed.pool("other", SharedPoolBudgetOptions(), parent="org")
    spend(other, 60)
    assert (1, 0) == (rollovers(timed, "org"), rollovers(timed, "team"))
    clock.minutes(4 * 60)
    spend(team, 30)
    assert (1, 1) == (rollovers(timed, "org"), rollovers(timed, "team"))
    keyed = RequestExtensions(IdempotencyKey("once"))
    for amount in (20, 20):
        with pytest.raises(ThresholdExceededError) as found:
            team.reserve(keyed, tokens(amount), UNLIMITED)
    assert ("org", clock.now + FIVE_HOURS_US // 5) == (
        found.value.pool,
        to_micros("at", found.value.retry_at),
    )
    clock.minutes(5 * 60)
    with pytest.raises(ThresholdExceededError):
        team.reserve(RequestExtensions(IdempotencyKey("too much")), tokens(101), UNLIMITED)
    box = SharedPoolBudgetOptions(capacity_tokens=20)
    timed.pool("box", box, parent="org", carved=True)
    assert (2, 80) == (rollovers(timed, "org"), left(other))
    assert all(found.ok for found in timed.verify())


def test_a_session_that_has_not_begun_is_called_so(timed: Ledger, clock: Clock) -> None:
    """Before the first call and between two sessions; time alone then changes nothing."""
    budget = timed.pool("pool", OPTIONS)

    def said() -> tuple[bool, bool, bool]:
        status, found = budget.status(), reports.statement(timed, "pool")
        assert status.window is not None
        assert found.window is not None
        assert status.window.begun is found.window.begun
        notes = [*statement_notes(found, timed.now())]
        called = any(one.startswith("No session lasts; a call now would begin") for one in notes)
        assert called is not any(one.startswith("Window") for one in notes)
        return status.window.begun, status.until == status.window.end, called

    assert (False, False, True) == said()
    assert None is budget.status().until
    spend(budget, 1)
    assert (True, True, False) == said()
    clock.minutes(6 * 60)
    assert (False, False, True) == said()
    timed.expire_due()  # a write that is no call begins none
    assert (False, False, True) == said()


def test_reports_refill_where_a_session_ended(timed: Ledger, clock: Clock) -> None:
    """The burn-down and the standing say what the next call would find; alerts come once each."""
    budget = timed.pool("pool", OPTIONS)
    lease = budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
    spend(budget, 60)
    begin = clock.now
    clock.minutes(6 * 60)
    budget.record_used(lease, Usage(total_tokens=20))
    points = reports.burn_down(timed, "pool").points
    assert [30, 90, 100] == [one.remaining_tokens for one in points][-3:]
    assert begin + FIVE_HOURS_US == to_micros("at", points[-2].at)
    (stands,) = reports.standing(timed, "pool")
    assert (100, 0) == (stands.remaining.tokens, stands.spent.tokens)
    spend(budget, 60)
    said = [(one.crossing.threshold, one.crossing.direction) for one in timed.alerts()]
    assert [("half", "reached"), ("half", "left"), ("half", "reached")] == said


@pytest.mark.parametrize("forged", ["a session without a call", "a call without a session"])
def test_a_session_that_no_call_began_is_damage(store_url: str, clock: Clock, forged: str) -> None:
    """It would let an earlier session end before its time."""
    with Ledger.open(store_url, clock=clock) as book:
        budget = book.pool("pool", OPTIONS)
        spend(budget, 10)
        clock.minutes(6 * 60)
        spend(budget, 10)
        assert [None] == [one.damage for one in book.verify()]
        vandal = Vandal(store_url)
        (_, second) = [one.seq for one in book.entries("pool", kind=EntryKind.ROLLOVER)]
        if forged == "a session without a call":
            vandal.run(f"DELETE FROM entries WHERE seq > {second}")
            reason = "no call follows"
        else:
            vandal.forge(second + 1, recorded_at=clock.now + FIVE_HOURS_US)
            reason = "in a window that had ended"
        vandal.close()
        (found,) = book.verify()
        assert found.damage is not None
        assert reason in found.damage.reason
