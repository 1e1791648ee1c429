"""An index that is not as its table: no hash of an entry tells, so the database itself is asked."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from ledger import Ledger, SharedPoolBudgetOptions, Usage, reports
from ledger.reports import Filter
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.fixtures import Run
from tests.leases import OF_HUNDRED

LATER = Filter(
    since=datetime.now(UTC) - timedelta(days=1), until=datetime.now(UTC) + timedelta(days=1)
)


def spend_once(url: str) -> None:
    """Make a store with one call of 9 tokens in its only pool."""
    with Ledger.open(url) as book:
        budget = book.pool("team", OF_HUNDRED)
        budget.record_used(budget.reserve(EXTENSIONS, tokens(10), UNLIMITED), Usage(total_tokens=9))


def spent(url: str) -> int:
    """Return what a report by time says was spent."""
    with Ledger.open(url, read_only=True) as book:
        return reports.spend(book, LATER).total.total_tokens


def damage(path: Path) -> None:
    """Change a byte in the last key of the index by time: the call is in the far future there."""
    with closing(sqlite3.connect(path)) as raw:
        asked = "SELECT rootpage FROM sqlite_master WHERE name = 'ix_entries_at'"
        (root,) = raw.execute(asked).fetchone()
        (size,) = raw.execute("PRAGMA page_size").fetchone()
    assert not Path(f"{path}-wal").exists()
    file = bytearray(path.read_bytes())
    at = (root - 1) * size
    assert file[at] == 10, "a leaf of an index"
    cells = int.from_bytes(file[at + 3 : at + 5], "big")
    last = at + 8 + 2 * (cells - 1)
    cell = at + int.from_bytes(file[last : last + 2], "big")
    # Its length; of its header 4 bytes: itself, 1 as a constant, 8 bytes of time, the row.
    assert (4, 9, 6) == tuple(file[cell + 1 : cell + 4])
    file[cell + 6] ^= 0x40
    path.write_bytes(file)


@pytest.mark.parametrize("command", [("verify",), ("db", "check")])
def test_a_damaged_index_of_a_file(
    ledger: Run, new_store: Callable[..., str], command: tuple[str, ...]
) -> None:
    """It is named with what to do, after which the report is right again."""
    url = new_store("sqlite")
    spend_once(url)
    path = Path(url.removeprefix("sqlite:///"))
    assert 9 == spent(url)
    damage(path)
    assert 0 == spent(url)
    said = ledger(*command, "--url", url, code=1).out
    assert "missing from index ix_entries_at" in said
    assert "REINDEX" in said
    assert "as it should be" not in said
    assert "ok       team: 3 entries" in ledger("verify", "team", "--url", url).out
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("REINDEX")
    ledger(*command, "--url", url)
    assert 9 == spent(url)


@pytest.mark.parametrize("pools", [(), ("team",)])
def test_a_damaged_page_of_a_file(
    ledger: Run, new_store: Callable[..., str], pools: tuple[str, ...]
) -> None:
    """What SQLite itself cannot read is damage that was found, and not a store that is away."""
    url = new_store("sqlite")
    with Ledger.open(url) as book:
        budget = book.pool("team", SharedPoolBudgetOptions())
        for _ in range(40):
            budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    path = Path(url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as raw:
        asked = "SELECT rootpage FROM sqlite_master WHERE name = 'entries'"
        (root,) = raw.execute(asked).fetchone()
        (size,) = raw.execute("PRAGMA page_size").fetchone()
    file = bytearray(path.read_bytes())
    at = (root - 1) * size
    assert file[at] in {2, 5}, "a page of pages"
    cell = at + int.from_bytes(file[at + 12 : at + 14], "big")
    first = int.from_bytes(file[cell : cell + 4], "big")
    file[(first - 1) * size] = 0xFF
    path.write_bytes(file)
    said = ledger("verify", *pools, "--url", url, code=1).out
    assert "DAMAGED  team: entry 1: it cannot be read: " in said
    assert "database disk image is malformed" in said
    assert pools or "(indexes)" in said


@pytest.mark.parametrize("pools", [(), ("team",)])
@pytest.mark.parametrize("table", ["pools", "store"])
def test_without_the_list_of_pools_nothing_is_verified(
    ledger: Run, new_store: Callable[..., str], table: str, pools: tuple[str, ...]
) -> None:
    """The file is called damaged, as by every command."""
    url = new_store("sqlite")
    spend_once(url)
    path = Path(url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as raw:
        asked = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (root,) = raw.execute(asked, (table,)).fetchone()
        (size,) = raw.execute("PRAGMA page_size").fetchone()
    file = bytearray(path.read_bytes())
    file[(root - 1) * size] = 0xFF
    path.write_bytes(file)
    said = ledger("verify", *pools, "--url", url, code=2)
    assert "the file is damaged; restore it from a backup" in said.out + said.err


@pytest.mark.parametrize("command", [("verify",), ("db", "check")])
def test_a_damaged_index_on_a_server(
    ledger: Run, new_store: Callable[..., str], command: tuple[str, ...]
) -> None:
    """What amcheck raises is told, if the role may ask it; the test's own stands for it."""
    url = new_store("postgresql")
    spend_once(url)
    with psycopg.connect(url, autocommit=True) as session:
        session.execute('CREATE SCHEMA "Checks"')
        session.execute(
            """
CREATE FUNCTION "Checks".bt_index_check(index regclass, heapallindexed boolean) RETURNS void
LANGUAGE plpgsql AS $$ BEGIN
    IF heapallindexed AND index = 'ix_entries_at'::regclass THEN
        RAISE 'heap tuple lacks matching index tuple' USING ERRCODE = 'index_corrupted';
    END IF;
END $$"""
        )
        ledger(*command, "--url", url)
        session.execute(
            "INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable,"
            " extversion) VALUES (99999, 'amcheck', 10, '\"Checks\"'::regnamespace, true, '1.3')"
        )
        said = ledger(*command, "--url", url, code=1).out
        assert "index ix_entries_at: heap tuple lacks matching index tuple" in said
        assert "REINDEX" in said
        role = f"reader_{session.info.dbname}"
        session.execute(f"CREATE ROLE {role}")
        try:
            session.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
            ledger("verify", "--url", f"{url}{'&' if '?' in url else '?'}options=-crole%3D{role}")
        finally:
            session.execute(f"DROP OWNED BY {role}")
            session.execute(f"DROP ROLE {role}")
