"""`ledger leases`: leases are listed, and ended from the command line."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from ledger import (
    EntryKind,
    Ledger,
    RequestBudget,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    Totals,
    Usage,
    UsageEstimate,
)
from tests.clocks import Clock
from tests.fixtures import Run
from tests.leases import numbered

OPTIONS = SharedPoolBudgetOptions(capacity_tokens=5_000, lease_ttl=timedelta(days=3_650))


@pytest.fixture
def url(store_url: str) -> str:
    """Return a store whose pool `team` has an open lease, 2, and one that has expired, 3."""
    clock = Clock(1_700_000_000_000_000)
    with Ledger.open(store_url, clock=clock) as book:
        budget = book.pool("team", OPTIONS)
        for tokens in (2_000, 1_000):
            budget.reserve(
                RequestExtensions(),
                UsageEstimate(total_tokens=tokens, cost_micros_usd=50),
                RequestBudget.from_tokens(1_500 if tokens == 1_000 else 9_000),
            )
        budget.renew(numbered(budget, 3), timedelta(minutes=1))
        clock.minutes(2)
        assert 1 == book.expire_due()
    return store_url


def committed(url: str) -> Totals:
    """Return what the pool has committed, and that its journal is sound."""
    with Ledger.open(url, create=False) as book:
        assert book.verify("team")[0].ok
        return book.pool("team").status().balance.committed


def test_leases_are_listed_with_and_without_the_word(ledger: Run, url: str) -> None:
    """`ledger leases POOL` is short for `ledger leases list POOL`, options first or last."""
    shown = ledger("leases", "team", "--url", url).out
    assert "Leases of pool team that have not ended: 2, of which 1 expired" in shown
    for words in (("list", "team", "--url", url), ("--url", url, "team"), ("team", "--url", url)):
        found = json.loads(ledger("leases", *words, "--format", "json").out)
        assert [(2, "open"), (3, "expired")] == [(one["lease"], one["phase"]) for one in found]


def test_a_lease_that_expired_has_not_ended(ledger: Run, url: str) -> None:
    """The report counts it with those that hold something, and its help and title say so."""
    shown = ledger("report", "leases", "--url", url).out
    assert "Leases that have not ended, at" in shown
    assert ["Total", "2", "1"] == next(
        line.split()[:3] for line in shown.splitlines() if line.startswith("Total")
    )
    said = " ".join(ledger("report", "leases", "--help").out.split())
    assert "leases that have not ended by age" in said
    assert "open leases" not in said


def test_an_open_lease_is_settled_once(ledger: Run, url: str) -> None:
    """The amounts that are named are recorded; a repeated command under its key changes nothing."""
    words = ("leases", "settle", "team", 2, "--url", url, "--total-tokens", 1180)
    for _ in range(2):
        shown = ledger(*words, "--cost-usd", "0.0042", "--key", "k").out
        assert "lease 2  settled  tokens 1,180  USD 0.004200\n" == shown
    refused = ledger(*words, code=2)
    assert "no open lease 2" in refused.err
    assert Totals(2_180, 4_250, 2) == committed(url)
    with Ledger.open(url, create=False) as book:
        (found,) = book.entries("team", kind=EntryKind.SETTLEMENT)
        assert ("recovered", "k") == (found.provenance, found.idempotency_key)


def test_a_total_that_is_not_named_is_the_sum_of_input_and_output(ledger: Run, url: str) -> None:
    """What a lease is settled at."""
    words = ("leases", "settle", "team", 2, "--url", url)
    said = ledger(*words, "--input-tokens", 1_000, "--output-tokens", 180).out
    assert "lease 2  settled  tokens 1,180  USD 0.000000" in said


def test_an_expired_lease_is_settled(ledger: Run, url: str) -> None:
    """In place of what was assumed; what is over the request's own budget is recorded, and told."""
    words = ("leases", "settle", "team", 3, "--url", url, "--total-tokens", 1_600)
    shown = ledger(*words, "--provenance", "reported").out
    assert (
        "lease 3  settled  tokens 1,600  USD 0.000000  (over the request's own budget)\n" == shown
    )
    assert Totals(1_600, 0, 1) == committed(url)


