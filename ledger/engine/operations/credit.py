"""Credit: give a prepaid pool an amount that it may spend until it expires."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.core import hashing
from ledger.core.checks import REASON_MAX_CHARS, check_text, to_micros
from ledger.core.credit_book import book_to_json
from ledger.core.credits import Credit
from ledger.core.entries import Actor, PoolInfo, Totals
from ledger.core.errors import InvalidInputError
from ledger.core.kinds import EntryKind
from ledger.engine.batch import Batch
from ledger.engine.operations.base import Operation, keyed
from ledger.engine.pool_batch import PoolBatch
from ledger.store import actors
from ledger.store.drafts import Draft
from ledger.store.rows import Row


@dataclass(slots=True, kw_only=True)
class TopUp(Operation[None]):
    """Give the pool a credit."""

    credit: Credit
    reason: str | None
    actor: Actor

    @classmethod
    def of(
        cls,
        credit: Credit,
        reason: str | None,
        idempotency_key: str | None,
        actor: str | None,
    ) -> TopUp:
        """Return the operation a call asks for.

        Raises:
            InvalidInputError: The reason, the key or the actor is empty or too long.
        """
        if reason is not None:
            check_text("reason", reason, max_chars=REASON_MAX_CHARS)
        return cls(
            credit=credit, reason=reason, actor=actors.named(actor), **keyed(idempotency_key)
        )

    def arguments(self) -> Sequence[hashing.Value]:
        """Return all of the credit, and the reason."""
        credit = self.credit
        expires_at = credit.expires_at
        return (
            "credit",
            credit.name,
            *Totals.on_axes(credit),
            None if expires_at is None else to_micros("expires_at", expires_at),
            credit.priority,
            self.reason,
        )

    def decide(self, batch: Batch, pool: PoolBatch) -> Draft:
        """Return the draft of a credit, which repeats the pool's policy and its other credits.

        Raises:
            PoolClosedError: The pool is closed.
            InvalidInputError: The pool is not prepaid on an axis of the credit, or the credit has
                expired.
            MorePoolsError: Leases of other pools must expire first.
            UnsweptError: More leases must expire first than one transaction expires.
        """
        pool.require_open()
        batch.require_swept(pool)  # what is due by now is paid by the earlier credits
        detail = actors.detail(pool.connection, self.actor, self.name, self.reason)
        head, credits = pool.head, pool.counts.credits(pool.head, pool.at)
        if credits is None:
            raise InvalidInputError(
                "credit",
                "the pool is not prepaid; make it so with adjust(), naming the axes, or "
                "with 'ledger pool adjust --prepaid'",
            )
        book = credits.with_credit(self.credit, head.seq + 1, pool.at, head.balance)
        return Draft(
            kind=EntryKind.CREDIT,
            balance=head.balance,
            policy=head.policy,
            detail={**detail, "credits": book_to_json(book)},
            idempotency_key=self.key,
            payload_digest=self.kept_digest(),
        )

    def answer(self, row: Row, pool: PoolInfo) -> None:
        """Return None: the credit can be spent."""
