"""Plain SQL that the user supplies, through the raw driver: the peer that everybody has.

The file has parts, each behind a comment line that names it:

    -- setup
    CREATE TABLE ...;
    -- operation
    UPDATE ...; INSERT ...;
    -- operation
    UPDATE ...;

What stands behind `-- setup` runs once, in an empty database beside the ledger's. Each
`-- operation` is one transaction and counts as one operation, and they take turns: a reservation
and a settlement, say. Put both in one part, and a pair is one transaction. SQLite runs in WAL mode
with synchronous=FULL behind BEGIN IMMEDIATE, PostgreSQL as the server is set; a part may begin with
SET TRANSACTION ISOLATION LEVEL. `counter.sql` in this folder is an example for both.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.abc import Query

from benchmarks.bench import Bench
from benchmarks.measure import Workload, repeated, timed
from benchmarks.stores import beside, sqlite_path

_MARK = re.compile(r"(?mi)^--[ \t]*(setup|operation)[ \t]*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a file says: how to set up, and the operations in turn."""

    setup: str
    operations: tuple[str, ...]


def read_script(path: Path) -> Script:
    """Return the parts of a file.

    Raises:
        SystemExit: It cannot be read, or has no operation, or something before the first mark.
    """
    try:
        before, *parts = _MARK.split(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"{path} cannot be read: {error}") from error
    named = list(zip(map(str.lower, parts[::2]), parts[1::2], strict=True))
    operations = tuple(text for name, text in named if name == "operation")
    if not operations or _statements(before):
        raise SystemExit(
            f"{path}: every statement must stand behind a line '-- setup' or '-- operation', and "
            "there must be an operation"
        )
    return Script(
        setup="\n".join(text for name, text in named if name == "setup"), operations=operations
    )


def workload(bench: Bench, name: str, path: Path) -> Workload:
    """Return the operations of a file, in turn.

    Raises:
        SystemExit: The file cannot be read, or the database refuses what it says.
    """
    script = read_script(path)
    url = bench.stack.enter_context(
        beside(bench.url, f"sql_{re.sub('[^a-z0-9]', '_', name.lower())[:20]}")
    )
    setup = _sqlite if url.startswith("sqlite") else _postgresql
    try:
        parts = setup(bench, url, script)
        for part in parts:
            part()
    except (sqlite3.Error, psycopg.Error) as error:
        raise SystemExit(f"{path}: {bench.store} refuses it: {error}") from error

    def once(latencies: list[float]) -> None:
        for part in parts:
            timed(latencies, part)

    return Workload(
        name=f"SQL {name}: durable",
        run=lambda: repeated(bench.scale.calls, once),
        base=bench.floor,
    )


def _sqlite(bench: Bench, url: str, script: Script) -> list[Callable[[], None]]:
    connection = sqlite3.connect(sqlite_path(url), isolation_level=None)
    bench.stack.callback(connection.close)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.executescript(script.setup)

    def transaction(statements: list[str]) -> Callable[[], None]:
        def run() -> None:
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements:
                connection.execute(statement).fetchall()
            connection.execute("COMMIT")

        return run

    return [transaction(_statements(text)) for text in script.operations]


def _postgresql(bench: Bench, url: str, script: Script) -> list[Callable[[], None]]:
    connection = bench.stack.enter_context(psycopg.connect(url))

    def transaction(text: Query) -> Callable[[], None]:
        def run() -> None:
            connection.execute(text)
            connection.commit()

        return run

    transaction(script.setup.encode())()
    return [transaction(text.encode()) for text in script.operations]


def _statements(text: str) -> list[str]:
    """Return the statements of a text, without those that are only comments."""
    found, current = [], ""
    for piece in re.split("(?<=;)", text):
        current += piece
        if sqlite3.complete_statement(current):
            found.append(current.strip())
            current = ""
    if re.sub(r"(?m)--.*$", "", current).strip():
        found.append(current.strip())
    return found
