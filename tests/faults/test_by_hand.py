"""What is left in the queue and fails for good is recorded by the command that the log names."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from ledger import Attribution, Ledger, SharedPoolBudgetOptions, StoreError, Totals, Usage
from ledger import UsageReport as Report
from ledger.core.checks import from_micros
from ledger.engine.callers import Caller
from ledger.engine.operations import Operation, Record, RecordLost
from ledger.importing import Calls, import_calls
from ledger.managers.pool import LedgerBudgetManager
from ledger.reconcile import READY, read_bill
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens

USED = Usage(total_tokens=30)
NAMED = {"run_id": "run 7", "tenant": "acme", "agent": "a", "provider": "openai"}
AGO = timedelta(hours=2)


@pytest.fixture
def url(new_store: Callable[..., str]) -> str:
    """Return the URL of a store."""
    return new_store("sqlite")


def opened(url: str) -> Ledger:
    """Return a ledger with the pool `team`."""
    book = Ledger.open(url)
    book.pool("team", SharedPoolBudgetOptions())
    return book


def failed(
    budget: LedgerBudgetManager, operation: Operation[None], caplog: pytest.LogCaptureFixture
) -> str:
    """Return the command in the one line that the log has of an operation that fails."""
    with caplog.at_level(logging.ERROR, "ledger.engine.outcomes"):
        assert not budget._writer._retry(Caller(budget._journal, operation), StoreError("full"))
    (line,) = [one.getMessage() for one in caplog.records]
    assert 1 == len(line.splitlines())
    return line.partition("; by hand: ledger ")[2]


def test_a_lost_call_is_recorded_for_whom_it_was_and_once(
    url: str,
    new_store: Callable[..., str],
    tmp_path: Path,
    ran: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The run has its spend, at its time, and a bill that comes later finds the request id."""
    with opened(new_store("sqlite")) as gone:
        lease = gone.pool("team").reserve(EXTENSIONS, tokens(9), UNLIMITED)
    asked = Attribution(**NAMED, model="gpt-4o", request_id="req_1")
    with opened(url) as book:
        ended = book.now() - AGO
        report = Report(model="gpt-4o-mini", occurred_at=ended)
        lost = RecordLost.of(lease, USED, None, asked, report)
        command = failed(book.pool("team"), lost, caplog)
        assert "recorded" in ran(*shlex.split(command), "--url", url)
        *_, entry = book.entries("team")
        assert Attribution(**NAMED, model="gpt-4o-mini") == entry.attribution
        assert (ended, "req_1") == (from_micros(entry.occurred_at or 0), entry.request_id)
        path = tmp_path / "bill.csv"
        line = f"req_1,{ended.isoformat()},30"
        path.write_text(f"request_id,at,total_tokens\n{line}\n", encoding="utf-8")
        found = import_calls(book, "team", Calls(bill=read_bill(path, READY["generic"])))
        assert (1, 0) == (found.recorded, found.new)
        assert Totals(30, 0, 1) == book.pool("team").status().balance.committed


def test_a_call_is_settled_at_its_time(
    url: str, ran: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """It counts when it ended, and not when somebody reads the log."""
    with opened(url) as book:
        budget = book.pool("team")
        ended = book.now() - AGO
        lease = budget.reserve(EXTENSIONS, tokens(9), UNLIMITED)
        settle = Record.of(lease, USED, Report(occurred_at=ended), closes=True)
        assert "settled" in ran(*shlex.split(failed(budget, settle, caplog)), "--url", url)
        *_, entry = book.entries("team")
        assert (USED, ended) == (entry.usage, from_micros(entry.occurred_at or 0))


def test_no_name_makes_a_line_of_the_log(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is not printable, in a pool's name or what a provider says, is escaped for a shell."""
    with Ledger.open(url) as book:
        budget = book.pool("te\u2028am", SharedPoolBudgetOptions())
        lease = budget.reserve(EXTENSIONS, tokens(9), UNLIMITED)
        report = Report(request_id="x'\n\\ERROR", model="gpt 4")
        command = failed(budget, Record.of(lease, USED, report, closes=True), caplog)
        assert command == (
            rf"leases settle $'te\U00002028am' {lease.token} --total-tokens 30"
            r" --request-id $'x\U00000027\U0000000a\U0000005cERROR' --model 'gpt 4'"
        )
