"""`ledger report`: the same figures for people and for programs, by the same options."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from ledger import (
    Attribution,
    Ledger,
    OccurredAt,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
    UsageEstimate,
)
from tests.conftest import STORES
from tests.fixtures import Lines, Run

DAY = datetime(2024, 2, 29, 23, 30, tzinfo=UTC)
REPORTS = ["runs", "spend", "estimates", "leases", "denials"]


@pytest.fixture(scope="module", params=STORES)
def filled(request: pytest.FixtureRequest, module_store: Callable[..., str]) -> str:
    """Return a store with calls of two models on two days, a denial, and an open lease."""
    store_url = module_store(request.param)
    with Ledger.open(store_url, record_denials=True) as book:
        budget = book.pool("team", SharedPoolBudgetOptions(capacity_tokens=1_000))
        for number, (model, parent) in enumerate([("m1", None), ("m2", "run-0"), ("m1", "run-0")]):
            who = RequestExtensions(
                Attribution(
                    run_id=f"run-{number}", parent_run_id=parent, model=model, tags={"team": "x"}
                ),
                OccurredAt(DAY + timedelta(minutes=20 * number)),
            )
            estimate = UsageEstimate(total_tokens=100, cost_micros_usd=1_000_000)
            lease = budget.reserve(who, estimate, RequestBudget.unlimited())
            if number < 2:
                used = Usage(total_tokens=80 + number, cost_micros_usd=1_500_000)
                budget.record_used(lease, used)
        with pytest.raises(ThresholdExceededError):
            budget.reserve(who, UsageEstimate(total_tokens=9_999), RequestBudget.unlimited())
        book.pool("other", SharedPoolBudgetOptions())
    return store_url


def test_runs_with_their_sub_runs(ledger: Run, lines: Lines, filled: str) -> None:
    """`--tree` indents what is below a run, and adds it up."""
    shown = lines(ledger("report", "runs", "--tree", "--url", filled).out)
    assert any(line.startswith("run-0 80 1.500000 3 1 0 0 161 300 3.000000") for line in shown)
    rows = json.loads(ledger("report", "runs", "--tree", "--url", filled, "--format", "json").out)
    assert [("run-0", 0, 161), ("run-1", 1, 81), ("run-2", 1, 0)] == [
        (row["run_id"], row["depth"], row["with_subruns"]["total_tokens"]) for row in rows
    ]
    flat = csv.DictReader(
        ledger("report", "runs", "--tree", "--url", filled, "--format", "csv").out.splitlines()
    )
    assert ["161", "81", "0"] == [row["with_subruns_total_tokens"] for row in flat]


def test_spend_by_day_in_a_time_zone(ledger: Run, lines: Lines, filled: str) -> None:
    """Half past eleven in London is the next day in Berlin."""
    command = ("report", "spend", "--url", filled, "--by", "day,model")
    london = csv.DictReader(ledger(*command, "--format", "csv").out.splitlines())
    assert [("2024-02-29", "m2", "81"), ("2024-02-29", "m1", "80"), ("2024-03-01", "m1", "0")] == [
        (row["day"], row["model"], row["total_tokens"]) for row in london
    ]
    berlin = lines(ledger(*command, "--zone", "Europe/Berlin").out)
    assert "Spend by day (Europe/Berlin), model" == berlin[0]
    assert {"2024-03-01"} == {line.split()[0] for line in berlin if line.startswith("2024")}
    assert any(line.startswith("Total 3 1 ") for line in berlin)


def test_the_dearest_and_the_rest(ledger: Run, lines: Lines, filled: str) -> None:
    """`--top` names how many groups there are in the row of the others."""
    shown = lines(ledger("report", "spend", "--url", filled, "--by", "run", "--top", 1).out)
    assert any(line.startswith("run-1 1 0 0 0 81 ") for line in shown)
    assert any(line.startswith("other (2) 2 1 0 0 80 ") for line in shown)


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ((), 161),
        (("--pool", "other"), 0),
        (("--pool", "other", "--pool", "team"), 161),
        (("--pool", "team", "--descendants"), 161),
        (("--since", "2024-02-29T23:50"), 81),
        (("--until", "2024-03-01T00:50", "--zone", "Europe/Berlin"), 80),
        (("--since", "2024-02-29T23:50:00+00:00", "--recorded"), 161),
        (("--run", "run-1"), 81),
        (("--model", "m1"), 80),
        (("--tenant", "t"), 0),
        (("--agent", "t"), 0),
        (("--operation", "t"), 0),
        (("--provider", "t"), 0),
        (("--tag", "team=x"), 161),
        (("--tag", "team=x", "--tag", "more=y"), 0),
        (("--pool", "team", "--as-of", 3), 80),
    ],
)
def test_which_entries(ledger: Run, filled: str, options: tuple[object, ...], tokens: int) -> None:
    """Each option of the filter narrows the report down."""
    out = ledger("report", "spend", "--url", filled, "--by", "", *options, "--format", "json").out
    assert tokens == sum(row["total_tokens"] for row in json.loads(out))


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--since", "yesterday"), "write 2024-02-29"),
        (("--zone", "Mars"), "IANA"),
        (("--tag", "team"), "NAME=VALUE"),
        (("--as-of", "3"), "one pool"),
        (("--as-of", "99", "--pool", "team"), "entries 1 to"),
        (("--since", "2024-02-02", "--until", "2024-02-01"), "before"),
        (("--pool", "nope"), "no pool 'nope'"),
    ],
)
def test_options_that_are_none(
    refused: Run, filled: str, report: str, options: tuple[str, ...], said: str
) -> None:
    """What cannot be meant is refused in one line that says what could be."""
    assert said in refused("report", report, "--url", filled, *options)


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("output_format", ["table", "json", "csv"])
def test_an_empty_store(ledger: Run, store_url: str, report: str, output_format: str) -> None:
    """A report of nothing is empty and no error."""
    Ledger.open(store_url).close()
    options = ("--list", "stale") if report == "leases" else ()
    out = ledger("report", report, "--url", store_url, "--format", output_format, *options).out
    if output_format == "json":
        assert [] == json.loads(out)
    elif output_format == "csv":
        assert 1 == len(out.splitlines())
    else:
        assert out.strip()


def test_pools_for_programs(ledger: Run, filled: str) -> None:
    """`pool list` and `pool show` have JSON and CSV with integers."""
    url = ("--url", filled)
    team, other = json.loads(ledger("pool", "list", *url, "--format", "json").out)
    assert ("team", 161, 3_000_000, 100) == (
        team["pool"],
        team["committed"]["tokens"],
        team["committed"]["cost_micros_usd"],
        team["reserved"]["tokens"],
    )
    assert 1_000 == team["policy"]["capacity_tokens"]
    assert "other" == other["pool"]
    rows = csv.DictReader(ledger("pool", "list", *url, "--format", "csv").out.splitlines())
    assert ["161", "0"] == [row["committed_tokens"] for row in rows]
    (shown,) = json.loads(ledger("pool", "show", "team", *url, "--format", "json").out)
    assert ["opening", "reservation", "settlement", "denial"] == [
        one["kind"] for one in shown["movements"]
    ]
    assert 161 == shown["closing"]["committed"]["tokens"]
    moved = csv.DictReader(ledger("pool", "show", "team", *url, "--format", "csv").out.splitlines())
    assert {"reservation": "300", "settlement": "-200"}.items() <= {
        row["kind"]: row["reserved_tokens"] for row in moved
    }.items()


def test_a_statement_line_by_line(ledger: Run, lines: Lines, filled: str) -> None:
    """Opening balance, each entry with what it moved, closing balance; the same for programs."""
    command = ("report", "statement", "team", "--url", filled)
    shown = lines(ledger(*command).out)
    assert "Statement of pool team" == shown[0]
    assert "Opening balance 0 0.000000 0 0.000000" in shown
    assert any(
        "settlement 80 1.500000 -100 -1.000000 80 1.500000 0 0.000000 run-0 m1 overrun" in line
        for line in shown
    )
    assert any(line.endswith("run-2 m1 capacity, tokens") for line in shown)
    assert "Charged 161 3.000000" == shown[-2]
    assert "Closing balance 161 3.000000 100 1.000000" == shown[-1]
    found = list(csv.DictReader(ledger(*command, "--format", "csv").out.splitlines()))
    assert ["1", "2", "3", "4", "5", "6", "7"] == [row["seq"] for row in found]
    assert "161" == found[-1]["balance_committed_tokens"]
    assert "1000" == found[0]["policy_capacity_tokens"]
    (whole,) = json.loads(ledger(*command, "--format", "json", "--as-of", 2).out)
    assert [0, 100] == [row["balance"]["reserved"]["tokens"] for row in whole["lines"]]
    assert ("team", 0, 100) == (
        whole["pool"],
        whole["opening"]["committed"]["tokens"],
        whole["closing"]["reserved"]["tokens"],
    )
    (whole,) = json.loads(ledger(*command, "--format", "json").out)
    assert 161 == whole["charged"]["tokens"] == whole["closing"]["committed"]["tokens"]
    later = ledger(*command, "--format", "json", "--since", "2999-01-01").out
    (whole,) = json.loads(later)
    assert (161, [], 0) == (
        whole["opening"]["committed"]["tokens"],
        whole["lines"],
        whole["charged"]["tokens"],
    )


def test_estimates_with_one_to_be_tried(ledger: Run, lines: Lines, filled: str) -> None:
    """Ratios and overruns, and what another estimate would have held."""
    command = ("report", "estimates", "--url", filled, "--by", "provider", "--try-usd", "1.25")
    shown = lines(ledger(*command).out)
    assert "(none) tokens 2 200 161 0 0.0% 0.800 0.810 0.810 0.810 0.810" in shown
    assert "(none) USD 2 2.000000 3.000000 2 100.0% 1.500 1.500 1.500 1.500 1.500" in shown
    assert "(none) USD fixed 1.250000 2 0.500000 0.000000" in shown
    tokens, cost = csv.DictReader(ledger(*command, "--format", "csv").out.splitlines())
    assert ("0.810000", "", "81") == (
        tokens["ratio_max"],
        tokens["fixed_estimate"],
        tokens["max_estimate"],
    )
    assert ("1.500000", "500000") == (cost["ratio_p50"], cost["fixed_overrun"])


def test_leases_by_age(ledger: Run, lines: Lines, filled: str) -> None:
    """Ages and the stale ones for people; either for programs."""
    with Ledger.open(filled) as book:
        reserved_us = next(iter(book.entries("team", after=5))).recorded_at
    reserved_at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=reserved_us)
    now = reserved_at + timedelta(minutes=10)
    command = ("report", "leases", "--url", filled, "--now", now.isoformat())
    shown = lines(ledger(*command, "--stale-after", "5m").out)
    assert "1m to 10m 0 0 0 0.000000" in shown
    assert "10m to 1h 1 0 100 1.000000" in shown
    assert "Stale: 1 lease granted 5m ago or before, and not ended" in shown
    assert any(
        line.startswith(f"team 6 open {reserved_at:%Y-%m-%dT%H:%M:%S}Z 10m 100 1.000000 run-2")
        for line in shown
    )
    (stale,) = json.loads(
        ledger(*command, "--stale-after", "10m", "--list", "stale", "--format", "json").out
    )
    assert ("run-2", 600, 100) == (stale["run_id"], stale["age_s"], stale["held"]["tokens"])
    assert 1 == len(ledger(*command, "--list", "late", "--format", "csv").out.splitlines())


def test_denials_by_who(ledger: Run, lines: Lines, filled: str) -> None:
    """Each of them, or added up, with the capacity that would have let them in."""
    command = ("report", "denials", "--url", filled)
    assert any(line.startswith("run-2 ") for line in lines(ledger(*command).out))
    assert any("9,999 739" in line for line in lines(ledger(*command).out))
    (row,) = csv.DictReader(
        ledger(*command, "--by", "agent,model", "--format", "csv").out.splitlines()
    )
    assert ("team", "", "m1", "1", "9260") == (
        row["pool"],
        row["agent"],
        row["model"],
        row["denials"],
        row["tokens_each"],
    )
    shown = lines(ledger(*command, "--by", "model").out)
    assert any(line.startswith("team m1 1 0 9,999 ") for line in shown)
    none = ledger(*command, "--pool", "other").out
    assert "none (those of calls with an idempotency key are kept" in " ".join(none.split())


def test_a_forecast_and_what_it_assumes(ledger: Run, lines: Lines, filled: str) -> None:
    """When tokens run out, that dollars never do, and on what that rests."""
    command = ("report", "forecast", "team", "--url", filled, "--now", "2024-03-01T00:30")
    out = ledger(*command, "--window", "1h").out
    shown = lines(out)
    assert "Forecast of pool team at 2024-03-01T00:30:00Z" == shown[0]
    assert any(line.startswith("tokens 1,000 739 0 100 161 ") for line in shown)
    assert any(line.endswith("never: unlimited") for line in shown)
    assert "the pool is no older" not in out
    assert "(the pool is no older)" in ledger(*command).out
    (row,) = json.loads(ledger(*command, "--window", "1h", "--format", "json").out)
    tokens, _cost, _requests = row["axes"]
    assert ("runs_out", 161, 3_600, True) == (
        tokens["outlook"],
        tokens["spent"],
        row["window_s"],
        row["held_is_spent"],
    )
    runs_out = datetime.fromisoformat(tokens["runs_out_at"]) - DAY - timedelta(hours=1)
    assert timedelta(hours=4.5) < runs_out < timedelta(hours=4.6)


@pytest.mark.parametrize(
    "words",
    [
        ("forecast", "team", "--window", "0d"),
        ("forecast", "team", "--window", "week"),
        ("forecast", "nope"),
        ("statement", "nope"),
        ("statement", "team", "--until", "2001-01-01"),
        ("leases", "--stale-after", "1"),
        ("denials", "--by", "day"),
        ("estimates", "--by", "day"),
        ("estimates", "--try-tokens", "-1"),
    ],
)
def test_words_that_are_none(refused: Run, filled: str, words: tuple[str, ...]) -> None:
    """Lengths of time, dimensions and pools that are none, in one line each."""
    assert refused("report", *words, "--url", filled)


def test_an_empty_table_says_that_there_is_nothing(ledger: Run, store_url: str) -> None:
    """In place of a rule with nothing below."""
    with Ledger.open(store_url) as book:
        book.pool("team", SharedPoolBudgetOptions())
    for words in (("spend",), ("runs",), ("credits",)):
        assert "none\n" in ledger("report", *words, "--url", store_url).out


def test_a_tag_is_named_where_no_dimension_is_of_its_name(refused: Run, filled: str) -> None:
    """Whoever asks for a tag by its bare name is told how to write it."""
    said = refused("report", "spend", "--by", "plan", "--url", filled)
    assert "a tag of this name is 'tag:plan'" in str(said)


def test_shared_options_are_those_of_every_report(ledger: Run) -> None:
    """The filter is declared once: each report that takes one takes all of it."""
    for report in REPORTS:
        shown = ledger("report", report, "--help").out
        for option in ("--pool", "--since", "--until", "--zone", "--tag", "--as-of", "--recorded"):
            assert option in shown


@pytest.mark.parametrize("report", ["statement", "forecast"])
def test_a_report_of_one_pool_is_piped_whole(program: Run, filled: str, report: str) -> None:
    """Where nobody looks there is no colour, and nothing is left out."""
    ended = program("report", report, "team", "--url", filled, TERM="xterm-256color", COLUMNS="40")
    assert "" == ended.err
    assert "\x1b" not in ended.out
    assert "No room" not in ended.out


def test_pools_below_one_that_is_named_are_spoken_of(ledger: Run, store_url: str) -> None:
    """The balance of the one above has what they spent, and a report on it alone has not."""
    with Ledger.open(store_url) as book:
        book.pool("org", SharedPoolBudgetOptions())
        team = book.pool("team", SharedPoolBudgetOptions(), parent="org")
        lease = team.reserve(RequestExtensions(), UsageEstimate(), RequestBudget.unlimited())
        team.record_used(lease, Usage(total_tokens=5))
    said = "Pools below org are not counted (--descendants counts them, too)."
    words = ("report", "spend", "--url", store_url, "--format", "csv")
    assert said in ledger(*words, "--pool", "org").err
    export = ("export", "-", "--format", "csv", "--url", store_url)
    assert said not in ledger(*export, "--pool", "org").err
    assert said in ledger("export", "o.hledger", "--url", store_url, "--pool", "org").err
    for more in (("--pool", "org", "--descendants"), ("--pool", "team"), ()):
        assert "below" not in ledger(*words, *more).err
