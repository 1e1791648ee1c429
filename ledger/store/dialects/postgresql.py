"""PostgreSQL through psycopg 3: SERIALIZABLE behind a lock, SQLSTATEs, triggers."""

from __future__ import annotations

import math
import os
import socket
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event

from ledger.core.checks import Micros
from ledger.core.errors import LedgerUnavailableError, MissingExtraError
from ledger.store.dialects.addresses import parted, shown_address
from ledger.store.dialects.base import (
    CommitInDoubtError,
    Dialect,
    Failure,
    Lend,
    MakesTrigger,
    NoReferenceError,
    RolledBackError,
)
from ledger.store.dialects.catalogue import Definitions, hidden_tables, postgresql_definitions
from ledger.store.dialects.clock import standby_times
from ledger.store.dialects.functions import make_functions
from ledger.store.dialects.indexes import postgresql_index_damage
from ledger.store.dialects.locks import FEW_POOLS, REPLAY, WHO_HOLDS, Holder, locks_of
from ledger.store.dialects.partitions import always, make_partitions, partitions_of, refuse_truncate
from ledger.store.dialects.roles import make_roles, rights_guard
from ledger.store.dialects.sqlstates import REFUSED, WAITED, explained, failure_of, sqlstate
from ledger.store.dialects.views import Readable, readable_time
from ledger.store.schema import DIVIDED
from ledger.store.statements import Prepared, driver_of

if TYPE_CHECKING:
    from ledger.store.dialects.session import Session

_MIGRATION_LOCK = 0x6C65646765720001
"""Key of the advisory lock that keeps migrations apart: 'ledger' and a number."""

_OPEN = {2, 3}
"""INTRANS and INERROR of `psycopg.pq.TransactionStatus`: the server waits for its client."""

_MIGRATION_STILL_S = 3_600.0
"""How many seconds a migration may idle in its transaction before the server ends it."""

_STILL_MIN_S = 1.0
"""The least time, in seconds, that a writer may idle in its transaction."""

_MOMENT = "to_timestamp({0} / 1000000) + mod({0}, 1000000) * interval '1 microsecond'"
_READABLE = Readable(
    time=readable_time(_MOMENT),
    # Days are in UTC, whatever the session's time zone.
    day=readable_time(f"CAST(({_MOMENT}) AT TIME ZONE 'UTC' AS date)"),
    identity="encode({0}, 'hex')",
    # With it a view shows a role only the rows that row-level security lets that role see.
    options=" WITH (security_invoker = true)",
)


