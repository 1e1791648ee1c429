"""The floor: one client of the raw driver, one INSERT and COMMIT of a row of equal size."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg

from benchmarks.measure import Round, Workload, repeated, timed
from benchmarks.stores import beside, sqlite_path

NAME = "floor: bare INSERT and COMMIT"

_ROW = os.urandom(450)
"""A row of 450 random bytes, as many as an entry has."""

_FSYNC_MIN_US = 20.0
"""A commit that takes less than 20 microseconds is quicker than any disk: it did not reach one."""


@contextmanager
def floor(url: str, operations: int) -> Iterator[Workload]:
    """Lend the floor of a store: `operations` rows a round, in a database beside the ledger's."""
    with beside(url, "floor") as other:
        if other.startswith("sqlite"):
            with closing(sqlite3.connect(sqlite_path(other), isolation_level=None)) as file:
                file.execute("PRAGMA journal_mode = WAL")
                file.execute("PRAGMA synchronous = FULL")
                file.execute("CREATE TABLE floor (id INTEGER PRIMARY KEY, body BLOB)")
                yield _workload(
                    file, operations, "BEGIN IMMEDIATE", "INSERT INTO floor (body) VALUES (?)"
                )
            return
        with psycopg.connect(other) as server:
            server.execute(
                "CREATE TABLE floor"
                " (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea)"
            )
            server.commit()
            yield _workload(server, operations, None, "INSERT INTO floor (body) VALUES (%s)")


def require_a_disk(seen: Round, fsync_us: int = 0) -> None:
    """Refuse a floor that is quicker than its disk.

    Args:
        seen: A round of the floor.
        fsync_us: The time that an fsync takes on a simulated disk, in microseconds.

    Raises:
        SystemExit: fsync does nothing here, so the figures would mean nothing.
    """
    if seen.seconds / seen.operations * 1e6 < fsync_us:
        raise SystemExit(
            f"the floor is quicker than the simulated fsync of {fsync_us} us: the library that "
            "sleeps in place of fsync is not in use, so the figures would say nothing"
        )
    if seen.seconds / seen.operations * 1e6 < _FSYNC_MIN_US:
        raise SystemExit(
            "the floor is quicker than a disk: fsync does nothing here, so the figures would say "
            "nothing. Set TMPDIR to a folder on a real disk"
        )


def _workload(connection: Any, operations: int, begin: str | None, insert: str) -> Workload:  # noqa: ANN401 - either driver's connection
    def once() -> None:
        if begin is not None:
            connection.execute(begin)
        connection.execute(insert, (_ROW,))
        connection.commit()

    return Workload(
        name=NAME, run=lambda: repeated(operations, lambda latencies: timed(latencies, once))
    )
