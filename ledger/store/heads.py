"""What the next entry builds on: a pool, and its leases, as their newest entries leave them."""

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
    """A pool at its newest entry: the state that the next entry builds on."""

    seq: Seq
    policy: SharedPoolBudgetOptions
    policy_seq: Seq
    window_seq: Seq | None
    """None without windows."""
    swept_until: Micros | None
    """None until the pool has granted a lease whose hold ends by itself."""
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
    """Return the head that a row makes, under the policy and in the window that it names.

    A recorded time that is no valid time is not taken over: an earlier version let a wrong clock
    write such times. So what is appended has the right time again.
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
    """A lease as its newest entry leaves it, and what its reservation captured.

    Every entry of the lease repeats that, unless a report of its own says otherwise.
    """

    state: LeaseState
    attribution: Interned | None
    request_id: str | None
    occurred_at: Micros | None
    origin_pool_id: PoolId | None
    """The lower pool that granted the lease, None where this pool granted it."""
    proof: bytes
    """The hash of the reservation: a store that was restored grants the same number again."""

    def is_proved(self, proof: bytes) -> bool:
        """Tell whether this is the lease with this proof, or with the beginning of it."""
        return self.proof.startswith(proof)


class Memo(NamedTuple):
    """What a committed batch leaves in memory: leases, and the pool before and after it."""

    before: Head
    after: Head
    leases: Mapping[int, LeaseRow]
    mirrors: Mapping[tuple[PoolId, int], int]
    """The mirror in this pool of each lease that a pool below granted, by pool and lease."""
    quiet_until: Micros
    """Until when none of the holds that existed before the batch ends."""
    now: Micros
