"""`ledger pool open|adjust --limit`: limits in times of their own, beside the capacity."""

from __future__ import annotations

import json
import shlex
from datetime import timedelta

import pytest

from ledger import (
    IdempotencyKey,
    Ledger,
    Limit,
    Period,
    RequestExtensions,
    Rolling,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
    Window,
)
from ledger.testing.calls import UNLIMITED
from tests.fixtures import Run

HOURS = Limit(name="5h rolling", period=Rolling(timedelta(hours=5)), capacity_cost_micros_usd=10**7)
RATE = Limit(
    name="rate",
    period=Rolling(timedelta(minutes=1)),
    capacity_tokens=100_000,
    capacity_requests=2,
)
DAY = Limit(
    name="day in Europe/Berlin",
    period=Window(period=Period.DAY, time_zone="Europe/Berlin"),
    capacity_cost_micros_usd=20_500_000,
)
OPEN = (
    *("--limit", "5h rolling: 10 USD"),
    *("--limit", "rate=1m rolling: 2 requests, 100000 tokens"),
    *("--limit", "day in Europe/Berlin: $20.50"),
)


def limits_of(url: str) -> list[Limit]:
    """Return the limits of the pool `team`."""
    with Ledger.open(url, create=False) as book:
        return list(book.pool("team").status().policy.limits)


def test_limits_are_set_replaced_and_taken_away(ledger: Run, store_url: str) -> None:
    """Every part arrives; those that are not named stay."""
    ledger("pool", "open", "team", "--url", store_url, *OPEN)
    assert [HOURS, RATE, DAY] == limits_of(store_url)
    # Nothing is called unlimited beside what limits leave, nor is their time that of a window.
    shown = ledger("pool", "list", "--url", store_url).out
    assert ("unlimited" in shown, shown.count("by limits")) == (False, 3)
    assert "Until" in shown
    changes = ("--limit", "rate: off", "--limit", "5h rolling: 11 USD", "--limit", "week: 5 tokens")
    ledger("pool", "adjust", "team", "--url", store_url, "--reason", "less", *changes)
    assert [
        Limit(name="5h rolling", period=HOURS.period, capacity_cost_micros_usd=11 * 10**6),
        DAY,
        Limit(name="week", period=Window(period=Period.WEEK), capacity_tokens=5),
    ] == limits_of(store_url)


def test_what_became_of_limits_is_said(ledger: Run, store_url: str) -> None:
    """Also that another limit of the same time stays beside a new one: both bound what is spent."""
    ledger("pool", "open", "team", "--url", store_url, *OPEN)
    words = ("pool", "adjust", "team", "--url", store_url, "--reason", "less")
    said = ledger(*words, "--limit", "five=5h rolling: 20 USD").err
    assert "'five': 20,000,000 micro-USD in any 5:00:00" in said.split("is:  ")[1]
    assert "'five'" not in said.split("is:  ")[0]
    stays = "limit 'five' is new. '5h rolling', of the same time, stays as it was"
    assert f"{stays} (--limit '5h rolling: off' takes it away)" in said
    said = ledger(*words, "--limit", "five=5h rolling: 21 USD").err
    assert "20,000,000 micro-USD in any" in said.split("is:  ")[0]
    assert "stays" not in said
    assert "stays" not in ledger(*words, "--limit", "5h rolling: off").err
    # One that the same command changes does not stay as it was.
    both = ("--limit", "five=5h rolling: 22 USD", "--limit", "it's=5h rolling: 23 USD")
    assert "stays" not in ledger(*words, *both).err
    said = ledger(*words, "--limit", "six=5h rolling: 24 USD").err
    assert 2 == said.count("stays as it was")
    # What takes it away can be pasted into a shell.
    hint = said[said.rindex("(--limit") + 1 : said.rindex(" takes it away)")]
    assert ["--limit", "it's: off"] == shlex.split(hint)
    assert "" == ledger(*words, "--limit", "five=5h rolling: 22 USD").err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("day", "'day' has no amounts; write"),
        ("day: ", "amount: '' is none of tokens, USD, requests; write"),
        ("day: 10 EUR", "amount: '10 EUR' is none of tokens"),
        ("day: unlimited tokens", "amount: 'unlimited tokens' is none of tokens"),
        ("day: 1 USD, $2", "it gives USD twice"),
        ("day: 1.5 tokens", "'1.5' is not a whole number"),
        ("day: 99999999999999999999 tokens", "outside 0 .. "),
        ("6h: 1 USD", "period: '6h' is none; write"),
        ("day in: 1 USD", "period: 'day in' is none; write"),
        ("day in Mars: 1 USD", "no time zone 'Mars'"),
        ("0s rolling: 1 USD", "rolling.length: must be of 1 second"),
        ("5x rolling: 1 USD", "'5x' is no length of time"),
        ("=day: 1 USD", "limit.name: must have 1 to 64"),
        ("nope: off", "there is no 'nope'; there are none"),
    ],
)
def test_what_is_no_limit_is_refused(refused: Run, store_url: str, option: str, said: str) -> None:
    """One line says which option and what is wrong, and no pool is made."""
    found = refused("pool", "open", "team", "--url", store_url, "--limit", option)
    assert said in found
    assert str(found).startswith("--limit: ")
    with Ledger.open(store_url) as book:
        assert [] == book.pools()


