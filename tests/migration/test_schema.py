"""The migrated schema is the one the library declares, on both databases."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect
from sqlalchemy.exc import IntegrityError

from ledger import Ledger, SharedPoolBudgetOptions
from ledger.store import migrate, schema
from ledger.store.database import Database
from ledger.store.dialects.locks import POOL_LOCKS, lock_table
from tests.migration.databases import connected

TABLES = set(schema.metadata.tables)


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """Lend the library's database at an address."""
    database = Database(url, timeout_s=5, create=True)
    yield database
    database.close()


@pytest.fixture
def migrated(store_url: str) -> str:
    """Return a store that the migrations made, on each database in turn."""
    Ledger.open(store_url).close()
    return store_url


def parts_of(statement: str) -> list[str]:
    """Return a CREATE's parts, each on one line, sorted: their order means nothing."""
    text = re.sub(r"\s+", " ", statement).replace("( ", "(").replace(" )", ")")
    head, _, body = text.partition("(")
    body, _, tail = body.rpartition(")")
    depth, parts = 0, [""]
    for char in body:
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [head.strip(), *sorted(part.strip() for part in parts), tail.strip()]


def sqlite_shape(connection: Connection) -> dict[str, Any]:
    """Return tables and indexes as SQLite keeps them, and the order of columns."""
    found = connection.exec_driver_sql(
        "SELECT tbl_name, name, sql FROM sqlite_master WHERE sql IS NOT NULL"
        " AND type IN ('table', 'index')"
    ).all()
    shape: dict[str, Any] = {
        name: parts_of(statement) for table, name, statement in found if table in TABLES
    }
    for table in TABLES:
        columns = connection.exec_driver_sql(f"PRAGMA table_info({table})").all()
        shape[f"{table}'s columns"] = [tuple(column) for column in columns]
    return shape


def postgresql_shape(connection: Connection) -> dict[str, Any]:
    """Return columns, constraints and indexes as PostgreSQL's catalogues tell them."""
    queries = {
        "columns": (
            "SELECT table_name, ordinal_position, column_name, data_type, is_nullable,"
            " column_default, is_identity FROM information_schema.columns"
            " WHERE table_schema = 'public' ORDER BY 1, 2"
        ),
        "constraints": (
            "SELECT conrelid::regclass::text, conname, contype, pg_get_constraintdef(oid)"
            " FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2"
        ),
        "indexes": (
            "SELECT tablename, indexname, indexdef FROM pg_indexes"
            " WHERE schemaname = 'public' ORDER BY 1, 2"
        ),
    }
    return {
        what: [tuple(row) for row in connection.exec_driver_sql(query) if row[0] in TABLES]
        for what, query in queries.items()
    }


SHAPES = {"sqlite": sqlite_shape, "postgresql": postgresql_shape}


@pytest.mark.parametrize("kind", SHAPES)
def test_migrations_make_what_the_metadata_declares(
    kind: str, new_store: Callable[..., str]
) -> None:
    """Columns in order, types, keys, CHECKs and indexes are the same, made either way."""
    migrated, declared = new_store(kind), new_store(kind, empty=True)
    Ledger.open(migrated).close()
    with connected(declared) as connection:
        schema.metadata.create_all(connection)
        connection.commit()
        expected = SHAPES[kind](connection)
    with connected(migrated) as connection:
        actual = SHAPES[kind](connection)
    assert expected == actual
    assert TABLES <= {name for name, *_ in expected.get("columns", [])} | set(expected)


def test_migrations_make_nothing_else(migrated: str) -> None:
    """Beside the four tables there are the version, the views, and on PostgreSQL the locks."""
    locks = set(map(lock_table, range(POOL_LOCKS))) if "postgresql" in migrated else set()
    with connected(migrated) as connection:
        found = inspect(connection)
        assert TABLES | {schema.VERSION_TABLE} | locks == set(found.get_table_names())
        assert {"journal", "lease_summary", "spend_by_day"} == set(found.get_view_names())


