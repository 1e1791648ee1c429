"""Calls of a file that says no cost are charged by a price list, once, and at their own time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest

from ledger import (
    BillingFileError,
    EntryFlag,
    EntryKind,
    InvalidInputError,
    Ledger,
    SharedPoolBudgetOptions,
    reports,
)
from ledger.importing import Calls, Changed, Imported, import_calls
from ledger.importing.books import correction_key, reason_of
from ledger.importing.sheets import about
from ledger.prices import PriceList, exact_cost
from ledger.reconcile import BillMapping, read_bill

from .test_importing import NAMED, counts

UNPRICED = replace(NAMED, cost=None, cache_read_tokens="cached")
HEAD = "id,at,model,in,out,cached\n"
OWN = {
    "version": "May",
    "price": [
        {"model": "m", "input": "2", "output": "10", "cache_read": "0.5"},
        {"model": "m", "since": "2024-02-02", "input": "1", "output": "5", "cache_read": "0.25"},
        {"model": "odd", "input": "0.15", "output": "0"},
    ],
}
PRICES = PriceList(OWN, library=False)
Bring = Callable[..., Imported]


@pytest.fixture
def bring(book: Ledger, write: Callable[..., Any]) -> Bring:
    """Return a function that imports a file's content into a pool that limits cost."""
    book.pool("paid", SharedPoolBudgetOptions(capacity_cost_micros_usd=10**9))

    def make(
        content: str,
        mapping: BillMapping = UNPRICED,
        prices: PriceList | None = PRICES,
        *,
        changed: Changed = Changed.REFUSE,
        dry_run: bool = False,
    ) -> Imported:
        bill = read_bill(write(content, "log.csv"), [mapping], attributed=True)
        calls = Calls(bill=bill, prices=prices)
        return import_calls(book, "paid", calls, changed=changed, dry_run=dry_run)

    return make


def charged(book: Ledger) -> list[int]:
    """Return what each import is charged, after corrections."""
    budget = book.pool("paid")
    found = book.entries("paid", kind=EntryKind.IMPORT)
    return [budget.usage_of(one.seq).cost_micros_usd for one in found]


def test_a_call_is_charged_what_the_list_says_of_its_time(book: Ledger, bring: Bring) -> None:
    """By kind; the proof has the cost, and the entry says by which list."""
    found = bring(
        HEAD + "q1,2024-02-01T10:00:00Z,m,100,10,60\nq2,2024-02-02T10:00:00Z,m,100,10,60\n"
    )
    assert found.agrees
    # 40 at 2 a million, 60 at 0.5, 10 at 10; then half
    assert [210, 105] == charged(book)
    assert ("cost_micros_usd", 315) == (found.axes[-1], found.told.cost_micros_usd)
    assert ({}, 0) == (found.without_price, found.unpriced)
    (entry, _) = book.entries("paid", kind=EntryKind.IMPORT)
    assert f"imported: log.csv, SHA-256 {found.sha256}, priced by own May" == entry.detail["reason"]
    assert all(one.ok for one in book.verify())


def test_a_cost_that_the_file_says_holds(book: Ledger, bring: Bring) -> None:
    """A line without one, or with 0, is priced."""
    lines = "".join(
        f"q{number},2024-02-01T10:00:00Z,m,1000,0,{usd}\n"
        for number, usd in enumerate(("0.5", "", "0"))
    )
    assert bring("id,at,model,in,out,usd\n" + lines, NAMED).agrees
    assert [500_000, 2_000, 2_000] == charged(book)


def test_what_has_no_price_is_named_and_flagged(book: Ledger, bring: Bring) -> None:
    """It is imported all the same, as by `record`: once it has a price, the file charges it."""
    at = "2024-02-01T10:00:00Z"
    lines = f"q1,{at},m,100,0,0\nq2,{at},new,100,0,0\nq3,{at},new,1,0,0\nq4,{at},,1,0,0\n"
    found = bring(HEAD + lines)
    assert [200, 0, 0, 0] == charged(book)
    assert {"new": 2, "no model is named": 1} == found.without_price
    assert (4, 3, True) == (found.new, found.unpriced, found.agrees)
    assert "no price for new (2), no model is named (1): add it" in about(found)
    flags = [one.flags for one in book.entries("paid", kind=EntryKind.IMPORT)]
    assert [False, True, True, True] == [EntryFlag.UNPRICED in one for one in flags]
    more = PriceList({"price": [*OWN["price"], {"model": "new", "input": "3"}]}, library=False)
    assert "3 calls unpriced: the file says nothing of what the pool limits, and own May has " in (
        about(found)
    )
    assert "--prices" not in about(found)
    again = bring(HEAD + lines, prices=more)
    assert (0, 2, 2, 0, 0) == counts(again)
    assert "2 imported before without a price, and charged now what own " in about(again)
    assert "something else now" not in about(again)
    assert {"paid": 1} == reports.unpriced(book)
    assert 1 == reports.forecast(book, "paid", window=timedelta(days=36_500)).unpriced
    assert [200, 300, 3, 0] == charged(book)
    assert again.agrees


