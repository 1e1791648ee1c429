"""Leases that a ledger keeps in memory, while others write to their pool or replace the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from ledger import (
    Attribution,
    BudgetLease,
    Ledger,
    LedgerBudgetManager,
    LostLeaseError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
)
from ledger.store import attributions, journal, queries
from ledger.testing.calls import UNLIMITED
from tests.leases import OF_THOUSAND

if TYPE_CHECKING:
    from tests.conformance.conftest import Vandal

ENDS: dict[str, Callable[[LedgerBudgetManager, BudgetLease], None]] = {
    "settled": lambda budget, lease: budget.record_used(lease, Usage(total_tokens=1)),
    "released": lambda budget, lease: budget.release(lease),
}


@pytest.fixture
def budget(book: Ledger) -> LedgerBudgetManager:
    """Return the pool, through the ledger that remembers."""
    return book.pool("pool", OF_THOUSAND)


@pytest.fixture
def theirs(budget: LedgerBudgetManager, store_url: str) -> Iterator[LedgerBudgetManager]:
    """Return the same pool through another ledger, as another process has it."""
    with Ledger.open(store_url) as elsewhere:
        yield elsewhere.pool(budget.name)


def reserve(budget: LedgerBudgetManager, amount: int = 10, *given: object) -> BudgetLease:
    """Reserve tokens."""
    return budget.reserve(RequestExtensions(*given), UsageEstimate(total_tokens=amount), UNLIMITED)


def balance(budget: LedgerBudgetManager) -> tuple[int, int]:
    """Return the tokens that are committed and reserved."""
    committed, reserved = budget.status().balance
    return committed.tokens, reserved.tokens


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("between", [0, 1, 3])
def test_a_lease_that_another_ended_is_unknown(
    book: Ledger,
    budget: LedgerBudgetManager,
    theirs: LedgerBudgetManager,
    end: Callable[[LedgerBudgetManager, BudgetLease], None],
    between: int,
) -> None:
    """Whatever this ledger did between, and thereby looked at, what it remembers is given up."""
    lease = reserve(budget)
    reserve(theirs)
    end(theirs, lease)
    for _ in range(between):
        budget.release(reserve(budget))
    used = balance(budget)[0]
    for call in ENDS.values():
        with pytest.raises(UnknownLeaseError):
            call(budget, lease)
    assert (used, 10) == balance(budget)
    assert [None] == [found.damage for found in book.verify()]


def test_a_lease_that_nobody_touched_is_not_read_again(
    budget: LedgerBudgetManager, theirs: LedgerBudgetManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries of others about other leases leave what is remembered as it is."""
    lease, other = reserve(budget), reserve(theirs)
    ENDS["settled"](theirs, other)
    reserve(theirs)
    monkeypatch.setattr(queries, "LEASE", None)
    ENDS["settled"](budget, lease)
    assert (2, 10) == balance(budget)


@pytest.mark.parametrize("others", range(1, 9))
def test_however_much_others_wrote_no_end_is_missed(
    book: Ledger,
    budget: LedgerBudgetManager,
    theirs: LedgerBudgetManager,
    monkeypatch: pytest.MonkeyPatch,
    others: int,
) -> None:
    """Below a page of entries, at it and far behind: the last of them ended the lease."""
    monkeypatch.setattr(journal, "PAGE", 5)
    lease, kept = reserve(budget), reserve(budget)
    for _ in range(others - 1):
        reserve(theirs)
    ENDS["released"](theirs, lease)
    with pytest.raises(UnknownLeaseError):
        ENDS["settled"](budget, lease)
    ENDS["settled"](budget, kept)
    assert (1, 10 * (others - 1)) == balance(budget)
    assert [None] == [found.damage for found in book.verify()]


