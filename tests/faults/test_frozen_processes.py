"""A process that is stopped in the middle of a batch: what others wait for, and what they are told.

SQLite's lock belongs to the process for as long as it is there: the error names it. PostgreSQL
ends its transaction after a bounded time, and the others go on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger import (
    ContentionError,
    Ledger,
    LedgerUnavailableError,
    SharedPoolBudgetOptions,
)
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import LATE_S, impatient
from tests.faults.conftest import PROGRAM
from tests.leases import ONE


class Frozen:
    """A program that has stopped itself."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = self.said()["pid"]
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def said(self) -> dict[str, Any]:
        """Return the next thing that it says."""
        assert self._process.stdout is not None
        words: dict[str, Any] = json.loads(self._process.stdout.readline())
        return words

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)


@contextmanager
def frozen(mode: str, url: str, environment: dict[str, str]) -> Iterator[Frozen]:
    """Let another process stop itself in the middle of something."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), mode, url],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield Frozen(process)
        finally:
            process.kill()


def new_pool(url: str) -> None:
    """Make the pool that programs use."""
    with Ledger.open(url) as book:
        book.pool("pool", SharedPoolBudgetOptions())


def reserve(book: Ledger) -> int:
    """Reserve a token, and return the lease's number."""
    return book.pool("pool").reserve(EXTENSIONS, ONE, UNLIMITED).id


def test_on_sqlite_the_error_names_the_process_that_is_stopped(
    new_store: Callable[..., str], environment: dict[str, str]
) -> None:
    """Others get ContentionError with its id, within their time-out; continued, all is well."""
    url = new_store("sqlite")
    new_pool(url)
    with (
        frozen("freeze-in-a-batch", url, environment) as other,
        Ledger.open(url) as book,
    ):
        began = time.monotonic()
        with impatient(book, 0.5), pytest.raises(ContentionError) as contention:
            reserve(book)
        assert time.monotonic() - began < LATE_S
        assert f"process {other.pid}, which is stopped" == contention.value.holder
        assert str(other.pid) in str(contention.value)
        other.thaw()
        assert {"error": None, "lease": 2} == other.said()
        assert {"afterwards": 3} == other.said()
        assert 4 == reserve(book)
        assert [None] == [found.damage for found in book.verify()]


def test_on_sqlite_a_process_that_is_stopped_while_it_waits_is_passed(
    new_store: Callable[..., str], environment: dict[str, str]
) -> None:
    """It was next in line, and does not take the free lock: the others do, after a second."""
    url = new_store("sqlite")
    new_pool(url)
    with (
        frozen("freeze-while-next-in-line", url, environment) as other,
        Ledger.open(url, timeout_s=60) as book,
    ):
        began = time.monotonic()
        assert [2, 3] == [reserve(book) for _ in range(2)]
        assert 1 < time.monotonic() - began < LATE_S
        other.thaw()
        assert {"afterwards": 4} == other.said()


def test_a_process_that_has_ended_is_not_named(
    new_store: Callable[..., str], environment: dict[str, str]
) -> None:
    """The id in the lock file is of the last holder: another program's lock is not laid to it."""
    url = new_store("sqlite")
    new_pool(url)
    with frozen("freeze-in-a-batch", url, environment) as other:
        lock = Path(url.removeprefix("sqlite:///") + "-lock")
        assert str(other.pid) == lock.read_text().strip()
    import fcntl  # noqa: PLC0415 - not on Windows

    with lock.open() as file, Ledger.open(url) as book:
        fcntl.flock(file, fcntl.LOCK_EX)
        with impatient(book, 0.2), pytest.raises(ContentionError) as contention:
            reserve(book)
        assert contention.value.holder is None
        fcntl.flock(file, fcntl.LOCK_UN)
        assert 2 == reserve(book)


def test_on_postgresql_the_server_ends_what_a_stopped_process_began(
    new_store: Callable[..., str], environment: dict[str, str]
) -> None:
    """Others name its session while they wait, and go on after a second; it is told of it."""
    url = new_store("postgresql")
    new_pool(url)
    with (
        Ledger.open(url) as book,
        frozen("freeze-in-a-batch", url, environment) as other,
    ):
        began = time.monotonic()
        with impatient(book, 0.3), pytest.raises(ContentionError) as contention:
            reserve(book)
        assert time.monotonic() - began < LATE_S
        holder = contention.value.holder
        assert holder is not None
        assert f"'ledger {other.pid}@" in holder
        assert "idle in transaction" in holder
        assert 2 == reserve(book)
        assert time.monotonic() - began < LATE_S
        time.sleep(2)  # its own time-out
        other.thaw()
        told = other.said()
        assert LedgerUnavailableError.__name__ == told["error"]
        assert "stood still" in told["message"]
        assert {"afterwards": 3} == other.said()
        assert [None] == [found.damage for found in book.verify()]


def test_on_postgresql_a_process_that_is_stopped_while_it_copies_is_ended_too(
    new_store: Callable[..., str], environment: dict[str, str]
) -> None:
    """No time-out of the server's ends a COPY that waits for its client: those who wait do."""
    url = new_store("postgresql")
    new_pool(url)
    with (
        Ledger.open(url, timeout_s=1.5) as book,
        frozen("freeze-in-a-copy", url, environment) as other,
    ):
        with pytest.raises(ContentionError, match="ClientRead") as contention:
            reserve(book)
        assert f"'ledger {other.pid}@" in str(contention.value.holder)
        assert 2 == reserve(book)
        time.sleep(2)  # its own time-out
        other.thaw()
        assert other.said()["error"] is not None
        assert {"afterwards": 3} == other.said()
        assert [None] == [found.damage for found in book.verify()]
