"""The section on sweeps: the cost of looking for due leases when none is due, by leases."""

from __future__ import annotations

from datetime import timedelta

from benchmarks.bench import Bench
from benchmarks.growth import fill
from benchmarks.measure import Workload, repeated, timed
from ledger import Attribution, LeaseTtl, RequestExtensions

_CALL = RequestExtensions(Attribution(run_id="benchmark"), LeaseTtl(timedelta(days=30)))


def workloads(bench: Bench) -> list[Workload]:
    """Return `expire_due` with many leases, none of them due, compared with few leases."""
    book = bench.book()
    base: Workload | None = None
    found: list[Workload] = []
    for leases in sorted(bench.scale.leases):
        name = fill(book, f"sweep-{leases}", 2 * leases, _CALL).name
        workload = Workload(
            name=f"sweep behind {leases:,} leases",
            run=lambda name=name: repeated(  # type: ignore[misc]
                bench.scale.calls, lambda noted: timed(noted, lambda: book.expire_due(name))
            ),
            base=base,
            compare="latency",
            labels={"leases": leases},
        )
        if base is None:
            base = workload
        else:
            found.append(workload)
    return found
