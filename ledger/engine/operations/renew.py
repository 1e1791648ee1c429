"""Renew: extend the time for which a lease holds its reservation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ledger.core import hashing, rules
from ledger.core.checks import Micros, from_micros
from ledger.core.entries import PoolInfo
from ledger.core.kinds import EntryKind
from ledger.core.policy import check_ttl
from ledger.core.values import BudgetLease
from ledger.engine.batch import Batch
from ledger.engine.operations.base import LeaseOperation, keyed
from ledger.engine.pool_batch import PoolBatch
from ledger.store.drafts import Draft, about_lease
from ledger.store.rows import Row


@dataclass(slots=True, kw_only=True)
class Renew(LeaseOperation[datetime]):
    """Extend a lease's hold to `ttl_us` microseconds from now."""

    ttl_us: int

    @classmethod
    def of(cls, lease: BudgetLease, ttl: timedelta, idempotency_key: str | None) -> Renew:
        """Return the operation a call asks for.

        Raises:
            InvalidInputError: The time is not above 0 and at most ten years, or the key is empty
                or too long.
        """
        return cls(
            lease=lease.id,
            proof=lease.proof,
            ttl_us=check_ttl("ttl", ttl),
            **keyed(idempotency_key),
        )

    def arguments(self) -> Sequence[hashing.Value]:
        """Return the lease and the time."""
        return ("renew", self.lease, self.ttl_us)

    def decide(self, batch: Batch, pool: PoolBatch) -> Draft:
        """Return the renewal, counted from when it is recorded.

        Raises:
            UnknownLeaseError: There is no such lease, or its hold has ended.
            PoolClosedError: The pool, or one above it, is closed.
        """
        pool.require_granted(self.lease, self.proof)
        for one in batch.lineage(pool):  # pools above mirror it, and a closed pool takes no renewal
            one.require_open()
        effect = rules.renew(
            pool.head.balance,
            pool.state(self.lease),
            Micros(pool.at + self.ttl_us),
            lease_id=self.lease,
        )
        return about_lease(
            EntryKind.RENEWAL,
            effect,
            pool.leases[self.lease],
            idempotency_key=self.key,
            payload_digest=self.kept_digest(),
        )

    def answer(self, row: Row, pool: PoolInfo) -> datetime:
        """Return when the hold ends."""
        return from_micros(row["expires_at"])
