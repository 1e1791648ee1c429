"""Copies of a whole store into another database, possibly of another kind, row by row.

Rows are only appended, so an earlier copy can be continued. Numbers, identities and hashes are
kept: the copy is the same store. Writers of the source need not stop meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from sqlalchemy import Column, Connection, Table, bindparam, select

from ledger.core.checks import I64_MAX
from ledger.core.entries import PoolId
from ledger.core.errors import InvalidInputError, LedgerUnavailableError, OutcomeUnknownError
from ledger.store import migrate, pools, schema
from ledger.store.anchors import Anchor
from ledger.store.audit import require_all_visible
from ledger.store.database import Database
from ledger.store.pools import FoundPools, leave_out
from ledger.store.rows import Row
from ledger.store.statements import Prepared, rows_of_each
from ledger.store.verifications import Progress
from ledger.store.writing import Transaction

T = TypeVar("T")

COPIED_AT_ONCE = 2_000
"""How many rows are written in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """The result of a copy.

    Attributes:
        pools: How many pools the copy has.
        entries: How many entries were written to it.
        anchors: The newest entry of each pool in the copy, with its hash in the source.
    """

    pools: int
    entries: int
    anchors: Sequence[Anchor]


class _Numbered(NamedTuple):
    """A table in which the rows of each pool have numbers from 1 on."""

    table: Table
    number: Column[int]
    proof: Column[bytes]
    """The column that tells two rows of one number apart."""

    def newest(self) -> Prepared:
        """Return the query for a pool's row with the highest number, up to one."""
        t = self.table.c
        return Prepared(
            select(self.number.label("number"), self.proof.label("proof"))
            .where(t.pool_id == bindparam("pool_id"), self.number <= bindparam("upto"))
            .order_by(self.number.desc())
            .limit(1)
        )

    def rows(self) -> Prepared:
        """Return the query for a pool's rows from one number to another."""
        t = self.table.c
        return Prepared(
            select(*t)
            .where(
                t.pool_id == bindparam("pool_id"),
                self.number >= bindparam("after"),
                self.number <= bindparam("upto"),
            )
            .order_by(self.number)
        )


# Attributions come first, since entries name them.
_ATTRIBUTIONS = _Numbered(
    schema.attributions, schema.attributions.c.attribution_id, schema.attributions.c.digest
)
_ENTRIES = _Numbered(schema.entries, schema.entries.c.seq, schema.entries.c.hash)
_POOLS = select(schema.pools).order_by(schema.pools.c.pool_id)


class _Newest(NamedTuple):
    """A pool's newest row: its number and its proof."""

    number: int
    proof: bytes


_Numbers = Mapping[PoolId, _Newest]
"""The newest row of each pool; pools without rows are left out."""


def copy(
    source: Database,
    target: Database,
    *,
    partitions: int | None = None,
    progress: Progress | None = None,
) -> Copied:
    """Copy every row that the target lacks, up to one moment of the source.

    The target's pools can be found only once all of their entries are there.

    Args:
        source: The store.
        target: An empty database, or an earlier copy of that store to which nothing was written.
        partitions: By how many partitions the copy is divided; see `migrate.upgrade`.
        progress: Called with the number of entries copied since its previous call.

    Raises:
        InvalidInputError: The target is another store, or was written to since it was copied.
        JournalDamagedError: The row of a pool in the source cannot be read.
        SchemaVersionError: One of them has another schema than this version of the library.
        NotPermittedError: Row-level security hides pools of the source.
        LedgerUnavailableError: One of them cannot be reached, read or written.
    """
    migrate.require_current(source, create=False)
    files = set(source.dialect.files())
    if source.url == target.url or files.intersection(target.dialect.files()):
        raise InvalidInputError(
            "target", f"{target.url} is the store itself; name an empty database"
        )
    require_all_visible(source, "copy a store")
    identity = source.read(pools.store_identity, serializable=False)
    if migrate.current(target) is None:
        migrate.upgrade(target, identity=identity, partitions=partitions)
    migrate.require_current(target, create=False)
    if partitions is not None:  # an earlier copy has as many partitions, or it is refused
        migrate.upgrade(target, partitions=partitions)
    if target.read(pools.store_identity, serializable=False) != identity:
        raise InvalidInputError(
            "target",
            f"{target.url} is another store than {source.url}, with an identity of its own; name "
            "an empty database, and do not run 'ledger db upgrade' there before",
        )
    found, rows, attributions, entries = source.read(_standing, serializable=False)
    leave_out(found.damaged.values(), None)
    target.read(lambda connection: _new_pools(connection, target, rows), serializable=False)
    copied = 0
    for one, ours in ((_ATTRIBUTIONS, attributions), (_ENTRIES, entries)):
        there = target.read(partial(_newest, one, list(ours)), serializable=False)
        for some in _pages(there, ours):
            written = _append(source, target, one, some)
            if one is _ENTRIES:
                copied += written
                if progress is not None:
                    progress(sum(upto - after for _, after, upto in some))
    _add_pools(target, rows)
    names = {info.pool_id: info.name for info in found.infos}
    anchors = [
        Anchor(pool=names[pool_id], seq=seq, hash=proof)
        for pool_id, (seq, proof) in entries.items()
    ]
    return Copied(pools=len(names), entries=copied, anchors=anchors)


