"""Group commit: callers queue, one of them commits for all, and each gets its own verdict.

Whoever finds the queue idle leads: it takes what is waiting, does all of it in one serializable
transaction, and only after COMMIT hands every caller its own answer. Callers that come meanwhile
wait for the next batch, which the first of them leads. There is no thread of its own, so an idle
queue costs a caller next to nothing, and a busy one shares one fsync among many.

Threads and asyncio tasks ride in the same batches: a waiting thread is a lock, a waiting task is a
future, and a batch that begins with a task is led by the one thread of an executor.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection

from ledger.checks import Micros
from ledger.database import Database
from ledger.errors import (
    ContentionError,
    LedgerError,
    OutcomeUnknownError,
    StoreError,
)
from ledger.journal import Memo, PoolJournal
from ledger.operations import Operation, Outcome, Release, perform
from ledger.records import EntryKind

T = TypeVar("T")

Clock = Callable[[], int]
"""Returns the time in microseconds since 1970."""

BATCH_MAX = 256
"""How many operations share a transaction at most."""


def system_clock() -> int:
    """Return this machine's time in microseconds since 1970."""
    return time.time_ns() // 1_000


class Ticket:
    """One call's place in the queue; nobody waits for a plain one."""

    def __init__(
        self, pool: PoolJournal, operation: Operation[Any], *, again: bool = False
    ) -> None:
        self.pool = pool
        self.operation = operation
        self.again = again
        """Whether an earlier, interrupted batch may have done it already."""
        self.outcome: Outcome | Exception | None = None
        self.leads = False
        self.forsaken = False
        self.entered_s = time.monotonic()

    def result(self) -> Any:  # noqa: ANN401 - whatever the operation answers with
        """Return or raise what the caller gets."""
        if isinstance(self.outcome, Exception):
            raise self.outcome
        assert self.outcome is not None  # noqa: S101 - a caller is woken when it is there
        return self.operation.answer(self.outcome, self.pool.info)


class ThreadTicket(Ticket):
    """A thread that sleeps on a lock until its outcome is there, or until it is to lead."""

    def __init__(self, pool: PoolJournal, operation: Operation[Any]) -> None:
        super().__init__(pool, operation)
        self._signal = threading.Lock()
        self._signal.acquire()

    def wait(self) -> None:
        """Sleep until woken."""
        self._signal.acquire()

    def wake(self) -> None:
        """Let the thread go on."""
        if self._signal.locked():
            self._signal.release()


class TaskTicket(Ticket):
    """A task that waits on a future of its loop."""

    def __init__(self, pool: PoolJournal, operation: Operation[Any]) -> None:
        super().__init__(pool, operation)
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()


def wake_tasks(loop: asyncio.AbstractEventLoop, tickets: list[TaskTicket]) -> None:
    """Let tasks of one loop go on; a loop that is closed has no tasks left to go on."""

    def finish() -> None:
        for ticket in tickets:
            if not ticket.done.done():
                ticket.done.set_result(None)

    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(finish)