def test_an_import_without_prices_is_charged_by_a_second_one(book: Ledger, bring: Bring) -> None:
    """Of lines without a request id only if changes are to be corrected."""
    line = "q1,2024-02-01T10:00:00Z,m,100,0,0\n"
    assert 1 == bring(HEAD + line, prices=None).unpriced
    assert [0] == charged(book)
    assert (0, 0, 1, 0, 0) == counts(bring(HEAD + line, dry_run=True))
    assert (0, 0, 1, 0, 0) == counts(bring(HEAD + line))
    assert [200] == charged(book)
    daily = replace(UNPRICED, request_id=None)
    bring(HEAD + line, daily, prices=None)
    with pytest.raises(BillingFileError, match="--changed correct"):
        bring(HEAD + line, daily)
    assert (0, 0, 1, 0, 0) == counts(bring(HEAD + line, daily, changed=Changed.CORRECT))
    assert [200, 200] == charged(book)


def test_prices_of_today_change_nothing_that_is_written(book: Ledger, bring: Bring) -> None:
    """The same file under another list is known; what has grown since is priced anew."""
    first, second = "q1,2024-02-01T10:00:00Z,m,100,{},0\n", "q2,2024-02-01T10:00:00Z,m,100,0,0\n"
    bring(HEAD + first.format(0) + second)
    dearer = PriceList({"price": [{"model": "m", "input": "20", "output": "100"}]}, library=False)
    again = bring(HEAD + first.format(0) + second, prices=dearer)
    assert (0, 2, 0, 0, 0) == counts(again)
    assert (again.agrees, again.told.cost_micros_usd) == (True, 400)
    grown = bring(HEAD + first.format(1) + second, prices=dearer)
    assert (0, 1, 1, 0, 0) == counts(grown)
    assert grown.agrees
    assert [2_100, 200] == charged(book)


def test_a_line_without_a_cost_takes_none_back(book: Ledger, bring: Bring) -> None:
    """Without the list, or by one that knows the model no more: if it was priced at first or later.

    Also where other lines of the file do say a cost, 0, or nothing at all.
    """
    at = "2024-02-01T10:00:00Z"
    head = "id,at,model,in,out,usd\n"
    first, later = f"q1,{at},m,100,0,\nq2,{at},m,200,0,0\n", f"q3,{at},m,300,0,0\n"
    bring(head + first, NAMED)
    bring(head + later, NAMED, prices=None)
    bring(head + later, NAMED)
    others = PriceList({"price": [{"model": "other", "input": "20"}]}, library=False)
    dearer = PriceList({"price": [{"model": "m", "input": "20"}]}, library=False)
    said = f"q4,{at},m,100,0,0.5\n"
    for number, prices in enumerate((None, others, dearer, None, PRICES)):
        for is_dry in (True, False):
            found = bring(head + first + later + said, NAMED, prices, dry_run=is_dry)
            known = 3 if number == 0 else 4
            assert (4 - known, known, 0, 0, 0) == counts(found)
            assert (found.agrees, found.unpriced, found.without_price) == (True, 0, {})
            assert 501_200 == found.told.cost_micros_usd == found.journal.cost_micros_usd
    assert sorted(charged(book)) == [200, 400, 600, 500_000]
    grown = bring(head + later.replace("300", "400"), NAMED, prices=None)
    assert ((0, 0, 1, 0, 0), 1) == (counts(grown), grown.unpriced)
    assert sorted(charged(book)) == [0, 200, 400, 500_000]


