"""Corrections: an invoice says otherwise, and the books show both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger import (
    I64_MAX,
    AmountOutOfRangeError,
    AsyncLedger,
    Attribution,
    Balance,
    BudgetLease,
    Entry,
    EntryFlag,
    EntryKind,
    IdempotencyConflictError,
    InvalidInputError,
    LeasePhase,
    Ledger,
    LedgerBudgetManager,
    Provenance,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Totals,
    UncorrectableEntryError,
    UnknownLeaseError,
    Usage,
    UsageDifference,
    UsageEstimate,
    UsageReport,
    reports,
)
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.fixtures import Vandal

POLICY = SharedPoolBudgetOptions(capacity_tokens=1_000)
SETTLEMENT = 3
"""The number of the settlement in a pool that `spent` made."""


def reserve(budget: LedgerBudgetManager, amount: int = 100) -> BudgetLease:
    """Reserve tokens."""
    return budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=amount), UNLIMITED)


@pytest.fixture
def spent(shared_book: Ledger, fresh_name: str) -> LedgerBudgetManager:
    """Return a budget whose entry 3 settled 80 tokens for 50 micro-USD."""
    budget = shared_book.pool(fresh_name, POLICY)
    budget.record_used(reserve(budget), Usage(total_tokens=80, cost_micros_usd=50))
    return budget


def newest(book: Ledger, budget: LedgerBudgetManager) -> Entry:
    """Return a pool's newest entry, and prove that the journal is sound."""
    assert None is book.verify(budget.name)[0].damage
    return list(book.entries(budget.name))[-1]


def test_the_difference_is_appended(shared_book: Ledger, spent: LedgerBudgetManager) -> None:
    """The entry stays; another says by how much it was wrong, and what it should have said."""
    really = Usage(total_tokens=60, cost_micros_usd=70)
    moved = UsageDifference(total_tokens=-20, cost_micros_usd=20)
    assert moved == spent.correct(SETTLEMENT, really, "invoice 7")
    settled, corrected = list(shared_book.entries(spent.name))[-2:]
    assert Usage(total_tokens=80, cost_micros_usd=50) == settled.usage
    assert (4, EntryKind.CORRECTION, moved) == (corrected.seq, corrected.kind, corrected.usage)
    assert {
        "corrects": SETTLEMENT,
        "from": {"total_tokens": 80, "cost_micros_usd": 50},
        "to": {"total_tokens": 60, "cost_micros_usd": 70},
        "reason": "invoice 7",
    }.items() <= corrected.detail.items()
    assert Balance(Totals(60, 70, 1)) == corrected.balance
    assert corrected.lease is not None
    assert (2, LeasePhase.ENDED, really) == (
        corrected.lease.lease,
        corrected.lease.phase,
        corrected.lease.used,
    )
    assert really == spent.usage_of(SETTLEMENT) == spent.usage_of(settled)
    assert 940 == spent.remaining(EXTENSIONS).tokens
    assert corrected == newest(shared_book, spent)


def test_a_correction_starts_from_what_the_entry_says_now(
    shared_book: Ledger, spent: LedgerBudgetManager
) -> None:
    """Corrected twice, it says what was said last; back again is a correction like others."""
    steps = [(60, -20), (90, 30), (80, -10)]
    for tokens, moved in steps:
        usage = Usage(total_tokens=tokens, cost_micros_usd=50)
        assert moved == spent.correct(SETTLEMENT, usage, "again").total_tokens
        assert usage == spent.usage_of(SETTLEMENT)
    assert Balance(Totals(80, 50, 1)) == newest(shared_book, spent).balance


def test_each_part_of_a_lease_is_corrected_by_itself(
    shared_book: Ledger, spent: LedgerBudgetManager
) -> None:
    """Two observations and a settlement: what the lease used is the sum of what they say now."""
    lease = reserve(spent)
    for usage in (Usage(total_tokens=10), Usage(total_tokens=20)):
        spent.observe(lease, usage)
    spent.record_used(lease, Usage(total_tokens=30))
    spent.correct(5, Usage(total_tokens=11), "first part")
    spent.correct(7, Usage(total_tokens=33), "last part")
    spent.correct(5, Usage(total_tokens=12), "first part, again")
    assert [12, 20, 33] == [spent.usage_of(seq).total_tokens for seq in (5, 6, 7)]
    found = newest(shared_book, spent)
    assert found.lease is not None
    assert (12 + 20 + 33, Totals(80 + 65, 50, 2)) == (
        found.lease.used.total_tokens,
        found.balance.committed,
    )


