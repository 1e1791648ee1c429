"""Readers of an SQLite file: other users, folders and media that may not be written, copies."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ledger import (
    ContentionError,
    Ledger,
    LedgerBudgetManager,
    LedgerUnavailableError,
    ReadOnlyLedgerError,
    SharedPoolBudgetOptions,
)
from ledger.store.dialects import readers
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests import programs
from tests.leases import OF_THOUSAND, TEN

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
"""A container's tests run as root, and so do those of `.ci/run`."""


@pytest.fixture
def path(open_folder: Path) -> Path:
    """Return a store with one lease, in a folder that every user can reach; it is closed."""
    with Ledger.open(f"sqlite:///{open_folder}/ledger.db") as book:
        book.pool("pool", OF_THOUSAND).reserve(EXTENSIONS, TEN, UNLIMITED)
    return open_folder / "ledger.db"


def read(path: Path) -> Ledger:
    """Open a store to be read."""
    return Ledger.open(f"sqlite:///{path}", read_only=True, timeout_s=5)


def names(path: Path) -> set[str]:
    """Return the names of the files in a store's folder, but for those of the writers' lock."""
    return {one.name for one in path.parent.iterdir() if "-lock" not in one.name}


def test_a_closed_store_is_read_without_a_trace(path: Path) -> None:
    """No file is made beside it, and it is verified as a whole."""
    with read(path) as book:
        assert 990 == book.pool("pool").remaining(EXTENSIONS).tokens
        assert [True] == [one.ok for one in book.verify()]
        assert {"ledger.db"} == names(path)
    assert {"ledger.db"} == names(path)


def test_a_reader_sees_what_writers_do_after_it_has_opened(path: Path) -> None:
    """Writers that come, write and go, and those that stay open; what they leave is left alone."""
    with read(path) as book:
        assert 990 == book.pool("pool").remaining(EXTENSIONS).tokens
        with Ledger.open(f"sqlite:///{path}") as other:
            other.pool("pool").reserve(EXTENSIONS, TEN, UNLIMITED)
            assert 980 == book.pool("pool").remaining(EXTENSIONS).tokens
            other.pool("pool").reserve(EXTENSIONS, TEN, UNLIMITED)
            assert 970 == book.pool("pool").remaining(EXTENSIONS).tokens
            assert 4 == book.size()
        assert 970 == book.pool("pool").remaining(EXTENSIONS).tokens


def test_what_was_read_while_the_file_changed_is_read_again(path: Path) -> None:
    """The answer is that of one moment, whatever the first look at the pages came to."""
    found = []

    def query(connection: object) -> int:
        count: int = connection.exec_driver_sql("SELECT count(*) FROM entries").scalar()  # type: ignore[attr-defined]
        found.append(count)
        if len(found) == 1:
            with Ledger.open(f"sqlite:///{path}") as other:
                other.pool("pool").reserve(EXTENSIONS, TEN, UNLIMITED)
            raise ValueError("what a torn page leads to")
        return count

    with read(path) as book:
        assert 3 == book.read(query)
    assert [2, 3] == found


