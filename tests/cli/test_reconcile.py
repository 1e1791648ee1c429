"""`ledger reconcile`: the provider's bill against the books."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ledger import (
    Attribution,
    Ledger,
    OccurredAt,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    from_micros,
)
from tests.fixtures import Run

NOON_US = 1_709_208_000_000_000
CALLS = [("same", 100, 500), ("other", 120, 900), ("[bold]mine", 6, 40)]
BILL = """request_id,at,model,total_tokens,cost_usd
same,2024-02-29,gpt-5,100,0.0005
other,2024-02-29,gpt-5,130,0.00085
theirs,2024-02-29,gpt-5,9,0.0000065
"""


@pytest.fixture
def url(store_url: str) -> str:
    """Return a store with three calls of one day."""
    with Ledger.open(store_url) as book:
        budget = book.pool("team", SharedPoolBudgetOptions())
        for name, tokens, cost in CALLS:
            call = RequestExtensions(Attribution(model="gpt-5", request_id=name))
            call.insert(OccurredAt(from_micros(NOON_US)))
            lease = budget.reserve(call, UsageEstimate(), RequestBudget.unlimited())
            budget.record_used(lease, Usage(total_tokens=tokens, cost_micros_usd=cost))
    return store_url


@pytest.fixture
def bill(folder: Path) -> Path:
    """Return a file with what the provider billed for them."""
    path = folder / "bill.csv"
    path.write_text(BILL, encoding="utf-8")
    return path


def test_a_table_for_people(ledger: Run, url: str, bill: Path) -> None:
    """Both sides, what they differ by, and each list; exit code 1 because they differ."""
    shown = ledger("reconcile", bill, "--url", url, code=1).out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for line in (
        "Reconciliation of bill.csv",
        "Matched 1 100 0.000500 100 0.000500 0 0.000000",
        "Differing 1 130 0.000850 120 0.000900 +10 -0.000050",
        "Billed but not recorded 1 9 0.000007 0 0.000000 +9 +0.000007",
        "Recorded but not billed 1 0 0.000000 6 0.000040 -6 -0.000040",
        "Total 4 239 0.001357 226 0.001440 +13 -0.000083",
        "Differing: 1",
        "other 2024-02-29 gpt-5 3 team 5 130 0.000850 120 0.000900 +10 -0.000050",
        "[bold]mine 2024-02-29 gpt-5 team 7 0 0.000000 6 0.000040 -6 -0.000040",
    ):
        assert line in lines, shown
    kinds = ("Differing", "Billed but not recorded", "Recorded but not billed", "Matched")
    places = [lines.index(f"{kind}: 1") for kind in kinds]
    assert sorted(places) == places, "what differs is printed before what matches"
    assert "3 lines of the bill" in shown
    assert "billed USD hold 0.0000005 from rounding" in shown
    assert "'ledger record POOL --request-id ID --reason WHY' records a call" in lines
    assert "Recorded but not billed: it may be on the next bill" in lines
    assert max(map(len, shown.splitlines())) <= 120
    assert "before the corrections" not in shown
    short = ledger("reconcile", bill, "--url", url, "--top", 0, code=1).out
    assert "Recorded but not billed: 1" not in short
    assert "Total" in short


def test_programs_get_everything(ledger: Run, url: str, bill: Path) -> None:
    """CSV has a row for each match; JSON the whole, with the hash of the file."""
    shown = ledger("reconcile", bill, "--url", url, "--format", "csv", code=1).out
    rows = list(csv.DictReader(io.StringIO(shown)))
    assert ["matched", "differing", "billed_only", "recorded_only"] == [
        row["status"] for row in rows
    ]
    assert ("130", "120", "10") == tuple(
        rows[1][f"{side}_total_tokens"] for side in ("billed", "recorded", "difference")
    )
    assert "" == rows[1]["billed_input_tokens"]
    (whole,) = json.loads(ledger("reconcile", bill, "--url", url, "--format", "json", code=1).out)
    assert 64 == len(whole["sha256"])
    assert -83 == whole["difference"]["cost_micros_usd"]
    assert -83 == sum(part["difference"]["cost_micros_usd"] for part in whole["parts"])
    assert "0.500000" == whole["rounded_up_micros_usd"]
    assert [["team", 5, 4]] == whole["correctable"]["other"]


def test_apply(ledger: Run, url: str, folder: Path) -> None:
    """The differences are corrected, the exit code says so, and a second time does nothing."""
    path = folder / "agreed.csv"
    path.write_text(BILL.replace("theirs", "[bold]mine"), encoding="utf-8")
    shown = ledger("reconcile", path, "--apply", "--url", url).out
    assert 2 == shown.count(" applied")
    assert "These figures are those of before the corrections\n  'ledger reconcile' with" in shown
    assert "next bill" not in shown
    with Ledger.open(url) as book:
        assert 130 == book.pool("team").usage_of(5).total_tokens
        assert 9 == book.pool("team").status().seq
    again = ledger("reconcile", path, "--apply", "--url", url).out
    assert "Matched: 3" in again
    assert "applied" not in again
    assert "before the corrections" not in again
    with Ledger.open(url) as book:
        assert 9 == book.pool("team").status().seq


def test_options_narrow_it_down(ledger: Run, url: str, bill: Path, folder: Path) -> None:
    """An axis alone, tolerances, a mapping of one's own, and the filters of reports."""
    words = ("reconcile", bill, "--url", url)
    shown = ledger(*words, "--axis", "cost_micros_usd", "--tolerance-usd", "0.00005", code=1).out
    assert "tokens" not in shown
    assert "Differing: " not in shown
    shown = ledger(*words, "--since", "2024-03-01").out
    assert "3 left out by the filter" in shown
    mapping = folder / "own.toml"
    mapping.write_text('at = "at"\nmodel = "model"\ntotal_tokens = "total_tokens"\n')
    shown = ledger(*words, "--mapping", mapping, "--tolerance-tokens", 13).out
    assert "Matched: 1" in shown
    assert "mapping own.toml" in shown


