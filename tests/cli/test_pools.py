"""`ledger pool`, `remaining`, `leases`: open pools and ask them."""

from __future__ import annotations

import csv
import json
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ledger import (
    I64_MAX,
    U64_MAX,
    Attribution,
    EntryKind,
    Ledger,
    OccurredAt,
    RequestBudget,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    Unpriced,
    Usage,
    UsageEstimate,
    from_micros,
)
from tests.fixtures import Lines, Run

DAY = from_micros(1_709_164_800_000_000)  # 2024-02-29T00:00:00Z


def spend(url: str, pool: str = "team") -> None:
    """Settle a call of 120 tokens and 1.5 USD, and leave one of 80 tokens and 2 USD open."""
    with Ledger.open(url) as book:
        budget = book.pool(pool)
        nothing = RequestExtensions(Unpriced.FLAG)  # an estimate without a cost
        lease = budget.reserve(nothing, UsageEstimate(total_tokens=200), RequestBudget.unlimited())
        budget.record_used(lease, Usage(total_tokens=120, cost_micros_usd=1_500_000))
        budget.reserve(
            RequestExtensions(Attribution(run_id="nightly[1]"), OccurredAt(DAY)),
            UsageEstimate(total_tokens=80, cost_micros_usd=2_000_000),
            RequestBudget.unlimited(),
        )


def policy(url: str, pool: str = "team") -> SharedPoolBudgetOptions:
    """Return the policy in force."""
    with Ledger.open(url, create=False) as book:
        return book.pool(pool).status().policy


def test_open_makes_the_store_and_the_pool(ledger: Run, lines: Lines, store_url: str) -> None:
    """One command is enough to begin, on each database; its line shows the policy."""
    ended = ledger(
        *("pool", "open", "team", "--url", store_url, "--capacity-tokens", "1000000"),
        *("--capacity-usd", "250.5", "--stop-threshold-tokens", 5, "--stop-threshold-usd", "0.25"),
    )
    assert "" == ended.err
    line = "team 1,000,000 250.500000 0 0.000000 0 0.000000 1,000,000 250.500000"
    assert line == lines(ended.out)[-1]
    expected = SharedPoolBudgetOptions(
        capacity_tokens=1_000_000,
        capacity_cost_micros_usd=250_500_000,
        stop_threshold_tokens=5,
        stop_threshold_cost_micros_usd=250_000,
    )
    assert expected == policy(store_url)


def test_open_without_options_is_unlimited(ledger: Run, lines: Lines) -> None:
    """A pool has no limits unless they are given, and says so."""
    ended = ledger("pool", "open", "team")
    assert lines(ended.out)[-1].startswith("team unlimited unlimited ")
    assert SharedPoolBudgetOptions() == policy("sqlite:///ledger.db")


def test_open_again_changes_nothing(ledger: Run) -> None:
    """The same command twice prints the same and writes no second entry."""
    command = ("pool", "open", "team", "--capacity-usd", "1")
    assert ledger(*command).out == ledger(*command).out
    with Ledger.open(create=False) as book:
        assert 1 == book.pool("team").status().seq


def test_open_under_another_policy_is_refused(ledger: Run) -> None:
    """The pool's policy is not changed in passing; the error shows the figures."""
    ledger("pool", "open", "team", "--capacity-tokens", "7")
    ended = ledger("pool", "open", "team", "--capacity-tokens", "8", code=2)
    assert ended.err.startswith("Error: pool 'team' exists under another policy")
    assert 7 == policy("sqlite:///ledger.db").capacity_tokens


def test_list_shows_every_pool(ledger: Run, lines: Lines, store_url: str) -> None:
    """Committed, held and remaining of each pool, in the order in which they were opened."""
    ledger("pool", "open", "team", "--url", store_url, "--capacity-usd", 10)
    ledger("pool", "open", "[b]other[/b]", "--url", store_url, "--capacity-tokens", 9)
    spend(store_url)
    shown = lines(ledger("pool", "list", "--url", store_url).out)
    assert [
        "team unlimited 10.000000 120 1.500000 80 2.000000 unlimited 6.500000",
        "[b]other[/b] 9 unlimited 0 0.000000 0 0.000000 9 unlimited",
    ] == shown[-2:]


