"""The present state of pools: the one read for every answer about what is left.

It finds pools as the next write would: due leases have expired, and windows have rolled over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection

from ledger.core import rules
from ledger.core.checks import I64_MAX, Micros
from ledger.core.entries import PoolId, PoolInfo, Totals
from ledger.core.errors import JournalDamagedError, LeftOut, UnknownPoolError
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.values import Remaining
from ledger.store import pools, queries, restored
from ledger.store.bounds import UNBOUNDED, Bounds, bounds_of
from ledger.store.database import Reads
from ledger.store.heads import Head
from ledger.store.journal import PoolJournal
from ledger.store.rows import Row
from ledger.store.schema import pools as table
from ledger.store.statements import Prepared, ReadEach, rows_of_each


class Present(NamedTuple):
    """A pool at present: its newest entry, with due changes applied, and its limits and credits."""

    head: Head
    bounds: Bounds


PresentOfEach = Mapping[PoolId, Present | JournalDamagedError]
"""Pools at present, or the error of each that cannot be read."""


def present(reads: Reads, pool: PoolJournal, now: Micros | None) -> list[Present]:
    """Read a pool and those above that share with it, as the next write would find them.

    A due lease counts as expired, also in the pools below. If nothing can be due, this is one read
    in one round trip; two, if leases hold something now and none did at the previous read.

    Args:
        reads: The reads of the call.
        pool: The pool.
        now: The time; None for the store's clock.

    Raises:
        JournalDamagedError: A pool has no entry, or its policy cannot be read.
        LedgerUnavailableError: The store cannot be reached or read.
    """
    if len(pool.lineage) == 1:
        for look in _looks(pool):
            found = reads.read_rows(look, _asked(pool, now))
            row = found[0] if found else None
            if not _may_be_due(pool, row):
                head = pool.head_of(reads, row)
                if _went_back(reads, [pool], [head]):
                    return present(reads, pool, now)
                now = Micros(row["now"] if row else 0)
                return [_by_now(reads.read_each, pool, head, now, _NOTHING)]
    presents = reads.read(lambda connection: present_in(connection, pool, now))
    if _went_back(reads, pool.lineage, [one.head for one in presents]):
        return present(reads, pool, now)
    return presents


def _went_back(reads: Reads, pools: Sequence[PoolJournal], heads: Sequence[Head]) -> bool:
    """Note the newest entries of pools; return whether one went back and all must be read again.

    Its remembered policies are forgotten.

    Raises:
        UnknownPoolError: Its number belongs to another pool now, or to none.
    """
    went_back = False
    for pool, head in zip(pools, heads, strict=True):
        if pool.seen.note(pool.info.name, head.seq, reads.began_s):
            went_back = True
            pool.forget_terms()
            (found,) = reads.read_each([restored.asked(pool.info)])
            pool.is_there = restored.is_of(pool.info, found)
            if not pool.is_there:
                raise UnknownPoolError(pool.info.name)
    return went_back


def present_in(connection: Connection, pool: PoolJournal, now: Micros | None) -> list[Present]:
    """Read the present state of a pool in a transaction; as `present`."""
    return line_of(pool, present_of_each(connection, pool.lineage, now))


def line_of(pool: PoolJournal, found: PresentOfEach) -> list[Present]:
    """Return a pool and those above that share with it, from many pools that were read.

    Raises:
        JournalDamagedError: One of them cannot be read.
    """
    return [own(one, found) for one in pool.lineage]


def own(pool: PoolJournal, found: PresentOfEach) -> Present:
    """Return one pool, from many pools that were read.

    Raises:
        JournalDamagedError: It cannot be read.
    """
    present = found[pool.info.pool_id]
    if isinstance(present, JournalDamagedError):
        raise present
    return present


def present_of_each(
    connection: Connection, journals: Sequence[PoolJournal], now: Micros | None
) -> PresentOfEach:
    """Read many pools in a transaction, each once, in few messages.

    Args:
        connection: The transaction.
        journals: The pools.
        now: The time; None for the store's clock.
    """
    heads, at, holds = _heads(connection, journals, now)
    due = _due(connection, holds, heads)
    later = partial(rows_of_each, connection)
    found: dict[PoolId, Present | JournalDamagedError] = {}
    for one in journals:
        pool_id = one.info.pool_id
        head = heads[pool_id]
        try:
            found[pool_id] = (
                head
                if isinstance(head, JournalDamagedError)
                else _by_now(later, one, head, at, due.get(pool_id, _NOTHING))
            )
        except JournalDamagedError as error:  # of an entry that a limit or a credit counts from
            found[pool_id] = error
    return found


def with_due(
    connection: Connection, journals: Sequence[PoolJournal], now: Micros | None
) -> tuple[list[PoolJournal], LeftOut]:
    """Return the pools of a store that have granted leases that are due.

    The second value is the errors of pools that cannot be read, or have a pool above that cannot.

    Args:
        connection: A transaction.
        journals: Every pool of the store that has a row that can be read.
        now: The time; None for the store's clock.
    """
    heads, _at, holds = _heads(connection, journals, now)
    due: list[PoolJournal] = []
    damaged: LeftOut = []
    for pool in journals:
        line = [heads[one.info.pool_id] for one in pool.lineage]
        errors = [one for one in line if isinstance(one, JournalDamagedError)]
        damaged += errors[:1]
        if not errors and pool.info.pool_id in holds:
            due.append(pool)
    return due, damaged


def due_of_each(
    connection: Connection, journals: Sequence[PoolJournal], now: Micros | None, *, below: bool
) -> Mapping[PoolId, rules.Due]:
    """Return the sums of due leases in each pool, as its present balance counts them.

    Args:
        connection: A transaction.
        journals: The pools. A pool that cannot be read has none.
        now: The time; None for the store's clock.
        below: Whether due leases of pools below that share with a pool count, too.
    """
    heads, _at, holds = _heads(connection, journals, now)
    return _due(connection, holds, heads, below=below)


_Heads = Mapping[PoolId, Head | JournalDamagedError]
_Holds = Mapping[PoolId, Sequence[rules.Charge]]
"""What due leases hold, by pool, and separately by when they were due if that matters."""


def _heads(
    connection: Connection, journals: Sequence[PoolJournal], now: Micros | None
) -> tuple[_Heads, Micros, _Holds]:
    """Read the newest entry of each pool, the time, and what leases that are due hold."""
    newest = _newest_of_each(connection, journals, now)
    _learn(connection, journals, newest)
    heads: dict[PoolId, Head | JournalDamagedError] = {}
    for one in journals:
        pool_id = one.info.pool_id
        try:
            heads[pool_id] = one.head_from(connection, newest.get(pool_id))
        except JournalDamagedError as error:
            heads[pool_id] = error
    at = Micros(max((row["now"] for row in newest.values()), default=0))
    # Due leases are asked for at the highest pool, since they count in every pool up to it.
    tops = {
        one.lineage[-1].info.pool_id: one.lineage[-1]
        for one in journals
        if isinstance(heads[one.info.pool_id], Head) and _may_be_due(one, newest[one.info.pool_id])
    }
    timed = any(isinstance(head, Head) and _is_bounded(head.policy) for head in heads.values())
    query = queries.DUE_HOLDS_BY_TIME if timed else queries.DUE_HOLDS
    read = rows_of_each(connection, [(query, _asked(top, at)) for top in tops.values()])
    holds: dict[PoolId, list[tuple[Micros, Totals]]] = {}
    for row in (row for rows in read for row in rows):
        # None if the lease's newest entry is missing. The sweep reports that damage.
        held = Totals(*(int(row[name] or 0) for name in Totals._fields))
        holds.setdefault(PoolId(row["pool_id"]), []).append((row.get("expires_at", at), held))
    return heads, at, holds


def _is_bounded(policy: SharedPoolBudgetOptions) -> bool:
    """Tell whether it matters for a pool when the holds of leases ended."""
    return bool(policy.limits or policy.prepaid or policy.window)


def _newest_of_each(
    connection: Connection, journals: Sequence[PoolJournal], now: Micros | None
) -> dict[PoolId, Row]:
    """Read newest entries, and of pools that hold something whether a lease may be due."""
    newest: dict[PoolId, Row] = {}
    asked = {look: [one for one in journals if look in _looks(one)[:1]] for look in _LOOKS}
    for look, pools_asked in asked.items():
        read = rows_of_each(connection, [(look, _asked(one, now)) for one in pools_asked])
        for one, rows in zip(pools_asked, read, strict=True):
            if rows:
                newest[one.info.pool_id] = rows[0]
                if _may_be_due(one, rows[0]) and look is queries.HEAD:
                    asked[queries.STANDING].append(one)
    return newest


def _learn(
    connection: Connection, journals: Sequence[PoolJournal], newest: Mapping[PoolId, Row]
) -> None:
    """Read the terms that newest entries name and that are not remembered, in one message."""
    unknown = [
        (one, seq)
        for one in journals
        if (row := newest.get(one.info.pool_id)) is not None
        for seq in one.terms.unread(row)
    ]
    read = rows_of_each(connection, [one.terms.asked(seq) for one, seq in unknown])
    for (one, seq), found in zip(unknown, read, strict=True):
        one.terms.learn(seq, found)


_LOOKS = (queries.HEAD, queries.STANDING)


def _looks(pool: PoolJournal) -> Sequence[Prepared]:
    """Return the queries to run one after the other until one shows that nothing may be due.

    A server takes three times as long for the second query as for the first, since it plans it each
    time. If something was held at the last read, the first query would show only that.
    """
    return _LOOKS[1:] if pool.holding else _LOOKS


def _may_be_due(pool: PoolJournal, newest: Row | None) -> bool:
    if newest is None:
        return False
    pool.holding = newest["reserved_requests"] != 0
    return bool(newest.get("may_be_due", pool.holding))


_NOTHING = rules.Due()


def _due(
    connection: Connection, holds: _Holds, heads: _Heads, *, below: bool = True
) -> Mapping[PoolId, rules.Due]:
    """Return the sums of due leases for each pool, from those of it and of the pools below."""
    if not holds:
        return {}
    known = pools.find_lines(connection, table.c.pool_id, holds).infos
    infos = {one.pool_id: one for one in known}
    due: dict[PoolId, rules.Due] = dict.fromkeys(heads, _NOTHING)
    for pool_id, found in holds.items():
        if pool_id not in infos:
            continue
        # A pool that cannot be read cannot be swept, either.
        with contextlib.suppress(JournalDamagedError):
            head = heads.get(pool_id) or PoolJournal(infos[pool_id], store=b"").head(connection)
            if isinstance(head, JournalDamagedError):
                continue
            own = rules.overdue(head.rules_version, head.policy.settlement, found)
            for above in _line(pool_id, infos) if below else (pool_id,):
                if above in due:
                    due[above] = due[above].plus(own)
    return due


def _by_now(read: ReadEach, pool: PoolJournal, head: Head, now: Micros, due: rules.Due) -> Present:
    bounded = _is_bounded(head.policy)
    if not bounded and not any(due.held):  # most pools have no bounds; each `remaining` comes here
        return Present(head, UNBOUNDED)
    at = max(now, head.recorded_at)
    bounds = bounds_of(
        read,
        pool,
        head.policy,
        policy_seq=head.policy_seq,
        upto=head.seq,
        at=at,
        due=due.dated,
        counted=pool.counted_at(read, head) if bounded else None,
    )
    balance, window = rules.stand(
        head.policy,
        head.balance,
        head.window,
        now,
        recorded_at=head.recorded_at,
        due=due,
        ceiling=I64_MAX,
    )
    return Present(head._replace(balance=balance, window=window), bounds)


def left(found: Sequence[Present]) -> Remaining:
    """Return what is left in a pool, from what `present` returned of it."""
    return rules.least(
        [rules.remaining(head.policy, head.balance, head.window, *bounds) for head, bounds in found]
    )


def _asked(pool: PoolJournal, now: Micros | None) -> dict[str, Any]:
    return {"pool_id": pool.info.pool_id, "now": now}


def _line(pool_id: PoolId, infos: Mapping[PoolId, PoolInfo]) -> Iterator[PoolId]:
    """Yield a pool and those above that share with it."""
    at: PoolId | None = pool_id
    while at is not None:
        yield at
        at = None if infos[at].carved_lease is not None else infos[at].parent_id
