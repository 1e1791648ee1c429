"""When a pool runs out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest

from ledger import (
    I64_MAX,
    U64_MAX,
    Credit,
    Ledger,
    Limit,
    Rolling,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    Window,
    from_micros,
    reports,
    usd,
)
from ledger.core.axes import AMOUNTS
from ledger.core.errors import InvalidInputError
from ledger.reports import Outlook, TimeBasis
from ledger.reports.render import forecast_sheet
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import DAY, DAY_US, Clock

NOW = datetime(2024, 5, 8, tzinfo=UTC)


def spend(scribe: Any, *spent: tuple[float, int], pool: str = "team") -> Ledger:  # noqa: ANN401
    """Let a pool spend tokens and as many micro-USD, each so many days before now."""
    for days, amount in spent:
        scribe.append(pool, "settlement", at=NOW - days * DAY,
                      usage_total_tokens=amount, usage_cost_micros_usd=amount)  # fmt: skip
    book: Ledger = scribe.book
    return book


def test_the_rate_of_a_week(scribe: Any) -> None:  # noqa: ANN401 - the conftest's own
    """A hundred a day leave a thousand for ten days; what is older than the window is not seen."""
    scribe.pool("team", capacity_tokens=2_200, stop_threshold_tokens=200)
    book = spend(scribe, (9, 300), (6, 400), (1, 300))
    scribe.append("team", "reservation", at=NOW, estimate_total_tokens=300)
    found = reports.forecast(book, "team", now=NOW)
    tokens, cost, requests = found.axes
    assert ("requests", Outlook.UNLIMITED) == (requests.axis, requests.outlook)
    assert (NOW - 7 * DAY, 7 * 86_400, False) == (
        found.window_begin,
        found.window_s,
        found.younger,
    )
    assert (Outlook.RUNS_OUT, NOW + 7 * DAY) == (tokens.outlook, tokens.runs_out_at)
    assert (2_200, 900, 200, 300, 700, Fraction(100)) == (
        tokens.capacity,
        tokens.remaining,
        tokens.stop_threshold,
        tokens.held,
        tokens.spent,
        tokens.per_day,
    )
    assert (Outlook.UNLIMITED, None, None, None) == (
        cost.outlook,
        cost.runs_out_at,
        cost.capacity,
        cost.remaining,
    )
    assert (True, True, True) == (found.steady, found.held_is_spent, found.capacity_stays)


def test_spend_beyond_what_a_database_adds_up(scribe: Any) -> None:  # noqa: ANN401
    """Nothing overflows, and nothing is rounded."""
    scribe.pool("team")
    found = reports.forecast(spend(scribe, (2, I64_MAX), (1, I64_MAX)), "team", now=NOW)
    assert 2 * I64_MAX == found.axes[0].spent


def test_a_pool_younger_than_the_window(scribe: Any) -> None:  # noqa: ANN401
    """Its life is the window, and the forecast says so."""
    scribe.pool("team", capacity_tokens=1_000)
    found = reports.forecast(spend(scribe, (2, 100), (1, 100)), "team", now=NOW)
    assert (NOW - 2 * DAY, True) == (found.window_begin, found.younger)
    assert NOW + 8 * DAY == found.axes[0].runs_out_at
    narrow = reports.forecast(scribe.book, "team", now=NOW, window=1.5 * DAY)
    assert (NOW - 1.5 * DAY, False) == (narrow.window_begin, narrow.younger)
    assert NOW + 12 * DAY == narrow.axes[0].runs_out_at


@pytest.mark.parametrize(
    ("capacity", "spent", "outlook"),
    [
        (1_000, [], Outlook.NO_SPEND),
        (1_000, [(30, 10)], Outlook.NO_SPEND),
        (1_000, [(2, 10), (1, -10)], Outlook.NO_SPEND),
        (1_000, [(2, 1_000)], Outlook.OUT),
        (1_000, [(2, 5_000)], Outlook.OUT),
        (2**62, [(6, 1)], Outlook.BEYOND),
    ],
)
def test_outlooks(
    scribe: Any,  # noqa: ANN401 - the conftest's own
    capacity: int,
    spent: list[tuple[float, int]],
    outlook: Outlook,
) -> None:
    """Nothing spent is never; used up is now; later than any calendar is neither."""
    scribe.pool("team", capacity_tokens=capacity)
    found = reports.forecast(spend(scribe, *spent), "team", now=NOW)
    assert (outlook, None) == (found.axes[0].outlook, found.axes[0].runs_out_at)


def test_a_limit_of_a_balance(store_url: str) -> None:
    """$20 a day of a balance of $500, without a capacity: the day's limit runs out first."""
    clock = Clock()
    clock.now -= clock.now % DAY_US
    limit = Limit(name="day", period=Window("day"), capacity_cost_micros_usd=usd(20))
    policy = SharedPoolBudgetOptions(prepaid=["cost_micros_usd"], limits=[limit])
    with Ledger.open(store_url, clock=clock) as book:
        book.pool("team", policy)
        book.credit("team", Credit(name="paid", cost_micros_usd=usd(500)))
        ends, found = from_micros(clock.now + DAY_US), []
        clock.minutes(6 * 60)
        for cost in (3, 9, 8):
            lease = book.pool("team").reserve(EXTENSIONS, UsageEstimate(), UNLIMITED)
            book.pool("team").record_used(lease, Usage(cost_micros_usd=usd(cost)))
            clock.now += 1
            axis = reports.forecast(book, "team").axes[1]
            found.append((axis.outlook, axis.limit, axis.refills_at))
            assert axis.capacity is None
            assert book.pool("team").status().remaining.cost_micros_usd == axis.remaining
        book.adjust("team", replace(policy, limits=()))
        axis = reports.forecast(book, "team").axes[1]
    assert (Outlook.RUNS_OUT, None, usd(480)) == (axis.outlook, axis.limit, axis.remaining)
    # At 3 in 6 hours the day ends first, and what then decides is the balance.
    assert [
        (Outlook.RUNS_OUT, None, None),
        (Outlook.RUNS_OUT, "day", ends),
        (Outlook.OUT, "day", ends),
    ] == found


