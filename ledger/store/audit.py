"""What an auditor asks of the journals: their entries, their number, and whether all verify."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ledger.core.entries import Entry
from ledger.core.kinds import EntryKind
from ledger.errors import NotPermittedError
from ledger.store import pools, verify
from ledger.store.anchors import Anchor
from ledger.store.database import Database
from ledger.store.directory import Directory
from ledger.store.journal import PoolJournal
from ledger.store.keys import made_keys
from ledger.store.verify import Progress, Verification


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


def verify_all(
    database: Database,
    directory: Directory,
    *,
    expect: Collection[Anchor],
    progress: Progress | None,
) -> list[Verification]:
    """Verify every pool, that each is there that has an anchor, and that each entry is in one.

    Raises:
        NotPermittedError: The database may hide pools from the role in use.
    """
    hidden = database.read(database.dialect.hides, serializable=False)
    if hidden:
        raise NotPermittedError(
            role=None,
            operation="verify all pools",
            reason=f"row-level security hides rows of {', '.join(hidden)} from it; name one pool, "
            "or take a role with BYPASSRLS",
        )
    known, rest = database.read(directory.all)
    found = [verify.verify(database, one, expect=expect, progress=progress) for one in known]
    found += [verify.unreadable(pool_id, error) for pool_id, error in rest.damaged.items()]
    strays = database.read(pools.stray_pool_ids, serializable=False)
    found += [verify.stray(pool_id) for pool_id in strays]
    there = {one.pool.name for one in found}
    gone = dict.fromkeys(one.pool for one in expect if one.pool not in there)
    return found + [verify.absent(name) for name in gone]


def size(database: Database, pool: PoolJournal | None) -> int:
    """Return how many entries a pool has, or all pools together, from the newest numbers."""
    one = None if pool is None else [pool.info.pool_id]
    newest = database.read(
        lambda connection: pools.newest_seqs(connection, one), serializable=False
    )
    return sum(seq for seq in newest.values() if type(seq) is int)
