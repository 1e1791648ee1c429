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
import copy
import itertools
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ledger.core.checks import Micros
from ledger.core.entries import EntryKind
from ledger.engine.callers import Caller, Executor, TaskCaller, ThreadCaller, wake_tasks
from ledger.engine.opening import Opening
from ledger.engine.operations import Operation, Release, new_key
from ledger.engine.perform import Call, Done
from ledger.engine.transaction import Transactions
from ledger.errors import (
    ContentionError,
    LedgerError,
    OutcomeUnknownError,
    StoreError,
)
from ledger.store.database import Database
from ledger.store.directory import Directory
from ledger.store.journal import PoolJournal

T = TypeVar("T")

Clock = Callable[[], int]
"""Returns the time in microseconds since 1970."""

BATCH_MAX = 256
"""How many operations share a transaction at most."""


_LOOK_S = 0.05
"""How long a waiting thread sleeps before it looks whether the leader is still there."""


class Writer:
    """The queue of one store in one process.

    An interrupt may land in the leader between any two steps. So the leader mends nothing: whoever
    leads next finds what an interrupted one left, and looks up whether it took effect; and nobody
    sleeps longer than a moment without looking whether the leader is still there.
    """

    _threads: ThreadPoolExecutor | None

    def __init__(self, database: Database, directory: Directory, clock: Clock | None) -> None:
        self.database = database
        self.transactions = Transactions(database, directory)
        self._clock = clock
        self.committed: list[Callable[[Done], None]] = []
        """Told of every batch, once it is committed and every caller has its verdict."""
        self._reset()
        database.after_fork = self._reset

    def now(self) -> Micros | None:
        """Return the time that new entries are recorded at; None where the server knows it."""
        return self.database.dialect.now() if self._clock is None else Micros(self._clock())

    def sweep(self, pool: PoolJournal) -> int:
        """Expire the next leases of a pool that are due, and return how many there were."""
        done = self.transactions.perform(
            pool.lineage, lambda _pools: [], key=new_key(), now=self.now, look_up=False
        )
        self._tell(done)
        return done.expired[pool.info.pool_id]

    def open(self, opening: Opening, parent: PoolJournal | None) -> PoolJournal:
        """Find a pool, or make it below its parent, and return it once it is durable.

        Raises:
            LedgerError: It is there and is another, or its parent does not let it be made.
        """
        while True:  # each time 256 leases expire that were due, and there is an end to them
            found, done = self.transactions.open(opening, parent, now=self.now)
            if done is not None:
                self._tell(done)
            if found is not None:
                return found

    def run(self, pool: PoolJournal, operation: Operation[T]) -> T:
        """Do an operation from a thread, and return its answer once it is durable.

        If the thread is interrupted meanwhile, a lease that is granted all the same is released,
        unless its caller can ask for it again by the key it gave.

        Raises:
            LedgerError: Whatever the operation answers with, or what kept it from being done.
        """
        caller = ThreadCaller(pool, operation)
        try:
            self._enter(caller)
            while caller.outcome is None:
                if self._claim(caller):
                    self._lead()
                else:
                    caller.wait(_LOOK_S)
                    self._give_up(caller)
            answer: T = caller.result()
        except BaseException:
            # A verdict leaves nothing behind; an interrupt may leave a lease that nobody has.
            caller.alive = False
            self._drop(caller)
            raise
        caller.alive = False
        return answer

    async def run_async(self, pool: PoolJournal, operation: Operation[T]) -> T:
        """Do an operation from a task, and return its answer once it is durable.

        If the task is cancelled while the operation waits, it is not done. If it is being done, it
        is, and a lease that it grants is released, unless its caller can ask for it again by the
        key it gave.

        Raises:
            LedgerError: Whatever the operation answers with, or what kept it from being done.
        """
        caller = TaskCaller(pool, operation)
        self._enter(caller)
        self._call_executor()
        try:
            await caller.done
        except BaseException:
            self._drop(caller)
            raise
        answer: T = caller.result()
        return answer

    def close(self) -> None:
        """Wait for what is being done, and stop the executor's thread."""
        with self._mutex:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()

    def _reset(self) -> None:
        # Reentrant: a task that the garbage collector ends may forsake its call at any moment.
        self._mutex = threading.RLock()
        self._queue: deque[Caller] = deque()
        self._batch: list[Caller] = []
        self._leader: Caller | Executor | None = None
        self._called = False
        self._threads = None
        self.transactions.reset()

    def _enter(self, caller: Caller) -> None:
        with self._mutex:
            self._queue.append(caller)

    def _claim(self, who: Caller | Executor) -> bool:
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
        for caller in reversed(left):
            again = caller
            if not caller.alive or caller.abandoned:
                again = Caller(caller.pool, caller.operation)
                again.abandoned = True
            again.again = True
            self._queue.appendleft(again)
        self._batch = []

    def _lead(self) -> None:
        """Do what is waiting, then let the first of those who came meanwhile lead."""
        with self._mutex:
            self._batch = list(itertools.islice(self._queue, BATCH_MAX))
            for _ in self._batch:
                self._queue.popleft()
        self._commit(self._batch)
        self._pass_on()

    def _pass_on(self) -> None:
        with self._mutex:
            self._batch = []
            self._leader = None
            successor = self._queue[0] if self._queue else None
        if isinstance(successor, ThreadCaller):
            successor.wake()
        elif successor is not None:
            self._call_executor()

    def _call_executor(self) -> None:
        """Have the executor's thread lead, if nobody does; called often, it comes once."""
        with self._mutex:
            if self._called or (self._leader is not None and self._leader.alive):
                return
            self._called = True
            if self._threads is None:
                self._threads = ThreadPoolExecutor(1, thread_name_prefix="ledger-commit")
            threads = self._threads
        try:
            threads.submit(self._lead_from_executor)
        except RuntimeError:  # the interpreter is shutting down: whoever is here does it
            self._lead_from_executor()

    def _lead_from_executor(self) -> None:
        executor = Executor()
        try:
            with self._mutex:
                self._called = False
            while self._claim(executor):
                self._lead()
        finally:
            executor.alive = False

    def _give_up(self, caller: ThreadCaller) -> None:
        """Turn a thread away that has waited too long to be begun."""
        if caller.entered_s + self.database.timeout_s > time.monotonic():
            return
        with self._mutex:
            if caller in self._queue and not caller.again:
                self._queue.remove(caller)
                caller.outcome = self._contention()

    def _contention(self) -> ContentionError:
        return ContentionError(timeout_s=self.database.timeout_s, attempts=0)

    def _commit(self, batch: list[Caller]) -> None:
        """Do a batch and hand out the outcomes, in several transactions where leases are due.

        Leases expire in bounded steps. What cannot be decided before more of them have expired is
        asked again in the next transaction, and each of these gets through some of them.
        """
        while batch:
            batch = self._commit_once(batch)

    def _commit_once(self, batch: list[Caller]) -> list[Caller]:
        """Do a batch in one transaction, hand out the outcomes, and return who has none yet."""
        late_s = time.monotonic() - self.database.timeout_s
        late = [one for one in batch if one.entered_s < late_s and not one.again]
        self._deliver((one, self._contention()) for one in late)
        batch = [one for one in batch if one.outcome is None and not _gone(one)]
        if not batch:
            return []
        done: Done | None = None
        outcomes: list[Any]
        try:
            done = self._transact(batch)
            outcomes = done.outcomes
        except OutcomeUnknownError as error:
            outcomes = [_own(OutcomeUnknownError(one.operation.key), error) for one in batch]
        except StoreError as error:
            # What an interrupted batch may have done is not undone by a failure to look it up.
            outcomes = [
                _own(OutcomeUnknownError(one.operation.key) if one.again else error, error)
                for one in batch
            ]
        except Exception as error:  # noqa: BLE001 - a fault of one operation is that caller's alone
            if len(batch) == 1:
                outcomes = [error]
            else:
                for caller in batch:
                    caller.again = True
                    self._commit([caller])
                return []
        found = list(zip(batch, outcomes, strict=True))
        self._deliver((caller, outcome) for caller, outcome in found if outcome is not None)
        if done is not None:
            self._tell(done)
        return [caller for caller, outcome in found if outcome is None]

    def _tell(self, done: Done) -> None:
        for listener in self.committed:
            listener(done)

    def _transact(self, batch: list[Caller]) -> Done:
        pools = [pool for one in batch for pool in one.pool.lineage]
        looks_up = any(caller.again for caller in batch)

        def calls(locked: Sequence[PoolJournal]) -> list[Call]:
            # What failed or was interrupted once is no company for who comes now.
            if not looks_up:
                self._join(batch, locked)
            return [(caller.pool, caller.operation) for caller in batch]

        return self.transactions.perform(
            pools,
            calls,
            key=batch[0].operation.key,
            now=self.now,
            look_up=looks_up,
            began_s=min(caller.entered_s for caller in batch),
        )

    def _join(self, batch: list[Caller], locked: Sequence[PoolJournal]) -> None:
        """Take in who came while the batch waited for its turn, as far as its locks go."""
        pools = {pool.info.pool_id: pool for pool in locked}
        anybody = self.database.dialect.locks_whole_store(list(pools))
        with self._mutex:
            joining = [
                caller
                for caller in self._queue
                if (anybody or pools.get(caller.pool.info.pool_id) is caller.pool)
                and not caller.again
                and not _gone(caller)
            ][: BATCH_MAX - len(batch)]
            # In this order: an interrupt in between must not lose them.
            self._batch += joining
            batch += joining
            for caller in joining:
                self._queue.remove(caller)

    def _deliver(self, results: Iterable[tuple[Caller, Any]]) -> None:
        tasks: defaultdict[asyncio.AbstractEventLoop, list[TaskCaller]] = defaultdict(list)
        for caller, outcome in results:
            caller.outcome = outcome
            if isinstance(caller, TaskCaller):
                tasks[caller.loop].append(caller)
            elif isinstance(caller, ThreadCaller):
                caller.wake()
            if caller.abandoned:
                self._release(caller)
        for loop, callers in tasks.items():
            if not wake_tasks(loop, callers):
                for caller in callers:
                    self._release(caller)

    def _drop(self, caller: Caller) -> None:
        """Forget a caller that is gone: what is not begun is not done, a lease is released."""
        with self._mutex:
            caller.abandoned = True
            if caller in self._queue:
                place = self._queue.index(caller)
                del self._queue[place]
                if caller.again:  # it may have been done: whether it was must still be looked up
                    nobodys = Caller(caller.pool, caller.operation, again=True)
                    nobodys.abandoned = True
                    self._queue.insert(place, nobodys)
            waiting = bool(self._queue or self._batch)
        if caller.outcome is not None:
            self._release(caller)
        if waiting:
            self._call_executor()

    def _release(self, caller: Caller) -> None:
        """Release the lease that a abandoned reservation was granted, in a later batch.

        Not if its caller gave a key: whoever repeats the call must get a lease that is open.
        """
        row = caller.outcome
        if (
            isinstance(row, Mapping)
            and row["kind"] == EntryKind.RESERVATION
            and not caller.operation.key_given
        ):
            self._enter(Caller(caller.pool, Release(lease=row["seq"])))
            self._call_executor()


def _gone(caller: Caller) -> bool:
    """Tell whether a task's loop is closed, and nothing is lost by not doing what it asked.

    Usage is recorded all the same: it was spent.
    """
    return (
        isinstance(caller, TaskCaller)
        and caller.loop.is_closed()
        and caller.operation.lease_id is None
    )


def _own(error: LedgerError, like: LedgerError) -> LedgerError:
    """Return a caller's own copy of an error: two must not write into one traceback."""
    copied = copy.copy(error)
    copied.__cause__ = like.__cause__
    return copied
