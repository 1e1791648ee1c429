"""A file may have calls again whose programs died: they are charged what was assumed of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from ledger import (
    Attribution,
    BudgetLease,
    EntryKind,
    Ledger,
    LedgerBudgetManager,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    Totals,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.importing import Calls, Imported, import_calls
from ledger.importing.sheets import about
from ledger.prices import PriceList, exact_cost
from ledger.reconcile import READY, read_bill
from ledger.testing.calls import UNLIMITED
from tests.clocks import Clock

BILL = """request_id,at,model,input_tokens,output_tokens,cost_usd
chatcmpl-1,2023-11-14T22:13:30Z,m,20,10,0.000005
chatcmpl-2,2023-11-14T22:13:40Z,m,20,10,0.000005
"""
TTL = timedelta(minutes=1)


@pytest.fixture
def timed(store_url: str) -> Iterator[tuple[Ledger, Clock]]:
    """Return a ledger whose clock is set, with the pool `team`."""
    clock = Clock()
    with Ledger.open(store_url, clock=clock) as book:
        book.pool("team", SharedPoolBudgetOptions(lease_ttl=TTL))
        yield book, clock
        assert all(one.ok for one in book.verify())


def called(budget: LedgerBudgetManager, request_id: str | None) -> BudgetLease:
    """Reserve for a call, and return its lease."""
    estimate = UsageEstimate(total_tokens=40, cost_micros_usd=9)
    asked = RequestExtensions(Attribution(model="m", request_id=request_id))
    return budget.reserve(asked, estimate, UNLIMITED)


def imported(book: Ledger, folder: Path, *, dry_run: bool = False) -> Imported:
    """Import a bill into the pool `history`."""
    book.pool("history", SharedPoolBudgetOptions())
    path = folder / "bill.csv"
    path.write_text(BILL, encoding="utf-8")
    calls = Calls(bill=read_bill(path, READY["generic"]))
    return import_calls(book, "history", calls, dry_run=dry_run)


def test_a_call_that_expired_is_named(timed: tuple[Ledger, Clock], tmp_path: Path) -> None:
    """Its provider's bill has it under another id: it would be charged twice.

    Once its lease is settled under that id the bill's line is left out, and nothing is said.
    """
    book, clock = timed
    team = book.pool("team")
    lease = called(team, "call-6a4f.1")
    assert {} == imported(book, tmp_path, dry_run=True).assumed  # it may still be recorded
    clock.minutes(2)
    # Right after a crash the lease is due, and no entry says so.
    assert {"team": 1} == imported(book, tmp_path, dry_run=True).assumed
    assert 1 == book.expire_due()
    found = imported(book, tmp_path, dry_run=True)
    assert {"team": 1} == found.assumed
    assert "1 call of this time charged what was assumed, or due to be, since" in about(found)
    assert "(pool team (1))" in about(found)
    team.record_used(
        lease,
        Usage(input_tokens=20, output_tokens=10, total_tokens=30, cost_micros_usd=5),
        report=UsageReport(request_id="chatcmpl-1"),
    )
    found = imported(book, tmp_path)
    assert ({}, 1, 1) == (found.assumed, found.recorded, found.new)
    assert "assumed" not in about(found)


WAYS: dict[str, tuple[Callable[[LedgerBudgetManager, BudgetLease], object], int]] = {
    "abandoned": (lambda budget, lease: budget.abandon(lease), 1),
    "released": (lambda budget, lease: budget.release(lease), 0),
    "recorded": (lambda budget, lease: budget.record_used(lease, Usage(total_tokens=3)), 0),
    "observed": (lambda budget, lease: budget.observe(lease, Usage(total_tokens=3)), 0),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_nobody_reported_is_counted(
    timed: tuple[Ledger, Clock], tmp_path: Path, way: str
) -> None:
    """A block that ended without a record is charged by assumption, too; others are not."""
    book, _ = timed
    team = book.pool("team")
    do, expected = WAYS[way]
    do(team, called(team, "call-6a4f.1"))
    assert expected == sum(imported(book, tmp_path).assumed.values())


def test_what_is_no_second_charge_is_not_counted(
    timed: tuple[Ledger, Clock], tmp_path: Path
) -> None:
    """Other times, ids that the file names, leases that are charged nothing, and corrected ones."""
    book, clock = timed
    free = book.pool(
        "free", SharedPoolBudgetOptions(lease_ttl=TTL, settlement=SettlementPolicy.RELEASE)
    )
    team = book.pool("team")
    for budget, request_id in ((free, None), (team, "chatcmpl-1"), (team, "call-1.1")):
        called(budget, request_id)
    clock.minutes(2)
    called(team, "later")
    clock.minutes(2)
    book.expire_due()
    found = imported(book, tmp_path)
    assert {"team": 1} == found.assumed
    assert (1, 1) == (found.recorded, found.settled)  # the line that the expired lease is of
    expiries = book.entries("team", kind=EntryKind.EXPIRY)
    (expiry,) = (one.seq for one in expiries if one.request_id == "call-1.1")
    team.correct(expiry, Usage(), "billed as chatcmpl-2")
    assert {} == imported(book, tmp_path).assumed


@pytest.mark.parametrize("settlement", SettlementPolicy)
def test_a_due_lease_is_counted_as_its_expiry_will_be(
    timed: tuple[Ledger, Clock], tmp_path: Path, settlement: SettlementPolicy
) -> None:
    """Where it is to be charged its estimate, and not with the file's id, or in another time."""
    book, clock = timed
    options = SharedPoolBudgetOptions(lease_ttl=TTL, settlement=settlement)
    budget = book.pool("due", options, parent="team")  # which repeats its entries
    partly = called(budget, "call-1.1")
    budget.observe(partly, Usage(total_tokens=1))
    whole = called(budget, "call-1.2")
    budget.observe(whole, Usage(total_tokens=50, cost_micros_usd=9))
    called(budget, "chatcmpl-1")
    clock.minutes(2)
    called(book.pool("later", SharedPoolBudgetOptions(lease_ttl=TTL)), "call-2.1")
    clock.minutes(2)
    due = imported(book, tmp_path, dry_run=True).assumed
    assert ({"due": 1} if settlement is SettlementPolicy.ESTIMATED else {}) == due
    book.expire_due()
    assert due == imported(book, tmp_path, dry_run=True).assumed


