"""One side of a comparison: a process that does slices of work when it is told, on one library.

    python -m benchmarks.side

Which `ledger` it imports is the caller's choice (PYTHONPATH and the current folder). It uses only
names that every commit of the library has, so it must import nothing of `ledger` but public names,
itself or through `benchmarks`. Each line of standard input is an order in JSON, each line of
standard output its answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ledger
from benchmarks import callers
from benchmarks.bench import fresh_pool
from benchmarks.floor import floor
from benchmarks.measure import Round, Workload, repeated, timed
from benchmarks.start import started
from benchmarks.work import CALL, TIMEOUT_S, at_random, pair
from ledger import Ledger, LedgerBudgetManager


class Side:
    """A store that is open in this process, and the slices of work that it can do."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._url = ""
        self._book: Ledger
        self._floor: Workload
        self._asked: LedgerBudgetManager
        self._pools: dict[str, LedgerBudgetManager] = {}

    def open(self, url: str) -> Mapping[str, str]:
        """Open a store, and say which library does it."""
        self._url = url
        self._book = self._stack.enter_context(Ledger.open(url, timeout_s=TIMEOUT_S))
        return {"ledger": str(Path(ledger.__file__).parent), "version": ledger.__version__}

    def new_pools(self, count: int) -> list[str]:
        """Make pools, and return their names."""
        return [fresh_pool(self._book).name for _ in range(count)]

    def open_pools(self, names: list[str]) -> int:
        """Open pools, so that their first use is no part of a slice."""
        self._pools |= {name: self._book.pool(name) for name in names}
        return len(names)

    def open_floor(self, url: str, operations: int) -> int:
        """Open the database of the floor beside a store."""
        self._floor = self._stack.enter_context(floor(url, operations))
        return operations

    def bare(self) -> Round:
        """Do a round of the floor."""
        return self._floor.run()

    def threads(self, count: int, pairs: int) -> Round:
        """Reserve and settle from threads, on a new pool."""
        return callers.threads(self._book, count, pairs)

    def tasks(self, count: int, pairs: int) -> Round:
        """Reserve and settle from tasks, on a new pool."""
        return callers.tasks(self._url, self._book, count, pairs)

    def remaining(self, calls: int) -> Round:
        """Ask what remains, again and again, of a pool that has some entries."""
        if not hasattr(self, "_asked"):
            self._asked = fresh_pool(self._book)
            repeated(10, lambda noted: pair(self._asked, noted))
        return repeated(calls, lambda noted: timed(noted, lambda: self._asked.remaining(CALL)))

    def share(self, names: list[str], threads: int, seconds: float, process: int) -> Round:
        """Work for a fixed time on open pools, as other processes do at the same time."""
        return at_random([self._pools[name] for name in names], threads, seconds, process)

    def start(self, program: str, times: int) -> Round:
        """Start a program of this library again and again."""
        return started(program, times)

    def verify(self) -> list[str]:
        """Return the pools whose books are damaged."""
        return [str(found) for found in self._book.verify() if not found.ok]

    def close(self) -> bool:
        """Close the store."""
        self._stack.close()
        return True


def main() -> None:
    """Carry out one order after the other, until the input ends."""
    side = Side()
    for line in sys.stdin:
        told = json.loads(line)
        method: Callable[..., Any] = getattr(side, told.pop("do"))
        answer = method(**told)
        print(json.dumps(asdict(answer) if isinstance(answer, Round) else answer), flush=True)
    side.close()


if __name__ == "__main__":
    main()