def test_a_choice_that_is_none(refused: Run, bill: Path) -> None:
    """The parser's own words are kept from people."""
    said = refused("reconcile", bill, "--repeats", "nope")
    assert "'--repeats': 'nope' is not one of 'refuse', 'add', 'last'" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.csv"], "none.csv: the file cannot be read"),
        (["bill.csv", "--mapping", "nope"], "'nope' is none of openai-usage, openai-costs"),
        (["bill.csv", "--mapping", "nope.toml"], "cannot be read: No such file"),
        (["bill.csv", "--mapping", "openai-costs"], "no 'start_time', 'amount_currency'"),
        (["bill.csv", "--axis", "output_tokens"], "'output_tokens' is none of total_tokens"),
        (["bill.csv", "--tolerance-usd", "-1"], "not a decimal number"),
        (["bill.csv", "--pool", "nope"], "no pool 'nope'"),
    ],
)
def test_reconcile_refuses(refused: Run, url: str, bill: Path, words: list[str], said: str) -> None:
    """Exit code 2 and one line that says why; nothing is written."""
    assert bill.exists()
    assert said in refused("reconcile", *words, "--apply", "--url", url)
    with Ledger.open(url) as book:
        assert 7 == book.pool("team").status().seq


COSTS = """start_time,end_time,amount_value,amount_currency,line_item
1772323200,1772409600,0.8958740000000000,usd,"gpt-5, output"
1772409600,1772496000,0.1000000000000000,usd,"gpt-5, output"
1772496000,1772582400,0.2000000000000000,usd,"gpt-5, output"
"""


def test_the_mapping_that_fits_is_named(refused: Run, url: str, folder: Path) -> None:
    """Where the one that was asked for does not; a file that none fits is refused as ever."""
    path = folder / "costs.csv"
    path.write_text(COSTS, encoding="utf-8")
    said = refused("reconcile", path, "--url", url)
    assert said.endswith("It has the columns of --mapping openai-costs")
    path.write_text("colour,shape\nred,round\n", encoding="utf-8")
    assert "It has the columns of" not in refused("reconcile", path, "--url", url)


def test_what_is_only_looked_at_is_opened_to_be_read(ledger: Run, tmp_path: Path) -> None:
    """As on a standby; a file without WAL, which a writer would bring back, stays as it is."""
    store, copy, nothing = (tmp_path / name for name in ("a.db", "b.db", "bill.csv"))
    nothing.write_text("request_id,at,total_tokens\nnothing,2024-02-29,0\n", encoding="utf-8")
    with Ledger.open(f"sqlite:///{store}") as book:
        book.pool("team", SharedPoolBudgetOptions())
    with closing(sqlite3.connect(store)) as made:
        made.execute(f"VACUUM INTO '{copy}'")
    url = ("--url", f"sqlite:///{copy}")
    ledger("reconcile", nothing, *url)
    ledger("import", "team", nothing, "--dry-run", *url)
    with closing(sqlite3.connect(copy)) as looked:
        assert "delete" == looked.execute("PRAGMA journal_mode").fetchone()[0]