def test_what_is_remembered_is_bounded(
    budget: LedgerBudgetManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound the oldest lease is forgotten, and read again when it is settled."""
    monkeypatch.setattr(attributions, "REMEMBERED", 3)
    leases = [reserve(budget) for _ in range(5)]
    assert [lease.id for lease in leases[2:]] == list(budget._journal._leases)
    for lease in leases:
        ENDS["settled"](budget, lease)
    assert {} == budget._journal._leases
    assert (5, 0) == balance(budget)


def test_a_batch_that_failed_leaves_nothing_in_memory(
    book: Ledger, budget: LedgerBudgetManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A settlement that was not committed did not end its lease, in memory neither."""
    lease = reserve(budget)

    def full(_connection: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(book._database.dialect, "commit", full)
        with pytest.raises(Exception, match="No space left"):
            ENDS["settled"](budget, lease)
        with pytest.raises(Exception, match="No space left"):
            reserve(budget)
    assert {lease.id} == set(budget._journal._leases)
    ENDS["settled"](budget, lease)
    assert (1, 0) == balance(budget)


def test_a_store_put_back_to_a_backup_is_believed(
    book: Ledger, budget: LedgerBudgetManager, vandal: Vandal
) -> None:
    """Leases that the backup does not know are unknown, though they are remembered."""
    kept, gone = reserve(budget), reserve(budget)
    put_back(vandal, to=kept.id)
    with pytest.raises(UnknownLeaseError):
        ENDS["settled"](budget, gone)
    ENDS["settled"](budget, kept)
    assert (1, 0) == balance(budget)
    assert [None] == [found.damage for found in book.verify()]


@pytest.mark.parametrize("written", [1, 2, 3])
def test_a_store_put_back_and_written_again_is_believed(
    book: Ledger,
    budget: LedgerBudgetManager,
    theirs: LedgerBudgetManager,
    vandal: Vandal,
    written: int,
) -> None:
    """The same number is another lease now: a call with the old one takes nothing from it.

    So it is when others wrote less than there was, the same, and more.
    """
    reserve(budget)
    gone = [reserve(budget, 70) for _ in range(2)]
    put_back(vandal, to=2)
    theirs._journal._leases.clear()  # another process, which began after the store was put back
    for _ in range(written):
        reserve(theirs, 7)
    with pytest.raises(LostLeaseError):
        ENDS["settled"](budget, gone[0])
    assert (0, 10 + 7 * written) == balance(budget)
    assert [None] == [found.damage for found in book.verify()]


@pytest.mark.parametrize("written", [0, 1, 3])
@pytest.mark.parametrize("leases", [0, 1])
def test_a_store_put_back_takes_policies_and_attributions_with_it(
    book: Ledger, store_url: str, vandal: Vandal, leases: int, written: int
) -> None:
    """What the entries that are gone had set and named is not what the new ones set and name."""
    budget = book.pool("pool", OF_THOUSAND)
    book.adjust("pool", SharedPoolBudgetOptions(capacity_tokens=500))
    for _ in range(2):  # the second looks up what the first stored, and remembers it
        lease = reserve(budget, 10, Attribution(run_id="gone"))
    for _ in range(1 - leases):
        budget.release(lease)
    put_back(vandal, to=1)
    with Ledger.open(store_url) as elsewhere:
        for number in range(written):
            elsewhere.adjust("pool", SharedPoolBudgetOptions(capacity_tokens=20))
            reserve(elsewhere.pool("pool"), 1, Attribution(run_id=f"new {number}"))
    kept = reserve(budget, 5, Attribution(run_id="gone"))
    if written:
        with pytest.raises(ThresholdExceededError):
            reserve(budget, 21)
    runs = [entry.attribution and entry.attribution.run_id for entry in book.entries("pool")]
    assert (kept.id, "gone") == (len(runs), runs[-1])
    assert [None] == [found.damage for found in book.verify()]


def put_back(vandal: Vandal, *, to: int) -> None:
    """Put the store back to where its newest entry had this number."""
    vandal.run(f"DELETE FROM entries WHERE seq > {to}", "DELETE FROM attributions")
