"""`ledger pool open|adjust --window`: a capacity that comes back."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ledger import (
    Ledger,
    Period,
    RequestBudget,
    RequestExtensions,
    Usage,
    UsageEstimate,
    Window,
)
from tests.fixtures import Run

MONTHS = Window(
    period=Period.MONTH,
    time_zone="Europe/Berlin",
    anchor=datetime(2026, 1, 30, 23, tzinfo=UTC),
    carry_over=True,
    carry_cap_tokens=50,
    carry_cap_cost_micros_usd=1_500_000,
)
OPEN = (
    *("--window", "month", "--time-zone", "Europe/Berlin", "--anchor", "2026-01-31"),
    *("--carry-over", "--carry-cap-tokens", 50, "--carry-cap-usd", "1.5"),
)


def window_of(url: str) -> Window | None:
    """Return the window of the pool `team`."""
    with Ledger.open(url, create=False) as book:
        return book.pool("team").status().policy.window


@pytest.fixture
def team(ledger: Run, store_url: str) -> str:
    """Return a store whose pool `team` was opened with every option of windows."""
    ledger("pool", "open", "team", "--url", store_url, "--capacity-tokens", 100, *OPEN)
    return store_url


def test_a_pool_is_opened_with_windows(ledger: Run, team: str) -> None:
    """Every option arrives; the same command again changes nothing."""
    assert MONTHS == window_of(team)
    ledger("pool", "open", "team", "--url", team, "--capacity-tokens", 100, *OPEN)
    with Ledger.open(team, create=False) as book:
        assert 1 == book.pool("team").status().seq


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--window", "5h session"], Window(period=timedelta(hours=5), session=True)),
        (["--capacity-tokens", "7"], MONTHS),
        (["--window", "month"], MONTHS),
        (
            ["--window", "week"],
            Window(
                period=Period.WEEK,
                time_zone="Europe/Berlin",
                carry_over=True,
                carry_cap_tokens=50,
                carry_cap_cost_micros_usd=1_500_000,
            ),
        ),
        (
            ["--window", "6h", "--lapse", "--anchor", "2026-01-31T06:00+01:00"],
            Window(period=timedelta(hours=6), anchor=datetime(2026, 1, 31, 5, tzinfo=UTC)),
        ),
        (
            ["--window", "day", "--carry-cap-tokens", "unlimited", "--carry-cap-usd", "0"],
            Window(
                period=Period.DAY,
                time_zone="Europe/Berlin",
                carry_over=True,
                carry_cap_cost_micros_usd=0,
            ),
        ),
        (["--deduct-overage"], replace(MONTHS, deduct_overage=True)),
        (["--window", "none"], None),
    ],
)
def test_windows_are_adjusted(
    ledger: Run, team: str, words: list[str], expected: Window | None
) -> None:
    """What is not named stays, as far as it can."""
    ledger("pool", "adjust", "team", "--url", team, "--reason", "r", *words)
    assert expected == window_of(team)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--time-zone", "UTC"], "--window: name a day"),
        (["--carry-over"], "--window: name a day"),
        (["--window", "none", "--carry-over"], "--window: name a day"),
        (["--window", "hour"], "'hour' is none; write day, week, month"),
        (["--window", "5h-session"], "or '5h session' for a length from the first call on"),
        (["--window", "0s"], "window.period"),
        (["--window", "5h rolling"], "--limit '5h rolling: 10 USD'"),
        (["--window", "day session"], "window.session"),
        (["--window", "day", "--time-zone", "Mars/Olympus"], "no time zone 'Mars/Olympus'"),
        (["--window", "6h", "--time-zone", "Europe/Berlin"], "a fixed length has none"),
        (["--window", "day", "--anchor", "noon"], "--anchor: 'noon' is no time"),
        (["--window", "day", "--carry-cap-tokens", "5"], "without carry_over"),
        (["--window", "day", "--carry-over", "--carry-cap-usd", "x"], "--carry-cap-usd"),
    ],
)
def test_what_is_no_window_is_refused(
    refused: Run, store_url: str, words: list[str], said: str
) -> None:
    """One line says what, and no pool is made."""
    assert said in refused("pool", "open", "team", "--url", store_url, *words)
    with Ledger.open(store_url) as book:
        assert [] == book.pools()


def test_pools_show_their_windows(ledger: Run, store_url: str) -> None:
    """When it ends, what was spent in it, what was carried: of the window that it is by now."""
    month = timedelta(days=31) // timedelta(microseconds=1)
    now = [100 * month]
    options = ("--window", "31d", "--carry-over", "--capacity-tokens", 100)
    ledger("pool", "open", "team", "--url", store_url, *options)
    assert "Until" in ledger("pool", "list", "--url", store_url).out
    shown = ledger("pool", "show", "team", "--url", store_url).out
    assert re.search(r"Window \S+Z to \S+Z: committed 0 tokens and 0\.000000 USD, rem", shown)
    assert "carried over" not in shown
    # A pool of the past: long silence has left much over.
    with Ledger.open(store_url, clock=lambda: now[0]) as book:
        past = book.pool("past", book.pool("team").status().policy)
        lease = past.reserve(RequestExtensions(), UsageEstimate(), RequestBudget.unlimited())
        past.record_used(lease, Usage(total_tokens=30))
    shown = ledger("pool", "show", "past", "--url", store_url).out
    assert re.search(r"committed 0 .*, with [\d,]+ tokens carried over", shown)
    (team, found) = json.loads(ledger("pool", "list", "--url", store_url, "--format", "json").out)
    assert ("team", "past") == (team["pool"], found["pool"])
    assert month == found["policy"]["window"]["period"]
    assert timedelta(days=31) == datetime.fromisoformat(
        found["window_end"]
    ) - datetime.fromisoformat(found["window_start"])
    assert (0, 30) == (found["window_committed"]["tokens"], found["committed"]["tokens"])
    carried = found["window_carried"]["tokens"]
    assert carried >= 70
    assert 100 + carried == found["remaining"]["tokens"]


def test_without_windows_nothing_is_said_of_them(ledger: Run, store_url: str) -> None:
    """Neither a column nor a line."""
    ledger("pool", "open", "team", "--url", store_url, "--capacity-tokens", 100)
    for words in (("list",), ("show", "team")):
        assert "Window" not in ledger("pool", *words, "--url", store_url).out
