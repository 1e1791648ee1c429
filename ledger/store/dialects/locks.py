"""PostgreSQL's lock tables: which a transaction takes, and who holds one that it waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

POOL_LOCKS = 16
"""How many empty tables serve as locks; a pool's lock is its id modulo this number."""

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
"""What alone clashes with a reader at REPEATABLE READ: it would remove the rows that are read."""


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
        """Whether it waits for its client inside a statement, where no time-out ends it."""
        return self.state == "active" and self.event in {"ClientRead", "ClientWrite"}


def lock_table(number: int) -> str:
    """Return the name of a lock table."""
    return f"pool_lock_{number:02}"


LOCKS = tuple(map(lock_table, range(POOL_LOCKS)))


def locks_of(pool_ids: Sequence[int] | None) -> Sequence[str]:
    """Return which locks a transaction takes, in the order that all others take them in.

    Over more than four pools it takes every lock. It reads a few rows of each pool; past some
    thirty rows the server marks the whole table as read, and every concurrent write then clashes
    with it. With their own locks alone, one in four such batches had to run again (now 1 to 2 %).
    """
    if pool_ids is None or len(pool_ids) > FEW_POOLS:
        return LOCKS
    return [LOCKS[number] for number in sorted({pool_id % POOL_LOCKS for pool_id in pool_ids})]
