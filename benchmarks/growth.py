"""The section on growth: what a call costs in a pool with a long history, and in a short one."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.direct import Direct
from benchmarks.measure import Workload, repeated, timed
from benchmarks.work import CALL, ESTIMATE, UNLIMITED, USED
from ledger import Ledger, LedgerBudgetManager, RequestExtensions, SharedPoolBudgetOptions

_BATCH = 500


def workloads(bench: Bench) -> list[Workload]:
    """Return `remaining` and `reserve` in long pools, compared with those in the shortest pool."""
    book = bench.book()
    pools = {size: fill(book, f"growth-{size}", size) for size in sorted(bench.scale.entries)}
    calls: dict[str, Callable[[LedgerBudgetManager], object]] = {
        "remaining": lambda budget: budget.remaining(CALL),
        "reserve": lambda budget: budget.reserve(CALL, ESTIMATE, UNLIMITED),
    }
    found: list[Workload] = []
    for name, call in calls.items():
        base: Workload | None = None
        for size, budget in pools.items():
            workload = Workload(
                name=f"{name} at {size:,} entries",
                run=lambda call=call, budget=budget: repeated(  # type: ignore[misc]
                    bench.scale.calls, lambda noted: timed(noted, lambda: call(budget))
                ),
                base=base,
                compare="latency",
                labels={"call": name, "entries": size},
            )
            base = base or workload
            if workload is not base:
                found.append(workload)
    return found


def fill(book: Ledger, name: str, size: int, call: RequestExtensions = CALL) -> LedgerBudgetManager:
    """Return a pool with this number of entries, written in large batches."""
    budget = book.pool(name, SharedPoolBudgetOptions())
    direct = Direct(budget)
    left = size - budget.status().seq
    while left > 0:
        count = min(_BATCH, (left + 1) // 2)
        leases = direct.done([direct.reserve(call, ESTIMATE, UNLIMITED) for _ in range(count)])
        direct.done([direct.record_used(lease, USED) for lease in leases])
        left -= 2 * count
    return budget
