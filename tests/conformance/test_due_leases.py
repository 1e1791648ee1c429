"""More leases are due than one transaction expires: decided is what a full sweep would decide."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ledger import (
    AsyncLedger,
    EntryKind,
    IdempotencyKey,
    LeaseTtl,
    Ledger,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    Window,
)
from ledger.store import journal
from ledger.testing import Awaited
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import Clock

OPTIONS = SharedPoolBudgetOptions(
    capacity_tokens=600, lease_ttl=timedelta(minutes=1), settlement=SettlementPolicy.RELEASE
)
"""A due lease gives its hold back: how much is left then depends on how many were swept."""
PAGE = 8
"""How many leases one transaction expires in the quick tests."""


def fill(manager: Any, leases: int, *, each: int = 1) -> None:  # noqa: ANN401 - of any kind
    """Hold capacity in so many leases."""
    for _ in range(leases):
        manager.reserve(EXTENSIONS, tokens(each), UNLIMITED)


@pytest.fixture(params=["memory", "sqlite", "postgresql", "async sqlite"])
def manager(
    request: pytest.FixtureRequest, new_store: Callable[[str], str], clock: Clock
) -> Iterator[Any]:
    """Return a manager of each kind in turn, of 600 tokens that leases hold for a minute."""
    if request.param == "memory":
        yield SharedPoolBudgetManager(OPTIONS, clock=clock)
        return
    face, _, kind = request.param.rpartition(" ")
    with Ledger.open(new_store(kind), clock=clock) as book:
        if face == "async":
            runner = request.getfixturevalue("runner")
            yield Awaited(runner.run(AsyncLedger(book).pool("pool", OPTIONS)), runner.run)
        else:
            yield book.pool("pool", OPTIONS)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one transaction expire a few leases only."""
    monkeypatch.setattr(journal, "ENDING_PAGE", PAGE)


