"""Do a batch of operations, on one pool or on several, inside one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from ledger.core.checks import Micros
from ledger.core.entries import EntryKind, PoolId, ThresholdCrossing
from ledger.engine.batch import Table
from ledger.engine.expiry import expire
from ledger.engine.operations.base import Operation
from ledger.engine.pool_batch import Desk
from ledger.engine.rollover import roll_over
from ledger.errors import LedgerError
from ledger.store import journal
from ledger.store.journal import Ending, PoolJournal, Wanted
from ledger.store.rows import Memo, Row

Outcome = Row | LedgerError
"""What became of an operation: its entry, or why it has none."""


_TAKES = {
    EntryKind.RESERVATION,
    EntryKind.DENIAL,
    EntryKind.OBSERVATION,
    EntryKind.RENEWAL,
    EntryKind.THRESHOLD,
}
"""The kinds of entries that give nothing back."""


class Done(NamedTuple):
    """What a batch came to."""

    outcomes: list[Outcome]
    memos: list[tuple[PoolJournal, Memo]]
    expired: Mapping[PoolId, int]
    """How many leases of each pool were found due."""
    freed: frozenset[PoolId]
    """The pools that got capacity back, or another policy."""
    crossed: list[ThresholdCrossing]
    """Thresholds that were crossed, pool by pool in order."""

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
            the lock can be used to collect them. They are on these pools, or on others that the
            transaction happens to be alone on, too.
        now: Asked for the time when the lock is there and the operations are: entries that had
            to wait must not look older than the calls they are of.
        look_up: Whether an earlier try of the same batch may have taken effect.
    """
    table, todo = lay(connection, pools, calls, now=now, look_up=look_up)
    outcomes: list[Outcome] = []
    for pool, operation in todo:
        try:
            outcomes.append(table.desk(pool.info.pool_id).do(operation))
        except LedgerError as refusal:
            outcomes.append(refusal)
    return finish(table, outcomes)


def finish(table: Table, outcomes: list[Outcome], *, also: Sequence[Row] = ()) -> Done:
    """Write what is staged on every desk, and other rows, and return what it comes to."""
    desks = table.desks.values()
    journal.append(table.connection, [*(row for desk in desks for row in desk.staged), *also])
    return Done(
        outcomes,
        [(desk.pool, desk.memo()) for desk in desks],
        {pool_id: desk.expired for pool_id, desk in table.desks.items()},
        frozenset(pool_id for pool_id, desk in table.desks.items() if _frees(desk.staged)),
        [crossing for desk in desks for crossing in desk.watch.crossed],
    )


def _frees(staged: Sequence[Row]) -> bool:
    return any(row["kind"] not in _TAKES for row in staged)


def lay(
    connection: Connection,
    pools: Sequence[PoolJournal],
    calls: Callable[[], Sequence[Call]],
    *,
    now: Callable[[], Micros | None],
    look_up: bool,
) -> tuple[Table, Sequence[Call]]:
    """Lay out a desk for each pool, with all that the operations need, and expire what is due."""
    seen = journal.look(connection, pools, now())
    todo = calls()
    joined = {one.info.pool_id: one for pool, _ in todo for one in pool.lineage}
    others = [joined[pool_id] for pool_id in sorted(joined.keys() - seen.newest.keys())]
    if others:
        pools = [*pools, *others]
        seen = seen.with_others(journal.look(connection, others, seen.now))
    seen = journal.recall(connection, pools, seen)
    table = Table(connection, now() or seen.now)
    for pool in pools:
        pool_id = pool.info.pool_id
        try:
            head = pool.head_from(connection, seen.newest[pool_id])
            table.desks[pool_id] = Desk(table, pool, head, seen.quiet_until(pool))
        except LedgerError as error:
            table.damaged[pool_id] = error
    due = {pool.info.pool_id: seen.due(pool) for pool in pools}
    _read(table, todo, due, look_up=look_up)
    about: defaultdict[PoolId, set[int]] = defaultdict(set)
    for pool, operation in todo:
        if operation.lease_id:
            about[pool.info.pool_id].add(operation.lease_id)
    until = min(seen.now, table.now)
    for pool_id, desk in table.desks.items():
        if not any(above.info.pool_id in table.damaged for above in desk.pool.lineage):
            expire(desk, due[pool_id], spared=about[pool_id], until=until)
    for desk in table.desks.values():
        roll_over(desk)
    return table, todo


def _read(
    table: Table, todo: Sequence[Call], due: Mapping[PoolId, Sequence[Ending]], *, look_up: bool
) -> None:
    """Lay on the desks what the operations need to see: earlier outcomes, and leases."""
    by_pool: defaultdict[PoolId, list[Operation[Any]]] = defaultdict(list)
    for pool, operation in todo:
        by_pool[pool.info.pool_id].append(operation)
    missing: list[Wanted] = []
    for pool_id, desk in table.desks.items():
        keys = {one.key for one in by_pool[pool_id] if one.key_given or look_up}
        desk.known = desk.pool.by_keys(table.connection, keys)
        wanted = {
            one.lease_id
            for one in by_pool[pool_id]
            if one.lease_id is not None and one.key not in desk.known
        } | {one.lease for one in due[pool_id]}
        desk.leases |= desk.pool.remembered(wanted)
        missing += [Wanted(desk.pool, lease) for lease in sorted(wanted - desk.leases.keys())]
        for pool in desk.pool.lineage[1:]:
            above = table.desks.get(pool.info.pool_id)
            if above is not None:
                missing += _recall_mirrors(above, pool_id, wanted)
    found = journal.leases(table.connection, missing)
    for asked, row in zip(missing, found, strict=True):
        table.desks[asked.pool.info.pool_id].lay(asked, row)


def _recall_mirrors(desk: Desk, pool_id: PoolId, leases: set[int]) -> list[Wanted]:
    """Lay on a desk what is remembered of the leases of a pool below; return what is not."""
    missing = []
    for lease in sorted(leases):
        own = desk.pool.mirror(pool_id, lease)
        remembered = {} if own is None else desk.pool.remembered([own])
        if own is None or not remembered:
            missing.append(Wanted(desk.pool, lease, pool_id))
        else:
            desk.leases |= remembered
            desk.mirrors[pool_id, lease] = own
    return missing
