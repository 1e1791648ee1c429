"""The values that every section uses: the store, its floor, the amount of work, the clean-up."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.measure import Workload
from benchmarks.work import TIMEOUT_S
from ledger import Ledger, LedgerBudgetManager, SharedPoolBudgetOptions

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The amount of work: by default enough for figures, little in the tests of the benchmarks."""

    rounds: int = 5
    floor_operations: int = 400
    pairs: int = 1_600
    """Reserve-and-settle pairs of one round, divided among its callers."""
    threads: tuple[int, ...] = (1, 4, 16, 64)
    tasks: tuple[int, ...] = (1, 4, 16, 64, 256)
    calls: int = 300
    """Single calls of one round with one caller."""
    processes: int = 4
    threads_each: int = 16
    seconds: float = 2.0
    """How long the processes of one round work, in seconds."""
    pools: int = 1_000
    entries: tuple[int, ...] = (1_000, 50_000)
    history: int = 50_000
    """How many entries the pool of the reports has."""
    leases: tuple[int, ...] = (1_000, 20_000)
    """How many leases a pool has when a sweep is measured."""
    warm_up: int = 20_000
    operations: int = 60_000
    """How many operations a process does; its memory is read after `warm_up` and at the end."""
    starts: int = 3
    """How often a program is started in one round."""
    count_instructions: bool = False
    """Whether `callers` also run under callgrind, which takes minutes."""

    def longer(self, entries: tuple[int, ...]) -> Scale:
        """Return the scale of a long run: a million operations, and pools of these sizes."""
        return replace(
            self,
            entries=entries,
            history=1_000_000,
            leases=(1_000, 1_000_000),
            warm_up=100_000,
            operations=1_000_000,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One store, while it is measured."""

    store: str
    url: str
    scale: Scale
    floor: Workload
    stack: ExitStack
    """Closes at the end of a section all that the section opened."""
    sql: Mapping[str, Path] = field(default_factory=dict)
    """The plain SQL that is measured beside the peers, by name."""
    notes: list[str] = field(default_factory=list)
    """Messages on what could not be measured, and what to do about it."""

    def book(self) -> Ledger:
        """Open the store until the section is done."""
        return self.stack.enter_context(Ledger.open(self.url, timeout_s=TIMEOUT_S))


def fresh_pool(book: Ledger) -> LedgerBudgetManager:
    """Return a new pool without a limit."""
    return book.pool(f"bench-{next(_numbers)}", SharedPoolBudgetOptions())
