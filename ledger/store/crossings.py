"""The query for the threshold crossings that a pool's journal reports."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from ledger.core.entries import Direction, PoolInfo
from ledger.core.errors import JournalDamagedError
from ledger.store import rows
from ledger.store.schema import REPORTS_THRESHOLD, entries
from ledger.store.statements import Prepared

_REPORTS = Prepared(
    select(entries.c.seq, entries.c.detail).where(
        entries.c.pool_id == bindparam("pool_id"),
        REPORTS_THRESHOLD,
        entries.c.seq > bindparam("since"),
    )
)


def reported(connection: Connection, pool: PoolInfo, *, since: int) -> set[tuple[str, Direction]]:
    """Return the names and directions that are reported after entry `since`.

    Raises:
        JournalDamagedError: One of the reports cannot be read.
    """
    found = set()
    for row in _REPORTS.rows(connection, {"pool_id": pool.pool_id, "since": since}):
        try:
            report = rows.detail_of(row)["threshold"]
            found.add((str(report["name"]), Direction(report["direction"])))
        except rows.UNREADABLE as error:
            reason = f"the threshold it reports cannot be read: {error}"
            raise JournalDamagedError(pool=pool.name, seq=row["seq"], reason=reason) from error
    return found
