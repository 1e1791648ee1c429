"""What bounds a busy pool: the processor time and the waiting of a batch, stage by stage.

    python -m benchmarks.profile
    python -m benchmarks.profile --store sqlite --batch 256

Batches of reservations and of settlements are done past the queue, so one thread does everything
and the stages add up. A clock is read at each border of a stage; around those that may wait, for
the disk or the server, the thread's processor time as well. Reading clocks costs something: the
last rows say what the same batches take without, by turns with the others, and what the same
operations take through the queue, from as many tasks as a batch has operations.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

from benchmarks.bench import fresh_pool
from benchmarks.direct import Direct
from benchmarks.stores import STORES, opened
from benchmarks.work import (
    CALL,
    ESTIMATE,
    TIMEOUT_S,
    UNLIMITED,
    USED,
    in_tasks,
)
from ledger import AsyncLedger, Ledger

REST = "everything between"

STAGES = {
    "construct the operation": (
        "ledger.managers.pool:LedgerBudgetManager.reserve",
        "ledger.managers.pool:LedgerBudgetManager.record_used",
    ),
    "begin": (
        "ledger.store.dialects.sqlite:SQLiteDialect.begin",
        "ledger.store.dialects.postgresql:PostgreSQLDialect.begin",
    ),
    "read the newest entry": ("ledger.store.snapshot:look",),
    "find leases": (
        "ledger.store.snapshot:recall",
        "ledger.store.journal:PoolJournal.remembered",
        "ledger.store.journal:leases",
    ),
    "decide": (
        "ledger.engine.operations:Reserve.decide",
        "ledger.engine.operations:Record.decide",
    ),
    "build the row": ("ledger.store.drafts:row_behind",),
    "encode and hash": (
        "ledger.engine.operations:Operation.payload_digest",
        "ledger.core.hashing:entry_hash",
    ),
    "insert": ("ledger.store.journal:append",),
    "commit": (
        "ledger.store.dialects.sqlite:SQLiteDialect.commit",
        "ledger.store.dialects.postgresql:PostgreSQLDialect.commit",
    ),
    "remember leases": ("ledger.store.journal:PoolJournal.remember",),
    "hand out": (
        "ledger.engine.operations:Reserve.answer",
        "ledger.engine.operations:Record.answer",
    ),
}
"""The functions of each stage. A stage inside another stage is counted once, as itself."""

WAIT = frozenset({"begin", "read the newest entry", "find leases", "insert", "commit"})
"""The stages that talk to the database. Only these read the processor clock, which is slow."""


class Clocks(NamedTuple):
    """This thread's processor time and the wall-clock time, in seconds."""

    processor_s: float
    wall_s: float

    @classmethod
    def now(cls) -> Clocks:
        """Read both clocks."""
        return cls(time.thread_time(), time.perf_counter())

    def until_now(self) -> Clocks:
        """Return the time that has passed on both clocks since this reading."""
        now = self.now()
        return Clocks(now.processor_s - self.processor_s, now.wall_s - self.wall_s)

    @property
    def waiting_s(self) -> float:
        """Wall-clock time without processor time: the time spent waiting."""
        return max(0.0, self.wall_s - self.processor_s)


class Spent(NamedTuple):
    """The time of one stage, or of all, in microseconds per operation."""

    processor_us: float
    waiting_us: float


class Profile(NamedTuple):
    """The time that one operation of a batch takes."""

    stages: Mapping[str, Spent]
    unwatched: Spent
    queued: Spent


