"""The base class of dialects: all that the other modules ask of a database system."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum, auto
from itertools import compress, repeat
from operator import is_not
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine

from ledger.core.checks import Micros, to_micros
from ledger.core.kinds import CORRECTABLE, ENDS_LEASE, EntryKind, sql
from ledger.store.dialects.catalogue import Definitions
from ledger.store.statements import Prepared

Lend = Callable[[Callable[[Connection], str | None]], str | None]
"""Runs a question on a connection of its own."""


_NONES = repeat(None)


class Failure(Enum):
    """What a driver's error means for the transaction it came from."""

    BUSY = auto()
    """Another transaction was first; running the work again may succeed."""
    LOST = auto()
    """The connection is gone, and with it the answer."""
    ENDED = auto()
    """The server ended the transaction before COMMIT reached it; running it again may succeed."""
    UNAVAILABLE = auto()
    """The store refuses: full, read-only, not permitted, not there."""
    DISCARDED = auto()
    """A trigger dropped rows that were to be inserted, without an error of its own."""
    FOREIGN = auto()
    """The file or database is not a ledger."""


class CommitInDoubtError(Exception):
    """COMMIT took effect here, but without the promise of durability that was asked for."""


class NoReferenceError(Exception):
    """The database refused to make the schema that the store's is to be compared with."""


class RolledBackError(Exception):
    """COMMIT was answered by a quiet rollback: nothing was written."""


