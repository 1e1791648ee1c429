"""The queue of calls on one store in one process: who is in it, who leads, who waited too long."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque

from ledger.engine.callers import Caller, Executor, TaskCaller, ThreadCaller, wake_tasks
from ledger.errors import ContentionError, OutcomeUnknownError
from ledger.store.database import Database

_log = logging.getLogger(__name__)

_TASKS_LOOK_S = 1.0
"""How often a loop looks whether a task of it has waited too long, at least."""

_GRACE_S = 5.0
"""How much longer than twice `timeout_s` a call may take that a leader has begun."""


class CallQueue(ABC):
    """Those that wait, those that are served, and the one that serves them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.forget()

    def forget(self) -> None:
        """Forget everybody: in a forked child none of them is there."""
        # Reentrant: a finaliser may come while it is held. It is held for a moment at a time,
        # nothing that waits is done under it, and `with` takes a lock of C in one step, so that
        # no interrupt leaves it locked: to wait for it needs no deadline.
        self._mutex = threading.RLock()
        self._queue: deque[Caller] = deque()
        self._batch: list[Caller] = []
        self._leader: ThreadCaller | Executor | None = None
        self._watched: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    @abstractmethod
    def _call_worker(self) -> None:
        """Have somebody lead, if nobody does."""

    def _enter(self, caller: Caller) -> None:
        with self._mutex:
            self._queue.append(caller)

    def _claim(self, who: ThreadCaller | Executor) -> bool:
        """Become the leader, if there is none that is alive, and there is something to do."""
        with self._mutex:
            if self._leader is not None and self._leader.alive:
                return False
            self._put_back()
            if not self._queue:
                return False
            self._leader = who
            return True

    def _put_back(self) -> None:
        """Queue again what an interrupted leader left: it may have taken effect, or not."""
        left = [one for one in self._batch if one.outcome is None and one not in self._queue]
        if left:
            _log.warning("taking over %d operations that an interrupted leader left", len(left))
        for caller in reversed(left):
            again = caller
            if not caller.alive or caller.abandoned:
                again = Caller(caller.pool, caller.operation)
                again.abandoned = True
            again.again = True
            self._queue.appendleft(again)
        self._batch = []

    @property
    def _begun_s(self) -> float:
        """How long a call takes at most that a leader has begun."""
        # The batch waits until the deadline of the first in it, and its last statement as long
        # again. No deadline ends the system's own write to the disk.
        return 2 * self.database.timeout_s + _GRACE_S

    def _give_up(self, caller: Caller) -> None:
        """Turn a caller away that has waited too long to be begun, or to be told of it."""
        waited_s = time.monotonic() - caller.entered_s
        if waited_s < self.database.timeout_s:
            return
        with self._mutex:
            if caller in self._queue and not caller.again:
                self._queue.remove(caller)
                caller.outcome = self._contention()
            elif caller.outcome is None and waited_s > self._begun_s:
                caller.outcome = OutcomeUnknownError(caller.operation.key)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have a loop look now and then whether a task of it has waited too long."""
        if loop not in self._watched:
            self._watched.add(loop)
            self._look_later(loop)

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(min(_TASKS_LOOK_S, self.database.timeout_s / 2), self._look_after, loop)

    def _look_after(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._mutex:
            waiting = [
                caller
                for caller in (*self._queue, *self._batch)
                if isinstance(caller, TaskCaller) and caller.loop is loop and caller.outcome is None
            ]
        for caller in waiting:
            self._give_up(caller)
        wake_tasks(loop, [caller for caller in waiting if caller.outcome is not None])
        if waiting:
            self._call_worker()  # should an interrupt have kept somebody from it
            self._look_later(loop)
        else:
            self._watched.discard(loop)

    def _contention(self) -> ContentionError:
        holder, leader = self.database.last_holder(), self._leader
        if holder is None and leader is not None and leader.alive:
            holder = f"thread {leader.thread} of this process ({os.getpid()})"
        return ContentionError(timeout_s=self.database.timeout_s, attempts=0, holder=holder)
