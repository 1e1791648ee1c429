"""Correct: append the difference by which an earlier entry's usage was wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.core import hashing, rules
from ledger.core.checks import I64_MAX, REASON_MAX_CHARS, check_text
from ledger.core.entries import Actor, PoolInfo
from ledger.core.errors import EntryCorrectedError, UncorrectableEntryError
from ledger.core.kinds import EntryKind
from ledger.core.values import Usage, UsageDifference
from ledger.engine.assumed_charges import correction
from ledger.engine.batch import Batch
from ledger.engine.operations.base import Operation, keyed
from ledger.engine.pool_batch import PoolBatch
from ledger.store import actors
from ledger.store.amounts import USAGE
from ledger.store.drafts import Draft
from ledger.store.pools import find_above
from ledger.store.rows import Row
from ledger.store.schema import pools


@dataclass(slots=True, kw_only=True)
class Correct(Operation[UsageDifference]):
    """Correct the usage of a settlement, observation, expiry or import."""

    entry: int
    usage: Usage
    reason: str
    actor: Actor
    expected: Usage | None = None

    @classmethod
    def of(
        cls,
        entry: int,
        usage: Usage,
        reason: str,
        idempotency_key: str | None,
        actor: str | None,
        expected: Usage | None = None,
    ) -> Correct:
        """Return the operation a call asks for.

        Raises:
            InvalidInputError: The reason, the key or the actor is no text, empty or too long.
            AmountOutOfRangeError: An amount is above 2^63-1, the most that a store holds.
        """
        USAGE.check_storable("usage", usage)
        check_text("reason", reason, max_chars=REASON_MAX_CHARS)
        return cls(
            entry=entry,
            usage=usage,
            reason=reason,
            actor=actors.named(actor),
            expected=expected,
            **keyed(idempotency_key),
        )

    def arguments(self) -> Sequence[hashing.Value]:
        """Return the entry, all of its usage and the reason, but not `expected`."""
        return ("correct", self.entry, *USAGE.values(self.usage), self.reason)

    def decide(self, batch: Batch, pool: PoolBatch) -> Draft:
        """Return the correction of the entry's current usage, with the entry's attribution."""
        found = pool.spending(self.entry)
        if found.row["origin_seq"] is not None:
            raise UncorrectableEntryError(self.entry, _repeats(batch, found.row))
        if self.expected is not None and found.usage != self.expected:
            raise EntryCorrectedError(self.entry)
        lease = pool.lease(found.row["lease"])
        effect = rules.correct(
            pool.head.balance,
            lease.state,
            found.usage,
            self.usage,
            seq=self.entry,
            ceiling=I64_MAX,
            of_expiry=found.row["kind"] == EntryKind.EXPIRY,
            of_import=found.row["kind"] == EntryKind.IMPORT,
        )
        draft = correction(found, self.usage, effect, lease, self.reason)
        asked = actors.detail(pool.connection, self.actor, self.name, self.reason)
        return draft._replace(
            detail={**(draft.detail or {}), **asked},
            idempotency_key=self.key,
            payload_digest=self.kept_digest(),
        )

    def answer(self, row: Row, pool: PoolInfo) -> UsageDifference:
        """Return the difference by which the entry was wrong."""
        return UsageDifference(**USAGE.of(row))


def _repeats(batch: Batch, row: Row) -> str:
    """Say which entry of which pool below an entry repeats."""
    known = find_above(batch.connection, pools.c.pool_id, [row["origin_pool_id"]])
    names = [repr(one.name) for one in known if one.pool_id == row["origin_pool_id"]]
    return f"it repeats entry {row['origin_seq']} of pool {', '.join(names)}: correct that one"