class Writer:
    """The queue of one store in one process."""

    _threads: ThreadPoolExecutor | None

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self._clock = clock
        self._reset()
        database.after_fork = self._reset

    def now(self) -> Micros:
        """Return the time that new entries are recorded at."""
        return Micros(self._clock())

    def run(self, pool: PoolJournal, operation: Operation[T]) -> T:
        """Do an operation from a thread, and return its answer once it is durable.

        If the thread is interrupted meanwhile, a lease that is granted all the same is released.

        Raises:
            LedgerError: Whatever the operation answers with, or what kept it from being done.
        """
        ticket = ThreadTicket(pool, operation)
        try:
            if not self._enter(ticket):
                ticket.wait()
            if ticket.leads:
                self._lead(ticket)
        except BaseException:
            self._forsake(ticket)
            raise
        answer: T = ticket.result()
        return answer

    async def run_async(self, pool: PoolJournal, operation: Operation[T]) -> T:
        """Do an operation from a task, and return its answer once it is durable.

        If the task is cancelled while the operation waits, it is not done; if it is being done, it
        is, and a lease that it grants is released.

        Raises:
            LedgerError: Whatever the operation answers with, or what kept it from being done.
        """
        ticket = TaskTicket(pool, operation)
        if self._enter(ticket):
            self._executor().submit(self._lead)
        try:
            await ticket.done
        except BaseException:
            self._forsake(ticket)
            raise
        answer: T = ticket.result()
        return answer

    def close(self) -> None:
        """Wait for what is being done, and stop the executor's thread."""
        with self._mutex:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()

    def _reset(self) -> None:
        self._mutex = threading.Lock()
        self._queue: deque[Ticket] = deque()
        self._batch: list[Ticket] = []
        self._led = False
        self._threads = None

    def _executor(self) -> ThreadPoolExecutor:
        with self._mutex:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(1, thread_name_prefix="ledger-commit")
            return self._threads

    def _enter(self, ticket: Ticket) -> bool:
        """Queue, and tell whether this caller finds the queue idle and so leads it."""
        with self._mutex:
            self._queue.append(ticket)
            ticket.leads = not self._led
            self._led = True
            return ticket.leads

    def _lead(self, mine: Ticket | None = None) -> None:
        """Do what is waiting, then let the first of those who came meanwhile lead."""
        try:
            self._take()
            self._commit(self._batch)
        except BaseException:
            self._put_back(mine)
            raise
        finally:
            self._hand_over()

    def _take(self) -> None:
        with self._mutex:
            count = min(BATCH_MAX, len(self._queue))
            self._batch = [self._queue.popleft() for _ in range(count)]

    def _put_back(self, mine: Ticket | None) -> None:
        """Queue an interrupted batch again: the others' verdicts are not this thread's to lose.

        Whether the batch took effect is looked up when it is done again. The interrupted caller's
        own operation goes with it, and nobody waits for that any more.
        """
        with self._mutex:
            for ticket in reversed(self._batch):
                if ticket.outcome is None:
                    again = ticket
                    if ticket is mine:
                        again = Ticket(ticket.pool, ticket.operation)
                        again.forsaken = True
                    again.again, again.leads = True, False
                    self._queue.appendleft(again)

    def _hand_over(self) -> None:
        with self._mutex:
            self._batch = []
            successor = self._queue[0] if self._queue else None
            self._led = successor is not None
            if successor is not None:
                successor.leads = True
        if isinstance(successor, ThreadTicket):
            successor.wake()
        elif successor is not None:
            self._executor().submit(self._lead)

    def _commit(self, batch: list[Ticket]) -> None:
        """Do a batch in one transaction, and hand out the outcomes."""
        batch = self._in_time(batch)
        if not batch:
            return
        outcomes: list[Any]
        try:
            outcomes = self._transact(batch)
        except OutcomeUnknownError as error:
            outcomes = [_own(OutcomeUnknownError(t.operation.key), error) for t in batch]
        except StoreError as error:
            outcomes = [_own(error, error) for _ in batch]
        except Exception as error:  # noqa: BLE001 - a fault of one operation is that caller's alone
            if len(batch) == 1:
                outcomes = [error]
            else:
                for ticket in batch:
                    self._commit([ticket])
                return
        self._deliver(zip(batch, outcomes, strict=True))

    def _in_time(self, batch: list[Ticket]) -> list[Ticket]:
        """Turn away who waited too long to be begun; what may have been done must be looked up."""
        timeout_s = self.database.timeout_s
        latest_s = time.monotonic() - timeout_s
        late = [ticket for ticket in batch if ticket.entered_s < latest_s and not ticket.again]
        if not late:
            return batch
        self._deliver((one, ContentionError(timeout_s=timeout_s, attempts=0)) for one in late)
        return [ticket for ticket in batch if ticket.outcome is None]

    def _transact(self, batch: list[Ticket]) -> list[Any]:
        by_pool: defaultdict[int, list[Ticket]] = defaultdict(list)
        for ticket in batch:
            by_pool[ticket.pool.info.pool_id].append(ticket)
        looks_up = any(ticket.again for ticket in batch)

        def work(connection: Connection, again: bool) -> dict[Ticket, Outcome]:  # noqa: FBT001
            outcomes: dict[Ticket, Outcome] = {}
            memos.clear()
            for pool_id in sorted(by_pool):
                tickets = by_pool[pool_id]
                pool = tickets[0].pool
                try:
                    done, memo = perform(
                        connection,
                        pool,
                        [ticket.operation for ticket in tickets],
                        now=self.now(),
                        look_up=again or looks_up,
                    )
                except LedgerError as error:
                    done = [_own(error, error) for _ in tickets]
                else:
                    memos.append((pool, memo))
                outcomes.update(zip(tickets, done, strict=True))
            return outcomes

        memos: list[tuple[PoolJournal, Memo]] = []
        outcomes = self.database.transact(
            work, pool_ids=sorted(by_pool), key=batch[0].operation.key
        )
        for pool, memo in memos:
            pool.remember(memo)
        return [outcomes[ticket] for ticket in batch]

    def _deliver(self, results: Iterable[tuple[Ticket, Any]]) -> None:
        tasks: defaultdict[asyncio.AbstractEventLoop, list[TaskTicket]] = defaultdict(list)
        for ticket, outcome in results:
            ticket.outcome = outcome
            if isinstance(ticket, TaskTicket):
                tasks[ticket.loop].append(ticket)
            elif isinstance(ticket, ThreadTicket):
                ticket.wake()
            if ticket.forsaken:
                self._release(ticket)
        for loop, tickets in tasks.items():
            wake_tasks(loop, tickets)

    def _forsake(self, ticket: Ticket) -> None:
        """Forget a caller that is gone: what is not begun is not done, a lease is released."""
        with self._mutex:
            ticket.forsaken = True
            waiting = ticket in self._queue
            if waiting and not ticket.again:
                self._queue.remove(ticket)
        if waiting and ticket.leads and isinstance(ticket, ThreadTicket):
            self._hand_over()
        if ticket.outcome is not None:
            self._release(ticket)

    def _release(self, ticket: Ticket) -> None:
        """Release the lease that a forsaken reservation was granted, in a later batch."""
        row = ticket.outcome
        if isinstance(row, Mapping) and row["kind"] == EntryKind.RESERVATION:
            release = Ticket(ticket.pool, Release(lease=row["seq"]))
            if self._enter(release):
                self._executor().submit(self._lead)


def _own(error: LedgerError, like: LedgerError) -> LedgerError:
    """Return a caller's own copy of an error: two must not write into one traceback."""
    copied = copy.copy(error)
    copied.__cause__ = like.__cause__
    return copied
