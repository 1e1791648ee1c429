"""On limits and credits an expiry counts when the hold ended, whoever writes it, and when."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from ledger import (
    BudgetLease,
    Credit,
    EntryFlag,
    EntryKind,
    LeaseTtl,
    Ledger,
    Limit,
    Period,
    RequestExtensions,
    Rolling,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    Window,
    from_micros,
)
from ledger.core.rules import released
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import HOUR, MINUTE, Clock
from tests.conformance.conftest import Vandal, refused

FIVE_HOURS = Limit(name="5h", period=Rolling(5 * HOUR), capacity_tokens=100)
DAY = Limit(name="day", period=Window(period=Period.DAY), capacity_tokens=150)
MIDNIGHT = 1_700_006_400_000_000
"""The first of the tests' clock."""
US = 1_000_000
HOUR_US = 3_600 * US


def limited(*limits: Limit, **more: Any) -> SharedPoolBudgetOptions:  # noqa: ANN401 - a policy's
    """Return a policy with limits, whose leases hold for a minute."""
    return SharedPoolBudgetOptions(limits=limits, lease_ttl=MINUTE, **more)


def left(budget: Any) -> int:  # noqa: ANN401 - any manager
    """Return how many tokens are left."""
    found: int = budget.remaining(EXTENSIONS).tokens
    return found


def write(budget: Any) -> None:  # noqa: ANN401 - any manager
    """Write something that changes nothing: what is due expires first."""
    budget.release(budget.reserve(EXTENSIONS, UsageEstimate.zero(), UNLIMITED))


def test_a_dead_lease_blocks_no_limit_for_ever(
    timed_budgets: Callable[..., Any], clock: Clock
) -> None:
    """A program that only polls sees it cease to count five hours after its hold ended."""
    budget = timed_budgets(limited(FIVE_HOURS))
    budget.reserve(EXTENSIONS, tokens(100), UNLIMITED)
    ended = clock.now + 60 * US
    for later, free in (
        (0, 0),
        (3 * HOUR_US, 0),
        (5 * HOUR_US - 1, 0),
        (5 * HOUR_US, 100),
    ):
        clock.now = ended + later
        assert free == left(budget)
    write(budget)
    assert 100 == left(budget)
    assert 100 == budget.reserve(EXTENSIONS, tokens(100), UNLIMITED).reserved.total_tokens


def test_a_day_counts_what_was_held_in_it(timed_budgets: Callable[..., Any], clock: Clock) -> None:
    """Whether a hold ended before or after midnight decides, and not who wrote since."""
    budget = timed_budgets(limited(DAY))
    clock.now = MIDNIGHT - 90 * US
    budget.reserve(EXTENSIONS, tokens(100), UNLIMITED)  # until half a minute before midnight
    clock.now = MIDNIGHT - 45 * US
    budget.reserve(EXTENSIONS, tokens(40), UNLIMITED)  # until a quarter of a minute after it
    clock.now = MIDNIGHT + 12 * HOUR_US
    assert 110 == left(budget)
    write(budget)
    assert 110 == left(budget)
    assert 110 == refused(budget, 111).remaining_tokens


def test_a_refusal_says_when_an_expiry_ceases_to_count(
    timed_budgets: Callable[..., Any], clock: Clock
) -> None:
    """That is five hours after the hold ended, also where it was written long afterwards."""
    budget = timed_budgets(limited(FIVE_HOURS))
    budget.reserve(EXTENSIONS, tokens(60), UNLIMITED)
    ended = clock.now + 60 * US
    clock.minutes(180)
    found = refused(budget, 50)
    assert (40, from_micros(ended + 5 * HOUR_US)) == (found.remaining_tokens, found.retry_at)
    clock.now = ended + 5 * HOUR_US - 1
    assert 40 == refused(budget, 50).remaining_tokens
    clock.now += 1
    assert 50 == budget.reserve(EXTENSIONS, tokens(50), UNLIMITED).reserved.total_tokens


