"""Do a batch of operations, on one pool or on several, inside one transaction."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from ledger import journal
from ledger.checks import Micros
from ledger.errors import JournalDamagedError, LedgerError
from ledger.journal import Due, PoolJournal
from ledger.operations.base import Desk, Operation
from ledger.operations.expire import expire
from ledger.operations.rollover import roll_over
from ledger.records import PoolId
from ledger.rows import Memo, Row

Outcome = Row | LedgerError
"""What became of an operation: its entry, or why it has none."""


class Done(NamedTuple):
    """What a batch came to."""

    outcomes: list[Outcome]
    memos: list[tuple[PoolJournal, Memo]]
    expired: int
    """How many leases were found due."""

    def remember(self) -> None:
        """Let each pool's journal keep what the batch knows; only once it is committed."""
        for pool, memo in self.memos:
            pool.remember(memo)


Call = tuple[PoolJournal, Operation[Any]]
"""An operation, and the pool it is done on."""


def perform(
    connection: Connection,
    pools: Sequence[PoolJournal],
    calls: Callable[[], Sequence[Call]],
    *,
    now: Callable[[], Micros | None],
    look_up: bool,
) -> Done:
    """Do operations in order, in the transaction that is open, and return their outcomes.

    Each pool's newest entry is read once; each operation is decided on what the one before it
    left behind; one operation's refusal does not touch another.

    Args:
        connection: The transaction.
        pools: The pools that it is alone on.
        calls: Asked for the operations once the newest entries are read, so that the wait for
            the lock can be used to collect them. They are on these pools.
        now: Asked for the time when the lock is there and the operations are: entries that had
            to wait must not look older than the calls they are of.
        look_up: Whether an earlier try of the same batch may have taken effect.
    """
    seen = journal.look(connection, pools, now())
    todo = calls()
    journal.recall(connection, list(zip(pools, seen.newest, strict=True)))
    recorded_at = now() or seen.now
    desks: dict[PoolId, Desk] = {}
    damaged: dict[PoolId, LedgerError] = {}
    for pool, newest in zip(pools, seen.newest, strict=True):
        try:
            head = pool.head_from(connection, newest)
        except LedgerError as error:
            damaged[pool.info.pool_id] = error
        else:
            desks[pool.info.pool_id] = Desk(connection, pool, head, recorded_at)
    due = {pool.info.pool_id: found for pool, found in zip(pools, seen.due, strict=True)}
    _read(connection, desks, todo, due, look_up=look_up)
    for pool_id, desk in desks.items():
        spared = {one.lease_id for pool, one in todo if pool is desk.pool and one.lease_id}
        expire(desk, due[pool_id], spared=spared, until=seen.now)
        roll_over(desk)
    outcomes: list[Outcome] = []
    for pool, operation in todo:
        pool_id = pool.info.pool_id
        try:
            if pool_id in damaged:
                raise copy.copy(damaged[pool_id])
            outcomes.append(desks[pool_id].do(operation))
        except LedgerError as refusal:
            outcomes.append(refusal)
    journal.append(connection, [row for desk in desks.values() for row in desk.staged])
    return Done(
        outcomes,
        [(desk.pool, desk.memo()) for desk in desks.values()],
        sum(desk.expired for desk in desks.values()),
    )


def _read(
    connection: Connection,
    desks: Mapping[PoolId, Desk],
    todo: Sequence[Call],
    due: Mapping[PoolId, Sequence[Due]],
    *,
    look_up: bool,
) -> None:
    """Lay on the desks what the operations need to see: earlier outcomes, and leases."""
    by_pool: defaultdict[PoolId, list[Operation[Any]]] = defaultdict(list)
    for pool, operation in todo:
        by_pool[pool.info.pool_id].append(operation)
    missing: list[tuple[Desk, int]] = []
    for pool_id, desk in desks.items():
        keys = {one.key for one in by_pool[pool_id] if one.key_given or look_up}
        desk.known = desk.pool.by_keys(connection, keys)
        wanted = {
            one.lease_id
            for one in by_pool[pool_id]
            if one.lease_id is not None and one.key not in desk.known
        } | {one.lease for one in due[pool_id]}
        desk.leases = desk.pool.remembered(wanted)
        missing += [(desk, lease) for lease in sorted(wanted - desk.leases.keys())]
    found = journal.leases(connection, [(desk.pool, lease) for desk, lease in missing])
    for (desk, lease), row in zip(missing, found, strict=True):
        if isinstance(row, JournalDamagedError):
            desk.damaged[lease] = row
        elif row is not None:
            desk.leases[lease] = row
