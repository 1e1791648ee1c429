"""The questions of an auditor: the entries, their number, and whether all of them verify."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial

from sqlalchemy import Connection, select

from ledger.core.entries import Entry
from ledger.core.errors import LedgerUnavailableError, NotPermittedError
from ledger.core.hashing import genesis as genesis_of
from ledger.core.kinds import EntryKind
from ledger.store import pools, verifications, verify
from ledger.store.anchors import Anchor
from ledger.store.database import Database
from ledger.store.dialects.indexes import is_damage
from ledger.store.directory import Directory
from ledger.store.journal import PoolJournal
from ledger.store.keys import made_keys
from ledger.store.rows import UNREADABLE, row_hash
from ledger.store.schema import entries as table
from ledger.store.schema import pools as pools_table
from ledger.store.verifications import Damage, Progress, Verification

OTHER_STORE = (
    "written in another store: no pool's first hash fits this store's identity. A backup's data "
    "was restored into the schema of a new store; restore the whole backup, with its schema, into "
    "an empty database, or its data alone after 'ledger db upgrade --for-restore'"
)
"""The cause if every pool is damaged at its first entry."""
CHANGED_OR_OTHER_STORE = (
    f"{verify.CHANGED}; or a backup's data was restored into the schema of a new store"
)
"""The two possible causes if there is one pool and it is damaged at its first entry."""

_OPENINGS = (
    select(
        table, pools_table.c.identity.label("pool_identity"), pools_table.c.name.label("pool_name")
    )
    .join(pools_table, pools_table.c.pool_id == table.c.pool_id)
    .where(table.c.seq == 1)
    .order_by(table.c.pool_id)
)


def entries(
    database: Database, pool: PoolJournal, *, after: int, kind: EntryKind | None
) -> Iterator[Entry]:
    """Yield a pool's entries after a number, of one kind or of all, in bounded memory."""
    for row in verify.stream(database, pool, after=after, kind=kind):
        yield verify.entry_of(pool, row)


def entry_with_key(database: Database, pool: PoolJournal, key: str) -> Entry | None:
    """Return the entry with an idempotency key, None if there is none."""
    made = made_keys(key)
    rows = database.read(
        lambda connection: pool.by_keys(connection, [key], made), serializable=False
    )
    row = next(iter(rows.values()), None)
    return None if row is None else verify.entry_of(pool, row)


def pools_of_another_store(connection: Connection, store: bytes) -> int:
    """Return the number of pools if none of their first entries was written in this store, else 0.

    Above 0, data was restored without its schema into a schema that had an identity of its own; or
    there is one pool and its first entry was changed. It is 0 if a first entry cannot be read.
    """
    count = 0
    for query in (_OPENINGS.limit(1), _OPENINGS):  # nearly always the first pool answers it
        rows = connection.execute(query).mappings().all()
        if not (count := len(rows)):
            break
        for row in rows:
            try:
                genesis = genesis_of(store=store, pool=row["pool_identity"], name=row["pool_name"])
                if row["hash"] == row_hash(genesis, dict(row), None):
                    return 0
            except UNREADABLE:
                return 0
    return count


def explained(database: Database, store: bytes, found: list[Verification]) -> list[Verification]:
    """Return what verifying pools found, with the one cause if no pool is of this store."""
    first = Damage(seq=1, reason=verify.CHANGED)
    if first not in (one.damage for one in found):
        return found
    count = database.read(partial(pools_of_another_store, store=store), serializable=False)
    if not count:
        return found
    cause = Damage(seq=1, reason=OTHER_STORE if count > 1 else CHANGED_OR_OTHER_STORE)
    return [replace(one, damage=cause) if one.damage == first else one for one in found]


def require_all_visible(database: Database, operation: str) -> None:
    """Make sure that the role in use sees the rows of every pool.

    Raises:
        NotPermittedError: The database may hide some of them.
    """
    hidden = database.read(database.dialect.hides, serializable=False)
    if hidden:
        raise NotPermittedError(
            role=None,
            operation=operation,
            reason=f"row-level security hides rows of {', '.join(hidden)} from it; name one pool, "
            "or take a role with BYPASSRLS",
        )


def verify_all(
    database: Database,
    directory: Directory,
    *,
    expect: Collection[Anchor],
    progress: Progress | None,
) -> list[Verification]:
    """Verify every pool; also that each pool with an anchor exists, and each entry has a pool.

    Last comes what the database finds in its indexes, since a report may read nothing but an index.

    Raises:
        NotPermittedError: The database may hide pools from the role in use.
    """
    require_all_visible(database, "verify all pools")
    known, rest = database.read(directory.all)
    found = [verify.verify(database, one, expect=expect, progress=progress) for one in known]
    found += [verifications.unreadable(pool_id, error) for pool_id, error in rest.damaged.items()]
    reason = None
    try:
        strays = database.read(pools.stray_pool_ids, serializable=False)
        found += [verifications.stray(pool_id) for pool_id in strays]
        reason = database.read(database.dialect.index_damage, serializable=False)
    except LedgerUnavailableError as error:
        if not is_damage(error.__cause__):
            raise
        reason = str(error)
    there = {one.pool.name for one in found}
    gone = dict.fromkeys(one.pool for one in expect if one.pool not in there)
    found += [verifications.absent(name) for name in gone]
    return found if reason is None else [*found, verifications.of_indexes(reason)]


def size(database: Database, pool: PoolJournal | None) -> int:
    """Return how many entries a pool has, or all pools together, from the newest numbers."""
    one = None if pool is None else [pool.info.pool_id]
    newest = database.read(
        lambda connection: pools.newest_seqs(connection, one), serializable=False
    )
    return sum(seq for seq in newest.values() if type(seq) is int)
