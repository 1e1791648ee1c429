"""The base class of operations: a call's arguments, the entry it leads to, and the answer."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ledger.core import hashing
from ledger.core.checks import I64_MAX, check_text
from ledger.core.entries import PoolInfo
from ledger.engine.batch import Batch
from ledger.engine.pool_batch import PoolBatch
from ledger.errors import AmountOutOfRangeError
from ledger.store.drafts import Draft
from ledger.store.rows import Row

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


@dataclass(slots=True, kw_only=True)
class Operation(ABC, Generic[T]):
    """One call. Its idempotency key makes it take effect once."""

    # Nothing changes an operation. Yet it is not frozen: that takes four times as long to make.

    key: str = field(default_factory=new_key)
    key_given: bool = False

    @property
    def lease_id(self) -> int | None:
        """The lease that this is about, read before `decide`; None where it is about none."""
        return None

    @abstractmethod
    def arguments(self) -> Sequence[hashing.Value]:
        """Return all arguments of the call, as values to be digested."""

    @abstractmethod
    def decide(self, batch: Batch, pool: PoolBatch) -> Draft:
        """Return the entry this leads to.

        Raises:
            BudgetError: The rules refuse, and the refusal is not kept.
        """

    @abstractmethod
    def answer(self, row: Row, pool: PoolInfo) -> T:
        """Return the caller's answer, or raise it, from the entry alone."""

    def payload_digest(self) -> bytes:
        """Return the digest that tells this call from another under the same key."""
        return hashing.digest(self.arguments())


@dataclass(slots=True, kw_only=True)
class LeaseOperation(Operation[T]):
    """A call about a lease."""

    lease: int

    @property
    def lease_id(self) -> int:
        """The lease this is about."""
        return self.lease


def check_storable(what: str, value: object, names: Sequence[str]) -> None:
    """Refuse amounts that a store cannot hold; None is passed over.

    Raises:
        AmountOutOfRangeError: One of them is above 2^63-1.
    """
    for name in names:
        amount = getattr(value, name)
        if amount is not None and amount > I64_MAX:
            raise AmountOutOfRangeError(f"{what}.{name}", value=amount, ceiling=I64_MAX)