def test_a_price_that_was_taken_back_is_charged_again(book: Ledger, bring: Bring) -> None:
    """By the list: an import without it took prices back, before it was kept from that."""
    line = "q1,2024-02-01T10:00:00Z,m,100,0,0\n"
    bring(HEAD + line)
    (entry,) = book.entries("paid", kind=EntryKind.IMPORT)
    zero = replace(book.pool("paid").usage_of(entry.seq), cost_micros_usd=0)
    key = correction_key(entry.idempotency_key or "", "0")
    book.pool("paid").correct(entry.seq, zero, reason_of("log.csv", "0", None), idempotency_key=key)
    for is_dry in (True, False):
        found = bring(HEAD + line, dry_run=is_dry)
        assert ((0, 0, 1, 0, 0), 1, True) == (counts(found), found.priced, found.agrees)
    assert [200] == charged(book)
    assert (0, 1, 0, 0, 0) == counts(bring(HEAD + line))


def test_a_cost_from_a_bill_comes_before_a_list_s(book: Ledger, bring: Bring) -> None:
    """A call that was imported without a price, and corrected by hand, keeps that cost."""
    line = "q1,2024-02-01T10:00:00Z,m,100,0,0\n"
    bring(HEAD + line, prices=None)
    (entry,) = book.entries("paid", kind=EntryKind.IMPORT)
    paid = book.pool("paid")
    paid.correct(entry.seq, replace(paid.usage_of(entry.seq), cost_micros_usd=150), "the bill")
    found = bring(HEAD + line)
    assert ((0, 1, 0, 0, 0), [150], True) == (counts(found), charged(book), found.agrees)


def test_a_file_s_own_cost_may_become_nothing(book: Ledger, bring: Bring) -> None:
    """Where no price list had a part in it, a later 0 is what the file says."""
    line = "q1,2024-02-01T10:00:00Z,m,100,0,{}\n"
    head = "id,at,model,in,out,usd\n"
    bring(head + line.format("0.5"), NAMED, prices=None)
    assert (0, 0, 1, 0, 0) == counts(bring(head + line.format("0"), NAMED, prices=None))
    assert [0] == charged(book)


def test_what_was_corrected_by_hand_stays(book: Ledger, bring: Bring) -> None:
    """A bill knows better than a list."""
    line = "q1,2024-02-01T10:00:00Z,m,100,0,0\n"
    bring(HEAD + line)
    (entry,) = book.entries("paid", kind=EntryKind.IMPORT)
    paid = book.pool("paid")
    paid.correct(entry.seq, replace(paid.usage_of(entry.seq), cost_micros_usd=150), "the bill")
    found = bring(HEAD + line)
    assert (0, 0, 0, 1, 0) == counts(found)
    assert ([150], 50) == (charged(book), found.difference.cost_micros_usd)


def test_a_total_that_is_more_than_its_parts_has_no_price(book: Ledger, bring: Bring) -> None:
    """Nothing of it is charged, rather than a part."""
    totals = BillMapping(request_id="id", at="at", model="model", total_tokens="all")
    found = bring("id,at,model,all\nq1,2024-02-01T10:00:00Z,m,100\n", totals)
    assert {"m": 1} == found.without_price
    assert [0] == charged(book)


def test_a_part_that_is_more_than_the_whole_has_no_price(book: Ledger, bring: Bring) -> None:
    """Of such figures no price can be right; they are imported, as they are without prices."""
    at = "2024-02-01T10:00:00Z"
    found = bring(HEAD + f"q1,{at},m,100,0,0\nq2,{at},m,100,0,101\n")
    assert {"m": 1} == found.without_price
    assert [200, 0] == charged(book)


def test_exact_costs_are_kept(store_url: str, write: Callable[..., Any]) -> None:
    """A price may come to parts of a micro-USD: each call is rounded up, and the sum is said."""
    lines = "".join(f"q{one},2024-02-01T10:00:00Z,odd,1,0,0\n" for one in range(20))
    bill = read_bill(write(HEAD + lines), [UNPRICED], attributed=True)
    with Ledger.open(store_url, exact_costs=True) as book:
        book.pool("team", SharedPoolBudgetOptions())
        found = import_calls(book, "team", Calls(bill=bill, prices=PRICES))
        assert (20, Fraction(17)) == (found.told.cost_micros_usd, found.rounded_up_micros_usd)
        kept = [exact_cost(one) for one in book.entries("team", kind=EntryKind.IMPORT)]
        assert Fraction(3, 10**6) == sum(Fraction(one or 0) for one in kept)


def test_prices_are_a_price_list(write: Callable[..., Any]) -> None:
    """Nothing else."""
    bill = read_bill(write(HEAD + "q1,2024-02-01,m,1,1,0\n"), [UNPRICED], attributed=True)
    with pytest.raises(InvalidInputError, match="prices"):
        Calls(bill=bill, prices="prices.toml")  # type: ignore[arg-type]
