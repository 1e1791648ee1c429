"""Backups of PostgreSQL and SQLite to a point in time, and a replica in a warehouse."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ledger import (
    BudgetLease,
    Ledger,
    LostLeaseError,
    NotALedgerError,
    NotPermittedError,
    SharedPoolBudgetOptions,
    Usage,
    UsageEstimate,
    reports,
)
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests import programs
from tests.clocks import until
from tests.faults.servers import Servers, run_postgresql
from tests.shared import quick_folder

Run = Callable[..., str]
POOLS = ("one", "two")


def spend(book: Ledger, tokens: int) -> None:
    """Record a call in each pool."""
    for name in POOLS:
        budget = book.pool(name, SharedPoolBudgetOptions(capacity_tokens=1_000))
        lease = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=tokens), UNLIMITED)
        budget.record_used(lease, Usage(total_tokens=tokens))


def anchors(book: Ledger) -> list[str]:
    """Return what `ledger verify` takes as --expect."""
    return [f"{one.pool.name}={one.entries}:{one.hash.hex()}" for one in book.verify()]


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Return a server that archives its log and may be subscribed to."""
    with tempfile.TemporaryDirectory(
        prefix="ledger-backups-", dir=quick_folder(), ignore_cleanup_errors=True
    ) as name:
        archive = Path(name) / "archive"
        archive.mkdir()
        archive.chmod(0o777)
        made = Servers(
            Path(name),
            f"wal_level = logical\narchive_mode = on\narchive_command = 'cp %p {archive}/%f'\n",
        )
        yield made
        made.stop()


def go_on(book: Ledger, lost: BudgetLease) -> None:
    """Show that a restored store is used as any other, and that a lost lease is booked once."""
    budget = book.pool("one")
    other = budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=1), UNLIMITED)
    assert lost.id == other.id
    with pytest.raises(LostLeaseError):
        budget.record_used(lost, Usage(total_tokens=480))
    for _ in range(2):
        budget.record_lost(lost, Usage(total_tokens=480))
    budget.record_used(other, Usage(total_tokens=1))
    assert 10 + 1 + 480 == budget.status().balance.committed.tokens
    assert [None, None] == [one.damage for one in book.verify()]


def test_postgresql_is_restored_to_a_point_in_time(servers: Servers, ran: Run) -> None:
    """A base backup, the archived log, and a moment: the store is what it was at that moment."""
    with Ledger.open(servers.first.render_as_string()) as book:
        spend(book, 4)
        servers.back_up("restored")
        spend(book, 6)
        expected = anchors(book)
        moment = servers.ask(servers.first, "SELECT clock_timestamp()")
        lost = book.pool("one").reserve(EXTENSIONS, UsageEstimate(total_tokens=500), UNLIMITED)
        wal = servers.ask(servers.first, "SELECT pg_walfile_name(pg_switch_wal())")
    until((servers.folder / "archive" / wal).exists)
    servers.configure(
        "restored",
        f"archive_mode = off\nrestore_command = 'cp {servers.folder}/archive/%f %p'\n"
        f"recovery_target_time = '{moment}'\nrecovery_target_action = promote\n",
    )
    signal = servers.folder / "restored" / "recovery.signal"
    signal.touch()
    restored = servers.start("restored")
    until(lambda: not servers.ask(restored, "SELECT pg_is_in_recovery()"))
    kept = [word for one in expected for word in ("--expect", one)]
    ran("verify", "--url", restored.render_as_string(), *kept)
    with Ledger.open(restored.render_as_string()) as book:
        assert expected == anchors(book)
        go_on(book, lost)


def test_a_warehouse_replicates_the_tables(servers: Servers, ran: Run) -> None:
    """Rows arrive with their hashes and are verified there; the roles of readers write nothing.

    The tables wait for the identity and the revision, which are rows and arrive, too.
    """
    servers.ask(servers.first, "CREATE DATABASE warehouse")
    warehouse = servers.first.set(database="warehouse")
    url = warehouse.render_as_string()
    source = servers.first.render_as_string()
    ran("db", "upgrade", "--partitions", "2", "--url", source)
    with Ledger.open(source) as book:
        spend(book, 10)
        ran("db", "upgrade", "--for-restore", "--partitions", "3", "--url", url)
        tables = "store, pools, attributions, entries, ledger_version"
        servers.ask(
            servers.first,
            f"CREATE PUBLICATION books FOR TABLE {tables} WITH (publish_via_partition_root = true)",
        )
        # Between two databases of one server, the slot must be there before.
        servers.ask(servers.first, "SELECT pg_create_logical_replication_slot('books', 'pgoutput')")
        at = f"host={servers.sockets('first')} user=postgres dbname=postgres"
        servers.ask(
            warehouse,
            f"CREATE SUBSCRIPTION books CONNECTION '{at}' PUBLICATION books"
            " WITH (create_slot = false, slot_name = books)",
        )
        # A first copy of a table keeps its lock until each transaction on its server has ended, and
        # `db roles` would wait for that lock in one: both databases are on one server here.
        unfinished = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'"
        until(lambda: not servers.ask(warehouse, unfinished))
        ran("db", "roles", "--apply", "--url", url)
        spend(book, 5)
        expected = anchors(book)
    entries = sum(int(one.split("=")[1].split(":")[0]) for one in expected)
    until(lambda: entries == servers.ask(warehouse, "SELECT count(*) FROM entries"))
    ran("db", "check", "--url", url)
    servers.ask(warehouse, "CREATE ROLE analyst LOGIN IN ROLE ledger_auditor")
    reader = warehouse.set(username="analyst").render_as_string()
    with Ledger.open(reader, read_only=True) as book:
        assert expected == anchors(book)
        assert [15] == [one.total_tokens for one in reports.spend(book, "two").rows]
    with Ledger.open(reader) as book, pytest.raises(NotPermittedError):
        book.pool("one").reserve(EXTENSIONS, UsageEstimate(total_tokens=1), UNLIMITED)


