"""The writer lock: one writer at a time among the threads and processes of an SQLite file.

SQLite's own write lock is enough to be correct, but its waiters sleep and race, and a write may run
beside another process's checkpoint: the condition under which SQLite 3.7.0 to 3.51.2 can damage a
WAL file (https://www.sqlite.org/wal.html#walresetbug). A lock on a file of its own, held from
before BEGIN until after COMMIT and the checkpoint that COMMIT may run, rules that out among
processes that use this library. The kernel drops the lock when a process dies, but not when it is
stopped. So the holder writes its process id into the file, so that the error of a timed-out wait
can name it.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from pathlib import Path

if sys.platform != "win32":
    import fcntl

    _AT_ONCE = fcntl.LOCK_EX | fcntl.LOCK_NB

LOCK_SUFFIXES = ("-queue", "-next", "")
"""The suffixes of the lock's files: the places of the queue, the last one first, then the lock
itself."""

_POLL_S = 0.000_1
"""How many seconds the first process of the queue sleeps before it tries the lock again."""
_QUEUE_POLL_S = 0.000_5
"""How many seconds the processes behind it sleep before they try again."""
_PASS_S = 1.0
"""After how many seconds the first process of the queue is passed if it does not take a free
lock."""
_PID_BYTES = 24


class WriterLockTimeoutError(TimeoutError):
    """The lock was not free in time. `holder` names the process that has it."""

    def __init__(self, holder: str | None) -> None:
        super().__init__(holder or "the lock is held")
        self.holder = holder


class WriterLock:
    """A lock on a side file; threads that use this object first queue on a lock of their own.

    A process that releases the lock is running, and could take it again before any other process
    wakes. So there are two more side files, whose locks are the first two places of a queue. Each
    process takes the last place, then the one in front of it, then the lock. The last writer queues
    like the others. Processes without a place compete at random. With four busy processes and one
    place, the 99th percentile of a call was 4 to 6 times the median; with two places it is 2.5
    times. The first process in the queue is passed only if it is stopped and does not take the free
    lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Reentrant only because such a lock knows its owner, even after an interrupt.
        self._thread_lock = threading.RLock()
        self._files: tuple[int, ...] | None = None
        self._name = f"{os.getpid()}\n".ljust(_PID_BYTES).encode()
        """The text that this process writes into the lock; a forked child makes a lock of its
        own."""
        self._queues = False
        """Whether this process may have a place in the queue, perhaps since an interrupt."""

    def acquire(self, *, timeout_s: float) -> None:
        """Wait until this thread is the only writer.

        Raises:
            WriterLockTimeoutError: The wait took `timeout_s` seconds.
            OSError: The side file cannot be made or locked.
        """
        deadline = time.monotonic() + timeout_s
        if not self._thread_lock.acquire(timeout=max(0.0, timeout_s)):
            raise WriterLockTimeoutError(f"another thread of this process ({os.getpid()})")
        try:
            self._lock_files(deadline)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let the next writer in, if this thread holds the lock."""
        if not self._thread_lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001
            return
        try:
            if sys.platform != "win32" and self._files is not None:
                for file in self._files if self._queues else self._files[-1:]:
                    fcntl.flock(file, fcntl.LOCK_UN)
        finally:
            self._thread_lock.release()

    def close(self, *, timeout_s: float) -> None:
        """Close the files once no thread of this process writes, or after `timeout_s` seconds."""
        owned = self._thread_lock.acquire(timeout=timeout_s)
        try:
            self.abandon()
        finally:
            if owned:
                self._thread_lock.release()

    def abandon(self) -> None:
        """Close a forked child's files; the parent keeps the lock."""
        if self._files is not None:
            for file in self._files:
                os.close(file)
            self._files = None

    def _lock_files(self, deadline: float) -> None:
        if sys.platform == "win32":  # on Windows only SQLite's own lock keeps writers apart
            return
        if self._files is None:
            self._files = _open_all(self.path)
        pass_s = time.monotonic() + _PASS_S
        self._queues = True
        lock = self._files[-1]
        held: int | None = None
        for file in self._files:
            advanced = file if _try(file) else self._wait_for(file, deadline, pass_s=pass_s)
            if held is not None:
                fcntl.flock(held, fcntl.LOCK_UN)
            held = advanced
            if held == lock:
                break
        self._queues = False
        try:
            if os.pread(lock, _PID_BYTES, 0) != self._name:
                os.pwrite(lock, self._name, 0)
        except OSError:  # another user's file, or a full disk; the lock is held nevertheless
            pass

    def _wait_for(self, file: int, deadline: float, *, pass_s: float) -> int:
        """Lock a file, or else the lock itself, past the processes in front; return which.

        Raises:
            WriterLockTimeoutError: Neither was free until the deadline.
        """
        assert self._files is not None  # noqa: S101 - the caller has opened them
        lock = self._files[-1]
        pause_s = _POLL_S if file == lock else _QUEUE_POLL_S
        while not _try(file):
            now_s = time.monotonic()
            if now_s > pass_s and _try(lock):
                return lock
            if now_s >= deadline:
                raise WriterLockTimeoutError(_signed(lock))
            time.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        return file


def _open_all(path: Path) -> tuple[int, ...]:
    files: list[int] = []
    try:
        for place in LOCK_SUFFIXES:
            files.append(_open(Path(f"{path}{place}")))  # noqa: PERF401 - closed below if one fails
    except BaseException:
        for file in files:
            os.close(file)
        raise
    return tuple(files)


def _open(path: Path) -> int:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except PermissionError:
        # Locking needs only read access. So every user who can reach the folder and write the
        # database can queue, whatever the umask of the user who made the file.
        file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    if os.fstat(file).st_uid == os.geteuid():
        os.fchmod(file, 0o644)
    return file


def _try(file: int) -> bool:
    try:
        fcntl.flock(file, _AT_ONCE)
    except BlockingIOError:
        return False
    return True


def _signed(file: int) -> str | None:
    """Return the process that last wrote its id into a lock, if it still runs."""
    text = os.pread(file, _PID_BYTES, 0).decode("ascii", errors="replace").strip()
    if not text.isdecimal():
        return None
    try:
        os.kill(int(text), 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # another user's
        pass
    own = " (this one)" if int(text) == os.getpid() else ""
    return f"process {text}{own}{', which is stopped' if _is_stopped(text) else ''}"


def _is_stopped(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):  # the folder exists only on Linux
        return False
    return state in "Tt"
