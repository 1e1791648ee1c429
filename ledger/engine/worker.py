"""Workers: threads of the library that do calls in the background."""

from __future__ import annotations

import _thread
import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue

_log = logging.getLogger(__name__)

Work = Callable[[], object]


class Worker:
    """Runs the functions that it is given, in order, on a thread of its own.

    Finalisers and signal handlers call it, too, in the middle of any code. So it takes no lock that
    is implemented in Python, as `concurrent.futures` does: the interrupted thread may hold that
    lock.
    """

    def __init__(self, owner: object, *, timeout_s: float | None) -> None:
        """Start the thread.

        Args:
            owner: The thread ends with this object. It is held by a weak reference, so that a
                ledger that was never closed can be garbage-collected.
            timeout_s: How many seconds `stop` waits at most; None for as long as it takes.
        """
        self._timeout_s = timeout_s
        self._calls: SimpleQueue[Work | None] = SimpleQueue()
        self._stopped = False
        self._ended = threading.Lock()
        self._ended.acquire()
        end = self._calls.put
        there = weakref.ref(owner, lambda _gone: end(None))
        self.thread = _thread.start_new_thread(_serve, (self._calls, there, self._ended))
        _workers.add(self)

    def call(self, work: Work) -> bool:
        """Queue a function to be run; return False after `stop`. It never waits."""
        if not self._stopped:
            self._calls.put(work)
        return not self._stopped

    def stop(self) -> None:
        """End the thread after its queued functions; wait for that unless it is this thread."""
        self._stopped = True
        self._calls.put(None)
        if self.thread == threading.get_ident():
            return
        if self._timeout_s is None:
            with self._ended:
                pass
        elif self._ended.acquire(timeout=self._timeout_s):
            self._ended.release()


def _serve(calls: SimpleQueue[Work | None], _owner: object, ended: threading.Lock) -> None:
    """Run the queued functions until a None. Errors are logged."""
    try:
        while (work := calls.get()) is not None:
            try:
                work()
            except Exception:  # noqa: BLE001 - the thread must stay alive for the next call
                _log.exception("a batch ended with an error that is no caller's")
            del work
    finally:
        ended.release()


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Run the queued functions before the interpreter ends the threads."""
    for worker in list(_workers):
        worker.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.clear)  # threads stay in the parent
