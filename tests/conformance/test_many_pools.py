"""A batch over many pools: as many messages as one over a single pool, and the same answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from ledger import (
    Attribution,
    BudgetLease,
    Ledger,
    LedgerBudgetManager,
    RequestExtensions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.store import snapshot
from ledger.testing.calls import UNLIMITED
from tests.clocks import until
from tests.leases import OF_THOUSAND, TEN

if TYPE_CHECKING:
    from tests.conftest import Wiretap

POOLS = 9
COPIED = ["COPY", "CopyDone", "COMMIT"]


def call(run: str) -> RequestExtensions:
    """Return what the calls of a run carry."""
    return RequestExtensions(Attribution(run_id=run, model="model"))


def budgets(book: Ledger) -> list[LedgerBudgetManager]:
    """Return the pools of a store, opened by this process."""
    return [book.pool(f"pool {number}", OF_THOUSAND) for number in range(POOLS)]


def in_one_batch(book: Ledger, calls: Sequence[Callable[[], object]]) -> list[object]:
    """Make calls that share a transaction: their leader begins when all of them wait."""
    writer, leading, gather = book._writer, threading.Event(), book._writer._gather

    def gather_all() -> None:
        leading.set()
        until(lambda: len(writer._queue) == len(calls))

    writer._gather = gather_all  # type: ignore[method-assign]
    before = book._database.transactions
    try:
        with ThreadPoolExecutor(len(calls)) as executor:
            answers = [one.result(20) for one in [executor.submit(one) for one in calls]]
    finally:
        writer._gather = gather  # type: ignore[method-assign]
    assert leading.is_set()
    assert 1 == book._database.transactions - before
    return answers


def reserve(budget: LedgerBudgetManager, run: str) -> Callable[[], object]:
    """Return a call that reserves."""
    return lambda: budget.reserve(call(run), TEN, UNLIMITED)


def settle(budget: LedgerBudgetManager, lease: object) -> Callable[[], object]:
    """Return a call that settles a lease."""
    assert isinstance(lease, BudgetLease)
    return lambda: budget.record_used(lease, Usage(total_tokens=5))


def test_a_batch_over_pools_that_are_new_to_the_process_is_five_messages(
    new_store: Callable[..., str], wiretap: Wiretap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads, then policies and attributions, then the rows: each for all pools at once."""
    # However slow the machine is, no hold is looked for a second time.
    monkeypatch.setattr(snapshot, "_QUIET_US", 60_000_000)
    url = new_store("postgresql")
    with Ledger.open(url) as book, Ledger.open(url) as elsewhere:
        for budget in budgets(elsewhere):
            budget.release(reserve(budget, "known")())  # type: ignore[arg-type]
        mine = budgets(book)
        wiretap.tap(*book._database.dialect._made)
        # New attributions are read, and written ahead of the entries.
        for run, before in (("known", ["SELECT"]), ("new", ["SELECT", "SELECT"]), ("known", [])):
            wiretap.sent()
            leases = in_one_batch(book, [reserve(budget, run) for budget in mine])
            assert ["BEGIN", *before, *COPIED] == wiretap.sent()
            in_one_batch(
                book, [settle(one, lease) for one, lease in zip(mine, leases, strict=True)]
            )
            assert ["BEGIN", *COPIED] == wiretap.sent()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_new_attributions_of_one_batch_get_numbers_of_their_own(
    new_store: Callable[..., str], kind: str
) -> None:
    """Two runs that are new to each of several pools, in one batch, and one that says nothing."""
    with Ledger.open(new_store(kind)) as book:
        mine = budgets(book)[:3]
        runs = ["first", "second", "first"]
        calls = [reserve(budget, run) for run in runs for budget in mine]
        calls += [
            lambda budget=budget: budget.reserve(  # type: ignore[misc]
                RequestExtensions(Attribution()), TEN, UNLIMITED
            )
            for budget in mine
        ]
        assert len(calls) == len(in_one_batch(book, calls))
        for budget in mine:
            found = [entry.attribution for entry in book.entries(budget.name, after=1)]
            assert 2 == sum(one is not None and one.run_id == "first" for one in found)
            assert {"first", "second"} <= {one.run_id for one in found if one is not None}
        assert all(found.ok for found in book.verify())


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_a_transaction_read_ahead_is_not_believed_by_the_next(
    new_store: Callable[..., str], kind: str
) -> None:
    """A denied call stores no attribution. Another process does, and a settlement then names it."""
    url = new_store(kind)
    with Ledger.open(url, timeout_s=3) as book, Ledger.open(url) as elsewhere:
        budget, theirs = (one.pool("pool", OF_THOUSAND) for one in (book, elsewhere))
        lease = budget.reserve(call("run"), TEN, UNLIMITED)
        another = RequestExtensions(Attribution(run_id="run", model="another"))
        with pytest.raises(ThresholdExceededError):
            budget.reserve(another, UsageEstimate(total_tokens=1_001), UNLIMITED)
        theirs.reserve(another, TEN, UNLIMITED)
        budget.record_used(lease, Usage(total_tokens=5), report=UsageReport(model="another"))
        models = [entry.attribution.model for entry in book.entries("pool", after=1)]  # type: ignore[union-attr]
        assert ["model", "another", "another"] == models
        assert all(found.ok for found in book.verify())
