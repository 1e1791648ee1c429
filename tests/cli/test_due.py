"""Commands that add up entries say which leases are due and not yet charged."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from ledger import Ledger, SharedPoolBudgetOptions, UsageEstimate
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import Clock
from tests.fixtures import Run

SAID = "1 lease is due and not yet charged with 40 tokens and 0.000453 USD: run 'ledger expire'"
REPORTS = {
    "spend": ["report", "spend"],
    "runs": ["report", "runs"],
    "run trees": ["report", "runs", "--tree"],
    "statement": ["report", "statement", "team"],
    "forecast": ["report", "forecast", "team"],
}


@pytest.fixture
def url(store_url: str) -> str:
    """Return a store whose pool `team` granted a lease that is due."""
    with Ledger.open(store_url, clock=Clock()) as book:
        options = SharedPoolBudgetOptions(lease_ttl=timedelta(minutes=1))
        estimate = UsageEstimate(total_tokens=40, cost_micros_usd=453)
        book.pool("team", options).reserve(EXTENSIONS, estimate, UNLIMITED)
    return store_url


@pytest.mark.parametrize("words", REPORTS.values(), ids=REPORTS)
def test_reports_say_so(ledger: Run, url: str, words: list[str]) -> None:
    """Below the table, and on standard error where a program reads the rows."""
    assert SAID in ledger(*words, "--url", url).out
    for form in ("json", "csv"):
        found = ledger(*words, "--url", url, "--format", form)
        assert SAID not in found.out
        assert [SAID] == [line for line in found.err.splitlines() if "due" in line]
    ledger("expire", "--url", url)
    assert "not yet charged" not in ledger(*words, "--url", url).out


def test_json_has_it_as_a_field(ledger: Run, url: str) -> None:
    """Where it is one object, and no list of rows."""
    for words in (["report", "forecast", "team"], ["pool", "show", "team"]):
        (found,) = json.loads(ledger(*words, "--url", url, "--format", "json").out)
        assert 1 == found["due"]["leases"]
        assert 453 == found["due"]["charged"]["cost_micros_usd"]


def test_an_export_says_so_at_its_end(ledger: Run, url: str, tmp_path: Path) -> None:
    """Unless it is made again up to an entry: what is due is none of these."""
    words = ["export", tmp_path / "entries.csv", "--url", url]
    assert SAID in ledger(*words).err
    assert SAID not in ledger(*words, "--up-to", "team=2").err
