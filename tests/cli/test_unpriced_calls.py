"""The command line, and calls that leave out a figure which their pool limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ledger import Ledger, Unpriced, Usage, UsageEstimate
from ledger.testing.calls import EXTENSIONS, UNLIMITED

Run = Callable[..., Any]


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
    assert "2 unpriced" in ledger("report", "statement", "team", *url, "--wide").out
    said = ledger("export", "out.csv", "--pool", "team", *url).err
    assert "3 rows, 2 of them unpriced" in said
    ledger("pool", "adjust", "team", *url, "--unpriced", "refuse", "--reason", "r")
    (shown,) = json.loads(ledger("pool", "list", *url, "--format", "json").out)
    assert "refuse" == shown["policy"]["unpriced"]


def test_a_simulation_without_prices_is_refused(
    ledger: Run, traffic: Callable[..., Any], store_url: str
) -> None:
    """A budget in dollars would look untouched; the option says that it is meant."""
    words = ("simulate", traffic(3), "--url", store_url, "--capacity-usd", 9)
    assert "cost_micros_usd" in ledger(*words, code=2).err
    assert "3 admitted" in ledger(*words, "--unpriced", "flag", "--pool", "free").out
