"""The base class of dialects: everything that other modules ask of a database system."""

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
"""Runs a query on a connection of its own."""


ROUND_TRIP_S = 1.0
"""How many seconds a server gets after a call's deadline, to cancel, to roll back, or to say who
holds a lock."""


class Failure(Enum):
    """What a driver's error means for its transaction."""

    BUSY = auto()
    """Another transaction was first. Running the work again may succeed."""
    LOST = auto()
    """The connection is lost, and the answer with it."""
    ENDED = auto()
    """The server ended the transaction before COMMIT reached it. Running the work again may
    succeed."""
    FORBIDDEN = auto()
    """The role may not do this."""
    UNAVAILABLE = auto()
    """The store cannot do it: it is full, read-only or missing."""
    DISCARDED = auto()
    """A trigger dropped inserted rows without raising an error."""
    FOREIGN = auto()
    """The file or database is not a ledger."""


class FileChangedError(Exception):
    """The file has changed since this connection, which cannot notice changes, was made."""


class CommitInDoubtError(Exception):
    """COMMIT took effect here, but without the promise of durability that was asked for."""


class NoReferenceError(Exception):
    """The database refused to make a schema for comparison with the store's."""


class RolledBackError(Exception):
    """COMMIT was answered by a rollback without an error; nothing was written."""


