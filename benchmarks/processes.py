"""The section on processes: several, each with threads, on one pool and spread over many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from benchmarks.bench import Bench, fresh_pool
from benchmarks.measure import Round, Workload
from benchmarks.stores import beside
from benchmarks.work import TIMEOUT_S, at_random
from benchmarks.worker import Report, run_together
from ledger import Ledger
from ledger.store import migrate
from ledger.store.database import Database

PARTITIONS = 8
FAIRNESS, TAIL, RETRIES = "slow/fast", "p99/p50", "retries %"


def workloads(bench: Bench) -> list[Workload]:
    """Return processes that share one pool, and the same spread over many pools."""
    book, scale = bench.book(), bench.scale
    many = [fresh_pool(book).name for _ in range(scale.pools)]
    each = f"{scale.processes} x {scale.threads_each} threads"
    found = [
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
    if bench.store == "postgresql":
        divided = _divided(bench)
        opened = divided.book()
        others = [fresh_pool(opened).name for _ in range(scale.pools)]
        found.append(
            Workload(
                name=f"{found[-1].name} in {PARTITIONS} partitions",
                run=lambda: together(divided, others),
                base=bench.floor,
                labels={"pools": scale.pools, "partitions": PARTITIONS},
            )
        )
    return found


def _divided(bench: Bench) -> Bench:
    """Return a store in partitions, on the same server."""
    url = bench.stack.enter_context(beside(bench.url, "partitions"))
    database = Database(url, timeout_s=TIMEOUT_S, create=True)
    migrate.upgrade(database, partitions=PARTITIONS)
    database.close()
    return replace(bench, url=url)


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
    retries, transactions = (
        sum(report[name] for report in reports) for name in ("retries", "transactions")
    )
    done = added_up(Round(**report["round"]) for report in reports)
    return replace(done, also={**done.also, RETRIES: 100 * retries / max(1, transactions)})


def added_up(rounds: Iterable[Round]) -> Round:
    """Return what processes did at the same time as one round."""
    rounds = list(rounds)
    rates = [one.rate for one in rounds]
    found = Round(
        operations=sum(one.operations for one in rounds),
        seconds=max(one.seconds for one in rounds),
        latencies_s=[latency for one in rounds for latency in one.latencies_s],
        cpu_s=sum(one.cpu_s or 0 for one in rounds),
        switches=sum(one.switches or 0 for one in rounds),
    )
    return replace(
        found,
        also={
            FAIRNESS: min(rates) / max(rates),
            TAIL: (found.latency_us(99) or 0) / (found.latency_us(50) or 1),
        },
    )


def share(told: Mapping[str, Any], ready: Callable[[], None]) -> Report:
    """Work for a fixed time in one process, on pools that are picked at random."""
    with Ledger.open(told["url"], timeout_s=TIMEOUT_S) as book:
        budgets = [book.pool(name) for name in told["pools"]]
        database = book._writer.database  # noqa: SLF001 - its retries are for no user
        ready()
        transactions, retries = database.transactions, database.retries
        done = at_random(budgets, told["threads"], told["seconds"], told["process"])
        return {
            "round": asdict(done),
            "transactions": database.transactions - transactions,
            "retries": database.retries - retries,
        }
