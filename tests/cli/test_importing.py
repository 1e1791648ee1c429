"""`ledger import` and `ledger record`: history from files, and one call by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger import (
    Attribution,
    EntryKind,
    Ledger,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    reports,
)
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.fixtures import Run

LOG = "request_id,startTime,model,prompt_tokens,completion_tokens,total_tokens,spend\n" + "".join(
    f"q{one},2024-02-2{one}T10:00:00Z,m,10,5,15,0.000002\n" for one in range(3)
)


@pytest.fixture
def url(store_url: str) -> str:
    """Return a store with a pool."""
    with Ledger.open(store_url) as book:
        book.pool("team", SharedPoolBudgetOptions())
    return store_url


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log of LiteLLM."""
    path = tmp_path / "spend.csv"
    path.write_text(LOG, encoding="utf-8")
    return path


def test_a_log_is_imported(ledger: Run, url: str, log: Path) -> None:
    """Once; what was done, and what would be done, is said with the sums of both sides."""
    words = ("import", "team", log, "--mapping", "litellm", "--url", url, "--actor", "me")
    dry = ledger(*words, "--dry-run").out
    assert "3 calls to be imported; 0 imported before" in dry
    shown = ledger(*words, "--run", "history").out
    assert "3 calls imported; 0 imported before" in shown
    rows = {line.split("  ")[0]: line.split()[-2:] for line in shown.splitlines() if line}
    assert ["45", "0.000006"] == rows["The file says"] == rows["The journal says"]
    assert ["0", "0.000000"] == rows["Difference"]
    (found,) = json.loads(ledger(*words, "--format", "json").out)
    assert (0, 3, True) == (found["new"], found["known"], found["told"] == found["journal"])
    runs = ledger("report", "runs", "--url", url).out
    assert "history" in runs
    (heading,) = (line.split() for line in runs.splitlines() if line.startswith("Run "))
    (row,) = (line.split() for line in runs.splitlines() if line.startswith("history"))
    assert ("0", "3") == (row[heading.index("Requests")], row[heading.index("Imported")])
    assert "import" in ledger("pool", "show", "team", "--url", url).out
    assert ledger("verify", "--url", url).code == 0
    statement = ledger("report", "statement", "team", "--url", url).out
    assert " imported: spend.csv, SHA-256 " in statement
    assert "imported imported" not in statement


SESSION = "".join(
    json.dumps(
        {
            "type": "assistant",
            "timestamp": f"2024-02-20T10:00:0{number}.000Z",
            "message": {
                "id": f"msg_{number}",
                "model": "claude-sonnet-4-5",
                "usage": {"input_tokens": 9, "output_tokens": 5},
            },
        }
    )
    + "\n"
    for number in range(3)
)


def test_a_session_is_priced(ledger: Run, refused: Run, store_url: str, tmp_path: Path) -> None:
    """By genai-prices alone, or by a table of one's own before it, or by that alone."""
    log = tmp_path / "session.jsonl"
    log.write_text(SESSION, encoding="utf-8")
    table = tmp_path / "prices.toml"
    table.write_text('version = "May"\n[[price]]\nmodel = "claude-*"\ninput = 1\noutput = 2\n')
    with Ledger.open(store_url) as book:
        for name in ("library", "own", "none"):
            book.pool(name, SharedPoolBudgetOptions(capacity_cost_micros_usd=10**6))
    words = (log, "--mapping", "claude-code", "--url", store_url, "--prices")
    # 9 at 3 a million and 5 at 15, three times
    assert "0.000306" in ledger("import", "library", *words, "genai-prices").out
    assert "0.000057" in ledger("import", "own", *words, table, "--dry-run").out
    assert "0.000057" in ledger("import", "own", *words, table, "--no-library").out
    table.write_text('[[price]]\nmodel = "m"\ninput = 1\n')
    said = ledger("import", "none", *words, table, "--no-library").out
    assert "no price for claude-sonnet-4-5 (3)" in said
    refused("import", "none", *words, tmp_path / "missing.toml")
    refused("import", "none", *words, "genai-prices", "--no-library")


