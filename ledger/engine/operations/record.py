"""Record the usage of a lease: a part of it, or the last part, which closes the lease."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ledger.core import hashing, rules
from ledger.core.checks import I64_MAX, canonical_json
from ledger.core.entries import EntryFlag, PoolInfo, make
from ledger.core.kinds import EntryKind
from ledger.core.usage_reports import Fitted, UsageReport, fit
from ledger.core.values import (
    BudgetLease,
    Provenance,
    Usage,
)
from ledger.engine.assumed_charges import make_room
from ledger.engine.batch import Batch
from ledger.engine.operations.base import (
    NO_REPORT,
    UNKEYED,
    LeaseOperation,
    keyed,
    reported,
)
from ledger.engine.pool_batch import PoolBatch
from ledger.store.amounts import BUDGET, USAGE
from ledger.store.drafts import Draft
from ledger.store.rows import Row, request_budget_of, used_of

# Before Python 3.12, looking up an enum's member is a function call.
_REPORTED = str(Provenance.REPORTED)  # a driver looks for an adapter of another class
_SETTLEMENT = EntryKind.SETTLEMENT
_OBSERVATION = EntryKind.OBSERVATION


@dataclass(slots=True, kw_only=True)
class Record(LeaseOperation[None]):
    """Record usage of a lease. `closes` says that it is the last part."""

    comes_late: ClassVar[bool] = True

    usage: Usage
    report: Fitted
    closes: bool

    @classmethod
    def of(
        cls, lease: BudgetLease, usage: Usage, report: UsageReport | None, *, closes: bool
    ) -> Record:
        """Return the operation a call asks for.

        Raises:
            AmountOutOfRangeError: An amount is above 2^63-1, the most that a store holds.
        """
        USAGE.check_storable("usage", usage)
        # Copies, since the caller may change the report's mappings later.
        fitted = NO_REPORT if report is None else fit(report)
        return cls(
            lease=lease.id,
            proof=lease.proof,
            usage=usage,
            report=fitted,
            closes=closes,
            **(UNKEYED if report is None else keyed(fitted.idempotency_key, spent=True)),
        )

    def arguments(self) -> Sequence[hashing.Value]:
        """Return the lease, the usage and the report."""
        name = "settle" if self.closes else "observe"
        return arguments_of(name, self.lease, USAGE.values(self.usage), self.report)

    def decide(self, batch: Batch, pool: PoolBatch) -> Draft:
        """Return the settlement or observation. The usage is committed, whatever it is.

        It replaces what was assumed if the lease expired.
        """
        found = pool.require_granted(self.lease, self.proof)
        attribution = None if found is None else found.attribution
        report, detail = self.report, None
        if report is not NO_REPORT:
            report = report.by(batch.now)
            detail = _detail_of(report)
            if found is not None:
                attribution = reported(report, pool, attribution)
        kind = _SETTLEMENT if self.closes else _OBSERVATION
        state = make_room(batch, pool, self.lease, kind, self.usage)
        spend = rules.settle if self.closes else rules.observe
        effect = balance, lease, flags = spend(
            pool.head.balance, state, self.usage, lease_id=self.lease, ceiling=I64_MAX
        )
        assert found is not None  # noqa: S101 - the rules refuse what is no lease here
        if lease.expires_at is not None:
            flags |= pool.dating_flag(effect, self.usage)
        if report.shortened:
            flags |= EntryFlag.SHORTENED
        request_id, provenance = report.request_id or found.request_id, report.provenance
        occurred_at = found.occurred_at if report.occurred_at is None else report.occurred_at
        digest = self.payload_digest() if self.key_given else None
        # fmt: off
        return make(Draft, (  # all of its fields in order
            kind, balance, flags, detail, None, None, lease.request_budget, self.usage, lease,
            attribution, request_id, provenance or _REPORTED, occurred_at, self.key, digest, None,
            None,
        ))
        # fmt: on

    def answer(self, row: Row, pool: PoolInfo) -> None:
        """Raise if the lease's recorded usage is over the request's own budget."""
        if BUDGET.absent_in(row):
            return  # most calls have no request budget, and need no values built
        excess = rules.over_request_budget(request_budget_of(row), used_of(row))
        if excess is not None:
            raise excess


def arguments_of(
    name: str, lease: int, usage: Sequence[int | None], report: Fitted
) -> Sequence[hashing.Value]:
    """Return the arguments of a recording, as values to be digested."""
    return (
        name,
        lease,
        *usage,
        report.provider,
        report.model,
        report.request_id,
        report.provenance,
        report.occurred_at,
        None if report.tags is None else canonical_json(report.tags),
        None if report.detail is None else report.detail.text,
    )


def _detail_of(report: Fitted) -> dict[str, Any] | None:
    detail: dict[str, Any] = {} if report.detail is None else {"report": report.detail}
    if report.shortened:
        detail["shortened"] = list(report.shortened)
    return detail or None