def test_a_key_corrects_once(shared_book: Ledger, spent: LedgerBudgetManager) -> None:
    """Repeated, the first answer comes again, although the entry says so already."""
    usage = Usage(total_tokens=60, cost_micros_usd=50)
    first = spent.correct(SETTLEMENT, usage, "invoice", idempotency_key="i-7")
    spent.correct(SETTLEMENT, Usage(total_tokens=61), "another", idempotency_key="i-8")
    assert first == spent.correct(SETTLEMENT, usage, "invoice", idempotency_key="i-7")
    assert 5 == newest(shared_book, spent).seq
    others = ((SETTLEMENT, 60, "other"), (SETTLEMENT, 1, "invoice"), (9, 60, "invoice"))
    for entry, amount, reason in others:
        other = Usage(total_tokens=amount, cost_micros_usd=50)
        with pytest.raises(IdempotencyConflictError):
            spent.correct(entry, other, reason, idempotency_key="i-7")


def test_it_is_for_whom_the_entry_is_for(shared_book: Ledger, fresh_name: str) -> None:
    """Attribution, request id, provenance and time are those of the entry, not of the lease."""
    budget = shared_book.pool(fresh_name, POLICY)
    asked = RequestExtensions(Attribution(run_id="r", tenant="t", model="asked"))
    lease = budget.reserve(asked, UsageEstimate(total_tokens=9), UNLIMITED)
    at = datetime(2024, 7, 1, tzinfo=UTC)
    report = UsageReport(
        model="answered", request_id="q", provenance=Provenance.RECOVERED, occurred_at=at
    )
    budget.observe(lease, Usage(total_tokens=9), report=report)
    budget.record_used(lease, Usage(), report=UsageReport(model="other", request_id="p"))
    budget.correct(SETTLEMENT, Usage(total_tokens=7), "invoice")
    found = newest(shared_book, budget)
    assert Attribution(run_id="r", tenant="t", model="answered") == found.attribution
    assert ("q", "recovered", at) == (found.request_id, found.provenance, found.at)


def test_reports_show_both(shared_book: Ledger, spent: LedgerBudgetManager) -> None:
    """The statement has a line for each, and spend is what is left of both, in the call's time."""
    settled = list(shared_book.entries(spent.name))[-1]
    spent.correct(SETTLEMENT, Usage(total_tokens=60, cost_micros_usd=70), "invoice 7")
    found = reports.statement(shared_book, spent.name)
    assert [("settlement", 80), ("correction", -20)] == [
        (one.kind, one.committed.tokens) for one in found.movements[2:]
    ]
    assert 60 == found.closing.committed.tokens
    lines = list(reports.statement_lines(shared_book, found))
    assert ("correction", "invoice 7", 2) == (lines[-1].kind, lines[-1].reason, lines[-1].lease)
    (run,) = reports.runs(shared_book, spent.name)
    assert (60, 70, 1, 1) == (
        run.total_tokens,
        run.cost_micros_usd,
        run.requests,
        run.corrections,
    )
    assert (60, 0) == (run.total_tokens_reported, run.total_tokens_unknown)
    assert settled.at == run.last_at


def test_the_pool_may_be_corrected_over_its_capacity(
    shared_book: Ledger, spent: LedgerBudgetManager
) -> None:
    """Real spend is never refused; an overrun of the estimate is flagged."""
    spent.correct(SETTLEMENT, Usage(total_tokens=5_000), "much more")
    assert 0 == spent.remaining(EXTENSIONS).tokens
    assert EntryFlag.OVERRUN == newest(shared_book, spent).flags


def test_totals_that_stopped_at_the_ceiling_stop_at_zero(
    shared_book: Ledger, spent: LedgerBudgetManager
) -> None:
    """What did not fit into the totals cannot be taken out of them; it is flagged both times."""
    lease = reserve(spent)
    spent.record_used(lease, Usage(total_tokens=I64_MAX))
    assert EntryFlag.SATURATED in newest(shared_book, spent).flags
    spent.correct(5, Usage(), "nothing at all")
    assert Totals(0, 50, 2) == newest(shared_book, spent).balance.committed
    spent.correct(SETTLEMENT, Usage(cost_micros_usd=50), "nor here")
    found = newest(shared_book, spent)
    assert Totals(0, 50, 2) == found.balance.committed
    assert EntryFlag.SATURATED in found.flags


