"""SQLite: pragmas, BEGIN IMMEDIATE, one writer at a time, result codes, triggers."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import time
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event

from ledger.core.checks import Micros
from ledger.core.errors import InvalidUrlError, LedgerUnavailableError, RowsDiscardedError
from ledger.store.dialects import readers
from ledger.store.dialects.base import (
    Dialect,
    Failure,
    Lend,
    MakesTrigger,
)
from ledger.store.dialects.catalogue import Definitions, sqlite_definitions
from ledger.store.dialects.filesystems import network_of
from ledger.store.dialects.indexes import sqlite_index_damage
from ledger.store.dialects.result_codes import explained, failure_of
from ledger.store.dialects.shapes import alike
from ledger.store.dialects.views import Readable, readable_time
from ledger.store.dialects.writerlock import LOCK_SUFFIXES, WriterLock, WriterLockTimeoutError
from ledger.store.statements import Prepared, driver_of

SIDE_FILES = ("-wal", "-shm", "-journal", *(f"-lock{suffix}" for suffix in LOCK_SUFFIXES))
"""The suffixes of files beside a database: SQLite's own, and those of the writer lock."""

_URI_PARAMETERS = {"mode", "cache", "vfs", "immutable", "nolock", "psow"}
"""The parameters that SQLite accepts in a file name that begins with `file:`."""

_ROWS_EACH = (1, 4, 16, 64)
"""How many rows a statement inserts. There are few sizes, so that the driver can keep the
statements.

A row takes 6.5 us in a statement of 64, and 8.4 us in one of its own. The driver also releases the
interpreter's lock at each statement, so fewer statements mean fewer thread switches in a batch.
"""


@lru_cache(maxsize=256)
def _insert(table: str, columns: tuple[str, ...], rows: int) -> str:
    """Return the statement that inserts some rows."""
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"


_SECOND = "{0} / 1000000 - ({0} % 1000000 < 0)"
_READABLE = Readable(
    time=readable_time(
        f"strftime('%Y-%m-%dT%H:%M:%S', {_SECOND}, 'unixepoch')"
        " || printf('.%06dZ', ({0} % 1000000 + 1000000) % 1000000)"
    ),
    day=readable_time(f"strftime('%Y-%m-%d', {_SECOND}, 'unixepoch')"),
    identity="lower(hex({0}))",
)


class _Connection(readers.Connection):
    """A connection that ends its transaction when it is closed.

    SQLite keeps a closed connection and its locks while one of its statements is unfinished, and
    the traceback of an interrupt may keep such a statement for ever.
    """

    def close(self) -> None:
        """Roll back what is open, and close."""
        with contextlib.suppress(sqlite3.Error):  # it is closed already
            self.rollback()
        super().close()


