"""The floor: one client of the raw driver, one INSERT and COMMIT of a row of equal size."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

from benchmarks.measure import Round, timed

_ROW = os.urandom(450)
"""As many bytes as an entry has."""

_FSYNC_MIN_US = 20.0
"""A commit that is quicker than any disk did not reach one."""


class Floor:
    """A connection that inserts one row at a time."""

    def __init__(self, connection: Any, insert: str, begin: str | None) -> None:  # noqa: ANN401
        self._connection = connection
        self._insert = insert
        self._begin = begin

    def round(self, operations: int) -> Round:
        """Insert and commit so many rows, one after the other."""
        latencies: list[float] = []
        began = time.perf_counter()
        for _ in range(operations):
            timed(latencies, self._once)
        seconds = time.perf_counter() - began
        if seconds / operations * 1e6 < _FSYNC_MIN_US:
            raise SystemExit("the floor is quicker than a disk: fsync does nothing here")
        return Round(operations=operations, seconds=seconds, latencies_s=latencies)

    def _once(self) -> None:
        if self._begin is not None:
            self._connection.execute(self._begin)
        self._connection.execute(self._insert, (_ROW,))
        self._connection.commit()


@contextmanager
def floor(url: str) -> Iterator[Floor]:
    """Lend the floor of a store: a table of its own in a database beside the ledger's."""
    if url.startswith("sqlite"):
        path = Path(str(make_url(url).database)).with_name("floor.db")
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS floor (id INTEGER PRIMARY KEY, body BLOB)")
        insert = "INSERT INTO floor (body) VALUES (?)"
        yield Floor(connection, insert, "BEGIN IMMEDIATE")
        connection.close()
        return
    with psycopg.connect(url) as server:
        server.execute(
            "CREATE TABLE IF NOT EXISTS floor"
            " (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea)"
        )
        server.commit()
        yield Floor(server, "INSERT INTO floor (body) VALUES (%s)", None)