class PostgreSQLDialect(Dialect):
    """A PostgreSQL database, reached directly or through a transaction-mode pooler."""

    name = "postgresql"
    connections_survive_fork = True
    readable = _READABLE

    def __init__(self, url: URL, *, timeout_s: float, read_only: bool = False) -> None:
        url = url.set(drivername="postgresql+psycopg")
        super().__init__(url, timeout_s=timeout_s, read_only=read_only)
        try:
            import psycopg  # noqa: PLC0415 - an optional extra
        except ImportError as error:
            raise MissingExtraError(what="psycopg", extra="postgresql") from error
        self.driver_errors = (psycopg.Error,)
        self._made: weakref.WeakSet[Session] = weakref.WeakSet()
        self._still_s = max(_STILL_MIN_S, timeout_s / 2)
        # A standby refuses SERIALIZABLE, even for reading.
        self._read_level = "REPEATABLE READ" if read_only else "SERIALIZABLE"

    def create_engine(self, *, create: bool) -> Engine:  # noqa: ARG002 - servers make no databases
        """Return an engine whose sessions have no state that a pooler could mix up."""
        url, secrets = parted(self.url)
        engine = create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            # SQLAlchemy's pools have locks that an interrupt may leave locked.
            poolclass=NullPool,
            pool_reset_on_return=None,  # a returned connection has no transaction, or is closed
            use_native_hstore=False,  # else each engine asks the server for a type that no one uses
            connect_args={
                **secrets,
                "tcp_user_timeout": int(self.timeout_s * 1000),
                "client_encoding": "utf8",
                # A prepared statement belongs to a session, and keeps its plan as the table grows.
                "prepare_threshold": None,
            },
        )
        event.listen(engine, "do_connect", self._connect)
        from ledger.store.dialects.session import collect_warnings  # noqa: PLC0415 - needs psycopg

        event.listen(engine, "connect", collect_warnings)
        return engine

    def _connect(
        self, _dialect: object, _record: object, args: list[Any], options: dict[str, Any]
    ) -> Session:
        from ledger.store.dialects.session import Session  # noqa: PLC0415 - needs psycopg

        # Not in the engine's options, since a forked child has another process id.
        left_s = self.left_to_connect_s()
        # The driver takes whole seconds, and at least two.
        options["connect_timeout"] = max(2, math.ceil(left_s))
        options["fallback_application_name"] = f"ledger {os.getpid()}@{socket.gethostname()}"
        until_s = time.monotonic() + left_s

        def another(until_s: float) -> Session:
            return Session.connect_until(until_s, *args, **options)

        made = another(until_s)
        made.answers_until_s = until_s  # SQLAlchemy asks it for the version
        made.another, made.silent_s = another, self.timeout_s
        self._made.add(made)
        return made

    def expect_answers(self, connection: Connection, until_s: float | None) -> None:
        """Tell the session when to cancel."""
        _raw(connection).answers_until_s = until_s

    def begin(
        self,
        connection: Connection,
        *,
        pool_ids: Sequence[int] | None,
        timeout_s: float,
    ) -> None:
        """Begin with the first read, after the locks, since an earlier snapshot would be stale."""
        # Rounded up: after an end that came too early, another try would seem worth it.
        limit_ms = max(1, math.ceil(timeout_s * 1000))
        self.expect_answers(connection, time.monotonic() + timeout_s)
        locks = locks_of(pool_ids)
        _raw(connection).later(
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            f"SET LOCAL statement_timeout = {limit_ms}",
            # If this process is stopped now, its locks are held until the server ends the
            # transaction. It does so after half the time that other writers wait.
            f"SET LOCAL idle_in_transaction_session_timeout = {int(self._still_s * 1000)}",
            # Otherwise a small table is scanned, and the predicate lock is on all of it.
            "SET LOCAL enable_seqscan = off",
            *([f"LOCK TABLE {', '.join(locks)} IN EXCLUSIVE MODE"] if locks else []),
        )

    def locks_whole_store(self, pool_ids: Sequence[int]) -> bool:
        """Tell whether it takes every lock there is."""
        return len(pool_ids) > FEW_POOLS

    def begin_read(
        self, connection: Connection, *, serializable: bool, timeout_s: float | None
    ) -> None:
        """Begin read-only. A report takes a plain snapshot, so that it disturbs no writer."""
        level = self._read_level if serializable else "REPEATABLE READ"
        if timeout_s is not None:
            self._begin_alone(connection, level, timeout_s)
        else:
            self.expect_answers(connection, None)
            _raw(connection).later(
                f"BEGIN ISOLATION LEVEL {level} READ ONLY",
                # A report that waits for a lock must not wait for ever.
                f"SET LOCAL lock_timeout = {max(1, int(self.timeout_s * 1000))}",
            )

    def read_alone(
        self,
        connection: Connection,
        statement: Prepared,
        parameters: Mapping[str, int | None],
        *,
        timeout_s: float,
    ) -> list[dict[str, Any]]:
        """Send BEGIN, the SELECT and COMMIT as one message."""
        self._begin_alone(connection, self._read_level, timeout_s)
        text = statement.text(connection, parameters)
        return statement.rows_on(_raw(connection).execute(f"{text};COMMIT"))

    def _begin_alone(self, connection: Connection, level: str, timeout_s: float) -> None:
        self.expect_answers(connection, time.monotonic() + timeout_s)
        _raw(connection).later(
            f"BEGIN ISOLATION LEVEL {level} READ ONLY",
            f"SET LOCAL statement_timeout = {max(1, math.ceil(timeout_s * 1000))}",
            "SET LOCAL enable_seqscan = off",
        )

    def begin_migration(self, connection: Connection) -> None:
        """Begin by taking an advisory lock that ends with the transaction."""
        _raw(connection).execute(
            # A server's default level may take the snapshot before the lock is granted.
            "BEGIN ISOLATION LEVEL READ COMMITTED;"
            f"SET LOCAL lock_timeout = {max(1, int(self.timeout_s * 1000))};"
            f"SET LOCAL idle_in_transaction_session_timeout = {int(_MIGRATION_STILL_S * 1000)};"
            f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"
        )

    def commit(self, connection: Connection) -> None:
        """Commit; it counts only if the server answers COMMIT without a warning.

        Raises:
            CommitInDoubtError: The server stopped waiting for its synchronous standby.
            RolledBackError: The transaction had failed before, and was rolled back silently.
        """
        warnings = connection.info["warnings"]
        warnings.clear()
        cursor = _raw(connection).execute("COMMIT")
        if warnings:
            raise CommitInDoubtError(warnings[0])
        if cursor.statusmessage != "COMMIT":
            raise RolledBackError(f"the server answered {cursor.statusmessage}")

    def rollback(self, connection: Connection) -> None:
        """Roll back, or drop a connection that no longer answers."""
        if connection.invalidated:
            return
        _raw(connection).unsent()
        try:
            _raw(connection).rollback()
        except self.driver_errors:
            connection.invalidate()

    def undo(self, raw: Session) -> None:
        """Roll back, unless the server is busy (a pooler would lose its session), and close."""
        raw.unsent()
        try:
            if raw.pgconn.transaction_status in _OPEN:
                # One round trip from now, or from the deadline if that has passed.
                now_s = time.monotonic()
                raw.answers_until_s = min(now_s, raw.answers_until_s or now_s)
                raw.rollback()
        except self.driver_errors:  # the connection is lost
            pass
        finally:
            raw.pgconn.finish()

    def holder(self, error: Exception, pool_ids: Sequence[int] | None, lend: Lend) -> str | None:
        """Ask the server which session holds one of the locks of these pools."""
        state = sqlstate(error)
        if state not in WAITED:
            return REPLAY if state and self.read_only else None

        def ask(connection: Connection) -> str | None:
            locks = ", ".join(f"'{lock}'" for lock in locks_of(pool_ids))
            found = _raw(connection).execute(WHO_HOLDS.format(locks=locks)).fetchone()
            if found is None:
                return None
            holder = Holder(*found)
            if holder.is_cut_off and holder.since_s > self._still_s:
                _raw(connection).execute(f"SELECT pg_terminate_backend({holder.pid})")
            return str(holder)

        return lend(ask)

    def now(self) -> None:
        """Return None: all machines share the server's clock."""
        return None  # noqa: RET501 - None is the answer here

    def forget_after_fork(self) -> None:
        """Release the parent's sockets in a child, or the server would think the parent alive.

        Closing the connections would end the parent's sessions, so each socket is replaced by one
        that leads nowhere.
        """
        with Path(os.devnull).open("r+b") as nowhere:
            for connection in list(self._made):
                if not connection.closed:
                    os.dup2(nowhere.fileno(), connection.fileno())
        self._made.clear()

    def prepare(self, connection: Connection) -> None:
        """Refuse a database that cannot hold every text.

        Raises:
            LedgerUnavailableError: The database's encoding is not UTF8.
        """
        row = _raw(connection).execute("SHOW server_encoding").fetchone()
        if row is None or row[0] != "UTF8":
            raise LedgerUnavailableError(
                f"the database's encoding is {row and row[0]}, but a ledger needs UTF8: "
                "create one with ENCODING 'UTF8' TEMPLATE template0"
            )

    @staticmethod
    def insert(
        connection: Connection,
        table: str,
        columns: tuple[str, ...],
        rows: Sequence[tuple[Any, ...]],
    ) -> None:
        """Send a few rows in one message with COMMIT, many by COPY."""
        _raw(connection).insert(table, columns, rows)

    def definitions(self, connection: Connection) -> Definitions:
        """Return the definitions in the store's schema."""
        return postgresql_definitions(connection)

    def fresh_definitions(
        self, connection: Connection, upgrade: Callable[[Connection], None]
    ) -> Definitions:
        """Return the definitions in a schema that is made in a transaction and rolled back."""
        name = f"ledger_check_{os.urandom(8).hex()}"
        self.expect_answers(connection, None)
        connection.begin()
        try:
            raw = _raw(connection)
            raw.execute("BEGIN")
            raw.execute(f"CREATE SCHEMA {name}")
            raw.execute(f"SET LOCAL search_path = {name}")
            upgrade(connection)
            return self.definitions(connection)
        except Exception as error:
            if sqlstate(error) in REFUSED:
                raise NoReferenceError(self.hint(error)) from error
            raise
        finally:
            self.rollback(connection)

    def index_damage(self, connection: Connection) -> str | None:
        """Ask amcheck, where it is installed."""
        return postgresql_index_damage(connection)

    def failure(self, error: BaseException) -> Failure:
        """Return what an SQLSTATE means; an error without one is a lost connection."""
        return failure_of(error)

    def hint(self, error: BaseException) -> str:
        """Return what to do about the commonest SQLSTATEs."""
        return f"{shown_address(self.url)}: {explained(error)}"

    @staticmethod
    def guards(table: str, keys: Sequence[tuple[str, ...]]) -> list[str]:  # noqa: ARG004 - an insert replaces nothing here, ON CONFLICT is an UPDATE
        """Refuse UPDATE, DELETE and TRUNCATE, in a replica's session, too."""
        refuse, rows = f"{table}_append_only()", f"{table}_no_change"
        body = f"$$BEGIN RAISE EXCEPTION '{table} is append-only'; END$$"
        do = f"EXECUTE FUNCTION {refuse}"
        return [
            f"CREATE FUNCTION {refuse} RETURNS trigger LANGUAGE plpgsql AS {body}",
            MakesTrigger(
                f"CREATE TRIGGER {rows} BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW {do}",
                trigger=rows,
                table=table,
            ),
            always(rows, table),
            *refuse_truncate(table, table),
        ]

    @staticmethod
    def partitions(table: str, count: int) -> list[str]:
        """Return DDL for partitions by hash."""
        return make_partitions(table, count)

    @staticmethod
    def trigger_label(name: str, table: str) -> str:
        """Return its name and its table's, since partitions have triggers of the same name."""
        return f"trigger {name} of {table}"

    def partition_count(self, connection: Connection) -> int:
        """Ask the catalogue for the partitions of the entries."""
        return len(partitions_of(connection, "entries"))

    @staticmethod
    def rights() -> list[str]:
        """Refuse entries that set a policy, close or correct from roles that may not open pools."""
        return rights_guard()

    @staticmethod
    def functions() -> list[str]:
        """Keep the plans of the newest entry and of inserts."""
        return make_functions()

    def hides(self, connection: Connection) -> list[str]:
        """Return the tables with row-level security that applies to the role."""
        return hidden_tables(connection)

    def standby(self, connection: Connection) -> tuple[Micros, Micros | None] | None:
        """Ask a standby; the commit's time is by the primary's clock."""
        return standby_times(connection)

    def roles(self, connection: Connection, prefix: str) -> list[str]:
        """Return the statements that make the roles, for the current schema and database."""
        found = _raw(connection).execute("SELECT current_schema(), current_database()").fetchone()
        assert found is not None  # noqa: S101 - a SELECT of one row
        partitions = [name for table in DIVIDED for name in partitions_of(connection, table)]
        return make_roles(prefix, schema=found[0], database=found[1], partitions=partitions)


def _raw(connection: Connection) -> Session:
    session: Session = driver_of(connection)
    return session
