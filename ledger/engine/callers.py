"""Callers in the group-commit queue: a waiting thread, a waiting task, or a call without either."""

from __future__ import annotations

import asyncio
import copy
import itertools
import threading
import time
from collections.abc import Sequence
from typing import Any

from ledger.core.errors import LedgerError, NotPermittedError, OutcomeUnknownError, StoreError
from ledger.core.lost_calls import LostCall
from ledger.engine.operations import Operation
from ledger.engine.perform import OperationResult
from ledger.store import rows
from ledger.store.journal import PoolJournal


class Caller:
    """One call in the queue. For an instance of this base class, no thread or task waits."""

    waits = False
    """Whether a thread or a task waits for the outcome."""
    again = False
    """Whether an earlier batch may have done it already, so that it must be looked up."""
    outcome: OperationResult | Exception | None = None
    alive = True
    """False once the calling thread has left: it neither waits for the call nor leads."""
    abandoned = False
    """Whether the caller gave up: a lease that is granted nevertheless is released."""
    tries = 1
    if_lost: LostCall | None = None
    """What is booked if the lease that the call ends is lost, for a caller that does not wait."""

    def __init__(self, pool: PoolJournal, operation: Operation[Any]) -> None:
        self.pool = pool
        self.operation = operation
        self.entered_s = time.monotonic()

    def result(self) -> Any:  # noqa: ANN401 - whatever the operation answers with
        """Return or raise what the caller gets.

        Raises:
            JournalDamagedError: The entry that holds the first answer to this key cannot be read.
            LedgerError: The operation's refusal, or the reason why it was not done.
        """
        row = self.outcome
        if isinstance(row, Exception):
            raise row
        assert row is not None  # noqa: S101 - a caller is woken once its outcome is set
        try:
            return self.operation.answer(row, self.pool.info)
        except LedgerError:
            raise
        except rows.UNREADABLE as error:
            reason = f"its answer cannot be read: {error}"
            raise self.pool.damaged(row["seq"], reason) from error


class ThreadCaller(Caller):
    """A thread that sleeps on a lock until it has its outcome, or until it may lead."""

    waits = True
    behind: ThreadCaller | None = None
    """The thread that this one wakes once it is awake itself."""

    def __init__(self, pool: PoolJournal, operation: Operation[Any]) -> None:
        super().__init__(pool, operation)
        self.thread = threading.get_ident()
        self._signal = threading.Lock()
        self._signal.acquire()

    def wait(self, timeout_s: float) -> None:
        """Sleep until woken, or until the time is over."""
        self._signal.acquire(timeout=timeout_s)

    def wake(self) -> None:
        """Let the thread go on."""
        try:  # noqa: SIM105 - `suppress` would hold the interpreter's lock for longer
            self._signal.release()
        except RuntimeError:  # it is awake already
            pass

    def wake_behind(self) -> None:
        """Wake the thread behind this one in its chain."""
        behind = self.behind
        if behind is not None:
            self.behind = None
            behind.wake()


class TaskCaller(Caller):
    """A task that waits on a future of its loop."""

    waits = True

    def __init__(self, pool: PoolJournal, operation: Operation[Any]) -> None:
        super().__init__(pool, operation)
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()


def is_gone(caller: Caller) -> bool:
    """Tell whether a call can be dropped: its task's loop is closed, and it is not about a lease.

    A call about a lease is still done, since the usage that it records was spent.
    """
    return (
        isinstance(caller, TaskCaller)
        and caller.loop.is_closed()
        and caller.operation.lease_id is None
    )


def own_error(error: StoreError, caller: Caller) -> StoreError:
    """Return a caller's own copy of an error: two must not write into one traceback.

    It is `OutcomeUnknownError` if this batch or an earlier one may have done the call.
    """
    own: StoreError
    if caller.again or isinstance(error, OutcomeUnknownError):
        own = OutcomeUnknownError(caller.operation.key_to_repeat())
    elif isinstance(error, NotPermittedError):
        own = error.of_call(caller.operation.name)
    else:
        own = copy.copy(error)
    own.__cause__ = error.__cause__
    return own


def chain(callers: Sequence[ThreadCaller]) -> ThreadCaller | None:
    """Link threads in a chain, in which each wakes the one behind it; return the first, if any.

    Threads that are all woken at once compete for the interpreter's lock. With one chain instead of
    four, 16 threads have 1.2 times the rate, and 64 threads 1.25 times. Their thread switches per
    operation fall from 2.3 and 2.5 to 1.3 and 1.5.

    If one of them dies, those behind it find their outcomes when they next check whether the leader
    is alive.
    """
    for caller, behind in itertools.pairwise(callers):
        caller.behind = behind
    return callers[0] if callers else None


def wake_tasks(loop: asyncio.AbstractEventLoop, callers: list[TaskCaller]) -> bool:
    """Wake tasks of one loop; return False if the loop is closed."""

    def finish() -> None:
        for caller in callers:
            if not caller.done.done():
                caller.done.set_result(None)

    try:
        loop.call_soon_threadsafe(finish)
    except RuntimeError:
        return False
    return True


class Executor:
    """The worker's thread, while it leads."""

    alive = True

    def __init__(self) -> None:
        self.thread = threading.get_ident()
