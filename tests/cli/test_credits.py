"""`ledger pool credit`, `--prepaid` and `ledger report credits`, and what reports count of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from ledger import (
    Credit,
    IdempotencyKey,
    Ledger,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    from_micros,
    reports,
)
from ledger.core.checks import to_micros
from ledger.reports import Outlook
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import Clock
from tests.fixtures import Run

YEAR = timedelta(days=365)


def spend(book: Ledger, cost: int) -> None:
    """Make a call that costs so much."""
    budget, asked = book.pool("team"), UsageEstimate(cost_micros_usd=cost)
    budget.record_used(budget.reserve(EXTENSIONS, asked, UNLIMITED), Usage(cost_micros_usd=cost))


def test_a_prepaid_pool_is_opened_topped_up_and_shown(ledger: Run, store_url: str) -> None:
    """Axes by the names that people see; a key makes a top-up count once."""
    at = ("--url", store_url)
    ledger("pool", "open", "team", "--prepaid", "usd", *at)
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + YEAR
    gift = ("--usd", "7.50", "--expires-at", f"{end:%Y-%m-%d}", "--zone", "Europe/Berlin")
    for _ in range(2):
        ledger("pool", "credit", "team", "gift", *gift, "--key", "invoice 17", *at)
    told = ledger("pool", "credit", "team", "paid", "--usd", "50", "--priority", "60", *at).out
    assert "prepaid" in told
    assert "57.500000" in told
    with Ledger.open(store_url) as book:
        spend(book, 8_000_000)
        (first, second) = book.pool("team").status().credits
    assert ("gift", 60) == (first.credit.name, second.credit.priority)
    assert first.credit.expires_at is not None
    assert {timedelta(hours=1), timedelta(hours=2)} & {end - first.credit.expires_at}
    shown = ledger("pool", "show", "team", *at).out
    assert "Credit gift of 7.500000 USD: used 7.500000 USD, left 0.000000 USD until" in shown
    assert "Credit paid of 50.000000 USD: used 0.500000 USD, left 49.500000 USD" in shown
    rows = json.loads(ledger("report", "credits", "team", "--format", "json", *at).out)
    assert [("gift", 7_500_000, 0), ("paid", 500_000, 49_500_000)] == [
        (one["name"], one["used"]["cost_micros_usd"], one["left"]["cost_micros_usd"])
        for one in rows
    ]
    assert "'paid': 50,000,000 micro-USD" in ledger("report", "statement", "team", *at).out
    assert "49.500000" in ledger("report", "credits", *at).out
    for words, says in (
        (("--tokens", "5"), "--tokens: the pool does not spend tokens of credits"),
        (("--usd", "1", "--expires-at", "2020-01-01"), "--expires-at: it has expired"),
        ((), "gives nothing"),
    ):
        assert says in ledger("pool", "credit", "team", "no", *words, *at, code=2).err
    ledger("pool", "adjust", "team", "--prepaid", "none", "--reason", "a subscription", *at)
    assert "unlimited" in ledger("remaining", "team", *at).out
    assert "none of tokens, usd" in ledger("pool", "open", "x", "--prepaid", "ml", *at, code=2).err


def test_reports_count_credits(store_url: str) -> None:
    """Denials say the top-up, forecasts and burn-downs end where a credit expires."""
    clock, day_us = Clock(), 86_400_000_000
    prepaid = SharedPoolBudgetOptions(prepaid=["cost_micros_usd"])
    with Ledger.open(store_url, clock=clock) as book:
        budget = book.pool("team", prepaid)

        def give(name: str, cost: int, days: int | None) -> None:
            until = None if days is None else from_micros(clock.now + days * day_us)
            book.credit("team", Credit(name=name, cost_micros_usd=cost, expires_at=until))

        give("short", 100, 2)
        spend(book, 10)
        clock.now += day_us
        give("long", 5, None)
        # At 10 a day, 10 more are used until the first expires, and 5 are left for half a day.
        forecast = reports.forecast(book, "team").axes[1]
        assert (Outlook.RUNS_OUT, 95) == (forecast.outlook, forecast.remaining)
        assert clock.now + day_us * 3 // 2 == to_micros("at", forecast.runs_out_at)
        clock.now += 2 * day_us
        points = reports.burn_down(book, "team").points
        assert [0, 100, 90, 95, 5] == list(
            dict.fromkeys(point.remaining_cost_micros_usd for point in points)
        )
        assert from_micros(clock.now - day_us) == points[-1].at
        keyed = RequestExtensions(IdempotencyKey("call"))
        with pytest.raises(ThresholdExceededError) as refused:
            budget.reserve(keyed, UsageEstimate(cost_micros_usd=12), UNLIMITED)
        assert {"cost_micros_usd": 7} == refused.value.top_up
        (denied,) = reports.denials(book, "team")
        assert (True, 7) == (denied.by_credits, denied.increase_cost_micros_usd)
        spend(book, 5)
        give("next", 3, None)
        found = reports.credits(book, "team")
        assert [("short", 10, 0, 90), ("long", 5, 0, 0), ("next", 0, 3, 0)] == [
            (one.name, *(part.cost_micros_usd for part in (one.used, one.left, one.lost)))
            for one in found
        ]
        clock.now += day_us
        assert found == reports.credits(book, "team")
        assert all(one.ok for one in book.verify())


def test_credits_that_left_the_list_are_reported(store_url: str) -> None:
    """Once all have expired the list begins anew; the report has those of before."""
    clock = Clock()
    with Ledger.open(store_url, clock=clock) as book:
        book.pool("team", SharedPoolBudgetOptions(prepaid=["cost_micros_usd"]))
        for number in range(3):
            until = from_micros(clock.now + 60_000_000)
            credit = Credit(name=f"{number}", cost_micros_usd=9, expires_at=until)
            book.credit("team", credit)
            spend(book, number)
            clock.minutes(2)
        assert 1 == len(book.pool("team").status().credits)
        assert [(0, 9), (1, 8), (2, 7)] == [
            (one.used.cost_micros_usd, one.lost.cost_micros_usd)
            for one in reports.credits(book, "team")
        ]
        assert 3 == len(reports.credits(book))
