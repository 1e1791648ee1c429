"""The section on callers: one pool, with a growing number of threads or asyncio tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from benchmarks.bench import Bench, fresh_pool
from benchmarks.instructions import countable, counter
from benchmarks.measure import Figure, Round, Workload
from benchmarks.stores import beside
from benchmarks.trees import ROOT, Tree
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


def with_instructions(bench: Bench, figures: Iterable[Figure]) -> list[Figure]:
    """Return the figures of this section with the instructions that callgrind counts."""
    tree = Tree(name="this tree", folder=ROOT)
    with beside(bench.url, "counted") as url, counter(tree, url) as valgrind:

        def counted(one: Figure) -> float | None:
            told = {"count": one.labels.get("callers", 0), "pairs": 0}
            if not countable(told):
                return None
            return valgrind.count(str(one.labels["kind"]), **told) / 1_000

        return [replace(one, instructions=counted(one)) for one in figures]


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
        # Awaited first: ledgers of earlier commits know no other way.
        async with await AsyncLedger.open(url, timeout_s=TIMEOUT_S) as own:
            return await in_tasks(count, pairs, await own.pool(name))

    return asyncio.run(run())