def test_what_was_corrected_to_real_figures_is_not_counted(
    timed: tuple[Ledger, Clock], tmp_path: Path
) -> None:
    """A correction of what was assumed says what the bill says; one of what was observed does not.

    Nor does an observation that comes late: the rest of the estimate is still assumed.
    """
    book, clock = timed
    team = book.pool("team")
    real = Usage(input_tokens=20, output_tokens=10, total_tokens=30, cost_micros_usd=5)
    late, corrected, abandoned = (called(team, f"call-1.{one}") for one in range(3))
    team.observe(abandoned, Usage(total_tokens=3))
    team.abandon(abandoned)
    clock.minutes(2)
    book.expire_due()
    team.observe(late, Usage(total_tokens=3))
    (observation, _) = book.entries("team", kind=EntryKind.OBSERVATION)
    team.correct(observation, Usage(total_tokens=4), "invoice")
    assert {"team": 3} == imported(book, tmp_path).assumed
    (settlement,) = book.entries("team", kind=EntryKind.SETTLEMENT)
    team.correct(settlement, Usage(total_tokens=30), "invoice")
    assert {"team": 2} == imported(book, tmp_path).assumed
    (expiry,) = (
        one
        for one in book.entries("team", kind=EntryKind.EXPIRY)
        if one.lease is not None and one.lease.lease == corrected.id
    )
    team.correct(expiry, real, "invoice")
    assert {"team": 1} == imported(book, tmp_path).assumed


@pytest.mark.parametrize("settlement", SettlementPolicy)
def test_a_line_with_the_id_of_an_expired_lease_settles_it(
    timed: tuple[Ledger, Clock], tmp_path: Path, settlement: SettlementPolicy
) -> None:
    """Whatever was assumed of it, and once; the line is not charged beside it."""
    book, clock = timed
    budget = book.pool("due", SharedPoolBudgetOptions(lease_ttl=TTL, settlement=settlement))
    called(budget, "chatcmpl-1")
    clock.minutes(2)
    book.expire_due()
    looked = imported(book, tmp_path, dry_run=True)
    assert (1, 1, 1) == (looked.settled, looked.recorded, looked.new)
    assert "1 of these to be settled: their leases had expired" in about(looked)
    assert 3 == budget.status().seq
    found = imported(book, tmp_path)
    assert (1, 1, 1) == (found.settled, found.recorded, found.new)
    assert "1 of these settled" in about(found)
    assert Totals(30, 5, 1) == budget.status().balance.committed
    (settled,) = book.entries("due", kind=EntryKind.SETTLEMENT)
    why = f"imported: bill.csv, SHA-256 {found.sha256}"
    assert {"report": {"reason": why}} == settled.detail
    found = imported(book, tmp_path)
    assert (0, 1, 0) == (found.settled, found.recorded, found.new)
    assert Totals(30, 5, 1) == budget.status().balance.committed


def ends(budget: LedgerBudgetManager, lease: BudgetLease) -> None:
    """Settle a call under the id of another."""
    del lease
    report = UsageReport(request_id="chatcmpl-1")
    budget.record_used(called(budget, None), Usage(total_tokens=1), report=report)


NOT_KNOWN: dict[str, Callable[[LedgerBudgetManager, BudgetLease], object]] = {
    "a part of it is recorded": WAYS["observed"][0],
    "the id is of two calls": ends,
    "the id is of two leases": lambda budget, _lease: called(budget, "chatcmpl-1"),
}