@pytest.mark.parametrize(
    ("seq", "reason"),
    [
        (1, "kind opening"),
        (2, "kind reservation"),
        (4, "kind correction"),
        (6, "lease 5 has not ended"),
        (7, "no such entry"),
        (0, "no such entry"),
        (-3, "no such entry"),
        (I64_MAX, "no such entry"),
        (2**64, "no such entry"),
    ],
)
def test_what_cannot_be_corrected(
    shared_book: Ledger, spent: LedgerBudgetManager, seq: int, reason: str
) -> None:
    """Only settlements and observations of leases that have ended; nothing is written."""
    spent.correct(SETTLEMENT, Usage(total_tokens=1), "so that 4 is a correction")
    lease = reserve(spent)
    spent.observe(lease, Usage(total_tokens=10))
    with pytest.raises(UncorrectableEntryError) as refused:
        spent.correct(seq, Usage(total_tokens=2), "invoice")
    assert (seq, True) == (refused.value.seq, reason in refused.value.reason)
    assert 6 == newest(shared_book, spent).seq
    if seq != 6:
        with pytest.raises(UncorrectableEntryError):
            spent.usage_of(seq)
    else:
        assert Usage(total_tokens=10) == spent.usage_of(seq)


def test_an_observation_is_corrected_once_its_lease_is_released(
    shared_book: Ledger, spent: LedgerBudgetManager
) -> None:
    """The lease has ended, and what was observed stayed committed."""
    lease = reserve(spent)
    spent.observe(lease, Usage(total_tokens=10))
    spent.release(lease)
    spent.correct(5, Usage(total_tokens=4), "invoice")
    found = newest(shared_book, spent)
    assert Balance(Totals(84, 50, 1)) == found.balance


def test_a_corrected_lease_has_ended(shared_book: Ledger, spent: LedgerBudgetManager) -> None:
    """Its newest entry is the correction, and brings nothing back."""
    lease = reserve(spent)
    spent.record_used(lease, Usage(total_tokens=10))
    spent.correct(5, Usage(total_tokens=4), "invoice")
    for call in (
        lambda: spent.lease(lease.token),
        lambda: spent.record_used(lease, Usage()),
        lambda: spent.release(lease),
        lambda: spent.renew(lease, timedelta(hours=1)),
    ):
        with pytest.raises(UnknownLeaseError):
            call()
    assert [] == list(shared_book.open_leases(spent.name))
    assert 6 == newest(shared_book, spent).seq


def test_an_entry_of_another_pool_is_refused(
    shared_book: Ledger, spent: LedgerBudgetManager, fresh_name: str
) -> None:
    """Its number means another entry here."""
    other = shared_book.pool(f"{fresh_name} 2", POLICY)
    other.record_used(reserve(other), Usage(total_tokens=80))
    entry = newest(shared_book, other)
    for call in (lambda: spent.usage_of(entry), lambda: spent.correct(entry, Usage(), "x")):
        with pytest.raises(UncorrectableEntryError, match="of another pool"):
            call()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((SETTLEMENT, Usage(total_tokens=80, cost_micros_usd=50), "same"), InvalidInputError),
        ((SETTLEMENT, UsageEstimate(total_tokens=1), "type"), InvalidInputError),
        ((SETTLEMENT, Usage(total_tokens=1), ""), InvalidInputError),
        ((SETTLEMENT, Usage(total_tokens=1), None), InvalidInputError),
        ((SETTLEMENT, Usage(total_tokens=1), "x" * 2_001), InvalidInputError),
        ((SETTLEMENT, Usage(total_tokens=I64_MAX + 1), "much"), AmountOutOfRangeError),
        (("3", Usage(total_tokens=1), "text"), InvalidInputError),
        ((True, Usage(total_tokens=1), "bool"), InvalidInputError),
        ((None, Usage(total_tokens=1), "none"), InvalidInputError),
    ],
)
def test_arguments_are_checked(
    shared_book: Ledger,
    spent: LedgerBudgetManager,
    arguments: tuple[Any, Any, Any],
    error: type[Exception],
) -> None:
    """A typed error, and nothing is written."""
    with pytest.raises(error):
        spent.correct(*arguments)
    assert 3 == newest(shared_book, spent).seq


