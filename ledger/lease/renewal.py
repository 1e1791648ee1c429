"""Renewal of the leases of running `with` blocks, by one thread for all of them.

In asyncio it is a timer of the loop. A failure is logged, and no block ends because of it.
"""

from __future__ import annotations

import _thread
import asyncio
import itertools
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from queue import Empty, SimpleQueue

from ledger.core.errors import LedgerUnavailableError, UnknownLeaseError

_log = logging.getLogger(__name__)

_LEAST_S = 0.01
"""The shortest time between two renewals, however short a lease's time to live is."""

RenewCall = Callable[[timedelta], object]
"""Renews a block's lease for a time, or raises the reason why it cannot."""


def _next_s(ttl: timedelta, failure: Exception | None = None) -> float:
    """Return in how many seconds to renew a lease: after half its time, or soon after a failure."""
    return max(_LEAST_S, ttl.total_seconds() / (2 if failure is None else 8))


def _report(lease: int, failure: Exception) -> bool:
    """Log that a lease could not be renewed, and return whether to try again."""
    if isinstance(failure, UnknownLeaseError):
        _log.warning("lease %d is no longer renewed: its hold has ended", lease)
        return False
    if isinstance(failure, LedgerUnavailableError) and failure.closed:
        _log.warning("lease %d is no longer renewed: its ledger was closed", lease)
        return False
    _log.warning("lease %d could not be renewed, and is tried again: %s", lease, failure)
    return True


@dataclass(slots=True)
class _Kept:
    """A lease to be renewed. Its item in the dict is never replaced; only its time changes."""

    due_s: float
    lease: int
    ttl: timedelta
    renew: weakref.ref[RenewCall]


_numbers = itertools.count()
"""Goes on in a forked child, so that its numbers differ from those of its parent's blocks."""


class Renewer:
    """Renews leases on a thread of its own, which is started for the first lease.

    Blocks are entered and left in any thread, by finalisers and signal handlers, too. So nothing
    here takes a lock that the interrupted code may hold: a dict and a `SimpleQueue` need none.
    """

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._wakes_at_s = math.inf
        self._begun = threading.Lock()
        """Taken by the first caller that needs the thread, and never released."""

    def keep(self, lease: int, ttl: timedelta, renew: RenewCall) -> int:
        """Renew a lease from now on; return the number by which `let_go` ends that.

        Args:
            lease: The lease, for the log.
            ttl: How long it holds from now, and from each renewal.
            renew: A bound method. Only a weak reference is kept, so that a block that was dropped
                is not renewed.
        """
        number, due_s = next(_numbers), time.monotonic() + _next_s(ttl)
        self._kept[number] = _Kept(due_s, lease, ttl, weakref.WeakMethod(renew))
        if self._begun.acquire(blocking=False):
            _thread.start_new_thread(self._serve, ())
        if due_s < self._wakes_at_s:
            self._wake.put(None)
        return number

    def let_go(self, number: int | None) -> None:
        """Stop renewing a lease."""
        if number is not None:
            self._kept.pop(number, None)

    def _serve(self) -> None:
        while True:
            # A lease that is added from here on wakes this thread, whatever is found below.
            self._wakes_at_s = math.inf
            soonest_s = min((self._served(*one) for one in self._all()), default=math.inf)
            self._wakes_at_s = soonest_s
            wait_s = None if soonest_s == math.inf else max(0.0, soonest_s - time.monotonic())
            try:
                self._wake.get(timeout=wait_s)
                while True:
                    self._wake.get_nowait()
            except Empty:
                pass

    def _all(self) -> list[tuple[int, _Kept]]:
        while True:
            try:
                return list(self._kept.items())
            except RuntimeError:  # a finaliser removed a lease meanwhile
                continue

    def _served(self, number: int, kept: _Kept) -> float:
        """Renew a lease if it is time, and return when to do so again."""
        now_s = time.monotonic()
        if kept.due_s > now_s:
            return kept.due_s
        renew = kept.renew()
        failure = None
        if renew is not None:
            try:
                renew(kept.ttl)
            except Exception as error:  # noqa: BLE001 - this block and all others go on
                failure = error
        if number not in self._kept:  # the block was left meanwhile
            return math.inf
        if renew is None or (failure is not None and not _report(kept.lease, failure)):
            self.let_go(number)
            return math.inf
        kept.due_s = now_s + _next_s(kept.ttl, failure)
        return kept.due_s


class TaskRenewer:
    """Renews one lease on the running loop, by a timer that starts a task for each renewal."""

    def __init__(
        self, lease: int, ttl: timedelta, renew: Callable[[timedelta], Awaitable[object]]
    ) -> None:
        self._lease = lease
        self._ttl = ttl
        self._renew = weakref.WeakMethod(renew)
        self._stopped = False
        # A loop keeps only a weak reference to its tasks.
        self._task: asyncio.Future[None] | None = None
        self._timer = self._wait(None)

    def stop(self) -> None:
        """Stop renewing the lease; it may be called outside the loop, too."""
        self._stopped = True
        self._timer.cancel()

    def _wait(self, failure: Exception | None) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(_next_s(self._ttl, failure), self._begin)

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._do())

    async def _do(self) -> None:
        renew, failure = self._renew(), None
        if renew is None:
            return
        try:
            await renew(self._ttl)
        except Exception as error:  # noqa: BLE001 - the block goes on
            failure = error
        if not self._stopped and (failure is None or _report(self._lease, failure)):
            self._timer = self._wait(failure)


_renewer = Renewer()


def renewer() -> Renewer:
    """Return the process's own renewer."""
    return _renewer


def _begin_anew() -> None:
    # A forked child has no thread, and the blocks that it inherited belong to its parent.
    global _renewer  # noqa: PLW0603 - one for the process
    _renewer = Renewer()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
