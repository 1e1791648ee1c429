"""The worker: a thread that leads batches for tasks, and for calls without a waiting caller."""

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
    """Runs one function, each time it is called, on a thread of its own.

    Finalisers and signal handlers call it too, in the middle of any code. So it takes no lock that
    is implemented in Python, as threads of `concurrent.futures` do: the thread that is
    interrupted, or in which the garbage collector runs, may hold that very lock.
    """

    def __init__(self, work: Callable[[], object], *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self._stopped = False
        self._ended = threading.Lock()
        self._ended.acquire()
        stop = self._calls.put
        # A weak reference: a ledger that was never closed must still be garbage-collected.
        there = weakref.WeakMethod(work, lambda _gone: stop(False))
        self.thread = _thread.start_new_thread(_serve, (self._calls, there, self._ended))
        _workers.add(self)

    def call(self) -> bool:
        """Request one more run; return False after `stop`. Never waits."""
        if not self._stopped:
            self._calls.put(True)
        return not self._stopped

    def stop(self) -> None:
        """End the thread after the runs that were requested; wait at most `timeout_s` for it."""
        self._stopped = True
        self._calls.put(False)
        if self.thread != threading.get_ident():
            self._ended.acquire(timeout=self._timeout_s)


def _serve(
    calls: SimpleQueue[bool], work: weakref.ref[Callable[[], object]], ended: threading.Lock
) -> None:
    """Run the function for each True that is called, until a False. Its errors are logged."""
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
    """Finish the runs that were requested, before the interpreter ends the threads."""
    for worker in list(_workers):
        worker.stop()
