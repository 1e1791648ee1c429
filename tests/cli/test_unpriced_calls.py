"""The command line, and calls that leave out a figure which their pool limits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ledger import Ledger, Unpriced, Usage, UsageEstimate
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.fixtures import Run


def test_a_policy_s_option_lets_them_through(ledger: Run, store_url: str) -> None:
    """What is let through is counted in reports, for people and for programs, and in exports."""
    url = ("--url", store_url)
    ledger("pool", "open", "team", *url, "--capacity-usd", 9, "--unpriced", "flag")
    with Ledger.open(store_url) as book:
        budget = book.pool("team")
        assert Unpriced.FLAG is budget.status().policy.unpriced
        lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=5), UNLIMITED)
        budget.record_used(lease, Usage(total_tokens=5))
    (run,) = json.loads(ledger("report", "runs", *url, "--format", "json").out)
    assert 1 == run["unpriced"]
    header, row = ledger("report", "spend", *url, "--format", "csv").out.splitlines()
    assert ("unpriced", "1") in zip(header.split(","), row.split(","), strict=True)
    assert "Unpriced" in ledger("report", "runs", *url).out
    assert 1 == json.loads(ledger("pool", "list", *url, "--format", "json").out)[0]["unpriced"]
    assert "unpriced" in ledger("pool", "list", *url).out
    assert "2 entries unpriced" in ledger("report", "statement", "team", *url, "--wide").out
    said = ledger("export", "out.csv", "--pool", "team", *url).err
    assert "3 rows, 2 rows of them flagged unpriced" in said
    said = ledger("export", "focus.csv", "--format", "focus", "--pool", "team", *url).err
    assert "1 row, 1 row of them flagged unpriced" in said
    ledger("pool", "adjust", "team", *url, "--unpriced", "refuse", "--reason", "r")
    (shown,) = json.loads(ledger("pool", "list", *url, "--format", "json").out)
    assert "refuse" == shown["policy"]["unpriced"]


def test_a_simulation_without_prices_is_refused(
    ledger: Run, traffic: Callable[..., Any], folder: Path
) -> None:
    """A budget in dollars would look untouched; the option says that it is meant."""
    words = ("simulate", traffic(3), "--capacity-usd", 9)
    said = ledger(*words, code=2).err
    assert "line 2, has no cost: give the prices of tokens (--input-price, --output-price)" in said
    assert [] == list(folder.glob("*.db*"))  # nothing was written
    assert "3 admitted" in ledger(*words, "--unpriced", "flag", "--pool", "free").out


def test_the_first_example_of_all_works(ledger: Run, traffic: Callable[..., Any]) -> None:
    """The one that `ledger --help` ends with, on a file of that name."""
    shown = " ".join(ledger("--help").out.split())
    (example,) = re.findall(r"Example: ledger (simulate [-. a-z0-9]*)", shown)
    file = traffic(3)
    Path("trace.csv").write_bytes(Path(file).read_bytes())
    assert "3 admitted" in ledger(*example.split()).out