def test_every_check_has_a_name(migrated: str) -> None:
    """A CHECK without a name would be lost by alembic's batch mode, and could not be dropped."""
    with connected(migrated) as connection:
        if connection.dialect.name == "sqlite":
            statements = [
                statement
                for statement in connection.exec_driver_sql(
                    "SELECT sql FROM sqlite_master WHERE type = 'table'"
                ).scalars()
                if "CHECK" in statement
            ]
            checks = sum(statement.count("CHECK") for statement in statements)
            named = sum(
                len(re.findall(r"CONSTRAINT ck_\w+ CHECK", statement)) for statement in statements
            )
        else:
            names = list(
                connection.exec_driver_sql(
                    "SELECT conname FROM pg_constraint WHERE contype = 'c'"
                    " AND connamespace = 'public'::regnamespace"
                ).scalars()
            )
            declared = {
                str(constraint.name)
                for table in schema.metadata.tables.values()
                for constraint in table.constraints
            }
            checks, named = len(names), len(declared & set(names))
    assert checks == named
    assert checks > 20


def test_every_table_is_strict_and_keyed_by_its_own_key(new_store: Callable[..., str]) -> None:
    """STRICT refuses other types; WITHOUT ROWID leaves no hidden key to replace a row by."""
    url = new_store("sqlite")
    Ledger.open(url).close()
    with connected(url) as connection:
        found = {
            row.name: (row.wr, row.strict)
            for row in connection.exec_driver_sql("PRAGMA table_list")
            if row.name in TABLES
        }
    assert dict.fromkeys(TABLES, (1, 1)) == found


def test_the_library_works_with_the_newest_migration() -> None:
    """REVISION is the one head of the history."""
    config = Config()
    with_folders = migrate._config(None)  # type: ignore[arg-type]
    config.set_main_option("script_location", str(with_folders.get_main_option("script_location")))
    assert [schema.REVISION] == ScriptDirectory.from_config(config).get_heads()


def test_a_fresh_store_differs_in_nothing(migrated: str) -> None:
    """`ledger db check` is silent on a fresh store."""
    with opened(migrated) as database:
        assert [] == migrate.differences(database, [])


DAMAGES = [
    ("sqlite", "DROP TRIGGER entries_no_update", "trigger entries_no_update"),
    ("sqlite", "DROP TRIGGER pools_no_replace", "trigger pools_no_replace"),
    ("sqlite", "ALTER TABLE entries DROP COLUMN used_reasoning_tokens", "used_reason"),
    ("sqlite", "DROP INDEX uq_entries_lease_end", "uq_entries_lease_end"),
    ("sqlite", "DROP INDEX ix_entries_at", "index ix_entries_at is missing"),
    ("sqlite", "ALTER TABLE pools ADD COLUMN more TEXT", "more"),
    ("postgresql", "DROP INDEX ix_entries_at", "ix_entries_at"),
    ("postgresql", "DROP TRIGGER entries_no_change ON entries", "trigger entries_no_change"),
    ("postgresql", "DROP TRIGGER store_no_truncate ON store", "trigger store_no_truncate"),
    (
        "postgresql",
        "ALTER TABLE pools DISABLE TRIGGER pools_no_change",
        "trigger pools_no_change",
    ),
    (
        "postgresql",
        "ALTER TABLE entries ENABLE TRIGGER entries_no_change",
        "trigger entries_no_change",
    ),
    (
        "postgresql",
        "ALTER TABLE entries DROP COLUMN used_reasoning_tokens",
        "used_reasoning_tokens",
    ),
    ("postgresql", "DROP INDEX uq_entries_lease_end", "uq_entries_lease_end"),
    ("postgresql", "ALTER TABLE pools ALTER COLUMN name DROP NOT NULL", "name"),
    ("postgresql", "ALTER TABLE pools DROP CONSTRAINT uq_pools_name", "constraint uq_pools_name"),
]


@pytest.mark.parametrize(
    ("kind", "statement", "named"), DAMAGES, ids=[f"{kind}-{text}" for kind, text, _ in DAMAGES]
)
def test_what_was_taken_away_is_reported(
    kind: str, statement: str, named: str, new_store: Callable[..., str]
) -> None:
    """A missing guard, one that replicas get past, a lost column, key or index: all are named."""
    url = new_store(kind)
    Ledger.open(url).close()
    with connected(url) as connection:
        connection.exec_driver_sql(statement)
        connection.commit()
    with opened(url) as database:
        (difference,) = migrate.differences(database, [])
    assert named in difference


