"""Copies of a whole store into another database, also of the other kind, row by row.

Rows are only appended, so a copy that was begun earlier is gone on with. Numbers, identities and
hashes stay: the copy is the same store. Writers on the source need not stop meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Column, Connection, Table, bindparam, func, select

from ledger.core.entries import PoolId
from ledger.errors import InvalidInputError
from ledger.store import migrate, pools, schema
from ledger.store.anchors import Anchor
from ledger.store.audit import require_all_visible
from ledger.store.database import Database, Transaction
from ledger.store.pools import Found, leave_out
from ledger.store.rows import Row
from ledger.store.statements import Prepared, rows_of_each
from ledger.store.verify import Progress

T = TypeVar("T")

PAGE = 2_000
"""How many rows are written in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a copy came to.

    Attributes:
        pools: How many pools the copy has.
        entries: How many entries were written to it.
        anchors: The newest entry of each pool in the copy, with its hash in the source.
    """

    pools: int
    entries: int
    anchors: Sequence[Anchor]


class _Numbered(NamedTuple):
    """A table of which each pool has rows with numbers from 1 on."""

    table: Table
    number: Column[int]

    def newest(self) -> Prepared:
        """Return the query for a pool's highest number."""
        t = self.table.c
        return Prepared(
            select(func.max(self.number).label("number")).where(t.pool_id == bindparam("pool_id"))
        )

    def rows(self) -> Prepared:
        """Return the query for a pool's rows above one number, up to another."""
        t = self.table.c
        return Prepared(
            select(*t)
            .where(
                t.pool_id == bindparam("pool_id"),
                self.number > bindparam("after"),
                self.number <= bindparam("upto"),
            )
            .order_by(self.number)
        )


# Attributions come first, since entries name them.
_ATTRIBUTIONS = _Numbered(schema.attributions, schema.attributions.c.attribution_id)
_ENTRIES = _Numbered(schema.entries, schema.entries.c.seq)
_HASH = Prepared(
    select(schema.entries.c.hash).where(
        schema.entries.c.pool_id == bindparam("pool_id"), schema.entries.c.seq == bindparam("seq")
    )
)

_Numbers = Mapping[PoolId, int]
"""The highest number of each pool; pools without rows are left out."""


def copy(source: Database, target: Database, *, progress: Progress | None = None) -> Copied:
    """Copy every row that the target lacks, up to one moment of the source.

    The target's pools can be found only once all of their entries are there.

    Args:
        source: The store.
        target: An empty database, or an earlier copy of that store to which nothing was written.
        progress: Called with how many more entries are there, out of those at that moment.

    Raises:
        InvalidInputError: The target is another store, or was written to since it was copied.
        JournalDamagedError: The row of a pool in the source cannot be read.
        SchemaVersionError: One of them has another schema than this version of the library.
        NotPermittedError: Row-level security hides pools of the source.
        LedgerUnavailableError: One of them cannot be reached, read or written.
    """
    migrate.require_current(source, create=False)
    require_all_visible(source, "copy a store")
    identity = source.read(pools.store_identity, serializable=False)
    if migrate.current(target) is None:
        migrate.upgrade(target, identity=identity)
    migrate.require_current(target, create=False)
    if target.read(pools.store_identity, serializable=False) != identity:
        raise InvalidInputError(
            "target",
            f"{target.url} is another store than {source.url}, with an identity of its own; name "
            "an empty database, and do not run 'ledger db upgrade' there before",
        )
    found, rows, attributions, entries = source.read(_standing, serializable=False)
    leave_out(found.damaged.values(), None)
    names = {info.pool_id: info.name for info in found.infos}
    there = target.read(partial(_newest, _ENTRIES, list(names)), serializable=False)
    _check_continued(source, target, names, there)
    known = target.read(partial(_newest, _ATTRIBUTIONS, list(names)), serializable=False)
    for some in _pages(known, attributions):
        _append(target, _ATTRIBUTIONS, _rows(source, _ATTRIBUTIONS, some))
    copied = 0
    for some in _pages(there, entries):
        copied += _append(target, _ENTRIES, _rows(source, _ENTRIES, some))
        if progress is not None:
            progress(sum(upto - after for _, after, upto in some))
    _add_pools(target, rows)
    hashes = source.read(partial(_hashes, entries), serializable=False)
    anchors = [
        Anchor(pool=names[pool_id], seq=seq, hash=hashes[pool_id])
        for pool_id, seq in entries.items()
    ]
    return Copied(pools=len(names), entries=copied, anchors=anchors)


