"""Record the usage of a lost lease: the call was made, but this store does not have its lease."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ledger.core import hashing
from ledger.core.arguments import not_lost
from ledger.core.entries import PoolInfo
from ledger.core.errors import UnknownLeaseError
from ledger.core.extensions import Attribution, RequestExtensions
from ledger.core.tokens import lost_key
from ledger.core.usage_reports import UsageReport
from ledger.core.values import NOTHING_USED, BudgetLease, Usage, UsageEstimate
from ledger.engine.batch import Batch
from ledger.engine.operations.base import Operation
from ledger.engine.operations.record import Record
from ledger.engine.operations.release import Abandon
from ledger.engine.operations.reserve import Reserve
from ledger.engine.pool_batch import PoolBatch
from ledger.store.drafts import Draft
from ledger.store.keys import new_key
from ledger.store.pools import find_above
from ledger.store.rows import Row
from ledger.store.schema import pools


@dataclass(slots=True, kw_only=True)
class RecordLost(Operation[None]):
    """Commit usage after a reservation that holds nothing and is never refused.

    The lease's token is the idempotency key, so the usage is committed once.
    """

    lost: BudgetLease
    """The lost lease; its pool is None if only its token is known."""
    reserve: Reserve
    """The reservation in its place, which holds nothing and has the call's attribution."""
    record: Record
    abandon: Abandon | None
    """The operation that ends it if more may have been used than is recorded; None if not."""

    @classmethod
    def of(
        cls,
        lease: BudgetLease,
        usage: Usage,
        estimate: UsageEstimate | None,
        attribution: Attribution | None,
        report: UsageReport | None,
    ) -> RecordLost:
        """Return the operation a call asks for.

        Raises:
            AmountOutOfRangeError: An amount is above 2^63-1, the most that a store holds.
        """
        asked = RequestExtensions() if attribution is None else RequestExtensions(attribution)
        nothing = UsageEstimate.zero()
        return cls(
            key=lost_key(lease.token),
            key_given=True,
            lost=lease,
            reserve=Reserve.of(asked, nothing, lease.request_budget, keep_denial=False),
            record=Record.of(lease, usage, report, closes=estimate is None),
            abandon=None if estimate is None else Abandon.by_policy(lease, estimate, report),
        )

    @property
    def lease_id(self) -> int:
        """The number of the lost lease, which may be the number of another call's lease by now."""
        return self.lost.id

    @property
    def asked(self) -> Attribution:
        """The call's attribution."""
        content = self.reserve.attribution
        whom = Attribution() if content is None else hashing.attribution_of(content)
        return replace(whom, request_id=self.reserve.request_id)

    @property
    def attributed(self) -> str | None:
        """The content of the call's attribution."""
        return self.reserve.attribution

    def arguments(self) -> Sequence[hashing.Value]:
        """Return the lease, usage, report and attribution, and the arguments of the end, if any."""
        asked, spent = self.reserve, self.record.arguments()
        rest = () if self.abandon is None else self.abandon.arguments()
        return ("lost", self.lost.token, *spent, asked.attribution, asked.request_id, *rest)

    def decide(self, batch: Batch, pool: PoolBatch) -> Draft:
        """Return the call's last entry; its reservation and partial usage are staged before.

        Raises:
            InvalidInputError: The lease is not lost.
            UnknownLeaseError: Another pool of this store granted it.
        """
        self._check_lost(batch, pool)
        _require_settled(batch, pool)
        granted = self.reserve.granted(pool)._replace(
            detail={"lost": self.lost.token},
            # Nothing else is known of when it was asked for, so it gets the time of its usage.
            occurred_at=self.record.report.by(batch.now).occurred_at,
        )
        lease_id = batch.post(pool, granted)["seq"]
        # The report's key is not used: the lease's token is this call's key.
        recorded = replace(self.record, lease=lease_id, proof=None, key=new_key(), key_given=False)
        ends: Record | Abandon = recorded
        if self.abandon is not None:
            if recorded.usage != NOTHING_USED:
                batch.post(pool, recorded.decide(batch, pool))
            ends = replace(self.abandon, lease=lease_id, proof=None)
        ended = ends.decide(batch, pool)
        return ended._replace(idempotency_key=self.key, payload_digest=self.payload_digest())

    def answer(self, row: Row, pool: PoolInfo) -> None:
        """Raise if all usage, though recorded, is over the request's own budget."""
        if self.abandon is None:
            self.record.answer(row, pool)

    def _check_lost(self, batch: Batch, pool: PoolBatch) -> None:
        granted_in = self.lost.pool
        if granted_in is None or granted_in == pool.info.identity:
            found = pool.leases.get(self.lost.id)
            if self.lost.proof and found is not None and found.is_proved(self.lost.proof):
                raise not_lost(self.lost)
        elif find_above(batch.connection, pools.c.identity, [granted_in.bytes]):
            raise UnknownLeaseError(self.lost.id, "elsewhere")


def _require_settled(batch: Batch, pool: PoolBatch) -> None:
    """Make sure, before usage of a closed pool is staged, that the funding pool can record it.

    Raises:
        MorePoolsError: The transaction has not begun on that pool.
        UnsweptError: Leases of that pool must expire first.
    """
    top = batch.lineage(pool)[-1]
    funder = top.journal.parent
    if top.head.closed and top.info.carved_lease is not None and funder is not None:
        batch.require_rolled_over(batch.pool(funder.info.pool_id))
