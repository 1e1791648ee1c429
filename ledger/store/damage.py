"""The search for entries that cannot be read, made after a query over many entries has failed."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from ledger.core.checks import OutOfCalendarError
from ledger.core.entries import PoolId
from ledger.core.errors import JournalDamagedError, LedgerUnavailableError
from ledger.store import journal, queries, rows

FAILS = (
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError),
    *(OutOfCalendarError, JournalDamagedError, LedgerUnavailableError),
)
"""The errors that a query may raise when it reads damaged entries."""


def find_damage(
    connection: Connection, pools: Mapping[PoolId, str]
) -> dict[PoolId, JournalDamagedError]:
    """Return what is wrong with each pool's first entry that cannot be read, if there is one.

    Each entry is checked by itself. `verify` compares it with the entries before it.

    Args:
        connection: A snapshot.
        pools: The pools' names, by their numbers.
    """
    found = {pool_id: _first(connection, pool_id, pools[pool_id]) for pool_id in pools}
    return {pool_id: error for pool_id, error in found.items() if error is not None}


def not_a_number(pool: str, seq: object) -> JournalDamagedError:
    """Return the error for a pool whose last entry, as the database sorts them, has no number."""
    return JournalDamagedError(pool=pool, seq=1, reason=f"an entry has no number, but {seq!r:.40}")


def refused_row(error: LedgerUnavailableError) -> bool:
    """Tell whether a constraint refused a row, so that the entry before it must be damaged.

    The error's class is known by its name, which PEP 249 fixes for every driver.
    """
    return any(one.__name__ == "IntegrityError" for one in type(error.__cause__).__mro__)


def _first(connection: Connection, pool_id: PoolId, name: str) -> JournalDamagedError | None:
    after = 0
    while True:
        asked = {"pool_id": pool_id, "after": after, "page": journal.PAGE}
        page = connection.execute(queries.ENTRIES_BEHIND, asked).mappings().all()
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
