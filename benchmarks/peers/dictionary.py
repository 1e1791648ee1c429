"""A Python dict behind a lock: what many programs have, and nothing is left after a restart."""

from __future__ import annotations

import itertools
import threading
import time

from benchmarks.bench import Bench
from benchmarks.measure import Workload, repeated
from benchmarks.work import ESTIMATE, USED


class DictBudget:
    """What is spent and held, and the open leases, in a dict."""

    def __init__(self, capacity_cost_micros_usd: int) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._leases: dict[int, int] = {}
        self._sums = {"capacity": capacity_cost_micros_usd, "held": 0, "spent": 0}

    def reserve(self, cost_micros_usd: int) -> int:
        """Hold an amount, and return the lease's number.

        Raises:
            ValueError: There is not enough left.
        """
        with self._lock:
            sums = self._sums
            if sums["capacity"] - sums["held"] - sums["spent"] < cost_micros_usd:
                raise ValueError("not enough left")
            sums["held"] += cost_micros_usd
            lease = next(self._numbers)
            self._leases[lease] = cost_micros_usd
            return lease

    def settle(self, lease: int, cost_micros_usd: int) -> None:
        """Return what a lease held, and count what was spent."""
        with self._lock:
            self._sums["held"] -= self._leases.pop(lease)
            self._sums["spent"] += cost_micros_usd


def workload(bench: Bench, pairs: int) -> Workload:
    """Return so many pairs on a dict."""
    budget = DictBudget(10**15)

    def once(latencies: list[float]) -> None:
        began = time.perf_counter()
        lease = budget.reserve(ESTIMATE.cost_micros_usd)
        reserved = time.perf_counter()
        budget.settle(lease, USED.cost_micros_usd)
        latencies += (reserved - began, time.perf_counter() - reserved)

    return Workload(
        name="a dict behind a lock: nothing is kept",
        run=lambda: repeated(pairs, once),
        base=bench.floor,
    )
