"""Close a pool: it takes settlements and releases, and no new leases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.core import hashing
from ledger.core.checks import REASON_MAX_CHARS, check_text
from ledger.core.entries import Actor, EntryFlag, PoolInfo
from ledger.core.errors import OpenLeasesError
from ledger.core.kinds import EntryKind
from ledger.engine.batch import Batch
from ledger.engine.expiry import expire_spared, spared
from ledger.engine.operations.base import Operation, keyed
from ledger.engine.pool_batch import PoolBatch
from ledger.store import actors
from ledger.store.drafts import Draft
from ledger.store.rows import Row


@dataclass(slots=True, kw_only=True)
class ClosePool(Operation[None]):
    """Close the pool for good."""

    reason: str | None
    actor: Actor

    @classmethod
    def of(cls, reason: str | None, idempotency_key: str | None, actor: str | None) -> ClosePool:
        """Return the operation a call asks for.

        Raises:
            InvalidInputError: The reason, the key or the actor is empty or too long.
        """
        if reason is not None:
            check_text("reason", reason, max_chars=REASON_MAX_CHARS)
        return cls(reason=reason, actor=actors.named(actor), **keyed(idempotency_key))

    def arguments(self) -> Sequence[hashing.Value]:
        """Return the reason."""
        return ("close pool", self.reason)

    def decide(self, batch: Batch, pool: PoolBatch) -> Draft:
        """Return the closing; `Batch.post` settles the lease that funds a carved pool with it."""
        pool.require_open()
        detail = actors.detail(pool.connection, self.actor, self.name, self.reason)
        if pool.info.carved_lease is not None and pool.head.balance.reserved.requests:
            batch.require_swept(pool)
            found = spared(batch, pool)
            open_leases = pool.head.balance.reserved.requests
            if found.due.held.requests < open_leases:
                raise OpenLeasesError(pool.info.name, open_leases=open_leases)
            expire_spared(batch, found)
        return Draft(
            kind=EntryKind.CLOSING,
            balance=pool.head.balance,
            flags=EntryFlag.CLOSED,
            detail=detail,
            idempotency_key=self.key,
            payload_digest=self.kept_digest(),
        )

    def answer(self, row: Row, pool: PoolInfo) -> None:
        """Return None: the pool is closed."""
