"""A lease is good for one call: after a restore, its number may be another call's."""

from __future__ import annotations

import logging
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from ledger import (
    Attribution,
    BudgetLease,
    EntryKind,
    IdempotencyConflictError,
    InvalidInputError,
    Ledger,
    LedgerBudgetManager,
    LostLeaseError,
    RequestBudget,
    RequestBudgetExceededError,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    StoreWentBackWarning,
    ThresholdExceededError,
    Totals,
    UnknownLeaseError,
    UnknownPoolError,
    Usage,
    UsageReport,
    reports,
)
from ledger.reports.meter import Meter
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import HOUR

if TYPE_CHECKING:
    from tests.conformance.conftest import Vandal

Budget = LedgerBudgetManager | SharedPoolBudgetManager
OPTIONS = SharedPoolBudgetOptions(capacity_tokens=1_000, lease_ttl=HOUR)
SPENT = Usage(total_tokens=480, cost_micros_usd=3)

CALLS: dict[str, Callable[[Budget, BudgetLease], object]] = {
    "record_used": lambda budget, lease: budget.record_used(lease, SPENT),
    "observe": lambda budget, lease: budget.observe(lease, SPENT),
    "renew": lambda budget, lease: budget.renew(lease, 2 * HOUR),
    "release": lambda budget, lease: budget.release(lease),
    "abandon": lambda budget, lease: budget.abandon(lease),
}


@pytest.fixture
def budget(book: Ledger) -> LedgerBudgetManager:
    """Return a pool below another one, through the ledger that saw what is lost later."""
    book.pool("org", SharedPoolBudgetOptions())
    return book.pool("pool", OPTIONS, parent="org")


@pytest.fixture
def theirs(budget: LedgerBudgetManager, store_url: str) -> Iterator[LedgerBudgetManager]:
    """Return the same pool in a process that begins after the restore."""
    with Ledger.open(store_url) as elsewhere:
        yield elsewhere.pool(budget.name)


def put_back(vandal: Vandal, *, to: int) -> None:
    """Put both pools back to where their newest entry had this number."""
    vandal.run(f"DELETE FROM entries WHERE seq > {to}", "DELETE FROM attributions")


@pytest.fixture
def lost(
    budget: LedgerBudgetManager, theirs: LedgerBudgetManager, vandal: Vandal
) -> tuple[BudgetLease, BudgetLease]:
    """Return a lease that is lost, and the lease that was granted under its number since."""
    mine = budget.reserve(EXTENSIONS, tokens(500), RequestBudget.from_tokens(600))
    put_back(vandal, to=1)
    others = theirs.reserve(EXTENSIONS, tokens(20), UNLIMITED)
    assert mine.id == others.id == 2
    return mine, others


def balances(book: Ledger) -> list[tuple[Totals, Totals]]:
    """Return what both pools have committed and reserved; their journals are sound."""
    assert [None, None] == [one.damage for one in book.verify()]
    found = [book.pool(name).status().balance for name in ("pool", "org")]
    return [(one.committed, one.reserved) for one in found]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_lost_lease_does_nothing_to_the_call_that_has_its_number(
    book: Ledger,
    budget: LedgerBudgetManager,
    theirs: LedgerBudgetManager,
    lost: tuple[BudgetLease, BudgetLease],
    call: Callable[[Budget, BudgetLease], object],
) -> None:
    """Neither where the lost lease was granted nor elsewhere; the other call goes on."""
    mine, others = lost
    for one in (budget, theirs):
        with pytest.raises(LostLeaseError, match="lease 2 of pool 'pool' is lost") as error:
            call(one, mine)
        assert (2, "pool") == (error.value.lease_id, error.value.pool)
    assert [(Totals(), Totals(20, 0, 1))] * 2 == balances(book)
    assert 2 == budget.status().seq
    budget.record_used(others, Usage(total_tokens=7))
    assert [(Totals(7, 0, 1), Totals())] * 2 == balances(book)


