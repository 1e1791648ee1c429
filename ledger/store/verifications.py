"""Verifications: the results of verifying pools, also of those that cannot be read at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from ledger.core.entries import Balance, PoolId, PoolInfo
from ledger.core.errors import JournalDamagedError
from ledger.store.anchors import Anchor

Progress = Callable[[int], object]
"""Called with the number of entries that were checked since the last call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """The first bad entry of a pool, and what is wrong with it."""

    seq: int
    """Its number; 0 if not an entry but an index of the store is damaged."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What verifying one pool found.

    Attributes:
        pool: The pool.
        entries: How many entries were found good, from the first on.
        hash: The hash of the last good entry. A copy kept elsewhere shows if the journal is
            shortened or rewritten later.
        balance: The balance after the good entries.
        damage: The first bad entry, None if there is none.
    """

    pool: PoolInfo
    entries: int
    hash: bytes
    balance: Balance
    damage: Damage | None

    @property
    def ok(self) -> bool:
        """Tell whether every entry is good."""
        return self.damage is None

    @property
    def anchor(self) -> Anchor | None:
        """The last good entry and its hash, to be kept for a later verification to expect."""
        if not self.entries:
            return None
        return Anchor(pool=self.pool.name, seq=self.entries, hash=self.hash)


def unreadable(pool_id: PoolId, error: JournalDamagedError) -> Verification:
    """Return the verification of a pool whose own row cannot be read."""
    return _unverified(
        PoolInfo(pool_id=pool_id, identity=UUID(int=0), name=error.pool), error.reason
    )


def stray(pool_id: PoolId) -> Verification:
    """Return the verification of entries whose pool is not in the table `pools`."""
    info = PoolInfo(pool_id=pool_id, identity=UUID(int=0), name=f"(pool {pool_id})")
    return _unverified(info, f"the entries of pool {pool_id} have no row in pools")


def absent(name: str) -> Verification:
    """Return the verification of a pool that has an anchor but is not in the store."""
    info = PoolInfo(pool_id=PoolId(0), identity=UUID(int=0), name=name)
    return _unverified(info, "the store went back, or is another: it has no pool of this name")


def of_indexes(reason: str) -> Verification:
    """Return the verification of a store whose database finds its own indexes damaged."""
    info = PoolInfo(pool_id=PoolId(0), identity=UUID(int=0), name="(indexes)")
    return _unverified(info, reason, seq=0)


def _unverified(pool: PoolInfo, reason: str, *, seq: int = 1) -> Verification:
    return Verification(
        pool=pool, entries=0, hash=b"", balance=Balance(), damage=Damage(seq=seq, reason=reason)
    )
