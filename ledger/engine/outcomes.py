"""Outcomes: each caller gets its own, and calls that no caller waits for are kept and tried again.

A call without a waiting caller is tried again, or kept until the store is available. A lease that
was granted to a caller that gave up is released.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ledger.core.errors import (
    ContentionError,
    LedgerUnavailableError,
    LostLeaseError,
    OutcomeUnknownError,
    StoreError,
)
from ledger.core.kept_calls import is_kept, shown
from ledger.core.kinds import EntryKind
from ledger.core.lost_calls import if_lost
from ledger.engine.by_hand import command, named_in_log
from ledger.engine.call_queue import CallQueue
from ledger.engine.callers import Caller, TaskCaller, ThreadCaller, chain, wake_tasks
from ledger.engine.operations import Operation, Record, RecordLost, Release
from ledger.engine.operations.base import LeaseOperation
from ledger.store.journal import PoolJournal

_log = logging.getLogger(__name__)

_TRIES = 3
"""How many times a call without a waiting caller is tried while the store is busy."""


class Outcomes(CallQueue):
    """The queue with the part that gives callers the outcomes of their calls."""

    def close(self) -> None:
        """End the worker after its last batch; wait for that at most `_begun_s` seconds.

        Calls that were kept while the store was unavailable are tried a last time.
        """
        with self._mutex:
            self._closed = True
            left = self._take_back()
        if left:
            self._call_worker()
        with self._mutex:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()

    def _deliver(self, results: Sequence[tuple[Caller, Any]]) -> list[Caller]:
        """Hand out outcomes; return the callers without one, whose calls must be tried again."""
        tasks: defaultdict[asyncio.AbstractEventLoop, list[TaskCaller]] = defaultdict(list)
        first_thread, left = self._linked(results)
        for caller, outcome in results:
            if outcome is None or caller.outcome is not None:  # it waited too long
                continue
            if (
                not caller.waits
                and isinstance(outcome, StoreError)
                and self._retry(caller, outcome)
            ):
                continue
            caller.outcome = outcome
            if isinstance(caller, TaskCaller):
                tasks[caller.loop].append(caller)
            if caller.abandoned or not caller.waits:
                self._follow_up(caller)
        if first_thread is not None:
            first_thread.wake()
        for loop, callers in tasks.items():
            if not wake_tasks(loop, callers):
                for caller in callers:
                    self._follow_up(caller)
        return left

    def _linked(
        self, results: Sequence[tuple[Caller, Any]]
    ) -> tuple[ThreadCaller | None, list[Caller]]:
        """Link the threads that are to be woken, before any of them can see its outcome.

        Return the first of them, and the callers without an outcome.
        """
        threads: list[ThreadCaller] = []
        left: list[Caller] = []
        for one, outcome in results:
            if outcome is None:
                left.append(one)
            elif (
                one is not self._leader
                and isinstance(one, ThreadCaller)
                and one.alive
                and one.outcome is None
            ):
                threads.append(one)
        return chain(threads) if threads else None, left

    def _result(self, caller: Caller) -> Any:  # noqa: ANN401 - whatever the operation answers with
        """Return or raise what a caller gets; for it, a call that is kept counts as done."""
        try:
            return caller.result()
        except (ContentionError, LedgerUnavailableError, OutcomeUnknownError) as error:
            if not is_kept() or caller.operation.lease_id is None or self._closed:
                raise
            ownerless = left_by(caller.pool, caller.operation)
            ownerless.again = caller.again or isinstance(error, OutcomeUnknownError)
            self._retry(ownerless, error)
            self._call_worker()
            return None

    def _drop(self, caller: Caller, error: BaseException) -> None:
        """Drop the operation of a caller that leaves with this error, if it has not started.

        If a lease was granted already, release it.
        """
        with self._mutex:
            caller.abandoned = True
            if not isinstance(error, LostLeaseError):  # else the caller books it
                caller.if_lost = if_lost()
            if caller in self._queue:
                place = self._queue.index(caller)
                del self._queue[place]
                # Three kinds stay in the queue without a caller: a call that may have been done,
                # and must be looked up; one that ends a lease; and one that is kept.
                kept = is_kept() and caller.operation.lease_id is not None
                if caller.again or kept or isinstance(caller.operation, Release):
                    ownerless = left_by(caller.pool, caller.operation)
                    ownerless.again, ownerless.abandoned = caller.again, True
                    self._queue.insert(place, ownerless)
            waiting = bool(self._queue or self._batch)
        if caller.outcome is not None:
            self._follow_up(caller)
        if waiting:
            self._call_worker()

    def _follow_up(self, caller: Caller) -> None:
        """Do in a later batch what a caller that has left cannot do.

        A lease that was granted to it is released, unless it gave a key: a repeated call must get
        an open lease. If its call was to end a lease that is lost, the usage is
        booked.
        """
        row = caller.outcome
        if isinstance(row, LostLeaseError):
            lost, caller.if_lost = caller.if_lost, None
            if lost is not None:
                _log.warning(
                    "%s of lease %s in pool %r, left in the queue, is of a lease that is lost in a "
                    "restore: what its call used is booked anew",
                    *named_in_log(caller),
                )
                self._enter(Caller(caller.pool, RecordLost.of(*lost)))
                self._call_worker()
        elif (
            isinstance(row, Mapping)
            and row["kind"] == EntryKind.RESERVATION
            and not caller.operation.key_known
        ):
            self._enter(Caller(caller.pool, Release(lease=row["seq"])))
            self._call_worker()

    def _retry(self, caller: Caller, error: StoreError) -> bool:
        """Try a call that no caller waits for again, if that may help; otherwise log it.

        It is queued at once if other writers kept the store busy. It is kept until the store has
        done another batch if the store cannot be reached, or stays busy.
        """
        if isinstance(error, ContentionError) and caller.tries < _TRIES:
            caller.tries += 1
            self._enter(caller)
            return True
        of = *named_in_log(caller), _spent(caller.operation)
        if self._keep(caller, error):
            _log.warning(
                "%s of lease %s in pool %r (%s), left in the queue, is kept: %s", *of, error
            )
            return True
        said = *of, error, command(caller)
        _log.error("%s of lease %s in pool %r (%s), left in the queue, failed: %s%s", *said)
        return False

    def _keep(self, caller: Caller, error: StoreError) -> bool:
        """Keep a call about a lease until the store is available; return whether it is kept."""
        busy = isinstance(error, ContentionError)
        if not busy and not isinstance(error, LedgerUnavailableError | OutcomeUnknownError):
            return False
        with self._mutex:
            spent = caller.tries >= _TRIES and not busy
            if self._closed or spent or caller.operation.lease_id is None:
                return False
            caller.again |= isinstance(error, OutcomeUnknownError)
            self._kept.append(caller)
        return True

    def _take_back(self, of: Operation[Any] | None = None) -> bool:
        """Queue the kept calls, in their order; return whether there were any.

        Args:
            of: Queue only calls about the lease of this call, which must be done after them. By
                default all calls are queued, and each is tried once more, since the store is
                available.
        """
        with self._mutex:
            found = [one for one in list(self._kept) if of is None or _same(one.operation, of)]
            for kept in found:
                # Queued before it is removed from the kept calls, so that an interrupt in between
                # loses none.
                if kept.outcome is None and kept not in self._queue:
                    kept.tries += of is None
                    self._queue.append(kept)
                self._kept.remove(kept)
        return bool(found)


def left_by(pool: PoolJournal, operation: Operation[Any]) -> Caller:
    """Return a call that is left in the queue without a waiting caller."""
    left = Caller(pool, operation)
    left.if_lost = if_lost()
    return left


def _same(one: Operation[Any], other: Operation[Any]) -> bool:
    """Tell whether two calls are about the same lease."""
    return (
        isinstance(one, LeaseOperation)
        and isinstance(other, LeaseOperation)
        and (one.lease, one.proof) == (other.lease, other.proof)
    )


def _spent(operation: Operation[Any]) -> str:
    """Return the usage that a call records, for the log."""
    if isinstance(operation, RecordLost):
        operation = operation.record
    if not isinstance(operation, Record):
        return "no usage"
    return shown(operation.usage, operation.report.request_id)
