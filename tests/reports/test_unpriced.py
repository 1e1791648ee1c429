"""Every report and export says how many calls left out a figure that their pool limits."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from ledger import (
    Attribution,
    Credit,
    EntryFlag,
    Ledger,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Unpriced,
    Usage,
    UsageEstimate,
    UsageReport,
    exports,
    reconcile,
    reports,
)
from ledger.reconcile.sheets import about
from ledger.reports import Filter, TimeBasis
from ledger.reports.charts import burn_down_pictures
from ledger.reports.page.whole import whole_page
from ledger.reports.render import (
    assumptions,
    credits_sheet,
    estimates_sheet,
    lease_ages_sheet,
    pools_sheet,
    runs_sheet,
    spend_sheet,
    statement_sheet,
)
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import Clock

FREE = Usage(total_tokens=10)
PRICED = Usage(total_tokens=10, cost_micros_usd=10)


@pytest.fixture
def partly(book: Ledger) -> Ledger:
    """Return books with five attempts, of which three have no cost, in two runs."""
    options = SharedPoolBudgetOptions(capacity_cost_micros_usd=1_000, unpriced=Unpriced.FLAG)
    budget = book.pool("pool", options)
    for run, parts in (("a", [FREE, FREE, PRICED]), ("b", [PRICED, FREE])):
        call = RequestExtensions(Attribution(run_id=run, model=f"m{run}"))
        *first, last = parts
        # The reservation is flagged too, and is not counted: it spends nothing.
        lease = budget.reserve(call, UsageEstimate(total_tokens=30), UNLIMITED)
        for part in first:
            budget.observe(lease, part)
        budget.record_used(lease, last)
    return book


def test_runs_and_spend_count_attempts(partly: Ledger) -> None:
    """One is an entry that records usage; rows add up to the total."""
    assert [("a", 2), ("b", 1)] == [(one.run_id, one.unpriced) for one in reports.runs(partly)]
    (tree, _) = reports.run_trees(partly)
    assert 2 == tree.with_subruns.unpriced
    found = reports.spend(partly, by=["model"])
    assert {"ma": 2, "mb": 1} == {row.group["model"]: row.unpriced for row in found.rows}
    assert 3 == found.total.unpriced


def test_a_statement_counts_them_by_kind(partly: Ledger) -> None:
    """Reservations that were let through, parts and settlements, each in its line."""
    found = reports.statement(partly, "pool")
    assert {"opening": 0, "reservation": 2, "observation": 2, "settlement": 1} == {
        one.kind: one.unpriced for one in found.movements
    }
    lines = [line.flags for line in reports.statement_lines(partly, found)]
    assert 5 == sum("unpriced" in flags for flags in lines)


def test_tables_have_a_column_where_there_are_any(partly: Ledger) -> None:
    """And none where there are none, so that nobody reads a column of zeros."""
    tables = [
        runs_sheet(reports.runs(partly)),
        spend_sheet(reports.spend(partly)),
        statement_sheet(reports.statement(partly, "pool")),
    ]
    named = [[one.heading for one in sheet.columns] for sheet in tables]
    # Of a call a statement counts the reservation, too, and says so.
    headings = ["Unpriced", "Unpriced", "Unpriced\nentries"]
    assert [True] * 3 == [one in names for one, names in zip(headings, named, strict=True)]
    partly.pool("other", SharedPoolBudgetOptions(capacity_tokens=10))
    tables = [
        runs_sheet(reports.runs(partly, "other")),
        spend_sheet(reports.spend(partly, "other")),
        statement_sheet(reports.statement(partly, "other")),
    ]
    assert not [
        one.heading for sheet in tables for one in sheet.columns if "Unpriced" in one.heading
    ]


def test_other_reports_count_them_too(partly: Ledger) -> None:
    """Calls of which a part has no cost, records in the window of a forecast, and open leases."""
    partly.pool("pool").reserve(EXTENSIONS, UsageEstimate(total_tokens=30), UNLIMITED)
    found = reports.estimates(partly)
    assert [("ma", "tokens", 1), ("mb", "tokens", 1)] == [
        (one.group["model"], one.axis, one.unpriced) for one in found
    ]
    leases = reports.leases(partly)
    assert 1 == sum(one.unpriced for one in leases.ages)
    forecast = reports.forecast(partly, "pool")
    assert 3 == forecast.unpriced
    assert "3 records of spend then are unpriced" in assumptions(forecast)
    one = assumptions(replace(forecast, unpriced=1))
    assert "1 record of spend then is unpriced, so it may run out sooner" in one
    burnt = reports.burn_down(partly, "pool")
    assert 3 == burnt.unpriced
    assert burn_down_pictures(burnt)["cost_micros_usd"].words.endswith(
        "3 records said nothing of a figure that the pool limits, which is not in it."
    )
    assert 0 == reports.burn_down(partly, "pool", as_of=2).unpriced
    for sheet in (estimates_sheet(found, ["model", "operation"]), lease_ages_sheet(leases)):
        assert "Unpriced" in [one.heading for one in sheet.columns]
    (stale,) = reports.leases(partly, stale_after_s=0).stale
    assert stale.unpriced
    partly.pool("other", SharedPoolBudgetOptions(capacity_tokens=10))
    assert 0 == reports.forecast(partly, "other").unpriced


def test_what_a_correction_completed_is_unpriced_no_more(timed: Ledger, clock: Clock) -> None:
    """In no report; each record of a lease for itself, in pools above too, and as of each entry."""
    options = SharedPoolBudgetOptions(capacity_cost_micros_usd=1_000, unpriced=Unpriced.FLAG)
    timed.pool("above", options)
    below = timed.pool("below", options, parent="above")
    lease = below.reserve(EXTENSIONS, UsageEstimate(total_tokens=30), UNLIMITED)
    below.observe(lease, FREE)
    below.record_used(lease, FREE)
    first, second = (one.seq for one in timed.entries("below") if one.usage is not None)
    then = below.status().seq

    def found(where: str | Filter = "below") -> tuple[int, ...]:
        return (
            reports.unpriced(timed, where).get("below", 0),
            reports.spend(timed, where).total.unpriced,
            sum(one.unpriced for one in reports.runs(timed, where)),
            sum(one.unpriced for one in reports.estimates(timed, where)),
        )

    assert (2, 2, 2, 1) == found()
    assert {"above": 2, "below": 2} == reports.unpriced(timed)
    clock.minutes(60)
    corrected = timed.now()
    below.correct(first, Usage(total_tokens=20), "still without a cost")
    assert (2, 2, 2, 1) == found()
    below.correct(first, PRICED, f'{{"corrects":{second},}}')
    assert (1, 1, 1, 1) == found()
    assert {"above": 1, "below": 1} == reports.unpriced(timed)
    below.correct(second, Usage.zero(), "it was nothing")
    assert (0, 0, 0, 0) == found()
    assert {} == reports.unpriced(timed)
    assert [0, 0] == [reports.forecast(timed, pool).unpriced for pool in ("above", "below")]
    assert [0, 2] == [reports.burn_down(timed, "below", as_of=x).unpriced for x in (None, then)]
    assert (2, 2, 2, 1) == found(Filter(pools=["below"], as_of=then))
    by_then = Filter(pools=["below"], until=corrected, basis=TimeBasis.RECORDED)
    assert (2, 2, 2, 1) == found(by_then)
    assert (0, 0, 0, 0) == found(replace(by_then, basis=TimeBasis.OCCURRED))
    below.correct(first, FREE, "it cost nothing that is known")
    assert (1, 1, 1, 1) == found()


def test_an_assumed_charge_that_was_taken_back_is_unpriced_no_more(
    timed: Ledger, clock: Clock
) -> None:
    """It counts while it is assumed; then only what was recorded late does."""
    options = SharedPoolBudgetOptions(
        capacity_cost_micros_usd=1_000, unpriced=Unpriced.FLAG, lease_ttl=timedelta(minutes=1)
    )
    budget = timed.pool("pool", options)
    lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=30), UNLIMITED)
    clock.minutes(2)
    timed.expire_due("pool")
    assert {"pool": 1} == reports.unpriced(timed)
    budget.record_used(lease, PRICED)
    assert {} == reports.unpriced(timed)
    assert 0 == reports.spend(timed).total.unpriced


def test_lists_of_pools_and_of_credits_count_them(partly: Ledger) -> None:
    """Also those that a pool below passed on; a pool that has none is left out."""
    below = partly.pool("below", SharedPoolBudgetOptions(), parent="pool")
    partly.pool("other", SharedPoolBudgetOptions(capacity_tokens=10))
    below.record_used(below.reserve(EXTENSIONS, UsageEstimate(total_tokens=9), UNLIMITED), FREE)
    assert {"pool": 4, "below": 1} == reports.unpriced(partly)
    assert {"below": 1} == reports.unpriced(partly, "below")
    found = reports.standing(partly)
    shown = pools_sheet(found, reports.unpriced(partly))
    assert "Recorded\nunpriced" == shown.columns[-1].heading
    assert ["4", "1", "0"] == [row[-1] for row in shown.rows if row is not None]
    assert "Recorded\nunpriced" not in [one.heading for one in pools_sheet(found).columns]

    prepaid = SharedPoolBudgetOptions(prepaid=["cost_micros_usd"], unpriced=Unpriced.FLAG)
    paid = partly.pool("paid", prepaid)
    partly.credit("paid", Credit(name="one", cost_micros_usd=5))
    (before,) = reports.credits(partly, "paid")
    paid.record_used(paid.reserve(EXTENSIONS, UsageEstimate(total_tokens=9), UNLIMITED), FREE)
    (after,) = reports.credits(partly, "paid")
    assert (0, 1) == (before.unpriced, after.unpriced)
    assert [False, True] == [
        "Unpriced" in credits_sheet([one]).columns[-1].heading for one in (before, after)
    ]


def test_a_reconciliation_counts_them(partly: Ledger, tmp_path: Path) -> None:
    """The journal has too little of what they used, and the closing line says so."""
    bill, day = tmp_path / "bill.csv", partly.now().date().isoformat()
    bill.write_text(f"at,model,cost_usd\n{day},ma,0.00001\n", encoding="utf-8")
    mapping = reconcile.BillMapping(at="at", model="model", cost="cost_usd")
    found = reconcile.reconcile(partly, reconcile.read_bill(bill, [mapping]))
    assert 3 == found.unpriced
    assert (
        "3 entries of the journal unpriced and not corrected, so that too little is recorded"
        in about(found)
    )
    partly.pool("other", SharedPoolBudgetOptions(capacity_tokens=10))
    other = reconcile.reconcile(
        partly, reconcile.read_bill(bill, [mapping]), reports.Filter(pools=["other"])
    )
    assert 0 == other.unpriced
    assert "unpriced" not in about(other)


def test_a_reconciliation_leaves_out_what_was_corrected_since(book: Ledger, tmp_path: Path) -> None:
    """A bill that was applied says what the call cost; one of tokens alone does not."""
    options = SharedPoolBudgetOptions(capacity_cost_micros_usd=1_000, unpriced=Unpriced.FLAG)
    budget = book.pool("pool", options)
    for name in ("r-1", "r-2"):
        lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=30), UNLIMITED)
        budget.record_used(lease, FREE, report=UsageReport(request_id=name))
    bill, day = tmp_path / "bill.csv", book.now().date().isoformat()
    lines = [f"{day},r-1,12,0.00001", f"{day},r-2,10,0.00003"]
    bill.write_text("\n".join(["at,id,tokens,usd", *lines, ""]), encoding="utf-8")
    mapping = reconcile.BillMapping(at="at", request_id="id", total_tokens="tokens", cost="usd")

    def held_against(axis: str) -> reconcile.Reconciliation:
        return reconcile.reconcile(book, reconcile.read_bill(bill, [mapping]), axes=[axis])

    reconcile.apply(book, held_against("total_tokens"))
    assert 2 == held_against("cost_micros_usd").unpriced
    reconcile.apply(book, held_against("cost_micros_usd"))
    found = held_against("cost_micros_usd")
    assert (True, 0) == (found.agrees, found.unpriced)
    assert "unpriced" not in about(found)
    assert {} == reports.unpriced(book)
    # Once the cost is taken away again, it is missing again.
    (entry,) = found.correctable["r-2"]
    book.pool("pool").correct(entry.seq, FREE, reason="test")
    assert 1 == held_against("cost_micros_usd").unpriced


def test_a_reconciliation_counts_what_is_compared(partly: Ledger, tmp_path: Path) -> None:
    """A missing cost leaves the tokens as they are."""
    bill, day = tmp_path / "bill.csv", partly.now().date().isoformat()
    bill.write_text(f"at,tokens,usd\n{day},5,0.00001\n", encoding="utf-8")
    mapping = reconcile.BillMapping(at="at", total_tokens="tokens", cost="usd")
    read = reconcile.read_bill(bill, [mapping])
    found = {axis: reconcile.reconcile(partly, read, axes=[axis]).unpriced for axis in read.axes}
    assert {"total_tokens": 0, "cost_micros_usd": 3} == found


def test_a_page_warns_of_them(partly: Ledger) -> None:
    """What was spent is too low by what they cost."""
    (spent, *_) = whole_page(reports.overview(partly, verify=False)).tiles
    assert spent.bad
    assert spent.note.endswith("3 unpriced")


@pytest.mark.parametrize("format", ["csv", "jsonl", "focus", "beancount", "hledger"])
def test_exports_count_them(partly: Ledger, tmp_path: Path, format: str) -> None:  # noqa: A002 - as in `write`
    """An export of entries has the reservations too, one of charges only what was used."""
    path = tmp_path / "out.csv"
    found = exports.write(partly, "pool", path, format=exports.Format(format))
    assert (5 if format in {"csv", "jsonl"} else 3) == found.unpriced
    written = path.read_text()
    if format in {"beancount", "hledger"}:
        flags = [line for line in written.splitlines() if " flags: " in line]
    elif format == "jsonl":
        flags = [json.loads(line)["flags"] for line in written.splitlines()]
    else:
        name = "x_EntryFlags" if format == "focus" else "flags"
        flags = [row[name] for row in csv.DictReader(io.StringIO(written))]
    assert found.unpriced == sum("unpriced" in (one or "") for one in flags)


def test_what_expiry_assumed_is_counted_too(store_url: str) -> None:
    """A call that was let through without a cost, and whose outcome was never recorded."""
    clock = Clock()
    with Ledger.open(store_url, clock=clock) as book:
        options = SharedPoolBudgetOptions(
            capacity_cost_micros_usd=1_000, unpriced=Unpriced.FLAG, lease_ttl=timedelta(minutes=1)
        )
        budget = book.pool("pool", options)
        budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=30), UNLIMITED)
        clock.minutes(2)
        book.expire_due("pool")
        newest = list(book.entries("pool"))[-1]
        assert EntryFlag.UNPRICED in newest.flags
        (run,) = reports.runs(book, "pool")
        assert (30, 1, 0) == (run.total_tokens, run.unpriced, run.attempts)
        rows = book.read(
            lambda connection: connection.execute(text("SELECT unpriced FROM spend_by_day")).all()
        )
        assert [(1,)] == [tuple(row) for row in rows]
        assert [None] == [one.damage for one in book.verify("pool")]
