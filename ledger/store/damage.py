"""Which entries cannot be read at all: looked for once a query over them has failed."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from ledger.core.checks import OutOfCalendarError
from ledger.core.entries import PoolId
from ledger.errors import JournalDamagedError, LedgerUnavailableError
from ledger.store import journal, queries, rows

FAILS = (
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError),
    *(OutOfCalendarError, JournalDamagedError, LedgerUnavailableError),
)
"""What a query may raise that meets damaged entries."""


def find_damage(
    connection: Connection, pools: Mapping[PoolId, str]
) -> dict[PoolId, JournalDamagedError]:
    """Return what is wrong with each pool's first entry that cannot be read, if there is one.

    Each entry is looked at by itself; what it must say after those before it, `verify` knows.

    Args:
        connection: A snapshot.
        pools: The pools' names, by their numbers.
    """
    found = {pool_id: _first(connection, pool_id, pools[pool_id]) for pool_id in pools}
    return {pool_id: error for pool_id, error in found.items() if error is not None}


def not_a_number(pool: str, seq: object) -> JournalDamagedError:
    """Return that the newest of a pool's entries, by the order of the database, has no number."""
    return JournalDamagedError(pool=pool, seq=1, reason=f"an entry has no number, but {seq!r:.40}")


def refused_row(error: LedgerUnavailableError) -> bool:
    """Tell whether a database refused a row by its own conditions: what the row builds on is wrong.

    Every driver has a class of this name, as PEP 249 wants it.
    """
    return any(one.__name__ == "IntegrityError" for one in type(error.__cause__).__mro__)


def _first(connection: Connection, pool_id: PoolId, name: str) -> JournalDamagedError | None:
    after = 0
    while True:
        asked = {"pool_id": pool_id, "after": after, "page": journal.PAGE}
        page = connection.execute(queries.PAGE, asked).mappings().all()
        if not page and not after:
            return JournalDamagedError(pool=name, seq=1, reason=journal.NO_OPENING)
        for row in page:
            try:
                rows.entry_of(dict(row), rows.attribution_of(dict(row)))
            except rows.UNREADABLE as error:
                reason = f"it cannot be read: {error}"
                return JournalDamagedError(pool=name, seq=row["seq"], reason=reason)
        if len(page) < journal.PAGE:
            return None
        after = page[-1]["seq"]