def test_threads_correct_one_entry_together(
    shared_book: Ledger, spent: LedgerBudgetManager
) -> None:
    """Each starts from what the one before it said, also inside one batch."""
    together = threading.Barrier(8)

    def work(number: int) -> None:
        together.wait()
        spent.correct(SETTLEMENT, Usage(total_tokens=number), f"thread {number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = newest(shared_book, spent)
    assert 3 + 8 == found.seq
    assert spent.usage_of(SETTLEMENT).total_tokens == found.balance.committed.tokens


def test_corrections_in_asyncio(shared_book: Ledger, spent: LedgerBudgetManager) -> None:
    """Of five corrections under one key one is written, and all get its difference."""

    async def main() -> None:
        budget = await AsyncLedger(shared_book).pool(spent.name)
        usage = Usage(total_tokens=60, cost_micros_usd=50)
        moved = await asyncio.gather(
            *(budget.correct(SETTLEMENT, usage, "r", idempotency_key="k") for _ in range(5))
        )
        assert {UsageDifference(total_tokens=-20)} == set(moved)
        assert usage == await budget.usage_of(SETTLEMENT)
        with pytest.raises(UncorrectableEntryError):
            await budget.correct(2, usage, "r")

    asyncio.run(main())
    assert 4 == newest(shared_book, spent).seq


FORGERIES: list[tuple[dict[str, Any], str]] = [
    ({"usage_total_tokens": -21}, "by another difference"),
    ({"usage_total_tokens": 20}, "by another difference"),
    ({"usage_total_tokens": None}, "without usage"),
    ({"detail": None}, "does not say of what"),
    (
        {"detail": '{"corrects":4,"from":{"total_tokens":80},"to":{"total_tokens":60}}'},
        "without a reason",
    ),
    (
        {
            "detail": '{"actor":{"user":"u"},"corrects":5,"from":{"total_tokens":80},'
            '"reason":"r","to":{"total_tokens":60}}'
        },
        "of another lease",
    ),
    (
        {
            "detail": '{"actor":{"user":"u"},"corrects":3,"from":{"total_tokens":80},'
            '"reason":"r","to":{"total_tokens":60}}'
        },
        "it is of kind reservation",
    ),
    (
        {
            "detail": '{"actor":{"user":"u"},"corrects":4,"from":{"total_tokens":70},'
            '"reason":"r","to":{"total_tokens":50}}'
        },
        "from Usage",
    ),
    ({"used_total_tokens": 61}, "lease should be"),
    ({"used_reasoning_tokens": 1}, "lease should be"),
    ({"used_total_tokens": None}, "has used is missing"),
    ({"held_tokens": 1}, "still holds is missing"),
    ({"held_tokens": 1, "held_cost_micros_usd": 0, "held_requests": 0}, "lease should be"),
    ({"held_tokens": 0, "held_cost_micros_usd": 0, "held_requests": 0}, "not as they are written"),
    ({"estimate_total_tokens": 101}, "is not that of lease 2"),
    ({"budget_tokens": 9}, "is not that of lease 2"),
    ({"expires_at": 9}, "lease should be"),
    ({"committed_tokens": 61}, "balance should be"),
    ({"committed_requests": 1}, "balance should be"),
    ({"flags": 1}, "flags should be"),
    ({"lease": 3}, "of another lease"),
]
"""What is changed in the first of two corrections, entry 6, and why that is found there."""


def test_a_forged_correction_is_found(
    book: Ledger, vandal: Vandal, forged: Callable[..., str | None]
) -> None:
    """What it says of the entry it corrects, of its lease and of the pool must be the truth."""
    budget = book.pool("pool", POLICY)
    for lease in (reserve(budget), reserve(budget, 50)):
        budget.record_used(lease, Usage(total_tokens=80))
    # 4 settles lease 2, and 5 lease 3.
    budget.correct(4, Usage(total_tokens=60), "invoice")
    budget.correct(4, Usage(total_tokens=62), "invoice")
    assert book.verify("pool")[0].ok
    missed = []
    for changes, reason in FORGERIES:
        found = forged(book, vandal, 6, changes)
        if found is None or reason not in found:
            missed.append((changes, found))
    assert [] == missed
    assert book.verify("pool")[0].ok


@pytest.fixture
def forged() -> Callable[..., str | None]:
    """Return a function that changes an entry, verifies, and changes it back."""

    def forge(book: Ledger, vandal: Vandal, seq: int, changes: dict[str, Any]) -> str | None:
        before = vandal.row(seq)
        vandal.forge(seq, **changes)
        found = book.verify("pool")[0].damage
        vandal.forge(seq, **{name: before[name] for name in changes})
        assert found is None or seq == found.seq
        return None if found is None else found.reason

    return forge
