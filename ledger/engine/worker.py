"""The thread that leads batches for callers that cannot: tasks, and those that are gone."""

from __future__ import annotations

import _thread
import atexit
import logging
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue

_log = logging.getLogger(__name__)


class Worker:
    """Does one piece of work whenever it is called, on a thread of its own.

    It is called from finalisers and signal handlers too, in the middle of anything. So it takes
    no lock of Python's own making, as threads of `concurrent.futures` do: the thread that is
    interrupted, or in which the garbage collector runs, may hold that very lock.
    """

    def __init__(self, work: Callable[[], object], *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self._stopped = False
        self._ended = threading.Lock()
        self._ended.acquire()
        stop = self._calls.put
        # Not the method itself: a ledger that nobody closed must be collected all the same.
        there = weakref.WeakMethod(work, lambda _gone: stop(False))
        self.thread = _thread.start_new_thread(_serve, (self._calls, there, self._ended))
        _workers.add(self)

    def call(self) -> bool:
        """Have the work done once more, soon; false if this was stopped. Never waits."""
        if not self._stopped:
            self._calls.put(True)
        return not self._stopped

    def stop(self) -> None:
        """Let what was called for be done, and end; waits no longer than that may take."""
        self._stopped = True
        self._calls.put(False)
        if self.thread != threading.get_ident():
            self._ended.acquire(timeout=self._timeout_s)


def _serve(
    calls: SimpleQueue[bool], work: weakref.ref[Callable[[], object]], ended: threading.Lock
) -> None:
    """Do the work for each true call, until a false one: no caller waits for this thread."""
    try:
        while calls.get():
            method = work()
            if method is None:
                return
            try:
                method()
            except Exception:  # noqa: BLE001 - the next call must find this thread alive
                _log.exception("a batch ended with an error that is no caller's")
            del method
    finally:
        ended.release()


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Let what is still to be done be done, before the interpreter ends such threads."""
    for worker in list(_workers):
        worker.stop()
