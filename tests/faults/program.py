"""A program of its own, for faults that would hurt the tests' process; prints what happened."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import Connection

from ledger import (
    BudgetLease,
    Ledger,
    LedgerBudgetManager,
    LedgerError,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    UsageEstimate,
)
from ledger.cli import main

NOBODY = 65_534


def reserve(budget: LedgerBudgetManager) -> BudgetLease:
    """Reserve a token."""
    return budget.reserve(
        RequestExtensions(), UsageEstimate(total_tokens=1), RequestBudget.unlimited()
    )


def say(**words: object) -> None:
    """Print one JSON object."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def describe(error: BaseException | None) -> dict[str, object]:
    """Return an error as JSON can hold it."""
    return {
        "error": type(error).__name__,
        "message": str(error),
        "cause": type(error.__cause__).__name__ if error else None,
    }


def use_as_nobody(url: str) -> None:
    """Open a store and reserve from it, as a user without rights."""
    with tempfile.TemporaryDirectory() as folder, Ledger.open(f"sqlite:///{folder}/l.db") as book:
        # Everything is imported now, should nobody not be able to read the code.
        reserve(book.pool("pool", SharedPoolBudgetOptions()))
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    try:
        with Ledger.open(url, timeout_s=2) as book:
            lease = reserve(book.pool("pool"))
    except LedgerError as error:
        say(**describe(error))
    else:
        say(error=None, lease=lease.id)


def run_commands_as_nobody(asked: str) -> None:
    """Run commands on a store as a user without rights, and say how each ended."""
    url, commands = json.loads(asked)
    os.chdir("/")
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    ended = {}
    for words in commands:
        out, err = io.StringIO(), io.StringIO()
        sys.argv = ["ledger", *words, "--url", url]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as code:
                ended[" ".join(words)] = f"{code.code or 0}{err.getvalue()}"
    say(**ended)


def open_and_reserve(url: str) -> None:
    """Open a store that may be new, and reserve from it."""
    with Ledger.open(url) as book:
        say(lease=reserve(book.pool("pool", SharedPoolBudgetOptions())).id)


def fill_the_disk(url: str) -> None:
    """Reserve until the file may not grow, and once more when it may."""
    path = Path(url.removeprefix("sqlite:///"))
    with Ledger.open(url) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions())
        reserve(budget)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        limit = path.with_name(f"{path.name}-wal").stat().st_size + 50_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        granted, failed = 1, None
        while failed is None:
            try:
                reserve(budget)
                granted += 1
            except LedgerError as error:
                failed = error
        during = describe(failed)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        reserve(budget)
        say(granted=granted, **during)


def open_without_psycopg(url: str) -> None:
    """Open a PostgreSQL store where psycopg cannot be imported."""
    sys.modules["psycopg"] = None  # type: ignore[assignment]
    try:
        Ledger.open(url)
    except LedgerError as error:
        say(**describe(error), extra=getattr(error, "extra", None))


def hold_the_lock(path: str) -> None:
    """Hold the writer lock of a file until killed."""
    from ledger.store.dialects.writerlock import WriterLock  # noqa: PLC0415 - needed here alone

    WriterLock(Path(path)).acquire(timeout_s=5)
    say(holding=True)
    time.sleep(60)


def wait_for_the_lock(path: str) -> None:
    """Queue for the writer lock of a file, and give it back at once."""
    from ledger.store.dialects.writerlock import WriterLock  # noqa: PLC0415 - needed here alone

    lock = WriterLock(Path(path))
    say(waiting=True)
    lock.acquire(timeout_s=60)
    say(held=True)
    lock.release()


def take_turns(path: str) -> None:
    """Take the writer lock of a file and give it back, as often as it can within a second."""
    from ledger.store.dialects.writerlock import WriterLock  # noqa: PLC0415 - needed here alone

    lock, turns = WriterLock(Path(path)), 0
    say(ready=True)
    sys.stdin.readline()
    end_s = time.monotonic() + 1
    while time.monotonic() < end_s:
        lock.acquire(timeout_s=30)
        time.sleep(0.001)
        lock.release()
        turns += 1
    say(turns=turns)


def write_when_told(url: str) -> None:
    """Reserve and release whenever a line comes in, and say how long it took or why it failed."""
    with Ledger.open(url, timeout_s=40) as book:
        budget = book.pool("pool")
        say(ready=True)
        while sys.stdin.readline():
            began_s = time.monotonic()
            try:
                budget.release(reserve(budget))
            except LedgerError as error:
                say(**describe(error))
            else:
                say(error=None, took_s=time.monotonic() - began_s)


def freeze_in_a_batch(url: str) -> None:
    """Stop this process in the middle of a transaction; say what became of it once continued."""
    with Ledger.open(url, timeout_s=2) as book:
        budget = book.pool("pool")
        dialect = book._database.dialect
        commit = dialect.commit

        def freeze(connection: Connection) -> None:
            dialect.commit = commit  # type: ignore[method-assign]
            say(pid=os.getpid())
            os.kill(os.getpid(), signal.SIGSTOP)
            commit(connection)

        dialect.commit = freeze  # type: ignore[method-assign]
        try:
            lease = reserve(budget)
        except LedgerError as error:
            say(**describe(error))
        else:
            say(error=None, lease=lease.id)
        say(afterwards=reserve(budget).id)


def freeze_in_a_copy(url: str) -> None:
    """Stop this process while the server waits for the rest of its rows."""
    from psycopg import Copy  # noqa: PLC0415 - PostgreSQL alone

    from ledger.store.dialects import session  # noqa: PLC0415 - likewise

    with Ledger.open(url, timeout_s=2) as book:
        budget = book.pool("pool")
        write_row = Copy.write_row

        def freeze(copy: Copy, row: Sequence[object]) -> None:
            Copy.write_row = write_row
            say(pid=os.getpid())
            os.kill(os.getpid(), signal.SIGSTOP)
            write_row(copy, row)

        Copy.write_row = freeze
        rows, session._LITERAL_ROWS = session._LITERAL_ROWS, 0
        try:
            say(error=None, lease=reserve(budget).id)
        except LedgerError as error:
            say(**describe(error))
        session._LITERAL_ROWS = rows
        say(afterwards=reserve(budget).id)


def freeze_while_next_in_line(url: str) -> None:
    """Stop this process when it has the writer lock's second file, and not yet the first."""
    from ledger.store.dialects import writerlock  # noqa: PLC0415 - needed here alone

    take, asked = writerlock._try, []

    def freeze(file: int) -> bool:
        asked.append(file)
        if len(asked) == 2:
            say(pid=os.getpid())
            os.kill(os.getpid(), signal.SIGSTOP)
        return take(file)

    with Ledger.open(url, timeout_s=5) as book:
        budget = book.pool("pool")
        writerlock._try = freeze
        say(afterwards=reserve(budget).id)


MODES: dict[str, Callable[[str], None]] = {
    "as-nobody": use_as_nobody,
    "commands-as-nobody": run_commands_as_nobody,
    "reserve": open_and_reserve,
    "fill-the-disk": fill_the_disk,
    "without-psycopg": open_without_psycopg,
    "hold-the-lock": hold_the_lock,
    "wait-for-the-lock": wait_for_the_lock,
    "take-turns": take_turns,
    "write-when-told": write_when_told,
    "freeze-in-a-copy": freeze_in_a_copy,
    "freeze-in-a-batch": freeze_in_a_batch,
    "freeze-while-next-in-line": freeze_while_next_in_line,
}

if __name__ == "__main__":
    MODES[sys.argv[1]](sys.argv[2])
