"""One writer at a time among the threads and processes that share an SQLite file.

SQLite's own write lock is enough to be correct, but its waiters sleep and race, and a write may
run beside another process's checkpoint: the condition under which SQLite 3.7.0 to 3.51.2 can
damage a WAL file (https://www.sqlite.org/wal.html#walresetbug). A lock on a file of its own,
held from before BEGIN until after COMMIT and the checkpoint that COMMIT may run, rules that out
among users of this library. The kernel drops it when a process dies.
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

_POLL_S = 0.000_1
"""How long whoever is next in line sleeps before it looks again."""
_QUEUE_POLL_S = 0.000_5
"""The same for those behind."""


class WriterLock:
    """A lock on a side file; threads of this object queue on a lock of their own first.

    A process that gives the lock back is running, and could take it again before any other wakes.
    So there is a second side file, of the process that is next in line: nobody asks for the lock
    without having been that, and whoever held the lock last must queue for it like the others.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Reentrant only because it knows its owner, whatever an interrupt fell between.
        self._thread_lock = threading.RLock()
        self._files: tuple[int, int] | None = None

    def acquire(self, *, timeout_s: float) -> None:
        """Wait until this thread is the only writer.

        Raises:
            TimeoutError: The wait took `timeout_s` seconds.
            OSError: The side file cannot be made or locked.
        """
        deadline = time.monotonic() + timeout_s
        if not self._thread_lock.acquire(timeout=max(0.0, timeout_s)):
            raise TimeoutError
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
                for file in self._files:
                    fcntl.flock(file, fcntl.LOCK_UN)
        finally:
            self._thread_lock.release()

    def close(self) -> None:
        """Close the files, once no thread of this process is the writer."""
        with self._thread_lock:
            self.abandon()

    def abandon(self) -> None:
        """Close a forked child's files: the lock ends with its parent, not with it."""
        if self._files is not None:
            for file in self._files:
                os.close(file)
            self._files = None

    def _lock_files(self, deadline: float) -> None:
        if sys.platform == "win32":  # SQLite's own lock alone keeps writers apart there
            return
        if self._files is None:
            self._files = _open_both(self.path)
        lock, next_in_line = self._files
        _lock(next_in_line, deadline, poll_s=_QUEUE_POLL_S)
        _lock(lock, deadline, poll_s=_POLL_S)
        fcntl.flock(next_in_line, fcntl.LOCK_UN)


def _open_both(path: Path) -> tuple[int, int]:
    lock = _open(path)
    try:
        return lock, _open(Path(f"{path}-next"))
    except BaseException:
        os.close(lock)
        raise


def _open(path: Path) -> int:
    file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    if os.fstat(file).st_uid == os.geteuid():
        # Locking needs no more than reading. Who may reach the folder and write the database
        # may queue for it, whatever the umask of whoever came first.
        os.fchmod(file, 0o644)
    return file


def _lock(file: int, deadline: float, *, poll_s: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError from None
            time.sleep(poll_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        else:
            return
