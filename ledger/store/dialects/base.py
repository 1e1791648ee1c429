"""The base class of dialects: all that the other modules ask of a database system."""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any, Self

from sqlalchemy import URL, Connection, Engine

from ledger.core.checks import Micros
from ledger.core.errors import InvalidInputError
from ledger.store.dialects.catalogue import Definitions
from ledger.store.dialects.views import Readable
from ledger.store.statements import Prepared

Lend = Callable[[Callable[[Connection], str | None]], str | None]
"""Runs a question on a connection of its own."""


ROUND_TRIP_S = 1.0
"""How many seconds a call gives a server after its deadline, whatever it asks then: to cancel, to
roll back, or who holds a lock."""


class Failure(Enum):
    """What a driver's error means for the transaction it came from."""

    BUSY = auto()
    """Another transaction was first; running the work again may succeed."""
    LOST = auto()
    """The connection is gone, and with it the answer."""
    ENDED = auto()
    """The server ended the transaction before COMMIT reached it; running it again may succeed."""
    FORBIDDEN = auto()
    """The role may not do this."""
    UNAVAILABLE = auto()
    """The store refuses: full, read-only, not there."""
    DISCARDED = auto()
    """A trigger dropped rows that were to be inserted, without an error of its own."""
    FOREIGN = auto()
    """The file or database is not a ledger."""


class FileChangedError(Exception):
    """The store has changed since a connection was made that cannot notice changes."""


class CommitInDoubtError(Exception):
    """COMMIT took effect here, but without the promise of durability that was asked for."""


class NoReferenceError(Exception):
    """The database refused to make the schema that the store's is to be compared with."""


class RolledBackError(Exception):
    """COMMIT was answered by a quiet rollback: nothing was written."""


class MakesTrigger(str):
    """DDL that makes a trigger, or has it hold in every session."""

    __slots__ = ("table", "trigger")
    trigger: str
    table: str

    def __new__(cls, statement: str, *, trigger: str, table: str) -> Self:
        """Return the statement, which knows the names of the trigger and of its table."""
        made = super().__new__(cls, statement)
        made.trigger, made.table = trigger, table
        return made


