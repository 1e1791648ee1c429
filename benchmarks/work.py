"""The work that is measured: one call is reserved and settled, by one or more callers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Connection

from benchmarks.measure import Round
from ledger import (
    AsyncLedgerBudgetManager,
    Attribution,
    BudgetManager,
    LedgerBudgetManager,
    RequestBudget,
    RequestExtensions,
    Usage,
    UsageEstimate,
)
from ledger.engine.operations import Operation, Reserve
from ledger.engine.perform import Done, perform

CALL = RequestExtensions(Attribution(run_id="benchmark", model="some-model"))
ESTIMATE = UsageEstimate(
    input_tokens=1_000, output_tokens=400, total_tokens=1_400, cost_micros_usd=9_000
)
USED = Usage(input_tokens=1_000, output_tokens=120, total_tokens=1_120, cost_micros_usd=4_800)
UNLIMITED = RequestBudget.unlimited()

TIMEOUT_S = 60.0
"""How long one call may wait: longer than any round, so that no call fails by its time-out."""


def pair(budget: BudgetManager, latencies_s: list[float]) -> None:
    """Reserve and settle one call, two operations, and note how long each took."""
    began = time.perf_counter()
    lease = budget.reserve(CALL, ESTIMATE, UNLIMITED)
    reserved = time.perf_counter()
    budget.record_used(lease, USED)
    latencies_s += (reserved - began, time.perf_counter() - reserved)


async def pair_awaited(budget: AsyncLedgerBudgetManager, latencies_s: list[float]) -> None:
    """Reserve and settle one call from a task, as `pair` does from a thread."""
    began = time.perf_counter()
    lease = await budget.reserve(CALL, ESTIMATE, UNLIMITED)
    reserved = time.perf_counter()
    await budget.record_used(lease, USED)
    latencies_s += (reserved - began, time.perf_counter() - reserved)


def in_threads(count: int, work: Callable[[int, list[float]], None]) -> Round:
    """Do some work in `count` threads at once; it gets its thread's number and notes latencies.

    The clock starts when all threads are ready, and stops when the last one is done.
    """
    gate = threading.Barrier(count + 1)

    def start(number: int) -> list[float]:
        latencies: list[float] = []
        gate.wait()
        work(number, latencies)
        return latencies

    with ThreadPoolExecutor(count) as executor:
        running = [executor.submit(start, number) for number in range(count)]
        gate.wait()
        began = time.perf_counter()
        latencies = [latency for one in running for latency in one.result()]
        seconds = time.perf_counter() - began
    return Round(operations=len(latencies), seconds=seconds, latencies_s=latencies)


async def in_tasks(count: int, pairs: int, budget: AsyncLedgerBudgetManager) -> Round:
    """Divide pairs among a number of tasks of this loop."""
    latencies: list[float] = []

    async def work() -> None:
        for _ in range(max(1, pairs // count)):
            await pair_awaited(budget, latencies)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(count)))
    seconds = time.perf_counter() - began
    return Round(operations=len(latencies), seconds=seconds, latencies_s=latencies)


class Direct(LedgerBudgetManager):
    """A pool without its queue: a call returns its operation, and `done` does many at once.

    It does what the queue does with a batch, and nothing else: the queue is compared with it.
    """

    def __init__(self, budget: LedgerBudgetManager) -> None:
        vars(self).update(vars(budget))

    def done(self, operations: Sequence[Any]) -> Sequence[Any]:
        """Do operations in a transaction of their own, and return their answers."""

        def work(connection: Connection, again: bool) -> Done:  # noqa: FBT001 - as Database.transact calls it
            return perform(
                connection,
                [self._journal],
                lambda: [(self._journal, operation) for operation in operations],
                now=self._writer.now,
                look_up=again,
            )

        pool = self._journal.info
        done = self._writer.database.transact(work, pool_ids=[pool.pool_id], key=operations[0].key)
        done.remember()
        return [
            operation.answer(row, pool)
            for operation, row in zip(operations, done.outcomes, strict=True)
            if isinstance(row, Mapping)
        ]

    def _reserve(self, operation: Reserve, wait_s: float) -> Any:  # noqa: ANN401, ARG002 - not answered yet
        return operation

    def _do(self, operation: Operation[Any]) -> Any:  # noqa: ANN401 - not answered yet
        return operation
