"""What a call costs in a pool with a long history, against a short one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from sqlalchemy import Connection

from benchmarks.measure import Figure, Round, timed
from benchmarks.writes import CALL, ESTIMATE, TIMEOUT_S, UNLIMITED, USED
from ledger import Ledger, LedgerBudgetManager, SharedPoolBudgetOptions
from ledger.operations import Operation, Outcome, Reserve, Settle, new_key, perform
from ledger.rows import Memo

T = TypeVar("T")

_CALLS = 300
_BATCH = 500


def measure(store: str, url: str, *, sizes: tuple[int, int], rounds: int) -> list[Figure]:
    """Return `remaining` and `reserve` in a long pool, as ratios to the same in a short one."""
    short, long = sizes
    with Ledger.open(url, timeout_s=TIMEOUT_S) as book:
        budgets = {size: fill(book, f"growth-{size}", size) for size in sizes}
        figures = []
        for name, once in (("remaining", remaining), ("reserve", reserve)):
            done: dict[int, list[Round]] = {size: [] for size in sizes}
            for _ in range(rounds):
                for size in sizes:
                    done[size].append(once(budgets[size]))
            figures += [
                Figure.of(store, f"{name} at {size:,} entries", done[size], done[short])
                for size in (short, long)
            ]
        return figures


def fill(book: Ledger, name: str, size: int) -> LedgerBudgetManager:
    """Return a pool with so many entries, written in large batches."""
    budget = book.pool(name, SharedPoolBudgetOptions())
    while budget.status().seq < size:
        leases = _write(budget, [Reserve.of(CALL, ESTIMATE, UNLIMITED, keep_denial=False)] * _BATCH)
        _write(budget, [Settle.of(lease, USED, None) for lease in leases])
    return budget


def _write(budget: LedgerBudgetManager, operations: Sequence[Operation[T]]) -> list[T]:
    """Do operations in one transaction."""
    fresh = [replace(operation, key=new_key()) for operation in operations]

    def work(connection: Connection, again: bool) -> tuple[list[Outcome], Memo]:  # noqa: FBT001
        now = budget.writer.now()
        return perform(connection, budget.journal, fresh, now=now, look_up=again)

    outcomes, memo = budget.writer.database.transact(
        work, pool_ids=[budget.journal.info.pool_id], key=fresh[0].key
    )
    budget.journal.remember(memo)
    return [
        operation.answer(row, budget.journal.info)
        for operation, row in zip(fresh, outcomes, strict=True)
        if isinstance(row, Mapping)
    ]


def remaining(budget: LedgerBudgetManager) -> Round:
    """Ask what remains, again and again."""
    return _round(lambda: budget.remaining(CALL))


def reserve(budget: LedgerBudgetManager) -> Round:
    """Reserve, again and again."""
    return _round(lambda: budget.reserve(CALL, ESTIMATE, UNLIMITED))


def _round(call: Callable[[], object]) -> Round:
    latencies: list[float] = []
    began = time.perf_counter()
    for _ in range(_CALLS):
        timed(latencies, call)
    seconds = time.perf_counter() - began
    return Round(operations=_CALLS, seconds=seconds, latencies_s=latencies)
