"""Import: record a call of the past that this store does not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.core import hashing, rules
from ledger.core.checks import I64_MAX, Micros, check_not_ahead
from ledger.core.entries import Actor, PoolInfo
from ledger.core.kinds import EntryKind
from ledger.core.past_calls import PastCall
from ledger.core.values import Provenance, Usage
from ledger.engine.batch import Batch
from ledger.engine.operations.base import Operation
from ledger.engine.pool_batch import PoolBatch
from ledger.store import actors
from ledger.store.amounts import USAGE
from ledger.store.drafts import Draft, drafted
from ledger.store.rows import Row


@dataclass(slots=True, kw_only=True)
class Import(Operation[int]):
    """Commit the usage of a call of the past, which counts at the time of the call."""

    usage: Usage
    occurred_at: Micros
    attribution: str | None
    request_id: str | None
    provenance: Provenance
    reason: str
    actor: Actor
    cost_usd: str | None = None
    decided: tuple[int, Micros] | None = None
    """The number and the time of the entry that the last try decided."""

    @classmethod
    def of(cls, call: PastCall, reason: str, actor: Actor, *, exact_costs: bool) -> Import:
        """Return the operation for one call.

        Args:
            call: The call.
            reason: Why.
            actor: Who imports.
            exact_costs: Whether the entry keeps a cost that is finer than a micro-USD.

        Raises:
            AmountOutOfRangeError: An amount is above 2^63-1, the most that a store holds.
        """
        USAGE.check_storable("usage", call.usage)
        attribution = call.attribution
        return cls(
            key=call.key,
            key_given=True,
            usage=call.usage,
            occurred_at=call.at,
            attribution=None if attribution is None else hashing.attribution_content(attribution),
            request_id=call.request_id,
            provenance=call.provenance,
            reason=reason,
            actor=actor,
            cost_usd=f"{call.cost_usd:f}" if exact_costs and call.cost_usd is not None else None,
        )

    @property
    def attributed(self) -> str | None:
        """The content of the call's attribution."""
        return self.attribution

    def arguments(self) -> Sequence[hashing.Value]:
        """Return only the usage, since the same call may come from another file or line."""
        return ("import", *USAGE.values(self.usage))

    def decide(self, batch: Batch, pool: PoolBatch) -> Draft:
        """Return the import, whatever the pool has left.

        Raises:
            InvalidInputError: The call is dated more than a day ahead of the store's clock.
            NotPermittedError: The role may not import.
        """
        check_not_ahead("occurred_at", self.occurred_at, batch.now)
        asked = batch.asked.get(self.actor)
        if asked is None:
            asked = actors.detail(pool.connection, self.actor, self.name)
            batch.asked[self.actor] = asked
        balance, lease, flags = rules.record_import(
            pool.head.balance, self.usage, lease_id=pool.head.seq + 1, ceiling=I64_MAX
        )
        # The same field as in the report of a live call.
        exactly = {} if self.cost_usd is None else {"report": {"cost_usd": self.cost_usd}}
        # As the entry will have them. This try may be rolled back, and another call may then use
        # the key.
        self.decided = pool.head.seq + 1, max(pool.head.recorded_at, pool.now)
        return drafted(
            EntryKind.IMPORT,
            balance,
            flags=flags,
            detail={**asked, "reason": self.reason, **exactly},
            estimate=lease.estimate,
            request_budget=lease.request_budget,
            usage=self.usage,
            lease=lease,
            attribution=pool.intern(self.attribution),
            request_id=self.request_id,
            provenance=self.provenance,
            occurred_at=self.occurred_at,
            idempotency_key=self.key,
            payload_digest=self.payload_digest(),
        )

    def made(self, row: Row) -> bool:
        """Tell whether this call made the entry under its key, and not another call.

        It is True also if the connection was lost during COMMIT and a later try found the entry.
        """
        return self.decided == (row["seq"], row["recorded_at"])

    def answer(self, row: Row, pool: PoolInfo) -> int:
        """Return the number of the entry."""
        return int(row["seq"])