@pytest.mark.parametrize("policy", SettlementPolicy)
def test_late_usage_counts_where_the_expiry_did(
    timed_budgets: Callable[..., Any], clock: Clock, policy: SettlementPolicy
) -> None:
    """A part, then the end: neither counts anew, and what they take back counted then."""
    calls = Limit(name="calls", period=Rolling(5 * HOUR), capacity_requests=9)
    budget = timed_budgets(limited(FIVE_HOURS, calls, settlement=policy))

    def rest() -> tuple[int, int]:
        found = budget.remaining(EXTENSIONS)
        return found.tokens, found.requests

    lease = budget.reserve(EXTENSIONS, tokens(80), UNLIMITED)
    clock.minutes(120)
    write(budget)
    charged, made = policy is SettlementPolicy.ESTIMATED, policy is not SettlementPolicy.RELEASE
    assert (20 if charged else 100, 9 - made) == rest()
    budget.observe(lease, Usage(total_tokens=30))
    assert (20 if charged else 70, 9 - made) == rest()
    clock.minutes(60)
    budget.record_used(lease, Usage(total_tokens=10))
    assert (60, 8) == rest()
    clock.minutes(122)  # five hours and a minute since the hold ended, three since the first part
    assert (100, 9) == rest()


ENDS: dict[str, tuple[Callable[[Any, Any], None], int]] = {
    "settled": (lambda to, lease: to.record_used(lease, Usage(total_tokens=60)), 40),
    "settled above its hold": (lambda to, lease: to.record_used(lease, Usage(total_tokens=95)), 5),
    "observed": (lambda to, lease: to.observe(lease, Usage(total_tokens=30)), 20),
    "abandoned": (lambda to, lease: to.abandon(lease), 20),
    "released": (lambda to, lease: to.release(lease), 100),
}
"""How a lease ends that is due, and what is left then of the 100 of which it held 80."""


@pytest.mark.parametrize(("end", "rest"), ENDS.values(), ids=ENDS)
def test_what_ends_a_lease_that_is_due_counts_when_its_hold_did(
    timed_budgets: Callable[..., Any],
    clock: Clock,
    end: Callable[[Any, Any], None],
    rest: int,
) -> None:
    """Nobody has written its expiry, which its own call never does: the limit frees up no later."""
    budget = timed_budgets(limited(FIVE_HOURS, DAY))
    lease = budget.reserve(EXTENSIONS, tokens(80), UNLIMITED)
    ended = clock.now + 60 * US
    clock.minutes(120)
    assert 20 == left(budget)
    end(budget, lease)
    assert rest == left(budget)
    if rest < 100:
        found = refused(budget, rest + 1)
        assert (rest, from_micros(ended + 5 * HOUR_US)) == (found.remaining_tokens, found.retry_at)
    clock.now = ended + 5 * HOUR_US - 1
    assert rest == left(budget)
    clock.now += 1
    assert 100 == left(budget)
    assert 100 == budget.reserve(EXTENSIONS, tokens(100), UNLIMITED).reserved.total_tokens


def test_usage_of_a_hold_that_ended_before_midnight_counts_before_midnight(
    timed_budgets: Callable[..., Any], clock: Clock
) -> None:
    """Also in parts, and where a renewal comes between: what came in time counts in its time."""
    budget = timed_budgets(limited(DAY))
    clock.now = MIDNIGHT - 90 * US
    lease = budget.reserve(EXTENSIONS, tokens(100), UNLIMITED)  # until half a minute before it
    budget.observe(lease, Usage(total_tokens=10))
    clock.now = MIDNIGHT + 60 * US
    budget.observe(lease, Usage(total_tokens=20))
    assert 150 == left(budget)
    budget.renew(lease, 2 * MINUTE)  # it holds again, and what it uses is in time
    assert 80 == left(budget)
    budget.record_used(lease, Usage(total_tokens=30))
    assert 120 == left(budget)


def test_a_clock_that_is_behind_changes_nothing(
    timed_budgets: Callable[..., Any], clock: Clock
) -> None:
    """The time of the journal decides whether a hold had ended, as for all else that counts."""
    budget = timed_budgets(limited(FIVE_HOURS))
    lease = budget.reserve(EXTENSIONS, tokens(80), UNLIMITED)
    ended = clock.now + 60 * US
    clock.minutes(60)
    budget.observe(lease, Usage(total_tokens=10))
    clock.now = ended - 1
    assert 20 == left(budget)
    budget.record_used(lease, Usage(total_tokens=20))
    clock.now = ended + 5 * HOUR_US - 1
    assert 70 == left(budget)
    clock.now += 1
    assert 100 == left(budget)


