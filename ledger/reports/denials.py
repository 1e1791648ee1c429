"""What was refused, and what remained when it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ledger.book import Ledger
from ledger.records import EntryKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """One denial that was kept.

    Attributes:
        seq: Its entry.
        at: When it happened.
        run_id: The caller's run.
        reason: `threshold` (the pool had not enough left) or `request_budget`.
        requested_tokens: What was asked for.
        requested_cost_micros_usd: The same in millionths of a US dollar.
        remaining_tokens: What remained in the pool; None where the request's own budget refused.
        remaining_cost_micros_usd: The same in millionths of a US dollar.
        idempotency_key: The call's key.
    """

    seq: int
    at: datetime
    run_id: str | None
    reason: str
    requested_tokens: int
    requested_cost_micros_usd: int
    remaining_tokens: int | None
    remaining_cost_micros_usd: int | None
    idempotency_key: str | None = None


def denials(book: Ledger, pool: str, *, key_prefix: str = "") -> Iterator[Denied]:
    """Yield the denials of a pool that were kept, oldest first, in bounded memory.

    Args:
        book: The books.
        pool: The pool's name.
        key_prefix: Only denials whose idempotency key begins so.

    Raises:
        UnknownPoolError: There is no such pool.
        LedgerUnavailableError: The store cannot be read.
    """
    for entry in book.entries(pool, kind=EntryKind.DENIAL):
        denial = entry.detail["denial"]
        key = entry.idempotency_key
        if entry.estimate is not None and (key or "").startswith(key_prefix):
            yield Denied(
                seq=entry.seq,
                at=entry.at,
                run_id=None if entry.attribution is None else entry.attribution.run_id,
                reason=denial["reason"],
                requested_tokens=entry.estimate.total_tokens,
                requested_cost_micros_usd=entry.estimate.cost_micros_usd,
                remaining_tokens=denial.get("remaining_tokens"),
                remaining_cost_micros_usd=denial.get("remaining_cost_micros_usd"),
                idempotency_key=key,
            )
