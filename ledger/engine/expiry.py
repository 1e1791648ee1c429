"""Expiry: end the holds of leases that are due, a bounded number in each transaction.

What such a lease used is not known. The pool's settlement policy says what is charged for it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from ledger.core import rules
from ledger.core.checks import I64_MAX, Micros
from ledger.core.entries import LeaseState
from ledger.core.kinds import EntryKind
from ledger.engine.batch import Batch
from ledger.engine.pool_batch import PoolBatch
from ledger.errors import JournalDamagedError
from ledger.store import journal
from ledger.store.drafts import Draft, about_lease
from ledger.store.rows import LeaseRow
from ledger.store.snapshot import Ending


def expire(
    batch: Batch,
    pool: PoolBatch,
    found: Sequence[Ending],
    *,
    spared: Collection[int],
    until: Micros,
) -> None:
    """Stage the expiry of due leases, and note how far the pool is swept.

    A pool is swept up to a time if no lease that was due by then still holds anything. The next
    sweep begins at that time, so no sweep reads the whole history.

    Args:
        batch: The transaction.
        pool: The pool; these leases have been read into it.
        found: The next leases that are due, ordered by when they were due.
        spared: Leases that an operation of the same batch is about: the operation comes first.
        until: When they were looked for, or the current time if the clock was put back since.
    """
    swept_until = until
    stays = 0
    more = len(found) == journal.ENDING_PAGE
    if more:  # the next one may be due in the same microsecond as the last
        swept_until = Micros(min(until, found[-1].expires_at - 1))
    for due in found:
        row = pool.leases.get(due.lease)
        if row is None or not rules.due(row.state, pool.now):
            continue
        if row.state.expires_at != due.expires_at:  # it was renewed, and is due at another time
            continue
        if due.lease in spared:
            swept_until = min(swept_until, Micros(due.expires_at - 1))
            stays += 1
            continue
        try:
            batch.post(pool, _expiry(pool, row))
        except JournalDamagedError:  # in a pool above; this pool must go on working
            swept_until = min(swept_until, Micros(due.expires_at - 1))
            stays += 1
        else:
            pool.expired += 1
    pool.unswept |= more and stays < len(found)  # else the next one would get no further
    pool.note_swept(swept_until)


def _expiry(pool: PoolBatch, row: LeaseRow) -> Draft:
    """Return the expiry of a lease, charged as the pool's settlement policy says."""
    policy, state = pool.head.policy.settlement, row.state
    assumed = rules.assumed(policy, state)
    usage = None if assumed is None else assumed.usage
    effect = rules.expire(
        pool.head.balance,
        state,
        usage,
        lease_id=state.lease,
        ceiling=I64_MAX,
    )
    return about_lease(EntryKind.EXPIRY, effect, row)._replace(
        flags=effect.flags | pool.dating_flag(effect, usage),
        usage=usage,
        provenance=None if assumed is None else assumed.provenance,
        detail={"settlement": str(policy)},
    )


class Spared(NamedTuple):
    """Due leases that were not expired because operations of the same batch are about them."""

    leases: list[tuple[PoolBatch, list[LeaseState]]]
    due: rules.Due
    """What they come to together."""


def spared(batch: Batch, pool: PoolBatch) -> Spared:
    """Return the spared leases that still hold some of a pool's capacity."""
    leases: list[tuple[PoolBatch, list[LeaseState]]] = []
    due = rules.Due()
    for one in batch.sharing(pool):
        own = [row.state for row in one.leases.values() if row.origin_pool_id is None]
        states = [state for state in own if rules.due(state, one.now)]
        holds = [(Micros(state.expires_at or 0), state.held) for state in states]
        head = one.head
        due = due.plus(rules.overdue(head.rules_version, head.policy.settlement, holds))
        leases.append((one, states))
    return Spared(leases, due)


def expire_spared(batch: Batch, found: Spared) -> None:
    """Stage the expiry of spared leases; usage that later operations record for them is late."""
    for pool, states in found.leases:
        ending = [Ending(state.lease, Micros(state.expires_at or 0)) for state in states]
        expire(batch, pool, ending, spared=(), until=pool.head.swept_until or Micros(0))