def test_another_process_is_told_by_the_token(
    theirs: LedgerBudgetManager, lost: tuple[BudgetLease, BudgetLease]
) -> None:
    """A number alone says nothing, and neither does a lease that was made by hand."""
    mine, others = lost
    assert others == theirs.lease(others.token)
    with pytest.raises(LostLeaseError):
        theirs.lease(mine.token)
    for number in (2, "2", "2-", f"02-{'0' * 16}", mine.token.upper()):
        with pytest.raises(InvalidInputError, match=r"lease\.token"):
            theirs.lease(number)  # type: ignore[call-overload]
    for proof in (None, b"", others.proof and others.proof[:7], "proof"):
        with pytest.raises(UnknownLeaseError):
            theirs.record_used(replace(others, proof=proof), SPENT)
    assert 2 == theirs.status().seq


@pytest.mark.parametrize("by", ["lease", "token"])
def test_what_was_spent_under_a_lost_lease_is_booked_once(
    book: Ledger,
    budget: LedgerBudgetManager,
    theirs: LedgerBudgetManager,
    lost: tuple[BudgetLease, BudgetLease],
    by: str,
) -> None:
    """By whichever process, however often; with another amount it is refused."""
    mine = lost[0] if by == "lease" else lost[0].token
    who = Attribution(run_id="run", request_id="req-1")
    report = UsageReport(model="m", idempotency_key="unused")
    for one in (budget, theirs, budget):
        one.record_lost(mine, SPENT, attribution=who, report=report)
    with pytest.raises(IdempotencyConflictError):
        theirs.record_lost(mine, Usage(total_tokens=1), attribution=who, report=report)
    assert [(Totals(480, 3, 1), Totals(20, 0, 1))] * 2 == balances(book)
    *_, granted, settled = book.entries("pool")
    assert {"lost": lost[0].token} == granted.detail
    assert (EntryKind.SETTLEMENT, 3, SPENT) == (
        settled.kind,
        settled.lease and settled.lease.lease,
        settled.usage,
    )
    assert ("req-1", "run", "m") == (
        settled.request_id,
        settled.attribution and settled.attribution.run_id,
        settled.attribution and settled.attribution.model,
    )


def test_nothing_refuses_what_was_spent(
    book: Ledger, budget: LedgerBudgetManager, lost: tuple[BudgetLease, BudgetLease]
) -> None:
    """A pool with nothing left does not, nor a closed one, nor the request's own budget."""
    mine, others = lost
    budget.record_used(others, Usage(total_tokens=1_000))
    with pytest.raises(ThresholdExceededError):
        budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    for name in ("pool", "org"):
        book.close_pool(name)
    for _ in range(2):
        with pytest.raises(RequestBudgetExceededError):
            budget.record_lost(mine, Usage(total_tokens=700))
    assert [(Totals(1_700, 0, 2), Totals())] * 2 == balances(book)


def test_a_lease_that_is_there_is_not_booked_as_lost(
    book: Ledger, budget: LedgerBudgetManager, lost: tuple[BudgetLease, BudgetLease]
) -> None:
    """Nor one of another pool, which is there too; ended or not."""
    _, others = lost
    for _ in range(2):
        with pytest.raises(InvalidInputError, match="not lost"):
            budget.record_lost(others, SPENT)
        with pytest.raises(UnknownLeaseError):
            book.pool("org").record_lost(others, SPENT)
        if others.id in budget._journal._leases:
            budget.release(others)
    assert [(Totals(), Totals())] * 2 == balances(book)


def test_a_closed_pool_that_is_carved_out_tells_its_parent(book: Ledger, vandal: Vandal) -> None:
    """What is booked after the closing is spent there, too."""
    book.pool("org", SharedPoolBudgetOptions(capacity_tokens=9_000))
    share = book.pool("pool", OPTIONS, parent="org", carved=True)
    mine = share.reserve(EXTENSIONS, tokens(500), UNLIMITED)
    put_back(vandal, to=1)
    vandal.run("DELETE FROM entries", "DELETE FROM pools")
    book.pool("org", SharedPoolBudgetOptions(capacity_tokens=9_000))
    share = book.pool("pool", OPTIONS, parent="org", carved=True)
    book.close_pool("pool")
    share.record_lost(mine, SPENT)
    assert [(Totals(480, 3, 1), Totals())] * 2 == balances(book)