def test_a_settlement_needs_an_amount(ledger: Run, url: str) -> None:
    """Of nothing used a release speaks."""
    refused = ledger("leases", "settle", "team", 2, "--url", url, code=2)
    assert "name at least one amount" in refused.err
    refused = ledger("leases", "settle", "team", 2, "--url", url, "--cost-usd", "much", code=2)
    assert "--cost-usd" in refused.err
    assert Totals(1_000, 50, 1) == committed(url)


@pytest.mark.parametrize(
    ("policy", "spent"),
    [
        (SettlementPolicy.ESTIMATED, Totals(3_000, 100, 2)),
        (SettlementPolicy.OBSERVED, Totals(1_007, 50, 2)),
        (SettlementPolicy.RELEASE, Totals(1_007, 50, 1)),
    ],
)
def test_a_lease_is_abandoned(
    ledger: Run, url: str, policy: SettlementPolicy, spent: Totals
) -> None:
    """As the policy says, which is named; one that has expired was treated so already."""
    with Ledger.open(url, create=False) as book:
        budget = book.pool("team")
        budget.observe(numbered(budget, 2), Usage(total_tokens=7))
        options = SharedPoolBudgetOptions(capacity_tokens=5_000, settlement=policy)
        book.adjust("team", options, reason="another policy")
    shown = ledger("leases", "abandon", "team", 2, "--url", url).out
    assert f"lease 2  abandoned  ({policy})\n" == shown
    refused = ledger("leases", "abandon", "team", 3, "--url", url, code=2)
    assert "has expired" in refused.err
    assert spent == committed(url)


@pytest.mark.parametrize(("lease", "spent"), [(2, Totals(1_000, 50, 1)), (3, Totals())])
def test_a_lease_is_released_once(ledger: Run, url: str, lease: int, spent: Totals) -> None:
    """What it holds goes back, and what was assumed of it."""
    words = ("leases", "release", "team", lease, "--url", url)
    for _ in range(2):
        assert f"lease {lease}  released\n" == ledger(*words, "--key", "k").out
    assert f"no open lease {lease}" in ledger(*words, code=2).err
    assert spent == committed(url)


@pytest.mark.parametrize("command", ["settle", "abandon", "release"])
@pytest.mark.parametrize("lease", [1, 9, 0, -4, 2**63])
def test_what_is_no_lease_is_refused(ledger: Run, url: str, command: str, lease: int) -> None:
    """Numbers of other entries, of none, and those that no entry can have; nothing is written."""
    amounts = ("--total-tokens", 5) if command == "settle" else ()
    refused = ledger("leases", command, "--url", url, *amounts, "--", "team", lease, code=2)
    assert f"no open lease {lease}" in refused.err
    assert Totals(1_000, 50, 1) == committed(url)


@pytest.mark.parametrize("command", ["settle", "abandon", "release"])
def test_a_lease_is_named_as_it_is_listed(ledger: Run, url: str, command: str) -> None:
    """By its number, or by its token; the message for anything else says where both stand."""
    amounts = ("--total-tokens", 5) if command == "settle" else ()
    words = ("leases", command, "--url", url, *amounts, "team")
    said = ledger(*words, "xyz", code=2).err
    assert "number (17) or its token" in said
    assert "'ledger leases list'" in said
    assert "open_leases" not in said
    (listed, *_) = json.loads(
        ledger("leases", "list", "team", "--url", url, "--format", "json").out
    )
    assert f"lease {listed['token']}" in ledger(*words, listed["token"]).out
    assert "no open lease 2" in ledger(*words, listed["lease"], code=2).err
