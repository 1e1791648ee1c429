"""Places in the queue of group commit: a thread's, a task's, and one that nobody waits at."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Any

from ledger.engine.operations import Operation
from ledger.engine.perform import Outcome
from ledger.errors import LedgerError
from ledger.store import rows
from ledger.store.journal import PoolJournal


class Caller:
    """One call's place in the queue; nobody waits for a plain one."""

    waits = False
    """Whether a thread or a task waits for the outcome."""

    def __init__(
        self, pool: PoolJournal, operation: Operation[Any], *, again: bool = False
    ) -> None:
        self.pool = pool
        self.operation = operation
        self.again = again
        """Whether an interrupted batch may have done it already."""
        self.outcome: Outcome | Exception | None = None
        self.alive = True
        """Whether somebody still works on it, or waits for it."""
        self.abandoned = False
        self.tries = 1
        self.entered_s = time.monotonic()

    def result(self) -> Any:  # noqa: ANN401 - whatever the operation answers with
        """Return or raise what the caller gets.

        Raises:
            JournalDamagedError: The entry that holds the first answer to this key cannot be read.
            LedgerError: Whatever the operation answers with, or what kept it from being done.
        """
        row = self.outcome
        if isinstance(row, Exception):
            raise row
        assert row is not None  # noqa: S101 - a caller is woken when it is there
        try:
            return self.operation.answer(row, self.pool.info)
        except LedgerError:
            raise
        except rows.UNREADABLE as error:
            reason = f"its answer cannot be read: {error}"
            raise self.pool.damaged(row["seq"], reason) from error


class ThreadCaller(Caller):
    """A thread that sleeps on a lock until its outcome is there, or until it may lead."""

    waits = True

    def __init__(self, pool: PoolJournal, operation: Operation[Any]) -> None:
        super().__init__(pool, operation)
        self.thread = threading.get_ident()
        self._signal = threading.Lock()
        self._signal.acquire()

    def wait(self, timeout_s: float) -> None:
        """Sleep until woken, or for so long."""
        self._signal.acquire(timeout=timeout_s)

    def wake(self) -> None:
        """Let the thread go on."""
        with contextlib.suppress(RuntimeError):  # it is awake already
            self._signal.release()


class TaskCaller(Caller):
    """A task that waits on a future of its loop."""

    waits = True

    def __init__(self, pool: PoolJournal, operation: Operation[Any]) -> None:
        super().__init__(pool, operation)
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()


def is_gone(caller: Caller) -> bool:
    """Tell whether a task's loop is closed, and nothing is lost by not doing what it asked.

    Usage is recorded all the same: it was spent.
    """
    return (
        isinstance(caller, TaskCaller)
        and caller.loop.is_closed()
        and caller.operation.lease_id is None
    )


def wake_tasks(loop: asyncio.AbstractEventLoop, callers: list[TaskCaller]) -> bool:
    """Let tasks of one loop go on; false if the loop is closed, and its tasks are gone."""

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
