"""A program of its own that leads a batch, or ends a lease; `test_group_commit.py` starts it.

What the store acknowledged goes into its log, a line at a time, by one write that survives
SIGKILL; a line that says `done` ends it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from contextlib import suppress

from sqlalchemy import Connection

from ledger import (
    Attribution,
    IdempotencyKey,
    Ledger,
    LedgerBudgetManager,
    LedgerError,
    RequestBudget,
    RequestExtensions,
    Usage,
    UsageEstimate,
)
from ledger.managers.tasks import AsyncLedgerBudgetManager

POOL = "pool"
CALLERS = 8
TOKENS = UsageEstimate(total_tokens=3)
UNLIMITED = RequestBudget.unlimited()


class Log:
    """Appends lines to a file."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def __call__(self, *words: object) -> None:
        """Append one line."""
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


def extensions_of(who: str) -> RequestExtensions:
    """Return what a caller's request carries: its name, as request id and as key."""
    return RequestExtensions(Attribution(request_id=who), IdempotencyKey(who))


def reserve(budget: LedgerBudgetManager, who: str, log: Log) -> None:
    """Reserve, and log what the store answered."""
    try:
        lease = budget.reserve(extensions_of(who), TOKENS, UNLIMITED)
    except LedgerError as error:
        log("refused", who, type(error).__name__)
    else:
        log("reserved", who, lease.id, 3, 0)


def wait_for_callers(book: Ledger, number: int) -> None:
    """Wait until so many callers stand in the queue."""
    deadline = time.monotonic() + 20
    while len(book._writer._queue) < number:
        assert time.monotonic() < deadline, "they do not come"
        time.sleep(0.001)


def die_leading(book: Ledger, log: Log, when: str) -> None:
    """Lead one batch of one caller and one of eight; die of SIGKILL in the second COMMIT."""
    budget = book.pool(POOL)
    dialect, commit, commits = book._database.dialect, book._database.dialect.commit, []

    def spied(connection: Connection) -> None:
        commits.append(connection)
        if len(commits) == 1:
            wait_for_callers(book, CALLERS)
        if len(commits) == 2 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        commit(connection)
        if len(commits) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    dialect.commit = spied
    names = ["first", *(f"caller-{number}" for number in range(CALLERS))]
    threads = [threading.Thread(target=reserve, args=(budget, who, log)) for who in names]
    threads[0].start()
    while not commits:
        time.sleep(0.001)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()


def be_interrupted(book: Ledger, log: Log, when: str) -> None:
    """Let SIGINT hit the main thread while it leads; the `with` of its caller then closes."""
    budget = book.pool(POOL)
    dialect, commit, commits = book._database.dialect, book._database.dialect.commit, []

    def spied(connection: Connection) -> None:
        commits.append(connection)
        if len(commits) > 1:
            commit(connection)
            return
        if when == "after":
            commit(connection)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(20)

    dialect.commit = spied
    try:
        budget.reserve(RequestExtensions(), TOKENS, UNLIMITED)
    except KeyboardInterrupt:
        log("interrupted")
        raise


def outlive_main(book: Ledger, log: Log, kind: str) -> None:
    """Call from a thread that goes on when the main thread has ended."""
    budget = book.pool(POOL)

    def live() -> None:
        threading.main_thread().join()
        if kind == "tasks":
            asynchronous = AsyncLedgerBudgetManager(budget)
            with suppress(RuntimeError, LedgerError):
                lease = asyncio.run(asynchronous.reserve(extensions_of("task"), TOKENS, UNLIMITED))
                log("reserved", "task", lease.id)
        reserve(budget, "thread", log)
        log("done")

    threading.Thread(target=live).start()


def end_lease(book: Ledger, log: Log, how: str, lease_id: str) -> None:
    """Settle or release a lease that another process was granted."""
    budget = book.pool(POOL)
    lease = next(one.lease for one in book.open_leases(POOL) if one.lease.id == int(lease_id))
    if how == "settle":
        budget.record_used(lease, Usage(total_tokens=1))
    else:
        budget.release(lease)
    log("done")


if __name__ == "__main__":
    mode, url, log_path, *words = sys.argv[1:]
    told = Log(log_path)
    if mode == "outlive-main":
        outlive_main(Ledger.open(url), told, *words)
    else:
        modes = {"die": die_leading, "interrupt": be_interrupted, "end": end_lease}
        with suppress(KeyboardInterrupt), Ledger.open(url) as opened:
            modes[mode](opened, told, *words)
