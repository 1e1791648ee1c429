"""Prepaid credits: who may spend what until when, on every manager and in every process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest

from ledger import (
    Alert,
    AsyncLedger,
    Credit,
    EntryKind,
    IdempotencyConflictError,
    IdempotencyKey,
    InvalidInputError,
    JournalDamagedError,
    LeaseTtl,
    Ledger,
    Limit,
    PastCall,
    Period,
    PoolClosedError,
    RequestExtensions,
    Rolling,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnpricedCallError,
    Usage,
    UsageEstimate,
    Window,
    from_micros,
)
from ledger.core.checks import to_micros
from ledger.store.database import Reads
from ledger.store.history import StoredHistory
from ledger.testing import Awaited
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import HOUR_US, Clock
from tests.conformance.conftest import Vandal, refused, spend

PREPAID = SharedPoolBudgetOptions(prepaid=["tokens"])

Make = Callable[[SharedPoolBudgetOptions], "Prepaid"]


class Prepaid(NamedTuple):
    """A manager, what gives it a credit, and what yields the thresholds that were crossed."""

    budget: Any
    top_up: Callable[[Credit], None]
    alerts: Callable[[], Iterable[Alert]]
    clock: Clock

    def give(self, name: str, amount: int, hours: int | None = None, priority: int = 50) -> None:
        """Give a credit of tokens that expires after so many hours, or never."""
        until = None if hours is None else from_micros(self.clock.now + hours * HOUR_US)
        self.top_up(Credit(name=name, tokens=amount, expires_at=until, priority=priority))


@pytest.fixture(params=["memory", "sqlite", "postgresql", "async sqlite"])
def make(
    request: pytest.FixtureRequest, clock: Clock, new_store: Callable[[str], str]
) -> Iterator[Make]:
    """Return a function that makes a manager that goes by `clock`."""
    if request.param == "memory":

        def in_memory(options: SharedPoolBudgetOptions) -> Prepaid:
            manager = SharedPoolBudgetManager(options, clock=clock)
            return Prepaid(manager, manager.credit, manager.alerts, clock)

        yield in_memory
        return
    face, _, kind = request.param.rpartition(" ")
    with Ledger.open(new_store(kind), clock=clock) as book:
        run = request.getfixturevalue("runner").run

        def in_store(options: SharedPoolBudgetOptions) -> Prepaid:
            if face != "async":
                budget: Any = book.pool("pool", options)
                return Prepaid(budget, partial(book.credit, "pool"), book.alerts, clock)
            store = Awaited(AsyncLedger(book), run)
            budget = Awaited(store.pool("pool", options), run)
            return Prepaid(budget, partial(store.credit, "pool"), book.alerts, clock)

        yield in_store
        assert all(found.ok for found in book.verify())


def left(budget: Any) -> int:  # noqa: ANN401 - any manager
    """Return how many tokens are left."""
    remaining: int = budget.remaining(EXTENSIONS).tokens
    return remaining


def test_a_prepaid_budget_spends_its_credits_and_no_more(make: Make, clock: Clock) -> None:
    """Nothing before the first; then by priority, by what expires sooner, by what came first."""
    made = make(PREPAID)
    budget, give = made.budget, made.give
    assert (0, True) == (left(budget), budget.remaining(EXTENSIONS).below_threshold)
    assert {"tokens": 1} == refused(budget, 1).top_up
    give("later", 10)
    give("second", 10, 2)
    give("first", 10, 3, priority=1)
    spend(budget, 15)
    assert 15 == left(budget)
    clock.minutes(120)
    # 5 of the second had been used, and 5 are lost; the first, used up, lasts one hour more.
    assert 10 == left(budget)
    found = refused(budget, 11)
    assert ({"tokens": 1}, "second") == (found.top_up, found.expired)
    assert from_micros(clock.now) == found.expired_at
    assert "by its credits" in str(found)
    assert "or give a credit of 1 tokens" in str(found)
    spend(budget, 10)
    refused(budget, 1)


def test_a_credit_expires_to_the_microsecond(make: Make, clock: Clock) -> None:
    """And a clock that goes back does not bring it back, once an entry has been recorded."""
    made = make(PREPAID)
    budget, give = made.budget, made.give
    give("short", 10, 1)
    clock.now += HOUR_US - 1
    assert 10 == left(budget)
    clock.now += 1
    assert 0 == left(budget)
    give("next", 3)
    clock.minutes(-90)
    assert 3 == left(budget)
    spend(budget, 3)
    refused(budget, 1)


def test_a_hold_stays_when_its_credit_expires(make: Make, clock: Clock) -> None:
    """It counts on what is left, and its usage is paid when it is recorded; nothing is revoked."""
    made = make(PREPAID)
    budget, give = made.budget, made.give
    give("short", 10, 1)
    give("long", 4)
    lease = budget.reserve(EXTENSIONS, tokens(9), UNLIMITED)
    assert 5 == left(budget)
    clock.minutes(60)
    assert 0 == left(budget)
    assert {"tokens": 6} == refused(budget, 1).top_up
    budget.record_used(lease, Usage(total_tokens=3))
    assert 1 == left(budget)


def test_what_no_credit_pays_is_a_debt_of_the_next(make: Make) -> None:
    """Real spend is recorded, and a top-up does not forget it."""
    made = make(PREPAID)
    budget, give = made.budget, made.give
    give("paid", 10)
    lease = budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
    budget.record_used(lease, Usage(total_tokens=25))
    assert {"tokens": 16} == refused(budget, 1).top_up
    give("little", 5)
    assert {"tokens": 11} == refused(budget, 1).top_up
    give("much", 12)
    assert 2 == left(budget)


def test_late_usage_is_paid_by_the_credits_of_its_lease(make: Make, clock: Clock) -> None:
    """It takes the place of what was assumed; the credit that paid that has expired since."""
    made = make(replace(PREPAID, lease_ttl=timedelta(minutes=1)))
    budget, give = made.budget, made.give
    give("short", 10, 1)
    give("long", 20)
    lease = budget.reserve(EXTENSIONS, tokens(8), UNLIMITED)
    clock.minutes(2)
    assert 22 == left(budget)  # what is due counts as charged
    spend(budget, 1)
    clock.minutes(60)
    assert 20 == left(budget)
    budget.record_used(lease, Usage(total_tokens=6))
    assert 20 == left(budget)


def test_percentages_count_credits(make: Make, clock: Clock) -> None:
    """Of what was left after the newest top-up; what has expired since counts no more."""
    made = make(replace(PREPAID, thresholds={"most": 80}))
    budget, give = made.budget, made.give
    told = teller(made)
    give("a", 10, 1)
    assert [] == told()  # before the first credit there was nothing of which to use most
    spend(budget, 7)
    assert [] == told()
    spend(budget, 1)
    assert [("reached", 2)] == told()
    give("b", 18)  # 20 are left: 80 % of them are 16
    assert [("left", 20)] == told()
    spend(budget, 15)
    assert [] == told()
    spend(budget, 1)
    assert [("reached", 4)] == told()
    give("c", 30, 1)  # 34: four of b, and this
    assert [("left", 34)] == told()
    spend(budget, 26)
    assert [] == told()
    clock.minutes(60)  # c expires with 4: of the 4 of b nothing is used
    spend(budget, 3)
    assert [] == told()
    spend(budget, 1)
    assert [("reached", 0)] == told()


def teller(made: Prepaid) -> Callable[[], list[tuple[str, int]]]:
    """Return a function that says what was crossed since its last call, and what was left then."""
    told: list[tuple[str, int]] = []

    def tell() -> list[tuple[str, int]]:
        crossings = [one.crossing for one in made.alerts()]
        found = [(str(one.direction), one.remaining.tokens) for one in crossings]
        new = found[len(told) :]
        told.extend(new)
        return new

    return tell


def test_an_expiry_crosses_with_the_next_entry(make: Make, clock: Clock) -> None:
    """What had been used of a credit counts no more once it has expired."""
    made = make(replace(PREPAID, thresholds={"most": 80}))
    told = teller(made)
    made.give("a", 10, 1)
    made.give("b", 10)
    spend(made.budget, 16)
    assert [("reached", 4)] == told()
    clock.minutes(60)
    assert [] == told()
    spend(made.budget, 0)  # 6 of the 10 of b are used
    assert [("left", 4)] == told()


def test_late_usage_crosses_by_how_much_it_differs(make: Make, clock: Clock) -> None:
    """It is paid by the credits of then, so that what is used since the newest top-up stays."""
    some = {"some": 40}
    made = make(replace(PREPAID, thresholds=some, lease_ttl=timedelta(minutes=1)))
    told = teller(made)
    made.give("a", 10)
    lease = made.budget.reserve(EXTENSIONS, tokens(8), UNLIMITED)
    clock.minutes(2)
    made.give("b", 10)  # 12 are left, of which nothing is used
    told()
    made.budget.record_used(lease, Usage(total_tokens=8))
    assert [] == told()
    lease = made.budget.reserve(EXTENSIONS, tokens(4), UNLIMITED)  # of 12, a third is used
    clock.minutes(2)
    spend(made.budget, 0)
    assert [] == told()
    made.budget.record_used(lease, Usage(total_tokens=5))
    assert [("reached", 7)] == told()


def test_windows_and_limits_hold_beside_credits(make: Make, clock: Clock) -> None:
    """A capacity of a day bounds what the credits allow, and the other way round."""
    day = Window(period=Period.DAY)
    made = make(replace(PREPAID, capacity_tokens=10, window=day))
    budget, give = made.budget, made.give
    give("paid", 12)
    spend(budget, 8)
    assert 2 == left(budget)
    assert refused(budget, 3).top_up is None
    clock.minutes(24 * 60)
    assert 4 == left(budget)
    assert {"tokens": 1} == refused(budget, 5).top_up


def test_a_refusal_says_whether_leases_hold_what_is_missing(make: Make) -> None:
    """Credits do not come back by time: they are held, and may be given back, or they are spent."""
    made = make(PREPAID)
    budget, give = made.budget, made.give
    give("paid", 10)
    assert not refused(budget, 11).held_by_leases
    lease = budget.reserve(EXTENSIONS, tokens(6), UNLIMITED)
    assert [True, True, False] == [refused(budget, one).held_by_leases for one in (5, 10, 11)]
    budget.record_used(lease, Usage(total_tokens=6))
    found = refused(budget, 5)
    assert (None, False, {"tokens": 1}) == (found.retry_at, found.held_by_leases, found.top_up)


def test_a_credit_of_another_kind_is_refused(make: Make) -> None:
    """On an axis that is not prepaid, expired, or without a pool that spends credits."""
    made = make(PREPAID)
    budget, give = made.budget, made.give
    with pytest.raises(InvalidInputError, match="does not spend USD of credits"):
        made.top_up(Credit(name="usd", cost_micros_usd=5))
    with pytest.raises(InvalidInputError, match="has expired"):
        give("old", 5, 0)
    give("good", 5)
    spend(budget, 5)


@pytest.mark.parametrize(
    ("axis", "estimate"),
    [
        ("tokens", UsageEstimate(input_tokens=3, output_tokens=3)),
        ("cost_micros_usd", UsageEstimate(total_tokens=3)),
    ],
)
def test_missing_figures_are_refused_where_credits_limit_them(
    make: Make, axis: str, estimate: UsageEstimate
) -> None:
    """A prepaid axis is limited: a call that leaves it out would be free."""
    made = make(replace(PREPAID, prepaid=[axis]))
    made.top_up(Credit(name="paid", **{axis: 5}))
    with pytest.raises(UnpricedCallError):
        made.budget.reserve(EXTENSIONS, estimate, UNLIMITED)


def test_a_strict_pool_and_stop_thresholds_keep_credits_back(make: Make) -> None:
    """What is kept back is never granted, and a top-up must be more than that."""
    made = make(replace(PREPAID, strict=True, stop_threshold_tokens=4))
    budget, give = made.budget, made.give
    give("paid", 10)
    spend(budget, 6)
    assert budget.remaining(EXTENSIONS).below_threshold
    assert {"tokens": 1} == refused(budget, 0).top_up
    give("one", 1)
    spend(budget, 0)
    assert {"tokens": 1} == refused(budget, 2).top_up


# In a store


def test_a_refund_goes_back_to_the_credit_that_paid(timed: Ledger, clock: Clock) -> None:
    """If that has expired, it frees nothing: a month spends no more than its credits."""
    budget = timed.pool("pool", PREPAID)

    def give(name: str, amount: int, hours: int | None) -> None:
        until = None if hours is None else from_micros(clock.now + hours * HOUR_US)
        timed.credit("pool", Credit(name=name, tokens=amount, expires_at=until))

    give("june", 10, 1)
    spend(budget, 8)
    (june,) = timed.entries("pool", kind=EntryKind.SETTLEMENT)
    give("july", 10, None)
    clock.minutes(61)
    spend(budget, 4)
    assert 6 == left(budget)
    budget.correct(june, Usage(total_tokens=1), "an invoice")
    assert 6 == left(budget)
    july = [*timed.entries("pool", kind=EntryKind.SETTLEMENT)][-1]
    budget.correct(july, Usage(total_tokens=1), "an invoice")
    assert 9 == left(budget)
    budget.correct(june, Usage(total_tokens=3), "a second look")  # counts when it is recorded
    assert 7 == left(budget)
    first, second = budget.status().credits
    assert (1, 9, 0) == (first.used.tokens, first.lost.tokens, first.left.tokens)
    assert (3, 0, 7) == (second.used.tokens, second.lost.tokens, second.left.tokens)


def test_a_refund_crosses_by_what_the_credits_had(timed: Ledger, clock: Clock) -> None:
    """It counts in the time in which the call was made: there was more at the newest top-up."""
    budget = timed.pool("pool", replace(PREPAID, thresholds={"half": 50}))
    told = teller(Prepaid(budget, partial(timed.credit, "pool"), timed.alerts, clock))
    timed.credit("pool", Credit(name="a", tokens=10))
    spend(budget, 8)
    (first,) = timed.entries("pool", kind=EntryKind.SETTLEMENT)
    timed.credit("pool", Credit(name="b", tokens=10))
    spend(budget, 10)  # of 12
    assert ("reached", 2) == told()[-1]
    budget.correct(first, Usage(total_tokens=1), "an invoice")  # 10 of 19
    assert [] == told()
    assert 9 == left(budget)
    assert all(found.ok for found in timed.verify())


def test_local_midnight_in_spring_is_an_hour_earlier(timed: Ledger, clock: Clock) -> None:
    """An expiry is a moment: 24 local hours over the change are 23, and clocks agree on it."""
    berlin = ZoneInfo("Europe/Berlin")
    begin = datetime(2026, 3, 29, tzinfo=berlin)
    clock.now = to_micros("begin", begin)
    budget = timed.pool("pool", PREPAID)
    end = datetime(2026, 3, 30, tzinfo=berlin)
    timed.credit("pool", Credit(name="a day", tokens=5, expires_at=end))
    assert to_micros("end", end) == budget.status().until == clock.now + 23 * HOUR_US
    clock.now += 23 * HOUR_US - 1
    assert 5 == left(budget)
    clock.now += 1
    assert (0, None) == (left(budget), budget.status().until)


def test_clocks_that_disagree_go_by_the_journal(new_store: Callable[[str], str]) -> None:
    """What one process has seen expire is not paid from by another whose clock is behind."""
    url = new_store("sqlite")
    ahead, behind = Clock(), Clock()
    with Ledger.open(url, clock=ahead) as one, Ledger.open(url, clock=behind) as other:
        budget, late = one.pool("pool", PREPAID), other.pool("pool")
        until = from_micros(ahead.now + HOUR_US)
        one.credit("pool", Credit(name="short", tokens=5, expires_at=until))
        one.credit("pool", Credit(name="long", tokens=3))
        assert (8, 8) == (left(budget), left(late))
        ahead.minutes(60)
        assert (3, 8) == (left(budget), left(late))
        spend(budget, 1)
        assert (2, 2) == (left(budget), left(late))
        with pytest.raises(InvalidInputError, match="has expired"):
            other.credit("pool", Credit(name="old", tokens=5, expires_at=until))
        spend(late, 2)
        assert all(found.ok for found in one.verify())


def test_a_top_up_happens_once_and_says_who_gave_it(timed: Ledger) -> None:
    """The same key gives nothing more; the entry has an actor and a reason."""
    budget = timed.pool("pool", PREPAID)
    credit = Credit(name="july", tokens=5)
    for _ in range(2):
        timed.credit("pool", credit, reason="paid", idempotency_key="invoice 17", actor="billing")
    assert 5 == left(budget)
    with pytest.raises(IdempotencyConflictError):
        timed.credit("pool", replace(credit, tokens=6), idempotency_key="invoice 17")
    (entry,) = timed.entries("pool", kind=EntryKind.CREDIT)
    assert entry.actor is not None
    assert ("billing", "paid") == (entry.actor.name, entry.detail["reason"])
    timed.close_pool("pool")
    with pytest.raises(PoolClosedError):
        timed.credit("pool", credit)


def test_a_kept_denial_says_the_same_again(timed: Ledger, clock: Clock) -> None:
    """Which credit had expired, and what top-up it would have taken."""
    budget = timed.pool("pool", PREPAID)
    until = from_micros(clock.now + HOUR_US)
    timed.credit("pool", Credit(name="short", tokens=5, expires_at=until))
    clock.minutes(60)
    keyed = RequestExtensions(IdempotencyKey("call 1"))
    told = []
    for _ in range(2):
        with pytest.raises(ThresholdExceededError) as found:
            budget.reserve(keyed, tokens(7), UNLIMITED)
        told.append((found.value.top_up, found.value.expired, found.value.expired_at))
        with suppress(InvalidInputError):
            timed.credit("pool", Credit(name="more", tokens=9), idempotency_key="once")
    assert [({"tokens": 7}, "short", until)] * 2 == told


def test_an_adjustment_keeps_credits_and_counts_no_axis_before(timed: Ledger) -> None:
    """Spend counts while its axis is prepaid; what other policies set does not touch credits."""
    budget = timed.pool("pool", SharedPoolBudgetOptions())
    spend(budget, 50)
    with pytest.raises(InvalidInputError, match="not prepaid"):
        timed.credit("pool", Credit(name="a", tokens=10))
    timed.adjust("pool", PREPAID)
    timed.credit("pool", Credit(name="a", tokens=10))
    spend(budget, 4)
    timed.adjust("pool", replace(PREPAID, strict=True))
    assert 6 == left(budget)
    timed.adjust("pool", SharedPoolBudgetOptions())
    spend(budget, 100)
    timed.adjust("pool", PREPAID)
    assert 6 == left(budget)
    assert all(found.ok for found in timed.verify())
    assert budget.name == timed.pool("pool", PREPAID).name


def test_pools_above_spend_credits_too(timed: Ledger, clock: Clock) -> None:
    """A call must be paid in each pool that is prepaid; the refusal names the one that is short."""
    timed.pool("org", PREPAID)
    team = timed.pool("team", SharedPoolBudgetOptions(), parent="org")
    until = from_micros(clock.now + HOUR_US)
    timed.credit("org", Credit(name="paid", tokens=10, expires_at=until))
    spend(team, 4)
    assert (6, to_micros("until", until)) == (left(team), team.status().until)
    found = refused(team, 7)
    assert ("org", {"tokens": 1}) == (found.pool, found.top_up)
    with pytest.raises(InvalidInputError, match="must have a limit"):
        timed.pool("box", SharedPoolBudgetOptions(), parent="org", carved=True)
    timed.pool("box", SharedPoolBudgetOptions(capacity_tokens=5), parent="org", carved=True)
    assert 1 == left(team)
    clock.minutes(60)
    keyed = RequestExtensions(IdempotencyKey("kept"))
    with pytest.raises(ThresholdExceededError):
        team.reserve(keyed, tokens(1), UNLIMITED)
    assert all(found.ok for found in timed.verify())


FORGED = {
    "more": ('"amounts":{"tokens":5}', '"amounts":{"tokens":9}'),
    "later": ('"expires_at":', '"expires_at":1'),
    "earlier count": ('"since":2', '"since":1'),
    "no debt": ('"debt":{}', '"debt":{"tokens":3}'),
    "not there": ('"credits":', '"credit_s":'),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_credit_is_found(book: Ledger, vandal: Vandal, what: str) -> None:
    """Under a chain computed anew: what an entry says of credits follows from those before it."""
    budget = book.pool("pool", PREPAID)
    soon = from_micros(to_micros("now", book.now()) + HOUR_US)
    book.credit("pool", Credit(name="a", tokens=5, expires_at=soon))
    spend(budget, 1)
    book.credit("pool", Credit(name="b", tokens=5))
    said = vandal.row(2)["detail"]
    forged = said.replace(*FORGED[what])
    assert said != forged
    vandal.forge(2, detail=forged)
    (found,) = book.verify()
    assert found.damage is not None


def test_credits_that_cannot_be_read_are_damage(
    book: Ledger, vandal: Vandal, store_url: str
) -> None:
    """The call that needs them says so, and names the entry."""
    book.pool("pool", PREPAID)
    book.credit("pool", Credit(name="a", tokens=5))
    vandal.forge(2, detail=vandal.row(2)["detail"].replace('"tokens":5', '"tokens":[]'))
    with (
        Ledger.open(store_url) as other,
        pytest.raises(JournalDamagedError, match="its policy cannot be read") as found,
    ):
        other.pool("pool").reserve(EXTENSIONS, tokens(1), UNLIMITED)
    assert 2 == found.value.seq


def test_memory_forgets_what_no_credit_needs() -> None:
    """However many calls there are: what is remembered is bounded, and what it says stays."""
    clock = Clock()
    budget = SharedPoolBudgetManager(PREPAID, clock=clock)
    budget.credit(Credit(name="short", tokens=99, expires_at=from_micros(clock.now + HOUR_US)))
    budget.credit(Credit(name="long", tokens=9_000))
    late = budget.reserve(RequestExtensions(LeaseTtl(timedelta(minutes=1))), tokens(9), UNLIMITED)
    clock.minutes(2)
    spend(budget, 0)
    clock.minutes(60)
    budget.record_used(late, Usage(total_tokens=8))  # in place of what was assumed, long ago
    dies = RequestExtensions(LeaseTtl(timedelta(minutes=1)))
    for number in range(3_000):
        clock.now += HOUR_US // 100
        if number % 3:
            spend(budget, 2)
        else:
            budget.reserve(dies, tokens(2), UNLIMITED)
    clock.minutes(2)
    short, long = budget.credits()
    assert (8, 91) == (short.used.tokens, short.lost.tokens)
    assert (6_000, 3_000) == (long.used.tokens, long.left.tokens)
    history = budget._state._history
    assert len(history._points) < 2_500
    assert len(history._dated) == len(history._recorded) < 1_000


def test_an_import_is_paid_by_the_credits_of_its_time(timed: Ledger, clock: Clock) -> None:
    """A call of the past costs today's credits nothing, unless they were there then."""
    clock.minutes(60)
    budget = timed.pool("pool", replace(PREPAID, thresholds={"most": 80}))

    def bring(hours_ago: int, amount: int) -> None:
        at = from_micros(clock.now - hours_ago * HOUR_US)
        usage = Usage(total_tokens=amount)
        call = PastCall(usage=usage, occurred_at=at, idempotency_key=f"{hours_ago} {amount}")
        budget.import_calls([call], reason="moved here")

    until = from_micros(clock.now + 2 * HOUR_US)
    timed.credit("pool", Credit(name="short", tokens=10, expires_at=until))
    clock.minutes(3 * 60)
    timed.credit("pool", Credit(name="long", tokens=10))
    clock.minutes(60)
    bring(9, 5)  # before the pool
    bring(3, 7)  # while the first was good
    assert 10 == left(budget)
    bring(0, 8)
    assert 2 == left(budget)
    assert EntryKind.THRESHOLD == [*timed.entries("pool")][-1].kind
    (entry,) = (one for one in timed.entries("pool") if one.usage == Usage(total_tokens=8))
    budget.correct(entry, Usage(total_tokens=1), "an invoice")
    assert 9 == left(budget)
    assert all(found.ok for found in timed.verify())


