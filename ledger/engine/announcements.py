"""Calls of `on_threshold`: they report crossed thresholds on a thread of their own."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterable
from functools import partial

from ledger.core.errors import InvalidInputError
from ledger.core.status import ThresholdCrossing
from ledger.engine.worker import Worker

OnThreshold = Callable[[ThresholdCrossing], object]
"""A program's own function; its return value is ignored."""

_log = logging.getLogger(__name__)


class Announcer:
    """Calls a program's function for each crossing, one at a time, on a thread of its own.

    No caller's verdict waits for the function, so it may be slow, may fail, and may use the budget.
    """

    def __init__(self, callback: OnThreshold | None) -> None:
        check_callback(callback)
        self._callback = callback
        self._workers: dict[int, Worker] = {}
        """The worker of each process, since a forked child does not inherit the thread."""

    def tell(self, crossings: Iterable[ThresholdCrossing]) -> None:
        """Queue a call of the function for each crossing, in this order."""
        if self._callback is None:
            return
        for crossing in crossings:
            try:
                called = self._worker().call(partial(self._call, crossing))
            except RuntimeError:  # the interpreter is shutting down and starts no thread
                called = False
            if not called:
                self._call(crossing)

    def close(self) -> None:
        """Wait until all queued calls are made, unless the function itself calls `close`."""
        worker = self._workers.get(os.getpid())
        if worker is not None:
            worker.stop()

    def _worker(self) -> Worker:
        # There is no lock, since a finaliser may run while it is held and report a crossing, too.
        # Two threads that come here at once get the same worker; the second worker's thread is
        # idle.
        process = os.getpid()
        found = self._workers.get(process)
        return found or self._workers.setdefault(process, Worker(self, timeout_s=None))

    def _call(self, crossing: ThresholdCrossing) -> None:
        assert self._callback is not None  # noqa: S101 - `tell` queues nothing without a function
        try:
            self._callback(crossing)
        except Exception:  # noqa: BLE001 - a fault of the program's function is not the library's
            _log.exception("on_threshold failed for %s", crossing)


def check_callback(callback: object) -> None:
    """Refuse a callback that cannot be called from a thread.

    Raises:
        InvalidInputError: The callback is no function, or is a coroutine function.
    """
    if callback is None or (callable(callback) and not inspect.iscoroutinefunction(callback)):
        return
    raise InvalidInputError(
        "on_threshold",
        "must be a plain function; it is called on a thread of its own, from where "
        "loop.call_soon_threadsafe reaches a loop",
    )