class Dialect(ABC):
    """One database system.

    Engines work in the driver's autocommit mode, and the dialect sends BEGIN and COMMIT itself:
    neither driver begins a transaction early enough for read, decide, write.
    """

    name: str
    driver_errors: tuple[type[Exception], ...]
    connections_survive_fork: bool
    """Whether a connection that is open when a process forks is at least harmless in the child."""
    readable: Readable
    """How the views print times, amounts and identities."""

    def __init__(self, url: URL, *, timeout_s: float, read_only: bool = False) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self.read_only = read_only
        """Whether nothing but reading transactions is begun."""
        self.connect_until_s: dict[int, float] = {}
        """By thread, when it gives up to connect, on the clock of `time.monotonic`."""

    def left_to_connect_s(self) -> float:
        """Return how many seconds this thread may take for the connection that it makes now."""
        until_s = self.connect_until_s.pop(threading.get_ident(), math.inf)
        return max(0.0, min(self.timeout_s, until_s - time.monotonic()))

    def files(self) -> Sequence[Path]:
        """Return the files that the store is made of, which no output may replace."""
        return ()

    @abstractmethod
    def create_engine(self, *, create: bool) -> Engine:
        """Return an engine for the store; `create` allows a new file."""

    @abstractmethod
    def begin(
        self,
        connection: Connection,
        *,
        pool_ids: Sequence[int] | None,
        timeout_s: float,
    ) -> None:
        """Begin a serializable writing transaction that locks these pools.

        `end` releases what this takes beside the connection, also if this raises.

        Args:
            connection: Outside any transaction.
            pool_ids: The pools; None for all there are.
            timeout_s: How long it may wait, and take.
        """

    @abstractmethod
    def locks_whole_store(self, pool_ids: Sequence[int]) -> bool:
        """Tell whether a transaction that begins on these pools locks all pools of the store."""

    @abstractmethod
    def begin_read(
        self, connection: Connection, *, serializable: bool, timeout_s: float | None
    ) -> None:
        """Begin a reading transaction on one snapshot.

        Args:
            connection: Outside any transaction.
            serializable: Whether it is one of those that could run one after the other.
            timeout_s: How long it may take, in seconds; None for reports, which take as long as the
                server works on them.
        """

    @abstractmethod
    def read_alone(
        self,
        connection: Connection,
        statement: Prepared,
        parameters: Mapping[str, int | None],
        *,
        timeout_s: float,
    ) -> list[dict[str, Any]]:
        """Run one SELECT as a whole serializable transaction, in one round trip."""

    def check_unchanged(self, connection: Connection) -> None:  # noqa: B027 - databases see to it
        """Make sure that what was read on a connection was all of one snapshot.

        Raises:
            FileChangedError: The store has changed since the connection was made.
        """

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

    def expect_answers(self, connection: Connection, until_s: float | None) -> None:  # noqa: B027 - only a server answers
        """Ask the server to cancel what it has not answered on this connection by then.

        Args:
            connection: The connection.
            until_s: When, on the clock of `time.monotonic`; None to wait for as long as the server
                works on it.
        """

    @abstractmethod
    def holder(self, error: Exception, pool_ids: Sequence[int] | None, lend: Lend) -> str | None:
        """Say who holds what a writer of these pools waited for in vain, None if that is unknown.

        Args:
            error: What the wait ended in.
            pool_ids: The pools that were to be locked; None for all there are.
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

    def mend(self, connection: Connection) -> None:  # noqa: B027 - copies of others lose nothing
        """Bring back what a copy of a store may have lost, outside any transaction."""

    @staticmethod
    @abstractmethod
    def insert(
        connection: Connection,
        table: str,
        columns: tuple[str, ...],
        rows: Sequence[tuple[Any, ...]],
    ) -> None:
        """Insert rows, in any order, at COMMIT at the latest.

        Args:
            connection: A writing transaction.
            table: The table's name.
            columns: The names of its columns, of all of them, in order.
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
    def index_damage(self, connection: Connection) -> str | None:
        """Say what the database finds where its indexes are held to its tables, and what to do.

        Args:
            connection: A reading transaction.

        Returns:
            None where it finds nothing, or has nothing to look with.
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
    def partitions(table: str, count: int) -> list[str]:  # noqa: ARG004 - SQLite has none
        """Return DDL that makes the partitions of a table that is partitioned by its pools.

        Args:
            table: The table's name; it has its indexes and guards.
            count: How many partitions it gets.

        Raises:
            InvalidInputError: The database has no partitions, or not so many.
        """
        raise InvalidInputError("partitions", "are for PostgreSQL; leave them out on SQLite")

    @staticmethod
    def trigger_label(name: str, table: str) -> str:  # noqa: ARG004 - a file's triggers have names of their own
        """Return what `definitions` calls a trigger of a table."""
        return f"trigger {name}"

    def partition_count(self, connection: Connection) -> int:  # noqa: ARG002 - as above
        """Return in how many partitions the journal lies, 0 if it is one table."""
        return 0

    @staticmethod
    def rights() -> list[str]:
        """Return DDL that refuses entries to roles that may not write them, where there are any."""
        return []

    @staticmethod
    def functions() -> list[str]:
        """Return DDL of functions for which a server keeps its plans, where there is one."""
        return []

    def hides(self, connection: Connection) -> list[str]:  # noqa: ARG002 - SQLite hides none
        """Return the tables of the journal of which the role in use may not see every row."""
        return []

    def standby(self, connection: Connection) -> tuple[Micros, Micros | None] | None:  # noqa: ARG002 - a file is none
        """Return a standby's clock, and the time of the newest commit that it has replayed.

        None where the store is no standby; no time where it has replayed no commit yet.
        """
        return None

    def roles(self, connection: Connection, prefix: str) -> list[str]:  # noqa: ARG002 - as above
        """Return the statements that make the roles of a store; see `roles.make_roles`.

        Raises:
            InvalidInputError: The database has no roles.
        """
        raise InvalidInputError(
            "url", f"{self.name} has no roles: the permissions of the file say who may write"
        )
