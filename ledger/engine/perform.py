"""A batch of operations, on one pool or several, done inside one open transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from ledger.core import rules
from ledger.core.checks import Micros
from ledger.core.entries import PoolId, ThresholdCrossing
from ledger.core.kinds import GIVES_BACK, EntryKind
from ledger.engine.batch import Batch, UnsweptError
from ledger.engine.expiry import expire
from ledger.engine.operations.base import Operation
from ledger.engine.pool_batch import PoolBatch
from ledger.errors import IdempotencyConflictError, LedgerError
from ledger.store import journal, snapshot
from ledger.store.drafts import Draft, Staged
from ledger.store.journal import PoolJournal, Wanted
from ledger.store.rows import Memo, Row
from ledger.store.snapshot import Ending, Seen

Outcome = Row | LedgerError | None
"""An operation's result: its entry, the error why it has none, or None: it must be tried again."""


class Done(NamedTuple):
    """The result of a batch."""

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

    Each pool's newest entry is read once. Each operation is decided on the state that the one
    before it left. One operation's refusal does not affect the others.

    Args:
        connection: The transaction.
        pools: The pools that it has locked.
        calls: Returns the operations. It is called once the newest entries are read, so that calls
            made during the wait for the locks are included. They are on these pools, or on others
            that the transaction has locked, too.
        now: Returns the time. It is called again after the operations were collected: an entry
            must not look older than its call.
        look_up: Whether an earlier try of the same batch may have taken effect.
    """
    batch, todo = prepare(connection, pools, calls, now=now, look_up=look_up)
    outcomes: list[Outcome] = []
    for pool, operation in todo:
        try:
            outcomes.append(_do(batch, batch.pool(pool.info.pool_id), operation))
        except LedgerError as refusal:
            outcomes.append(refusal)
        except UnsweptError:
            outcomes.append(None)
    return finish(batch, outcomes)


def _do(batch: Batch, pool: PoolBatch, operation: Operation[Any]) -> Row:
    """Decide an operation, unless its key says that it was done, and return its entry.

    Raises:
        BudgetError: The rules refuse, and the refusal is not kept.
        IdempotencyConflictError: The key was used with other arguments.
        JournalDamagedError: The lease it is about cannot be read.
        MorePoolsError: It needs pools that this transaction has not begun on.
        UnsweptError: More leases must expire first than one transaction expires.
    """
    first = pool.known.get(operation.key)
    if first is not None:
        if first["payload_digest"] != operation.payload_digest():
            raise IdempotencyConflictError(operation.key, seq=first["seq"])
        return first
    batch.require_rolled_over(pool)
    pool.require_readable(operation.lease_id)
    row = batch.post(pool, operation.decide(batch, pool))
    pool.known[operation.key] = row
    return row


def finish(batch: Batch, outcomes: list[Outcome], *, also: Sequence[Staged] = ()) -> Done:
    """Write the rows that are staged in each pool, and others, and return the batch's result."""
    pools = batch.pools
    staged = [row for pool in pools.values() for row in pool.staged]
    journal.append(batch.connection, [*staged, *also])
    return Done(
        outcomes,
        [(pool.journal, pool.memo()) for pool in pools.values()],
        {pool_id: pool.expired for pool_id, pool in pools.items()},
        frozenset(pool_id for pool_id, pool in pools.items() if _frees(pool.staged)),
        [crossing for pool in pools.values() for crossing in pool.thresholds.crossed],
    )


def _frees(staged: Sequence[Row]) -> bool:
    return any(row["kind"] in GIVES_BACK for row in staged)


