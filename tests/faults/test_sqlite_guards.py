"""Rows of a SQLite store stay as they were written, whichever program opens the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from ledger import (
    Attribution,
    IdempotencyKey,
    Ledger,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
)

TABLES = ("store", "pools", "attributions", "entries")
UPSERT = (
    "INSERT INTO {table} SELECT * FROM {table} WHERE true"
    " ON CONFLICT DO UPDATE SET {column} = excluded.{column}"
)
FIRST_COLUMN = {"store": "store_id"}

# A row as free of keys as a row can be, for each table; a case below puts one key back.
FRESH: dict[str, dict[str, Any]] = {
    "store": {"store_id": 1},
    "pools": {"pool_id": 90, "identity": b"i" * 16, "name": "another"},
    "attributions": {"attribution_id": 90, "content_key": b"c" * 32},
    "entries": {
        "seq": 90,
        "kind": "note",
        "lease": None,
        "idempotency_key": None,
        "origin_pool_id": None,
        "origin_seq": None,
    },
}
# Every unique key: its table, a row that holds it, and the columns it is made of.
KEYS: list[tuple[str, str, tuple[str, ...], dict[str, Any]]] = [
    ("store", "store_id = 1", ("store_id",), {}),
    ("pools", "pool_id = 1", ("pool_id",), {}),
    ("pools", "pool_id = 1", ("identity",), {}),
    ("pools", "pool_id = 1", ("name",), {}),
    ("attributions", "attribution_id = 1", ("pool_id", "attribution_id"), {}),
    ("attributions", "attribution_id = 1", ("pool_id", "content_key"), {}),
    ("entries", "seq = 2", ("pool_id", "seq"), {}),
    ("entries", "seq = 2", ("pool_id", "idempotency_key"), {}),
    ("entries", "kind = 'settlement'", ("pool_id", "lease", "kind"), {}),
    ("entries", "kind = 'settlement'", ("pool_id", "lease"), {"kind": "release"}),
    ("entries", "kind = 'release'", ("pool_id", "lease"), {"kind": "settlement"}),
    ("entries", "kind = 'expiry'", ("pool_id", "lease", "kind"), {}),
    ("entries", "origin_seq = 7", ("pool_id", "origin_pool_id", "origin_seq"), {}),
]
IDS = [f"{table}-{'+'.join(columns)}-{where}" for table, where, columns, _ in KEYS]


@pytest.fixture
def connection(new_store: Callable[..., str]) -> Iterator[sqlite3.Connection]:
    """Return a plain connection, without the library's pragmas, to a store that has every key."""
    url = new_store("sqlite")
    path = Path(str(make_url(url).database))
    with Ledger.open(url) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions())
        extensions = RequestExtensions(Attribution(run_id="run"), IdempotencyKey("key"))
        lease = budget.reserve(extensions, UsageEstimate(total_tokens=5), RequestBudget.unlimited())
        budget.record_used(lease, Usage(total_tokens=4))
    with closing(sqlite3.connect(path, isolation_level=None)) as opened:
        opened.row_factory = sqlite3.Row
        template = {**row_where(opened, "entries", "seq = 2"), **FRESH["entries"]}
        for crafted in (
            {"seq": 10, "kind": "release", "lease": 8},
            {"seq": 11, "kind": "expiry", "lease": 2},
            {"seq": 12, "kind": "mirror", "origin_pool_id": 3, "origin_seq": 7},
        ):
            write(opened, "INSERT", "entries", {**template, **crafted})
        assert 0 == opened.execute("PRAGMA recursive_triggers").fetchone()[0]
        yield opened


def row_where(connection: sqlite3.Connection, table: str, where: str) -> dict[str, Any]:
    """Return the one row."""
    (row,) = connection.execute(f"SELECT * FROM {table} WHERE {where}").fetchall()
    return dict(row)


def write(
    connection: sqlite3.Connection, verb: str, table: str, row: dict[str, Any], rest: str = ""
) -> None:
    """Write a row."""
    marks = ", ".join("?" * len(row))
    connection.execute(
        f"{verb} INTO {table} ({', '.join(row)}) VALUES ({marks}) {rest}", list(row.values())
    )


def contents(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of the four tables."""
    return {
        table: [tuple(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")]
        for table in TABLES
    }


@pytest.mark.parametrize("spelling", ["as stored", "as text"])
@pytest.mark.parametrize("verb", ["REPLACE", "INSERT OR REPLACE"])
@pytest.mark.parametrize(("table", "where", "columns", "change"), KEYS, ids=IDS)
def test_no_key_lets_an_insert_replace_a_row(
    connection: sqlite3.Connection,
    verb: str,
    table: str,
    where: str,
    columns: tuple[str, ...],
    change: dict[str, Any],
    spelling: str,
) -> None:
    """A replacing insert that meets a row through any one of its keys is refused."""
    before = contents(connection)
    held = row_where(connection, table, where)
    row = {**held, **FRESH[table], **{name: held[name] for name in columns}, **change}
    if spelling == "as text":
        row = {name: str(value) if type(value) is int else value for name, value in row.items()}
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        write(connection, verb, table, row)
    assert before == contents(connection)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {table} SET {column} = {column}",
        "UPDATE OR REPLACE {table} SET {column} = {column}",
        "UPDATE OR IGNORE {table} SET {column} = {column}",
        "DELETE FROM {table}",
        "DELETE FROM {table} WHERE {column} = 1",
        UPSERT,
        "REPLACE INTO {table} SELECT * FROM {table}",
    ],
)
def test_no_statement_changes_a_row(
    connection: sqlite3.Connection, statement: str, table: str
) -> None:
    """Updates, deletes and upserts are refused on every table."""
    before = contents(connection)
    assert all(before.values())
    column = FIRST_COLUMN.get(table, "pool_id")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement.format(table=table, column=column))
    assert before == contents(connection)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("seq", 2**63),
        ("seq", "many"),
        ("seq", 0),
        ("flags", -1),
        ("committed_tokens", -1),
        ("reserved_cost_micros_usd", 0.5),
        ("hash", b"short"),
        ("kind", ""),
        ("lease", 91),
        ("detail", 5.5),
    ],
)
def test_a_row_of_other_types_or_lengths_is_refused(
    connection: sqlite3.Connection, column: str, value: object
) -> None:
    """STRICT tables and named CHECKs keep out what the library could not read again."""
    before = contents(connection)
    row = {**row_where(connection, "entries", "seq = 2"), **FRESH["entries"], column: value}
    if isinstance(value, float) and column == "detail":
        row[column] = b"blob"
    with pytest.raises((sqlite3.IntegrityError, OverflowError)):
        write(connection, "INSERT", "entries", row)
    assert before == contents(connection)
