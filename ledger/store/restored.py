"""Stores that went back: to a backup, or to a standby that lacked the newest entries."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, select

from ledger.core.entries import PoolInfo
from ledger.errors import StoreWentBackWarning
from ledger.store.schema import pools
from ledger.store.statements import Prepared

_log = logging.getLogger(__name__)

_IDENTITY = Prepared(select(pools.c.identity).where(pools.c.pool_id == bindparam("pool_id")))


def tell(pool: str, *, seen: int, newest: int) -> None:
    """Say that an entry that this process has seen is not in the store any more."""
    _log.error(
        "pool %r went back: entry %d, which this process has seen, is gone; the newest is %d now",
        pool,
        seen,
        newest,
    )
    # Where warnings are errors, this one is in the log alone: no call is refused for it.
    with contextlib.suppress(StoreWentBackWarning):
        warnings.warn(StoreWentBackWarning(pool, seen=seen, newest=newest), stacklevel=2)


def asked(pool: PoolInfo) -> tuple[Prepared, dict[str, Any]]:
    """Return the query, with its parameters, for what `is_of` compares."""
    return _IDENTITY, {"pool_id": pool.pool_id}


def is_of(pool: PoolInfo, found: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether a pool's number is this pool's, and not free or another pool's by now."""
    return [row["identity"] for row in found] == [pool.identity.bytes]