def test_list_leaves_closed_pools_out_unless_they_are_asked_for(
    ledger: Run, store_url: str
) -> None:
    """So does `top`; a name, a state and a pattern ask for them."""
    for name in ("a-1", "a-2", "b"):
        ledger("pool", "open", name, "--url", store_url)
    ledger("pool", "close", "a-2", "--reason", "over", "--url", store_url)

    def names(*words: object) -> list[str]:
        shown = json.loads(
            ledger("pool", "list", "--format", "json", "--url", store_url, *words).out
        )
        return [one["pool"] for one in shown]

    assert ["a-1", "b"] == names()
    assert ["a-1", "a-2", "b"] == names("--state", "all")
    assert ["a-2"] == names("--state", "closed") == names("--pool", "a-2")
    assert ["a-1"] == names("--match", "a-*")
    assert "a-2" not in ledger("top", "--once", "--url", store_url).out
    assert "a-2" in ledger("top", "--once", "--state", "all", "--url", store_url).out


def test_show_prints_the_statement(ledger: Run, lines: Lines, store_url: str) -> None:
    """Opening balance, movements by kind, closing balance, capacity and what remains."""
    ledger("pool", "open", "team", "--url", store_url, "--capacity-tokens", 1_000)
    spend(store_url)
    shown = lines(ledger("pool", "show", "team", "--url", store_url).out)
    for line in (
        "Statement of pool team",
        "Opening balance 0 0.000000 0 0.000000",
        "opening 1 0 0.000000 0 0.000000",
        "reservation 2 0 0.000000 280 2.000000",
        "settlement 1 120 1.500000 -200 0.000000",
        "Closing balance 4 120 1.500000 80 2.000000",
        "Capacity 1,000 unlimited",
        "Remaining 800 unlimited",
    ):
        assert line in shown


def test_adjust_changes_what_is_named(ledger: Run, lines: Lines, store_url: str) -> None:
    """The rest of the policy stays, the reason is kept, the pool's new line is shown."""
    ledger(
        *("pool", "open", "team", "--url", store_url, "--capacity-usd", 10),
        *("--capacity-tokens", 5_000, "--stop-threshold-usd", 1),
    )
    ended = ledger(
        *("pool", "adjust", "team", "--url", store_url, "--capacity-usd", "20"),
        *("--reason", "second quarter"),
    )
    assert lines(ended.out)[-1].startswith("team 5,000 20.000000 ")
    assert SharedPoolBudgetOptions(
        capacity_tokens=5_000,
        capacity_cost_micros_usd=20_000_000,
        stop_threshold_cost_micros_usd=1_000_000,
    ) == policy(store_url)
    with Ledger.open(store_url, create=False) as book:
        (adjustment,) = book.entries("team", kind=EntryKind.ADJUSTMENT)
        assert "second quarter" in str(adjustment.detail)


def test_adjust_can_lift_a_limit(ledger: Run, store_url: str) -> None:
    """A capacity may be set to unlimited."""
    ledger("pool", "open", "team", "--url", store_url, "--capacity-tokens", 5)
    ledger(
        *("pool", "adjust", "team", "--url", store_url, "--capacity-tokens", "unlimited"),
        *("--reason", "no limit"),
    )
    assert U64_MAX == policy(store_url).capacity_tokens


def test_ensure_makes_a_pool_and_gives_it_the_policy_that_is_named(
    ledger: Run, lines: Lines, store_url: str
) -> None:
    """What is not named gets its default; the same again writes nothing."""
    ensure = ("pool", "ensure", "team", "--url", store_url, "--reason", "deployment")
    for capacity, was in (
        (10, ""),
        (20, "was: unlimited tokens and 10,000,000 micro-USD"),
        (20, ""),
    ):
        ended = ledger(*ensure, "--capacity-usd", capacity)
        assert lines(ended.out)[-1].startswith(f"team unlimited {capacity}.000000 ")
        assert was in ended.err
        assert bool(was) == ("was: " in ended.err)
    ended = ledger(*ensure, "--capacity-tokens", 7)
    assert "was: unlimited tokens and 20,000,000 micro-USD" in ended.err
    assert "is:  7 tokens and unlimited micro-USD" in ended.err
    assert SharedPoolBudgetOptions(capacity_tokens=7) == policy(store_url)
    with Ledger.open(store_url, create=False) as book:
        assert 3 == book.pool("team").status().seq
        assert ["deployment"] * 3 == [one.detail["reason"] for one in book.entries("team")]
        assert book.verify("team")[0].ok
    assert 3 == ledger("report", "statement", "team", "--url", store_url).out.count("deployment by")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope", "--reason", "x"], "no pool 'nope'"),
        (["team", "--reason", ""], "reason"),
        (["team", "--reason", "x" * 2_001], "reason"),
    ],
)
def test_adjust_refuses(ledger: Run, refused: Run, words: list[str], said: str) -> None:
    """An unknown pool, and a reason that is none."""
    ledger("pool", "open", "team")
    assert said in refused("pool", "adjust", *words)
    with Ledger.open(create=False) as book:
        assert 1 == book.pool("team").status().seq


