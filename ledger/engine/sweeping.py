"""Sweeping: expires the due leases of pools that are seldom written to."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.core.errors import JournalDamagedError, LedgerUnavailableError, LeftOut
from ledger.engine.group_commit import Writer
from ledger.store import standing
from ledger.store.damage import refused_row
from ledger.store.journal import PoolJournal


def sweep_pools(writer: Writer, pools: Sequence[PoolJournal]) -> tuple[int, LeftOut]:
    """Expire due leases in pools; return their number, and the errors of damaged pools."""
    due, damaged = _with_due(writer, pools)
    expired = 0
    for pool in due:
        try:
            expired += sweep(writer, pool)
        except JournalDamagedError as error:
            damaged.append(error)
        except LedgerUnavailableError as error:
            if not refused_row(error):
                raise
            damaged.append(pool.damaged(1, f"what follows from it is refused: {error}"))
    return expired, damaged


def sweep(writer: Writer, pool: PoolJournal) -> int:
    """Expire the due leases of one pool, and return their number.

    Raises:
        JournalDamagedError: The pool, or one above it, cannot be read.
    """
    writer.database.read(lambda read: [one.head(read) for one in pool.lineage])
    return sum(iter(lambda: writer.sweep(pool), 0))


def _with_due(
    writer: Writer, pools: Sequence[PoolJournal]
) -> tuple[Sequence[PoolJournal], LeftOut]:
    """Return the pools to be swept. Most pools have no due lease, and need no transaction."""
    now = writer.now()
    try:
        return writer.database.read(lambda read: standing.with_due(read, pools, now))
    except LedgerUnavailableError as error:
        if not refused_row(error):
            raise
        return pools, []  # one by one, to find which one it is
