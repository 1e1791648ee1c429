"""Capacity queues: callers wait in them, first come, first served, for capacity of a pool.

Only the first caller in a pool's queue asks for capacity; the others sleep until it has left. So
smaller requests cannot pass a large one for ever. The first caller is woken when capacity comes
back in this process, and polls for capacity that other processes give back. The queues do not know
what is requested: each caller passes in the functions that ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection
from enum import Enum, auto
from typing import TypeVar

from ledger.core.errors import LedgerUnavailableError

T = TypeVar("T")

LOOK_MIN_S, LOOK_MAX_S = 0.05, 0.25
"""The bounds, in seconds, of the random pause between two polls by the first caller.

A poll reads the newest entry, and tells whether the rules may admit the request now.
"""

ASK_S = 1.0
"""The first caller asks at least this often, in seconds, whatever the polls say.

Leases come due by the clock, and no event reports that.
"""


class Action(Enum):
    """What a waiter does next."""

    ASK = auto()
    """Ask for the capacity, and wait on after a refusal."""
    LOOK = auto()
    """Poll whether asking may succeed."""
    SLEEP = auto()
    """Sleep until woken, or until the time for the next check."""
    ASK_LAST = auto()
    """Ask a last time and take the answer, since the waiting time is over."""


class Waiter(ABC):
    """One caller's place in the queue of a pool."""

    def __init__(self, pools: Collection[int], wait_s: float) -> None:
        self.pools = frozenset(pools)
        """The pools whose capacity it waits for: its own, and those above that share with it."""
        self.alive = True
        """Whether the caller still waits."""
        self.worth = True
        """Whether capacity may have come back since it last asked."""
        self.until_s = 0.0
        """When its sleep ends, on the clock of `time.monotonic`."""
        self.deadline_s = time.monotonic() + wait_s
        """When it asks a last time, on the same clock."""
        self._ask_s = self._look_s = 0.0
        self._frees_s = math.inf
        self._action: Action | None = None

    def next_action(self, *, first: bool) -> Action:
        """Return what to do next. Times count from the end of the action before."""
        now_s = time.monotonic()
        if self._action in {Action.ASK, Action.LOOK}:
            self._look_s = now_s + random.uniform(LOOK_MIN_S, LOOK_MAX_S)  # noqa: S311 - jitter
        if self._action is Action.ASK:
            self._ask_s = min(now_s + ASK_S, self._frees_s)
            self._frees_s = math.inf
        self._action = action = self._next(now_s, first=first)
        return action

    def note_refusal(self, retry_in_s: float | None, *, too_large: bool) -> None:
        """Note the time at which capacity comes back by itself, to ask again by then.

        A request that can never fit would keep all behind it waiting, so it asks a last time at
        once.
        """
        if too_large:
            self.deadline_s = time.monotonic()
        elif retry_in_s is not None:
            # The journal's time may be later than that already, if another process's clock is
            # ahead.
            self._frees_s = time.monotonic() + max(retry_in_s, LOOK_MIN_S)

    def _next(self, now_s: float, *, first: bool) -> Action:
        if now_s >= self.deadline_s:
            return Action.ASK_LAST
        if not first:  # it checks now and then, since the first caller may have died
            self.until_s = min(self.deadline_s, now_s + ASK_S)
            return Action.SLEEP
        if self.worth or now_s >= self._ask_s:
            # Cleared before it asks, so that capacity that comes back meanwhile makes it ask again.
            self.worth = False
            return Action.ASK
        if now_s >= self._look_s:
            return Action.LOOK
        self.until_s = min(self.deadline_s, self._ask_s, self._look_s)
        return Action.SLEEP

    @abstractmethod
    def wake(self) -> None:
        """End its sleep, or its next sleep if it is awake. Any thread may call this."""

    @property
    @abstractmethod
    def gone(self) -> bool:
        """Whether the caller has stopped waiting, even if it is still in the queue."""


class ThreadWaiter(Waiter):
    """A thread that sleeps on a lock."""

    def __init__(self, pools: Collection[int], wait_s: float) -> None:
        super().__init__(pools, wait_s)
        self._signal = threading.Lock()
        self._signal.acquire()

    def sleep(self) -> None:
        """Sleep until woken, or until the given time."""
        pause_s = self.until_s - time.monotonic()
        if pause_s > 0:
            self._signal.acquire(timeout=pause_s)

    def wake(self) -> None:
        """Let the thread go on."""
        with contextlib.suppress(RuntimeError):  # it was woken already
            self._signal.release()

    @property
    def gone(self) -> bool:
        """Whether the thread has left."""
        return not self.alive


