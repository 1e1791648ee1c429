"""What every operation is, and what it may look at while it decides."""

from __future__ import annotations

import copy
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from ledger import proof, rows, rules
from ledger.checks import I64_MAX, Micros, check_text
from ledger.errors import AmountOutOfRangeError, IdempotencyConflictError, JournalDamagedError
from ledger.journal import PoolJournal
from ledger.model import Attribution
from ledger.records import EntryKind, LeaseState, PoolInfo
from ledger.rows import Draft, Head, Interned, LeaseRow, Memo, Row

T = TypeVar("T")


def new_key() -> str:
    """Return an idempotency key for a call whose caller gave none, ordered by time."""
    return f"{time.time_ns() // 1000:014x}{os.urandom(9).hex()}"


def keyed(idempotency_key: str | None) -> dict[str, Any]:
    """Return the fields of an operation under the caller's key, or under one of its own.

    Raises:
        InvalidInputError: The key is empty or too long.
    """
    if idempotency_key is None:
        return {}
    return {"key": check_text("idempotency_key", idempotency_key), "key_given": True}


_NO_CONTENT = proof.attribution_content(Attribution())


class Desk:
    """One pool inside one transaction: what was read of it, and the entries that follow."""

    def __init__(self, connection: Connection, pool: PoolJournal, head: Head, now: Micros) -> None:
        self.pool = pool
        self.head = head
        self.now = now
        self.leases: dict[int, LeaseRow] = {}
        """Leases as the newest entry leaves them."""
        self.damaged: dict[int | None, JournalDamagedError] = {}
        """Leases that cannot be read, and why."""
        self.known: dict[str, Row] = {}
        """Entries by their idempotency keys."""
        self.staged: list[Row] = []
        """Entries that are decided, and not yet written."""
        self.expired = 0
        """How many leases this transaction found due."""
        self._began_at = head.seq, head.hash
        self._connection = connection
        self._interned: dict[str, Interned] = {}

    def do(self, operation: Operation[Any]) -> Row:
        """Decide an operation, unless its key says that it was done, and return its entry.

        Raises:
            BudgetError: The rules refuse, and the refusal is not kept.
            IdempotencyConflictError: The key was used with other arguments.
            JournalDamagedError: The lease it is about cannot be read.
        """
        first = self.known.get(operation.key)
        if first is not None:
            if first["payload_digest"] != operation.payload_digest():
                raise IdempotencyConflictError(operation.key, seq=first["seq"])
            return first
        if operation.lease_id in self.damaged:
            raise copy.copy(self.damaged[operation.lease_id])
        row = self.stage(operation.decide(self))
        self.known[operation.key] = row
        return row

    def stage(self, draft: Draft) -> Row:
        """Make a draft the newest entry, to be written with the others."""
        row = rows.to_row(
            draft,
            pool_id=self.pool.info.pool_id,
            head=self.head,
            genesis=self.pool.genesis,
            now=self.now,
        )
        self.staged.append(row)
        self.head = rows.head_of(row, draft.policy or self.head.policy, draft.balance)
        if draft.lease is not None:
            self.leases[draft.lease.lease] = LeaseRow(
                draft.lease, draft.attribution, draft.request_id, draft.occurred_at
            )
        return row

    def sweep(self, until: Micros) -> None:
        """Note that no lease that was due until then still holds anything."""
        self.head = self.head._replace(swept_until=max(self.head.swept_until, until))

    def state(self, lease_id: int) -> LeaseState | None:
        """Return a lease as the newest entry leaves it, None where there is none."""
        found = self.leases.get(lease_id)
        return None if found is None else found.state

    def memo(self) -> Memo:
        """Return what the pool's journal may remember once the entries are committed."""
        return Memo(self._began_at, (self.head.seq, self.head.hash), self.leases)

    def intern(self, content: str | None) -> Interned | None:
        """Return the stored form of an attribution's content; one that is empty is not stored.

        Raises:
            InvalidInputError: A value in it is none that an attribution may have.
        """
        if content is None or content == _NO_CONTENT:
            return None
        if content not in self._interned:
            self._interned[content] = self.pool.attributions.intern(self._connection, content)
        return self._interned[content]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(ABC, Generic[T]):
    """One caller's call. Its key makes it happen once."""

    key: str = field(default_factory=new_key)
    key_given: bool = False

    @property
    def lease_id(self) -> int | None:
        """The lease this is about, which must be read before it can be decided."""
        return None

    @abstractmethod
    def arguments(self) -> Sequence[proof.Value]:
        """Return what was asked, all of it, as values to be digested."""

    @abstractmethod
    def decide(self, desk: Desk) -> Draft:
        """Return the entry this leads to.

        Raises:
            BudgetError: The rules refuse, and the refusal is not kept.
        """

    @abstractmethod
    def answer(self, row: Row, pool: PoolInfo) -> T:
        """Return, or raise, what the caller gets, from the entry alone."""

    def payload_digest(self) -> bytes:
        """Return the digest that tells this call from another under the same key."""
        return proof.digest(self.arguments())


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseOperation(Operation[T]):
    """A call about a lease."""

    lease: int

    @property
    def lease_id(self) -> int:
        """The lease this is about."""
        return self.lease


def carried(kind: EntryKind, effect: rules.Effect, found: LeaseRow) -> Draft:
    """Return an entry about a lease, with all that each of its entries repeats."""
    balance, lease, flags = effect
    return Draft(
        kind=kind,
        balance=balance,
        lease=lease,
        flags=flags,
        estimate=lease.estimate,
        request_budget=lease.request_budget,
        attribution=found.attribution,
        request_id=found.request_id,
        occurred_at=found.occurred_at,
    )


def check_storable(what: str, value: object, names: Sequence[str]) -> None:
    """Refuse amounts that a store cannot hold; None is no amount.

    Raises:
        AmountOutOfRangeError: One of them is above 2^63-1.
    """
    for name in names:
        amount = getattr(value, name)
        if amount is not None and amount > I64_MAX:
            raise AmountOutOfRangeError(f"{what}.{name}", value=amount, ceiling=I64_MAX)
