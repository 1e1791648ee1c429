"""Adjust and ensure: replace the policy of a pool, from the next entry on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from ledger.core import hashing, rules
from ledger.core.axes import CAPACITIES
from ledger.core.checks import (
    REASON_MAX_CHARS,
    canonical_json,
    check_text,
)
from ledger.core.credit_book import book_to_json
from ledger.core.entries import Actor, PoolInfo
from ledger.core.errors import InvalidInputError, LedgerError
from ledger.core.kinds import EntryKind
from ledger.core.policy import (
    SharedPoolBudgetOptions,
    check_carved,
    check_storable_policy,
    policy_to_json,
)
from ledger.engine.batch import Batch
from ledger.engine.operations.base import Operation, keyed
from ledger.engine.pool_batch import PoolBatch
from ledger.store import actors
from ledger.store.drafts import Draft
from ledger.store.rows import Row


class InForceError(LedgerError):
    """The policy that was asked for is in force, so there is nothing to write."""


@dataclass(slots=True, kw_only=True)
class Adjust(Operation[None]):
    """Replace the pool's policy."""

    policy: SharedPoolBudgetOptions
    reason: str | None
    actor: Actor

    @classmethod
    def of(
        cls,
        options: SharedPoolBudgetOptions,
        reason: str | None,
        idempotency_key: str | None,
        actor: str | None,
    ) -> Self:
        """Return the operation a call asks for.

        Raises:
            InvalidInputError: The reason, the key or the actor is empty or too long.
            AmountOutOfRangeError: An amount is above 2^63-1 and not unlimited.
        """
        check_storable_policy(options)
        if reason is not None:
            check_text("reason", reason, max_chars=REASON_MAX_CHARS)
        return cls(
            policy=options, reason=reason, actor=actors.named(actor), **keyed(idempotency_key)
        )

    def arguments(self) -> Sequence[hashing.Value]:
        """Return the policy and the reason."""
        return ("adjust", canonical_json(policy_to_json(self.policy)), self.reason)

    def decide(self, batch: Batch, pool: PoolBatch) -> Draft:
        """Return the adjustment. It revokes no lease, even with less capacity than is committed.

        Raises:
            PoolClosedError: The pool is closed.
            InvalidInputError: The pool is carved out of another one, and would get more than that
                funds.
            MorePoolsError: Leases of other pools must expire first.
            UnsweptError: More leases must expire first than one transaction expires.
        """
        pool.require_open()
        if pool.head.policy.prepaid != self.policy.prepaid:
            batch.require_swept(pool)  # what is due by now is paid by the earlier credits
        if pool.info.carved_lease is not None:
            self._check_funded(pool.journal.terms.policy(pool.connection, 1))
        head, at = pool.head, pool.at
        credits = pool.counts.credits(head, at, always=True)
        book = rules.carried_on(
            pool.counts.book(head),
            credits,
            head.policy,
            self.policy,
            head.seq + 1,
            at,
            head.balance,
        )
        detail = actors.detail(pool.connection, self.actor, self.name, self.reason)
        return Draft(
            kind=EntryKind.ADJUSTMENT,
            balance=pool.head.balance,
            policy=self.policy,
            window=rules.adjust_window(
                pool.head.policy,
                self.policy,
                pool.at,
                pool.head.balance.committed,
            ),
            detail=detail if book is None else {**detail, "credits": book_to_json(book)},
            idempotency_key=self.key,
            payload_digest=self.kept_digest(),
        )

    def _check_funded(self, opening: SharedPoolBudgetOptions) -> None:
        check_carved(self.policy)
        for name in CAPACITIES:
            funded = getattr(opening, name)
            if getattr(self.policy, name) > funded:
                raise InvalidInputError(
                    name, f"is at most {funded:,} in this pool, which was carved out with as much"
                )

    def answer(self, row: Row, pool: PoolInfo) -> None:
        """Return None: the policy is in force."""


@dataclass(slots=True, kw_only=True)
class Ensure(Adjust):
    """Replace the pool's policy, unless the given one is in force."""

    def decide(self, batch: Batch, pool: PoolBatch) -> Draft:
        """Return the adjustment.

        Raises:
            InForceError: The policy is in force; another process may have been first.
        """
        if pool.head.policy == self.policy:
            raise InForceError
        return Adjust.decide(self, batch, pool)
