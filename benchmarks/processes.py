"""The section on processes: several, each with threads, on one pool and spread over many."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.bench import Bench, fresh_pool
from benchmarks.measure import Round, Workload
from benchmarks.work import TIMEOUT_S, in_threads, pair
from benchmarks.worker import Report, run_together
from ledger import Ledger

FAIRNESS, TAIL, RETRIES = "slow/fast", "p99/p50", "retries %"


def workloads(bench: Bench) -> list[Workload]:
    """Return processes that share one pool, and the same spread over many pools."""
    book, scale = bench.book(), bench.scale
    many = [fresh_pool(book).name for _ in range(scale.pools)]
    each = f"{scale.processes} x {scale.threads_each} threads"
    return [
        Workload(
            name=f"{each}, 1 pool",
            run=lambda: together(bench, [fresh_pool(book).name]),
            base=bench.floor,
            labels={"pools": 1},
        ),
        Workload(
            name=f"{each}, {scale.pools:,} pools",
            run=lambda: together(bench, many),
            base=bench.floor,
            labels={"pools": scale.pools},
        ),
    ]


def together(bench: Bench, pools: Sequence[str]) -> Round:
    """Let processes work on pools for a fixed time, and compare how much each did.

    All start at the same moment and count for the same time. So a process that is served less often
    has a lower rate, and cannot catch up after the others have ended.
    """
    reports = run_together(
        "benchmarks.processes:share",
        [
            {
                "url": bench.url,
                "pools": pools,
                "threads": bench.scale.threads_each,
                "seconds": bench.scale.seconds,
                "process": number,
            }
            for number in range(bench.scale.processes)
        ],
    )
    rates = [report["operations"] / report["seconds"] for report in reports]
    found = Round(
        operations=sum(report["operations"] for report in reports),
        seconds=max(report["seconds"] for report in reports),
        latencies_s=[latency for report in reports for latency in report["latencies_s"]],
    )
    retries, transactions = (
        sum(report[name] for report in reports) for name in ("retries", "transactions")
    )
    return Round(
        operations=found.operations,
        seconds=found.seconds,
        latencies_s=found.latencies_s,
        also={
            FAIRNESS: min(rates) / max(rates),
            TAIL: (found.latency_us(99) or 0) / (found.latency_us(50) or 1),
            RETRIES: 100 * retries / max(1, transactions),
        },
    )


def share(told: Mapping[str, Any], ready: Callable[[], None]) -> Report:
    """Work for a fixed time in one process: each thread picks a pool at random for every call.

    The random choices are the same in every run.
    """
    with Ledger.open(told["url"], timeout_s=TIMEOUT_S) as book:
        budgets = [book.pool(name) for name in told["pools"]]
        database = book._writer.database  # noqa: SLF001 - its retries are for no user

        def work(number: int, latencies: list[float]) -> None:
            picks = random.Random(f"{told['process']}-{number}")  # noqa: S311 - not a secret
            until = time.perf_counter() + told["seconds"]
            while time.perf_counter() < until:
                pair(picks.choice(budgets), latencies)

        ready()
        transactions, retries = database.transactions, database.retries
        done = in_threads(told["threads"], work)
        return {
            "operations": done.operations,
            "seconds": done.seconds,
            "latencies_s": done.latencies_s,
            "transactions": database.transactions - transactions,
            "retries": database.retries - retries,
        }