class MakesTrigger(str):
    """DDL that makes a trigger, or lets it fire in every session."""

    __slots__ = ("table", "trigger")
    trigger: str
    table: str

    def __new__(cls, statement: str, *, trigger: str, table: str) -> Self:
        """Return the statement with the names of its trigger and its table."""
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
    """Whether a connection that is open during a fork is harmless in the child."""
    readable: Readable
    """How the views print times, amounts and identities."""

    def __init__(self, url: URL, *, timeout_s: float, read_only: bool = False) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self.read_only = read_only
        """Whether only reading transactions are begun."""
        self.connect_until_s: dict[int, float] = {}
        """The time at which each thread gives up connecting, on the clock of `time.monotonic`."""

    def left_to_connect_s(self) -> float:
        """Return how many seconds this thread may take to make a connection."""
        until_s = self.connect_until_s.pop(threading.get_ident(), math.inf)
        return max(0.0, min(self.timeout_s, until_s - time.monotonic()))

    def files(self) -> Sequence[Path]:
        """Return the files of the store, which no output may replace."""
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

        `end` releases locks that this takes outside the connection, also if this raises.

        Args:
            connection: Outside any transaction.
            pool_ids: The pools; None for all pools.
            timeout_s: How long it may take, with waiting, in seconds.
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
            serializable: Whether what it reads must fit one order of all transactions; a plain
                snapshot does not ensure that.
            timeout_s: How long it may take, in seconds; None for reports, which have no deadline
                while the server works on them.
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

    def check_unchanged(self, connection: Connection) -> None:  # noqa: B027 - databases do it
        """Make sure that everything read on a connection belonged to one snapshot.

        Raises:
            FileChangedError: The store has changed since the connection was made.
        """

    @abstractmethod
    def begin_migration(self, connection: Connection) -> None:
        """Begin a transaction that excludes other migrations of this store."""

    @abstractmethod
    def commit(self, connection: Connection) -> None:
        """Commit, durably.

        Raises:
            CommitInDoubtError: The database did not promise that the commit is durable.
            RolledBackError: The database rolled back instead.
        """

    @abstractmethod
    def rollback(self, connection: Connection) -> None:
        """End the transaction if it is still open; never raises."""

    @abstractmethod
    def undo(self, raw: Any) -> None:  # noqa: ANN401 - either driver's connection
        """End any transaction on a driver's connection, and close it; never raises.

        It does not go through SQLAlchemy, so that the locks of the server or the file are free at
        once.
        """

    def expect_answers(self, connection: Connection, until_s: float | None) -> None:  # noqa: B027 - only a server answers
        """Set the time at which the server is asked to cancel an unanswered statement.

        Args:
            connection: The connection.
            until_s: The time, on the clock of `time.monotonic`; None to wait as long as the server
                works on the statement.
        """

    @abstractmethod
    def holder(self, error: Exception, pool_ids: Sequence[int] | None, lend: Lend) -> str | None:
        """Return who holds the lock that a writer of these pools waited for, None if unknown.

        Args:
            error: The error that ended the wait.
            pool_ids: The pools that were to be locked; None for all there are.
            lend: Lends a connection for the query, if one is needed.
        """

    @abstractmethod
    def now(self) -> Micros | None:
        """Return this machine's time, None if the server's clock is used."""

    def end(self) -> None:  # noqa: B027 - only SQLite holds a lock outside the connection
        """Release the locks that this thread's `begin` took outside the connection, if any."""

    def close(self) -> None:  # noqa: B027 - as above
        """Close files that are open outside the connections."""

    def forget_after_fork(self) -> None:  # noqa: B027 - as above
        """Drop resources of the parent in a forked child."""

    @abstractmethod
    def prepare(self, connection: Connection) -> None:
        """Prepare an empty database for a schema, outside any transaction."""

    def mend(self, connection: Connection) -> None:  # noqa: B027 - copies of others lose nothing
        """Restore settings that a copy of a store may have lost, outside any transaction."""

    @staticmethod
    @abstractmethod
    def insert(
        connection: Connection,
        table: str,
        columns: tuple[str, ...],
        rows: Sequence[tuple[Any, ...]],
    ) -> None:
        """Insert rows in any order, at COMMIT at the latest.

        Args:
            connection: A writing transaction.
            table: The table's name.
            columns: The names of its columns, of all of them, in order.
            rows: The rows; each has an int, str, bytes or None for each column.

        Raises:
            RowsDiscardedError: The database dropped some of them. If the rows are sent with COMMIT,
                that fails with `Failure.DISCARDED` instead.
        """

    @abstractmethod
    def definitions(self, connection: Connection) -> Definitions:
        """Return the definition of every part of the store's schema, from the catalogue."""

    @abstractmethod
    def fresh_definitions(
        self, connection: Connection, upgrade: Callable[[Connection], None]
    ) -> Definitions:
        """Return the definitions of a new schema that is made for comparison and then removed.

        Args:
            connection: A connection to the store, outside any transaction.
            upgrade: Makes the schema with the connection that it gets, in an open transaction.

        Raises:
            NoReferenceError: The database refuses to make a schema.
        """

    @abstractmethod
    def index_damage(self, connection: Connection) -> str | None:
        """Compare indexes with their tables; return what the database finds, and what to do.

        Args:
            connection: A reading transaction.

        Returns:
            None if it finds nothing, or cannot make the comparison.
        """

    @abstractmethod
    def failure(self, error: BaseException) -> Failure:
        """Return what a driver's error means, by its code."""

    @abstractmethod
    def hint(self, error: BaseException) -> str:
        """Return what an operator can do about a driver's error, or the error's text."""

    @staticmethod
    @abstractmethod
    def guards(table: str, keys: Sequence[tuple[str, ...]]) -> list[str]:
        """Return DDL that allows only reading and appending to `table`.

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
    def trigger_label(name: str, table: str) -> str:  # noqa: ARG004 - unique in a file
        """Return the label that `definitions` gives a trigger of a table."""
        return f"trigger {name}"

    def partition_count(self, connection: Connection) -> int:  # noqa: ARG002 - as above
        """Return the number of the journal's partitions, 0 if it is not partitioned."""
        return 0

    @staticmethod
    def rights() -> list[str]:
        """Return DDL that refuses entries from roles that may not write them, if any exist."""
        return []

    @staticmethod
    def functions() -> list[str]:
        """Return DDL of functions for which a server keeps its plans, where there is one."""
        return []

    def hides(self, connection: Connection) -> list[str]:  # noqa: ARG002 - SQLite hides no rows
        """Return the tables of the journal of which the current role may not see every row."""
        return []

    def standby(self, connection: Connection) -> tuple[Micros, Micros | None] | None:  # noqa: ARG002 - a file is none
        """Return a standby's clock, and the time of the newest commit that it has replayed.

        None if the store is no standby. The second time is None if no commit was replayed yet.
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
