"""Where pools stand by now: the one read behind every answer to what is left.

It finds pools as the next write would: what is due has expired, and windows have rolled over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection

from ledger.core import rules
from ledger.core.checks import I64_MAX, Micros, to_micros
from ledger.core.entries import (
    Balance,
    CreditStatus,
    LimitStatus,
    PoolId,
    PoolInfo,
    PoolStatus,
    Totals,
    WindowState,
)
from ledger.core.policy import SharedPoolBudgetOptions
from ledger.core.values import Remaining
from ledger.errors import JournalDamagedError
from ledger.store import history, pools, queries
from ledger.store.database import Database
from ledger.store.journal import PoolJournal
from ledger.store.rows import Head, Row
from ledger.store.schema import pools as table
from ledger.store.statements import Prepared, ReadEach, rows_of_each


class Stands(Protocol):
    """A pool at one of its entries."""

    @property
    def policy(self) -> SharedPoolBudgetOptions:
        """The policy in force."""

    @property
    def balance(self) -> Balance:
        """Its balance."""

    @property
    def window(self) -> WindowState | None:
        """Its window, None without windows."""


class Present(NamedTuple):
    """A pool by now: its newest entry, as if all that is due had happened, and what bounds it."""

    head: Head
    bounds: history.Bounds


def present(database: Database, pool: PoolJournal, now: Micros | None) -> list[Present]:
    """Read a pool and those above that share with it, as the next write would find them.

    A lease that is due counts as expired, in the pools below, too. Where nothing can be due this is
    one read, in one round trip, unless something is held since the read before.

    Args:
        database: The store.
        pool: The pool.
        now: The time, or None for the store's.

    Raises:
        JournalDamagedError: A pool has no entry, or its policy cannot be read.
        LedgerUnavailableError: The store cannot be reached or read.
    """
    if len(pool.lineage) == 1:
        for look in _looks(pool):
            found = database.read_rows(look, _asked(pool, now))
            row = found[0] if found else None
            if not _may_be_due(pool, row):
                head = pool.head_of(database, row)
                now = Micros(row["now"] if row else 0)
                return [_by_now(database.read_each, pool, head, now, *_NOTHING)]
    return database.read(lambda connection: present_in(connection, pool, now))


def present_in(connection: Connection, pool: PoolJournal, now: Micros | None) -> list[Present]:
    """Read the same in a transaction."""
    for look in _looks(*pool.lineage):
        read = rows_of_each(connection, [(look, _asked(one, now)) for one in pool.lineage])
        newest = [one[0] if one else None for one in read]
        # Each of them is asked: it is noted which of them hold something.
        may_be_due = [_may_be_due(one, row) for one, row in zip(pool.lineage, newest, strict=True)]
        if not any(may_be_due):
            break
    found = [one.head_from(connection, row) for one, row in zip(pool.lineage, newest, strict=True)]
    at = Micros(next(row["now"] for row in newest if row is not None))
    due = _due(connection, pool, at) if any(may_be_due) else {}
    later = partial(rows_of_each, connection)
    return [
        _by_now(later, one, head, at, *due.get(one.info.pool_id, _NOTHING))
        for one, head in zip(pool.lineage, found, strict=True)
    ]


def _looks(*lineage: PoolJournal) -> Sequence[Prepared]:
    """Return the queries to ask one after the other, until one says that nothing may be due.

    A server takes three times as long for the second one as for the first: it plans it anew each
    time. Where something was held at the last look, the first one would say no more than that.
    """
    finer = (queries.STANDING,)
    return finer if any(one.holding for one in lineage) else (queries.HOLDING, *finer)


def _may_be_due(pool: PoolJournal, newest: Row | None) -> bool:
    if newest is None:
        return False
    pool.holding = newest["reserved_requests"] != 0
    return bool(newest["may_be_due"])


_Due = tuple[Totals, Totals]
"""What the leases that are due hold of a pool's capacity, and what they will be charged."""
_NOTHING: _Due = Totals(), Totals()


