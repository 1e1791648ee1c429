"""Assumed charges: they are corrected, and taken back when usage arrives late."""

from __future__ import annotations

from ledger.core import rules
from ledger.core.checks import I64_MAX
from ledger.core.entries import EntryFlag, LeaseState, Totals, requests_made
from ledger.core.kinds import EntryKind, LeasePhase
from ledger.core.values import Usage, UsageDifference
from ledger.engine.batch import Batch
from ledger.engine.pool_batch import PoolBatch
from ledger.store.corrections import Spending
from ledger.store.drafts import Draft, about_lease, amounts
from ledger.store.heads import LeaseRow

_EXPIRED = LeasePhase.EXPIRED  # looking up an enum's member is a function call before Python 3.12


def correction(
    found: Spending, after: Usage, effect: rules.Effect, lease: LeaseRow, reason: str
) -> Draft:
    """Return the correction of an entry, which has the entry's attribution and time.

    On limits and credits the correction counts at the time of the entry.

    Args:
        found: The entry, with its usage after earlier corrections.
        after: The usage that it should have.
        effect: What the correction does.
        lease: The lease that the entry is about.
        reason: Why.
    """
    corrected = found.row
    dated = EntryFlag(corrected["flags"]) & EntryFlag.AT_EXPIRY
    if dated:
        state = effect.lease._replace(expires_at=corrected["expires_at"])
        effect = effect._replace(lease=state, flags=effect.flags | dated)
    return about_lease(EntryKind.CORRECTION, effect, lease)._replace(
        usage=UsageDifference.between(found.usage, after),
        attribution=found.attribution,
        request_id=corrected["request_id"],
        provenance=corrected["provenance"],
        # A correction belongs to the time of the call, not to the time of the invoice.
        occurred_at=(
            corrected["recorded_at"]
            if corrected["occurred_at"] is None
            else corrected["occurred_at"]
        ),
        detail={
            "corrects": corrected["seq"],
            "from": amounts(found.usage),
            "to": amounts(after),
            "reason": reason,
        },
    )


def make_room(
    batch: Batch, pool: PoolBatch, lease_id: int, kind: EntryKind, usage: Usage | None = None
) -> LeaseState | None:
    """Stage the correction that takes back an assumed charge, before an entry replaces that.

    Return the lease after it, None if the pool did not grant the lease.

    Nothing is staged unless the lease has expired and its expiry was charged. The caller stages the
    entry next, and has made sure that nothing can refuse it.

    Args:
        batch: The transaction.
        pool: The pool that granted the lease.
        lease_id: The lease.
        kind: The kind of the entry that follows.
        usage: Its usage.

    Raises:
        JournalDamagedError: The expiry, or a pool above, cannot be read.
        MorePoolsError: The transaction has not begun on a pool that repeats the entry.
        UnsweptError: Leases of one of them must expire first.
    """
    state = pool.state(lease_id)
    if state is None or state.phase is not _EXPIRED:
        return state
    found = pool.assumed(lease_id)
    if found is None:
        return state
    effect = rules.make_room(
        pool.head.balance,
        state,
        found.usage,
        kind,
        usage,
        seq=found.row["seq"],
        ceiling=I64_MAX,
    )
    if effect is not None:
        after = rules.still_assumed(found.usage, kind, usage)
        lease = pool.leases[lease_id]
        draft = correction(found, after, effect, lease, f"{kind} after the expiry")
        replaced = Totals.of(usage or Usage.zero(), requests=requests_made(kind, None))
        late = draft._replace(detail={**(draft.detail or {}), "late": str(kind)})
        batch.post(pool, late, replaced)
    return pool.state(lease_id)