def alike(
    columns: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> dict[tuple[str, ...], list[tuple[Any, ...]]]:
    """Group rows by the columns that they fill, without the columns that are None.

    Half the columns of an entry are empty, and a driver takes long over each None it is given.
    """
    by_shape: dict[bytes, list[tuple[Any, ...]]] = {}
    for row in rows:
        filled = bytes(map(is_not, row, _NONES))
        by_shape.setdefault(filled, []).append(tuple(compress(row, filled)))
    return {tuple(compress(columns, filled)): values for filled, values in by_shape.items()}


class Dialect(ABC):
    """One database system.

    Engines work in the driver's autocommit mode, and the dialect sends BEGIN and COMMIT itself:
    neither driver begins a transaction early enough for read, decide, write.
    """

    name: str
    driver_errors: tuple[type[Exception], ...]
    connections_survive_fork: bool
    """Whether a connection that is open when a process forks is at least harmless in the child."""

    def __init__(self, url: URL, *, timeout_s: float) -> None:
        self.url = url
        self.timeout_s = timeout_s

    def files(self) -> Sequence[Path]:
        """Return the files that the store is made of, which no output may replace."""
        return ()

    @abstractmethod
    def create_engine(self, *, create: bool) -> Engine:
        """Return an engine for the store; `create` allows a new file."""

    @abstractmethod
    def begin(self, connection: Connection, *, pool_ids: Sequence[int], timeout_s: float) -> None:
        """Begin a serializable writing transaction that locks these pools.

        `end` releases what this takes beside the connection, also if this raises.
        """

    @abstractmethod
    def locks_whole_store(self, pool_ids: Sequence[int]) -> bool:
        """Tell whether a transaction that begins on these pools locks all pools of the store."""

    @abstractmethod
    def begin_read(self, connection: Connection, *, serializable: bool) -> None:
        """Begin a reading transaction on one snapshot."""

    @abstractmethod
    def read_alone(
        self, connection: Connection, statement: Prepared, parameters: Mapping[str, int]
    ) -> list[dict[str, Any]]:
        """Run one SELECT as a whole serializable transaction, in one round trip."""

    @abstractmethod
    def begin_migration(self, connection: Connection) -> None:
        """Begin a transaction that no other migration of this store runs beside."""

    @abstractmethod
    def commit(self, connection: Connection) -> None:
        """Commit, durably.

        Raises:
            CommitInDoubtError: The database did not promise that the commit is durable.
            RolledBackError: The database rolled back instead.
        """

    @abstractmethod
    def rollback(self, connection: Connection) -> None:
        """End the transaction, if it is still open; never raises."""

    @abstractmethod
    def undo(self, raw: Any) -> None:  # noqa: ANN401 - either driver's connection
        """End whatever was begun on a driver's connection, and close it; never raises.

        It goes past SQLAlchemy, so that the locks at the server, or of the file, are free at once.
        """

    def expect_answers(self, connection: Connection) -> None:  # noqa: B027 - only a server answers
        """Wait for each answer on this connection as long as a report may take."""

    @abstractmethod
    def holder(self, error: Exception, pool_ids: Sequence[int], lend: Lend) -> str | None:
        """Say who holds what a writer of these pools waited for in vain, None if that is unknown.

        Args:
            error: What the wait ended in.
            pool_ids: The pools that were to be locked.
            lend: Lends a connection, if one is needed to find out.
        """

    @abstractmethod
    def now(self) -> Micros | None:
        """Return this machine's time, None where the server's clock counts."""

    def end(self) -> None:  # noqa: B027 - only SQLite holds something beside the connection
        """Release what this thread's `begin` took beside the connection, if anything."""

    def close(self) -> None:  # noqa: B027 - as above
        """Close what is open beside the connections."""

    def forget_after_fork(self) -> None:  # noqa: B027 - as above
        """Drop, in a forked child, what belongs to the parent."""

    @abstractmethod
    def prepare(self, connection: Connection) -> None:
        """Make an empty database ready for a schema, outside any transaction."""

    @staticmethod
    @abstractmethod
    def insert(
        connection: Connection,
        table: str,
        columns: Sequence[str],
        rows: Sequence[tuple[Any, ...]],
    ) -> None:
        """Insert rows, in any order, at COMMIT at the latest.

        Args:
            connection: A writing transaction.
            table: The table's name.
            columns: The names of its columns.
            rows: An int, str, bytes or None for each of them.

        Raises:
            RowsDiscardedError: The database dropped some of them. Where COMMIT carries the rows,
                it fails with `Failure.DISCARDED` instead.
        """

    @abstractmethod
    def definitions(self, connection: Connection) -> Definitions:
        """Return the definition of every part of the store's schema, as the database keeps it."""

    @abstractmethod
    def fresh_definitions(
        self, connection: Connection, upgrade: Callable[[Connection], None]
    ) -> Definitions:
        """Return the definitions of a schema that is made beside the store and then removed.

        Args:
            connection: A connection to the store, outside any transaction.
            upgrade: Makes the schema with the connection that it gets, in an open transaction.

        Raises:
            NoReferenceError: The database refuses to make a schema.
        """

    @abstractmethod
    def failure(self, error: BaseException) -> Failure:
        """Tell what a driver's error means, by its code."""

    @abstractmethod
    def hint(self, error: BaseException) -> str:
        """Return what a person can do about a driver's error, or the error's own text."""

    @staticmethod
    @abstractmethod
    def guards(table: str, keys: Sequence[tuple[str, ...]]) -> list[str]:
        """Return DDL that lets `table` be read and appended to, and nothing else.

        Args:
            table: The table's name.
            keys: Its unique keys, each as column names, the last one possibly an SQL condition
                that both rows fulfil (a partial index).
        """

    @staticmethod
    @abstractmethod
    def journal_view() -> str:
        """Return DDL of the view that shows entries with readable times and US dollars."""

    @staticmethod
    @abstractmethod
    def report_views() -> list[str]:
        """Return DDL of the views `spend_by_day` and `lease_summary`, for BI tools."""


def readable_time(shown: str) -> str:
    """Return SQL that prints a time, and NULL for a number that is none.

    Otherwise one damaged row fails a view as a whole.
    """
    return f"CASE WHEN {{0}} BETWEEN {_FIRST_US} AND {_LAST_US} THEN {shown} END"


# The years 1 to 9999 of every time zone: clients turn times into their own.
_FIRST_US = to_micros("day", datetime(1, 1, 2, tzinfo=UTC))
_LAST_US = to_micros("day", datetime(9999, 12, 31, tzinfo=UTC))


def view_sql(*, time: str, usd: str, identity: str) -> str:
    """Return the view's DDL from a dialect's ways to print a time, an amount and an identity."""

    def usds(*names: str) -> str:
        return "".join(
            f", {usd.format(f'e.{name}_cost_micros_usd')} AS {name}_usd" for name in names
        )

    return f"""
CREATE VIEW journal AS
SELECT p.name AS pool, {identity.format("p.identity")} AS pool_identity, e.seq, e.kind, e.flags,
       {time.format("e.recorded_at")} AS recorded, {time.format("e.occurred_at")} AS occurred,
       e.lease, a.run_id, a.parent_run_id, a.tenant, a.agent, a.operation, a.provider, a.model,
       a.tags, e.request_id, e.provenance,
       e.estimate_total_tokens, e.usage_input_tokens, e.usage_output_tokens, e.usage_total_tokens,
       e.held_tokens, e.committed_tokens, e.reserved_tokens, e.committed_requests,
       e.reserved_requests{usds("estimate", "usage", "held", "committed", "reserved")},
       e.idempotency_key, e.detail
FROM entries e
JOIN pools p ON p.pool_id = e.pool_id
LEFT JOIN attributions a
       ON a.pool_id = e.pool_id AND a.attribution_id = e.attribution_id
"""


def _is(*kinds: EntryKind) -> str:
    return sql(kinds, "e.kind")


def report_views_sql(*, time: str, day: str, usd: str) -> list[str]:
    """Return DDL of the views for BI tools from a dialect's ways to print times and amounts."""
    return [
        f"""
CREATE VIEW spend_by_day AS
SELECT pool, day, tenant, agent, operation, provider, model, requests, denied, attempts,
       input_tokens, output_tokens, total_tokens, {usd.format("cost_micros_usd")} AS usd
FROM (
    SELECT p.name AS pool, {day.format("COALESCE(e.occurred_at, e.recorded_at)")} AS day,
           a.tenant, a.agent, a.operation, a.provider, a.model,
           SUM(CASE WHEN {_is(EntryKind.RESERVATION)} THEN 1 ELSE 0 END) AS requests,
           SUM(CASE WHEN {_is(EntryKind.DENIAL)} THEN 1 ELSE 0 END) AS denied,
           SUM(CASE WHEN {_is(*CORRECTABLE)} THEN 1 ELSE 0 END) AS attempts,
           COALESCE(SUM(e.usage_input_tokens), 0) AS input_tokens,
           COALESCE(SUM(e.usage_output_tokens), 0) AS output_tokens,
           COALESCE(SUM(e.usage_total_tokens), 0) AS total_tokens,
           COALESCE(SUM(e.usage_cost_micros_usd), 0) AS cost_micros_usd
    FROM entries e
    JOIN pools p ON p.pool_id = e.pool_id
    LEFT JOIN attributions a
           ON a.pool_id = e.pool_id AND a.attribution_id = e.attribution_id
    WHERE e.origin_seq IS NULL
      AND ({_is(EntryKind.RESERVATION, EntryKind.DENIAL)} OR e.usage_total_tokens IS NOT NULL)
    GROUP BY 1, 2, 3, 4, 5, 6, 7
) AS days
""",
        f"""
CREATE VIEW lease_summary AS
SELECT p.name AS pool, r.seq AS lease,
       CASE WHEN d.seq IS NOT NULL THEN 'ended' WHEN x.seq IS NOT NULL THEN 'expired'
            ELSE 'open' END AS phase,
       {time.format("r.recorded_at")} AS reserved, {time.format("r.occurred_at")} AS occurred,
       {time.format("x.recorded_at")} AS expired, {time.format("d.recorded_at")} AS ended,
       a.run_id, a.parent_run_id, a.tenant, a.agent, a.operation, a.provider, a.model, a.tags,
       r.estimate_total_tokens, n.used_total_tokens, n.held_tokens,
       {usd.format("r.estimate_cost_micros_usd")} AS estimate_usd,
       {usd.format("n.used_cost_micros_usd")} AS used_usd,
       {usd.format("n.held_cost_micros_usd")} AS held_usd
FROM entries r
JOIN pools p ON p.pool_id = r.pool_id
JOIN entries n ON n.pool_id = r.pool_id AND n.seq = (
    SELECT MAX(l.seq) FROM entries l
    WHERE l.pool_id = r.pool_id AND l.lease IS NOT NULL AND l.lease = r.seq)
LEFT JOIN entries d
       ON d.pool_id = r.pool_id AND d.lease = r.seq AND {sql(ENDS_LEASE, "d.kind")}
LEFT JOIN entries x
       ON x.pool_id = r.pool_id AND x.lease = r.seq AND {sql([EntryKind.EXPIRY], "x.kind")}
LEFT JOIN attributions a ON a.pool_id = r.pool_id AND a.attribution_id = r.attribution_id
WHERE {sql([EntryKind.RESERVATION], "r.kind")} AND r.origin_seq IS NULL
""",
    ]