def _standing(connection: Connection) -> tuple[Found, list[Row], _Numbers, _Numbers]:
    """Return the pools, their rows, and their newest attributions and entries, at one moment."""
    found = pools.find_pools(connection)
    rows: list[Row] = [dict(row) for row in connection.execute(select(schema.pools)).mappings()]
    ids = [info.pool_id for info in found.infos]
    attributions, entries = (_newest(one, ids, connection) for one in (_ATTRIBUTIONS, _ENTRIES))
    return found, rows, attributions, entries


def _newest(one: _Numbered, ids: Sequence[PoolId], connection: Connection) -> _Numbers:
    query = one.newest()
    read = rows_of_each(connection, [(query, {"pool_id": pool_id}) for pool_id in ids])
    return {
        pool_id: row["number"]
        for pool_id, (row,) in zip(ids, read, strict=True)
        if row["number"] is not None
    }


def _hashes(at: _Numbers, connection: Connection) -> dict[PoolId, bytes]:
    asked = [(_HASH, {"pool_id": pool_id, "seq": seq}) for pool_id, seq in at.items()]
    read = rows_of_each(connection, asked)
    return {pool_id: rows[0]["hash"] for pool_id, rows in zip(at, read, strict=True) if rows}


def _check_continued(
    source: Database, target: Database, names: Mapping[PoolId, str], there: _Numbers
) -> None:
    ours = source.read(partial(_hashes, there), serializable=False)
    theirs = target.read(partial(_hashes, there), serializable=False)
    for pool_id, seq in there.items():
        if ours.get(pool_id) != theirs[pool_id]:
            raise InvalidInputError(
                "target",
                f"{target.url} was written to since it was copied: entry {seq} of pool "
                f"{names[pool_id]!r} is not in {source.url}. Go on with one of the two stores, and "
                "copy into an empty database",
            )


class _Part(NamedTuple):
    """Rows of one pool: those with a number above `after`, up to `upto`."""

    pool_id: PoolId
    after: int
    upto: int


def _pages(there: _Numbers, newest: _Numbers) -> Iterator[list[_Part]]:
    """Yield what is missing, in parts of at most `PAGE` numbers together."""
    page: list[_Part] = []
    room = PAGE
    for pool_id, upto in newest.items():
        after = there.get(pool_id, 0)
        while after < upto:
            part = _Part(pool_id, after, min(upto, after + room))
            page.append(part)
            room -= part.upto - after
            after = part.upto
            if room == 0:
                yield page
                page, room = [], PAGE
    if page:
        yield page


def _rows(source: Database, one: _Numbered, parts: Sequence[_Part]) -> list[tuple[Any, ...]]:
    query = one.rows()
    read = source.read_each([(query, part._asdict()) for part in parts])
    return [tuple(row.values()) for rows in read for row in rows]


def _append(target: Database, one: _Numbered, rows: Sequence[tuple[Any, ...]]) -> int:
    """Append rows that are not there yet, in one transaction, and return their number."""
    names = [column.name for column in one.table.columns]
    number = names.index(one.number.name)
    ids = sorted({row[0] for row in rows})

    def append(connection: Connection) -> int:
        there = _newest(one, ids, connection)
        missing = [row for row in rows if row[number] > there.get(row[0], 0)]
        if missing:
            target.dialect.insert(connection, one.table.name, names, missing)
        return len(missing)

    return _written(target, ids, append)


def _add_pools(target: Database, rows: Sequence[Row]) -> None:
    def add(connection: Connection) -> None:
        known = set(connection.execute(select(schema.pools.c.pool_id)).scalars())
        missing = [tuple(row.values()) for row in rows if row["pool_id"] not in known]
        if missing:
            names = [column.name for column in schema.pools.columns]
            target.dialect.insert(connection, schema.pools.name, names, missing)

    _written(target, [row["pool_id"] for row in rows], add)


def _written(target: Database, pool_ids: Sequence[int], work: Callable[[Connection], T]) -> T:
    """Run `work` in a transaction that locks these pools, until it is committed."""
    transaction = Transaction(target, key="copy")
    while True:
        try:
            try:
                connection = transaction.begin(pool_ids)
                done = work(connection)
                transaction.commit(connection)
                return done
            finally:
                target.give_back(transaction)
        except Exception as error:
            if not transaction.is_repeated(error):
                raise