def test_a_forgotten_price_list_takes_nothing_back(
    ledger: Run, store_url: str, tmp_path: Path
) -> None:
    """A log of LiteLLM that has costs on some lines, and grows."""
    log, table = tmp_path / "spend.csv", tmp_path / "prices.toml"
    first, priced, more = (
        f"q{one},2024-02-20T10:00:00Z,m,1000,0,1000,{usd}\n"
        for one, usd in enumerate(("0", "0.0035", "0.0035"))
    )
    head = LOG.splitlines(keepends=True)[0]
    log.write_text(head + first + priced, encoding="utf-8")
    table.write_text('[[price]]\nmodel = "m"\ninput = "3.5"\n', encoding="utf-8")
    words = ("import", "team", log, "--mapping", "litellm", "--url", store_url)
    ledger("pool", "open", "team", "--url", store_url, "--capacity-usd", 9)
    assert "0.007000" in ledger(*words, "--prices", table, "--no-library").out
    log.write_text(head + first + priced + more, encoding="utf-8")
    shown = ledger(*words).out
    assert "1 call imported; 2 imported before; SHA-256" in shown
    assert 2 == shown.count("0.010500")
    again = ledger(*words, "--prices", table, "--no-library").out
    assert "0 calls imported; 3 imported before; SHA-256" in again


@pytest.mark.parametrize(
    ("team", "org", "unpriced"),
    [
        ("capacity_cost_micros_usd", "capacity_tokens", 3),
        ("capacity_tokens", "capacity_cost_micros_usd", 3),
        ("capacity_tokens", "capacity_tokens", 0),
    ],
    ids=["its own", "of the pool above", "none"],
)
def test_calls_without_a_cost_are_said_where_cost_is_limited(
    ledger: Run, store_url: str, tmp_path: Path, team: str, org: str, unpriced: int
) -> None:
    """How many, and what to do: also before, and again; until they are corrected."""
    log = tmp_path / "session.jsonl"
    log.write_text(SESSION, encoding="utf-8")
    limits = {"capacity_tokens": 10**6, "capacity_cost_micros_usd": 10**6}
    with Ledger.open(store_url) as book:
        book.pool("org", SharedPoolBudgetOptions(**{org: limits[org]}))
        book.pool("team", SharedPoolBudgetOptions(**{team: limits[team]}), parent="org")
    words = ("import", "team", log, "--mapping", "claude-code", "--url", store_url)
    said = "3 calls unpriced: the file says nothing of what the pool limits"
    for more in (("--dry-run",), (), ()):
        shown = ledger(*words, *more).out
        assert (unpriced == 3) == (said in shown) == ("ledger reprice --dry-run" in shown)
        (found,) = json.loads(ledger(*words, "--dry-run", "--format", "json").out)
        assert unpriced == found["unpriced"]
    with Ledger.open(store_url, create=False) as book:
        (first, *_others) = book.entries("team", kind=EntryKind.IMPORT)
        assert unpriced == reports.unpriced(book).get("team", 0)
        usage = Usage(input_tokens=9, output_tokens=5, total_tokens=14, cost_micros_usd=1)
        book.pool("team").correct(first.seq, usage, "by its price")
    assert (unpriced == 3) == ("2 calls unpriced" in ledger(*words).out)


def test_other_attribution_has_no_effect_on_what_was_imported(
    ledger: Run, url: str, log: Path
) -> None:
    """It is said of how many calls; not where the books say the same, or no option says more."""
    words = ("import", "team", log, "--mapping", "litellm", "--url", url)
    said = "3 imported before with another attribution, which stays"
    ledger(*words, "--tenant", "me")
    for more, is_said in (
        ((), False),
        (("--tenant", "me"), False),
        (("--tenant", "you"), True),
        (("--provider", "anthropic", "--tenant", "me", "--dry-run"), True),
    ):
        assert is_said == (said in ledger(*words, *more).out)
        (found,) = json.loads(ledger(*words, *more, "--format", "json").out)
        assert 3 * is_said == found["attributed_before"]
    with Ledger.open(url, create=False) as book:
        found = [one.attribution for one in book.entries("team", kind=EntryKind.IMPORT)]
    assert [("me", None)] * 3 == [(one.tenant, one.provider) for one in found if one is not None]


def test_exact_costs_are_kept_where_asked_for(ledger: Run, url: str, log: Path) -> None:
    """The micro-USD are charged; the entry has what the file says."""
    log.write_text(LOG.replace("0.000002", "0.00000015"), encoding="utf-8")
    ledger("import", "team", log, "--mapping", "litellm", "--exact-costs", "--url", url)
    with Ledger.open(url) as book:
        found = [one.detail["report"] for one in book.entries("team", kind=EntryKind.IMPORT)]
    assert [{"cost_usd": "0.00000015"}] * 3 == found