class Stopwatch:
    """Adds each moment to the innermost stage that is running."""

    def __init__(self) -> None:
        self._under_way = [REST]
        self.restart()

    def restart(self) -> None:
        """Set the times of all stages to 0."""
        self._wall_s: defaultdict[str, float] = defaultdict(float)
        self._waiting_s: defaultdict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def charged(self) -> dict[str, Clocks]:
        """Return the time of each stage until now."""
        self._charge()
        return {
            stage: Clocks(wall_s - self._waiting_s[stage], wall_s)
            for stage, wall_s in self._wall_s.items()
        }

    def watch(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same, and adds its time to a stage."""

        @functools.wraps(function)
        def watched(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever it takes
            self._charge()
            self._under_way.append(stage)
            try:
                return function(*args, **options)
            finally:
                self._charge()
                self._under_way.pop()

        @functools.wraps(function)
        def watched_waiting(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
            began = Clocks.now()
            try:
                return watched(*args, **options)
            finally:
                self._waiting_s[stage] += began.until_now().waiting_s

        return watched_waiting if stage in WAIT else watched

    def _charge(self) -> None:
        now = time.perf_counter()
        self._wall_s[self._under_way[-1]] += now - self._last
        self._last = now


@contextmanager
def watched(stopwatch: Stopwatch) -> Iterator[None]:
    """Let a stopwatch time every stage.

    Raises:
        SystemExit: A function that a stage names does not exist any more.
    """
    with ExitStack() as stack:
        for stage, names in STAGES.items():
            for name in names:
                owner, last = _place(stage, name)
                timed = stopwatch.watch(stage, getattr(owner, last))
                stack.enter_context(mock.patch.object(owner, last, timed))
        yield


def _place(stage: str, name: str) -> tuple[Any, str]:
    """Return the module or class that holds a function, and the function's name."""
    module, _, path = name.partition(":")
    *outer, last = path.split(".")
    try:
        owner = functools.reduce(getattr, outer, importlib.import_module(module))
        getattr(owner, last)
    except (ImportError, AttributeError) as error:
        raise SystemExit(
            f"{name} is gone: say in STAGES of {__name__} which function does {stage!r} now"
        ) from error
    return owner, last


def profile(url: str, *, batch: int, batches: int) -> Profile:
    """Return what an operation takes in batches of this size: the median over the batches."""
    stopwatch = Stopwatch()
    seen: list[dict[str, Clocks]] = []
    bare: list[Clocks] = []
    with Ledger.open(url, timeout_s=TIMEOUT_S) as book:
        budget, name = Direct(fresh_pool(book)), fresh_pool(book).name
        both_kinds(budget, batch)  # look up now what is looked up only once
        for _ in range(batches):
            with watched(stopwatch):
                stopwatch.restart()
                both_kinds(budget, batch)
                seen.append(stopwatch.charged())
            began = Clocks.now()
            both_kinds(budget, batch)
            bare.append(began.until_now())
    return Profile(
        {
            stage: _spent([one[stage] for one in seen if stage in one], 2 * batch)
            for stage in (*STAGES, REST)
        },
        _spent(bare, 2 * batch),
        asyncio.run(_queued(url, name, batch, batch * batches)),
    )


def both_kinds(budget: Direct, batch: int) -> None:
    """Do one batch of reservations, then one batch with their settlements."""
    leases = budget.done([budget.reserve(CALL, ESTIMATE, UNLIMITED) for _ in range(batch)])
    budget.done([budget.record_used(lease, USED) for lease in leases])


async def _queued(url: str, pool: str, callers: int, pairs: int) -> Spent:
    async with AsyncLedger.open(url, timeout_s=TIMEOUT_S) as book:
        budget = await book.pool(pool)
        await in_tasks(callers, callers, budget)
        began = time.process_time()
        done = await in_tasks(callers, pairs, budget)
        used = Clocks(time.process_time() - began, done.seconds)
        return _spent([used], done.operations)


def _spent(seen: Sequence[Clocks], operations: int) -> Spent:
    scale = 1e6 / operations
    return Spent(
        statistics.median(one.processor_s for one in seen) * scale,
        statistics.median(one.waiting_s for one in seen) * scale,
    )


def described(store: str, batch: int, found: Profile) -> str:
    """Return a profile as a table."""
    total = sum(spent.processor_us for spent in found.stages.values())
    waiting = sum(spent.waiting_us for spent in found.stages.values())
    lines = [
        f"{store}, batches of {batch}: microseconds an operation",
        f"{'stage':<34} {'processor':>9} {'share':>6} {'waiting':>9}",
    ]
    for stage, spent in sorted(found.stages.items(), key=lambda item: -item[1].processor_us):
        share = spent.processor_us / total
        lines.append(
            f"{stage:<34} {spent.processor_us:>9.1f} {share:>6.0%} {spent.waiting_us:>9.1f}"
        )
    for name, spent in (
        ("all stages", Spent(total, waiting)),
        ("the same without the clocks", found.unwatched),
        (f"through the queue, {batch} tasks", found.queued),
    ):
        lines.append(f"{name:<34} {spent.processor_us:>9.1f} {'':>6} {spent.waiting_us:>9.1f}")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Print the profile of each store."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", choices=STORES, action="append", help="only this database")
    parser.add_argument("--batch", type=int, default=64, help="operations in a batch")
    parser.add_argument("--batches", type=int, default=100, help="how many of each kind")
    chosen = parser.parse_args(words)
    for store in dict.fromkeys(chosen.store or STORES):
        with opened(store) as url:
            print(
                described(
                    store, chosen.batch, profile(url, batch=chosen.batch, batches=chosen.batches)
                )
            )
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
