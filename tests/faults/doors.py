"""Every door of a store, and what is found behind it when rows of one pool are damaged."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest

from ledger import (
    Attribution,
    IdempotencyKey,
    JournalDamagedError,
    LeaseTtl,
    Ledger,
    LedgerError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
    Window,
    exports,
    reports,
)
from ledger.store.database import Database
from ledger.testing.calls import UNLIMITED
from tests.clocks import Clock


def asked(*more: object) -> RequestExtensions:
    """Return extensions that name a run."""
    return RequestExtensions(Attribution(run_id="run", model="m", tags={"x": "y"}), *more)


def fill(book: Ledger, clock: Clock, name: str) -> None:
    """Write entries of every kind into a pool, and into one below it."""
    policy = SharedPoolBudgetOptions(
        capacity_tokens=100, thresholds={"some": 25}, window=Window(period=timedelta(days=1))
    )
    budget = book.pool(name, policy)
    below = book.pool(f"below {name}", policy, parent=name)
    budgets = (budget, below)
    for one in budgets:
        lease = one.reserve(asked(), UsageEstimate(total_tokens=30), UNLIMITED)
        one.observe(lease, Usage(total_tokens=4), report=UsageReport(idempotency_key="part"))
        one.renew(lease, timedelta(hours=1))
        one.record_used(lease, Usage(total_tokens=10), report=UsageReport(detail={"a": 1}))
        one.release(one.reserve(asked(), UsageEstimate(total_tokens=1), UNLIMITED))
        one.reserve(asked(LeaseTtl(timedelta(minutes=1))), UsageEstimate(total_tokens=2), UNLIMITED)
        with pytest.raises(LedgerError):
            one.reserve(asked(IdempotencyKey("no")), UsageEstimate(total_tokens=101), UNLIMITED)
    clock.minutes(5)
    book.expire_due()
    settled = next(
        entry.seq for entry in book.entries(name) if entry.kind == "settlement" and not entry.origin
    )
    budget.correct(settled, Usage(total_tokens=11), "because")
    clock.minutes(24 * 60)
    book.adjust(name, policy, reason="again")
    below.reserve(asked(), UsageEstimate(total_tokens=9), UNLIMITED)
    budget.reserve(asked(LeaseTtl(timedelta(days=9))), UsageEstimate(total_tokens=1), UNLIMITED)


def build(url: str, clock: Clock) -> None:
    """Make a store with a pool that is to be damaged, and two others."""
    with Ledger.open(url, clock=clock, record_denials=True) as book:
        for name in ("first", "hurt", "last"):
            fill(book, clock, name)
        fill(book, clock, "closed")
        book.close_pool("closed")


def whole_store(book: Ledger, lost: list[JournalDamagedError]) -> Iterator[Callable[[], Any]]:
    """Yield every door that answers about all pools."""
    yield lambda: [info.name for info in book.pools(left_out=lost)]
    yield lambda: [one.pool.name for one in reports.standing(book, left_out=lost)]
    yield lambda: book.expire_due(left_out=lost)
    yield lambda: reports.runs(book, left_out=lost)
    yield lambda: reports.run_trees(book, left_out=lost)
    yield lambda: reports.spend(book, by=["hour", "pool", "tag:x"], left_out=lost)
    yield lambda: reports.spend(book, by=[], zone="Asia/Tokyo", left_out=lost)
    yield lambda: reports.estimates(book, by=["pool"], left_out=lost)
    yield lambda: reports.leases(book, left_out=lost)
    yield lambda: list(reports.denials(book, left_out=lost))
    yield lambda: reports.denials_by(book, by=["agent", "reason"], left_out=lost)
    yield lambda: lost.extend(reports.glance(book).left_out)
    yield lambda: lost.extend(reports.overview(book, verify=False).left_out)


def one_pool(book: Ledger, name: str) -> Iterator[Callable[[], object]]:
    """Yield every door that answers about one pool, and every call that writes to it."""
    yield lambda: book.pool(name).status()
    yield lambda: book.pool(name).remaining(RequestExtensions())
    yield lambda: list(book.entries(name))
    yield lambda: list(book.open_leases(name))
    yield lambda: book.replay(name)
    yield lambda: book.entry_with_key(name, "part")
    yield lambda: book.entry_with_key(name, "no")
    yield lambda: list(reports.statement_lines(book, reports.statement(book, name)))
    yield lambda: reports.burn_down(book, name)
    yield lambda: reports.forecast(book, name)
    yield lambda: reports.runs(book, name)
    yield lambda: reports.spend(book, name, by=["day", "model"])
    yield lambda: list(reports.denials(book, name))
    yield lambda: reports.leases(book, name)
    yield lambda: reports.estimates(book, name)
    yield lambda: exports.write(book, name, BytesIO(), format=exports.Format.CSV)
    yield lambda: exports.write(book, name, BytesIO(), format=exports.Format.FOCUS)
    yield lambda: book.expire_due(name)
    for number in (2, 8):
        yield lambda number=number: book.pool(name).correct(  # type: ignore[misc]
            number, Usage(total_tokens=1), "because"
        )
        yield lambda number=number: book.pool(name).lease(f"{number}-{'0' * 16}")  # type: ignore[misc]
    for lease in [one.lease for one in readable(lambda: list(book.open_leases(name))) or []]:
        yield lambda lease=lease: book.pool(name).renew(lease, timedelta(days=1))  # type: ignore[misc]
        yield lambda lease=lease: book.pool(name).observe(lease, Usage(total_tokens=1))  # type: ignore[misc]
        yield lambda lease=lease: book.pool(name).record_used(lease, Usage(total_tokens=1))  # type: ignore[misc]
    yield lambda: book.pool(name).reserve(
        asked(IdempotencyKey("no")), UsageEstimate(total_tokens=101), UNLIMITED
    )
    yield lambda: book.pool(name).reserve(asked(), UsageEstimate(total_tokens=1), UNLIMITED)
    yield lambda: book.adjust(name, SharedPoolBudgetOptions(capacity_tokens=500))
    yield lambda: book.close_pool(name)


def readable(call: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it answers
    """Return what a call answers, None for an error of the library."""
    try:
        return call()
    except LedgerError:
        return None


def trouble(database: Database) -> list[str]:
    """Go through all doors, and return what went wrong."""
    clock = Clock()
    clock.minutes(30 * 24 * 60)
    try:
        book = Ledger(database, clock=clock)
    except LedgerError:
        return []  # the store as a whole is named
    found: list[str] = []
    verified = guarded(found, "verify", book.verify) or []
    ok = {one.pool.name: one.ok for one in verified}
    if not (ok.get("first") and ok.get("last")) or all(ok.values()):
        found.append(f"verify: {ok}")
    lost: list[JournalDamagedError] = []
    for number, call in enumerate(whole_store(book, lost)):
        guarded(found, f"whole {number}", call, refused=())
    if any(error.pool in {"first", "last", "closed"} for error in lost):
        found.append(f"left out: {lost}")
    for name in ("hurt", "below hurt"):
        for number, door in enumerate(one_pool(book, name)):
            guarded(found, f"{name} {number}", door)
    guarded(found, "another pool", lambda: use("first", book), refused=())
    guarded(found, "a new pool", lambda: book.pool("new", SharedPoolBudgetOptions()))
    return found


def use(name: str, book: Ledger) -> None:
    """Ask a pool that is not damaged, and write to it."""
    for door in itertools.islice(one_pool(book, name), 11):
        door()
    budget = book.pool(name)
    lease = budget.reserve(asked(), UsageEstimate(total_tokens=1), UNLIMITED)
    budget.record_used(lease, Usage(total_tokens=1))


def guarded(
    found: list[str],
    door: str,
    call: Callable[[], Any],
    refused: tuple[type[Exception], ...] = (LedgerError,),
) -> Any:  # noqa: ANN401 - whatever it answers
    """Return what a door answers; note an error that it may not raise."""
    try:
        return call()
    except refused:
        return None
    except Exception as error:  # noqa: BLE001 - what is tested
        found.append(f"{door}: {error!r:.200}")
        return None
