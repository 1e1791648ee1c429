"""What a transaction reads of its pools first: their newest entries, due holds and the time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from sqlalchemy import Connection

from ledger.core.checks import Micros
from ledger.core.entries import PoolId
from ledger.store import journal, queries, restored
from ledger.store.journal import AHEAD_US, PoolJournal
from ledger.store.rows import Row
from ledger.store.statements import Prepared, rows_of_each

_QUIET_US = AHEAD_US // 2
"""For how long no such query is needed again. It is less than `AHEAD_US`, since a server's clock
may be changed."""

POOLS_PAGE = 64
"""How many child pools are searched at a time for expired holds before a pool denies."""


class Ending(NamedTuple):
    """A lease whose hold ends by time-out, and the time."""

    lease: int
    expires_at: Micros


class Snapshot(NamedTuple):
    """What a transaction has read of several pools."""

    newest: dict[PoolId, Row | None]
    ending: dict[PoolId, Sequence[Ending]]
    """The next holds that end, for the pools in which these were searched."""
    now: Micros

    def with_others(self, others: Snapshot) -> Snapshot:
        """Return these pools and others together, with the time when these were read."""
        return Snapshot(self.newest | others.newest, self.ending | others.ending, self.now)

    def due(self, pool: PoolJournal) -> list[Ending]:
        """Return the due holds of a pool, or the first of them."""
        ending = self.ending.get(pool.info.pool_id, ())
        return [one for one in ending if one.expires_at <= self.now]

    def quiet_until(self, pool: PoolJournal) -> Micros:
        """Return the time before which no hold of a pool ends, once the due ones have expired."""
        ending = self.ending.get(pool.info.pool_id)
        if ending is None:
            return pool.quiet_until
        later = [one.expires_at for one in ending if one.expires_at > self.now]
        if len(ending) == journal.ENDING_PAGE:  # there may be more after the last one
            later.append(ending[-1].expires_at)
        return min([*later, Micros(self.now + _QUIET_US)])


def look(connection: Connection, pools: Sequence[PoolJournal], now: Micros | None) -> Snapshot:
    """Read the newest entry of each pool, and which holds end next, all in one message.

    Holds are not searched in a pool that remembers that none ends yet; see `recall`.
    """
    asked: list[tuple[Prepared, dict[str, Any]]] = []
    restless = []
    for pool in pools:  # mostly one pool; a list for each would be one more call
        asked.append((queries.HEAD, {"pool_id": pool.info.pool_id, "now": now}))
        if not pool.seems_quiet(now):
            restless.append(pool)
    if restless:
        asked += map(PoolJournal.ending, restless, repeat(now))
        if now is None:
            # If the clock was put back by the end, it is not known which had ended.
            asked.append((queries.READ_CLOCK, {"now": None}))
    found = rows_of_each(connection, asked)
    newest: dict[PoolId, Row | None] = {}
    for pool, one in zip(pools, found, strict=False):
        newest[pool.info.pool_id] = one[0] if one else None
    if now is None:
        # The time before the holds were read: one that ends in between must not seem to have
        # expired.
        read = [row["now"] for row in newest.values() if row]
        now = Micros(min(read)) if read else clock(connection, None)
        then = Micros(found.pop()[0]["now"]) if restless else now
        if then < now:
            now, restless = then, []
    return Snapshot(newest, _ending(restless, found[len(pools) :]) if restless else {}, now)


def _ending(
    pools: Sequence[PoolJournal], found: Sequence[Sequence[Row]]
) -> dict[PoolId, Sequence[Ending]]:
    return {
        pool.info.pool_id: [Ending(**row) for row in one]
        for pool, one in zip(pools, found, strict=True)
    }


def sharing_with_due(connection: Connection, pool: PoolJournal, until: Micros) -> set[PoolId]:
    """Return up to `POOLS_PAGE` pools that share a pool's capacity and have due leases."""
    parameters = {"pool_id": pool.info.pool_id, "until": until, "page": POOLS_PAGE}
    return set(connection.execute(queries.SHARING_WITH_DUE, parameters).scalars())