def test_a_bad_file_is_refused_and_named(ledger: Run, refused: Run, url: str, log: Path) -> None:
    """Nothing of it is imported. Changes of lines without ids are an option's matter."""
    log.write_text(LOG.replace("2024-02-22", "2999-02-22"), encoding="utf-8")
    words = ("import", "team", log, "--mapping", "litellm", "--url", url)
    assert "spend.csv, line 4: time: " in str(refused(*words))
    mapping = log.with_suffix(".toml")
    mapping.write_text('at = "startTime"\ninput_tokens = "prompt_tokens"\n', encoding="utf-8")
    log.write_text(LOG, encoding="utf-8")
    words = ("import", "team", log, "--mapping", mapping, "--url", url)
    ledger(*words)
    log.write_text(LOG.replace(",10,", ",11,"), encoding="utf-8")
    assert "--changed correct" in str(refused(*words))
    assert "3 corrected" in ledger(*words, "--changed", "correct").out
    assert "3 calls imported" in ledger(*words, "--source", "other").out


def test_what_was_corrected_since_is_a_difference(ledger: Run, url: str, log: Path) -> None:
    """The exit code is then 1."""
    words = ("import", "team", log, "--mapping", "litellm", "--url", url)
    ledger(*words)
    with Ledger.open(url, create=False) as book:
        book.pool("team").correct(2, Usage(total_tokens=1), "by hand")
    assert "Difference" in ledger(*words, code=1).out


def test_one_call_is_recorded(ledger: Run, refused: Run, url: str, log: Path) -> None:
    """Under its request id once; a log that tells of it later does not double it."""
    words = ("record", "team", "--url", url, "--reason", "lost", "--at", "2024-02-20T10:00:00Z")
    usage = ("--input-tokens", 10, "--output-tokens", 5, "--total-tokens", 15)
    call = (*words, "--request-id", "q0", *usage, "--cost-usd", "0.000002", "--model", "m")
    assert "entry 2  recorded  tokens 15  USD 0.000002\n" == ledger(*call).out
    assert "entry 2  was there  tokens 15  USD 0.000002\n" == ledger(*call).out
    again = str(refused(*words, "--request-id", "q0", "--cost-usd", "1"))
    assert "'q0' is in the books: entry 2 of pool 'team'" in again
    assert "(ledger correct)" in again
    shown = ledger("import", "team", log, "--mapping", "litellm", "--url", url).out
    assert "2 calls imported; 1 imported before" in shown
    assert "no request id says" in str(refused(*words, "--cost-usd", "1"))
    ledger(*words, "--cost-usd", "1", "--key", "mine")


def test_a_total_that_is_not_named_is_the_sum_of_input_and_output(ledger: Run, url: str) -> None:
    """What the command says, what a report adds up, and what the pool is charged."""
    words = ("record", "team", "--url", url, "--reason", "lost", "--request-id", "q1")
    said = ledger(*words, "--input-tokens", 5, "--output-tokens", 6, "--cost-usd", "0.01").out
    assert "recorded  tokens 11  USD 0.010000" in said
    (row,) = json.loads(ledger("report", "spend", "--url", url, "--format", "json").out)
    assert (5, 6, 11) == tuple(row[f"{name}_tokens"] for name in ("input", "output", "total"))
    with Ledger.open(url, create=False) as book:
        assert 11 == book.pool("team").status().balance.committed.tokens


def test_a_call_is_recorded_by_the_token_of_its_lease(
    ledger: Run, refused: Run, url: str, new_store: Callable[..., str]
) -> None:
    """As the program that made it would record it, so that both record it once."""
    with Ledger.open(new_store("sqlite")) as lost:
        elsewhere = lost.pool("team", SharedPoolBudgetOptions())
        for _ in range(3):
            lease = elsewhere.reserve(EXTENSIONS, tokens(9), UNLIMITED)
    words = ("record", "team", "--url", url, "--reason", "lost", "--lease", lease.token)
    more = ("--total-tokens", 7, "--at", "2024-02-20T10:00:00Z", "--actor", "me")
    assert f"lease {lease.token}  recorded  tokens 7" in ledger(*words, *more).out
    there = f"lease {lease.token}  was there  tokens 7  USD 0.000000\n"
    assert there == ledger(*words, *more).out
    # Nor does it count who says it, why, or when: as for a call under a key.
    assert there == ledger(*words[:-3], "again", *words[-2:], "--total-tokens", 7).out
    with Ledger.open(url, create=False) as book:
        assert 7 == book.pool("team").status().balance.committed.tokens
        (day,) = reports.spend(book, by=["day"]).rows  # the request is of the day of its usage
        assert ({"day": "2024-02-20"}, 1, 7) == (day.group, day.requests, day.total_tokens)
    said = str(refused(*words, "--total-tokens", 8))
    assert "--lease: its call is in the books already, with other figures: entry 3 of pool" in said
    assert "says total_tokens 7 (not 8); correct that entry" in said
    # Who recorded it and why is kept, and said.
    (line,) = (one for one in _statement(ledger, url) if one["kind"] == "settlement")
    assert "lost, by me" == line["reason"]
    assert "lost, by me" in ledger("report", "statement", "team", "--url", url).out
    exported = ledger("export", "-", "--format", "jsonl", "--url", url).out.splitlines()
    assert "lost, by me" == json.loads(exported[-1])["reason"]