def test_a_file_that_changes_all_the_time_is_busy(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader gives up at its deadline."""
    looks = itertools.count()
    monkeypatch.setattr(
        readers, "_facts", lambda name: (next(looks), 0, 0) if name.endswith(".db") else None
    )
    with pytest.raises(ContentionError):
        Ledger.open(f"sqlite:///{path}", read_only=True, timeout_s=0.1)


WRITES: list[Callable[[Ledger, LedgerBudgetManager], object]] = [
    lambda _, budget: budget.reserve(EXTENSIONS, TEN, UNLIMITED),
    lambda _, budget: budget.reserve(EXTENSIONS, TEN, UNLIMITED, wait_s=1),
    lambda book, _: book.pool("new", OF_THOUSAND),
    lambda book, _: book.adjust("pool", SharedPoolBudgetOptions()),
    lambda book, _: book.close_pool("pool"),
    lambda book, _: book.expire_due("pool"),
]


def test_a_write_is_refused_by_name(store_url: str) -> None:
    """Nothing is written, and to ask for what is in force already is no write."""
    with Ledger.open(store_url) as writer:
        writer.pool("pool", OF_THOUSAND)
        with Ledger.open(store_url, read_only=True) as book:
            budget = book.ensure("pool", OF_THOUSAND)
            for write in WRITES:
                with pytest.raises(ReadOnlyLedgerError, match="read_only=True") as refused:
                    write(book, budget)
                assert book.url == refused.value.url
        assert [1] == [len(list(writer.entries(one.name))) for one in writer.pools()]


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Not even where `create` is asked for, which is the default."""
    with pytest.raises(LedgerUnavailableError, match="no file"):
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db", read_only=True)
    assert [] == list(tmp_path.iterdir())


def test_a_copy_with_its_wal_is_read_without_a_trace(path: Path, tmp_path: Path) -> None:
    """As a snapshot of a running system's disk holds it: what is in the WAL counts."""
    copy = tmp_path / "copy.db"
    with Ledger.open(f"sqlite:///{path}") as other:
        other.pool("pool").reserve(EXTENSIONS, TEN, UNLIMITED)
        for end in ("", "-wal"):
            shutil.copyfile(f"{path}{end}", f"{copy}{end}")
    with read(copy) as book:
        assert 980 == book.pool("pool").remaining(EXTENSIONS).tokens
        assert [True] == [one.ok for one in book.verify()]
    assert {"copy.db", "copy.db-wal"} == names(copy)


def test_a_store_without_wal_is_read_beside_a_writer(path: Path) -> None:
    """`VACUUM INTO` makes such files. A writer's journal is left to the writer."""
    copy = path.parent / "copy.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute(f"VACUUM INTO '{copy}'")
    with closing(sqlite3.connect(copy, isolation_level=None)) as writer, read(copy) as book:
        assert 990 == book.pool("pool").remaining(EXTENSIONS).tokens
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("CREATE TABLE other (x)")
        assert Path(f"{copy}-journal").exists()
        assert 990 == book.pool("pool").remaining(EXTENSIONS).tokens
        writer.execute("COMMIT")
        assert 990 == book.pool("pool").remaining(EXTENSIONS).tokens


COMMANDS = [
    ["verify"],
    ["remaining", "pool"],
    ["top", "--once"],
    ["report", "spend"],
    ["pool", "list"],
    ["pool", "show", "pool"],
    ["leases", "list", "pool"],
    ["alerts"],
    ["report", "runs"],
    ["report", "statement", "pool"],
]


@pytest.fixture
def as_nobody(run_program: Callable[..., str]) -> Callable[[Path], dict[str, str]]:
    """Return a function that runs all reading commands as another user, on a closed store."""

    def run(path: Path) -> dict[str, str]:
        url = f"sqlite:///{path}"
        said: dict[str, str] = json.loads(
            run_program("commands-as-nobody", json.dumps([url, COMMANDS]))
        )
        return said

    return run


@as_root
@pytest.mark.parametrize("folder_mode", [0o777, 0o555])
@pytest.mark.parametrize("state", ["closed", "open", "crashed"])
def test_another_user_reads_and_leaves_nothing_behind(
    state: str, folder_mode: int, path: Path, as_nobody: Callable[[Path], dict[str, str]]
) -> None:
    """Whether he could make files or not; the owner writes on, before and after."""
    path.chmod(0o644)
    book = Ledger.open(f"sqlite:///{path}")
    if state == "crashed":
        book.close()
        kill_in_the_middle(path, "budget.reserve(EXTENSIONS, tokens(10), UNLIMITED)")
        assert Path(f"{path}-wal").stat().st_size
    else:
        book.pool("pool").reserve(EXTENSIONS, TEN, UNLIMITED)
    if state == "closed":
        book.close()
    path.parent.chmod(folder_mode)
    before = names(path)
    try:
        said = as_nobody(path)
    finally:
        path.parent.chmod(0o777)
    assert {" ".join(one): "0" for one in COMMANDS} == said
    assert before == names(path)
    assert [] == [one.name for one in path.parent.iterdir() if one.stat().st_uid != os.geteuid()]
    book.close()
    with Ledger.open(f"sqlite:///{path}") as book:
        assert 4 == book.pool("pool").reserve(EXTENSIONS, TEN, UNLIMITED).id


def kill_in_the_middle(path: Path, call: str, **options: object) -> None:
    """Let a program with an open store make a call, and kill it while it has the store open."""
    code = f"""
import sys, time
from ledger import Ledger
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
with Ledger.open({f"sqlite:///{path}"!r}, **{options!r}) as book:
    budget = book.pool("pool")
    {call}
    print("ready", flush=True)
    time.sleep(600)
"""
    words = [sys.executable, "-c", code]
    with programs.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        process.kill()
    assert -signal.SIGKILL == process.returncode


def test_a_reader_that_is_killed_holds_nothing(path: Path) -> None:
    """In the middle of a read, beside a writer: that goes on, and so does its checkpoint."""
    with Ledger.open(f"sqlite:///{path}") as book:
        budget = book.pool("pool")
        budget.reserve(EXTENSIONS, TEN, UNLIMITED)
        reading = (
            "lent = book._database.connect(); raw = lent.__enter__().connection.driver_connection;"
            " raw.execute('BEGIN'); found = raw.execute('SELECT * FROM entries'); found.fetchone()"
        )
        kill_in_the_middle(path, reading, read_only=True)
        before = names(path)
        assert 4 == budget.reserve(EXTENSIONS, TEN, UNLIMITED).id
        assert before == names(path)
        with closing(sqlite3.connect(path)) as other:
            assert (0,) == other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[:1]
        assert [True] == [one.ok for one in book.verify()]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that is mounted read-only over another one's content."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    source = tmp_path / "source"
    source.mkdir()
    for words in (["--bind", source, folder], ["-o", "remount,bind,ro", folder]):
        done = subprocess.run(["/bin/mount", *map(str, words)], capture_output=True, check=False)
        if done.returncode:
            subprocess.run(["/bin/umount", str(folder)], capture_output=True, check=False)
            pytest.skip(f"no mounts here: {done.stderr.decode()}")
    yield folder
    subprocess.run(["/bin/umount", str(folder)], check=True)


@as_root
def test_a_read_only_mount_is_read(mounted: Path, path: Path) -> None:
    """A store, and a snapshot with its WAL; even by root, who may write anywhere else."""
    source = mounted.with_name("source")
    shutil.copyfile(path, source / "closed.db")
    with Ledger.open(f"sqlite:///{path}") as other:
        other.pool("pool").reserve(EXTENSIONS, TEN, UNLIMITED)
        for end in ("", "-wal"):
            shutil.copyfile(f"{path}{end}", source / f"snapshot.db{end}")
    for name, left in (("closed.db", 990), ("snapshot.db", 980)):
        with read(mounted / name) as book:
            assert left == book.pool("pool").remaining(EXTENSIONS).tokens
            assert [True] == [one.ok for one in book.verify()]
