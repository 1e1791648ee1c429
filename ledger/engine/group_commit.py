"""Group commit: callers queue, one of them commits for all, and each gets its own verdict.

A caller that finds the queue idle becomes the leader. It takes the waiting calls, does all of them
in one serializable transaction, and hands each caller its own answer only after COMMIT. Callers
that come meanwhile wait for the next batch, which the first of them leads. Right after a batch, a
leader pauses for callers that come back. A thread leads its own batch, so an idle queue adds little
latency (2 to 9 %, docs/performance.md), and a busy queue shares one fsync among many calls.

Threads and asyncio tasks share batches. A thread waits on a lock, a task on a future. A batch that
begins with a task is led by the queue's worker thread.

A call may come from a signal handler, or from a finaliser that the garbage collector runs, in the
middle of another call of the same thread. It cannot wait for the call that it interrupts. So the
end of a lease is left in the queue for the next leader, and every other call is refused. A call
from the garbage collector that ends a lease or records usage is always left in the queue.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from ledger.core.checks import Micros
from ledger.core.collecting import is_collecting
from ledger.core.entries import PoolId
from ledger.core.errors import (
    ContentionError,
    LedgerError,
    StoreError,
)
from ledger.core.kept_calls import is_kept
from ledger.core.status import ThresholdCrossing
from ledger.engine.callers import (
    Caller,
    TaskCaller,
    ThreadCaller,
    is_gone,
    own_error,
)
from ledger.engine.opening import Opening
from ledger.engine.operations import Operation, Record, Release
from ledger.engine.outcomes import Outcomes, left_by
from ledger.engine.perform import Done, PoolOperation, no_calls, perform
from ledger.engine.transaction import Transactions, named
from ledger.store.database import Database
from ledger.store.directory import Directory
from ledger.store.journal import PoolJournal
from ledger.store.keys import new_key
from ledger.store.rows import Row

T = TypeVar("T")

Clock = Callable[[], int]
"""Returns the time in microseconds since 1970."""

_log = logging.getLogger(__name__)

BATCH_MAX = 256
"""The largest number of operations in one transaction."""


_LOOK_S = 0.05
"""How many seconds a waiting thread sleeps before it checks that the leader is still alive."""


def _given(
    calls: Sequence[PoolOperation], _locked: Sequence[PoolJournal]
) -> Sequence[PoolOperation]:
    """Return calls outside the queue as the calls of a batch."""
    return calls


def _needs(batch: Sequence[Caller]) -> tuple[Sequence[PoolJournal], bool, float | None]:
    """Return the pools of calls, whether to look the calls up, and when the first of them began."""
    # One loop: a comprehension is a function call, and three of them slow a lone caller down.
    pools: list[PoolJournal] = []
    again, began_s = False, math.inf
    for one in batch:
        pools += one.pool.lineage
        again = again or one.again
        if one.waits and one.entered_s < began_s:
            began_s = one.entered_s
    return pools, again, None if began_s == math.inf else began_s


class Writer(Outcomes):
    """The group-commit queue of one store in one process.

    An interrupt may hit the leader between any two steps, so a leader repairs nothing itself. The
    next leader finds the batch that an interrupted one left, and looks up whether it took effect.
    Waiting threads check every `_LOOK_S` that the leader is still alive.
    """

    def __init__(
        self, database: Database, directory: Directory, clock: Callable[[], Micros] | None
    ) -> None:
        super().__init__(database)
        self.transactions = Transactions(database, directory)
        self.now: Callable[[], Micros | None] = database.dialect.now
        """Returns the time at which new entries are recorded; None to take the server's."""
        if clock is not None:
            self.now = clock
        self._directory = directory
        self.on_freed: list[Callable[[Collection[PoolId]], object]] = []
        """Called with the pools to which a batch gave capacity back, or of which it changed the
        policy."""
        self.on_crossed: list[Callable[[Sequence[ThresholdCrossing]], object]] = []
        """Called with the thresholds that a batch crossed, after each caller has its verdict."""
        self._reset()
        database.after_fork = self._reset

    def sweep(self, pool: PoolJournal) -> int:
        """Expire the next leases of a pool that are due, and return how many there were."""
        expired = 0
        while True:  # this ends: each time, 256 more of the due leases have expired
            with named("expire"):
                done = self.transactions.run(
                    partial(perform, calls=no_calls, now=self.now), pool.lineage, key=new_key()
                )
            self._tell(done)
            expired += done.expired.get(pool.info.pool_id, 0)
            if not done.unrolled:
                return expired

    def open(
        self, opening: Opening, parent: PoolJournal | None, *, began_s: float | None = None
    ) -> PoolJournal:
        """Find a pool, or make it below its parent, and return it once it is durable.

        Args:
            opening: The pool.
            parent: The pool above it, if there is one.
            began_s: When the call began, on the clock of `time.monotonic`; by default now.

        Raises:
            LedgerError: It exists with another policy or parent, or a pool above does not admit it.
        """
        lineage = () if parent is None else parent.lineage
        open_it = partial(
            opening.find_or_make, directory=self._directory, parent=parent, now=self.now
        )
        while True:  # this ends: each time, 256 more of the due leases have expired
            with named("open pool"):
                done = self.transactions.run(open_it, lineage, key=opening.key, began_s=began_s)
            self._tell(done)
            if done.opened is not None:
                return done.opened

    def run_all(
        self, pool: PoolJournal, operations: Sequence[Operation[Any]]
    ) -> list[Row | LedgerError]:
        """Do operations in one transaction, outside the queue, and return the outcome of each.

        More transactions follow while due leases must expire first. Give at most `BATCH_MAX`
        operations, so that other callers wait no longer than for a batch.

        Raises:
            LedgerError: The reason why the remaining operations were not done. Those done before
                are durable.
        """
        outcomes: dict[int, Row | LedgerError] = {}
        while len(outcomes) < len(operations):  # this ends: each time, 256 due leases expire
            left = [number for number in range(len(operations)) if number not in outcomes]
            calls = [(pool, operations[number]) for number in left]
            with named(operations[0].name):
                done = self.transactions.run(
                    partial(perform, calls=partial(_given, calls), now=self.now),
                    pool.lineage,
                    key=operations[0].key,
                )
            self._tell(done)
            found = zip(left, done.outcomes, strict=True)
            outcomes |= {number: outcome for number, outcome in found if outcome is not None}
        return [outcomes[number] for number in range(len(operations))]

    def run(self, pool: PoolJournal, operation: Operation[T], *, began_s: float | None = None) -> T:
        """Do an operation from a thread, and return its answer once it is durable.

        If the thread is interrupted, a lease that is granted nevertheless is released, unless the
        caller gave a key by which it can ask for the lease again.

        Args:
            pool: The pool.
            operation: The operation.
            began_s: When the call began, on the clock of `time.monotonic`; by default now.

        Raises:
            LedgerError: The operation's refusal, or the reason why it was not done.
        """
        if self._kept and is_kept():
            self._take_back(operation)
        if self._is_left(operation):
            return cast("T", self._leave(pool, operation))
        caller = ThreadCaller(pool, operation)
        if began_s is not None:
            caller.entered_s = began_s
        try:
            self._enter(caller)
            while caller.outcome is None:
                if self._claim(caller):
                    self._lead()
                else:
                    caller.wait(_LOOK_S)
                    if caller.outcome is None:
                        self._give_up(caller)
            caller.wake_behind()
            answer: T = self._result(caller)
        except BaseException as error:
            caller.wake_behind()
            # After a verdict there is nothing to drop. An interrupt may leave an unused lease.
            caller.alive = False
            self._drop(caller, error)
            raise
        caller.alive = False
        return answer

    async def run_async(
        self, pool: PoolJournal, operation: Operation[T], *, began_s: float | None = None
    ) -> T:
        """Do an operation from a task, and return its answer once it is durable.

        If the task is cancelled before the operation has started, the operation is not done, except
        for the end of a lease without a record, a call that is kept, and one that an earlier batch
        may have done: these stay in the queue. If the task is cancelled later, the operation is
        completed, and a lease that it grants is released, unless the caller gave a key by which it
        can ask for the lease again.

        Args:
            pool: The pool.
            operation: The operation.
            began_s: When the call began, on the clock of `time.monotonic`; by default now.

        Raises:
            LedgerError: The operation's refusal, or the reason why it was not done.
        """
        if asyncio._get_running_loop() is None:  # noqa: SLF001 - of a coroutine that is collected
            return cast("T", self._leave(pool, operation))
        if self._kept and is_kept():
            self._take_back(operation)
        caller = TaskCaller(pool, operation)
        if began_s is not None:
            caller.entered_s = began_s
        try:
            self._enter(caller)
            self._call_worker_after_turn(caller.loop)
            self._watch(caller.loop)
            await caller.done
        except BaseException as error:
            self._drop(caller, error)
            raise
        answer: T = self._result(caller)
        return answer

    def _reset(self) -> None:
        self.forget()
        self.transactions.reset()

    def _is_left(self, operation: Operation[Any]) -> bool:
        """Tell whether a call must be left to the next leader, since its thread must not wait.

        Raises:
            ContentionError: The call needs an answer, but comes in the middle of another call.
        """
        leader = self._leader
        if isinstance(operation, Release | Record) and is_collecting():
            return True  # an error of a finaliser does not reach the program, so waiting is useless
        # Would this thread wait for itself, because it leads or holds a leader's lock?
        if (
            (leader is None or not leader.alive or leader.thread != threading.get_ident())
            and not self._mutex._is_owned()  # type: ignore[attr-defined]  # noqa: SLF001
            and not self.transactions.is_written_here()
        ):
            return False
        if not isinstance(operation, Release) and not (is_kept() and operation.lease_id):
            raise ContentionError.in_another_call()
        return True

    def _leave(self, pool: PoolJournal, operation: Operation[Any]) -> Any:  # noqa: ANN401 - whatever it answers with
        """Leave a call to the next leader."""
        self._enter(left_by(pool, operation))
        self._call_worker()

    def _lead(self) -> None:
        """Do the waiting calls as one batch, then let the first caller that came meanwhile lead."""
        self._gather()
        began_s = time.monotonic()
        with self._mutex:
            # Put into the batch before they leave the queue, so that an interrupt in between loses
            # none. Copied in one step, since a finaliser may add to the queue between two steps.
            self._batch = list(self._queue)[:BATCH_MAX]
            for _ in self._batch:
                self._queue.popleft()
        self._commit(self._batch)
        self._note_batch(began_s)
        self._pass_on()

    def _pass_on(self) -> None:
        with self._mutex:
            self._batch = []
            self._leader = None
            successor = self._queue[0] if self._queue else None
        if isinstance(successor, ThreadCaller):
            successor.wake()
        elif successor is not None:
            self._call_worker()

    def _commit(self, batch: list[Caller]) -> None:
        """Do a batch and hand out the outcomes, in several transactions if many leases are due.

        A transaction expires a bounded number of leases. An operation that depends on further
        expiries is tried again in the next transaction. The loop ends, since each transaction
        expires some leases.
        """
        while batch:
            batch = self._in_time(batch)
            if not batch:
                return
            done: Done | None = None
            outcomes: Sequence[Any]
            pools, look_up, began_s = _needs(batch)
            try:
                done = self.transactions.run(
                    partial(perform, calls=partial(self._calls, batch), now=self.now),
                    pools,
                    key=batch[0].operation.key,
                    look_up=look_up,
                    began_s=began_s,
                )
                outcomes = done.outcomes
            except StoreError as error:
                outcomes = [own_error(error, one) for one in batch]
            except Exception as error:  # noqa: BLE001 - a fault of one operation is its caller's
                if len(batch) > 1:
                    for caller in batch:
                        caller.again = True
                        self._commit([caller])
                    return
                outcomes = [error]
            batch = self._deliver(list(zip(batch, outcomes, strict=True)))
            if done is not None:
                if self._kept:
                    self._take_back()
                self._tell(done)

    def _in_time(self, batch: list[Caller]) -> list[Caller]:
        """Return the calls of a batch that are to be done; refuse those that waited too long."""
        late_s = time.monotonic() - self.database.timeout_s
        in_time = []
        for one in batch:
            if one.waits and one.entered_s < late_s:
                self._deliver([(one, self._too_late(one))])
            elif one.outcome is None and not is_gone(one):
                in_time.append(one)
        return in_time

    def _calls(self, batch: list[Caller], locked: Sequence[PoolJournal]) -> list[PoolOperation]:
        """Return the operations of a batch, and of callers that came while it waited for locks."""
        self.transactions.note_wait(locked)
        # New calls do not join a batch that has failed or was interrupted before.
        if self._queue and not any(one.again for one in batch):
            self._join(batch, locked)
        return [(caller.pool, caller.operation) for caller in batch]

    def _join(self, batch: list[Caller], locked: Sequence[PoolJournal]) -> None:
        """Add callers that came while the batch waited, if its locks cover their pools."""
        pools = {pool.info.pool_id: pool for pool in locked}
        whole_store = self.database.dialect.locks_whole_store(list(pools))
        with self._mutex:
            joining = [
                caller
                for caller in list(self._queue)  # a finaliser may add to the queue meanwhile
                if (whole_store or pools.get(caller.pool.info.pool_id) is caller.pool)
                and not caller.again
                and not is_gone(caller)
            ][: BATCH_MAX - len(batch)]
            # In this order, so that an interrupt in between loses no caller.
            self._batch += joining
            batch += joining
            for caller in joining:
                self._queue.remove(caller)

    def _tell(self, done: Done) -> None:
        """Report a batch's crossings, freed capacity and expiries, after its outcomes."""
        for pool, _ in done.memos if done.expired else ():
            expired = done.expired.get(pool.info.pool_id)
            if expired:
                _log.info("%d leases of pool %r expired", expired, pool.info.name)
        if done.freed:
            for on_freed in self.on_freed:
                on_freed(done.freed)
        if done.crossed:
            for on_crossed in self.on_crossed:
                on_crossed(done.crossed)
