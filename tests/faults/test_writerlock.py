"""One writer at a time: the lock beside an SQLite file."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger import (
    ContentionError,
    Ledger,
    LedgerUnavailableError,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    UsageEstimate,
)
from ledger.dialects.writerlock import WriterLock

PROGRAM = Path(__file__).parent / "program.py"
OPTIONS = SharedPoolBudgetOptions()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a lock may be."""
    return tmp_path / "ledger.db-lock"


@contextmanager
def holder(path: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the lock."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), "hold-the-lock", str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert '{"holding": true}\n' == process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def took_s(call: Callable[[], object]) -> float:
    """Return how long a call took that ran into its time-out."""
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        call()
    return time.monotonic() - began


def test_the_lock_of_another_process_is_waited_for_no_longer_than_told(
    path: Path, environment: dict[str, str]
) -> None:
    """While another process holds it, waiting ends in time; killed, it holds nothing."""
    lock = WriterLock(path)
    with holder(path, environment) as process:
        assert 0.2 <= took_s(lambda: lock.acquire(timeout_s=0.2)) < 1
        assert took_s(lambda: lock.acquire(timeout_s=0)) < 0.5
        process.kill()
        process.wait()
        lock.acquire(timeout_s=2)
        lock.release()


def test_a_waiter_gets_the_lock_when_its_holder_is_killed(
    path: Path, environment: dict[str, str]
) -> None:
    """SIGKILL of the holder lets in whoever is already waiting."""
    lock = WriterLock(path)
    with holder(path, environment) as process, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(lock.acquire, timeout_s=10)
        time.sleep(0.1)
        assert not waiting.done()
        process.kill()
        waiting.result(timeout=5)
        lock.release()


@pytest.mark.parametrize("same", [True, False], ids=["one object", "two objects"])
def test_threads_wait_for_each_other(path: Path, *, same: bool) -> None:
    """Two threads never hold it together, on one object or on two of the same file."""
    first = WriterLock(path)
    second = first if same else WriterLock(path)
    first.acquire(timeout_s=1)
    with ThreadPoolExecutor(1) as thread:
        timed_out = thread.submit(took_s, lambda: second.acquire(timeout_s=0.2))
        assert 0.2 <= timed_out.result() < 1
        first.release()
        # A wait that failed leaves nothing behind.
        thread.submit(second.acquire, timeout_s=1).result()
        thread.submit(second.release).result()
    first.acquire(timeout_s=1)
    first.release()


def test_only_one_of_many_is_inside(path: Path) -> None:
    """Eight threads on four objects count under the lock, and lose no step."""
    locks = [WriterLock(path) for _ in range(4)]
    inside, most, steps = 0, 0, 0
    gate = threading.Barrier(8, timeout=30)

    def work(thread: int) -> None:
        nonlocal inside, most, steps
        gate.wait()
        for _ in range(10):
            locks[thread % 4].acquire(timeout_s=30)
            inside += 1
            most = max(most, inside)
            time.sleep(0.000_5)
            steps += 1
            inside -= 1
            locks[thread % 4].release()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert (1, 80) == (most, steps)


def test_a_lock_that_cannot_be_made_is_an_error_and_is_not_held(path: Path) -> None:
    """Where the lock file cannot be made, threads behind are not kept waiting."""
    path.mkdir()
    lock = WriterLock(path)
    for _ in range(2):
        with pytest.raises(OSError, match="lock"):
            lock.acquire(timeout_s=0.1)
    path.rmdir()
    lock.acquire(timeout_s=1)
    lock.release()


def test_a_ledger_behind_a_held_lock_gives_up_in_time(
    path: Path, environment: dict[str, str]
) -> None:
    """A store whose lock is held elsewhere is contended, not unavailable; a read needs no lock."""
    with Ledger.open(f"sqlite:///{path.with_name('ledger.db')}", timeout_s=0.3) as book:
        budget = book.pool("pool", OPTIONS)
        with holder(path, environment):
            began = time.monotonic()
            with pytest.raises(ContentionError) as contention:
                book.adjust("pool", OPTIONS)
            assert time.monotonic() - began < 1.5
            assert isinstance(contention.value.__cause__, TimeoutError)
            assert not budget.remaining(RequestExtensions()).below_threshold
        book.adjust("pool", OPTIONS)
        assert 2 == len(list(book.entries("pool")))


def test_a_ledger_whose_lock_cannot_be_made_is_unavailable(path: Path) -> None:
    """The system's own error about the lock file is the cause, and names the file."""
    with Ledger.open(f"sqlite:///{path.with_name('ledger.db')}") as book:
        book.pool("pool", OPTIONS)
    path.unlink()
    path.mkdir()
    with Ledger.open(f"sqlite:///{path.with_name('ledger.db')}") as book:
        budget = book.pool("pool")
        with pytest.raises(LedgerUnavailableError, match="lock") as unavailable:
            budget.reserve(RequestExtensions(), UsageEstimate(), RequestBudget.unlimited())
    assert isinstance(unavailable.value.__cause__, OSError)
