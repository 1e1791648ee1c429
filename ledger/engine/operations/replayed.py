"""Calls whose usage is known: each is reserved and settled, many in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ledger.core.checks import NAME_MAX_CHARS
from ledger.core.errors import LedgerError
from ledger.core.extensions import RequestExtensions
from ledger.core.kinds import EntryKind
from ledger.core.usage_reports import UsageReport, fit
from ledger.core.values import RequestBudget, Usage, UsageEstimate
from ledger.engine.batch import Batch
from ledger.engine.operations.base import NO_REPORT
from ledger.engine.operations.record import Record
from ledger.engine.operations.reserve import Reserve
from ledger.engine.pool_batch import PoolBatch
from ledger.store.amounts import USAGE
from ledger.store.drafts import Draft
from ledger.store.rows import Row


class NotReservedError(LedgerError):
    """The call was denied, or its lease is not granted yet. Callers never see this error."""

    def __init__(self) -> None:
        super().__init__("no lease was reserved for the call")


class OtherCallError(Exception):
    """The key belongs to another call, so nothing of the transaction is written.

    Attributes:
        seq: The entry that has the key.
    """

    def __init__(self, key: str, seq: int) -> None:
        super().__init__(f"entry {seq} has the key {key}")
        self.key, self.seq = key, seq


@dataclass(slots=True, kw_only=True)
class ReserveReplayed(Reserve):
    """Hold an estimate for a call whose usage is known."""

    found: int | None = None
    """The lease, if an earlier run has reserved it."""

    def led_to(self, row: Row) -> bool:
        """Tell whether an entry that has this key is this call's.

        Raises:
            OtherCallError: The entry is of another call.
        """
        if not Reserve.led_to(self, row):
            raise OtherCallError(self.key, row["seq"])
        self.found = row["seq"]
        return True


@dataclass(slots=True, kw_only=True)
class SettleReplayed(Record):
    """Settle the lease that an earlier operation has reserved, mostly in the same batch."""

    reservation: ReserveReplayed

    @property
    def lease_id(self) -> None:
        """The lease, which is not known before the reservation is decided."""
        return

    def decide(self, batch: Batch, pool: PoolBatch) -> Draft:
        """Return the settlement.

        Raises:
            NotReservedError: There is no lease.
        """
        row = pool.known.get(self.reservation.key)
        if row is None or row["kind"] == EntryKind.DENIAL:
            raise NotReservedError
        self.lease, self.proof = row["seq"], row["hash"]
        pool.lease(self.lease)  # reads the lease, if an interrupted run reserved it
        return Record.decide(self, batch, pool)

    def led_to(self, row: Row) -> bool:
        """Tell whether an entry that has this key is this call's.

        Raises:
            OtherCallError: The entry is of another call.
        """
        self.lease = row["lease"]
        if not Record.led_to(self, row) or self.lease != self.reservation.found:
            raise OtherCallError(self.key, row["seq"])
        return True


def used_key(key: str) -> str:
    """Return the idempotency key of the settlement, made from that of the reservation."""
    used = f"{key}:used"
    if len(used) <= NAME_MAX_CHARS:
        return used
    return str(fit(UsageReport(idempotency_key=used)).idempotency_key)


class Replayed(NamedTuple):
    """The two operations of a call."""

    reserve: ReserveReplayed
    settle: SettleReplayed

    @classmethod
    def of(cls, extensions: RequestExtensions, estimate: UsageEstimate, usage: Usage) -> Replayed:
        """Return what a call asks for.

        Raises:
            AmountOutOfRangeError: An amount is above 2^63-1, the most that a store holds.
        """
        USAGE.check_storable("usage", usage)
        reserve = ReserveReplayed.of(
            extensions, estimate, RequestBudget.unlimited(), keep_denial=True
        )
        return cls.settled(reserve, usage)

    @classmethod
    def settled(cls, reserve: ReserveReplayed, usage: Usage) -> Replayed:
        """Return the reservation with its settlement, whose amounts were checked."""
        settle = SettleReplayed(
            key=used_key(reserve.key),
            key_given=True,
            lease=0,
            usage=usage,
            report=NO_REPORT,
            closes=True,
            reservation=reserve,
        )
        return cls(reserve, settle)
