"""Stores that went back: to a backup, or to a standby that lacked the newest entries."""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, select

from ledger.core.entries import PoolInfo
from ledger.core.errors import StoreWentBackWarning
from ledger.store.schema import pools
from ledger.store.statements import Prepared

_log = logging.getLogger(__name__)

_IDENTITY = Prepared(select(pools.c.identity).where(pools.c.pool_id == bindparam("pool_id")))


class Seen:
    """The newest entry that readers of this ledger have seen of a pool.

    It is compared with what is read anyway. Reads of several threads end in any order, so an entry
    is missing only if a read that began after it was seen does not find it.
    """

    def __init__(self) -> None:
        self._seq = self.told = 0
        """The newest entry, and the missing one that was reported."""
        self._at_s = 0.0

    def note(self, pool: str, seq: int, began_s: float) -> bool:
        """Note the newest entry of a read; warn if the store went back, and return whether it did.

        Args:
            pool: The pool's name.
            seq: The number of the entry.
            began_s: When the read began, on the clock of `time.monotonic`.
        """
        before = self._seq
        went_back = seq < before and began_s > self._at_s
        if went_back or seq > before:
            self._seq, self._at_s = seq, time.monotonic()
        if went_back:
            self.told = before
            tell(pool, seen=before, newest=seq)
        return went_back

    def forget(self, pool: str, *, seen: int, newest: int) -> None:
        """Warn that an entry that was written or read is missing, unless that was reported."""
        if seen > self.told:
            tell(pool, seen=seen, newest=newest)
        self._seq, self._at_s, self.told = newest, time.monotonic(), 0


def tell(pool: str, *, seen: int, newest: int) -> None:
    """Warn that an entry that this process has seen is not in the store any more."""
    _log.error(
        "pool %r went back: entry %d, which this process has seen, is gone; the newest is %d now",
        pool,
        seen,
        newest,
    )
    # If warnings are errors, this one is only logged, so that no call fails because of it.
    with contextlib.suppress(StoreWentBackWarning):
        warnings.warn(StoreWentBackWarning(pool, seen=seen, newest=newest), stacklevel=2)


def asked(pool: PoolInfo) -> tuple[Prepared, dict[str, Any]]:
    """Return the query, with its parameters, for what `is_of` compares."""
    return _IDENTITY, {"pool_id": pool.pool_id}


def is_of(pool: PoolInfo, found: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether a pool's number is still this pool's, and not free or another pool's."""
    return [row["identity"] for row in found] == [pool.identity.bytes]
