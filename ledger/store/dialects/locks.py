"""The search for the PostgreSQL session that holds a lock which was waited for in vain."""

from __future__ import annotations

from typing import NamedTuple

HOLDER = """
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