def test_expired_credits_are_looked_up_once(
    timed: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reservation reads no entry for a credit whose end an earlier one has found."""
    budget = timed.pool("pool", PREPAID)
    for number in range(20):
        until = from_micros(clock.now + (number + 1) * HOUR_US)
        timed.credit("pool", Credit(name=str(number), tokens=2, expires_at=until))
    timed.credit("pool", Credit(name="paid", tokens=90))
    for _ in range(21):
        spend(budget, 3)
        clock.now += HOUR_US
    looked: list[int] = []
    entries_of = StoredHistory._entries

    def count(history: StoredHistory, *asked: Any) -> Any:  # noqa: ANN401 - as there
        looked.append(1)
        return entries_of(history, *asked)

    monkeypatch.setattr(StoredHistory, "_entries", count)
    spend(budget, 1)  # the last one has ended since
    assert len(looked) < 5
    looked.clear()
    spend(budget, 1)
    assert [] == looked
    monkeypatch.undo()
    assert [None] == [one.damage for one in timed.verify()]


def restore(store_url: str, kept: int) -> None:
    """Put a backup in place of a store: the entries behind one are gone."""
    vandal = Vandal(store_url)
    try:
        vandal.run(f"DELETE FROM entries WHERE seq > {kept}")
    finally:
        vandal.close()


def test_a_restored_backup_forgets_what_was_spent_by_an_end(
    timed: Ledger, store_url: str, clock: Clock
) -> None:
    """The running program counts what the books say by now, not what it had found before."""
    budget = timed.pool("pool", PREPAID)
    timed.credit("pool", Credit(name="gift", tokens=9, expires_at=from_micros(clock.now + HOUR_US)))
    timed.credit("pool", Credit(name="paid", tokens=90))
    kept = budget.status().seq
    spend(budget, 4)
    clock.now += 2 * HOUR_US
    spend(budget, 1)
    spend(budget, 1)  # of the gift 4 were used by its end
    assert 88 == left(budget)
    restore(store_url, kept)
    for _ in range(2):
        spend(budget, 30)
    assert 30 == left(budget)
    assert {"tokens": 1} == refused(budget, 31).top_up
    spend(budget, 30)
    assert [None] == [one.damage for one in timed.verify()]


def test_a_reader_forgets_what_a_restored_backup_has_not(
    timed: Ledger, store_url: str, clock: Clock
) -> None:
    """Others have written past the number that it has seen: only a hash tells that it was restored.

    The entry that the figures by the gift's end were read from is there still; one more is before
    that end by now.
    """
    budget = timed.pool("pool", PREPAID)
    timed.credit("pool", Credit(name="gift", tokens=9, expires_at=from_micros(clock.now + HOUR_US)))
    timed.credit("pool", Credit(name="paid", tokens=90))
    spend(budget, 4)
    kept, then = budget.status().seq, clock.now
    with Ledger.open(store_url, clock=clock) as reading:
        reader = reading.pool("pool")
        clock.now += 2 * HOUR_US
        spend(budget, 1)
        assert 89 == left(reader)
        restore(store_url, kept)
        clock.now = then
        spend(budget, 3)  # of the gift
        clock.now += 2 * HOUR_US
        spend(budget, 1)
        spend(budget, 1)
        assert [88, 88] == [left(reader), reader.status().remaining.tokens]


def test_a_reader_forgets_the_late_expiries_that_a_restored_backup_has_not(
    timed: Ledger, store_url: str, clock: Clock
) -> None:
    """A limit counts what the leases held that are there, not what others held before."""
    day = Limit(name="day", period=Rolling(timedelta(days=1)), capacity_tokens=1_000)
    budget = timed.pool("pool", SharedPoolBudgetOptions(limits=[day], lease_ttl=timedelta(hours=1)))
    kept, then = budget.status().seq, clock.now
    with Ledger.open(store_url, clock=clock) as reading:
        reader = reading.pool("pool")
        for held in (50, 30):
            budget.reserve(EXTENSIONS, tokens(held), UNLIMITED)
            clock.now += 30 * HOUR_US
            timed.expire_due()
            assert 1_000 == left(reader)
            if held == 50:
                restore(store_url, kept)
                clock.now = then
        spend(budget, 7)
        assert [993, 993] == [left(reader), left(budget)]


def test_a_reader_of_an_earlier_state_counts_nothing_that_came_later(
    timed: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another thread has read of later entries meanwhile is not in its answer."""
    budget = timed.pool("pool", PREPAID)
    timed.credit("pool", Credit(name="gift", tokens=9, expires_at=from_micros(clock.now + HOUR_US)))
    timed.credit("pool", Credit(name="paid", tokens=90))
    spend(budget, 4)
    read, early = Reads.read_rows, clock.now

    def read_rows(*asked: Any, **given: Any) -> Any:  # noqa: ANN401 - what it is given
        found = read(*asked, **given)
        monkeypatch.setattr(Reads, "read_rows", read)
        clock.now = early
        spend(budget, 20)
        clock.now += 2 * HOUR_US
        spend(budget, 1)
        assert 74 == left(budget)
        return found

    monkeypatch.setattr(Reads, "read_rows", read_rows)
    clock.now += 2 * HOUR_US
    assert 90 == left(budget)
