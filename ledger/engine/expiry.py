"""Expire: end the holds of leases whose time is over, in bounded steps."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ledger.core import rules
from ledger.core.checks import Micros
from ledger.core.entries import EntryKind, LeasePhase, LeaseState
from ledger.engine.drafts import carried
from ledger.engine.pool_batch import PoolBatch
from ledger.errors import JournalDamagedError
from ledger.store.journal import ENDING_PAGE, Ending


def expire(
    pool_batch: PoolBatch, found: Sequence[Ending], *, spared: Collection[int], until: Micros
) -> None:
    """Stage the expiry of due leases, and note how far the pool is swept.

    A pool is swept up to a time when no lease that was due until then still holds anything. The
    next sweep goes on from there, and so none looks at the history.

    Args:
        pool_batch: The pool, with these leases on it.
        found: The next leases whose time is over, by when it was.
        spared: Those that an operation of the same batch is about: it comes first.
        until: The time at which they were looked for, or now where the clock went back since.
    """
    swept_until = until
    if len(found) == ENDING_PAGE:  # there may be more, of the same microsecond too
        swept_until = Micros(min(until, found[-1].expires_at - 1))
    for due in found:
        row = pool_batch.leases.get(due.lease)
        if row is None or not rules.due(row.state, pool_batch.now):
            continue
        if row.state.expires_at != due.expires_at:  # it was renewed, and comes in its turn
            continue
        if due.lease in spared:
            swept_until = min(swept_until, Micros(due.expires_at - 1))
            continue
        effect = rules.end_hold(
            pool_batch.head.balance, row.state, LeasePhase.EXPIRED, lease_id=due.lease
        )
        try:
            pool_batch.post(carried(EntryKind.EXPIRY, effect, row))
        except JournalDamagedError:  # above: that must not keep anybody from working here
            swept_until = min(swept_until, Micros(due.expires_at - 1))
        else:
            pool_batch.expired += 1
    pool_batch.sweep(swept_until)


def expire_spared(pool_batch: PoolBatch) -> None:
    """Stage the expiry of leases that were spared, if a pool then holds nothing any more.

    They are due, and operations behind this one are about them: what those record comes late.
    """
    pool_id = pool_batch.pool.info.pool_id
    due: list[tuple[PoolBatch, list[LeaseState]]] = []
    for one in pool_batch.batch.pools.values():
        if any(pool.info.pool_id == pool_id for pool in one.pool.lineage):
            own = [row.state for row in one.leases.values() if row.origin_pool_id is None]
            due.append((one, [state for state in own if rules.due(state, one.now)]))
    held = sum(state.held.requests for _, states in due for state in states)
    if held < pool_batch.head.balance.reserved.requests:
        return
    for one, states in due:
        found = [Ending(state.lease, Micros(state.expires_at or 0)) for state in states]
        expire(one, found, spared=(), until=one.head.swept_until)
