"""Release and abandon: end a lease without a record of its usage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ledger.core import hashing, rules
from ledger.core.checks import I64_MAX
from ledger.core.entries import PoolInfo
from ledger.core.kinds import EntryKind
from ledger.core.policy import SettlementPolicy
from ledger.core.usage_reports import Fitted, UsageReport, fit
from ledger.core.values import BudgetLease, UsageEstimate
from ledger.engine.assumed_charges import make_room
from ledger.engine.batch import Batch
from ledger.engine.operations.base import (
    NO_REPORT,
    LeaseOperation,
    keyed,
    reported,
)
from ledger.engine.pool_batch import PoolBatch
from ledger.store.amounts import ESTIMATE
from ledger.store.drafts import Draft, about_lease, amounts
from ledger.store.rows import Row

_NAMED = ("provider", "model", "request_id")
"""The fields of a report that name a call whose usage is not known."""


@dataclass(slots=True, kw_only=True)
class Release(LeaseOperation[None]):
    """End an unused lease; what it still holds goes back to the pool."""

    comes_late: ClassVar[bool] = True

    @classmethod
    def of(cls, lease: BudgetLease, idempotency_key: str | None) -> Release:
        """Return the operation a call asks for.

        Raises:
            InvalidInputError: The key is empty or too long.
        """
        return cls(lease=lease.id, proof=lease.proof, **keyed(idempotency_key))

    def arguments(self) -> Sequence[hashing.Value]:
        """Return the lease."""
        return ("release", self.lease)

    def decide(self, batch: Batch, pool: PoolBatch) -> Draft:
        """Return the release: the hold, or what the expiry assumed, goes back."""
        pool.require_granted(self.lease, self.proof)
        state = make_room(batch, pool, self.lease, EntryKind.RELEASE)
        effect = rules.release(pool.head.balance, state, lease_id=self.lease)
        return about_lease(
            EntryKind.RELEASE,
            effect,
            pool.leases[self.lease],
            idempotency_key=self.key,
            payload_digest=self.kept_digest(),
        )

    def answer(self, row: Row, pool: PoolInfo) -> None:
        """Return None: the lease is closed."""


@dataclass(slots=True, kw_only=True)
class Abandon(Release):
    """End a lease without a record of its usage, as the pool's settlement policy says."""

    comes_late: ClassVar[bool] = False

    estimate: UsageEstimate | None = None
    """The most that the call may have used, by what the caller knows now."""
    report: Fitted = NO_REPORT
    """The known facts of the call: the model that answered, and the provider's id."""

    @classmethod
    def by_policy(
        cls, lease: BudgetLease, estimate: UsageEstimate | None, report: UsageReport | None
    ) -> Abandon:
        """Return the operation a call asks for.

        Raises:
            AmountOutOfRangeError: An amount is above 2^63-1, the most that a store holds.
        """
        if estimate is not None:
            ESTIMATE.check_storable("estimate", estimate)
        known = NO_REPORT
        if report is not None:
            named = {name: getattr(report, name) for name in _NAMED}
            known = fit(UsageReport(**named))
        return cls(lease=lease.id, proof=lease.proof, estimate=estimate, report=known)

    def arguments(self) -> Sequence[hashing.Value]:
        """Return the lease, and the estimate and the known facts, if given."""
        known = () if self.estimate is None else ESTIMATE.values(self.estimate)
        report = () if self.report is NO_REPORT else [getattr(self.report, one) for one in _NAMED]
        return ("close", self.lease, *known, *report)

    def decide(self, batch: Batch, pool: PoolBatch) -> Draft:
        """Return a settlement with the usage that the policy assumes, or a release."""
        pool.require_granted(self.lease, self.proof)
        policy, state = pool.head.policy.settlement, pool.state(self.lease)
        effect, assumed = rules.abandon(
            policy,
            pool.head.balance,
            state,
            lease_id=self.lease,
            ceiling=I64_MAX,
            estimate=self.estimate,
        )
        detail: dict[str, Any] = {"settlement": str(policy)}
        if policy is SettlementPolicy.ESTIMATED and state is not None:
            known = rules.restated(state, self.estimate, ceiling=I64_MAX)
            if known != state.estimate:
                detail["estimate"] = amounts(known)
        kind = EntryKind.RELEASE if assumed is None else EntryKind.SETTLEMENT
        usage = None if assumed is None else assumed.usage
        flags = effect.flags | pool.dating_flag(effect, usage)
        found = pool.leases[self.lease]
        if self.report is not NO_REPORT and usage is not None:
            found = found._replace(
                attribution=reported(self.report, pool, found.attribution),
                request_id=self.report.request_id or found.request_id,
            )
        return about_lease(
            kind,
            effect._replace(flags=flags),
            found,
            usage=usage,
            provenance=None if assumed is None else assumed.provenance,
            detail=detail,
            idempotency_key=self.key,
            payload_digest=self.kept_digest(),
        )
