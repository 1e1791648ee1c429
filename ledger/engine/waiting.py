"""Reservations that wait for capacity: the first caller of a pool's queue asks until admitted.

While it waits, its denials are not kept. Capacity that comes back in this process wakes it at once.
For capacity that other processes give back, it polls the newest entry, and asks if the rules would
admit the reservation.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ledger.core import rules
from ledger.core.values import BudgetLease
from ledger.engine.capacity_queue import CapacityQueues, TaskWaiter, ThreadWaiter
from ledger.engine.group_commit import Writer
from ledger.engine.operations import NotYetError, Reserve
from ledger.store import standing
from ledger.store.database import Reads
from ledger.store.journal import PoolJournal


class WaitingReservations:
    """The threads and tasks of this process that wait for capacity of a store's pools."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._queues = CapacityQueues(
            f"the ledger at {writer.database.url} is closed; open it again"
        )
        writer.on_freed.append(self._queues.free)

    def close(self) -> None:
        """Refuse all waiting callers."""
        self._queues.close()

    def reserve(self, pool: PoolJournal, operation: Reserve, wait_s: float) -> BudgetLease:
        """Do a reservation once the pool has enough left, or try a last time after `wait_s`.

        Its deadline is `wait_s` later than that of a call that does not wait.

        A request that is over its own budget does not wait, since waiting cannot help. A request
        that is too large for the pool waits only until it is the first in the queue.

        Raises:
            LedgerError: The reservation's refusal, or the reason why it was not done.
        """
        waiter = ThreadWaiter([one.info.pool_id for one in pool.lineage], wait_s)
        reads = self._writer.database.reads()
        if not operation.request_budget.allows_estimate(operation.estimate) or (
            operation.key_known and self._is_answered(reads, pool, operation)
        ):
            return self._writer.run(pool, operation, began_s=reads.began_s)

        def ask() -> BudgetLease | None:
            try:
                return self._writer.run(pool, replace(operation, waits=True))
            except NotYetError as refusal:
                waiter.note_refusal(refusal.retry_in_s, too_large=refusal.too_large)
                return None

        return self._queues.wait(
            pool.info.pool_id,
            waiter,
            ask=ask,
            look=lambda: self._is_worth_it(pool, operation),
            ask_last=lambda: self._writer.run(pool, operation, began_s=waiter.deadline_s),
        )

    async def reserve_async(
        self, pool: PoolJournal, operation: Reserve, wait_s: float
    ) -> BudgetLease:
        """Do a reservation from a task, as `reserve`. A cancelled one leaves the queue."""
        waiter = TaskWaiter([one.info.pool_id for one in pool.lineage], wait_s)
        reads = self._writer.database.reads()
        if not operation.request_budget.allows_estimate(operation.estimate) or (
            operation.key_known
            and await asyncio.to_thread(self._is_answered, reads, pool, operation)
        ):
            return await self._writer.run_async(pool, operation, began_s=reads.began_s)

        async def ask() -> BudgetLease | None:
            try:
                return await self._writer.run_async(pool, replace(operation, waits=True))
            except NotYetError as refusal:
                waiter.note_refusal(refusal.retry_in_s, too_large=refusal.too_large)
                return None

        return await self._queues.wait_async(
            pool.info.pool_id,
            waiter,
            ask=ask,
            look=lambda: asyncio.to_thread(self._is_worth_it, pool, operation),
            ask_last=lambda: self._writer.run_async(pool, operation, began_s=waiter.deadline_s),
        )

    def _is_answered(self, reads: Reads, pool: PoolJournal, operation: Reserve) -> bool:
        """Tell whether the key was used before, so that the answer needs no waiting."""
        found = reads.read(
            lambda connection: pool.by_keys(connection, *operation.sought()), serializable=False
        )
        return bool(found)

    def _is_worth_it(self, pool: PoolJournal, operation: Reserve) -> bool:
        """Tell whether the rules would admit a reservation now."""
        return not any(
            rules.RELEASED[head.rules_version].admit(
                head.policy,
                head.balance,
                operation.estimate,
                operation.request_budget,
                head.window,
                limits=limits,
                credits=credits,
            )
            for head, (limits, credits) in standing.present(
                self._writer.database.reads(), pool, self._writer.now()
            )
        )