def test_a_prepaid_pool_may_be_forecast_in_the_microsecond_in_which_it_is_opened(
    store_url: str,
) -> None:
    """No time has passed in which it could have spent anything."""
    with Ledger.open(store_url, clock=Clock()) as book:
        budget = book.pool("team", SharedPoolBudgetOptions(prepaid=["tokens"]))
        book.credit("team", Credit(name="paid", tokens=5))
        lease = budget.reserve(EXTENSIONS, UsageEstimate(), UNLIMITED)
        budget.record_used(lease, Usage(total_tokens=2))
        axis = reports.forecast(book, "team").axes[0]
    assert (Outlook.NO_SPEND, 3) == (axis.outlook, axis.remaining)


def rolls(url: str, clock: Clock, capacity: int, *, length: timedelta, own: int) -> Ledger:
    """Return books with a pool that has a rolling limit on tokens, and a capacity of its own."""
    limit = Limit(name="any", period=Rolling(length), capacity_tokens=capacity)
    book = Ledger.open(url, clock=clock)
    book.pool("team", SharedPoolBudgetOptions(limits=[limit], capacity_tokens=own))
    return book


def use(book: Ledger, tokens: int) -> None:
    """Spend tokens in one call."""
    lease = book.pool("team").reserve(EXTENSIONS, UsageEstimate(), UNLIMITED)
    book.pool("team").record_used(lease, Usage(total_tokens=tokens))


def test_a_rolling_limit_is_full_before_anything_comes_back(store_url: str) -> None:
    """Half of ten in any five hours is spent in ten minutes: ten more, and nothing is left."""
    clock = Clock()
    with rolls(store_url, clock, 10_000_000, length=timedelta(hours=5), own=10**8) as book:
        use(book, 2_000_000)
        clock.minutes(10)
        use(book, 3_000_000)
        clock.now += 1
        found = reports.forecast(book, "team")
        full = found.now + timedelta(minutes=10)
        tokens = found.axes[0]
        assert (Outlook.RUNS_OUT, "any", None) == (tokens.outlook, tokens.limit, tokens.refills_at)
        assert tokens.runs_out_at is not None
        assert abs(tokens.runs_out_at - full) < timedelta(seconds=1)
        shown = " ".join(forecast_sheet(found).rows[0])
        assert f"{tokens.runs_out_at:%Y-%m-%dT%H:%M:%SZ} (limit any)" in shown
        # The limit is not what runs out first where the pool's own capacity does.
        book.adjust("team", replace(found.policy, capacity_tokens=9_000_000))
        tokens = reports.forecast(book, "team").axes[0]
        assert (Outlook.RUNS_OUT, None) == (tokens.outlook, tokens.limit)


