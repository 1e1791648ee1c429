"""Others who count, in the same run: what installs from the registry, and plain SQL.

One caller, and each peer by its documented interface. They promise different things, so each row's
name says what is left after a crash. A reservation and a settlement are an operation each, here as
everywhere; LiteLLM's manager has one call for both.
"""

from __future__ import annotations

from importlib.util import find_spec

from benchmarks.bench import Bench, fresh_pool
from benchmarks.measure import Workload, repeated
from benchmarks.peers import dictionary, litellm_manager, plain_sql
from benchmarks.work import pair
from ledger import SharedPoolBudgetManager, SharedPoolBudgetOptions

INSTALL = "pip install 'budget-ledger[peers]'"

_QUICKER = 50
"""What nothing is written for needs so many more pairs for a figure."""


def workloads(bench: Bench) -> list[Workload]:
    """Return this library and its peers, as far as they are installed; the rest is noted."""
    budget, calls = fresh_pool(bench.book()), bench.scale.calls
    many = calls * _QUICKER
    in_memory = SharedPoolBudgetManager(SharedPoolBudgetOptions())
    found = [
        Workload(
            name="this library: durable",
            run=lambda: repeated(calls, lambda noted: pair(budget, noted)),
            base=bench.floor,
        ),
        *(plain_sql.workload(bench, name, path) for name, path in bench.sql.items()),
        Workload(
            name="this library in memory: nothing is kept",
            run=lambda: repeated(many, lambda noted: pair(in_memory, noted)),
            base=bench.floor,
        ),
        dictionary.workload(bench, many),
    ]
    if _installed(bench, "eventsourcing"):
        from benchmarks.peers import event_sourced  # noqa: PLC0415 - an optional extra

        found.insert(1, event_sourced.workload(bench))
    if _installed(bench, "litellm"):
        found.append(litellm_manager.workload(bench))
    return found


def _installed(bench: Bench, name: str) -> bool:
    if find_spec(name) is not None:
        return True
    bench.notes.append(f"{bench.store}: {name} is not installed, so not measured: {INSTALL}")
    return False
