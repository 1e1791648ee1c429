"""The source of an export: entries pool by pool, in order, up to a number known beforehand."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from ledger.core.checks import I64_MAX, check_amount, check_type, from_micros
from ledger.core.entries import PoolId
from ledger.core.errors import InvalidInputError
from ledger.core.kinds import CHARGED
from ledger.exports.columns import ExportCell, ExportColumn, RowGroup, Stored, with_held
from ledger.ledger import Ledger
from ledger.reports.filters import Where
from ledger.reports.scopes import Scope, snapshot
from ledger.reports.stream import ends, pages, unreadable
from ledger.store.attributions import CONTENT
from ledger.store.columns import are_plain_entries, check_entry
from ledger.store.rows import UNREADABLE, Row, attribution_of
from ledger.store.schema import attributions, entries, pools, store

_CONTENT = tuple(column.name for column in CONTENT)
_Content = tuple[Any, ...]
"""An attribution as it is stored: the values of `_CONTENT`."""

_NOTHING: _Content = (None,) * len(_CONTENT)
_KNOWN_MAX = 10_000
"""How many attributions are remembered, so that each is read once: about 10 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extract:
    """Entries of one or more pools, fixed when this is made. Entries appended later are not in it.

    Attributes:
        book: The store.
        columns: What is exported of each entry.
        names: The pools, by number, in the order in which they are exported.
        ends: The last entry of each pool that may be in the export.
        as_of: When the newest of these entries was recorded, None if there is none.
        conditions: The conditions that an exported entry must fulfil.
    """

    book: Ledger
    columns: Sequence[ExportColumn]
    names: Mapping[PoolId, str]
    ends: Mapping[str, int]
    as_of: datetime | None
    conditions: Sequence[ColumnElement[bool]] = field(repr=False)

    def pages(self) -> Iterator[RowGroup]:
        """Yield the export's rows, some at a time, in bounded memory.

        Raises:
            JournalDamagedError: An entry cannot be read.
            LedgerUnavailableError: The store cannot be read.
        """
        for name in self.ends:
            for stored, contents in self._stored(name):
                page = self._page(stored, contents)
                if page is None:
                    rows = (self.row_of(name, row) for row in _rows(stored))
                    page = list(zip(*rows, strict=True))
                yield page

    def _page(self, stored: Stored, contents: Iterable[_Content]) -> RowGroup | None:
        """Return entries as rows of the export; None if each must be converted by itself.

        Args:
            stored: The entries.
            contents: Their attributions that earlier entries did not have.
        """
        try:
            if not are_plain_entries(stored):
                return None
            for content in contents:
                attribution_of(dict(zip(_CONTENT, content, strict=True)))
            found = with_held(stored)
            return [column.values(found) for column in self.columns]
        except UNREADABLE:
            return None

    def row_of(self, name: str, row: Row) -> tuple[ExportCell, ...]:
        """Return an entry of a pool as a row of the export.

        Raises:
            JournalDamagedError: It cannot be read.
        """
        try:
            check_entry(row)
            attribution_of(row)
            stored = with_held({column: [value] for column, value in row.items()})
            return tuple([column.values(stored)[0] for column in self.columns])
        except UNREADABLE as error:
            raise unreadable(name, row["seq"], error) from error

    def entries(self, name: str) -> Iterator[Row]:
        """Yield the entries of one pool as they are stored, with attribution and names.

        Raises:
            LedgerUnavailableError: The store cannot be read.
        """
        for stored, _contents in self._stored(name):
            yield from _rows(stored)

    def _stored(self, name: str) -> Iterator[tuple[Stored, Iterable[_Content]]]:
        """Yield entries, some at a time, and their attributions that were not yielded before.

        Many entries share an attribution, and all share the pool's identity. Joining these to every
        entry would take a third of the query's time.
        """
        pool_id = self._number(name)
        same = self.book.read(partial(_identities, pool_id=pool_id))
        known: dict[object, _Content] = {}
        for names, found in pages(self.book, self._query(name), after=0, end=self.ends[name]):
            columns = zip(*found, strict=True)
            stored: dict[str, Sequence[Any]] = dict(zip(names, columns, strict=True))
            numbers = stored["attribution_id"]
            if len(known) > _KNOWN_MAX:
                known = {}
            missing = set(numbers) - known.keys()
            if missing:
                known |= dict.fromkeys(missing, _NOTHING)
                read = partial(_contents_of, pool_id=pool_id, numbers=missing - {None})
                known |= self.book.read(read)
            contents = zip(*[known[number] for number in numbers], strict=True)
            stored |= dict(zip(_CONTENT, contents, strict=True))
            stored |= {column: [value] * len(found) for column, value in same.items()}
            yield stored, [known[number] for number in missing]

    def count(self, name: str, after: int) -> int:
        """Return how many entries of a pool the export has after the entry `after`.

        Raises:
            LedgerUnavailableError: The store cannot be read.
        """
        seq = entries.c.seq
        query = (
            select(func.count())
            .select_from(entries)
            .where(*self._of(name), seq > after, seq <= self.ends[name])
        )
        return self.book.read(lambda connection: connection.execute(query).scalar_one())

    def _number(self, name: str) -> PoolId:
        (pool_id,) = (number for number, known in self.names.items() if known == name)
        return pool_id

    def _of(self, name: str) -> list[ColumnElement[bool]]:
        return [entries.c.pool_id == self._number(name), *self.conditions]

    def _query(self, name: str) -> Select[tuple[object, ...]]:
        origin = pools.alias("origin")
        return (
            select(*entries.c, origin.c.name.label("origin_pool"))
            .select_from(entries.outerjoin(origin, origin.c.pool_id == entries.c.origin_pool_id))
            .where(*self._of(name))
        )


