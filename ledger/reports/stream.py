"""Entries of a pool page by page: as many as there are, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Select

from ledger import rows as stored
from ledger.book import Ledger
from ledger.errors import JournalDamagedError
from ledger.journal import PAGE
from ledger.schema import entries


def stream(book: Ledger, query: Select[Any], *, after: int, end: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a query on entries of one pool, in order.

    Entries are only appended, so those up to a number that was the newest are one snapshot, though
    each page is read by itself.

    Args:
        book: The books.
        query: Selects `seq`, and what else is needed, of one pool.
        after: Only entries with a higher number.
        end: Only entries up to this number.

    Raises:
        LedgerUnavailableError: The store cannot be read.
    """
    seq = entries.c.seq
    while after < end:
        page = query.where(seq > after, seq <= end).order_by(seq).limit(PAGE)
        rows = book.read(
            lambda connection, page=page: [  # type: ignore[misc]
                dict(row) for row in connection.execute(page).mappings()
            ]
        )
        yield from rows
        after = rows[-1]["seq"] if len(rows) == PAGE else end


@contextmanager
def readable(pool: str, seq: int) -> Iterator[None]:
    """Name the entry that cannot be read as what its kind says it is.

    Raises:
        JournalDamagedError: It cannot be read.
    """
    try:
        yield
    except stored.UNREADABLE as error:
        reason = f"its detail cannot be read: {error!r}"
        raise JournalDamagedError(pool=pool, seq=seq, reason=reason) from error
