"""Behind a connection pooler in transaction mode: no session remembers anything that is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from ledger import (
    AsyncLedger,
    Attribution,
    IdempotencyKey,
    Ledger,
    LedgerBudgetManager,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
)
from ledger.testing.calls import UNLIMITED
from tests.faults.pooler import Pooler
from tests.leases import TEN

OPTIONS = SharedPoolBudgetOptions(capacity_tokens=100_000)
LEDGERS, THREADS, CALLS = 2, 3, 5

LEFT_BEHIND = """
SELECT name FROM pg_prepared_statements
UNION ALL SELECT name FROM pg_cursors
UNION ALL SELECT name FROM pg_settings WHERE source = 'session'
UNION ALL SELECT locktype FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT pg_listening_channels()
"""
"""What a session still knows when its transaction is over."""


def work(budget: LedgerBudgetManager, who: int) -> None:
    """Do of everything that a session could be asked for."""
    for number in range(CALLS):
        call = RequestExtensions(Attribution(run_id=f"{who}"), IdempotencyKey(f"{who}-{number}"))
        lease = budget.reserve(call, TEN, UNLIMITED)
        budget.observe(lease, Usage(total_tokens=1))
        budget.renew(lease, timedelta(hours=1))
        assert not budget.remaining(RequestExtensions()).below_threshold
        assert lease == budget.reserve(call, TEN, UNLIMITED)
        budget.record_used(lease, Usage(total_tokens=2))


async def work_awaited(url: str) -> None:
    """Reserve and settle from tasks."""
    async with await AsyncLedger.open(url, timeout_s=30) as book:
        budget = await book.pool("pool")

        async def once() -> None:
            lease = await budget.reserve(RequestExtensions(), TEN, UNLIMITED)
            await budget.record_used(lease, Usage(total_tokens=3))

        await asyncio.gather(*(once() for _ in range(CALLS)))


@pytest.mark.parametrize("empty", [False, True], ids=["a store", "no schema yet"])
def test_a_transaction_mode_pooler_breaks_nothing(
    new_store: Callable[..., str], *, empty: bool
) -> None:
    """Two ledgers of threads and tasks share two sessions: all is done once, nothing is left."""
    with Pooler(new_store("postgresql", empty=empty), sessions=2) as pooler:

        def one_ledger(number: int) -> None:
            with (
                Ledger.open(pooler.url, timeout_s=30) as book,
                ThreadPoolExecutor(THREADS) as threads,
            ):
                budget = book.pool("pool", OPTIONS)
                names = range(THREADS * number, THREADS * (number + 1))
                list(threads.map(lambda who: work(budget, who), names))
            asyncio.run(work_awaited(pooler.url))

        with ThreadPoolExecutor(LEDGERS) as ledgers:
            list(ledgers.map(one_ledger, range(LEDGERS)))
        with Ledger.open(pooler.url) as book:
            assert [None] == [found.damage for found in book.verify()]
            threads, tasks = LEDGERS * THREADS * CALLS, LEDGERS * CALLS
            assert 1 + 4 * threads + 2 * tasks == len(list(book.entries("pool")))
            status = book.pool("pool").status()
        assert (3 * threads + 3 * tasks, 0) == (
            status.balance.committed.tokens,
            status.balance.reserved.tokens,
        )
        assert pooler.moves
        assert [[]] * 2 == [session.execute(LEFT_BEHIND).fetchall() for session in pooler.sessions]