def test_corrections_count_where_the_late_usage_does(timed: Ledger, clock: Clock) -> None:
    """An invoice that takes back, or adds, changes what counts then, and nothing now."""
    parent = timed.pool("parent", limited(FIVE_HOURS))
    budget = timed.pool("pool", limited(FIVE_HOURS), parent="parent")
    early = budget.reserve(EXTENSIONS, tokens(20), UNLIMITED)
    budget.observe(early, Usage(total_tokens=5))
    clock.minutes(60)
    write(budget)
    budget.correct(next(one for one in timed.entries("pool") if one.kind == EntryKind.EXPIRY),
                   Usage(total_tokens=25), "so it was assumed")  # fmt: skip
    assert [70, 70] == [left(one) for one in (budget, parent)]
    budget.record_used(early, Usage(total_tokens=15))
    settled = budget.status().seq
    clock.minutes(200)
    for used, rest in ((30, 65), (40, 55), (1, 94)):
        budget.correct(settled, Usage(total_tokens=used), "invoice")
        assert [rest, rest] == [left(one) for one in (budget, parent)]
    clock.minutes(41)  # the part that was observed in time has ceased to count, and so has the rest
    assert [100, 100] == [left(one) for one in (budget, parent)]
    budget.correct(settled, Usage(total_tokens=90), "found later")
    observed = next(one for one in timed.entries("pool") if one.kind == EntryKind.OBSERVATION)
    assert [100, 100] == [left(one) for one in (budget, parent)]
    budget.correct(observed, Usage(total_tokens=6), "it was in time: it is found now")
    assert [99, 99] == [left(one) for one in (budget, parent)]
    budget.correct(settled, Usage(total_tokens=80), "and once more")
    assert [99, 99] == [left(one) for one in (budget, parent)]
    assert [None, None] == [one.damage for one in timed.verify()]


def test_what_is_left_does_not_depend_on_who_wrote_when(timed: Ledger, clock: Clock) -> None:
    """One pool is swept at every step, its twin by what others write: both say the same."""
    rate = Limit(name="hour", period=Rolling(HOUR), capacity_tokens=80, capacity_requests=9)
    org = limited(rate, DAY)
    team = limited(FIVE_HOURS, rate, prepaid=["tokens"])
    clock.now = MIDNIGHT - 2 * HOUR_US
    twins = []
    leases: dict[str, list[BudgetLease]] = {"swept": [], "polled": []}
    for name in leases:
        above = timed.pool(f"{name} org", org)
        twins.append((above, timed.pool(name, team, parent=f"{name} org")))
    for name, (_, budget) in zip(leases, twins, strict=True):
        for hours, amount in ((1, 30), (3, 50), (None, 200)):
            until = None if hours is None else from_micros(clock.now + hours * HOUR_US)
            timed.credit(name, Credit(name=f"{hours} hours", tokens=amount, expires_at=until))
        for number, minutes in enumerate((50, 5, 70, 1, 50, 110, 200)):
            held = RequestExtensions(LeaseTtl(timedelta(minutes=minutes)))
            leases[name].append(budget.reserve(held, tokens(3 + number), UNLIMITED))
    ends = {9: ("observe", 0, 1), 11: ("record_used", 0, 7), 16: ("record_used", 5, 2)}
    for step in range(24):
        clock.minutes(17)
        timed.expire_due("swept")
        if step in ends:
            call, which, used = ends[step]
            for name, (_, budget) in zip(leases, twins, strict=True):
                spared = leases[name][which]
                getattr(budget, call)(spared, Usage(total_tokens=used))
        stands = [[one.status() for one in pools] for pools in twins]
        for swept, polled in zip(*stands, strict=True):
            assert swept.remaining == polled.remaining
            assert swept.limits == polled.limits
            assert [(one.used, one.left, one.lost) for one in swept.credits] == [
                (one.used, one.left, one.lost) for one in polled.credits
            ]
    for name in ("swept", "polled"):
        timed.credit(name, Credit(name="new", tokens=7))
    figures = [(one.status().remaining, one.remaining(EXTENSIONS)) for _, one in twins]
    assert figures[0] == figures[1]
    assert [None] * 4 == [one.damage for one in timed.verify()]


