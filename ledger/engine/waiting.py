"""Wait for capacity of a pool: the first in the queue asks, and nothing is kept until then.

What comes back in this process wakes it at once. For what comes back in another one it reads the
newest entry now and then, and asks only where the rules would admit it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ledger.core import rules
from ledger.core.values import BudgetLease
from ledger.engine.capacity_queue import CapacityQueues, TaskWaiter, ThreadWaiter
from ledger.engine.group_commit import Writer
from ledger.engine.operations import NotYetError, Reserve
from ledger.store.journal import PoolJournal


class WaitingReservations:
    """Everybody in this process who waits for capacity of a store's pools, threads and tasks."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._queues = CapacityQueues(
            f"the ledger at {writer.database.url} is closed; open it again"
        )
        writer.committed.append(lambda done: self._queues.free(done.freed))

    def close(self) -> None:
        """Turn away whoever waits."""
        self._queues.close()

    def reserve(self, pool: PoolJournal, operation: Reserve, wait_s: float) -> BudgetLease:
        """Do a reservation as soon as the pool has enough left, or at last, after `wait_s`.

        Raises:
            LedgerError: Whatever the reservation ends in.
        """
        if _is_decided(operation, wait_s) or (
            operation.key_given and self._is_answered(pool, operation)
        ):
            return self._writer.run(pool, operation)
        draws_on = [one.info.pool_id for one in pool.lineage]

        def ask() -> BudgetLease | None:
            try:
                return self._writer.run(pool, replace(operation, waits=True))
            except NotYetError:
                return None

        return self._queues.wait(
            pool.info.pool_id,
            ThreadWaiter(draws_on, wait_s),
            ask=ask,
            look=lambda: self._is_worth_it(pool, operation),
            ask_last=lambda: self._writer.run(pool, operation),
        )

    async def reserve_async(
        self, pool: PoolJournal, operation: Reserve, wait_s: float
    ) -> BudgetLease:
        """Do a reservation from a task; as `reserve`. One that is cancelled leaves the queue."""
        if _is_decided(operation, wait_s) or (
            operation.key_given and await asyncio.to_thread(self._is_answered, pool, operation)
        ):
            return await self._writer.run_async(pool, operation)
        draws_on = [one.info.pool_id for one in pool.lineage]

        async def ask() -> BudgetLease | None:
            try:
                return await self._writer.run_async(pool, replace(operation, waits=True))
            except NotYetError:
                return None

        return await self._queues.wait_async(
            pool.info.pool_id,
            TaskWaiter(draws_on, wait_s),
            ask=ask,
            look=lambda: asyncio.to_thread(self._is_worth_it, pool, operation),
            ask_last=lambda: self._writer.run_async(pool, operation),
        )

    def _is_answered(self, pool: PoolJournal, operation: Reserve) -> bool:
        """Tell whether the key was used: then the answer is there, whoever waits."""
        found = self._writer.database.read(
            lambda connection: pool.by_keys(connection, [operation.key]), serializable=False
        )
        return bool(found)

    def _is_worth_it(self, pool: PoolJournal, operation: Reserve) -> bool:
        """Tell whether the rules would admit a reservation on what the newest entries say."""
        return not any(
            rules.admission(head.rules_version)(
                head.policy,
                head.balance,
                operation.estimate,
                operation.request_budget,
                head.window,
            )
            for head in pool.heads_alone(self._writer.database)
        )


def _is_decided(operation: Reserve, wait_s: float) -> bool:
    """Tell whether no waiting changes the answer: a request over its own budget stays so."""
    return wait_s == 0 or not operation.request_budget.allows_estimate(operation.estimate)
