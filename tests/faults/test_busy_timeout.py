"""SQLite waits for other programs as long as the call may still wait, and is seldom told anew."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ledger import Ledger, SharedPoolBudgetOptions
from ledger.store.statements import driver_of
from ledger.store.writing import Transaction
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens

OPTIONS = SharedPoolBudgetOptions(capacity_tokens=10)


def test_calls_that_need_not_wait_set_no_time_out(tmp_path: Path) -> None:
    """The first transaction on a connection sets it; the next ones send only what they need."""
    sent: list[str] = []
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", timeout_s=600) as book:
        budget = book.pool("pool", OPTIONS)
        raw = driver_of(book._database._idle[-1])
        raw.set_trace_callback(sent.append)
        for _ in range(3):
            budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    words = [statement.partition(" ")[0] for statement in sent]
    assert (3, 3, 0) == tuple(map(words.count, ("BEGIN", "COMMIT", "PRAGMA")))


@pytest.mark.parametrize("waited_s", [0, 100, 590, 700])
def test_the_time_out_is_what_is_left_of_the_call_s(tmp_path: Path, waited_s: int) -> None:
    """It is never longer, and at most a sixteenth of it shorter: then it is tried again."""
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", timeout_s=640) as book:
        book.pool("pool", OPTIONS)
        began_s = time.monotonic() - waited_s
        transaction = Transaction(book._database, key="key", began_s=began_s)
        raw = driver_of(transaction.begin([1]))
        (set_ms,) = raw.execute("PRAGMA busy_timeout").fetchone()
        book._database.give_back(transaction)
    assert set_ms == {0: 600_000, 100: 520_000, 590: 40_000, 700: 0}[waited_s]
