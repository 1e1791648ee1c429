"""What it costs to look for leases to expire where there are none, behind more and more of them."""

from __future__ import annotations

from datetime import timedelta

from benchmarks.bench import Bench
from benchmarks.growth import fill
from benchmarks.measure import Workload, repeated, timed
from ledger import Attribution, LeaseTtl, RequestExtensions

_CALL = RequestExtensions(Attribution(run_id="benchmark"), LeaseTtl(timedelta(days=30)))


def workloads(bench: Bench) -> list[Workload]:
    """Return `expire_due` behind many leases, none of them due, held to the same behind few."""
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
