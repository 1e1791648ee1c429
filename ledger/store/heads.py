"""Heads: the state of a pool and of its leases after their newest entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ledger.core.checks import Micros
from ledger.core.entries import Balance, EntryFlag, LeaseState, PoolId, Seq, WindowState
from ledger.core.extensions import Attribution
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.store.columns import is_time
from ledger.store.rows import Row

_CLOSED = int(EntryFlag.CLOSED)


class Head(NamedTuple):
    """A pool after its newest entry: the state that the next entry builds on."""

    seq: Seq
    policy: SharedPoolBudgetOptions
    policy_seq: Seq
    window_seq: Seq | None
    """None without windows."""
    swept_until: Micros | None
    """None until the pool has granted a lease that can expire."""
    balance: Balance
    recorded_at: Micros
    hash: bytes
    closed: bool
    rules_version: int
    """The version of the rules that the policy was set under."""
    window: WindowState | None = None
    """None without windows."""


def head_of(
    row: Row,
    policy: SharedPoolBudgetOptions,
    balance: Balance,
    window: WindowState | None,
    rules_version: int,
) -> Head:
    """Return the head after a row, with the policy and window that the row names.

    A recorded time that is no valid time is not taken over, so the next entry has a right time
    again. An earlier version let a wrong clock write such times.
    """
    swept_until = row["swept_until"]
    timely = is_time(row["recorded_at"]) and is_time(swept_until)
    return Head(
        seq=row["seq"],
        policy=policy,
        policy_seq=row["policy_seq"],
        window_seq=row["window_seq"],
        swept_until=swept_until if timely or swept_until is None else Micros(0),
        balance=balance,
        recorded_at=row["recorded_at"] if timely else Micros(0),
        hash=row["hash"],
        closed=bool(row["flags"] & _CLOSED),
        rules_version=rules_version,
        window=window,
    )


class Interned(NamedTuple):
    """An attribution as it is stored: its number in the pool, and the digest that entries cover."""

    attribution_id: int
    digest: bytes
    value: Attribution | None


class LeaseRow(NamedTuple):
    """A lease after its newest entry, with the attribution of its reservation.

    Every entry of the lease repeats that attribution, unless its own report gives other fields.
    """

    state: LeaseState
    attribution: Interned | None
    request_id: str | None
    occurred_at: Micros | None
    origin_pool_id: PoolId | None
    """The lower pool that granted the lease, None if this pool granted it."""
    proof: bytes
    """The hash of the reservation, since a restored store grants the same number again."""

    def is_proved(self, proof: bytes) -> bool:
        """Tell whether the lease has this proof, or a proof that begins with it."""
        return self.proof.startswith(proof)


class Memo(NamedTuple):
    """What is remembered of a committed batch: leases, and the pool before and after it."""

    before: Head
    after: Head
    leases: Mapping[int, LeaseRow]
    mirrors: Mapping[tuple[PoolId, int], int]
    """The mirror in this pool of each lease that a pool below granted, by pool and lease."""
    quiet_until: Micros
    """The time before which no hold that existed before the batch ends."""
    now: Micros