def _due(connection: Connection, pool: PoolJournal, now: Micros) -> Mapping[PoolId, _Due]:
    """Return what is due of a pool's capacity, and of that of the pools above that share it."""
    held = {
        PoolId(row["pool_id"]): Totals(*(int(row[name]) for name in Totals._fields))
        for row in queries.DUE_HOLDS.rows(connection, _asked(pool.lineage[-1], now))
    }
    if not held:
        return {}
    infos = {one.pool_id: one for one in pools.find_above(connection, table.c.pool_id, list(held))}
    due: dict[PoolId, _Due] = {one.info.pool_id: _NOTHING for one in pool.lineage}
    for pool_id, holds in held.items():
        # A pool that cannot be read cannot be swept either.
        with contextlib.suppress(JournalDamagedError):
            policy = PoolJournal(infos[pool_id], store=b"").head(connection).policy
            charge = rules.charged(policy.settlement, holds)
            for above in _line(pool_id, infos):
                if above in due:
                    all_held, all_charged = due[above]
                    due[above] = all_held.plus(holds), all_charged.plus(charge)
    return due


def _by_now(
    read: ReadEach, pool: PoolJournal, head: Head, now: Micros, held: Totals, charge: Totals
) -> Present:
    at = max(now, head.recorded_at)
    bounds = history.bounds(
        read, pool, head.policy, policy_seq=head.policy_seq, upto=head.seq, at=at
    )
    if head.window is None and not any(held):  # most pools; each answer of `remaining` comes here
        return Present(head, bounds)
    balance, window = rules.stand(
        head.policy,
        head.balance,
        head.window,
        now,
        recorded_at=head.recorded_at,
        held=held,
        charge=charge,
        ceiling=I64_MAX,
    )
    return Present(head._replace(balance=balance, window=window), bounds)


def left(found: Sequence[Present]) -> Remaining:
    """Return what is left in a pool, from what `present` returned of it."""
    return rules.least(
        [rules.remaining(head.policy, head.balance, head.window, *bounds) for head, bounds in found]
    )


def status_of(pool: PoolJournal, found: Sequence[Present]) -> PoolStatus:
    """Return where a pool stands, from what `present` returned of it."""
    head = found[0].head
    states = [states_of(*one) for one in found]
    ends = [end for one, each in zip(found, states, strict=True) for end in ends_of(one.head, each)]
    return PoolStatus(
        pool=pool.info,
        seq=head.seq,
        policy=head.policy,
        balance=head.balance,
        spent=rules.spent_in(head.window, head.balance),
        own=left(found[:1]),
        remaining=left(found),
        until=min(ends, default=None),
        closed=head.closed,
        parent=None if pool.parent is None else pool.parent.info.name,
        window=head.window,
        **states[0]._asdict(),
    )


class States(NamedTuple):
    """How far each limit and each credit of a pool is used, and what is left of all credits."""

    limits: tuple[LimitStatus, ...]
    prepaid: Remaining | None
    debt: Totals
    credits: tuple[CreditStatus, ...]


def states_of(stands: Stands, bounds: history.Bounds) -> States:
    """Return how far each limit and each credit of a pool is used."""
    limits, credits = bounds
    return States(
        () if limits is None else tuple(limits.states(stands.balance)),
        None if credits is None else rules.prepaid(stands.policy, stands.balance, credits),
        Totals() if credits is None else credits.debt(stands.balance),
        () if credits is None else tuple(credits.states(stands.balance)),
    )


def ends_of(stands: Stands, states: States) -> Iterator[Micros]:
    """Yield when what is left of a pool changes without a write, later than it was looked at."""
    if stands.window is not None:
        yield stands.window.end
    yield from (one.until for one in states.limits if one.until is not None)
    for one in states.credits:
        if one.credit.expires_at is not None and any(one.left):
            yield to_micros("expires_at", one.credit.expires_at)


def _asked(pool: PoolJournal, now: Micros | None) -> dict[str, Any]:
    return {"pool_id": pool.info.pool_id, "now": now}


def _line(pool_id: PoolId, infos: Mapping[PoolId, PoolInfo]) -> Iterator[PoolId]:
    """Yield a pool and those above it."""
    at: PoolId | None = pool_id
    while at is not None:
        yield at
        at = infos[at].parent_id
