"""The work of a batch: operations on one pool or several, in one open transaction."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection

from ledger.core import rules
from ledger.core.checks import Micros, from_micros
from ledger.core.entries import PoolId
from ledger.core.errors import IdempotencyConflictError, LedgerError
from ledger.core.kinds import EntryKind
from ledger.core.status import ThresholdCrossing
from ledger.engine.batch import Batch, UnsweptError
from ledger.engine.expiry import expire, note_swept
from ledger.engine.operations.base import Operation
from ledger.engine.pool_batch import PoolBatch
from ledger.store import journal, snapshot
from ledger.store.drafts import Draft, Staged
from ledger.store.heads import Memo
from ledger.store.journal import PoolJournal, Wanted
from ledger.store.rows import Row
from ledger.store.snapshot import Snapshot

_log = logging.getLogger(__name__)

_AHEAD_US = 60_000_000
"""How far a pool's newest entry may be ahead of the clock before the log says so: clocks that are
set by the network differ by less."""

OperationResult = Row | LedgerError | None
"""An operation's result: its entry, or the error that refused it, or None if it must be tried
again."""


class Done(NamedTuple):
    """The result of a batch."""

    outcomes: Sequence[OperationResult]
    memos: list[tuple[PoolJournal, Memo]]
    expired: dict[PoolId, int]
    """How many leases have expired, by pool."""
    freed: set[PoolId]
    """The pools that got capacity back or another policy."""
    crossed: list[ThresholdCrossing]
    """The thresholds that were crossed, pool by pool, in order."""
    unrolled: bool = False
    """Whether a window waits for more expiries than one transaction does."""
    opened: PoolJournal | None = None
    """The pool that was opened, if the transaction opens one."""

    def remember(self) -> None:
        """Let each pool's journal remember what the batch knows. Call it only after COMMIT."""
        for pool, memo in self.memos:
            pool.remember(memo)


PoolOperation = tuple[PoolJournal, Operation[Any]]
"""An operation and its pool."""

Collect = Callable[[Sequence[PoolJournal]], Sequence[PoolOperation]]
"""Returns the operations of a batch. It is called once the locks of these pools are held.

So it can include calls that came during the wait for the locks. They may be on any pool that the
transaction has locked.
"""


def no_calls(_locked: Sequence[PoolJournal]) -> Sequence[PoolOperation]:
    """Return no operations, for a batch that only expires leases and begins windows."""
    return ()


def perform(
    connection: Connection,
    pools: Sequence[PoolJournal],
    *,
    look_up: bool,
    calls: Collect,
    now: Callable[[], Micros | None],
) -> Done:
    """Do operations in order in an open transaction, and return their outcomes.

    Each pool's newest entry is read once. Each operation is decided on the state after the
    operation before it. If its key shows that it was done before, the entry with that key is its
    outcome. The refusal of one operation does not affect the others.

    Args:
        connection: The transaction.
        pools: The pools that it has locked.
        look_up: Whether an earlier try of the same batch may have taken effect.
        calls: Returns the operations.
        now: Returns the time. It is called again after the operations were collected, so that no
            entry is older than its call.

    Raises:
        MorePoolsError: An operation needs pools that this transaction has not locked.
    """
    batch, todo = prepare(connection, pools, look_up=look_up, calls=calls, now=now)
    outcomes: list[OperationResult] = []
    begun = batch.pools
    for asked, operation in todo:
        outcome: OperationResult
        try:
            pool = begun.get(asked.info.pool_id) or batch.pool(asked.info.pool_id)
            outcome = pool.known.get(operation.key)
            if outcome is None:
                if batch.unrolled:
                    batch.require_rolled_over(pool)
                if pool.unreadable:
                    pool.require_readable(operation.lease_id)
                outcome = batch.post(pool, operation.decide(batch, pool))
                pool.known[operation.key] = outcome
            elif not operation.led_to(outcome):
                outcome = IdempotencyConflictError(operation.key, seq=outcome["seq"])
        except LedgerError as refusal:
            outcome = refusal
        except UnsweptError:
            outcome = None
        outcomes.append(outcome)
    return finish(batch, outcomes)