def test_adjust_needs_a_reason(ledger: Run) -> None:
    """The journal explains itself: without a reason nothing is changed."""
    ledger("pool", "open", "team")
    assert "--reason" in ledger("pool", "adjust", "team", "--capacity-usd", 1, code=2).err
    assert SharedPoolBudgetOptions() == policy("sqlite:///ledger.db")


def test_remaining(ledger: Run, store_url: str) -> None:
    """Tokens and US dollars left, and whether the stop threshold is reached."""
    url = ("--url", store_url)
    ledger("pool", "open", "team", *url, "--capacity-tokens", 1_200)
    spend(store_url)
    assert "tokens 1,000  USD unlimited\n" == ledger("remaining", "team", *url).out
    ledger("pool", "adjust", "team", *url, "--stop-threshold-tokens", 1_000, "--reason", "stop")
    assert "threshold" in ledger("remaining", "team", *url).out


def test_remaining_for_programs(ledger: Run) -> None:
    """JSON and CSV have the contract's names, integers as integers and booleans as booleans."""
    ledger("pool", "open", "team", "--capacity-usd", "1.5")
    expected = {
        "pool": "team",
        "tokens": None,
        "cost_micros_usd": 1_500_000,
        "requests": None,
        "below_threshold": False,
        "until": None,
    }
    assert [expected] == json.loads(ledger("remaining", "team", "--format", "json").out)
    (row,) = csv.DictReader(ledger("remaining", "team", "--format", "csv").out.splitlines())
    shown = {name: "" if value is None else str(value) for name, value in expected.items()}
    assert shown == row


def test_named_thresholds(ledger: Run, lines: Lines, store_url: str) -> None:
    """They are set, changed and taken away one by one, shown with their amounts, and reported."""
    store = ("--url", store_url)
    named = ("--threshold", "half=50", "--threshold", "a=b=80")
    for _ in range(2):  # the same command again changes nothing
        ledger("pool", "open", "team", "--capacity-tokens", "401", *named, *store)
    assert {"half": 50, "a=b": 80} == policy(store_url).thresholds
    ledger("pool", "adjust", "team", "--reason", "r", "--capacity-usd", "4", *store)
    assert {"half": 50, "a=b": 80} == policy(store_url).thresholds
    changes = ("--threshold", "half=off", "--threshold", "a=b=25", "--threshold", "most=85")
    ledger("pool", "adjust", "team", "--reason", "r", *changes, *store)
    assert {"a=b": 25, "most": 85} == policy(store_url).thresholds
    spend(store_url)
    shown = lines(ledger("pool", "show", "team", *store).out)
    assert ["a=b (25 %) 101 1.000000", "most (85 %) 341 3.400000"] == shown[-2:]
    assert "threshold 2 0 0 0.000000 0 0.000000" in shown
    statement = lines(ledger("report", "statement", "team", *store).out)
    assert [True, True] == [
        any(line.endswith(crossed) for line in statement)
        for crossed in ("a=b (25 %) reached", "most (85 %) reached")
    ]
    (row,) = json.loads(ledger("pool", "list", "--format", "json", *store).out)
    assert {"a=b": 25, "most": 85} == row["policy"]["thresholds"]
    (row,) = csv.DictReader(ledger("pool", "list", "--format", "csv", *store).out.splitlines())
    assert "a=b 25 %, most 85 %" == row["policy_thresholds"]


def test_a_threshold_of_limits_alone_says_that_it_is_silent(ledger: Run, store_url: str) -> None:
    """It may be of use once the pool has a capacity, and until then it can never be crossed."""
    store = ("--url", store_url)
    silent = "warn is crossed by the capacity or credits alone, and this pool has neither: limits "
    opened = ledger(
        "pool", "open", "team", "--limit", "day: 5 USD", "--threshold", "warn=80", *store
    )
    assert silent in opened.err
    assert silent in ledger("pool", "show", "team", *store).out
    words = ("pool", "adjust", "team", "--reason", "r", *store)
    two = ledger(*words, "--threshold", "more=90").err
    assert "warn, more are crossed by" in two
    assert "alone" not in ledger(*words, "--prepaid", "usd").err
    assert silent.partition(" is")[2] not in ledger("pool", "show", "team", *store).out
    assert "alone" not in ledger(*words, "--prepaid", "none", "--capacity-usd", "5").err