class TaskWaiter(Waiter):
    """A task that sleeps on an event of its loop."""

    def __init__(self, pools: Collection[int], wait_s: float) -> None:
        super().__init__(pools, wait_s)
        self._loop = asyncio.get_running_loop()
        self._signal = asyncio.Event()

    async def sleep(self) -> None:
        """Sleep until woken, or until the given time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0, self.until_s - time.monotonic())):
                await self._signal.wait()
        self._signal.clear()

    def wake(self) -> None:
        """Let the task go on, if its loop still runs."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._signal.set)

    @property
    def gone(self) -> bool:
        """Whether the task has left, or its loop is closed."""
        return not self.alive or self._loop.is_closed()


class CapacityQueues:
    """The capacity queues of one process: one for each pool."""

    def __init__(self, closed: str = "closed") -> None:
        self._closed_text = closed
        self._closed = False
        self.forget()
        _all_queues.add(self)

    def forget(self) -> None:
        """Begin with empty queues; in a forked child, the parent's callers do not exist."""
        # No lock guards these, since each change is one step of the interpreter. With a lock, a
        # finaliser that runs in this thread could wait for a batch whose leader needs the lock to
        # wake waiters.
        self._queues: dict[int, list[Waiter]] = {}

    def wait(
        self,
        pool: int,
        waiter: ThreadWaiter,
        *,
        ask: Callable[[], T | None],
        look: Callable[[], bool],
        ask_last: Callable[[], T],
    ) -> T:
        """Wait in a pool's queue until `ask` answers, at most until the waiter's time is over.

        Args:
            pool: The number of the pool.
            waiter: The caller's place in its queue.
            ask: Asks for the capacity; None if there is not enough yet.
            look: Tells, at little cost, whether asking may succeed.
            ask_last: Asks for the last time, and answers or raises.

        Raises:
            LedgerUnavailableError: The queues were closed meanwhile.
        """
        try:
            self._enter(pool, waiter)
            while (action := self._action_of(pool, waiter)) is not Action.ASK_LAST:
                if action is Action.SLEEP:
                    waiter.sleep()
                elif action is Action.LOOK:
                    if look():
                        waiter.worth = True
                elif (answer := ask()) is not None:
                    return answer
            return ask_last()
        finally:
            waiter.alive = False  # first, since an interrupt may prevent the rest
            self._leave_surely(pool, waiter)

    async def wait_async(
        self,
        pool: int,
        waiter: TaskWaiter,
        *,
        ask: Callable[[], Awaitable[T | None]],
        look: Callable[[], Awaitable[bool]],
        ask_last: Callable[[], Awaitable[T]],
    ) -> T:
        """Wait in a pool's queue, as `wait`, without ever blocking the loop."""
        try:
            self._enter(pool, waiter)
            while (action := self._action_of(pool, waiter)) is not Action.ASK_LAST:
                if action is Action.SLEEP:
                    await waiter.sleep()
                elif action is Action.LOOK:
                    if await look():
                        waiter.worth = True
                elif (answer := await ask()) is not None:
                    return answer
            return await ask_last()
        finally:
            waiter.alive = False  # first, since an interrupt may prevent the rest
            self._leave_surely(pool, waiter)

    def free(self, pools: Collection[int]) -> None:
        """Wake the first caller of every queue that waits for capacity of one of these pools."""
        for pool in list(self._queues):
            waiter = self._first(pool)
            if waiter is not None and not waiter.pools.isdisjoint(pools):
                waiter.worth = True
                waiter.wake()

    def close(self) -> None:
        """Refuse every caller, those that wait now and those that come later."""
        self._closed = True
        for queue in list(self._queues.values()):
            for waiter in list(queue):
                waiter.wake()

    def _enter(self, pool: int, waiter: Waiter) -> None:
        self._queues.setdefault(pool, []).append(waiter)

    def _action_of(self, pool: int, waiter: Waiter) -> Action:
        if self._closed:
            raise LedgerUnavailableError(self._closed_text, closed=True)
        return waiter.next_action(first=self._first(pool) is waiter)

    def _first(self, pool: int) -> Waiter | None:
        """Return the first caller in a queue, after removing those that are gone."""
        queue = self._queues.get(pool, [])
        with contextlib.suppress(IndexError):  # the queue is empty by now
            while (waiter := queue[0]).gone:
                _remove(queue, waiter)
            return waiter
        return None

    def _leave_surely(self, pool: int, waiter: Waiter) -> None:
        try:
            self._leave(pool, waiter)
        except BaseException:  # an interrupt must not leave a place in the queue without its caller
            self._leave(pool, waiter)
            raise

    def _leave(self, pool: int, waiter: Waiter) -> None:
        """Leave the queue, and wake the caller that is first now."""
        waiter.alive = False
        _remove(self._queues.get(pool, []), waiter)
        successor = self._first(pool)
        if successor is not None:
            successor.wake()


def _remove(queue: list[Waiter], waiter: Waiter) -> None:
    with contextlib.suppress(ValueError):  # it has left, or another thread removed it
        queue.remove(waiter)


_all_queues: weakref.WeakSet[CapacityQueues] = weakref.WeakSet()


def _forget_all() -> None:
    for queues in list(_all_queues):
        queues.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
