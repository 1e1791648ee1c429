"""Calls without a key of the caller's: the library makes one, and a receipt repeats the call."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from ledger import (
    BudgetLease,
    IdempotencyConflictError,
    IdempotencyKey,
    InvalidInputError,
    Ledger,
    LedgerBudgetManager,
    RequestExtensions,
    ThresholdExceededError,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.engine.operations import Operation, Record, Reserve
from ledger.store.keys import Receipt, new_key
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.leases import OF_HUNDRED

FIVE, SIX = UsageEstimate(total_tokens=5), UsageEstimate(total_tokens=6)


@pytest.fixture
def budget(shared_book: Ledger, fresh_name: str) -> LedgerBudgetManager:
    """Return a pool of its own, on each database in turn."""
    return shared_book.pool(fresh_name, OF_HUNDRED)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Operation[Any]]:
    """Return a function that returns the operation that was tried last."""
    seen: list[Operation[Any]] = []
    for kind in (Reserve, Record):

        def decide(self: Any, *arguments: Any, inner: Any = kind.decide) -> Any:  # noqa: ANN401 - as it is
            seen.append(self)
            return inner(self, *arguments)

        monkeypatch.setattr(kind, "decide", decide)
    return lambda: seen[-1]


def reserve(budget: LedgerBudgetManager, key: str, estimate: UsageEstimate = FIVE) -> BudgetLease:
    """Repeat a reservation."""
    return budget.reserve(RequestExtensions(IdempotencyKey(key)), estimate, UNLIMITED)


def test_keys_are_short_different_and_in_order() -> None:
    """Nineteen characters that sort by the time at which they were made."""
    made = [new_key() for _ in range(2_000)]
    assert {19} == set(map(len, made))
    assert len(made) == len(set(made))
    # Those of one microsecond are in any order.
    assert [key[:9] for key in made] == sorted(key[:9] for key in made)


def test_a_forked_child_makes_keys_of_its_own() -> None:
    """What is random in them is not what its parent makes next."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, new_key().encode())
        os._exit(0)
    own, others = new_key(), os.read(reader, 19).decode()
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    assert own[10:] != others[10:]


def test_a_receipt_is_read_as_it_was_written() -> None:
    """Any other key is one of the caller's."""
    receipt = Receipt.of(new_key(), 7, bytes(range(32)))
    assert receipt == Receipt.read(str(receipt))
    assert receipt.is_of(bytes(range(32)))
    assert not receipt.is_of(bytes(32))
    for other in (receipt.key, f"{receipt} ", str(receipt).upper(), "ledger:a:1:00", "key"):
        assert None is Receipt.read(other)


def test_an_entry_without_a_key_of_the_caller_s_has_no_digest(
    shared_book: Ledger, budget: LedgerBudgetManager
) -> None:
    """The library's key stands in the entry alone; a caller's has the digest of its arguments."""
    budget.reserve(EXTENSIONS, FIVE, UNLIMITED)
    reserve(budget, "mine")
    _, made, given = shared_book.entries(budget.name)
    assert (19, None) == (len(made.idempotency_key or ""), made.payload_digest)
    assert ("mine", 32) == (given.idempotency_key, len(given.payload_digest or b""))
    assert shared_book.verify(budget.name)[0].ok


def test_a_call_is_repeated_by_its_receipt(
    shared_book: Ledger, budget: LedgerBudgetManager, tried: Callable[[], Operation[Any]]
) -> None:
    """It is answered from its entry, behind many others, and writes nothing."""
    lease = budget.reserve(EXTENSIONS, FIVE, UNLIMITED)
    receipt = tried().key_to_repeat()
    budget.record_used(lease, Usage(total_tokens=4))
    settled = tried().key_to_repeat()
    before = budget.status()
    assert lease == reserve(budget, receipt)
    budget.record_used(lease, Usage(total_tokens=4), report=UsageReport(idempotency_key=settled))
    assert before == budget.status()
    for key, seq in ((receipt, 2), (settled, 3)):
        made = Receipt.read(key)
        assert made is not None
        assert seq - 1 == made.behind
        for asked in (key, made.key):
            found = shared_book.entry_with_key(budget.name, asked)
            assert found is not None
            assert (seq, made.key) == (found.seq, found.idempotency_key)
    assert None is shared_book.entry_with_key(budget.name, new_key())


