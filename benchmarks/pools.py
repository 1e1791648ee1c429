"""The section on many pools: what a look at all of them costs, against listing their names."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.measure import Workload, repeated, timed
from benchmarks.work import CALL, ESTIMATE, UNLIMITED, USED
from ledger import SharedPoolBudgetOptions, reports
from ledger.reports.meter import Meter

_LOOKS = 3


def workloads(bench: Bench) -> list[Workload]:
    """Return looks at a parent and its many pools, of which one in ten has an open lease."""
    book, pools = bench.book(), bench.scale.pools
    limit = SharedPoolBudgetOptions(capacity_tokens=10**9)
    book.pool("many", limit)
    for number in range(pools):
        budget = book.pool(f"many-{number}", limit, parent="many")
        if number % 10 == 0:
            budget.reserve(CALL, ESTIMATE, UNLIMITED)
            budget.record_used(budget.reserve(CALL, ESTIMATE, UNLIMITED), USED)
    first, meter = reports.glance(book), Meter(book)
    meter.read()
    looks: dict[str, Callable[[], object]] = {
        "their names": book.pools,
        "where they stand": lambda: reports.standing(book),
        "glance": lambda: reports.glance(book),
        "glance again": lambda: reports.glance(book, oldest=first.oldest),
        "meter again": meter.read,
        "expire_due": book.expire_due,
    }
    found: list[Workload] = []
    for name, look in looks.items():
        workload = Workload(
            name=f"{name}, {pools:,} pools",
            run=lambda look=look: repeated(_LOOKS, lambda noted: timed(noted, look)),  # type: ignore[misc]
            base=found[0] if found else None,
            compare="latency",
            labels={"look": name, "pools": pools},
        )
        found.append(workload)
    return found[1:]
