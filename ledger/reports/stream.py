"""Reading the entries of a pool page by page, in bounded memory."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Select, select

from ledger.core.entries import PoolId
from ledger.core.errors import JournalDamagedError, LeftOut
from ledger.ledger import Ledger
from ledger.reports.filters import Where
from ledger.reports.scopes import Scope, snapshot
from ledger.store.damage import not_a_number
from ledger.store.journal import PAGE
from ledger.store.pools import newest_seqs
from ledger.store.schema import entries


def ends(connection: Connection, scope: Scope) -> dict[PoolId, int]:
    """Return the last entry to read of each pool in scope with entries, oldest pool first."""
    found = newest_seqs(connection, list(scope.pools) if scope.where.pools else None)
    newest = {pool_id: found[pool_id] for pool_id in found if pool_id in scope.pools}
    for pool_id, seq in newest.items():
        if type(seq) is not int:
            raise not_a_number(scope.pools[pool_id], seq)
    as_of = scope.where.as_of
    return newest if as_of is None else dict.fromkeys(newest, as_of)


Selected = tuple[Sequence[str], Sequence[Sequence[Any]]]
"""The names of columns, and rows."""


def stream(book: Ledger, query: Select[Any], *, after: int, end: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of `pages` one by one, each by its columns' names."""
    for names, rows in pages(book, query, after=after, end=end):
        for row in rows:
            yield dict(zip(names, row, strict=True))


def pages(book: Ledger, query: Select[Any], *, after: int, end: int) -> Iterator[Selected]:
    """Yield the rows of a query on entries of one pool, in order, `PAGE` or fewer at a time.

    Entries are only appended, so the entries up to a number that was once the newest never change.
    They are one snapshot although each page is read separately.

    Args:
        book: The store.
        query: Selects `seq` and other columns of one pool's entries.
        after: Only entries with a higher number.
        end: Only entries up to this number.

    Raises:
        LedgerUnavailableError: The store cannot be read.
    """
    seq = entries.c.seq
    # A database may sort all matches to return one page. So each query is limited to a span of
    # numbers, which is adapted to have about one page of matches.
    span = PAGE
    while after < end:
        last = min(end, after + span)
        page = query.where(seq > after, seq <= last).order_by(seq).limit(PAGE)
        names, rows = book.read(functools.partial(_rows, query=page))
        if rows:
            yield names, rows
        full = len(rows) == PAGE
        after = rows[-1][names.index("seq")] if full else last
        span = max(PAGE, span // 2) if full else span * 2


def is_any_entry(book: Ledger, where: Where) -> bool:
    """Tell whether an entry passes a filter; damaged pools are left out.

    Raises:
        UnknownPoolError: There is no such pool.
        LedgerUnavailableError: The store cannot be read.
    """
    lost: LeftOut = []
    return snapshot(book, where, _is_any, left_out=lost)


def _is_any(connection: Connection, scope: Scope) -> bool:
    found = select(entries.c.seq).where(*scope.conditions).limit(1)
    return connection.execute(found).first() is not None


def _rows(connection: Connection, query: Select[Any]) -> Selected:
    result = connection.execute(query)
    return tuple(result.keys()), result.all()


def unreadable(pool: str, seq: int, error: Exception) -> JournalDamagedError:
    """Return the error for an entry that cannot be read; `error` is one of `UNREADABLE`."""
    reason = f"its detail cannot be read: {error!r}"
    return JournalDamagedError(pool=pool, seq=seq, reason=reason)