@pytest.mark.parametrize("entries", [0, 1])
def test_a_pool_that_the_backup_lacks_is_not_another_pool(
    book: Ledger, store_url: str, vandal: Vandal, entries: int
) -> None:
    """Its number may be given to another one. Opened again, it takes what was spent."""
    gone = book.pool("gone", OPTIONS)
    with Ledger.open(store_url) as elsewhere:
        mine = elsewhere.pool("gone").reserve(EXTENSIONS, tokens(500), UNLIMITED)
    for _ in range(entries):
        gone.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    vandal.run("DELETE FROM entries", "DELETE FROM attributions", "DELETE FROM pools")
    other = book.pool("other", OPTIONS)
    other.reserve(EXTENSIONS, tokens(20), UNLIMITED)
    for call in CALLS.values():
        with pytest.raises(UnknownPoolError):
            call(gone, mine)
    with pytest.raises(UnknownPoolError):
        gone.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    with pytest.raises(UnknownLeaseError):
        other.record_used(mine, SPENT)
    again = book.pool("gone", OPTIONS)
    again.record_lost(mine, SPENT)
    assert [480, 0] == [one.status().balance.committed.tokens for one in (again, other)]
    assert [None, None] == [one.damage for one in book.verify()]


def test_a_store_that_went_back_says_so_once(
    budget: LedgerBudgetManager, vandal: Vandal, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log and by a warning; later entries do not repeat it."""
    budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    put_back(vandal, to=1)
    with caplog.at_level(logging.ERROR, "ledger"), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    found = [one.message for one in told if isinstance(one.message, StoreWentBackWarning)]
    assert [("org", 2, 1), ("pool", 2, 1)] == sorted(
        (one.pool, one.seen, one.newest) for one in found
    )
    assert 2 == len([one for one in caplog.records if one.name == "ledger.store.restored"])


READS: dict[str, Callable[[Ledger], object]] = {
    "remaining": lambda book: book.pool("pool").remaining(EXTENSIONS),
    "status": lambda book: book.pool("pool").status(),
    "standing": reports.standing,
    "glance": lambda book: reports.glance(book, "pool"),
    "statement": lambda book: reports.statement(book, "pool"),
    "overview": lambda book: reports.overview(book, verify=False),
    "burn_down": lambda book: reports.burn_down(book, "pool"),
    "forecast": lambda book: reports.forecast(book, "pool"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_whoever_only_reads_is_told_once(
    budget: LedgerBudgetManager,
    vandal: Vandal,
    store_url: str,
    read: Callable[[Ledger], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By every read of where the pool stands, and not again when entries follow."""
    lease = budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    budget.release(lease)
    with Ledger.open(store_url, read_only=True) as book:
        read(book)
        put_back(vandal, to=2)
        with caplog.at_level(logging.ERROR, "ledger"), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(3):
                read(book)
        found = {(one.message.pool, one.message.seen, one.message.newest) for one in told}  # type: ignore[union-attr]
        assert ("pool", 3, 2) in found
        assert found <= {("pool", 3, 2), ("org", 3, 2)}
        assert len(told) == len(found) == len(caplog.records)
        with Ledger.open(store_url) as writer, warnings.catch_warnings():
            warnings.simplefilter("error")
            writer.pool("pool").reserve(EXTENSIONS, tokens(1), UNLIMITED)
            read(book)
    assert len(found) == len(caplog.records)


def test_a_meter_tells_that_the_store_went_back(
    budget: LedgerBudgetManager, vandal: Vandal, store_url: str
) -> None:
    """`top` and the metrics read by one."""
    budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    with Ledger.open(store_url, read_only=True) as book:
        meter = Meter(book)
        meter.read()
        put_back(vandal, to=1)
        with pytest.warns(StoreWentBackWarning):
            meter.read()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            meter.read()


def test_who_reads_and_writes_is_told_once(
    budget: LedgerBudgetManager, vandal: Vandal, caplog: pytest.LogCaptureFixture
) -> None:
    """By whichever comes first; and again when the store goes back once more."""
    for times in (1, 2):
        budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        budget.remaining(EXTENSIONS)
        put_back(vandal, to=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            budget.remaining(EXTENSIONS)
            budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
            budget.remaining(EXTENSIONS)
        assert 2 * times == len(
            [one for one in caplog.records if one.name == "ledger.store.restored"]
        )


def test_reads_that_end_in_another_order_are_no_restore(
    book: Ledger, budget: LedgerBudgetManager
) -> None:
    """One that began before the newest entry was seen may well not have found it."""
    began_s = time.monotonic()
    info = budget.status().pool
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        book.saw([(info, 7)], time.monotonic())
        book.saw([(info, 6)], began_s)


def test_a_reader_is_not_given_another_pool_s_figures(
    book: Ledger, vandal: Vandal, store_url: str
) -> None:
    """Its pool is gone, and the number is another's by now."""
    budget = book.pool("gone", OPTIONS)
    budget.release(budget.reserve(EXTENSIONS, tokens(1), UNLIMITED))
    with Ledger.open(store_url, read_only=True) as reader:
        reading = reader.pool("gone")
        reading.remaining(EXTENSIONS)
        vandal.run("DELETE FROM entries", "DELETE FROM pools")
        with Ledger.open(store_url) as other:
            other.pool("other", OPTIONS)
        with pytest.warns(StoreWentBackWarning), pytest.raises(UnknownPoolError):
            reading.remaining(EXTENSIONS)


def test_a_reader_forgets_the_policy_that_is_gone(
    book: Ledger, budget: LedgerBudgetManager, vandal: Vandal, store_url: str
) -> None:
    """Another one was set under its number since."""
    book.adjust("pool", SharedPoolBudgetOptions(capacity_tokens=500))
    budget.release(budget.reserve(EXTENSIONS, tokens(1), UNLIMITED))
    with Ledger.open(store_url, read_only=True) as reader:
        assert 500 == reader.pool("pool").remaining(EXTENSIONS).tokens
        put_back(vandal, to=1)
        with Ledger.open(store_url) as other:
            other.adjust("pool", SharedPoolBudgetOptions(capacity_tokens=70))
        with pytest.warns(StoreWentBackWarning):
            assert 70 == reader.pool("pool").remaining(EXTENSIONS).tokens


def test_where_warnings_are_errors_the_call_is_still_made(
    budget: LedgerBudgetManager, vandal: Vandal
) -> None:
    """A call that records spend must not fail for a warning."""
    budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    put_back(vandal, to=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 2 == budget.reserve(EXTENSIONS, tokens(1), UNLIMITED).id


def test_a_restored_backup_of_a_file(new_store: Callable[..., str], tmp_path: Path) -> None:
    """By SQLite's own backup and restore, under a running program."""
    url = new_store("sqlite")
    file = Path(str(make_url(url).database))
    with Ledger.open(url) as book:
        budget = book.pool("pool", OPTIONS)
        kept = budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)
        copy_database(file, tmp_path / "backup.db")
        mine = budget.reserve(EXTENSIONS, tokens(500), UNLIMITED)
        copy_database(tmp_path / "backup.db", file)
        with Ledger.open(url) as elsewhere:
            others = elsewhere.pool("pool").reserve(EXTENSIONS, tokens(20), UNLIMITED)
        assert mine.id == others.id
        with pytest.warns(StoreWentBackWarning), pytest.raises(LostLeaseError):
            budget.record_used(mine, SPENT)
        budget.record_lost(mine, SPENT)
        budget.record_used(kept, Usage(total_tokens=9))
        budget.record_used(others, Usage(total_tokens=11))
        assert (Totals(500, 3, 3), Totals()) == budget.status().balance
        assert book.verify("pool")[0].ok


def copy_database(source: Path, target: Path) -> None:
    """Copy a database as `.backup` and `.restore` do."""
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_lease_of_another_manager_in_memory_is_lost(
    call: Callable[[Budget, BudgetLease], object],
) -> None:
    """One of the process that was restarted, say; what it spent is booked once."""
    before, now = (SharedPoolBudgetManager(OPTIONS) for _ in range(2))
    mine = before.reserve(EXTENSIONS, tokens(400), RequestBudget.from_tokens(470))
    others = now.reserve(EXTENSIONS, tokens(20), UNLIMITED)
    assert mine.id == others.id == 1
    with pytest.raises(LostLeaseError, match="record_lost"):
        call(now, mine)
    for _ in range(2):
        with pytest.raises(RequestBudgetExceededError):
            now.record_lost(mine, SPENT)
    now.record_lost(mine.token, SPENT)
    with pytest.raises(IdempotencyConflictError):
        now.record_lost(mine, Usage())
    with pytest.raises(InvalidInputError, match="not lost"):
        now.record_lost(others, SPENT)
    assert 500 == now.remaining(EXTENSIONS).tokens
    now.record_used(others, Usage(total_tokens=20))
    assert 500 == now.remaining(EXTENSIONS).tokens