@pytest.mark.parametrize("what", NOT_KNOWN)
def test_a_lease_of_which_more_is_known_is_not_settled(
    timed: tuple[Ledger, Clock], tmp_path: Path, what: str
) -> None:
    """Nor one that is not expired, or whose charge was corrected."""
    book, clock = timed
    team = book.pool("team")
    NOT_KNOWN[what](team, called(team, "chatcmpl-1"))
    assert 0 == imported(book, tmp_path, dry_run=True).settled
    clock.minutes(2)
    book.expire_due()
    before = team.status().balance.committed
    assert 0 == imported(book, tmp_path).settled
    assert before == team.status().balance.committed


@pytest.mark.parametrize("actor", ["ann", None])
def test_a_settled_line_says_by_whom_and_what_it_cost_exactly(
    store_url: str, tmp_path: Path, actor: str | None
) -> None:
    """As an imported one does; the actor is that of the call, or else that of the store."""
    clock = Clock()
    with Ledger.open(store_url, clock=clock, actor="bob") as book:
        team = book.pool("team", SharedPoolBudgetOptions(lease_ttl=TTL))
        called(team, "chatcmpl-1")
        clock.minutes(2)
        book.expire_due()
        book.pool("history", SharedPoolBudgetOptions())
        path = tmp_path / "bill.csv"
        path.write_text(BILL.replace("0.000005", "0.0000043"), encoding="utf-8")
        calls = Calls(bill=read_bill(path, READY["generic"]))
        found = import_calls(book, "history", calls, actor=actor)
        (settled,) = book.entries("team", kind=EntryKind.SETTLEMENT)
        why = f"imported: bill.csv, SHA-256 {found.sha256}, by {actor or 'bob'}"
        assert {"report": {"reason": why, "cost_usd": "0.0000043"}} == settled.detail
        assert Decimal("0.0000043") == exact_cost(settled)
        assert all(one.ok for one in book.verify())


LEFT_OUT = {
    "no cost": "request_id,at,total_tokens\nchatcmpl-1,2023-11-14T22:13:30Z,30\n",
    "no cost on the line": "request_id,at,total_tokens,cost_usd\n"
    "chatcmpl-1,2023-11-14T22:13:30Z,30,\n",
    "no price": "request_id,at,model,input_tokens,output_tokens\n"
    "chatcmpl-1,2023-11-14T22:13:30Z,none-such,20,10\n",
    "no tokens": "request_id,at,cost_usd\nchatcmpl-1,2023-11-14T22:13:30Z,0.000005\n",
}


@pytest.mark.parametrize("what", LEFT_OUT)
@pytest.mark.parametrize("limited", ["capacity_tokens", "capacity_cost_micros_usd"])
def test_what_the_line_leaves_out_stays_assumed(
    timed: tuple[Ledger, Clock], tmp_path: Path, what: str, limited: str
) -> None:
    """Whatever the pool limits; a file that says all of what was assumed settles the call later."""
    book, clock = timed
    options = SharedPoolBudgetOptions(lease_ttl=TTL, **{limited: 100})
    budget = book.pool("limited", options)
    called(budget, "chatcmpl-1")
    clock.minutes(2)
    book.expire_due()
    book.pool("history", SharedPoolBudgetOptions())
    path = tmp_path / "log.csv"
    path.write_text(LEFT_OUT[what], encoding="utf-8")
    prices = PriceList() if what == "no price" else None
    calls = Calls(bill=read_bill(path, READY["generic"]), prices=prices)
    for dry_run in (True, False):
        found = import_calls(book, "history", calls, dry_run=dry_run)
        assert (0, 1) == (found.settled, found.recorded)
    assert Totals(40, 9, 1) == budget.status().balance.committed
    assert 1 == imported(book, tmp_path).settled
    assert Totals(30, 5, 1) == budget.status().balance.committed


@pytest.mark.parametrize("settlement", [SettlementPolicy.RELEASE, SettlementPolicy.OBSERVED])
def test_what_the_pool_limits_is_awaited(
    timed: tuple[Ledger, Clock], tmp_path: Path, settlement: SettlementPolicy
) -> None:
    """Where nothing was assumed, a line without it does not stand for the whole call."""
    book, clock = timed
    options = SharedPoolBudgetOptions(
        lease_ttl=TTL, capacity_cost_micros_usd=100, settlement=settlement
    )
    budget = book.pool("limited", options)
    called(budget, "chatcmpl-1")
    clock.minutes(2)
    book.expire_due()
    book.pool("history", SharedPoolBudgetOptions())
    path = tmp_path / "log.csv"
    path.write_text(LEFT_OUT["no cost"], encoding="utf-8")
    calls = Calls(bill=read_bill(path, READY["generic"]))
    assert 0 == import_calls(book, "history", calls).settled
    assert 1 == imported(book, tmp_path).settled


def test_a_charge_that_was_corrected_stays(timed: tuple[Ledger, Clock], tmp_path: Path) -> None:
    """Somebody has said what the call used."""
    book, clock = timed
    team = book.pool("team")
    called(team, "chatcmpl-1")
    clock.minutes(2)
    book.expire_due()
    team.correct(3, Usage(total_tokens=7), "invoice")
    assert (0, 1) == ((found := imported(book, tmp_path)).settled, found.recorded)
    assert 7 == team.status().balance.committed.tokens
