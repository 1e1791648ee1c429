"""Mirrors: how an entry about a lease is repeated in the pools above that share capacity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ledger.core import hashing, rules
from ledger.core.checks import I64_MAX
from ledger.core.entries import (
    REPEATED_FLAGS,
    EntryFlag,
    LeaseState,
    funds_pool,
    requests_made,
    requests_of,
)
from ledger.core.kinds import EntryKind, LeasePhase
from ledger.core.values import Usage
from ledger.engine.pool_batch import PoolBatch
from ledger.store import corrections
from ledger.store.drafts import Draft
from ledger.store.heads import Interned
from ledger.store.journal import PoolJournal


def mirror_of(pool: PoolBatch, draft: Draft, below: PoolJournal) -> Draft:
    """Return a pool's mirror of an entry about a lease that a pool below granted.

    Raises:
        AmountOutOfRangeError: The total reserved here would exceed 2^63-1.
        JournalDamagedError: This pool's mirror of the lease cannot be read.
    """
    assert draft.lease is not None  # noqa: S101 - the caller asks for no other
    granted = below.info.pool_id, draft.lease.lease
    captured, detail = None, draft.detail
    if draft.kind is EntryKind.RESERVATION:
        effect = rules.reserve(
            pool.head.balance,
            lease_id=pool.head.seq + 1,
            estimate=draft.lease.estimate,
            request_budget=draft.lease.request_budget,
            ceiling=I64_MAX,
            expires_at=draft.lease.expires_at,
            requests=requests_of(detail),
        )
        pool.mirrors[granted] = effect.lease.lease
    elif draft.kind is EntryKind.IMPORT:
        assert isinstance(draft.usage, Usage)  # noqa: S101 - an import has usage
        effect = rules.record_import(
            pool.head.balance, draft.usage, lease_id=pool.head.seq + 1, ceiling=I64_MAX
        )
    else:
        found = pool.mirrored(*granted)
        captured = found.attribution
        if detail is not None and draft.kind is EntryKind.CORRECTION:
            origin = below.info.pool_id, detail["corrects"]
            here = pool.connection, pool.journal
            own = corrections.mirror_of(*here, origin, staged=pool.staged)
            detail = {**detail, "corrects": own}
        effect = _follow(pool, draft, found.state, detail)
    balance, lease, flags = effect
    if draft.flags:
        flags |= draft.flags & REPEATED_FLAGS
        if flags & EntryFlag.AT_EXPIRY:
            lease = lease._replace(expires_at=draft.lease.expires_at)
    return draft._replace(
        balance=balance,
        lease=lease,
        flags=flags,
        detail=detail,
        attribution=_own(pool, draft.attribution, captured),
        idempotency_key=None,
        payload_digest=None,
    )


def _follow(
    pool: PoolBatch, draft: Draft, lease: LeaseState, detail: Mapping[str, Any] | None
) -> rules.Effect:
    """Return the effect of a lower pool's entry on this balance and on the mirror of its lease."""
    assert draft.lease is not None  # noqa: S101 - the entry is about a lease
    if detail is not None and draft.kind is EntryKind.CORRECTION:
        return rules.correct(
            pool.head.balance,
            lease,
            Usage(**detail["from"]),
            Usage(**detail["to"]),
            seq=detail["corrects"],
            ceiling=I64_MAX,
            requests=requests_made(draft.kind, detail),
            of_expiry=lease.phase is LeasePhase.EXPIRED,
            of_import=bool(draft.flags & EntryFlag.IMPORTED),
            funds=funds_pool(detail),
        )
    return rules.follow(
        draft.kind,
        pool.head.balance,
        lease,
        draft.usage if isinstance(draft.usage, Usage) else None,
        lease_id=lease.lease,
        expires_at=draft.lease.expires_at,
        ceiling=I64_MAX,
        requests=requests_of(detail),
        funds=funds_pool(detail),
    )


def _own(
    pool: PoolBatch, attribution: Interned | None, captured: Interned | None
) -> Interned | None:
    """Return the attribution of a lower pool's entry as it is stored in this pool.

    If it was redacted there, the attribution of this pool's mirror of the lease is taken.
    """
    if attribution is None:
        return None
    if attribution.value is None:
        return captured
    return pool.intern(hashing.attribution_content(attribution.value))