@pytest.mark.parametrize("estimate", [None, UsageEstimate(total_tokens=9)])
def test_a_call_that_the_program_recorded_by_itself_was_there(
    ledger: Run,
    refused: Run,
    url: str,
    new_store: Callable[..., str],
    estimate: UsageEstimate | None,
) -> None:
    """Also if it recorded a part, and the rest was assumed: the figures are of both together."""
    whom = Attribution(model="m", run_id="run")
    with Ledger.open(new_store("sqlite")) as lost:
        elsewhere = lost.pool("team", SharedPoolBudgetOptions())
        for _ in range(3):
            lease = elsewhere.reserve(EXTENSIONS, tokens(9), UNLIMITED)
    with Ledger.open(url, create=False) as book:
        team = book.pool("team")
        team.record_lost(lease, Usage(total_tokens=4), estimate=estimate, attribution=whom)
        charged = team.status().balance.committed.tokens
    assert charged == (4 if estimate is None else 9)
    words = ("record", "team", "--url", url, "--reason", "lost", "--lease", lease.token)
    assert "was there" in ledger(*words, "--total-tokens", charged).out
    said = str(refused(*words, "--total-tokens", 1, "--cost-usd", "0.5"))
    other = f"says total_tokens {charged} (not 1), cost_micros_usd 0 (not 500,000); correct"
    assert other in said
    with Ledger.open(url, create=False) as book:
        assert charged == book.pool("team").status().balance.committed.tokens


def test_a_call_of_a_lease_is_recorded_in_one_pool(
    ledger: Run, refused: Run, url: str, new_store: Callable[..., str]
) -> None:
    """A lost one is not counted in a second pool, and one that is there is settled."""
    with Ledger.open(new_store("sqlite")) as elsewhere:
        mine = elsewhere.pool("team", SharedPoolBudgetOptions())
        lost = [mine.reserve(EXTENSIONS, tokens(9), UNLIMITED) for _ in range(3)][-1]
    with Ledger.open(url, create=False) as book:
        book.pool("other", SharedPoolBudgetOptions())
        there = book.pool("team").reserve(EXTENSIONS, tokens(9), UNLIMITED)
    words = ("--url", url, "--reason", "lost", "--total-tokens", 7, "--lease")
    assert "recorded" in ledger("record", "team", *words, lost.token).out
    said = str(refused("record", "other", *words, lost.token))
    assert "in the books already, in another pool: entry 4 of pool 'team'" in said
    for pool in ("team", "other"):
        said = str(refused("record", pool, *words, there.token))
        assert "is not lost: entry 2 of pool 'team' reserved it; 'ledger leases settle'" in said
    with Ledger.open(url, create=False) as book:
        assert 1 == book.pool("other").status().seq
        assert 7 == book.pool("team").status().balance.committed.tokens


def _statement(ledger: Run, url: str) -> list[dict[str, Any]]:
    said = ledger("report", "statement", "team", "--url", url, "--format", "json").out
    (found,) = json.loads(said)
    lines: list[dict[str, Any]] = found["lines"]
    return lines


def test_a_call_under_a_key_is_in_the_books(ledger: Run, refused: Run, url: str, log: Path) -> None:
    """Recorded and then imported, or the other way round, without the time: it is there once."""
    words = ("record", "team", "--url", url, "--reason", "lost", "--total-tokens", 15)
    first = (*words, "--request-id", "q0", "--key", "k")
    assert "recorded" in ledger(*first, "--at", "2024-02-20T10:00:00Z").out
    assert "was there" in ledger(*first).out
    shown = ledger("import", "team", log, "--mapping", "litellm", "--url", url).out
    assert "2 calls imported; 0 imported before" in shown
    said = str(refused(*words, "--request-id", "q1", "--key", "other"))
    assert "'q1' is in the books: entry 3 of pool 'team'" in said
