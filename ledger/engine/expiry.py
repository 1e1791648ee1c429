"""Expiry: ends the holds of due leases, a bounded number in each transaction.

The usage of such a lease is not known. The pool's settlement policy says what is charged.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ledger.core import rules
from ledger.core.checks import I64_MAX, Micros
from ledger.core.entries import LeaseState
from ledger.core.errors import JournalDamagedError
from ledger.core.kinds import EntryKind
from ledger.engine.batch import Batch
from ledger.engine.pool_batch import PoolBatch
from ledger.store.drafts import Draft, about_lease
from ledger.store.heads import LeaseRow
from ledger.store.snapshot import Ending


def expire(
    batch: Batch, pool: PoolBatch, *, spared: Collection[int], before: Micros | None = None
) -> None:
    """Stage the expiry of due leases. Those that cannot expire now are left for later.

    Args:
        batch: The transaction.
        pool: The pool; these leases have been read into it.
        spared: Leases that an operation of the same batch is about; the operation comes first.
        before: Only those expire whose holds ended before this time.
    """
    pending = []
    for due in pool.pending:
        row = pool.leases.get(due.lease)
        if row is None or not rules.due(row.state, pool.now):
            continue
        if row.state.expires_at != due.expires_at:  # it was renewed, and is due at another time
            continue
        if due.lease in spared or (before is not None and due.expires_at >= before):
            pending.append(due)
            continue
        try:
            batch.post(pool, _expiry(pool, row))
        except JournalDamagedError:  # damaged in a pool above; this pool must go on working
            pending.append(due)
        else:
            pool.expired += 1
    pool.pending = pending


def note_swept(pool: PoolBatch, *, until: Micros) -> None:
    """Note until when a pool is swept: no lease that was due by then still holds anything.

    The next sweep begins at that time, so no sweep reads the whole history.

    Args:
        pool: The pool.
        until: The time of the search for its due leases, or the current time if the clock was put
            back since.
    """
    ends = [Micros(one.expires_at - 1) for one in pool.pending]
    if pool.reads_more:  # another lease may be due in the same microsecond as the last
        ends.append(Micros(pool.due[-1].expires_at - 1))
    pool.unswept |= pool.reads_more and len(pool.pending) < len(pool.due)
    pool.note_swept(min([until, *ends]))  # else the next sweep would get no further


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
    """The sums of these leases."""


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
    """Stage the expiry of spared leases. Usage that later operations record for them is late."""
    for pool, states in found.leases:
        pool.pending = [Ending(state.lease, Micros(state.expires_at or 0)) for state in states]
        expire(batch, pool, spared=())
