"""Schemas of other versions, and alembic's own commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import inspect

from ledger import (
    Ledger,
    LedgerUnavailableError,
    RequestBudget,
    RequestExtensions,
    SchemaVersionError,
    SharedPoolBudgetOptions,
    UsageEstimate,
)
from ledger.store import migrate, schema
from ledger.store.database import Database
from tests import programs
from tests.migration.databases import connected
from tests.programs import ROOT

KINDS = ["sqlite", "postgresql"]


@pytest.fixture
def filled(store_url: str) -> str:
    """Return a store with a pool and a reservation, on each database in turn."""
    with Ledger.open(store_url) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions())
        budget.reserve(
            RequestExtensions(), UsageEstimate(total_tokens=5), RequestBudget.unlimited()
        )
    return store_url


def alembic(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run alembic as a developer does, from the repository's root."""
    return programs.run(
        [sys.executable, "-m", "alembic", *words],
        cwd=ROOT,
        env={**os.environ, "LEDGER_URL": url},
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


def version_of(url: str) -> list[str]:
    """Return what the version table says."""
    with connected(url) as connection:
        return list(
            connection.exec_driver_sql(f"SELECT version_num FROM {schema.VERSION_TABLE}").scalars()
        )


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    ("revision", "state", "command"),
    [
        ("0000", "older", "ledger db upgrade --url"),
        ("9999", "newer", "pip install --upgrade budget-ledger"),
        ("a1b2c3d4e5f6", "newer", "pip install --upgrade budget-ledger"),
    ],
)
def test_another_version_is_refused_with_the_command_to_run(
    filled: str, revision: str, state: str, command: str, *, create: bool
) -> None:
    """An older or newer schema is never touched by opening it; the error says what to run."""
    with connected(filled) as connection:
        connection.exec_driver_sql(f"UPDATE {schema.VERSION_TABLE} SET version_num = '{revision}'")
        connection.commit()
    with pytest.raises(SchemaVersionError, match=f"schema {revision} is {state}") as refused:
        Ledger.open(filled, create=create)
    assert command in str(refused.value)
    assert (revision, schema.REVISION) == (refused.value.found, refused.value.expected)
    assert [revision] == version_of(filled)


def test_an_upgrade_leaves_a_newer_schema_alone(filled: str) -> None:
    """An old library does not know where to go from a newer schema, and says what to install."""
    with connected(filled) as connection:
        connection.exec_driver_sql(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
        connection.commit()
    database = Database(filled, timeout_s=5, create=False)
    with pytest.raises(SchemaVersionError, match="pip install --upgrade"):
        migrate.upgrade(database)
    database.close()
    assert ["9999"] == version_of(filled)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_store_is_not_made_without_create(
    kind: str, new_store: Callable[..., str], tmp_path: Path
) -> None:
    """create=False on a database without tables names the command that makes a schema."""
    url = new_store(kind, empty=True)
    if kind == "sqlite":
        Path(url.removeprefix("sqlite:///")).touch()
    with pytest.raises(SchemaVersionError, match=r"no schema yet.*ledger db upgrade") as refused:
        Ledger.open(url, create=False)
    assert refused.value.found is None
    with connected(url) as connection:
        assert [] == inspect(connection).get_table_names()
    assert tmp_path.is_dir()


@pytest.mark.parametrize("kind", KINDS)
def test_an_upgrade_that_fails_leaves_nothing_behind(
    kind: str, new_store: Callable[..., str]
) -> None:
    """A table of the same name in the way: all that was made before it is rolled back."""
    url = new_store(kind, empty=True)
    with connected(url) as connection:
        connection.exec_driver_sql("CREATE TABLE entries (name TEXT)")
        connection.commit()
    database = Database(url, timeout_s=5, create=True)
    with pytest.raises(LedgerUnavailableError, match="entries"):
        migrate.upgrade(database)
    database.close()
    with connected(url) as connection:
        assert ["entries"] == inspect(connection).get_table_names()


def test_upgrading_what_is_current_changes_nothing(filled: str) -> None:
    """An upgrade may be run any number of times."""
    with Ledger.open(filled) as book:
        before = list(book.entries("pool"))
    for _ in range(2):
        database = Database(filled, timeout_s=5, create=False)
        migrate.upgrade(database)
        database.close()
    with Ledger.open(filled, create=False) as book:
        assert before == list(book.entries("pool"))
        assert [None] == [found.damage for found in book.verify()]


@pytest.mark.parametrize("kind", KINDS)
def test_alembic_works_from_the_root(kind: str, new_store: Callable[..., str]) -> None:
    """With LEDGER_URL, upgrade head, current and check do what they do everywhere."""
    url = new_store(kind, empty=True)
    early = alembic(url, "check")
    assert early.returncode != 0
    assert "not up to date" in early.stdout + early.stderr
    upgraded = alembic(url, "upgrade", "head")
    assert 0 == upgraded.returncode, upgraded.stderr
    assert f"{schema.REVISION} (head)" in alembic(url, "current").stdout
    checked = alembic(url, "check")
    assert 0 == checked.returncode, checked.stderr
    assert "No new upgrade operations detected" in checked.stdout
    Ledger.open(url, create=False).close()


def test_books_are_not_moved_backwards(filled: str) -> None:
    """A downgrade is refused, with what to do instead, and the books stay as they are."""
    downgraded = alembic(filled, "downgrade", "base")
    assert downgraded.returncode != 0
    assert "restore a backup" in downgraded.stderr
    assert [schema.REVISION] == version_of(filled)
    with Ledger.open(filled, create=False) as book:
        assert [None] == [found.damage for found in book.verify()]


def test_a_script_instead_of_a_migration_is_refused(new_store: Callable[..., str]) -> None:
    """Offline SQL is refused: a store's identity is made when the store is."""
    offline = alembic(new_store("sqlite"), "upgrade", "head", "--sql")
    assert offline.returncode != 0
    assert "cannot be migrated as an SQL script" in offline.stdout + offline.stderr
