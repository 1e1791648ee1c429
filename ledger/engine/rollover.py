"""Roll over: begin the window that it is by now, before anything else is written in it."""

from __future__ import annotations

from ledger.core import rules
from ledger.core.entries import EntryKind
from ledger.engine.pool_batch import PoolBatch
from ledger.store.rows import Draft


def roll_over(pool_batch: PoolBatch) -> None:
    """Stage the entry that begins a new window, if the one the pool is in has ended.

    It comes behind the expiries of the same transaction: what they give back is part of the rest
    that may be carried over. Windows in which nothing was written have no entry of their own.
    """
    head = pool_batch.head
    window = rules.roll_over(head.policy, head.window, head.balance, pool_batch.now)
    if window is not None:
        pool_batch.post(Draft(kind=EntryKind.ROLLOVER, balance=head.balance, window=window))