def prepare(
    connection: Connection,
    pools: Sequence[PoolJournal],
    calls: Callable[[], Sequence[Call]],
    *,
    now: Callable[[], Micros | None],
    look_up: bool,
) -> tuple[Batch, Sequence[Call]]:
    """Read what the operations need, expire due leases, and begin the windows of the current time.

    The arguments are those of `perform`.
    """
    seen = snapshot.look(connection, pools, now())
    todo = calls()
    joined = {one.info.pool_id: one for pool, _ in todo for one in pool.lineage}
    others = [joined[pool_id] for pool_id in sorted(joined.keys() - seen.newest.keys())]
    if others:
        pools = [*pools, *others]
        seen = seen.with_others(snapshot.look(connection, others, seen.now))
    seen = snapshot.recall(connection, pools, seen)
    batch = Batch(connection, now() or seen.now)
    for journal_of in pools:
        pool_id = journal_of.info.pool_id
        try:
            head = journal_of.head_from(connection, seen.newest[pool_id])
        except LedgerError as error:
            batch.damaged[pool_id] = error
            continue
        quiet_until = seen.quiet_until(journal_of)
        batch.pools[pool_id] = PoolBatch(
            connection, journal_of, head, now=batch.now, quiet_until=quiet_until
        )
    due = {one.info.pool_id: seen.due(one) for one in pools}
    _read(batch, todo, due, look_up=look_up)
    _bring_up_to_date(batch, todo, due, seen)
    return batch, todo


def _read(
    batch: Batch, todo: Sequence[Call], due: Mapping[PoolId, Sequence[Ending]], *, look_up: bool
) -> None:
    """Read what the operations need to see: earlier outcomes, and leases."""
    by_pool: defaultdict[PoolId, list[Operation[Any]]] = defaultdict(list)
    for asked, operation in todo:
        by_pool[asked.info.pool_id].append(operation)
    missing: list[Wanted] = []
    for pool_id, pool in batch.pools.items():
        keys = {one.key for one in by_pool[pool_id] if one.key_given or look_up}
        pool.known = pool.journal.by_keys(batch.connection, keys)
        wanted = {
            one.lease_id
            for one in by_pool[pool_id]
            if one.lease_id is not None and one.key not in pool.known
        } | {one.lease for one in due[pool_id]}
        pool.leases |= pool.journal.remembered(wanted)
        missing += [Wanted(pool.journal, lease) for lease in sorted(wanted - pool.leases.keys())]
        for one in pool.journal.lineage[1:]:
            above = batch.pools.get(one.info.pool_id)
            if above is not None:
                missing += above.recall_mirrors(pool_id, wanted)
    found = journal.leases(batch.connection, missing)
    for lease, row in zip(missing, found, strict=True):
        batch.pools[lease.pool.info.pool_id].learn(lease, row)


def _bring_up_to_date(
    batch: Batch, todo: Sequence[Call], due: Mapping[PoolId, Sequence[Ending]], seen: Seen
) -> None:
    """Expire due leases, then begin the windows of the current time, before anything is decided.

    In this order, since a window may carry over what expiries give back: if more leases are due
    than one transaction expires, the window begins in the last of these transactions. A window in
    which nothing was written gets no entry. If every operation was answered before, under its key,
    no pool changes: repeating a call writes nothing.
    """
    about: defaultdict[PoolId, set[int]] = defaultdict(set)
    answered = 0
    for journal_of, operation in todo:
        pool = batch.pools.get(journal_of.info.pool_id)
        answered += pool is not None and operation.key in pool.known
        if operation.lease_id:
            about[journal_of.info.pool_id].add(operation.lease_id)
    if todo and answered == len(todo):
        return
    until = min(seen.now, batch.now)
    for pool_id, pool in batch.pools.items():
        if not any(above.info.pool_id in batch.damaged for above in pool.journal.lineage):
            expire(batch, pool, due[pool_id], spared=about[pool_id], until=until)
    for pool in batch.pools.values():
        head = pool.head
        window = rules.roll_over(head.policy, head.window, head.balance, batch.now)
        if window is None:
            continue
        if any(one.unswept for one in batch.sharing(pool)):
            batch.unrolled.add(pool.info.pool_id)
        else:
            rollover = Draft(kind=EntryKind.ROLLOVER, balance=head.balance, window=window)
            batch.post(pool, rollover)
