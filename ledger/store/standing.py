"""Where pools stand by now: their newest entries, as if what is due had expired."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from sqlalchemy import Connection

from ledger.core import rules
from ledger.core.checks import I64_MAX, Micros
from ledger.core.entries import PoolId, PoolInfo, Totals
from ledger.errors import JournalDamagedError
from ledger.store import pools, queries
from ledger.store.database import Database
from ledger.store.journal import PoolJournal
from ledger.store.rows import Head
from ledger.store.schema import pools as table
from ledger.store.statements import rows_of_each


def heads(database: Database, pool: PoolJournal, now: Micros | None) -> list[Head]:
    """Read a pool and those above that share with it, as the next write would find them.

    A lease that is due counts as expired, in the pools below, too. Where nothing can be due this is
    one read, in one round trip.

    Args:
        database: The store.
        pool: The pool.
        now: The time, or None for the store's.

    Raises:
        JournalDamagedError: A pool has no entry, or its policy cannot be read.
        LedgerUnavailableError: The store cannot be reached or read.
    """
    if len(pool.lineage) == 1:
        found = database.read_rows(queries.STANDING, _asked(pool, now))
        row = found[0] if found else None
        if row is None or not row["may_be_due"]:
            return [pool.head_of(database, row)]
    return database.read(lambda connection: _heads(connection, pool, now))


def _heads(connection: Connection, pool: PoolJournal, now: Micros | None) -> list[Head]:
    asked = [(queries.STANDING, _asked(one, now)) for one in pool.lineage]
    newest = [one[0] if one else None for one in rows_of_each(connection, asked)]
    found = [one.head_from(connection, row) for one, row in zip(pool.lineage, newest, strict=True)]
    if not any(row is not None and row["may_be_due"] for row in newest):
        return found
    held = {
        PoolId(row["pool_id"]): Totals(*(int(row[name]) for name in Totals._fields))
        for row in queries.DUE_HOLDS.rows(connection, _asked(pool.lineage[-1], now))
    }
    if not held:
        return found
    infos = {one.pool_id: one for one in pools.find_above(connection, table.c.pool_id, list(held))}
    here = [one.info.pool_id for one in pool.lineage]
    balances = {one: head.balance for one, head in zip(here, found, strict=True)}
    for pool_id, holds in held.items():
        # A pool that cannot be read cannot be swept either.
        with contextlib.suppress(JournalDamagedError):
            policy = PoolJournal(infos[pool_id], store=b"").head(connection).policy
            spent = rules.charged(policy.settlement, holds)
            for above in _line(pool_id, infos):
                if above in balances:
                    balances[above] = rules.swept(balances[above], holds, spent, ceiling=I64_MAX)
    return [head._replace(balance=balances[one]) for one, head in zip(here, found, strict=True)]


def _asked(pool: PoolJournal, now: Micros | None) -> dict[str, int | None]:
    return {"pool_id": pool.info.pool_id, "now": now}


def _line(pool_id: PoolId, infos: Mapping[PoolId, PoolInfo]) -> Iterator[PoolId]:
    """Yield a pool and those above it."""
    at: PoolId | None = pool_id
    while at is not None:
        yield at
        at = infos[at].parent_id