@pytest.mark.parametrize("keyed", [False, True])
def test_a_reservation_that_fits_once_all_is_expired_is_granted(
    manager: Any,  # noqa: ANN401 - of any kind
    clock: Clock,
    keyed: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Six hundred leases of one token are due: five hundred tokens are granted at once."""
    fill(manager, 600)
    clock.minutes(2)
    asked = RequestExtensions(IdempotencyKey("once")) if keyed else EXTENSIONS
    lease = manager.reserve(asked, tokens(500), UNLIMITED)
    assert 500 == lease.reserved.total_tokens
    with pytest.raises(ThresholdExceededError) as denied:
        manager.reserve(EXTENSIONS, tokens(101), UNLIMITED)
    assert 100 == denied.value.remaining_tokens


@pytest.mark.usefixtures("small_steps")
def test_leases_expire_in_bounded_steps(
    timed: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No transaction writes more than its step and the entry that was asked for."""
    budget = timed.pool("pool", OPTIONS)
    fill(budget, 5 * PAGE)
    clock.minutes(2)
    sizes, append = [], journal.append

    def counted(connection: Any, staged: Any) -> None:  # noqa: ANN401 - as it is
        sizes.append(len(staged))
        append(connection, staged)

    monkeypatch.setattr(journal, "append", counted)
    budget.reserve(EXTENSIONS, tokens(599), UNLIMITED)
    assert max(sizes) <= PAGE + 1
    assert 5 * PAGE + 1 == sum(sizes)
    assert [None] == [one.damage for one in timed.verify()]


@pytest.mark.usefixtures("small_steps")
def test_a_denial_under_a_key_is_what_a_full_sweep_denies(timed: Ledger, clock: Clock) -> None:
    """What does not fit even then is denied, with what remains once all that is due expired."""
    budget = timed.pool("pool", OPTIONS)
    fill(budget, 3 * PAGE, each=10)
    budget.reserve(RequestExtensions(LeaseTtl(timedelta(hours=1))), tokens(300), UNLIMITED)
    clock.minutes(2)
    once = RequestExtensions(IdempotencyKey("once"))
    for _ in range(2):
        with pytest.raises(ThresholdExceededError) as denied:
            budget.reserve(once, tokens(301), UNLIMITED)
        assert 300 == denied.value.remaining_tokens


@pytest.mark.usefixtures("small_steps")
def test_a_hopeless_denial_says_what_remains_once_all_is_expired(
    timed: Ledger, clock: Clock
) -> None:
    """More is asked for than the pool ever holds; the figures are those of a full sweep, too."""
    budget = timed.pool("pool", OPTIONS)
    fill(budget, 3 * PAGE, each=10)
    clock.minutes(2)
    with pytest.raises(ThresholdExceededError) as denied:
        budget.reserve(RequestExtensions(IdempotencyKey("once")), tokens(601), UNLIMITED)
    assert 600 == denied.value.remaining_tokens


@pytest.mark.usefixtures("small_steps")
def test_a_window_carries_over_what_due_leases_held(timed: Ledger, clock: Clock) -> None:
    """The next window begins once all that is due has expired, in whatever call comes first."""
    window = Window(period=timedelta(hours=1), carry_over=True)
    parent = timed.pool("parent", replace(OPTIONS, window=window))
    child = timed.pool("child", replace(OPTIONS, window=window), parent="parent")
    late = child.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    fill(child, 3 * PAGE, each=10)
    clock.minutes(61)
    child.record_used(late, Usage(total_tokens=1))
    for budget in (parent, child):
        found = budget.status().window
        assert found is not None
        assert 600 == found.carried.tokens
        assert 1_199 == budget.remaining(EXTENSIONS).tokens
    assert [None, None] == [one.damage for one in timed.verify()]


@pytest.mark.usefixtures("small_steps")
def test_a_carved_pool_is_closed_whatever_is_due(timed: Ledger, clock: Clock) -> None:
    """Leases that are due keep no carved pool open, however many there are."""
    timed.pool("org", SharedPoolBudgetOptions(capacity_tokens=1_000))
    box = timed.pool("box", OPTIONS, parent="org", carved=True)
    fill(box, 3 * PAGE)
    clock.minutes(2)
    timed.close_pool("box")
    assert 1_000 == timed.pool("org").remaining(EXTENSIONS).tokens


@pytest.mark.usefixtures("small_steps")
def test_a_pool_is_carved_out_of_what_due_leases_held(timed: Ledger, clock: Clock) -> None:
    """Leases that are due keep no capacity from a pool that is to be carved out."""
    fill(timed.pool("org", OPTIONS), 3 * PAGE, each=25)
    clock.minutes(2)
    timed.pool("box", SharedPoolBudgetOptions(capacity_tokens=600), parent="org", carved=True)
    assert 0 == timed.pool("org").remaining(EXTENSIONS).tokens


@pytest.mark.usefixtures("small_steps")
def test_due_leases_of_pools_below_are_swept_too(timed: Ledger, clock: Clock) -> None:
    """A parent grants what the due leases of several children held in it, all of them."""
    org = timed.pool("org", OPTIONS)
    for name in ("a", "b", "c"):
        fill(timed.pool(name, OPTIONS, parent="org"), 2 * PAGE + 1, each=10)
    clock.minutes(2)
    assert 600 == org.reserve(EXTENSIONS, tokens(600), UNLIMITED).reserved.total_tokens
    expired = [entry for entry in timed.entries("a") if entry.kind == EntryKind.EXPIRY]
    assert 2 * PAGE + 1 == len(expired)


def test_a_due_lease_makes_room_although_its_settlement_is_in_the_batch(
    timed: Ledger, clock: Clock
) -> None:
    """A reservation ahead of the late settlement of a lease is decided as if it came alone."""
    budget = timed.pool("pool", OPTIONS)
    late = budget.reserve(EXTENSIONS, tokens(600), UNLIMITED)
    clock.minutes(2)
    queue, asked = timed._writer._queue, (EXTENSIONS, tokens(600), UNLIMITED)
    with ThreadPoolExecutor(2) as threads:
        with timed._writer.transactions._turn:
            granted = threads.submit(budget.reserve, *asked)
            deadline = time.monotonic() + 20
            while not timed._writer._batch:
                assert time.monotonic() < deadline
            settled = threads.submit(budget.record_used, late, Usage(total_tokens=5))
            while not queue:
                assert time.monotonic() < deadline
        assert 600 == granted.result().reserved.total_tokens
        settled.result()
    kinds = [str(entry.kind) for entry in timed.entries("pool")]
    assert ["reservation", "expiry", "reservation", "settlement"] == kinds[1:]
    assert [None] == [one.damage for one in timed.verify()]


@pytest.mark.usefixtures("small_steps")
def test_a_repeated_call_writes_nothing(timed: Ledger, clock: Clock) -> None:
    """A call that its key answers expires nothing; the next write finds what is due."""
    budget = timed.pool("pool", OPTIONS)
    once = RequestExtensions(IdempotencyKey("once"))
    first = budget.reserve(once, tokens(1), UNLIMITED)
    fill(budget, 3)
    clock.minutes(2)
    before = [*timed.entries("pool")]
    assert first == budget.reserve(once, tokens(1), UNLIMITED)
    assert before == [*timed.entries("pool")]
    assert 600 == budget.reserve(EXTENSIONS, tokens(600), UNLIMITED).reserved.total_tokens
