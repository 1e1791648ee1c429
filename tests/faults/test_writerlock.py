"""One writer at a time: the lock beside an SQLite file."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from ledger import (
    ContentionError,
    Ledger,
    LedgerUnavailableError,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UsageEstimate,
)
from ledger.store.dialects.writerlock import WriterLock
from tests import programs
from tests.clocks import LATE_S, impatient, until
from tests.faults.conftest import PROGRAM

OPTIONS = SharedPoolBudgetOptions()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a lock may be."""
    return tmp_path / "ledger.db-lock"


@contextmanager
def program(mode: str, path: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Let another process do something with the lock; it has begun when this returns."""
    with programs.Popen(
        [sys.executable, str(PROGRAM), mode, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            said(process)
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> dict[str, int]:
    """Return the next thing that a program says."""
    assert process.stdout is not None
    words: dict[str, int] = json.loads(process.stdout.readline())
    return words


@contextmanager
def holder(path: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the lock."""
    with program("hold-the-lock", path, environment) as process:
        yield process


@contextmanager
def next_in_line(path: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Let another process be the next to get the lock, which is held here."""
    with program("wait-for-the-lock", path, environment) as process, path.open() as lock:
        with Path(f"{path}-next").open() as following:
            while is_free(following):
                time.sleep(0.001)
        assert not is_free(lock)
        yield process


def is_free(file: IO[str]) -> bool:
    """Tell whether nobody holds the lock on a file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


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
        assert 0.2 <= took_s(lambda: lock.acquire(timeout_s=0.2)) < LATE_S
        assert took_s(lambda: lock.acquire(timeout_s=0)) < LATE_S
        process.kill()
        process.wait()
        lock.acquire(timeout_s=LATE_S)
        lock.release()


def test_a_waiter_gets_the_lock_when_its_holder_is_killed(
    path: Path, environment: dict[str, str]
) -> None:
    """SIGKILL of the holder lets in whoever is already waiting."""
    lock = WriterLock(path)
    with holder(path, environment) as process, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(lock.acquire, timeout_s=60)
        time.sleep(0.1)
        assert not waiting.done()
        process.kill()
        waiting.result(timeout=LATE_S)
        lock.release()


@pytest.mark.parametrize("same", [True, False], ids=["one object", "two objects"])
def test_threads_wait_for_each_other(path: Path, *, same: bool) -> None:
    """Two threads never hold it together, on one object or on two of the same file."""
    first = WriterLock(path)
    second = first if same else WriterLock(path)
    first.acquire(timeout_s=LATE_S)
    with ThreadPoolExecutor(1) as thread:
        timed_out = thread.submit(took_s, lambda: second.acquire(timeout_s=0.2))
        assert 0.2 <= timed_out.result() < LATE_S
        first.release()
        # A wait that failed leaves nothing behind.
        thread.submit(second.acquire, timeout_s=LATE_S).result()
        thread.submit(second.release).result()
    first.acquire(timeout_s=LATE_S)
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
    lock.acquire(timeout_s=LATE_S)
    lock.release()


def test_processes_take_turns(path: Path, environment: dict[str, str]) -> None:
    """Of two processes that want it all the time, the slower gets at least half as many turns."""
    with (
        program("take-turns", path, environment) as first,
        program("take-turns", path, environment) as second,
    ):
        for process in (first, second):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        slower, faster = sorted(said(process)["turns"] for process in (first, second))
    assert 20 < faster <= 2 * slower


def test_who_held_the_lock_waits_behind_the_next_in_line(
    path: Path, environment: dict[str, str]
) -> None:
    """Giving it back and asking again at once, a process finds another one there first."""
    lock = WriterLock(path)
    lock.acquire(timeout_s=LATE_S)
    with next_in_line(path, environment) as process:
        lock.release()
        lock.acquire(timeout_s=LATE_S)
        assert {"held": True} == said(process)
        lock.release()
        assert 0 == process.wait(timeout=LATE_S)


def test_the_last_to_come_is_served_last(path: Path, environment: dict[str, str]) -> None:
    """Two processes wait when a third asks: each has a place, and none is left to chance."""
    lock = WriterLock(path)
    lock.acquire(timeout_s=LATE_S)
    with (
        next_in_line(path, environment) as first,
        program("wait-for-the-lock", path, environment) as second,
        Path(f"{path}-queue").open() as place,
    ):
        until(lambda: not is_free(place))
        lock.release()
        lock.acquire(timeout_s=LATE_S)
        for process in (first, second):
            assert {"held": True} == said(process)
            assert 0 == process.wait(timeout=LATE_S)
        lock.release()


def test_a_killed_process_is_next_in_line_no_longer(
    path: Path, environment: dict[str, str]
) -> None:
    """SIGKILL of whoever is next lets in who is behind."""
    lock, behind = WriterLock(path), WriterLock(path)
    lock.acquire(timeout_s=LATE_S)
    with next_in_line(path, environment) as process:
        process.kill()
        process.wait()
        lock.release()
        behind.acquire(timeout_s=LATE_S)
        behind.release()


def test_who_gave_up_is_next_in_line_no_longer(path: Path) -> None:
    """A wait for the lock, or for a place in line, that failed gives back the place as well."""
    lock, impatient, behind = (WriterLock(path) for _ in range(3))
    lock.acquire(timeout_s=LATE_S)
    for held in ("", "-next"):
        with Path(f"{path}{held}").open() as file:
            if held:
                fcntl.flock(file, fcntl.LOCK_EX)
            took_s(lambda: impatient.acquire(timeout_s=0.05))
        for place in ("-next", "-queue"):
            with Path(f"{path}{place}").open() as file:
                assert is_free(file)
    lock.release()
    behind.acquire(timeout_s=LATE_S)
    behind.release()


def test_a_stopped_process_that_is_next_in_line_is_waited_for_no_longer_than_told(
    path: Path, environment: dict[str, str]
) -> None:
    """Those behind it give up in time and leave nothing behind; when it goes on, so do they."""
    lock = WriterLock(path)
    with Ledger.open(f"sqlite:///{path.with_name('ledger.db')}") as book:
        book.pool("pool", OPTIONS)
        lock.acquire(timeout_s=LATE_S)
        with next_in_line(path, environment) as process:
            process.send_signal(signal.SIGSTOP)
            lock.release()
            assert 0.2 <= took_s(lambda: lock.acquire(timeout_s=0.2)) < LATE_S
            with impatient(book, 0.3), pytest.raises(ContentionError):
                book.adjust("pool", OPTIONS)
            process.send_signal(signal.SIGCONT)
            assert {"held": True} == said(process)
            book.adjust("pool", OPTIONS)
            lock.acquire(timeout_s=LATE_S)
            lock.release()
        assert 2 == len(list(book.entries("pool")))


def test_a_second_lock_file_that_cannot_be_made_leaves_no_file_open(path: Path) -> None:
    """Where whoever is next in line cannot be told, trying again and again uses nothing up."""
    blocked = Path(f"{path}-next")
    blocked.mkdir()
    lock = WriterLock(path)
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(10):
        with pytest.raises(OSError, match="next"):
            lock.acquire(timeout_s=0.1)
    assert before == len(list(Path("/dev/fd").iterdir()))
    blocked.rmdir()
    lock.acquire(timeout_s=LATE_S)
    lock.release()


def test_a_closed_ledger_leaves_no_file_open(path: Path) -> None:
    """Neither the database's nor the locks': a program may open one ledger after the other."""
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(3):
        with Ledger.open(f"sqlite:///{path.with_name('ledger.db')}") as book:
            book.pool("pool", OPTIONS).reserve(
                RequestExtensions(), UsageEstimate(), RequestBudget.unlimited()
            )
    assert before == len(list(Path("/dev/fd").iterdir()))


def test_a_ledger_behind_a_held_lock_gives_up_in_time(
    path: Path, environment: dict[str, str]
) -> None:
    """A store whose lock is held elsewhere is contended, not unavailable; a read needs no lock."""
    with Ledger.open(f"sqlite:///{path.with_name('ledger.db')}") as book:
        budget = book.pool("pool", OPTIONS)
        with holder(path, environment):
            began = time.monotonic()
            with impatient(book, 0.3), pytest.raises(ContentionError) as contention:
                book.adjust("pool", OPTIONS)
            assert time.monotonic() - began < LATE_S
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


def test_without_the_lock_a_pool_is_slow_and_right(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is for speed and fairness: SQLite's own keeps what is granted within the pool."""
    monkeypatch.setattr(WriterLock, "acquire", lambda _self, **_: None)
    monkeypatch.setattr(WriterLock, "release", lambda _self: None)
    url = f"sqlite:///{path.with_name('ledger.db')}"
    gate = threading.Barrier(4, timeout=30)

    def work(_thread: int) -> int:
        # A ledger each: the threads of one would share their transactions.
        with Ledger.open(url, timeout_s=60) as book:
            budget = book.pool("pool", SharedPoolBudgetOptions(capacity_tokens=11))
            gate.wait()
            granted = 0
            for _ in range(4):
                with suppress(ThresholdExceededError):
                    budget.reserve(
                        RequestExtensions(),
                        UsageEstimate(total_tokens=1),
                        RequestBudget.unlimited(),
                    )
                    granted += 1
            return granted

    with ThreadPoolExecutor(4) as threads:
        assert 11 == sum(threads.map(work, range(4)))
    assert not path.exists(), "the lock was taken, so nothing is shown"
    with Ledger.open(url) as book:
        assert [None] == [found.damage for found in book.verify()]
