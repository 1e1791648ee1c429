"""What a process remembers of a pool's holds, when another process has written to the pool."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from ledger import (
    LeaseTtl,
    Ledger,
    LedgerBudgetManager,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
)
from ledger.store import journal
from ledger.store.journal import PoolJournal
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import Clock

OPTIONS = SharedPoolBudgetOptions(capacity_tokens=100, settlement=SettlementPolicy.RELEASE)


@pytest.fixture
def budgets(store_url: str, clock: Clock) -> Iterator[list[LedgerBudgetManager]]:
    """Return one pool as two processes have it; the first one holds a lease."""
    with Ledger.open(store_url, clock=clock) as book, Ledger.open(store_url, clock=clock) as other:
        found = [one.pool("pool", OPTIONS) for one in (book, other)]
        found[0].reserve(EXTENSIONS, tokens(10), UNLIMITED)
        yield found


def ending_after(milliseconds: int) -> RequestExtensions:
    """Return a request whose hold ends after so long."""
    return RequestExtensions(LeaseTtl(timedelta(milliseconds=milliseconds)))


def test_a_hold_that_another_process_granted_ends_in_time(
    budgets: list[LedgerBudgetManager], clock: Clock
) -> None:
    """This process knew that no hold ends soon; the other one's entry says that one does."""
    mine, theirs = budgets
    theirs.reserve(ending_after(200), tokens(90), UNLIMITED)
    clock.now += 100_000
    with pytest.raises(ThresholdExceededError):
        mine.reserve(EXTENSIONS, tokens(90), UNLIMITED)
    clock.now += 100_000
    mine.reserve(EXTENSIONS, tokens(90), UNLIMITED)
    assert 0 == mine.remaining(EXTENSIONS).tokens


@pytest.mark.parametrize("seen_before", [True, False])
def test_a_hold_that_has_ended_is_found_when_its_entry_is(
    budgets: list[LedgerBudgetManager], clock: Clock, *, seen_before: bool
) -> None:
    """Whether this process saw the other one's entry while the hold lasted, or only afterwards."""
    mine, theirs = budgets
    theirs.reserve(ending_after(50), tokens(90), UNLIMITED)
    if seen_before:
        with pytest.raises(ThresholdExceededError):
            mine.reserve(EXTENSIONS, tokens(90), UNLIMITED)
    clock.now += 60_000
    mine.reserve(EXTENSIONS, tokens(90), UNLIMITED)


def test_more_entries_of_others_than_are_read_may_hold_anything(
    budgets: list[LedgerBudgetManager], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hold behind the last entry that was read is found nevertheless."""
    monkeypatch.setattr(journal, "PAGE", 3)
    mine, theirs = budgets
    for _ in range(5):
        theirs.release(theirs.reserve(EXTENSIONS, tokens(1), UNLIMITED))
    theirs.reserve(ending_after(50), tokens(90), UNLIMITED)
    clock.now += 60_000
    mine.reserve(EXTENSIONS, tokens(90), UNLIMITED)


def test_entries_of_others_are_no_reason_to_look_for_holds(
    budgets: list[LedgerBudgetManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They say themselves when a hold ends: two busy processes look for holds once a while."""
    asked: list[int] = []
    ending = PoolJournal.ending

    def noted(self: PoolJournal, now: Any) -> Any:  # noqa: ANN401 - as it is
        asked.append(1)
        return ending(self, now)

    mine, theirs = budgets
    theirs.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    monkeypatch.setattr(PoolJournal, "ending", noted)
    for _ in range(5):
        theirs.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        mine.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    assert [] == asked