def test_leases(ledger: Run, lines: Lines, store_url: str) -> None:
    """Open leases only: what each holds, for which run, since when."""
    ledger("pool", "open", "team", "--url", store_url)
    spend(store_url)
    shown = lines(ledger("leases", "team", "--url", store_url).out)
    assert "Leases of pool team that have not ended: 1" == shown[0]
    assert shown[-1].startswith("4 open nightly[1] ")
    assert shown[-1].endswith(" 80 2.000000 0 0.000000")
    (row,) = json.loads(ledger("leases", "team", "--url", store_url, "--format", "json").out)
    reserved_at = row.pop("reserved_at")
    assert timedelta(0) == datetime.fromisoformat(reserved_at).utcoffset()
    with Ledger.open(store_url) as book:
        (token,) = (found.lease.token for found in book.open_leases("team"))
    assert {
        "lease": 4,
        "token": token,
        "phase": "open",
        "run_id": "nightly[1]",
        "held_tokens": 80,
        "held_cost_micros_usd": 2_000_000,
        "held_requests": 1,
        "charged_tokens": 0,
        "charged_cost_micros_usd": 0,
    } == row
    lines = ledger("leases", "team", "--url", store_url, "--format", "csv").out.splitlines()
    held = "held_tokens,held_cost_micros_usd,held_requests"
    assert [
        f"lease,token,phase,run_id,reserved_at,{held},charged_tokens,charged_cost_micros_usd",
        f'4,"{token}","open","nightly[1]",{reserved_at},80,2000000,1,0,0',
    ] == lines


def test_no_leases(ledger: Run) -> None:
    """A pool without open leases is an empty list, in every format."""
    ledger("pool", "open", "team")
    assert "Leases of pool team that have not ended: 0" in ledger("leases", "team").out
    assert [] == json.loads(ledger("leases", "team", "--format", "json").out)
    assert 1 == len(ledger("leases", "team", "--format", "csv").out.splitlines())


@pytest.mark.parametrize("name", ["prod:key:a", "[red]x[/red]", "[/b]", "a\\[b]", "été 🔑"])
def test_names_are_printed_as_they_are(ledger: Run, refused: Run, name: str) -> None:
    """No name is taken for markup or an emoji, in titles, lines and errors."""
    ledger("pool", "open", name)
    for command in (("pool", "list"), ("pool", "show", name), ("leases", name), ("verify", name)):
        assert name in ledger(*command).out
    assert repr(f"{name} 2") in refused("remaining", f"{name} 2")


@pytest.mark.parametrize(
    "command", [("pool", "show"), ("remaining",), ("leases",), ("verify",), ("report", "runs")]
)
def test_an_unknown_pool_is_named(
    ledger: Run, refused: Run, command: tuple[str, ...], store_url: str
) -> None:
    """Asking for a pool that is not there says so, names no other, and makes none."""
    ledger("pool", "open", "team", "--url", store_url)
    words = ("--pool", "nope") if command[0] == "report" else ("nope",)
    said = refused(*command, *words, "--url", store_url)
    assert said.startswith("there is no pool 'nope'")
    assert "'team'" not in said
    with Ledger.open(store_url, create=False) as book:
        assert ["team"] == [info.name for info in book.pools()]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--capacity-tokens", "-1", "-1"),
        ("--capacity-tokens", "1.5", "1.5"),
        ("--capacity-tokens", "many", "many"),
        ("--capacity-tokens", str(I64_MAX + 1), str(I64_MAX + 1)),
        ("--capacity-tokens", "9" * 5_000, "whole number"),
        ("--capacity-usd", "abc", "abc"),
        ("--capacity-usd", "-1", "-1"),
        ("--capacity-usd", "NaN", "NaN"),
        ("--capacity-usd", "inf", "inf"),
        ("--capacity-usd", "1,000", "1,000"),
        ("--capacity-usd", "0.0000001", "six decimal places"),
        ("--capacity-usd", "9223372036854.775808", "9,223,372,036,854.775807 USD"),
        ("--capacity-usd", "1e99999999", "decimal"),
        ("--stop-threshold-tokens", "unlimited", "unlimited"),
        ("--stop-threshold-tokens", str(I64_MAX + 1), str(I64_MAX + 1)),
        ("--stop-threshold-usd", "-0.5", "-0.5"),
        ("--stop-threshold-usd", "", "decimal number"),
        ("--threshold", "half", "'half' is not NAME=PERCENT"),
        ("--threshold", "half=0", "from 1 to 100"),
        ("--threshold", "half=101", "from 1 to 100"),
        ("--threshold", "half=50.5", "whole number"),
        ("--threshold", "=50", "1 to 64 characters"),
    ],
)
def test_figures_that_are_none(
    refused: Run, folder: Path, option: str, value: str, said: str
) -> None:
    """A capacity or threshold that is no amount is refused, and not even a store is made."""
    assert said in refused("pool", "open", "team", option, value)
    assert [] == list(folder.iterdir())


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_names_that_are_none(refused: Run, folder: Path, name: str) -> None:
    """A pool's name has 1 to 255 characters; with another not even a store is made."""
    assert "1 to 255 characters" in refused("pool", "open", name)
    assert [] == list(folder.iterdir())


