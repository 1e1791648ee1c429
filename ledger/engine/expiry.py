"""End the holds of leases whose time is over, in bounded steps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from ledger.core import rules
from ledger.core.checks import Micros
from ledger.core.entries import LeaseState, Totals
from ledger.core.kinds import EntryKind, LeasePhase
from ledger.engine.batch import Batch
from ledger.engine.pool_batch import PoolBatch
from ledger.errors import JournalDamagedError
from ledger.store import journal
from ledger.store.drafts import about_lease
from ledger.store.journal import Ending


def expire(
    batch: Batch,
    pool: PoolBatch,
    found: Sequence[Ending],
    *,
    spared: Collection[int],
    until: Micros,
) -> None:
    """Stage the expiry of due leases, and note how far the pool is swept.

    A pool is swept up to a time when no lease that was due until then still holds anything. The
    next sweep goes on from there, and so none looks at the history.

    Args:
        batch: The transaction.
        pool: The pool, to which these leases were read.
        found: The next leases whose time is over, by when it was.
        spared: Those that an operation of the same batch is about: it comes first.
        until: The time at which they were looked for, or now where the clock went back since.
    """
    swept_until = until
    stays = 0
    more = len(found) == journal.ENDING_PAGE
    if more:  # some of them of the same microsecond, perhaps
        swept_until = Micros(min(until, found[-1].expires_at - 1))
    for due in found:
        row = pool.leases.get(due.lease)
        if row is None or not rules.due(row.state, pool.now):
            continue
        if row.state.expires_at != due.expires_at:  # it was renewed, and comes in its turn
            continue
        if due.lease in spared:
            swept_until = min(swept_until, Micros(due.expires_at - 1))
            stays += 1
            continue
        effect = rules.end_hold(
            pool.head.balance, row.state, LeasePhase.EXPIRED, lease_id=due.lease
        )
        try:
            batch.post(pool, about_lease(EntryKind.EXPIRY, effect, row))
        except JournalDamagedError:  # above: that must not keep anybody from working here
            swept_until = min(swept_until, Micros(due.expires_at - 1))
            stays += 1
        else:
            pool.expired += 1
    pool.unswept |= more and stays < len(found)  # else the next one would get no further
    pool.note_swept(swept_until)


class Spared(NamedTuple):
    """Leases that are due, and were spared because operations of the same batch are about them."""

    due: list[tuple[PoolBatch, list[LeaseState]]]
    held: Totals
    """What they hold together."""


def spared(batch: Batch, pool: PoolBatch) -> Spared:
    """Return the leases that were spared and still hold some of a pool's capacity."""
    due: list[tuple[PoolBatch, list[LeaseState]]] = []
    held = Totals()
    for one in batch.sharing(pool):
        own = [row.state for row in one.leases.values() if row.origin_pool_id is None]
        states = [state for state in own if rules.due(state, one.now)]
        for state in states:
            held = held.plus(state.held)
        due.append((one, states))
    return Spared(due, held)


def expire_spared(batch: Batch, found: Spared) -> None:
    """Stage the expiry of leases that were spared: what later operations record comes late."""
    for pool, states in found.due:
        ending = [Ending(state.lease, Micros(state.expires_at or 0)) for state in states]
        expire(batch, pool, ending, spared=(), until=pool.head.swept_until)
