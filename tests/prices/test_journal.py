"""What the journal says of calls: an estimate for the next one, and what others would charge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from ledger import (
    Attribution,
    InvalidInputError,
    Ledger,
    OccurredAt,
    RequestBudget,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.prices import Counts, PriceList, PriceTable
from ledger.reports import Filter, Repriced, output_history, reprice
from ledger.reports.render.prices import repriced_sheet
from tests.clocks import Clock

Spend = Callable[..., int]

OLD = {"price": [{"model": "m", "input": 1, "cache_read": "0.1", "output": 2}]}
NEW = {
    "version": "new",
    "price": [
        {"model": "m", "input": 2, "cache_read": "1", "output": 4},
        {"model": "m", "service_tier": "batch", "input": 1, "output": 2},
    ],
}


@pytest.fixture
def spend(book: Ledger, noon: datetime) -> Spend:
    """Return a function that records a call priced by the old table, and gives its entry."""

    def record(
        used: Counts | Usage,
        *,
        model: str | None = "m",
        operation: str = "chat",
        hours: int = 0,
        pool: str = "team",
        tier: str | None = None,
    ) -> int:
        budget = book.pool(pool, SharedPoolBudgetOptions())
        at = noon + timedelta(hours=hours)
        extensions = RequestExtensions()
        extensions.insert(Attribution(model=model, operation=operation))
        extensions.insert(OccurredAt(at))
        lease = budget.reserve(
            extensions, UsageEstimate(total_tokens=1, cost_micros_usd=1), RequestBudget()
        )
        if isinstance(used, Usage):
            budget.record_used(lease, used, report=UsageReport(model=model))
        else:
            table = PriceTable(
                {"price": [*OLD["price"], {**OLD["price"][0], "service_tier": "batch"}]}
            )
            it = PriceList(table, library=False).recording(
                used, model="m", at=at, service_tier=tier
            )
            budget.record_used(lease, it.usage, report=it.report)
        return max(entry.seq for entry in book.entries(pool))

    return record


def test_a_percentile_of_the_output_of_calls_of_a_kind(book: Ledger, spend: Spend) -> None:
    """The next call's output is estimated by what 95 % of such calls had at most."""
    for output in range(1, 101):
        spend(Counts(input_tokens=1, output_tokens=output))
    spend(Counts(output_tokens=9_000), operation="draft")
    spend(Usage(output_tokens=8_000, total_tokens=8_000), model="other")
    of = Filter(model="m", operation="chat")
    found = output_history(book, of)
    assert (100, 95, 95) == (found.calls, found.percent, found.output_tokens)
    assert 50 == output_history(book, of, percent=50).output_tokens
    assert 100 == output_history(book, of, percent=100).output_tokens
    assert 9_000 == output_history(book, Filter(model="m"), percent=100).output_tokens
    none = output_history(book, Filter(model="unheard-of"))
    assert (0, None) == (none.calls, none.output_tokens)
    for percent in (0, 101, True, 1.5, "95"):
        with pytest.raises(InvalidInputError):
            output_history(book, of, percent=percent)  # type: ignore[arg-type]


def test_a_corrected_call_counts_as_corrected(book: Ledger, spend: Spend) -> None:
    """What an invoice made of a call is what it had."""
    seq = spend(Counts(output_tokens=10))
    book.pool("team").correct(
        seq, Usage(output_tokens=70, total_tokens=70, cost_micros_usd=1), reason="invoice"
    )
    assert 70 == output_history(book, "team").output_tokens


def test_what_another_table_would_have_charged(book: Ledger, spend: Spend) -> None:
    """By kind and by tier, as the entries say; nothing is written."""
    spend(Counts(input_tokens=1_000, cache_read_tokens=400, output_tokens=100))
    spend(Counts(input_tokens=1_000, output_tokens=100), tier="batch")
    before = len(list(book.entries("team")))
    (found,) = reprice(book, PriceList(NEW, library=False))
    old = 600 + 40 + 200 + 1_200
    new = (600 * 2 + 400 + 400) + (1_000 + 200)
    assert (
        Repriced(
            provider=None,
            model="m",
            entries=2,
            cost_micros_usd=old,
            corrected_micros_usd=0,
            repriced_micros_usd=new,
            priced_by="own new",
            reason=None,
        )
        == found
    )
    assert new - old == found.difference_micros_usd
    assert before == len(list(book.entries("team")))