def test_limits_and_refusals_are_shown(ledger: Run, store_url: str) -> None:
    """`pool show`, `pool list`, `remaining` and the denials say what limits leave, and when."""
    ledger("pool", "open", "team", "--url", store_url, *OPEN)
    estimate = UsageEstimate(total_tokens=30, cost_micros_usd=10**6)
    with Ledger.open(store_url) as book:
        team = book.pool("team")
        for _ in range(2):
            usage = Usage(total_tokens=30, cost_micros_usd=10**6)
            team.record_used(team.reserve(RequestExtensions(), estimate, UNLIMITED), usage)
        with pytest.raises(ThresholdExceededError) as refusal:
            team.reserve(RequestExtensions(IdempotencyKey("once")), estimate, UNLIMITED)
    assert refusal.value.retry_at is not None
    shown = ledger("pool", "show", "team", "--url", store_url).out
    assert "Limit 5h rolling of 10.000000 USD in any 5:00:00, since " in shown
    assert "Limit rate of 100,000 tokens and 2 requests in any 0:01:00, since " in shown
    assert "used 2.000000 USD, remaining 8.000000 USD" in shown
    assert "used 60 tokens and 2 requests, remaining 99,940 tokens and 0 requests" in shown
    (found,) = json.loads(ledger("pool", "list", "--url", store_url, "--format", "json").out)
    assert ["5h rolling", "rate", "day in Europe/Berlin"] == [
        one["limit"]["name"] for one in found["limits"]
    ]
    assert 60 == found["limits"][1]["counted"]["tokens"]
    assert 8 * 10**6 == found["remaining"]["cost_micros_usd"]
    assert "USD 8.000000" in ledger("remaining", "team", "--url", store_url).out
    (denied,) = json.loads(ledger("report", "denials", "--url", store_url, "--format", "json").out)
    assert ("rate", refusal.value.retry_at.isoformat()) == (denied["limit"], denied["retry_at"])
    # The table names the limit, and what is left of what that limits: no USD, which it does not.
    table = ledger("report", "denials", "--url", store_url).out
    (line,) = (one for one in table.splitlines() if "limit rate" in one)
    assert ("unlimited" in line, "1.000000" in line, "99,940" in line) == (False, True, True)
    grouped = ledger("report", "denials", "--by", "run", "--url", store_url).out
    assert "limits" in grouped
    assert "above" not in grouped
    assert "unlimited" not in str(refusal.value)
    assert "by its limit 'rate', cannot grant" in str(refusal.value)


def test_a_limit_of_calls_has_columns_where_pools_are_listed(ledger: Run, store_url: str) -> None:
    """A pool that refuses every call since its limit of calls is used up is seen to have none."""
    rate = ("--limit", "rate=1h rolling: 2 requests")
    ledger("pool", "open", "team", "--capacity-usd", "1", *rate, "--url", store_url)
    with Ledger.open(store_url, create=False) as book:
        for _ in range(2):
            budget = book.pool("team")
            lease = budget.reserve(RequestExtensions(), UsageEstimate(), UNLIMITED)
            budget.record_used(lease, Usage())
    for listed in (("pool", "list"), ("top", "--once")):
        shown = ledger(*listed, "--url", store_url).out
        (line,) = (one.split() for one in shown.splitlines() if one.startswith("team"))
        # Capacity, spent, held and remaining, of tokens, USD and requests.
        assert shown.count("requests") == 4
        assert ["by", "limits", "0", "0.000000", "2"] == line[3:8]
        assert ["unlimited", "1.000000", "0"] == line[11:14]
