"""PostgreSQL's lock tables: which of them a transaction locks, and who holds one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

POOL_LOCKS = 16
"""How many empty tables serve as locks. A pool's lock is its id modulo this number."""

FEW_POOLS = 4
"""The most pools for which a transaction takes only their own locks; with more it takes all."""

WHO_HOLDS = """
SELECT a.pid, a.application_name, a.usename, host(a.client_addr), a.state, a.wait_event,
       coalesce(extract(epoch FROM clock_timestamp() - a.state_change), 0)::float8
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'ExclusiveLock'
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.relation IN (SELECT to_regclass(name) FROM unnest(ARRAY[{locks}]) AS name)
  AND a.pid <> pg_backend_pid()
ORDER BY a.xact_start
LIMIT 1
"""


REPLAY = "the replay of a standby (hot_standby_feedback = on there helps)"
"""What clashes with a reader at REPEATABLE READ: only replay that would remove the rows it
reads."""


class Holder(NamedTuple):
    """The session that holds a lock, as far as this role may see it."""

    pid: int
    application: str | None
    user: str
    address: str | None
    state: str | None
    event: str | None
    since_s: float

    def __str__(self) -> str:
        parts = [
            self.application and repr(self.application),
            f"user {self.user}",
            self.address and f"from {self.address}",
            self.state and f"{self.state} ({self.event}) for {self.since_s:.1f} s",
        ]
        return f"server process {self.pid} ({', '.join(filter(None, parts))})"

    @property
    def is_cut_off(self) -> bool:
        """Whether it waits for its client inside a statement; no time-out ends that."""
        return self.state == "active" and self.event in {"ClientRead", "ClientWrite"}


LOCK_TABLES = "pool_lock_"
"""What the name of each lock table begins with."""


def lock_table(number: int) -> str:
    """Return the name of a lock table."""
    return f"{LOCK_TABLES}{number:02}"


LOCKS = tuple(map(lock_table, range(POOL_LOCKS)))


def locks_of(pool_ids: Sequence[int] | None) -> Sequence[str]:
    """Return the locks of a transaction, in the order in which all transactions take them.

    A transaction over more than four pools takes every lock. It reads a few rows of each pool, and
    above about thirty rows the server marks the whole table as read, so that every concurrent write
    clashes with it. When such batches took only the locks of their pools, one in four had to run
    again (now 1 to 2 %).
    """
    if pool_ids is None or len(pool_ids) > FEW_POOLS:
        return LOCKS
    return [LOCKS[number] for number in sorted({pool_id % POOL_LOCKS for pool_id in pool_ids})]
