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

_POLL_MIN_S = 0.000_2
_POLL_MAX_S = 0.005


class WriterLock:
    """A lock on a side file; threads of this object queue on a lock of their own first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Reentrant only because it knows its owner, whatever an interrupt fell between.
        self._thread_lock = threading.RLock()
        self._file: int | None = None

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
            self._lock_file(deadline)
        except BaseException:
            self._thread_lock.release()
            raise

    def release(self) -> None:
        """Let the next writer in, if this thread holds the lock."""
        if not self._thread_lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001
            return
        try:
            if sys.platform != "win32" and self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._thread_lock.release()

    def _open(self) -> int:
        file = os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if os.fstat(file).st_uid == os.geteuid():
            # Locking needs no more than reading. Who may reach the folder and write the database
            # may queue for it, whatever the umask of whoever came first.
            os.fchmod(file, 0o644)
        return file

    def abandon(self) -> None:
        """Close a forked child's copy of the file: the lock ends with its parent, not with it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lock_file(self, deadline: float) -> None:
        if sys.platform == "win32":  # SQLite's own lock alone keeps writers apart there
            return
        if self._file is None:
            self._file = self._open()
        pause_s = _POLL_MIN_S
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
                time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                pause_s = min(pause_s * 1.5, _POLL_MAX_S)
            else:
                return
