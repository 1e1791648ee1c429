"""Copies and restores with each database's own tools: what they keep, and what they lose."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection

from ledger import Ledger, OtherStoreError
from ledger.cli import main
from ledger.store import migrate
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.faults.servers import run_postgresql
from tests.leases import OF_THOUSAND, TEN


def fill(url: str) -> None:
    """Make two pools, with a lease in each."""
    with Ledger.open(url) as book:
        for name in ("pool", "other"):
            book.pool(name, OF_THOUSAND).reserve(EXTENSIONS, TEN, UNLIMITED)


def vacuum(source: sqlite3.Connection, copy: Path) -> None:
    """Copy as `VACUUM INTO` does."""
    source.execute(f"VACUUM INTO '{copy}'")


def dump(source: sqlite3.Connection, copy: Path) -> None:
    """Copy as `.dump` into another shell does."""
    with closing(sqlite3.connect(copy)) as target:
        target.executescript("\n".join(source.iterdump()))


def backup(source: sqlite3.Connection, copy: Path) -> None:
    """Copy as `.backup` does."""
    with closing(sqlite3.connect(copy)) as target:
        source.backup(target)


@pytest.mark.parametrize("make", [vacuum, dump, backup])
def test_a_copy_of_a_file_is_a_store_like_its_source(
    make: Callable[[sqlite3.Connection, Path], None], tmp_path: Path
) -> None:
    """In WAL mode, too, once it is opened: a read keeps no writer out. Its schema is whole."""
    source, copy = tmp_path / "ledger.db", tmp_path / "copy.db"
    fill(f"sqlite:///{source}")
    with closing(sqlite3.connect(source)) as opened:
        make(opened, copy)
    with Ledger.open(f"sqlite:///{copy}", timeout_s=5) as book:

        def reserve(connection: Connection) -> int:
            assert 2 == connection.exec_driver_sql("SELECT count(*) FROM pools").scalar()
            return book.pool("pool").reserve(EXTENSIONS, TEN, UNLIMITED).id

        assert 3 == book.read(reserve)
        assert [True, True] == [one.ok for one in book.verify()]
        assert [] == migrate.differences(book._database, [])


@pytest.fixture
def dumped(new_store: Callable[..., str], tmp_path: Path) -> Path:
    """Return a dump of a filled store on PostgreSQL."""
    url = new_store("postgresql", empty=True)  # without partitions, whose rows a dump names
    fill(url)
    run_postgresql("pg_dump", "--format=custom", f"--file={tmp_path}/dump", url)
    return tmp_path / "dump"


def test_a_whole_dump_into_an_empty_database_is_the_store(
    dumped: Path, new_store: Callable[..., str]
) -> None:
    """With its schema: leases go on, and every hash fits."""
    url = new_store("postgresql", empty=True)
    run_postgresql("pg_restore", "--exit-on-error", f"--dbname={url}", str(dumped))
    with Ledger.open(url) as book:
        assert 3 == book.pool("pool").reserve(EXTENSIONS, TEN, UNLIMITED).id
        assert [True, True] == [one.ok for one in book.verify()]
        assert [] == migrate.differences(book._database, [])


def test_data_alone_in_a_new_schema_is_not_written_to(
    dumped: Path,
    new_store: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The new store's identity stands in it. One cause is said, not one for each pool."""
    url = new_store("postgresql", empty=True)
    Ledger.open(url).close()
    # The rows of `store` and of the revision are refused: the new ones stand there.
    run_postgresql("pg_restore", "--data-only", f"--dbname={url}", str(dumped), okay=(1,))
    with pytest.raises(OtherStoreError, match="Restore the whole backup"):
        Ledger.open(url)
    monkeypatch.setattr("sys.argv", ["ledger", "verify", "--url", url])
    with pytest.raises(SystemExit) as ended:
        main()
    (line,) = capsys.readouterr().out.splitlines()
    assert (1, True) == (ended.value.code, line.startswith("DAMAGED  every pool: written in anoth"))
    with Ledger.open(url, read_only=True) as book:
        assert 990 == book.pool("pool").remaining(EXTENSIONS).tokens
