"""Do a batch of operations, on one pool or on several, inside one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from ledger.core.checks import Micros
from ledger.core.entries import EntryKind, PoolId, ThresholdCrossing
from ledger.engine.batch import Batch
from ledger.engine.expiry import expire
from ledger.engine.operations.base import Operation
from ledger.engine.pool_batch import PoolBatch
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
    batch, todo = prepare(connection, pools, calls, now=now, look_up=look_up)
    outcomes: list[Outcome] = []
    for pool, operation in todo:
        try:
            outcomes.append(batch.pool_batch(pool.info.pool_id).do(operation))
        except LedgerError as refusal:
            outcomes.append(refusal)
    return finish(batch, outcomes)


def finish(batch: Batch, outcomes: list[Outcome], *, also: Sequence[Row] = ()) -> Done:
    """Write what is staged on every pool's part, and other rows, and return what it comes to."""
    pool_batches = batch.pools.values()
    journal.append(
        batch.connection,
        [*(row for pool_batch in pool_batches for row in pool_batch.staged), *also],
    )
    return Done(
        outcomes,
        [(pool_batch.pool, pool_batch.memo()) for pool_batch in pool_batches],
        {pool_id: pool_batch.expired for pool_id, pool_batch in batch.pools.items()},
        frozenset(
            pool_id for pool_id, pool_batch in batch.pools.items() if _frees(pool_batch.staged)
        ),
        [crossing for pool_batch in pool_batches for crossing in pool_batch.thresholds.crossed],
    )


def _frees(staged: Sequence[Row]) -> bool:
    return any(row["kind"] not in _TAKES for row in staged)


def prepare(
    connection: Connection,
    pools: Sequence[PoolJournal],
    calls: Callable[[], Sequence[Call]],
    *,
    now: Callable[[], Micros | None],
    look_up: bool,
) -> tuple[Batch, Sequence[Call]]:
    """Read what each pool's operations need, and expire what is due."""
    seen = journal.look(connection, pools, now())
    todo = calls()
    joined = {one.info.pool_id: one for pool, _ in todo for one in pool.lineage}
    others = [joined[pool_id] for pool_id in sorted(joined.keys() - seen.newest.keys())]
    if others:
        pools = [*pools, *others]
        seen = seen.with_others(journal.look(connection, others, seen.now))
    seen = journal.recall(connection, pools, seen)
    batch = Batch(connection, now() or seen.now)
    for pool in pools:
        pool_id = pool.info.pool_id
        try:
            head = pool.head_from(connection, seen.newest[pool_id])
            batch.pools[pool_id] = PoolBatch(batch, pool, head, seen.quiet_until(pool))
        except LedgerError as error:
            batch.damaged[pool_id] = error
    due = {pool.info.pool_id: seen.due(pool) for pool in pools}
    _read(batch, todo, due, look_up=look_up)
    about: defaultdict[PoolId, set[int]] = defaultdict(set)
    for pool, operation in todo:
        if operation.lease_id:
            about[pool.info.pool_id].add(operation.lease_id)
    until = min(seen.now, batch.now)
    for pool_id, pool_batch in batch.pools.items():
        if not any(above.info.pool_id in batch.damaged for above in pool_batch.pool.lineage):
            expire(pool_batch, due[pool_id], spared=about[pool_id], until=until)
    for pool_batch in batch.pools.values():
        roll_over(pool_batch)
    return batch, todo


def _read(
    batch: Batch, todo: Sequence[Call], due: Mapping[PoolId, Sequence[Ending]], *, look_up: bool
) -> None:
    """Read what the operations need to see: earlier outcomes, and leases."""
    by_pool: defaultdict[PoolId, list[Operation[Any]]] = defaultdict(list)
    for pool, operation in todo:
        by_pool[pool.info.pool_id].append(operation)
    missing: list[Wanted] = []
    for pool_id, pool_batch in batch.pools.items():
        keys = {one.key for one in by_pool[pool_id] if one.key_given or look_up}
        pool_batch.known = pool_batch.pool.by_keys(batch.connection, keys)
        wanted = {
            one.lease_id
            for one in by_pool[pool_id]
            if one.lease_id is not None and one.key not in pool_batch.known
        } | {one.lease for one in due[pool_id]}
        pool_batch.leases |= pool_batch.pool.remembered(wanted)
        missing += [
            Wanted(pool_batch.pool, lease) for lease in sorted(wanted - pool_batch.leases.keys())
        ]
        for pool in pool_batch.pool.lineage[1:]:
            above = batch.pools.get(pool.info.pool_id)
            if above is not None:
                missing += _recall_mirrors(above, pool_id, wanted)
    found = journal.leases(batch.connection, missing)
    for asked, row in zip(missing, found, strict=True):
        batch.pools[asked.pool.info.pool_id].put_lease(asked, row)


def _recall_mirrors(pool_batch: PoolBatch, pool_id: PoolId, leases: set[int]) -> list[Wanted]:
    """Take over what is remembered of the leases of a pool below; return what is not."""
    missing = []
    for lease in sorted(leases):
        own = pool_batch.pool.mirror(pool_id, lease)
        remembered = {} if own is None else pool_batch.pool.remembered([own])
        if own is None or not remembered:
            missing.append(Wanted(pool_batch.pool, lease, pool_id))
        else:
            pool_batch.leases |= remembered
            pool_batch.mirrors[pool_id, lease] = own
    return missing
