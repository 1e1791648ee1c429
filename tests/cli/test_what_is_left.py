"""What is owed, what was assumed, and what is left of closed pools: shown where people look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest

from ledger import (
    Credit,
    Ledger,
    Provenance,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
    reports,
)
from ledger.reports.meter import Meter
from ledger.telemetry.pools import METRICS
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import Clock
from tests.fixtures import Run

COST = Usage(cost_micros_usd=1_500_000)


@pytest.fixture
def book(store_url: str, clock: Clock) -> Iterator[Ledger]:
    """Return open books."""
    with Ledger.open(store_url, clock=clock) as opened:
        yield opened


def test_lists_show_what_is_owed(ledger: Run, book: Ledger) -> None:
    """A prepaid pool spent 1.50 of 1.00: it is not the same as one that spent all it had."""
    budget = book.pool("team", SharedPoolBudgetOptions(prepaid=["cost_micros_usd"]))
    book.credit("team", Credit(name="july", cost_micros_usd=1_000_000))
    words = (["pool", "list"], ["top", "--once"], ["report", "credits"])
    for each in words:
        assert "Owed" not in ledger(*each, "--url", book.url).out
    budget.record_used(budget.reserve(EXTENSIONS, UsageEstimate(), UNLIMITED), COST)
    for each in words:
        shown = ledger(*each, "--url", book.url).out
        assert "Owed" in shown
        assert "0.500000" in shown
    (found,) = reports.credits(book)
    assert 500_000 == found.owed.cost_micros_usd


def test_a_statement_remarks_what_is_a_guess(ledger: Run, book: Ledger) -> None:
    """And not what a provider reported."""
    budget = book.pool("team", SharedPoolBudgetOptions())
    for provenance in (Provenance.ESTIMATED, Provenance.REPORTED):
        lease = budget.reserve(EXTENSIONS, UsageEstimate(), UNLIMITED)
        budget.record_used(lease, COST, report=UsageReport(provenance=provenance))
    shown = ledger("report", "statement", "team", "--url", book.url).out
    marked = [line for line in shown.splitlines() if line.rstrip().endswith("estimated")]
    assert ["3"] == [line.split()[0] for line in marked]
    assert "reported" not in shown
    lines = reports.statement_lines(book, reports.statement(book, "team"))
    assert [None, None, "estimated", None, "reported"] == [one.provenance for one in lines]


def test_an_expired_lease_is_listed_with_its_charge(
    ledger: Run, book: Ledger, clock: Clock
) -> None:
    """Once it is charged; before the sweep it holds nothing, and is charged nothing yet."""
    options = SharedPoolBudgetOptions(lease_ttl=timedelta(minutes=1))
    estimate = UsageEstimate(total_tokens=40, cost_micros_usd=453)
    book.pool("team", options).reserve(EXTENSIONS, estimate, UNLIMITED)
    clock.minutes(2)
    for swept, (tokens, cost) in ((False, (0, 0)), (True, (40, 453))):
        if swept:
            book.expire_due()
        words = ("leases", "team", "--url", book.url)
        (row,) = json.loads(ledger(*words, "--format", "json").out)
        assert ("expired", 0, tokens, cost) == (
            row["phase"],
            row["held_tokens"],
            row["charged_tokens"],
            row["charged_cost_micros_usd"],
        )
        assert ("0.000453" in ledger(*words).out) is swept


def test_nothing_is_left_of_a_closed_pool(ledger: Run, book: Ledger) -> None:
    """What a carved pool gave back is its parent's: each door says so."""
    book.pool("top", SharedPoolBudgetOptions(capacity_tokens=100))
    book.pool("kid", SharedPoolBudgetOptions(capacity_tokens=45), parent="top", carved=True)
    book.close_pool("kid", reason="the job is done")
    (kid,) = reports.standing(book, "kid")
    assert (45, 0) == (kid.remaining.tokens, kid.reservable.tokens)
    url = ("--url", book.url)
    assert ledger("remaining", "kid", *url).out.startswith("tokens 0  USD 0.000000")
    assert "(closed)" in ledger("remaining", "kid", *url).out
    rows = json.loads(ledger("pool", "list", "--state", "all", *url, "--format", "json").out)
    assert {"top": 100, "kid": 0} == {row["pool"]: row["remaining"]["tokens"] for row in rows}
    found = reports.forecast(book, "kid")
    assert {reports.Outlook.OUT} == {axis.outlook for axis in found.axes}
    assert {0} == {axis.remaining for axis in found.axes}
    assert 0 == reports.statement(book, "kid").remaining.tokens
    (metric,) = (one for one in METRICS if one.name == "ledger.pool.remaining.tokens")
    read = {one.status.pool.name: metric.value(one) for one in Meter(book).read(left_out=[])}
    assert 0 == read.get("kid", 0)
    assert 100 == read["top"]
