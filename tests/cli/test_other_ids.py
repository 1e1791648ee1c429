"""A bill has a call under the provider's id, the journal under one of the program's own."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from ledger import (
    Attribution,
    Ledger,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
)
from ledger.core.kinds import EntryKind
from ledger.testing.calls import UNLIMITED
from tests.clocks import Clock
from tests.fixtures import Run
from tests.leases import numbered

BILLED = ("--input-tokens", 60, "--output-tokens", 15, "--total-tokens", 75, "--cost-usd", "0.0003")
CALL = ("--request-id", "chatcmpl-12", "--model", "gpt-4o-2024-08-06", *BILLED)
AT = "2023-11-14T22:20:00Z"
BILL = f"""request_id,at,model,input_tokens,output_tokens,total_tokens,cost_usd
chatcmpl-12,{AT},gpt-4o-2024-08-06,60,15,75,0.0003
"""
NOTHING = ["--input-tokens=0", "--output-tokens=0", "--total-tokens=0", "--cost-usd=0"]


@pytest.fixture
def url(store_url: str, clock: Clock) -> str:
    """Return a store whose pool `team` granted lease 2 to a call under an id of its own."""
    options = SharedPoolBudgetOptions(lease_ttl=timedelta(days=3_650))
    with Ledger.open(store_url, clock=clock) as book:
        call = RequestExtensions(Attribution(model="gpt-4o", request_id="call-6a4f.1"))
        estimate = UsageEstimate(input_tokens=50, output_tokens=50, total_tokens=100)
        book.pool("team", options).reserve(call, estimate, UNLIMITED)
    return store_url


@pytest.fixture
def bill(folder: Path) -> Path:
    """Return the provider's bill."""
    path = folder / "bill.csv"
    path.write_text(BILL, encoding="utf-8")
    return path


def test_an_expired_lease_is_settled_under_the_bills_id(
    ledger: Run, url: str, bill: Path, clock: Clock
) -> None:
    """Every field of a report that an option gives is recorded; the bill then matches."""
    with Ledger.open(url, clock=clock) as book:
        budget = book.pool("team")
        budget.renew(numbered(budget, 2), timedelta(minutes=1))
        clock.minutes(2)
        assert 1 == book.expire_due()
    shown = ledger("reconcile", bill, "--url", url, code=1).out
    (line,) = (one for one in shown.splitlines() if one.startswith("call-6a4f.1 "))
    assert line.rstrip().endswith("of lease 2")
    words = ("--url", url, *CALL, "--provider", "openai", "--at", AT)
    ledger("leases", "settle", "team", 2, *words)
    with Ledger.open(url, create=False) as book:
        (found,) = book.entries("team", kind=EntryKind.SETTLEMENT)
        named = found.attribution
        assert named is not None
        assert ("openai", "gpt-4o-2024-08-06") == (named.provider, named.model)
        assert "chatcmpl-12" == found.request_id
        assert found.occurred_at is not None
        assert 1_700_000_400_000_000 == found.occurred_at
        assert book.verify("team")[0].ok
    shown = ledger("reconcile", bill, "--url", url).out
    assert "Recorded but not billed: 1" not in shown
    assert "Assumed" not in shown


def test_a_settled_call_is_corrected_to_nothing_and_recorded(
    ledger: Run, url: str, bill: Path, clock: Clock
) -> None:
    """As docs/reconcile.md says: the bill matches, and the amounts are counted once."""
    used = Usage(input_tokens=50, output_tokens=25, total_tokens=75, cost_micros_usd=2_053)
    with Ledger.open(url, clock=clock) as book:
        budget = book.pool("team")
        budget.record_used(numbered(budget, 2), used)
    where = ("--url", url)
    shown = ledger("reconcile", bill, *where, code=1).out
    assert "Billed but not recorded: 1" in shown
    assert "Recorded but not billed: 1" in shown
    ledger("correct", "team", 3, *where, *NOTHING, "--reason", "billed as chatcmpl-12")
    ledger("record", "team", *where, *CALL, "--at", AT, "--reason", "was entry 3")
    ledger("reconcile", bill, *where)
    with Ledger.open(url, create=False) as book:
        assert (75, 300) == book.pool("team").status().balance.committed[:2]


def test_an_import_says_that_it_charges_a_dead_call_again(
    ledger: Run, url: str, bill: Path, clock: Clock
) -> None:
    """For people below the table, for programs as numbers of calls by pool."""
    with Ledger.open(url, clock=clock) as book:
        budget = book.pool("team")
        budget.renew(numbered(budget, 2), timedelta(minutes=1))
        clock.minutes(2)
        assert 1 == book.expire_due()
    words = ("import", "team", bill, "--url", url)
    said = ledger(*words).out
    assert "1 call of this time charged what was assumed, or due to be, since" in said
    (found,) = json.loads(ledger(*words, "--format", "json").out)
    assert {"team": 1} == found["assumed"]


def test_help_says_how(ledger: Run) -> None:
    """Where a user looks who would give a correction the other id."""
    said = " ".join(ledger("correct", "--help").out.replace("│", " ").split())
    assert "A correction keeps the entry's request id" in said
    assert "'ledger record'" in said


def test_a_key_is_named_as_its_option(refused: Run, url: str) -> None:
    """And not as the argument of the library."""
    said = refused("record", "team", "--url", url, "--cost-usd", "1", "--reason", "lost")
    assert said.startswith("--key: must be given where no request id says which call it is")
