"""The base class of operations: a call's arguments, the entry it leads to, and the answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, TypeVar

from ledger.core import hashing
from ledger.core.checks import I64_MAX, check_text
from ledger.core.entries import PoolInfo
from ledger.core.errors import InvalidInputError
from ledger.core.extensions import Attribution
from ledger.core.usage_reports import Fitted
from ledger.engine.batch import Batch
from ledger.engine.pool_batch import PoolBatch
from ledger.store.drafts import Draft
from ledger.store.heads import Interned
from ledger.store.keys import Receipt, is_made, new_key
from ledger.store.rows import Row

T = TypeVar("T")

NO_REPORT = Fitted()
"""The report of a call that has none."""


UNKEYED: Mapping[str, Any] = {}
"""The fields of an operation under a key that the library made."""


def keyed(idempotency_key: str | None, *, spent: bool = False) -> Mapping[str, Any]:
    """Return the fields of an operation under the caller's key, or under one that the library made.

    Args:
        idempotency_key: The key that the caller gave.
        spent: Whether the call records usage, which nothing may refuse.

    Raises:
        InvalidInputError: The key is empty or too long; or it is one that the library made, which
            can be looked up only by its receipt.
    """
    if idempotency_key is None:
        return UNKEYED
    receipt = Receipt.read(check_text("idempotency_key", idempotency_key))
    if receipt is not None:
        return {"key": receipt.key, "behind": receipt.behind, "receipt": receipt}
    if is_made(idempotency_key) and not spent:
        raise InvalidInputError(
            "idempotency_key",
            f"{idempotency_key} is of the form of a key that the library made. To repeat that "
            "call, give the receipt that OutcomeUnknownError has ('ledger:...'); else give a key "
            "of your own",
        )
    return {"key": idempotency_key, "key_given": True}


@dataclass(slots=True, kw_only=True)
class Operation(ABC, Generic[T]):
    """One call. Its idempotency key makes it take effect once.

    Only `behind` changes. The class is not frozen, since a frozen object takes four times as long
    to make.
    """

    comes_late: ClassVar[bool] = False
    """Whether it is also done on a lease that has expired."""

    key: str = field(default_factory=new_key)
    key_given: bool = False
    """Whether the caller gave the key; only these keys are indexed."""
    behind: int | None = None
    """The newest entry when this was first tried, after which its own entry is; None before
    that."""
    receipt: Receipt | None = None
    """The receipt that the caller gave, to repeat a call under a key that the library made."""

    @property
    def name(self) -> str:
        """The name of what the call asks for, in a word or two."""
        return str(self.arguments()[0])

    @property
    def key_known(self) -> bool:
        """Whether the caller knows the key, and may repeat the call."""
        return self.key_given or self.receipt is not None

    @property
    def lease_id(self) -> int | None:
        """The lease that this is about, which is read before `decide`; None if it is about none."""
        return None

    @property
    def attributed(self) -> str | None:
        """The content of an attribution that the entry may name, which is read before `decide`."""
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
        """Return or raise the caller's answer, made from the entry and nothing else."""

    def payload_digest(self) -> bytes:
        """Return the digest that tells this call from another under the same key."""
        return hashing.digest(self.arguments())

    def sought(
        self, *, again: bool = False, newest: int = I64_MAX
    ) -> tuple[Collection[str], Mapping[str, int]]:
        """Return the key to look an earlier outcome up by, as `PoolJournal.by_keys` takes it.

        Args:
            again: Whether this was tried before, and may have taken effect.
            newest: The newest entry of the pool. If it was a later one at the first try, a backup
                was restored, and all entries are searched.
        """
        if self.key_given:
            return (self.key,), {}
        if self.behind is None or not (again or self.receipt):
            return (), {}
        return (), {self.key: self.behind if self.behind <= newest else 0}

    def kept_digest(self) -> bytes | None:
        """Return the digest that the entry keeps, None under a key that the library made."""
        return self.payload_digest() if self.key_given else None

    def led_to(self, row: Row) -> bool:
        """Tell whether an entry that has this key is the entry of this call."""
        if self.key_given:
            return bool(row["payload_digest"] == self.payload_digest())
        return self.receipt is None or self.receipt.is_of(self.payload_digest())

    def key_to_repeat(self) -> str:
        """Return the key under which the caller can repeat the call."""
        if self.key_given:
            return self.key
        return str(Receipt.of(self.key, self.behind or 0, self.payload_digest()))


@dataclass(slots=True, kw_only=True)
class LeaseOperation(Operation[T]):
    """A call about a lease."""

    lease: int
    proof: bytes | None = None
    """The lease's proof, which tells it from another lease of the same number; None for the
    library's own calls about a lease that it has just granted."""

    @property
    def lease_id(self) -> int | None:
        """The lease this is about."""
        return self.lease


def reported(report: Fitted, pool: PoolBatch, captured: Interned | None) -> Interned | None:
    """Return the attribution of an entry: its lease's, overridden by the fields of a report."""
    base = (captured and captured.value) or Attribution()
    overrides: dict[str, Any] = {
        name: value
        for name in ("provider", "model", "tags")
        if (value := getattr(report, name)) is not None and value != getattr(base, name)
    }
    if not overrides:
        return captured
    return pool.intern(hashing.attribution_content(replace(base, **overrides)))