def finish(
    batch: Batch,
    outcomes: Sequence[OperationResult],
    *,
    opened: PoolJournal | None = None,
    also: Sequence[Staged] = (),
) -> Done:
    """Write the rows staged in each pool, and other rows, and return the batch's result."""
    done = Done(outcomes, [], {}, set(), [], bool(batch.unrolled), opened)
    staged: list[Staged] = []
    for pool_id, pool in batch.pools.items():
        staged += pool.staged
        done.memos.append((pool.journal, pool.memo()))
        if pool.expired:
            done.expired[pool_id] = pool.expired
        if pool.frees:
            done.freed.add(pool_id)
        if pool.thresholds is not None:
            done.crossed.extend(pool.thresholds.crossed)
    staged += also
    journal.append(batch.connection, staged)
    return done


def prepare(
    connection: Connection,
    pools: Sequence[PoolJournal],
    *,
    look_up: bool,
    calls: Collect,
    now: Callable[[], Micros | None],
) -> tuple[Batch, Sequence[PoolOperation]]:
    """Read what the operations need, expire due leases, and begin the windows of the current time.

    The arguments are those of `perform`.
    """
    seen = snapshot.look(connection, pools, now())
    todo = calls(pools)
    asked: defaultdict[PoolJournal, list[Operation[Any]]] = defaultdict(list)
    for pool, operation in todo:
        asked[pool].append(operation)
    others: dict[PoolId, PoolJournal] = {}
    contents: defaultdict[PoolId, set[str]] = defaultdict(set)
    by_number: defaultdict[PoolId, list[Operation[Any]]] = defaultdict(list)
    for pool, operations in asked.items():
        by_number[pool.info.pool_id] += operations
        named = set(filter(None, map(_attributed, operations)))
        for one in pool.lineage:
            pool_id = one.info.pool_id
            if named:
                contents[pool_id] |= named
            if pool_id not in seen.newest:
                others[pool_id] = one
    if others:
        joined = [others[pool_id] for pool_id in sorted(others)]
        pools = [*pools, *joined]
        seen = seen.with_others(snapshot.look(connection, joined, seen.now))
    seen = snapshot.recall(connection, pools, seen, contents)
    batch = Batch(connection, now() or seen.now)
    _read_heads(batch, pools, seen)
    _read(batch, by_number, look_up=look_up)
    # A call that is repeated under its key writes nothing, so no pool changes.
    if not _are_answered(batch, todo):
        _bring_up_to_date(batch, until=min(seen.now, batch.now))
    return batch, todo


def _read_heads(batch: Batch, pools: Sequence[PoolJournal], seen: Snapshot) -> None:
    """Add each pool as its newest entry left it."""
    for one in pools:
        pool_id = one.info.pool_id
        try:
            head = one.head_from(batch.connection, seen.newest[pool_id])
        except LedgerError as error:
            batch.damaged[pool_id] = error
            continue
        if head.recorded_at > batch.now + _AHEAD_US:
            _say_ahead(one, head.recorded_at, batch.now)
        batch.pools[pool_id] = PoolBatch(
            batch.connection,
            one,
            head,
            now=batch.now,
            due=seen.due(one) if seen.ending else (),
            quiet_until=seen.quiet_until(one) if seen.ending else one.quiet_until,
        )


def _say_ahead(pool: PoolJournal, recorded_at: Micros, now: Micros) -> None:
    """Log, once for each such entry, that a pool's time is ahead of the clock."""
    if recorded_at > pool.said_ahead:
        pool.said_ahead = recorded_at
        _log.warning(
            "the newest entry of pool %r is of %s, and the clock says %s: until then no hold"
            " expires and no window ends there",
            pool.info.name,
            from_micros(recorded_at).isoformat(),
            from_micros(now).isoformat(),
        )


_attributed: Callable[[Operation[Any]], str | None] = attrgetter("attributed")


def _read(batch: Batch, asked: Mapping[PoolId, Sequence[Operation[Any]]], *, look_up: bool) -> None:
    """Read what the operations on each pool need: earlier outcomes, and leases."""
    missing: list[Wanted] = []
    for pool_id, pool in batch.pools.items():
        wanted = _look_up(pool, asked.get(pool_id, ()), look_up=look_up)
        if wanted:
            pool.leases |= pool.journal.remembered(wanted)
            unread = sorted(wanted - pool.leases.keys())
            missing += [Wanted(pool.journal, lease) for lease in unread]
            for above in pool.journal.lineage[1:]:
                if above.info.pool_id in batch.pools:
                    missing += batch.pools[above.info.pool_id].recall_mirrors(pool_id, wanted)
    if missing:
        found = journal.leases(batch.connection, missing)
        for lease, row in zip(missing, found, strict=True):
            batch.pools[lease.pool.info.pool_id].learn(lease, row)


