"""Calls of `on_threshold`: they report crossed thresholds on a thread of their own."""

from __future__ import annotations

import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from ledger.core.entries import ThresholdCrossing
from ledger.errors import InvalidInputError

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
        self._reset()

    def tell(self, crossings: Iterable[ThresholdCrossing]) -> None:
        """Queue a call of the function for each crossing, in this order."""
        if self._callback is None:
            return
        for crossing in crossings:
            if self._process != os.getpid():  # a forked child does not inherit the thread
                self._reset()
            try:
                self._threads.submit(self._call, crossing)
            except RuntimeError:  # the interpreter is shutting down: call it on this thread
                self._call(crossing)

    def close(self) -> None:
        """Wait until all queued calls are made, unless the function itself calls `close`."""
        own = self._process == os.getpid() and self._caller != threading.get_ident()
        self._threads.shutdown(wait=own)

    def _reset(self) -> None:
        self._process = os.getpid()
        self._caller: int | None = None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="ledger-thresholds")

    def _call(self, crossing: ThresholdCrossing) -> None:
        assert self._callback is not None  # noqa: S101 - `tell` queues nothing without one
        self._caller = threading.get_ident()
        try:
            self._callback(crossing)
        except Exception:  # noqa: BLE001 - a fault of the program's function must not end the thread
            _log.exception("on_threshold failed for %s", crossing)
        finally:
            self._caller = None


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