def test_a_receipt_is_of_one_call(
    budget: LedgerBudgetManager, tried: Callable[[], Operation[Any]]
) -> None:
    """With other arguments it is refused, as a key of the caller's is."""
    lease = budget.reserve(EXTENSIONS, FIVE, UNLIMITED)
    receipt = tried().key_to_repeat()
    with pytest.raises(IdempotencyConflictError):
        reserve(budget, receipt, SIX)
    with pytest.raises(IdempotencyConflictError):
        budget.record_used(
            lease, Usage(total_tokens=4), report=UsageReport(idempotency_key=receipt)
        )
    budget.record_used(lease, Usage(total_tokens=4))


def test_a_call_that_was_not_done_is_done_once(
    shared_book: Ledger, budget: LedgerBudgetManager
) -> None:
    """However often it is repeated; also if what it leads to is a denial."""
    operation = Reserve.of(EXTENSIONS, FIVE, UNLIMITED, keep_denial=False)
    operation.behind = budget.status().seq
    receipt = operation.key_to_repeat()
    leases = {reserve(budget, receipt).id for _ in range(3)}
    assert ({2}, 2) == (leases, budget.status().seq)
    much = UsageEstimate(total_tokens=500)
    denied = Reserve.of(EXTENSIONS, much, UNLIMITED, keep_denial=False).key_to_repeat()
    for _ in range(3):
        with pytest.raises(ThresholdExceededError):
            reserve(budget, denied, much)
    assert ["opening", "reservation", "denial"] == [
        entry.kind for entry in shared_book.entries(budget.name)
    ]


def test_a_receipt_is_found_after_a_backup_was_restored(budget: LedgerBudgetManager) -> None:
    """It names an entry that is gone, so that all are looked at."""
    operation = Reserve.of(EXTENSIONS, FIVE, UNLIMITED, keep_denial=False)
    operation.behind = 50
    receipt = operation.key_to_repeat()
    assert {2} == {reserve(budget, receipt).id for _ in range(3)}


def test_a_receipt_does_not_reach_another_pool(
    shared_book: Ledger,
    budget: LedgerBudgetManager,
    fresh_name: str,
    tried: Callable[[], Operation[Any]],
) -> None:
    """There, the call was never made."""
    lease = budget.reserve(EXTENSIONS, FIVE, UNLIMITED)
    receipt = tried().key_to_repeat()
    other = shared_book.pool(f"{fresh_name} other", OF_HUNDRED)
    assert lease != reserve(other, receipt)
    with pytest.raises(UnknownLeaseError):
        other.record_used(lease, Usage())


def test_a_key_of_the_library_s_without_its_receipt(budget: LedgerBudgetManager) -> None:
    """It is not looked for, so that a call is refused; a spend is recorded all the same."""
    lease = budget.reserve(EXTENSIONS, FIVE, UNLIMITED)
    key = new_key()
    with pytest.raises(InvalidInputError, match="give the receipt"):
        reserve(budget, key)
    with pytest.raises(InvalidInputError, match="give the receipt"):
        budget.release(lease, idempotency_key=key)
    for _ in range(2):
        budget.record_used(lease, Usage(total_tokens=4), report=UsageReport(idempotency_key=key))
    assert 4 == budget.status().balance.committed.tokens


@pytest.mark.parametrize(
    "key", ["nightly-run-2024-11", "0123456789012345678", "AAAAAAAAAAAAAAAAAAA", "z" * 19]
)
def test_keys_of_callers_that_look_alike(budget: LedgerBudgetManager, key: str) -> None:
    """Nineteen characters are a caller's own key, unless they say a time of this century."""
    assert reserve(budget, key) == reserve(budget, key)
