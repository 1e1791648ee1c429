"""A budget as an aggregate of `eventsourcing`, its events in the same kind of database.

It is set up as its documentation recommends for an aggregate with a long history: a cache of
aggregates, brought up to date from the database at every read. Its SQLite files are in WAL mode
with SQLite's own default, synchronous=FULL; on PostgreSQL the server's synchronous_commit holds. So
it is as durable as the ledger, and each reservation and settlement is a transaction.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import asdict

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from sqlalchemy import make_url

from benchmarks.bench import Bench
from benchmarks.measure import Workload, repeated
from benchmarks.stores import beside, sqlite_path
from benchmarks.work import CALL, ESTIMATE, USED
from ledger import Attribution

_PAIRS_SHARE = 4
"""A round has this much fewer pairs than a round of the ledger: it takes that much longer."""


class EventSourcedBudget(Aggregate):  # type: ignore[misc] # an optional extra
    """A pool: what is spent and held, and the open leases."""

    @event("Opened")  # type: ignore[untyped-decorator]
    def __init__(self, capacity_cost_micros_usd: int) -> None:
        self.capacity = capacity_cost_micros_usd
        self.held = 0
        self.spent = 0
        self.leases: dict[str, int] = {}

    @event("Reserved")  # type: ignore[untyped-decorator]
    def reserve(self, lease: str, run_id: str, model: str, estimate: dict[str, int]) -> None:  # noqa: ARG002 - kept in the event
        """Hold an estimate.

        Raises:
            ValueError: There is not enough left.
        """
        cost = estimate["cost_micros_usd"]
        if self.capacity - self.held - self.spent < cost:
            raise ValueError("not enough left")
        self.held += cost
        self.leases[lease] = cost

    @event("Settled")  # type: ignore[untyped-decorator]
    def settle(self, lease: str, usage: dict[str, int]) -> None:
        """Return what a lease held, and count what was spent."""
        self.held -= self.leases.pop(lease)
        self.spent += usage["cost_micros_usd"]


def workload(bench: Bench) -> Workload:
    """Return pairs on one aggregate: each operation loads it, changes it and saves it."""
    app = Application(env=_environment(bench.stack.enter_context(beside(bench.url, "events"))))
    bench.stack.callback(app.close)
    budget = EventSourcedBudget(10**15)
    app.save(budget)
    numbers = itertools.count(1)
    attribution = CALL.get(Attribution)
    whose = {
        "run_id": attribution and attribution.run_id,
        "model": attribution and attribution.model,
    }
    estimate, usage = asdict(ESTIMATE), asdict(USED)

    def once(latencies: list[float]) -> None:
        lease = str(next(numbers))
        began = time.perf_counter()
        found = app.repository.get(budget.id)
        found.reserve(lease=lease, estimate=estimate, **whose)
        app.save(found)
        reserved = time.perf_counter()
        found = app.repository.get(budget.id)
        found.settle(lease=lease, usage=usage)
        app.save(found)
        latencies += (reserved - began, time.perf_counter() - reserved)

    pairs = max(1, bench.scale.calls // _PAIRS_SHARE)
    return Workload(
        name="eventsourcing, an aggregate: durable",
        run=lambda: repeated(pairs, once),
        base=bench.floor,
    )


def _environment(url: str) -> dict[str, str]:
    cache = {"AGGREGATE_CACHE_MAXSIZE": "100"}
    if url.startswith("sqlite"):
        return cache | {
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": str(sqlite_path(url)),
        }
    store = make_url(url)
    return cache | {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": store.database or "",
        "POSTGRES_HOST": str(store.query.get("host", store.host or "")),
        "POSTGRES_PORT": str(store.port or 5432),
        "POSTGRES_USER": store.username or "",
        "POSTGRES_PASSWORD": store.password or "",
    }