def test_a_credit_comes_after_what_was_due(
    timed: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More is due below than one transaction expires: the debt is there once the credit is."""
    monkeypatch.setattr("ledger.store.journal.ENDING_PAGE", 2)
    org = timed.pool("org", SharedPoolBudgetOptions(prepaid=["tokens"]))
    soon = from_micros(clock.now + 30 * US)
    timed.credit("org", Credit(name="gift", tokens=50, expires_at=soon))
    below = timed.pool("below", limited(), parent="org")
    for _ in range(5):
        below.reserve(EXTENSIONS, tokens(10), UNLIMITED)
    clock.minutes(60)
    assert (0, 50) == (left(org), org.status().debt.tokens)
    timed.credit("org", Credit(name="paid", tokens=70))
    assert (20, 0) == (left(org), org.status().debt.tokens)
    write(below)
    assert (20, 0) == (left(org), org.status().debt.tokens)


def story(book: Ledger, clock: Clock) -> tuple[Any, Any]:
    """Write an expiry, late usage and a correction of it; return the pool, and an open lease.

    Ahead of them stands usage of a lease that is due.
    """
    budget = book.pool("pool", limited(FIVE_HOURS))
    late = budget.reserve(EXTENSIONS, tokens(50), UNLIMITED)
    other = budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
    due = budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
    clock.minutes(60)
    budget.record_used(due, Usage(total_tokens=5))
    budget.record_used(late, Usage(total_tokens=40))
    budget.correct(budget.status().seq, Usage(total_tokens=20), "invoice")
    return budget, other


def test_a_journal_of_the_first_version_keeps_its_verdicts(
    timed: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There an expiry counts when it was written; what is written after an adjustment does not."""
    with monkeypatch.context() as earlier:
        earlier.setattr(released, "CURRENT", 1)
        budget, _ = story(timed, clock)
    assert not any(one.flags & EntryFlag.AT_EXPIRY for one in timed.entries("pool"))
    clock.minutes(242)  # over five hours since the holds ended, and not since it was written
    assert (65, 65) == (left(budget), refused(budget, 66).remaining_tokens)
    budget.reserve(EXTENSIONS, tokens(30), UNLIMITED)
    clock.minutes(59)
    assert 70 == left(budget)  # what came earlier has ceased to count; a due lease counts now
    assert [None] == [one.damage for one in timed.verify()]
    timed.adjust("pool", limited(FIVE_HOURS), reason="the rules of today")
    assert 70 == left(budget)
    ended = clock.now + 60 * US
    budget.reserve(EXTENSIONS, tokens(60), UNLIMITED)
    clock.now = ended + 5 * HOUR_US
    assert 100 == left(budget)
    write(budget)
    assert 100 == left(budget)
    assert [None] == [one.damage for one in timed.verify()]
    versions = [one.detail["rules"]["version"] for one in timed.entries("pool") if one.policy]
    assert [1, 2] == versions


AT = int(EntryFlag.AT_EXPIRY)
DATED = {EntryKind.EXPIRY: 2, EntryKind.CORRECTION: 2, EntryKind.SETTLEMENT: 2}
FORGERIES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "when it was written": lambda row: {"flags": row["flags"] & ~AT},
    "at another time": lambda row: {"expires_at": row["expires_at"] - 1},
    "at no time": lambda _row: {"expires_at": None},
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_no_entry_counts_at_another_time_unnoticed(
    store_url: str, clock: Clock, forge: Callable[[Any], dict[str, Any]]
) -> None:
    """Although the chain of hashes fits again: an expiry, late usage, and corrections of both."""
    with Ledger.open(store_url, clock=clock) as book:
        story(book, clock)
        dated = [one for one in book.entries("pool") if one.flags & EntryFlag.AT_EXPIRY]
    kinds = itertools.groupby(sorted(str(one.kind) for one in dated))
    assert {str(kind): many for kind, many in DATED.items()} == {
        kind: len([*some]) for kind, some in kinds
    }
    vandal = Vandal(store_url)
    try:
        for entry in dated:
            before = vandal.row(entry.seq)
            vandal.forge(entry.seq, **forge(before))
            with Ledger.open(store_url, clock=clock) as book:
                (found,) = book.verify()
                assert found.damage is not None, entry
            vandal.forge(entry.seq, flags=before["flags"], expires_at=before["expires_at"])
            with Ledger.open(store_url, clock=clock) as book:
                assert [None] == [one.damage for one in book.verify()]
    finally:
        vandal.close()