class SQLiteDialect(Dialect):
    """An SQLite file in WAL mode."""

    name = "sqlite"
    driver_errors = (sqlite3.Error,)
    connections_survive_fork = False
    readable = _READABLE

    def __init__(self, url: URL, *, timeout_s: float, read_only: bool = False) -> None:
        super().__init__(url, timeout_s=timeout_s, read_only=read_only)
        database = (url.database or "").removeprefix("file:")
        in_memory = {url.query.get("mode"), url.query.get("vfs")} & {"memory", "memdb"}
        if not database or ":memory:" in database or in_memory:
            raise InvalidUrlError(
                "url",
                "an in-memory SQLite database would forget everything; name a file "
                "(sqlite:///ledger.db), or use SharedPoolBudgetManager",
            )
        taken = {"network", "uri"} | (_URI_PARAMETERS if "uri" in url.query else set())
        if unknown := sorted(set(url.query) - taken):
            raise InvalidUrlError(
                "url",
                f"a file has no parameter {unknown[0]!r}; write sqlite:///ledger.db, and give "
                "Ledger.open what else it takes (read_only=True, timeout_s=10)",
            )
        allowed = url.query.get("network")
        if allowed not in {None, "allow"}:
            reason = f"network is {allowed!r}, and can be allow: sqlite:///ledger.db?network=allow"
            raise InvalidUrlError("url", reason)
        self._may_be_remote = allowed is not None
        if "\0" in database:
            raise InvalidUrlError("url", "no NUL in a file's name; write sqlite:///ledger.db")
        self.path = Path(database).absolute()
        self._writer = WriterLock(Path(f"{self.path}-lock"))
        self._step_ms = max(1, int(timeout_s * 1000) // 16)

    def files(self) -> list[Path]:
        """Return the database and the files beside it, by the given and the real path."""
        bases = {self.path, self.path.resolve()}
        return [Path(f"{base}{end}") for base in bases for end in ("", *SIDE_FILES)]

    def create_engine(self, *, create: bool) -> Engine:
        """Return an engine; without `create` the file must exist.

        Raises:
            LedgerUnavailableError: There is no such file or folder, or it is on another machine.
        """
        if not self.path.parent.is_dir():
            raise LedgerUnavailableError(f"no folder {self.path.parent}; make it first")
        if self.path.exists() and not self.path.is_file():
            raise LedgerUnavailableError(f"{self.path} is a folder or a device; name a file")
        if not create and not self.path.exists():
            raise LedgerUnavailableError(
                f"no file {self.path}: check the URL, or make the store first (Ledger.open does, "
                "with create=True, and so does 'ledger pool open')"
            )
        network = network_of(self.path.resolve())
        if network is not None and not (self._may_be_remote or self.read_only):
            raise LedgerUnavailableError(
                f"{self.path} is on a network file system ({network}), where SQLite's locks and "
                "its shared memory do not reach other machines: two of them can destroy the store. "
                "Put it on a local disk, or use PostgreSQL; if one machine alone ever opens it, "
                "end its URL in ?network=allow"
            )
        engine = create_engine(
            self.url.difference_update_query(["network"]),
            isolation_level="AUTOCOMMIT",
            # Its pools keep locks that an interrupt may leave locked.
            poolclass=NullPool,
            pool_reset_on_return=None,  # a returned connection has no transaction, or is closed
            connect_args={"factory": _Connection},
        )
        if self.read_only:
            event.listen(engine, "do_connect", self._connect_to_read)
        event.listen(engine, "connect", self._configure)
        return engine

    def _connect_to_read(
        self, _dialect: object, _record: object, _args: object, options: dict[str, Any]
    ) -> readers.Connection:
        options["uri"] = True
        return readers.connect(self.path, **options)

    def _configure(self, connection: sqlite3.Connection, _record: object) -> None:
        busy_ms = int(self.left_to_connect_s() * 1000)
        pragmas = [f"busy_timeout = {busy_ms}", "cell_size_check = ON"]
        if not self.read_only:
            pragmas += [
                # NORMAL loses acknowledged commits on power loss in WAL mode; FULL loses none.
                "synchronous = FULL",
                # Without it, the DELETE half of INSERT OR REPLACE fires no trigger.
                "recursive_triggers = ON",
            ]
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
        # Text that is not UTF-8 must be reported by `verify`, and not fail every reader.
        connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")

    def begin(
        self,
        connection: Connection,
        *,
        pool_ids: Sequence[int] | None,  # noqa: ARG002 - one lock covers the file
        timeout_s: float,
    ) -> None:
        """Take the writer lock and then the database's own write lock, before anything is read."""
        until_s = time.monotonic() + timeout_s
        self._writer.acquire(timeout_s=timeout_s)
        self._wait_at_most(connection, until_s - time.monotonic()).shared.execute("BEGIN IMMEDIATE")

    def _wait_at_most(self, connection: Connection, timeout_s: float) -> readers.Connection:
        """Let statements wait this long, or a little less, for other programs."""
        # In steps of a sixteenth of the time-out, and only when the step changes: each new number
        # is a statement to compile, which took 19 us of the 310 us of a lone caller's transaction.
        # The time after the last step is used by trying again.
        raw: readers.Connection = driver_of(connection)
        busy_ms = self._step_ms * max(0, int(timeout_s * 1000) // self._step_ms)
        if busy_ms != raw.busy_ms:
            raw.execute(f"PRAGMA busy_timeout = {busy_ms}")
            raw.busy_ms = busy_ms
        return raw

    def locks_whole_store(self, pool_ids: Sequence[int]) -> bool:  # noqa: ARG002 - one lock covers the file
        """Return True: there is one lock for the whole file."""
        return True

    def begin_read(
        self,
        connection: Connection,
        *,
        serializable: bool,  # noqa: ARG002 - one snapshot serves both
        timeout_s: float | None,
    ) -> None:
        """Begin on a snapshot of the whole file, which in WAL mode waits for no writer."""
        left_s = self.timeout_s if timeout_s is None else timeout_s
        self._wait_at_most(connection, left_s).execute("BEGIN")

    def read_alone(
        self,
        connection: Connection,
        statement: Prepared,
        parameters: Mapping[str, int | None],
        *,
        timeout_s: float,
    ) -> list[dict[str, Any]]:
        """Run the SELECT: a statement outside a transaction is one."""
        self._wait_at_most(connection, timeout_s)
        return statement.rows(connection, parameters)

    def check_unchanged(self, connection: Connection) -> None:
        """Make sure that the file is unchanged, if SQLite itself would not notice a change."""
        raw: readers.Connection = driver_of(connection)
        if raw.seen is not None:
            readers.check_unchanged(self.path, raw)

    def begin_migration(self, connection: Connection) -> None:
        """Begin as for any write, since a file has one writer at a time."""
        self.begin(connection, pool_ids=(), timeout_s=self.timeout_s)

    def commit(self, connection: Connection) -> None:
        """Commit. A checkpoint that COMMIT causes runs under the writer lock, too."""
        driver_of(connection).shared.execute("COMMIT")

    def rollback(self, connection: Connection) -> None:
        """Roll back, unless SQLite already did so by itself, as with a full disk."""
        if connection.invalidated:
            return
        raw = driver_of(connection)
        if raw.in_transaction:
            try:
                raw.execute("ROLLBACK")
            except sqlite3.Error:
                connection.invalidate()

    def undo(self, raw: sqlite3.Connection) -> None:
        """Close it, which rolls back."""
        with contextlib.suppress(sqlite3.Error):
            raw.close()

    def holder(
        self,
        error: Exception,
        pool_ids: Sequence[int] | None,  # noqa: ARG002 - a file says it
        lend: Lend,  # noqa: ARG002 - as above
    ) -> str | None:
        """Return the process that has the writer lock; other programs leave no name."""
        if isinstance(error, WriterLockTimeoutError):
            return error.holder
        if failure_of(error) is Failure.BUSY:
            return f"a program that writes to {self.path} without the lock {self._writer.path.name}"
        return None

    def now(self) -> Micros:
        """Return this machine's time, since there is no server."""
        return Micros(time.time_ns() // 1_000)

    def end(self) -> None:
        """Let the next writer in."""
        self._writer.release()

    def close(self) -> None:
        """Close the writer lock's files."""
        self._writer.close(timeout_s=self.timeout_s)

    def forget_after_fork(self) -> None:
        """Start the child with a writer lock of its own."""
        self._writer.abandon()
        self._writer = WriterLock(self._writer.path)

    def prepare(self, connection: Connection) -> None:
        """Switch the file to WAL, which it then keeps."""
        deadline = time.monotonic() + self.timeout_s
        while True:
            try:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            except Exception as error:
                # The switch needs exclusive access to the file, and SQLite does not wait for that.
                if failure_of(error) is not Failure.BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def mend(self, connection: Connection) -> None:
        """Switch a copy without WAL, as VACUUM INTO and `.dump` make it, to WAL.

        Without WAL every read would keep writers out.
        """
        if connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
            self.prepare(connection)

    @staticmethod
    def insert(
        connection: Connection,
        table: str,
        columns: tuple[str, ...],
        rows: Sequence[tuple[Any, ...]],
    ) -> None:
        """Insert the rows now."""
        cursor = driver_of(connection).shared
        for names, values in alike(columns, rows):
            done = 0
            while done < len(values):
                size = _ROWS_EACH[bisect(_ROWS_EACH, len(values) - done) - 1]
                several = chain.from_iterable(values[done : done + size])
                cursor.execute(_insert(table, names, size), tuple(several))
                if cursor.rowcount != size:
                    raise RowsDiscardedError
                done += size

    def definitions(self, connection: Connection) -> Definitions:
        """Return the definitions in the file."""
        found = sqlite_definitions(connection)
        if driver_of(connection).seen is None:
            return found
        return {**found, ("", "journal mode"): readers.journal_mode(self.path)}

    def fresh_definitions(
        self,
        connection: Connection,  # noqa: ARG002 - a file of its own
        upgrade: Callable[[Connection], None],
    ) -> Definitions:
        """Return the definitions in a temporary file with the same schema."""
        with tempfile.TemporaryDirectory(prefix="ledger-check-") as folder:
            file = URL.create("sqlite", database=f"{folder}/ledger.db")
            engine = create_engine(file, isolation_level="AUTOCOMMIT", poolclass=NullPool)
            with engine.connect() as made:
                self.prepare(made)
                made.commit()
                made.begin()
                driver_of(made).execute("BEGIN")
                upgrade(made)
                driver_of(made).execute("COMMIT")
                return sqlite_definitions(made)

    def index_damage(self, connection: Connection) -> str | None:
        """Run PRAGMA integrity_check."""
        return sqlite_index_damage(connection)

    def failure(self, error: BaseException) -> Failure:
        """Tell what an SQLite result code means."""
        return failure_of(error)

    def hint(self, error: BaseException) -> str:
        """Return what to do about the commonest result codes."""
        return f"{self.path}: {explained(error)}"

    @staticmethod
    def guards(table: str, keys: Sequence[tuple[str, ...]]) -> list[str]:
        """Refuse UPDATE, DELETE, and every INSERT that would replace a row through a key."""
        refuse = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        taken = " OR ".join(_is_taken(table, key) for key in keys)
        refused = {
            f"{table}_no_update": f"UPDATE ON {table}",
            f"{table}_no_delete": f"DELETE ON {table}",
            f"{table}_no_replace": f"INSERT ON {table} WHEN {taken}",
        }
        return [
            MakesTrigger(f"CREATE TRIGGER {name} BEFORE {when} {refuse}", trigger=name, table=table)
            for name, when in refused.items()
        ]


def _is_taken(table: str, key: Sequence[str]) -> str:
    """Return the condition that another row has the key of the new row.

    A condition of the key comes first, since most new rows do not fulfil it and then need no
    search.
    """
    same = [part if " " in part else f"{part} = NEW.{part}" for part in key]
    conditions = [f"NEW.{part}" for part in key if " " in part]
    found = f"EXISTS (SELECT 1 FROM {table} WHERE {' AND '.join(same)})"
    return f"({' AND '.join([*conditions, found])})"
