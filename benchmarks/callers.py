"""The section on callers: one pool, with a growing number of threads or asyncio tasks."""

from __future__ import annotations

import asyncio

from benchmarks.bench import Bench, fresh_pool
from benchmarks.measure import Round, Workload
from benchmarks.work import TIMEOUT_S, in_tasks, in_threads, pair
from ledger import AsyncLedger, Ledger

_PAIRS_EACH = 400
"""How many pairs one caller does at most: more would only make rounds of few callers longer."""


def workloads(bench: Bench) -> list[Workload]:
    """Return reserve and settle for each number of threads, and for each number of tasks."""
    book = bench.book()

    def shared(kind: str, count: int) -> Workload:
        pairs = min(bench.scale.pairs, _PAIRS_EACH * count)

        def run() -> Round:
            if kind == "thread":
                return threads(book, count, pairs)
            return tasks(bench.url, book, count, pairs)

        return Workload(
            name=f"{count} {kind}{'s' if count > 1 else ''}",
            run=run,
            base=bench.floor,
            labels={"kind": f"{kind}s", "callers": count},
        )

    return [
        *(shared("thread", count) for count in bench.scale.threads),
        *(shared("task", count) for count in bench.scale.tasks),
    ]


def threads(book: Ledger, count: int, pairs: int) -> Round:
    """Divide pairs among threads, on a new pool."""
    budget = fresh_pool(book)

    def work(_number: int, latencies: list[float]) -> None:
        for _ in range(max(1, pairs // count)):
            pair(budget, latencies)

    return in_threads(count, work)


def tasks(url: str, book: Ledger, count: int, pairs: int) -> Round:
    """Divide pairs among asyncio tasks, on a new pool."""
    name = fresh_pool(book).name

    async def run() -> Round:
        async with AsyncLedger.open(url, timeout_s=TIMEOUT_S) as own:
            return await in_tasks(count, pairs, await own.pool(name))

    return asyncio.run(run())