def _rows(stored: Stored) -> Iterator[Row]:
    for row in zip(*stored.values(), strict=True):
        yield dict(zip(stored, row, strict=True))


def _identities(connection: Connection, pool_id: PoolId) -> dict[str, object]:
    """Return the names of a pool and of its store, which are the same for each entry."""
    query = (
        select(
            pools.c.name.label("pool"),
            pools.c.identity.label("pool_identity"),
            store.c.identity.label("store_identity"),
        )
        .select_from(pools.join(store, store.c.store_id == 1))
        .where(pools.c.pool_id == pool_id)
    )
    return dict(connection.execute(query).mappings().one())


def _contents_of(
    connection: Connection, pool_id: PoolId, numbers: Collection[object]
) -> dict[object, _Content]:
    """Return the attributions of a pool that have these numbers."""
    a = attributions.c
    # A damaged row may hold another type, with which SQLAlchemy would bind all values.
    wanted = [number for number in numbers if isinstance(number, int)]
    query = select(a.attribution_id, *CONTENT).where(
        a.pool_id == pool_id, a.attribution_id.in_(wanted)
    )
    return {row[0]: tuple(row[1:]) for row in connection.execute(query)}


def source(
    book: Ledger,
    where: Where,
    columns: Sequence[ExportColumn],
    *,
    charges: bool,
    up_to: Mapping[str, int] | None = None,
) -> Extract:
    """Fix on one snapshot which entries an export has.

    Args:
        book: The store.
        where: Which entries.
        columns: What is exported of each.
        charges: Whether only charges are exported, each from the pool where it was made; otherwise
            every entry is.
        up_to: The last entry of some pools, by their names; other pools are exported up to their
            newest entry.

    Raises:
        UnknownPoolError: There is no such pool.
        InvalidInputError: A pool does not have so many entries yet, or is not among those asked
            for.
        LedgerUnavailableError: The store cannot be read.
    """
    check_type("book", book, Ledger)

    def query(connection: Connection, scope: Scope) -> Extract:
        newest = {scope.pools[pool]: seq for pool, seq in ends(connection, scope).items()}
        last = _ends(scope, newest, up_to or {})
        conditions = list(scope.conditions)
        if charges:
            conditions += [entries.c.kind.in_(CHARGED), entries.c.usage_total_tokens.is_not(None)]
        return Extract(
            book=book,
            columns=columns,
            names=scope.pools,
            ends=last,
            as_of=_recorded_at(connection, scope, last),
            conditions=conditions,
        )

    return snapshot(book, where, query, mirrors=not charges)


def _recorded_at(connection: Connection, scope: Scope, ends: Mapping[str, int]) -> datetime | None:
    """Return when the newest of these entries was recorded."""
    e = entries.c
    found = [
        connection.execute(
            select(e.recorded_at).where(e.pool_id == pool_id, e.seq == ends[name])
        ).scalar_one()
        for pool_id, name in scope.pools.items()
        if name in ends
    ]
    return from_micros(max(found)) if found else None


def _ends(scope: Scope, newest: Mapping[str, int], up_to: Mapping[str, int]) -> dict[str, int]:
    check_type("up_to", up_to, Mapping)
    for name, seq in up_to.items():
        check_amount("up_to", seq, ceiling=I64_MAX)
        if name not in scope.pools.values():
            raise InvalidInputError("up_to", f"pool {name!r} is not among those exported")
        if not 1 <= seq <= newest.get(name, 0):
            raise InvalidInputError(
                "up_to", f"pool {name!r} has entries 1 to {newest.get(name, 0)}, and no {seq}"
            )
    return {name: up_to.get(name, seq) for name, seq in newest.items()}