def test_every_part_of_a_policy_has_an_option(ledger: Run, store_url: str) -> None:
    """Calls, time to live, strictness and settlement; what is not named stays."""
    url = ("--url", store_url)
    ledger(
        *("pool", "open", "team", *url, "--capacity-requests", 9, "--stop-threshold-requests", 2),
        *("--lease-ttl", "90s", "--strict", "--settlement", "observed"),
    )
    ledger("pool", "adjust", "team", *url, "--lax", "--reason", "r")
    with Ledger.open(store_url, create=False) as book:
        policy = book.pool("team").status().policy
        assert policy == SharedPoolBudgetOptions(
            capacity_requests=9,
            stop_threshold_requests=2,
            lease_ttl=timedelta(seconds=90),
            settlement=SettlementPolicy.OBSERVED,
        )
    ledger(
        *("pool", "adjust", "team", *url, "--lease-ttl", "none", "--capacity-requests"),
        *("unlimited", "--reason", "r"),
    )
    (shown,) = json.loads(ledger("pool", "list", *url, "--format", "json").out)
    assert (None, "observed") == (shown["policy"]["lease_ttl"], shown["policy"]["settlement"])


def test_pools_below_pools(ledger: Run, refused: Run, store_url: str) -> None:
    """Made below another, carved out of it, listed with their place, and closed."""
    url = ("--url", store_url)
    ledger("pool", "open", "org", *url, "--capacity-usd", 90)
    ledger("pool", "open", "team", *url, "--capacity-usd", 50, "--parent", "org")
    ledger("pool", "open", "worker", *url, "--capacity-usd", 30, "--parent", "team", "--carved")
    rows = json.loads(ledger("pool", "list", *url, "--format", "json").out)
    places = [(row["pool"], row["parent"], row["carved"], row["closed"]) for row in rows]
    assert [
        ("org", None, False, False),
        ("team", "org", False, False),
        ("worker", "team", True, False),
    ] == places
    assert "60.000000" in ledger("remaining", "org", *url).out
    assert "has no parent" in refused("pool", "open", "org", *url, "--parent", "team")
    assert "worker (closed)" in ledger("pool", "close", "worker", *url, "--reason", "done").out
    assert "is closed" in refused("pool", "close", "worker", *url, "--reason", "again")
    shown = ledger("pool", "list", "--state", "all", *url).out
    assert "team (carved)" in shown
    assert "90.000000" in ledger("remaining", "org", *url).out


def test_expire_says_how_many(ledger: Run, refused: Run, store_url: str) -> None:
    """`expire` counts the leases of the named pool, or of all pools, and none of them twice."""
    with Ledger.open(store_url) as book:
        for name in ("a", "b"):
            options = SharedPoolBudgetOptions(lease_ttl=timedelta(milliseconds=1))
            budget = book.pool(name, options)
            budget.reserve(RequestExtensions(), UsageEstimate(), RequestBudget.unlimited())
    time.sleep(0.05)
    assert "1 lease expired\n" == ledger("expire", "b", "--url", store_url).out
    assert "1 lease expired\n" == ledger("expire", "--url", store_url).out
    assert "0 leases expired\n" == ledger("expire", "--url", store_url).out
    assert "no pool 'c'" in refused("expire", "c", "--url", store_url)
