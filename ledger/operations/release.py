"""Release: close a lease unused; what it held goes back to the pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger import proof, rules
from ledger.model import BudgetLease
from ledger.operations.base import Desk, Operation, keyed
from ledger.records import EntryKind, LeasePhase, PoolInfo
from ledger.rows import Draft, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(Operation[None]):
    """Close a lease unused."""

    lease: int

    @classmethod
    def of(cls, lease: BudgetLease, idempotency_key: str | None) -> Release:
        """Return the operation a call asks for.

        Raises:
            InvalidInputError: The key is empty or too long.
        """
        return cls(lease=lease.id, **keyed(idempotency_key))

    @property
    def lease_id(self) -> int:
        """The lease to be closed."""
        return self.lease

    def arguments(self) -> Sequence[proof.Value]:
        """Return the lease."""
        return ("release", self.lease)

    def decide(self, desk: Desk) -> Draft:
        """Return the release: the hold goes back, and nothing is committed."""
        found = desk.leases.get(self.lease)
        balance, lease, flags = rules.end_hold(
            desk.head.balance,
            None if found is None else found.state,
            LeasePhase.ENDED,
            lease_id=self.lease,
        )
        assert found is not None  # noqa: S101 - rules.end_hold refuses a lease that is not there
        return Draft(
            kind=EntryKind.RELEASE,
            balance=balance,
            lease=lease,
            flags=flags,
            estimate=lease.estimate,
            request_budget=lease.request_budget,
            attribution=found.attribution,
            request_id=found.request_id,
            occurred_at=found.occurred_at,
            idempotency_key=self.key,
            payload_digest=self.payload_digest(),
        )

    def answer(self, row: Row, pool: PoolInfo) -> None:
        """Answer nothing: the lease is closed."""
