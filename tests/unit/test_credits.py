"""Credits: who pays what, held against a plain sum over all calls, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import (
    I64_MAX,
    AmountOutOfRangeError,
    Balance,
    Credit,
    InvalidInputError,
    RequestBudget,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Totals,
    UsageEstimate,
    from_micros,
)
from ledger.core import rules
from ledger.core.checks import Micros
from ledger.core.credit_book import CreditBook, book_from_json, book_to_json
from ledger.core.credits import CREDITS_MAX
from ledger.core.policy import policy_from_json, policy_to_json

POLICY = SharedPoolBudgetOptions(prepaid=["tokens"])
MINUTE = 60_000_000
BEGIN = 1_700_000_000_000_000


class Spent(NamedTuple):
    """What one entry of a call does: when, of which call, and by how much."""

    at: int
    call: int
    by: int

    @property
    def counts_at(self) -> int:
        """When it counts."""
        return self.at


class Imported(NamedTuple):
    """A call that is imported: when, when it was made, and what it used."""

    at: int
    counts_at: int
    by: int


class Given(NamedTuple):
    """A credit that is given."""

    at: int
    credit: Credit

    @property
    def counts_at(self) -> int:
        """When it counts."""
        return self.at


Event = Spent | Imported | Given
Numbered = tuple[int, Event]


@st.composite
def journals(draw: st.DrawFn) -> list[Event]:
    """Return credits, calls, corrections of calls and imports in the order of their entries."""
    at, used, events = BEGIN, dict[int, int](), list[Event]()
    for _ in range(draw(st.integers(0, 30))):
        at += draw(st.sampled_from([0, 1, 20 * MINUTE, 60 * MINUTE]))
        kind = draw(st.integers(0, 5))
        if kind == 0:
            ago = draw(st.sampled_from([0, 1, 10, 20, 50, 70, 150]))
            events.append(Imported(at, at - ago * MINUTE, draw(st.integers(1, 9))))
            continue
        if kind == 1:
            minutes = draw(st.sampled_from([None, 1, 20, 60, 90, 200]))
            credit = Credit(
                name="some",
                tokens=draw(st.sampled_from([1, 5, 12, 40])),
                expires_at=None if minutes is None else from_micros(at + minutes * MINUTE),
                priority=draw(st.sampled_from([50, 50, 1])),
            )
            events.append(Given(at, credit))
            continue
        call, to = draw(st.integers(0, 9)), draw(st.integers(0, 9))
        events.append(Spent(at, call, to - used.get(call, 0)))
        used[call] = to
    return events


class Paid:
    """What each credit has paid, found call by call."""

    def __init__(self, numbered: list[Numbered], until: int) -> None:
        self.left: dict[int, int] = {}
        self.debt = 0
        self.valid: dict[int, Credit] = {}
        adds = charges([event for _, event in numbered])
        in_time = zip(numbered, adds, strict=True)
        for (seq, event), amount in sorted(in_time, key=lambda one: (one[0][1].counts_at, one[0])):
            self._expire(event.counts_at)
            if isinstance(event, Given):
                self.valid[seq], self.left[seq] = event.credit, event.credit.tokens
            self.debt += amount
            for one in sorted(self.valid, key=self._place):
                taken = min(self.debt, self.left[one])
                self.left[one] -= taken
                self.debt -= taken
        self._expire(until)

    def _place(self, seq: int) -> tuple[int, datetime, int]:
        credit = self.valid[seq]
        return credit.priority, credit.expires_at or datetime.max.replace(tzinfo=UTC), seq

    def _expire(self, now: int) -> None:
        for seq, credit in [*self.valid.items()]:
            if credit.expires_at is not None and credit.expires_at <= from_micros(now):
                del self.valid[seq]

    @property
    def whole(self) -> int:
        """What can still be spent."""
        return sum(self.left[seq] for seq in self.valid)


def counted(events: list[Event]) -> list[Numbered]:
    """Return what counts, with its number: no import of a call before the list of credits begins.

    It begins with each credit that is given when no other is good and nothing is owed.
    """
    begin, found = 0, list[Numbered]()
    for seq, event in enumerate(events, 1):
        if isinstance(event, Given):
            paid = Paid(found, event.at)
            begin = begin if paid.valid or paid.debt else event.at
        if not isinstance(event, Imported) or event.counts_at >= begin:
            found.append((seq, event))
    return found


def charges(events: list[Event]) -> list[int]:
    """Return what each event adds, as far as no later one takes it back from its call."""
    adds = [0 if isinstance(event, Given) else event.by for event in events]
    for place, event in enumerate(events):
        if not isinstance(event, Spent) or event.by >= 0:
            continue
        back, adds[place] = -event.by, 0
        for earlier in range(place - 1, -1, -1):
            before = events[earlier]
            if isinstance(before, Spent) and before.call == event.call:
                taken = min(back, adds[earlier])
                adds[earlier] -= taken
                back -= taken
        assert not back
    return adds


def listed(events: list[Event]) -> tuple[CreditBook, rules.Track, Balance]:
    """Return the credits that the rules list behind these events, and what they count on."""
    track, first, total, book = (
        rules.Track(),
        dict[int, int](),
        0,
        CreditBook(0, Micros(0), Totals()),
    )
    for seq, event in enumerate(events, 1):
        if isinstance(event, Given):
            credits = rules.Credits(POLICY, book, Micros(event.at), track)
            book = credits.with_credit(event.credit, seq, Micros(event.at), Balance(Totals(total)))
            continue
        total += event.by
        point = rules.Point(seq, Micros(event.at), Totals(total))
        if isinstance(event, Imported):
            track.add(point, rules.Dated(seq, Micros(event.counts_at), Totals(event.by)))
            continue
        known = event.call in first
        moved = rules.Moved(seq, first[event.call], Totals(event.by)) if known else None
        first.setdefault(event.call, seq)
        track.add(point, moved)
    return book, track, Balance(Totals(total))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    events=journals(), later=st.integers(0, 240), asked=st.integers(0, 12), held=st.integers(0, 3)
)
def test_credits_pay_what_a_plain_sum_says(
    events: list[Event], later: int, asked: int, held: int
) -> None:
    """Who paid what, what is left, lost and owed, and the verdict agree with that sum."""
    at = Micros((events[-1].at if events else BEGIN) + later * MINUTE)
    book, track, balance = listed(events)
    assert book == book_from_json(book_to_json(book))
    credits, expected = rules.Credits(POLICY, book, at, track), Paid(counted(events), at)
    for state in credits.states(balance):
        assert expected.left[state.seq] == state.left.tokens + state.lost.tokens
        assert state.credit.tokens == sum(
            one.tokens for one in (state.used, state.left, state.lost)
        )
    assert expected.whole == sum(state.left.tokens for state in credits.states(balance))
    assert expected.debt == credits.debt(balance).tokens
    holding = balance._replace(reserved=Totals(held))
    left = rules.remaining(POLICY, holding, None, None, credits)
    assert max(0, expected.whole - expected.debt - held) == left.tokens
    assert left.is_unlimited("cost_micros_usd")
    asking = UsageEstimate(total_tokens=asked), RequestBudget.unlimited()
    denial = rules.admit(POLICY, holding, *asking, credits=credits)
    short = asked + held + expected.debt - expected.whole
    assert (asked > 0 and short > 0) is (denial is not None)
    if denial is not None:
        assert isinstance(denial, ThresholdExceededError)
        assert {"tokens": short} == denial.top_up
        more = credits.with_credit(Credit(name="it", tokens=short), 98, at, balance)
        topped = rules.Credits(POLICY, more, at, track)
        assert rules.admit(POLICY, holding, *asking, credits=topped) is None
        if short > 1:
            less = credits.with_credit(Credit(name="it", tokens=short - 1), 98, at, balance)
            short_of = rules.Credits(POLICY, less, at, track)
            assert rules.admit(POLICY, holding, *asking, credits=short_of) is not None


@pytest.mark.parametrize("first", ["short", "long"])
def test_an_import_between_two_expiries_is_paid_once(first: str) -> None:
    """No entry stands between them, and the credits may have been given in either order."""
    days: dict[str, int | None] = {"short": 5, "long": 10, "ever": None}
    order = sorted(days, key=lambda name: (name == "ever", name != first))
    day = 24 * 60 * MINUTE
    events: list[Event] = [
        *(
            Given(BEGIN, Credit(name=name, tokens=1_000, expires_at=until))
            for name in order
            for after in (days[name],)
            for until in (None if after is None else from_micros(BEGIN + after * day),)
        ),
        Imported(BEGIN + 20 * day, BEGIN + 7 * day, 100),
    ]
    book, track, balance = listed(events)
    credits = rules.Credits(POLICY, book, Micros(BEGIN + 20 * day), track)
    used = {one.credit.name: one.used.tokens for one in credits.states(balance)}
    assert {"short": 0, "long": 100, "ever": 0} == used
    assert 1_000 == rules.prepaid(POLICY, balance, credits).tokens


def granted(number: int, *, used: int = 0) -> tuple[CreditBook, Balance]:
    """Return a book of so many credits of 10 tokens, of which so much was spent in the end."""
    events: list[Event] = [
        Given(BEGIN + one, Credit(name=f"{one}", tokens=10)) for one in range(number)
    ]
    book, _, _ = listed(events)
    return book, Balance(Totals(used))


def test_a_pool_lists_a_number_of_credits() -> None:
    """Those that are used up make room for more; what is left stays, and no refund reaches back."""
    book, balance = granted(CREDITS_MAX, used=25)
    track = rules.Track()
    track.add(rules.Point(500, Micros(BEGIN + 500), balance.committed))
    at = Micros(BEGIN + 1_000)
    credits = rules.Credits(POLICY, book, at, track)
    more = credits.with_credit(Credit(name="more", tokens=7), 501, at, balance)
    assert (501, Totals(25), CREDITS_MAX - 1) == (more.since, more.committed, len(more.listed))
    assert [Totals(5), Totals(0)] == [one.spent for one in more.listed[:2]]
    now = rules.Credits(POLICY, more, at, track)
    assert CREDITS_MAX * 10 - 25 + 7 == rules.prepaid(POLICY, balance, now).tokens
    track.add(
        rules.Point(502, at, Totals(5)), rules.Moved(502, 500, Totals(-20))
    )  # what the first credits had paid
    after = rules.Credits(POLICY, more, at, track)
    assert CREDITS_MAX * 10 - 25 + 7 == rules.prepaid(POLICY, Balance(Totals(5)), after).tokens


def test_an_expiry_is_looked_for_until_the_next_top_up() -> None:
    """From then on the list says where it was: no credit of long ago costs a search."""

    class Silent(rules.Track):
        def newest_before(self, since: Micros) -> rules.Point:
            raise AssertionError(since)

    soon = Credit(name="soon", tokens=10, expires_at=from_micros(BEGIN + 5))
    events = [
        *(Given(BEGIN, Credit(name="never", tokens=10)), Given(BEGIN, soon)),
        *(
            Spent(BEGIN + 1, 1, 4),
            Spent(BEGIN + 6, 2, 3),
            Given(BEGIN + 7, Credit(name="next", tokens=1)),
        ),
    ]
    book, track, balance = listed(events)
    silent = Silent()
    for point in track.points(range(1, track.last + 1)):
        silent.add(point)
    for history in (track, silent):
        states = rules.Credits(POLICY, book, Micros(BEGIN + 9), history).states(balance)
        assert [(3, 7, 0), (4, 0, 6), (0, 1, 0)] == [
            (one.used.tokens, one.left.tokens, one.lost.tokens) for one in states
        ]


def test_a_pool_lists_no_more_than_that() -> None:
    """A credit is refused if all others have something left."""
    book, balance = granted(CREDITS_MAX)
    credits = rules.Credits(POLICY, book, Micros(BEGIN + 99), rules.Track())
    with pytest.raises(InvalidInputError, match="32 credits have something left"):
        credits.with_credit(Credit(name="more", tokens=7), 501, Micros(BEGIN + 99), balance)


def test_many_large_credits_are_no_unlimited_capacity() -> None:
    """Their sum stays below the number that means unlimited."""
    events: list[Event] = [
        Given(BEGIN + one, Credit(name=f"{one}", tokens=I64_MAX)) for one in range(3)
    ]
    book, track, balance = listed(events)
    credits = rules.Credits(POLICY, book, Micros(BEGIN + 9), track)
    left = rules.remaining(POLICY, balance, None, None, credits)
    assert 2**64 - 2 == left.tokens
    assert not left.is_unlimited("tokens")


LOCAL = datetime(2026, 3, 29, 3, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"name": ""}, InvalidInputError),
        ({"name": "n" * 65}, InvalidInputError),
        ({"tokens": 0}, InvalidInputError),
        ({"tokens": 1.5}, InvalidInputError),
        ({"tokens": True}, InvalidInputError),
        ({"tokens": I64_MAX + 1}, AmountOutOfRangeError),
        ({"tokens": -1}, AmountOutOfRangeError),
        ({"expires_at": LOCAL.replace(tzinfo=None)}, InvalidInputError),
        ({"expires_at": LOCAL.replace(year=3000)}, InvalidInputError),
        ({"priority": 101}, AmountOutOfRangeError),
    ],
)
def test_a_credit_that_cannot_be_is_refused(wrong: dict[str, Any], error: type) -> None:
    """With a clear error, whatever the manager."""
    with pytest.raises(error):
        Credit(**{"name": "paid", "tokens": 5, **wrong})


@pytest.mark.parametrize("wrong", ["tokens", ["usd"], 3, [["tokens"]], None])
def test_only_axes_are_prepaid(wrong: Any) -> None:  # noqa: ANN401 - on purpose
    """One text is no collection of names."""
    with pytest.raises(InvalidInputError, match="prepaid: must be a collection of tokens, cost"):
        SharedPoolBudgetOptions(prepaid=wrong)


def test_a_prepaid_policy_is_stored_as_it_is() -> None:
    """In the order of the axes; another policy does not mention it."""
    policy = SharedPoolBudgetOptions(prepaid={"requests", "tokens"})
    assert ("tokens", "requests") == policy.prepaid
    assert policy == policy_from_json(policy_to_json(policy))
    assert "spending credits of tokens and requests" in str(policy)
    assert "prepaid" not in policy_to_json(replace(policy, prepaid=()))


def test_a_credit_is_shown_in_words() -> None:
    """What it gives, and until when."""
    credit = Credit(name="july", cost_micros_usd=5_000_000, requests=2, expires_at=LOCAL)
    shown = "'july': 5,000,000 micro-USD and 2 requests, until 2026-03-29T03:30:00+00:00"
    assert shown == str(credit)
