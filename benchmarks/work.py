"""The work that is measured: one call is reserved and settled, by one or more callers.

Only public names of the library are used, so the same work runs on an older commit of it.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.measure import Meter, Round
from ledger import (
    AsyncLedgerBudgetManager,
    Attribution,
    BudgetManager,
    RequestBudget,
    RequestExtensions,
    Usage,
    UsageEstimate,
)

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
        meter = Meter()
        latencies = [latency for one in running for latency in one.result()]
        return meter.round(latencies)


def at_random(
    budgets: Sequence[BudgetManager], threads: int, seconds: float, process: int
) -> Round:
    """Work for a fixed time: each thread picks a pool at random for every call.

    The random choices are the same in every run.
    """

    def work(number: int, latencies: list[float]) -> None:
        picks = random.Random(f"{process}-{number}")  # noqa: S311 - not a secret
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pair(picks.choice(budgets), latencies)

    return in_threads(threads, work)


async def in_tasks(count: int, pairs: int, budget: AsyncLedgerBudgetManager) -> Round:
    """Divide pairs among a number of tasks of this loop."""
    latencies: list[float] = []

    async def work() -> None:
        for _ in range(max(1, pairs // count)):
            await pair_awaited(budget, latencies)

    meter = Meter()
    await asyncio.gather(*(work() for _ in range(count)))
    return meter.round(latencies)
