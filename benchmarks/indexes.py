"""The section on indexes: what the indexes that only reports need cost each write."""

from __future__ import annotations

from benchmarks.bench import Bench, fresh_pool
from benchmarks.measure import Workload, repeated
from benchmarks.stores import beside
from benchmarks.work import TIMEOUT_S, pair
from ledger import Ledger
from ledger.store.database import Database

INDEXES = ("ix_entries_at", "ix_entries_attribution_id", "ix_attributions_run_id")


def workloads(bench: Bench) -> list[Workload]:
    """Return reserve and settle with the indexes, compared with a store without them."""
    base: Workload | None = None
    found = []
    for name, dropped in (("without", INDEXES), ("with", ())):
        url = bench.stack.enter_context(beside(bench.url, f"{name}_indexes"))
        Ledger.open(url).close()
        database = Database(url, timeout_s=TIMEOUT_S, create=False)
        with database.connect() as connection, connection.begin():
            for index in dropped:
                connection.exec_driver_sql(f"DROP INDEX {index}")
        database.close()
        book = bench.stack.enter_context(Ledger.open(url, create=False, timeout_s=TIMEOUT_S))
        budget = fresh_pool(book)
        workload = Workload(
            name=f"1 thread, {name} the indexes of reports",
            run=lambda budget=budget: repeated(  # type: ignore[misc]
                bench.scale.calls, lambda noted: pair(budget, noted)
            ),
            base=base,
            compare="latency",
        )
        base = base or workload
        found.append(workload)
    return found[1:]