def _standing(connection: Connection) -> tuple[FoundPools, list[Row], _Numbers, _Numbers]:
    """Return the pools, their rows, and their newest attributions and entries, at one moment."""
    found = pools.find_pools(connection)
    rows: list[Row] = [dict(row) for row in connection.execute(_POOLS).mappings()]
    ids = [info.pool_id for info in found.infos]
    attributions, entries = (_newest(one, ids, connection) for one in (_ATTRIBUTIONS, _ENTRIES))
    return found, rows, attributions, entries


def _newest(one: _Numbered, ids: Sequence[PoolId], connection: Connection) -> _Numbers:
    return _newest_upto(one, dict.fromkeys(ids, I64_MAX), connection)


def _newest_upto(one: _Numbered, upto: Mapping[PoolId, int], connection: Connection) -> _Numbers:
    query = one.newest()
    asked = [(query, {"pool_id": pool_id, "upto": number}) for pool_id, number in upto.items()]
    read = rows_of_each(connection, asked)
    return {
        pool_id: _Newest(rows[0]["number"], rows[0]["proof"])
        for pool_id, rows in zip(upto, read, strict=True)
        if rows
    }


class _Part(NamedTuple):
    """The rows of one pool with numbers above `after`, up to `upto`."""

    pool_id: PoolId
    after: int
    upto: int


def _pages(there: _Numbers, newest: _Numbers) -> Iterator[list[_Part]]:
    """Yield the missing rows, in parts of at most `COPIED_AT_ONCE` numbers together.

    A pool of which nothing is missing gets a part without rows, to be compared with the source.
    """
    page: list[_Part] = []
    room = COPIED_AT_ONCE
    for pool_id, (upto, _) in newest.items():
        after = there[pool_id].number if pool_id in there else 0
        if after >= upto:
            page.append(_Part(pool_id, after, after))
        while after < upto:
            part = _Part(pool_id, after, min(upto, after + room))
            page.append(part)
            room -= part.upto - after
            after = part.upto
            if room == 0:
                yield page
                page, room = [], COPIED_AT_ONCE
    if page:
        yield page


def _append(source: Database, target: Database, one: _Numbered, parts: Sequence[_Part]) -> int:
    """Append rows that are not there yet, in one transaction, and return their number.

    Raises:
        InvalidInputError: The row before them differs from the source's.
    """
    query = one.rows()
    # The row before the part is read, too, since the target's must be the same.
    read = source.read_each([(query, part._asdict()) for part in parts])
    names = tuple(column.name for column in one.table.columns)

    def append(connection: Connection) -> int:
        there = _newest_upto(one, {part.pool_id: part.upto for part in parts}, connection)
        missing = []
        for part, rows in zip(parts, read, strict=True):
            at = there.get(part.pool_id, _NOTHING)
            proofs = {row[one.number.name]: row[one.proof.name] for row in rows}
            if at.number < part.after or proofs.get(at.number, b"") != at.proof:
                raise _written_to(target, f"{one.table.name} of pool {part.pool_id}")
            missing += [tuple(row.values()) for row in rows if row[one.number.name] > at.number]
        if missing:
            target.dialect.insert(connection, one.table.name, names, missing)
        return len(missing)

    return _written(target, [part.pool_id for part in parts], append)


_NOTHING = _Newest(0, b"")


def _new_pools(connection: Connection, target: Database, rows: Sequence[Row]) -> list[Row]:
    """Return the pools of the source that the target lacks.

    Raises:
        InvalidInputError: The target has a pool that the source does not have.
    """
    ours = {row["pool_id"]: row for row in rows}
    there = [dict(row) for row in connection.execute(_POOLS).mappings()]
    for row in there:
        if ours.get(row["pool_id"]) != row:
            raise _written_to(target, f"pool {row['name']!r}")
    known = {row["pool_id"] for row in there}
    return [row for row in rows if row["pool_id"] not in known]


def _add_pools(target: Database, rows: Sequence[Row]) -> None:
    def add(connection: Connection) -> None:
        missing = [tuple(row.values()) for row in _new_pools(connection, target, rows)]
        if missing:
            names = tuple(column.name for column in schema.pools.columns)
            target.dialect.insert(connection, schema.pools.name, names, missing)

    _written(target, [row["pool_id"] for row in rows], add)


def _written_to(target: Database, what: str) -> InvalidInputError:
    return InvalidInputError(
        "target",
        f"{target.url} was written to since it was copied: {what} is not as in the source. Go on "
        "with one of the two stores, and copy into an empty database",
    )


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
            try:
                repeated = transaction.is_repeated(error)
            except OutcomeUnknownError as unknown:
                raise LedgerUnavailableError(
                    f"whether the newest rows are in {target.url} is not known; run the copy "
                    "again, which goes on where it stands"
                ) from unknown
            if not repeated:
                raise