def _look_up(pool: PoolBatch, operations: Sequence[Operation[Any]], *, look_up: bool) -> set[int]:
    """Look up which operations on a pool were done before; return the leases that are needed."""
    wanted = set()
    given: set[str] = set()
    made: dict[str, int] = {}
    newest = pool.head.seq
    for operation in operations:
        if look_up or operation.key_given or operation.receipt is not None:
            keys, behind = operation.sought(again=look_up, newest=newest)
            given.update(keys)
            made.update(behind)
        if operation.behind is None or operation.behind > newest:
            operation.behind = newest
    if given or made:
        pool.known = pool.journal.by_keys(pool.connection, given, made)
    for due in pool.due:
        wanted.add(due.lease)
    for operation in operations:
        lease_id = operation.lease_id
        if lease_id is not None:
            pool.spared.add(lease_id)
            if not operation.comes_late:
                pool.kept.add(lease_id)
            if operation.key not in pool.known:
                wanted.add(lease_id)
    return wanted


def _are_answered(batch: Batch, todo: Sequence[PoolOperation]) -> bool:
    """Tell whether there are operations and all of them were done before, under their keys."""
    for asked, operation in todo:
        pool = batch.pools.get(asked.info.pool_id)
        if pool is None or operation.key not in pool.known:
            return False
    return bool(todo)


def _bring_up_to_date(batch: Batch, *, until: Micros) -> None:
    """Expire due leases, and begin the windows of the current time, before anything is decided.

    Both happen in the order of their times, as in `rules.stand`. A window may carry over what
    expiries give back, and an expiry's charge counts in the window in which the hold ended. So due
    leases of pools below expire first, too. If more leases are due than one transaction expires,
    the window begins in the last of these transactions. A window in which nothing was written gets
    no entry.

    Raises:
        MorePoolsError: Leases of pools below must expire first.
    """
    ended: list[tuple[Micros, PoolBatch]] = []
    for pool in batch.pools.values():
        head = pool.head
        if head.window is not None:
            begun = rules.roll_over(head.policy, head.window, head.balance, batch.now)
            if begun is not None:
                ended.append((begun.start, pool))
    ended.sort(key=itemgetter(0))
    for start, pool in ended:
        for one in _sweepable(batch):
            late = pool.journal in one.journal.lineage
            expire(batch, one, spared=one.kept if late else one.spared, before=start)
        _roll_over(batch, pool, start)
    for pool in batch.pools.values():
        if not pool.due:
            pool.note_swept(until)
        elif not _above_is_damaged(batch, pool):
            if pool in _sweepable(batch):
                expire(batch, pool, spared=pool.spared)
            note_swept(pool, until=until)


def _sweepable(batch: Batch) -> list[PoolBatch]:
    """Return the pools whose due leases may expire: no window there or above must begin first."""
    return [
        pool
        for pool in batch.pools.values()
        if pool.pending
        and not _above_is_damaged(batch, pool)
        and not any(one.info.pool_id in batch.unrolled for one in pool.journal.lineage)
    ]


def _above_is_damaged(batch: Batch, pool: PoolBatch) -> bool:
    return any(above.info.pool_id in batch.damaged for above in pool.journal.lineage)


def _roll_over(batch: Batch, pool: PoolBatch, start: Micros) -> None:
    """Begin a pool's window, unless more leases must expire first than were read."""
    head = pool.head
    window = rules.roll_over(head.policy, head.window, head.balance, batch.now)
    assert window is not None  # noqa: S101 - the calendar that ended it is unchanged
    try:
        batch.require_swept(pool, below=any(head.balance.reserved), before=start)
    except UnsweptError:
        batch.unrolled.add(pool.info.pool_id)
    else:
        rollover = Draft(kind=EntryKind.ROLLOVER, balance=head.balance, window=window)
        batch.post(pool, rollover)
