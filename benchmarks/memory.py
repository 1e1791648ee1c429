"""The section on memory: whether a long run grows, by its resident memory early and late."""

from __future__ import annotations

import asyncio
import gc
import re
import resource
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, fresh_pool
from benchmarks.measure import Round, Workload
from benchmarks.work import TIMEOUT_S, in_tasks
from benchmarks.worker import Report, run_alone
from ledger import AsyncLedger

EARLY, LATE, GROWTH = "early MiB", "late MiB", "growth %"

_TASKS = 256
_ADDED_UP = ("operations", "seconds", "cpu_s", "switches")
_STATUS = Path("/proc/self/status")


def workloads(bench: Bench) -> list[Workload]:
    """Return a long run of one process, which reports its memory."""
    book, scale = bench.book(), bench.scale

    def run() -> Round:
        report = run_alone(
            "benchmarks.memory:work_long",
            url=bench.url,
            pool=fresh_pool(book).name,
            warm_up=scale.warm_up,
            operations=scale.operations,
        )
        early, late = report["early_mib"], report["late_mib"]
        return Round(
            operations=report["operations"],
            seconds=report["seconds"],
            cpu_s=report["cpu_s"],
            switches=report["switches"],
            also={
                EARLY: early,
                LATE: late,
                GROWTH: 100 * (late - early) / early,
            },
        )

    return [
        Workload(
            name=f"a process at {scale.warm_up:,} and {scale.operations:,} operations",
            run=run,
            base=bench.floor,
            labels={"early": scale.warm_up, "late": scale.operations},
        )
    ]


def work_long(told: Mapping[str, Any], ready: Callable[[], None]) -> Report:
    """Reserve and settle from many tasks, and read this process's memory early and late."""
    ready()
    return asyncio.run(_work_long(told["url"], told["pool"], told["warm_up"], told["operations"]))


async def _work_long(url: str, pool: str, warm_up: int, total: int) -> Report:
    async with AsyncLedger.open(url, timeout_s=TIMEOUT_S) as book:
        budget = await book.pool(pool)

        async def some(operations: int) -> Counter[str]:
            # In parts, because the latencies of a million operations would themselves take memory.
            part = asdict(await in_tasks(_TASKS, operations // 2, budget))
            return Counter({name: part[name] for name in _ADDED_UP})

        done = await some(warm_up)
        early_mib = resident_mib()
        while done["operations"] < total:
            done += await some(min(warm_up, total - done["operations"]))
        late_mib = resident_mib()
    return {**done, "early_mib": early_mib, "late_mib": late_mib}


def resident_mib() -> float:
    """Return this process's resident memory, or its peak if the system tells only that."""
    gc.collect()
    if _STATUS.exists():
        found = re.search(r"VmRSS:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"))
        if found:
            return int(found[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1024 * 1024 if sys.platform == "darwin" else 1024)
