"""When holds end, which a ledger keeps in memory for a while, and others write to their pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from ledger import (
    BudgetLease,
    EntryKind,
    LeaseTtl,
    Ledger,
    LedgerBudgetManager,
    RequestBudget,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    UsageEstimate,
)
from ledger.store.journal import PoolJournal
from tests.clocks import Clock

if TYPE_CHECKING:
    from tests.conformance.conftest import Vandal

FULL, SOME = 100, 10
BRIEF = timedelta(milliseconds=300)
OPTIONS = SharedPoolBudgetOptions(capacity_tokens=FULL, settlement=SettlementPolicy.RELEASE)


@pytest.fixture
def budget(timed: Ledger) -> LedgerBudgetManager:
    """Return the pool, through a ledger that knows of no hold that would end soon."""
    budget = timed.pool("pool", OPTIONS)
    budget.release(reserve(budget))
    return budget


@pytest.fixture
def theirs(
    budget: LedgerBudgetManager, store_url: str, clock: Clock
) -> Iterator[LedgerBudgetManager]:
    """Return the same pool through another ledger, as another process has it."""
    with Ledger.open(store_url, clock=clock) as elsewhere:
        yield elsewhere.pool(budget.name)


def reserve(
    budget: LedgerBudgetManager, amount: int = SOME, ttl: timedelta | None = None
) -> BudgetLease:
    """Reserve tokens."""
    carried = RequestExtensions() if ttl is None else RequestExtensions(LeaseTtl(ttl))
    return budget.reserve(carried, UsageEstimate(total_tokens=amount), RequestBudget.unlimited())


def pass_by(clock: Clock, by: timedelta) -> None:
    """Let time pass."""
    clock.now += by // timedelta(microseconds=1)


@pytest.mark.parametrize("between", [0, 1, 3])
@pytest.mark.parametrize("who", ["mine", "theirs"])
def test_a_hold_ends_when_its_time_is_over(
    timed: Ledger,
    budget: LedgerBudgetManager,
    theirs: LedgerBudgetManager,
    clock: Clock,
    who: str,
    between: int,
) -> None:
    """Also where it began after this ledger had looked, whoever began it, whatever came between."""
    reserve({"mine": budget, "theirs": theirs}[who], FULL - SOME, BRIEF)
    for _ in range(between):
        budget.release(reserve(budget))
    pass_by(clock, BRIEF - timedelta(microseconds=1))
    budget.release(reserve(budget))
    assert budget.status().balance.reserved.tokens == FULL - SOME
    pass_by(clock, timedelta(microseconds=1))
    reserve(budget, FULL)
    assert timed.verify()[0].ok


def test_a_hold_of_others_that_ended_unseen_expires(
    budget: LedgerBudgetManager, theirs: LedgerBudgetManager, clock: Clock
) -> None:
    """It began and ended while this ledger did nothing."""
    reserve(theirs, FULL, BRIEF)
    pass_by(clock, BRIEF)
    reserve(budget, FULL)


@pytest.mark.parametrize("between", [0, 1])
@pytest.mark.parametrize("ttl", [BRIEF / 2, BRIEF * 2])
def test_a_renewal_by_another_counts(
    budget: LedgerBudgetManager,
    theirs: LedgerBudgetManager,
    clock: Clock,
    ttl: timedelta,
    between: int,
) -> None:
    """Sooner or later than what is remembered."""
    lease = reserve(budget, FULL - SOME, BRIEF)
    theirs.renew(lease, ttl)
    for _ in range(between):
        budget.release(reserve(budget))
    pass_by(clock, ttl - timedelta(microseconds=1))
    budget.release(reserve(budget))
    assert budget.status().balance.reserved.tokens == FULL - SOME
    pass_by(clock, timedelta(microseconds=1))
    reserve(budget, FULL)


def test_holds_are_looked_for_twice_a_second(
    budget: LedgerBudgetManager, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with every call, as long as nobody else writes to the pool."""
    asked: list[PoolJournal] = []
    ending = PoolJournal.ending

    def noted(pool: PoolJournal, now: int | None) -> object:
        asked.append(pool)
        return ending(pool, now)

    monkeypatch.setattr(PoolJournal, "ending", noted)
    for _ in range(3):
        for _ in range(5):
            reserve(budget, 1, timedelta(minutes=1))
            pass_by(clock, timedelta(milliseconds=100))
        pass_by(clock, timedelta(milliseconds=500))
    assert len(asked) == 2


@pytest.fixture
def failing(timed: Ledger, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that has a batch of the ledger fail at its COMMIT."""

    def full(_connection: object) -> None:
        raise OSError(28, "No space left on device")

    def fail() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(timed._database.dialect, "commit", full)
            with pytest.raises(Exception, match="No space left"):
                reserve(timed.pool("pool"), 0)

    return fail


def test_a_batch_that_failed_expired_nothing(
    timed: Ledger, budget: LedgerBudgetManager, clock: Clock, failing: Callable[[], None]
) -> None:
    """What it would have expired is due for the next one."""
    lease = reserve(budget, FULL, BRIEF)
    pass_by(clock, BRIEF)
    failing()
    reserve(budget)
    ends = [entry for entry in timed.entries("pool") if entry.kind == EntryKind.EXPIRY]
    assert [lease.id] == [entry.lease.lease for entry in ends if entry.lease]


def test_a_batch_that_failed_learnt_nothing(
    budget: LedgerBudgetManager,
    theirs: LedgerBudgetManager,
    clock: Clock,
    failing: Callable[[], None],
) -> None:
    """It saw that others had written, but not when what they hold ends."""
    reserve(theirs, FULL, BRIEF)
    failing()
    pass_by(clock, BRIEF)
    reserve(budget, FULL)


def test_a_store_put_back_to_a_backup_is_believed(
    timed: Ledger, budget: LedgerBudgetManager, clock: Clock, vandal: Vandal
) -> None:
    """A hold that is open again ends in its turn, though this ledger saw its lease released."""
    lease = reserve(budget, FULL, BRIEF)
    budget.release(lease)
    vandal.run(f"DELETE FROM entries WHERE seq > {lease.id}")
    pass_by(clock, BRIEF)
    reserve(budget, FULL)
    assert [None] == [found.damage for found in timed.verify()]