def _forget(
    connection: Connection,
    stale: Sequence[tuple[PoolJournal, Row]],
    since: Mapping[PoolJournal, Sequence[Row]],
) -> None:
    """Let pools forget; of those that went back, ask whether their numbers are still theirs."""
    back = [pool for pool, newest in stale if pool.forget(since.get(pool, ()), newest)]
    found = rows_of_each(connection, [restored.asked(pool.info) for pool in back])
    for pool, one in zip(back, found, strict=True):
        pool.is_there = restored.is_of(pool.info, one)


def clock(connection: Connection, now: Micros | None) -> Micros:
    """Return the given time, or else the store's."""
    return now or Micros(queries.READ_CLOCK.rows(connection, {"now": None})[0]["now"])


def _named(
    pools: Sequence[PoolJournal], contents: Mapping[PoolId, Collection[str]]
) -> dict[PoolJournal, Collection[str]]:
    """Return the contents of attributions that are not remembered, by pool."""
    named: dict[PoolJournal, Collection[str]] = {}
    for pool in pools:
        content = contents.get(pool.info.pool_id, ())
        if content or pool.attributions.ahead:
            unread = pool.attributions.unknown(content)
            if unread:
                named[pool] = unread
    return named


def recall(
    connection: Connection,
    pools: Sequence[PoolJournal],
    seen: Snapshot,
    contents: Mapping[PoolId, Collection[str]],
) -> Snapshot:
    """Let each pool forget what others changed before its newest entry.

    The same message asks for the policy of a pool that is new to this process, for attributions
    that are not remembered, and for the ends of holds that turned out to be unknown. Returns what
    was seen, with these added.

    Args:
        connection: A transaction.
        pools: Its pools.
        seen: What `look` has read of them.
        contents: The contents of the attributions that operations name, by pool.
    """
    stale: list[tuple[PoolJournal, Row]] = []
    unknown: list[tuple[PoolJournal, int]] = []
    restless: list[PoolJournal] = []
    named = _named(pools, contents)
    for pool in pools:
        newest = seen.newest[pool.info.pool_id]
        stands = newest is not None and pool.stands_at(newest)
        quiet = stands and seen.now < pool.quiet_until
        if newest is not None and not stands:
            quiet = pool.stays_quiet(seen.now)
            stale.append((pool, newest))
            # If the entry is not remembered, everything else is forgotten, too.
            if not pool.remembers or not pool.terms.knows(newest["policy_seq"]):
                unknown.append((pool, newest["policy_seq"]))
        if not quiet and pool.info.pool_id not in seen.ending:
            restless.append(pool)
    if not stale and not restless and not named:
        return seen
    known = [pool for pool, _ in stale if pool.remembers]
    fresh = [pool for pool, _ in stale if not pool.remembers]
    read = iter(
        rows_of_each(
            connection,
            [(queries.SINCE, pool.since()) for pool in known]
            + [pool.terms.asked(seq) for pool, seq in unknown]
            + [pool.ending(seen.now) for pool in restless]
            + [pool.attributions.asked(one) for pool, unread in named.items() for one in unread]
            + [pool.attributions.asked_newest() for pool in named]
            + [restored.asked(pool.info) for pool in fresh],
        )
    )
    since = {pool: next(read) for pool in known}
    _forget(connection, stale, since)
    for pool, seq in unknown:
        pool.terms.learn(seq, next(read))
    ending = seen.ending | _ending(restless, [next(read) for _ in restless])
    stored = {pool: {one: next(read) for one in unread} for pool, unread in named.items()}
    for pool, found in stored.items():
        pool.attributions.read_ahead(found, next(read))
    for pool in fresh:
        pool.is_there = restored.is_of(pool.info, next(read))
    # Other processes may have granted leases whose holds have ended since.
    late = [pool for pool, _ in stale if seen.now >= pool.quiet_until]
    late = [pool for pool in late if pool.info.pool_id not in ending]
    ended = rows_of_each(connection, [pool.ending(seen.now) for pool in late])
    return seen._replace(ending=ending | _ending(late, ended))
