"""The section on the idle queue: what the queue costs a single caller, against no queue."""

from __future__ import annotations

import time

from benchmarks.bench import Bench, fresh_pool
from benchmarks.direct import Direct
from benchmarks.measure import Workload, repeated
from benchmarks.work import CALL, ESTIMATE, UNLIMITED, USED, pair


def workloads(bench: Bench) -> list[Workload]:
    """Return one caller's operations through the queue, compared with the same without it."""
    book = bench.book()
    queued, direct = fresh_pool(book), Direct(fresh_pool(book))
    base = Workload(
        name="one caller, past the queue",
        run=lambda: repeated(bench.scale.calls, lambda noted: pair_direct(direct, noted)),
    )
    return [
        Workload(
            name="one caller, through the queue",
            run=lambda: repeated(bench.scale.calls, lambda noted: pair(queued, noted)),
            base=base,
            compare="latency",
        )
    ]


def pair_direct(budget: Direct, latencies_s: list[float]) -> None:
    """Reserve and settle as `work.pair` does, each in a transaction of its own."""
    began = time.perf_counter()
    (lease,) = budget.done([budget.reserve(CALL, ESTIMATE, UNLIMITED)])
    reserved = time.perf_counter()
    budget.done([budget.record_used(lease, USED)])
    latencies_s += (reserved - began, time.perf_counter() - reserved)
