"""Threads of one process: on one ledger, on two, and on a schema that is not there yet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from ledger import (
    BudgetLease,
    Entry,
    Ledger,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
)
from ledger.store import migrate, schema
from ledger.store.database import Database
from ledger.testing.calls import EXTENSIONS, UNLIMITED

THREADS = 16
TIMEOUT_S = 60.0


def at_once(number: int, work: Callable[[int], object]) -> list[object]:
    """Run `work` in so many threads that start together, and return what each returned."""
    gate = threading.Barrier(number, timeout=60)

    def wait_and_work(thread: int) -> object:
        gate.wait()
        return work(thread)

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(wait_and_work, range(number)))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_forty_threads_upgrade_one_store(kind: str, new_store: Callable[..., str]) -> None:
    """Forty threads upgrade an empty store at once: none fails, and there is one schema."""
    url = new_store(kind, empty=True)

    def upgrade(_thread: int) -> str | None:
        database = Database(url, timeout_s=TIMEOUT_S, create=True)
        try:
            migrate.upgrade(database)
            return migrate.current(database)
        finally:
            database.close()

    assert [schema.REVISION] * 40 == at_once(40, upgrade)
    database = Database(url, timeout_s=TIMEOUT_S, create=False)
    with database.connect() as connection:
        assert [1] == list(connection.execute(text("SELECT count(*) FROM store")).scalars())
    assert [] == migrate.differences(database, [])
    database.close()


def test_many_threads_upgrade_as_many_stores(new_store: Callable[..., str]) -> None:
    """Twenty threads make the schemas of twenty stores at once, though alembic has one context."""
    urls = [new_store("sqlite") for _ in range(20)]
    gate = threading.Barrier(len(urls), timeout=60)

    def make(url: str) -> str | None:
        database = Database(url, timeout_s=TIMEOUT_S, create=True)
        gate.wait()
        try:
            migrate.upgrade(database)
            return migrate.current(database)
        finally:
            database.close()

    with ThreadPoolExecutor(len(urls)) as threads:
        assert [schema.REVISION] * len(urls) == list(threads.map(make, urls))


@pytest.mark.parametrize("ledgers", [1, 2])
def test_managers_in_one_process_share_one_capacity(store_url: str, ledgers: int) -> None:
    """Threads on two managers, of one ledger or of two, are granted the capacity and no more."""
    capacity = 40
    options = SharedPoolBudgetOptions(capacity_tokens=capacity)
    books = [Ledger.open(store_url, timeout_s=TIMEOUT_S) for _ in range(ledgers)]
    budgets = [books[number % ledgers].pool("pool", options) for number in range(2)]

    def work(thread: int) -> int:
        granted = 0
        for _ in range(4):
            try:
                budgets[thread % 2].reserve(EXTENSIONS, UsageEstimate(total_tokens=1), UNLIMITED)
            except ThresholdExceededError:
                continue
            granted += 1
        return granted

    assert capacity == sum(at_once(THREADS, work))
    assert [0, 0] == [budget.remaining(EXTENSIONS).tokens for budget in budgets]
    assert [None] == [found.damage for found in books[0].verify()]
    for each in books:
        each.close()


def test_one_of_many_settlements_counts(book: Ledger) -> None:
    """Sixteen threads settle the same lease at once: one does, the others are told it is over."""
    budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=100))
    lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=10), UNLIMITED)

    def settle(_thread: int) -> bool:
        try:
            budget.record_used(lease, Usage(total_tokens=7))
        except UnknownLeaseError:
            return False
        return True

    assert 1 == sum(at_once(THREADS, settle))
    assert 93 == budget.remaining(EXTENSIONS).tokens


def test_readers_see_whole_states_while_others_write(book: Ledger) -> None:
    """What remains, read while threads write, is always a state some entry left behind."""
    budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=1_000))

    def work(thread: int) -> list[int]:
        if thread % 2:
            return [budget.remaining(EXTENSIONS).tokens for _ in range(10)]
        leases: list[BudgetLease] = [
            budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=3 + thread), UNLIMITED)
            for _ in range(3)
        ]
        for lease in leases:
            budget.record_used(lease, Usage(total_tokens=2))
        return []

    seen = {tokens for found in at_once(8, work) for tokens in found}  # type: ignore[attr-defined]
    entries: list[Entry] = list(book.entries("pool"))
    states = {
        1_000 - entry.balance.committed.tokens - entry.balance.reserved.tokens for entry in entries
    }
    assert set() == seen - states
    assert 1 + 4 * 6 == len(entries)


def test_one_pool_opened_by_many_threads_is_one(store_url: str) -> None:
    """Sixteen threads, each with a ledger of its own, make the same pool once."""

    def open_pool(_thread: int) -> str:
        with Ledger.open(store_url, timeout_s=TIMEOUT_S) as opened:
            return str(opened.pool("pool", SharedPoolBudgetOptions()).identity)

    assert 1 == len(set(at_once(THREADS, open_pool)))