def test_the_same_table_gives_the_same_costs(book: Ledger, spend: Spend) -> None:
    """Recorded and repriced agree to the micro-dollar, call by call rounded up."""
    for number in range(1, 30):
        spend(Counts(input_tokens=number, cache_read_tokens=number // 2, output_tokens=1))
    (found,) = reprice(book, PriceList(OLD, library=False))
    assert 0 == found.difference_micros_usd
    assert 29 == found.entries


def test_a_month_a_pool_and_a_model(book: Ledger, spend: Spend, noon: datetime) -> None:
    """The filter of every report; by the prices of each call's time, or of one time."""
    dated = {"price": [*OLD["price"], {"model": "m", "since": "2026-03-02", "input": 50}]}
    for hours in (0, 24):
        spend(Counts(input_tokens=10), hours=hours)
    spend(Counts(input_tokens=10), pool="others")
    prices = PriceList(dated, library=False)
    team = Filter(pools=["team"])
    assert 10 + 500 == sum(row.repriced_micros_usd or 0 for row in reprice(book, prices, team))
    first_day = Filter(pools=["team"], until=noon + timedelta(hours=1))
    assert [10] == [row.repriced_micros_usd for row in reprice(book, prices, first_day)]
    later = noon + timedelta(days=30)
    assert [1_500] == [row.repriced_micros_usd for row in reprice(book, prices, at=later)]


def test_what_cannot_be_repriced_is_said(book: Ledger, spend: Spend) -> None:
    """No model, an unknown one, no parts, no tokens, another tier: each with its recorded cost."""
    spend(Usage(input_tokens=1, total_tokens=1, cost_micros_usd=1), model=None)
    spend(Usage(input_tokens=1, total_tokens=1, cost_micros_usd=2), model="x")
    spend(Usage(total_tokens=5, cost_micros_usd=3))
    spend(Usage(cost_micros_usd=4))
    spend(Usage(input_tokens=1, total_tokens=1, cache_read_tokens=9, cost_micros_usd=5))
    spend(Counts(input_tokens=6), tier="batch")
    spend(Counts(input_tokens=7))
    rows = reprice(book, PriceList(OLD, library=False))
    assert (7, 7, None) == (rows[0].cost_micros_usd, rows[0].repriced_micros_usd, rows[0].reason)
    failed = {row.cost_micros_usd: str(row.reason) for row in rows[1:]}
    expected = {
        1: "named no model",
        2: "no price for the model 'x'",
        3: "only a total",
        4: "no tokens",
        5: "cannot be",
        6: "service_tier 'batch'",
    }
    assert expected.keys() == failed.keys()
    for cost, said in expected.items():
        assert said in failed[cost]
    assert all(row.difference_micros_usd is None for row in rows[1:])


def test_corrections_count(book: Ledger, spend: Spend) -> None:
    """What an invoice says was used is priced, and what it says was paid is what is recorded."""
    seq = spend(Counts(input_tokens=100))
    budget = book.pool("team")
    budget.correct(
        seq, Usage(input_tokens=50, total_tokens=50, cost_micros_usd=60), reason="invoice"
    )
    budget.correct(seq, Usage(input_tokens=30, total_tokens=30, cost_micros_usd=70), reason="again")
    (found,) = reprice(book, PriceList(NEW, library=False))
    assert (1, 70, 60) == (found.entries, found.cost_micros_usd, found.repriced_micros_usd)
    # By the prices of then there is a difference, too: the correction's.
    assert -30 == found.corrected_micros_usd
    (row, _, total) = repriced_sheet([found]).rows
    assert row is not None
    assert total is not None
    assert ("-0.000030",) * 2 == (row[4], total[4])
    assert "Of it by\ncorrections" not in [
        column.heading
        for column in repriced_sheet([replace(found, corrected_micros_usd=0)]).columns
    ]


def test_a_pool_that_is_shared_is_counted_once(book: Ledger, spend: Spend) -> None:
    """A child's call is in its parent's journal too, and is one call."""
    book.pool("above", SharedPoolBudgetOptions())
    book.pool("team", SharedPoolBudgetOptions(), parent="above")
    spend(Counts(input_tokens=100))
    (found,) = reprice(book, PriceList(NEW, library=False))
    assert (1, 200) == (found.entries, found.repriced_micros_usd)


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_damaged_pool_is_left_out_and_named(book: Ledger, spend: Spend) -> None:
    """The others are answered; without a list to name it in, the error is raised."""
    spend(Counts(input_tokens=100))
    spend(Counts(input_tokens=100), pool="sound")
    damage(book)
    lost: list[Any] = []
    (found,) = reprice(book, PriceList(NEW, library=False), left_out=lost)
    assert (1, ["team"]) == (found.entries, [error.pool for error in lost])


def damage(book: Ledger) -> None:
    """Make the detail of a settlement of the pool `team` unreadable."""
    with book._database.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER IF EXISTS entries_no_update"))
        connection.execute(
            text(
                "UPDATE entries SET detail = '[]' WHERE kind = 'settlement' AND pool_id = "
                "(SELECT pool_id FROM pools WHERE name = 'team')"
            )
        )


def test_what_an_expiry_assumed_is_priced_until_the_call_is_recorded(store_url: str) -> None:
    """Then the call alone counts; an expiry that gave its hold back counts not at all."""
    clock = Clock()
    prices = PriceList(NEW, library=False)
    estimate = UsageEstimate(input_tokens=90, total_tokens=90, cost_micros_usd=90)
    extensions = RequestExtensions(Attribution(model="m"))
    with Ledger.open(store_url, clock=clock) as book:
        leases = {}
        for name, policy in (
            ("team", SettlementPolicy.ESTIMATED),
            ("back", SettlementPolicy.RELEASE),
        ):
            options = SharedPoolBudgetOptions(lease_ttl=timedelta(minutes=1), settlement=policy)
            leases[name] = book.pool(name, options).reserve(extensions, estimate, RequestBudget())
        clock.minutes(2)
        assert 2 == book.expire_due()
        assert [(1, 90, 180)] == counted(reprice(book, prices))
        it = prices.recording(Counts(input_tokens=5), model="m")
        book.pool("team").record_used(leases["team"], it.usage, report=it.report)
        assert [(1, 10, 10)] == counted(found := reprice(book, prices))
        assert [0] == [row.corrected_micros_usd for row in found]


def counted(rows: list[Repriced]) -> list[tuple[int, int, int | None]]:
    """Return the figures of rows."""
    return [(row.entries, row.cost_micros_usd, row.repriced_micros_usd) for row in rows]