@pytest.mark.parametrize("divided", [[], ["--partitions", "3"]])
def test_data_alone_is_restored_into_tables_that_wait_for_it(
    divided: list[str], new_store: Callable[..., str], tmp_path: Path, ran: Run
) -> None:
    """Until then no program takes them for a store, and a store is no place to restore into.

    A dump has the rows of each partition by its name.
    """
    source, target = (new_store("postgresql", empty=True) for _ in range(2))
    ran("db", "upgrade", *divided, "--url", source)
    with Ledger.open(source) as book:
        spend(book, 10)
        expected = anchors(book)
    run_postgresql("pg_dump", "--format=custom", "--data-only", f"--file={tmp_path}/dump", source)
    ran("db", "upgrade", "--for-restore", *divided, "--url", target)
    for words in (["db", "current"], ["pool", "list"], ["db", "upgrade"]):
        assert "not its data" in ran(*words, "--url", target, code=2)
    with pytest.raises(NotALedgerError, match="restore a dump's data"):
        Ledger.open(target)
    run_postgresql("pg_restore", "--exit-on-error", f"--dbname={target}", str(tmp_path / "dump"))
    with Ledger.open(target) as book:
        assert expected == anchors(book)
        spend(book, 1)
    assert "is a store already" in ran("db", "upgrade", "--for-restore", "--url", target, code=2)


def test_a_file_is_put_back_once_what_was_beside_it_is_gone(tmp_path: Path) -> None:
    """A program that was killed leaves a WAL, which SQLite would apply to the backup."""
    file, kept = tmp_path / "ledger.db", tmp_path / "kept.db"
    url = f"sqlite:///{file}"
    with Ledger.open(url) as book:
        spend(book, 10)
        expected = anchors(book)
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(kept)) as target:
        source.backup(target)
    code = (
        "import os; from ledger import *; from ledger.testing.calls import *;"
        f"pool = Ledger.open({url!r}).pool('one');"
        "pool.reserve(EXTENSIONS, UsageEstimate(total_tokens=500), UNLIMITED);"
        "os.kill(os.getpid(), 9)"
    )
    killed = programs.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert -9 == killed.returncode, killed.stderr
    shutil.copyfile(kept, file)
    with Ledger.open(url, read_only=True) as book:
        assert expected != anchors(book)
    for end in ("-wal", "-shm"):
        Path(f"{file}{end}").unlink()
    shutil.copyfile(kept, file)
    with Ledger.open(url) as book:
        assert expected == anchors(book)
        spend(book, 1)


@pytest.mark.tools
def test_litestream_restores_a_file_to_a_point_in_time(tmp_path: Path, tools: str) -> None:
    """Beside a program that has it open: the file of that moment, whole."""
    file, replica, restored = tmp_path / "ledger.db", f"file://{tmp_path}/r", tmp_path / "restored"

    def litestream(*words: str) -> None:
        found = shutil.which("litestream", path=tools)
        assert found is not None
        subprocess.run([found, *words], check=True)

    with Ledger.open(f"sqlite:///{file}") as book:
        spend(book, 4)
        litestream("replicate", "-once", str(file), replica)
        spend(book, 6)
        litestream("replicate", "-once", str(file), replica)
        expected, moment = anchors(book), datetime.now(UTC)
        lost = book.pool("one").reserve(EXTENSIONS, UsageEstimate(total_tokens=500), UNLIMITED)
        litestream("replicate", "-once", str(file), replica)
    litestream("restore", "-timestamp", moment.isoformat(), "-o", str(restored), replica)
    with Ledger.open(f"sqlite:///{restored}") as book:
        assert expected == anchors(book)
        go_on(book, lost)
