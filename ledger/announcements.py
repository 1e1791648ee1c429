"""Tell the program of thresholds that were crossed, where nobody waits for it."""

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
"""A program's own function; what it returns is of no interest."""

_log = logging.getLogger(__name__)


class Announcer:
    """Calls a program's function for each crossing, one at a time, on a thread of its own.

    So it may be slow, may fail, and may use the budget, and no caller's verdict waits for it.
    """

    def __init__(self, callback: OnThreshold | None) -> None:
        check_callback(callback)
        self._callback = callback
        self._reset()

    def tell(self, crossings: Iterable[ThresholdCrossing]) -> None:
        """Have the function called for these, soon, in this order."""
        if self._callback is None:
            return
        for crossing in crossings:
            if self._process != os.getpid():  # a forked child has no such thread
                self._reset()
            try:
                self._threads.submit(self._call, crossing)
            except RuntimeError:  # the interpreter is shutting down: whoever is here does it
                self._call(crossing)

    def close(self) -> None:
        """Wait until the function was called for everything; it may close the ledger itself."""
        own = self._process == os.getpid() and self._caller != threading.get_ident()
        self._threads.shutdown(wait=own)

    def _reset(self) -> None:
        self._process = os.getpid()
        self._caller: int | None = None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="ledger-thresholds")

    def _call(self, crossing: ThresholdCrossing) -> None:
        assert self._callback is not None  # noqa: S101 - it has crossings to tell
        self._caller = threading.get_ident()
        try:
            self._callback(crossing)
        except Exception:  # noqa: BLE001 - whatever it is, it is the program's own
            _log.exception("on_threshold failed for %s", crossing)
        finally:
            self._caller = None


def check_callback(callback: object) -> None:
    """Refuse what cannot be called from a thread.

    Raises:
        InvalidInputError: It is no function, or one of coroutines.
    """
    if callback is None or (callable(callback) and not inspect.iscoroutinefunction(callback)):
        return
    raise InvalidInputError(
        "on_threshold",
        "must be a plain function; it is called on a thread of its own, from where "
        "loop.call_soon_threadsafe reaches a loop",
    )