def test_an_index_of_the_same_name_elsewhere_does_not_count(new_store: Callable[..., str]) -> None:
    """One on another table does not stand in for the one that is missing."""
    url = new_store("sqlite")
    Ledger.open(url).close()
    with connected(url) as connection:
        for statement in (
            "DROP INDEX ix_entries_at",
            "CREATE TABLE other (a INTEGER)",
            "CREATE INDEX ix_entries_at ON other (a)",
        ):
            connection.exec_driver_sql(statement)
        connection.commit()
    with opened(url) as database:
        assert ["index ix_entries_at is missing"] == migrate.differences(database, [])


def test_sqlite_has_figures_of_every_index(new_store: Callable[..., str]) -> None:
    """One line each, as long as the index has columns, for those that a plan can be by."""
    url = new_store("sqlite")
    Ledger.open(url).close()
    with connected(url) as connection:
        run = connection.exec_driver_sql
        figures = {
            (table, name): stat.split()
            for table, name, stat in run("SELECT tbl, idx, stat FROM sqlite_stat1")
        }
        columns = {
            # The index that a table without rowid is in has the table's own name.
            (table, table if origin == "pk" else name): len(
                run(f"PRAGMA index_info('{name}')").all()
            )
            for table in ("entries", "attributions")
            for _, name, _, origin, _ in run(f"PRAGMA index_list('{table}')")
        }
    assert columns == {place: len(words) - 1 for place, words in figures.items()}


def test_each_of_two_missing_indexes_is_named(migrated: str) -> None:
    """Also where the name of one begins like that of the other."""
    with connected(migrated) as connection:
        for name in ("ix_entries_at", "ix_entries_attribution_id"):
            connection.exec_driver_sql(f"DROP INDEX {name}")
        connection.commit()
    with opened(migrated) as database:
        found = migrate.differences(database, [])
    assert 2 == len(found)
    for name in (r"ix_entries_at\b", r"ix_entries_attribution_id\b"):
        assert [one for one in found if re.search(name, one)]


def test_tables_of_another_program_are_none_of_our_business(migrated: str) -> None:
    """A program's own tables, with its own migrations, share the database in peace."""
    with connected(migrated) as connection:
        connection.exec_driver_sql("CREATE TABLE customers (name TEXT)")
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT)")
        connection.commit()
    with opened(migrated) as database:
        assert [] == migrate.differences(database, [])
    Ledger.open(migrated).close()


@pytest.mark.parametrize("kind", SHAPES)
def test_an_upgrade_adds_a_ledger_beside_other_tables(
    kind: str, new_store: Callable[..., str]
) -> None:
    """What opening refuses to do by surprise, an upgrade does when asked."""
    url = new_store(kind, empty=True)
    with connected(url) as connection:
        connection.exec_driver_sql("CREATE TABLE customers (name TEXT)")
        connection.exec_driver_sql("CREATE INDEX customers_by_name ON customers (name)")
        connection.exec_driver_sql("INSERT INTO customers VALUES ('somebody')")
        connection.commit()
    with opened(url) as database:
        migrate.upgrade(database)
        assert [] == migrate.differences(database, [])
    Ledger.open(url, create=False).close()
    with connected(url) as connection:
        assert "somebody" == connection.exec_driver_sql("SELECT name FROM customers").scalar()
        if kind == "sqlite":
            figures = connection.exec_driver_sql("SELECT tbl FROM sqlite_stat1").scalars()
            assert "customers" not in set(figures)


@pytest.mark.parametrize("column", schema.NOT_NEGATIVE)
def test_no_balance_is_negative(migrated: str, column: str) -> None:
    """The database refuses an entry with a negative total or flags, whoever writes it."""
    with Ledger.open(migrated) as book:
        book.pool("pool", SharedPoolBudgetOptions())
    names = schema.entries.columns.keys()
    given = [{"seq": "2", column: "-1"}.get(name, name) for name in names]
    insert = f"INSERT INTO entries ({', '.join(names)}) SELECT {', '.join(given)} FROM entries"
    with connected(migrated) as connection, pytest.raises(IntegrityError, match="not_negative"):
        connection.exec_driver_sql(insert)