def test_a_rolling_limit_that_refills_in_time(store_url: str) -> None:
    """At a rate below the limit's it never runs out, and the forecast says so of an own axis."""
    clock = Clock()
    with rolls(store_url, clock, 100, length=timedelta(hours=1), own=U64_MAX) as book:
        for _ in range(12):
            use(book, 10)
            clock.minutes(10)
        found = reports.forecast(book, "team")
    tokens = found.axes[0]
    assert (Outlook.REFILLS, "any", None) == (tokens.outlook, tokens.limit, tokens.refills_at)
    words = "never at this rate: what was spent comes back (limit any)"
    assert words == forecast_sheet(found).rows[0][-1]


@pytest.mark.parametrize("seed", range(12))
def test_a_rolling_limit_against_a_count(store_url: str, seed: int) -> None:
    """It is full in the first second at which what counts by then and the spend since fill it."""
    chance, clock, hour, capacity = random.Random(seed), Clock(), 3_600, 1_000
    spent: list[tuple[int, int]] = []
    with rolls(store_url, clock, capacity, length=timedelta(hours=1), own=U64_MAX) as book:
        for _ in range(10):
            clock.now += 1_000_000 * chance.randrange(1, 1_000)
            amount = chance.choice([1, 40, 150, 300])
            if amount < book.pool("team").remaining(EXTENSIONS).tokens:
                use(book, amount)
                spent.append((clock.now // 1_000_000, amount))
        clock.now += 1_000_000 * chance.randrange(1, 1_000)
        found = reports.forecast(book, "team")
    now, tokens = clock.now // 1_000_000, found.axes[0]
    rate = Fraction(sum(amount for _, amount in spent), found.window_s)
    full = (
        at
        for at in range(now, now + hour + 1)
        if sum(amount for then, amount in spent if then > at - hour) + rate * (at - now) >= capacity
    )
    expected = next(full, None)
    assert (expected is None) == (tokens.outlook is Outlook.REFILLS)
    if expected is not None:
        assert tokens.runs_out_at is not None
        assert -1 <= expected - tokens.runs_out_at.timestamp() <= hour / 100


def test_as_of_an_entry(scribe: Any) -> None:  # noqa: ANN401 - the conftest's own
    """What was recorded later is not seen, and the moment is when that entry was recorded."""
    scribe.pool("team", capacity_tokens=1_000)
    scribe.append("team", "settlement", recorded=NOW - DAY, at=NOW - 3 * DAY, usage_total_tokens=50)
    scribe.append("team", "settlement", recorded=NOW, usage_total_tokens=900)
    found = reports.forecast(scribe.book, "team", as_of=2)
    assert (NOW - DAY, 950, 50) == (found.now, found.axes[0].remaining, found.axes[0].spent)
    recorded = reports.forecast(scribe.book, "team", now=NOW + DAY, basis=TimeBasis.RECORDED)
    assert 950 == recorded.axes[0].spent


@pytest.mark.parametrize("seed", range(3))
def test_against_a_fold(
    history: Callable[[int], Ledger], facts: Callable[..., list[dict[str, Any]]], seed: int
) -> None:
    """Spend in the window is that of all entries there; the pool lasts to that microsecond."""
    book = history(seed)
    now = datetime(2024, 4, 20, tzinfo=UTC)
    for pool in ("root", "other"):
        found = reports.forecast(book, pool, now=now, window=20 * DAY)
        rows = [row for row in facts(book) if row["pool"] == pool]
        begin = max(now - 20 * DAY, min(from_micros(row["at"]) for row in rows))
        assert begin == found.window_begin
        counted = found.axes[: len(AMOUNTS)]
        for axis, forecast in zip(AMOUNTS, counted, strict=True):
            spent = sum(
                row[f"usage_{axis}"]
                for row in rows
                if begin <= from_micros(row["at"]) < now and row["usage_total_tokens"] is not None
            )
            assert spent == forecast.spent
            if forecast.runs_out_at is not None:
                usable = (forecast.remaining or 0) - forecast.stop_threshold
                lasts = (forecast.runs_out_at - now) // timedelta(microseconds=1)
                window = (now - begin) // timedelta(microseconds=1)
                assert (lasts - 1) * spent < usable * window <= lasts * spent


def test_what_is_refused(book: Ledger) -> None:
    """A window of nothing, and a moment without a time zone."""
    for given in ({"window": timedelta(0)}, {"now": datetime(2024, 1, 1)}, {"window": 7}):  # noqa: DTZ001
        with pytest.raises(InvalidInputError):
            reports.forecast(book, "team", **given)  # type: ignore[arg-type]
