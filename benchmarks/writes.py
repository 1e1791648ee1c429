"""The write path: reserve and settle from one caller and from many, on one pool."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from benchmarks.floor import floor
from benchmarks.measure import Figure, Round, timed
from ledger import (
    AsyncLedger,
    AsyncLedgerBudgetManager,
    Attribution,
    Ledger,
    LedgerBudgetManager,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
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

_FLOOR_OPERATIONS = 400
_PAIRS = 1_600
"""Reserve-and-settle pairs of one round, shared out among its callers."""

_names = itertools.count()

Run = Callable[[], Round]


def measure(store: str, url: str, *, rounds: int) -> list[Figure]:
    """Return the figures of every workload, each round beside a floor of its own."""
    with Ledger.open(url, timeout_s=TIMEOUT_S) as book:

        def pool() -> LedgerBudgetManager:
            return book.pool(f"writes-{next(_names)}", SharedPoolBudgetOptions())

        workloads: dict[str, Run] = {"1 thread, reserve+settle": lambda: threads(pool(), 1)}
        for count in (16, 64):
            workloads[f"{count} threads, one pool"] = lambda count=count: threads(pool(), count)  # type: ignore[misc]
        for count in (16, 64, 256):
            workloads[f"{count} asyncio tasks, one pool"] = lambda count=count: tasks(url, count)  # type: ignore[misc]
        workloads["4 processes x 16 threads, one pool"] = lambda: processes(url, pool().name, 4, 16)
        done: dict[str, list[Round]] = {name: [] for name in workloads}
        floors: dict[str, list[Round]] = {name: [] for name in workloads}
        with floor(url) as bare:
            bare.round(_FLOOR_OPERATIONS)
            for _ in range(rounds):
                for name, run in workloads.items():
                    floors[name].append(bare.round(_FLOOR_OPERATIONS))
                    done[name].append(run())
        every_floor = [one for found in floors.values() for one in found]
        figures = [Figure.of(store, "floor: bare INSERT and COMMIT", every_floor, every_floor)]
        figures += [Figure.of(store, name, done[name], floors[name]) for name in workloads]
        damaged = [found for found in book.verify() if not found.ok]
        if damaged:
            raise SystemExit(f"the benchmark damaged the books: {damaged}")
        return figures


def pairs(budget: LedgerBudgetManager, count: int, latencies_s: list[float]) -> None:
    """Reserve and settle so many times."""
    for _ in range(count):
        began = time.perf_counter()
        lease = budget.reserve(CALL, ESTIMATE, UNLIMITED)
        latencies_s.append(time.perf_counter() - began)
        timed(latencies_s, lambda lease=lease: budget.record_used(lease, USED))  # type: ignore[misc]


def threads(budget: LedgerBudgetManager, count: int, *, total: int = _PAIRS) -> Round:
    """Share the pairs out among threads."""
    latencies: list[float] = []
    each = max(1, total // count)
    workers = [threading.Thread(target=pairs, args=(budget, each, latencies)) for _ in range(count)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - began
    return Round(operations=len(latencies), seconds=seconds, latencies_s=latencies)


def tasks(url: str, count: int) -> Round:
    """Share the pairs out among asyncio tasks."""
    latencies: list[float] = []
    each = max(1, _PAIRS // count)

    async def work(budget: AsyncLedgerBudgetManager) -> None:
        for _ in range(each):
            began = time.perf_counter()
            lease = await budget.reserve(CALL, ESTIMATE, UNLIMITED)
            reserved = time.perf_counter()
            await budget.record_used(lease, USED)
            latencies.extend((reserved - began, time.perf_counter() - reserved))

    async def run() -> float:
        async with await AsyncLedger.open(url, timeout_s=TIMEOUT_S) as book:
            budget = await book.pool(f"tasks-{next(_names)}", SharedPoolBudgetOptions())
            began = time.perf_counter()
            await asyncio.gather(*(work(budget) for _ in range(count)))
            return time.perf_counter() - began

    seconds = asyncio.run(run())
    return Round(operations=len(latencies), seconds=seconds, latencies_s=latencies)


def processes(url: str, pool: str, count: int, each: int) -> Round:
    """Share the pairs out among processes, each with threads of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.writes",
        url,
        pool,
        str(each),
        str(_PAIRS // count),
    ]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this module
        for _ in range(count)
    ]
    for process in running:
        _await_ready(process)
    began = time.perf_counter()
    for process in running:
        _start(process)
    latencies = [latency for process in running for latency in _ended(process)]
    seconds = time.perf_counter() - began
    return Round(operations=len(latencies), seconds=seconds, latencies_s=latencies)


def _await_ready(process: subprocess.Popen[str]) -> None:
    if process.stdout is not None:
        process.stdout.readline()


def _start(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.write("go\n")
        process.stdin.flush()


def _ended(process: subprocess.Popen[str]) -> list[float]:
    out, _ = process.communicate()
    found: list[float] = json.loads(out)
    return found


def _worker(url: str, pool: str, each: int, total: int) -> None:
    with Ledger.open(url, timeout_s=TIMEOUT_S) as book:
        budget = book.pool(pool)
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(threads(budget, each, total=total).latencies_s))


if __name__ == "__main__":
    _worker(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
