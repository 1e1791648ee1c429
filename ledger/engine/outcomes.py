"""What each caller is told: outcomes are handed out, and calls that no caller waits for are kept.

A call without a waiting caller is tried again, or kept until the store answers. A lease that was
granted to a caller who gave up is released.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ledger.core.kinds import EntryKind
from ledger.engine.call_queue import CallQueue
from ledger.engine.callers import Caller, TaskCaller, ThreadCaller, chain, wake_tasks
from ledger.engine.keeping import is_kept, lease_named, shown
from ledger.engine.operations import Operation, Record, Release
from ledger.engine.operations.base import LeaseOperation
from ledger.errors import (
    ContentionError,
    LedgerUnavailableError,
    OutcomeUnknownError,
    StoreError,
)

_log = logging.getLogger(__name__)

_TRIES = 3
"""How many times a call without a waiting caller is tried if the store does not do it."""


class Outcomes(CallQueue):
    """The queue, and how its callers get what their calls came to."""

    def close(self) -> None:
        """End the worker after its last batch; wait for that at most `_begun_s` seconds.

        What was kept for a store that did not answer is tried a last time.
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
        """Hand out outcomes; return the callers that have none, and must be tried again."""
        tasks: defaultdict[asyncio.AbstractEventLoop, list[TaskCaller]] = defaultdict(list)
        first_thread, left = self._linked(results)
        for caller, outcome in results:
            if outcome is None or caller.outcome is not None:  # it waited too long, and was told so
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
            if caller.abandoned:
                self._release(caller)
        if first_thread is not None:
            first_thread.wake()
        for loop, callers in tasks.items():
            if not wake_tasks(loop, callers):
                for caller in callers:
                    self._release(caller)
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
        """Return or raise what a caller gets; a call that is kept counts as done for it."""
        try:
            return caller.result()
        except (ContentionError, LedgerUnavailableError, OutcomeUnknownError) as error:
            if not is_kept() or caller.operation.lease_id is None or self._closed:
                raise
            ownerless = Caller(caller.pool, caller.operation)
            ownerless.again = caller.again or isinstance(error, OutcomeUnknownError)
            self._retry(ownerless, error)
            self._call_worker()
            return None

    def _drop(self, caller: Caller) -> None:
        """Drop the operation of a caller that gave up, if it has not started.

        If a lease was granted already, release it.
        """
        with self._mutex:
            caller.abandoned = True
            if caller in self._queue:
                place = self._queue.index(caller)
                del self._queue[place]
                # These stay, without a caller: one that may have been done, which must be looked
                # up, one that ends a lease, and one that is kept.
                kept = is_kept() and caller.operation.lease_id is not None
                if caller.again or kept or isinstance(caller.operation, Release):
                    ownerless = Caller(caller.pool, caller.operation)
                    ownerless.again, ownerless.abandoned = caller.again, True
                    self._queue.insert(place, ownerless)
            waiting = bool(self._queue or self._batch)
        if caller.outcome is not None:
            self._release(caller)
        if waiting:
            self._call_worker()

    def _release(self, caller: Caller) -> None:
        """Release the lease that an abandoned reservation was granted, in a later batch.

        Not if its caller gave a key: a repeated call must get a lease that is open.
        """
        row = caller.outcome
        if (
            isinstance(row, Mapping)
            and row["kind"] == EntryKind.RESERVATION
            and not caller.operation.key_known
        ):
            self._enter(Caller(caller.pool, Release(lease=row["seq"])))
            self._call_worker()

    def _retry(self, caller: Caller, error: StoreError) -> bool:
        """Have a call that nobody waits for tried again, if that may help; else log it.

        It is queued at once if others only kept the store busy, and kept until the store has done
        another batch if it cannot be reached, or is busy for longer.
        """
        operation = caller.operation
        if isinstance(error, ContentionError) and caller.tries < _TRIES:
            caller.tries += 1
            self._enter(caller)
            return True
        lease = lease_named(operation.lease_id, getattr(operation, "proof", None))
        of = operation.name, lease, caller.pool.info.name, _spent(operation)
        if self._keep(caller, error):
            _log.warning(
                "%s of lease %s in pool %r (%s), left in the queue, is kept: %s", *of, error
            )
            return True
        _log.error("%s of lease %s in pool %r (%s), left in the queue, failed: %s", *of, error)
        return False

    def _keep(self, caller: Caller, error: StoreError) -> bool:
        """Keep a call about a lease until the store answers; tell whether it is kept."""
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
        """Queue what was kept, in its order; tell whether there was any.

        Args:
            of: A call whose lease alone is meant, since it must be done behind them; by default
                all are, and each is tried once more: the store answers.
        """
        with self._mutex:
            found = [one for one in list(self._kept) if of is None or _same(one.operation, of)]
            for kept in found:
                # Queued before it is kept no more: an interrupt in between loses none.
                if kept.outcome is None and kept not in self._queue:
                    kept.tries += of is None
                    self._queue.append(kept)
                self._kept.remove(kept)
        return bool(found)


def _same(one: Operation[Any], other: Operation[Any]) -> bool:
    """Tell whether two calls are about the same lease."""
    return (
        isinstance(one, LeaseOperation)
        and isinstance(other, LeaseOperation)
        and (one.lease, one.proof) == (other.lease, other.proof)
    )


def _spent(operation: Operation[Any]) -> str:
    """Return what a call records, for the log."""
    if not isinstance(operation, Record):
        return "no usage"
    return shown(operation.usage, operation.report.request_id)
