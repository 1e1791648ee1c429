"""Files that are no ledger, that cannot be written, and programs that stand in the way."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event

from ledger import (
    Attribution,
    ContentionError,
    InvalidUrlError,
    Ledger,
    LedgerUnavailableError,
    NotALedgerError,
    RequestExtensions,
    SchemaVersionError,
    SharedPoolBudgetOptions,
    StoreError,
    Usage,
)
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import LATE_S, impatient
from tests.leases import TEN

OPTIONS = SharedPoolBudgetOptions(capacity_tokens=1_000_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a store may be made."""
    return tmp_path / "ledger.db"


@pytest.fixture
def book(path: Path) -> Iterator[Ledger]:
    """Return an open ledger on SQLite."""
    with Ledger.open(f"sqlite:///{path}", timeout_s=5) as opened:
        yield opened


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, byte by byte."""
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def fill(path: Path, entries: int = 40) -> None:
    """Make a store with some entries, and close it."""
    with Ledger.open(f"sqlite:///{path}") as book:
        budget = book.pool("pool", OPTIONS)
        for number in range(entries):
            attribution = Attribution(run_id=f"run {number}")
            budget.reserve(RequestExtensions(attribution), TEN, UNLIMITED)


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    "content", [b"no database " * 200, b"short", b"SQLite format 3\0" + b"\xff" * 4_080]
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(
    content: bytes, path: Path, *, create: bool
) -> None:
    """Text, a few bytes, or rubbish behind the right beginning: refused, byte-identical after."""
    path.write_bytes(content)
    with pytest.raises(NotALedgerError, match="not an SQLite database") as refused:
        Ledger.open(f"sqlite:///{path}", create=create)
    assert refused.value.__cause__ is not None
    assert {"ledger.db": content} == contents(path.parent)


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("table", ["customers", "alembic_version", "entries"])
def test_another_programs_database_is_refused_and_left_alone(
    table: str, mode: str, path: Path, *, create: bool
) -> None:
    """A database with other tables is not taken over, not even switched to WAL."""
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA journal_mode = {mode}")
        other.execute(f"CREATE TABLE {table} (name TEXT)")
        other.execute(f"INSERT INTO {table} VALUES ('somebody')")
        other.commit()
    before = contents(path.parent)
    with pytest.raises(NotALedgerError, match=table):
        Ledger.open(f"sqlite:///{path}", create=create)
    assert before == contents(path.parent)


def damage_by_truncation(data: bytes) -> bytes:
    """Return the first half."""
    return data[: len(data) // 2]


def damage_by_rubbish(data: bytes) -> bytes:
    """Return the data with its pages, but for the first, overwritten."""
    return data[:4_096] + b"\xa5" * (len(data) - 4_096)


def damage_by_zeros(data: bytes) -> bytes:
    """Return the data with its second half blank, as after a lost write."""
    half = len(data) // 2
    return data[:half] + bytes(len(data) - half)


@pytest.mark.parametrize("damage", [damage_by_truncation, damage_by_rubbish, damage_by_zeros])
def test_a_damaged_file_is_never_taken_for_whole(
    damage: Callable[[bytes], bytes], path: Path
) -> None:
    """Damage raises a typed error, or verification finds it; no driver's error gets out."""
    fill(path)
    path.write_bytes(damage(path.read_bytes()))
    assert not is_whole(f"sqlite:///{path}")


def is_whole(url: str) -> bool:
    """Tell whether a store can be opened, read and verified."""
    try:
        with Ledger.open(url, create=False) as book:
            return [True] == [found.ok for found in book.verify()]
    except StoreError:
        return False


def test_a_whole_file_is_whole(path: Path) -> None:
    """What tells damage in these tests finds none where there is none."""
    fill(path)
    assert is_whole(f"sqlite:///{path}")


def test_a_file_cut_to_nothing_is_not_refilled_without_create(path: Path) -> None:
    """An empty file has no schema: create=False says so and leaves it empty."""
    path.touch()
    with pytest.raises(SchemaVersionError, match="ledger db upgrade") as refused:
        Ledger.open(f"sqlite:///{path}", create=False)
    assert refused.value.found is None
    assert {"ledger.db": b""} == contents(path.parent)


def test_a_missing_file_is_not_made_without_create(path: Path) -> None:
    """create=False on a missing file creates nothing, not even a lock."""
    with pytest.raises(LedgerUnavailableError, match="create=True"):
        Ledger.open(f"sqlite:///{path}", create=False)
    assert {} == contents(path.parent)


def test_a_missing_folder_is_named_and_not_made(tmp_path: Path) -> None:
    """Folders are the user's business; the error names the one that is missing."""
    with pytest.raises(LedgerUnavailableError, match=r"no folder .*missing"):
        Ledger.open(f"sqlite:///{tmp_path}/missing/ledger.db")
    assert [] == list(tmp_path.iterdir())


def test_a_device_is_no_file(tmp_path: Path) -> None:
    """Nothing is made beside it: a link to it stands for it."""
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    with pytest.raises(LedgerUnavailableError, match="a folder or a device; name a file"):
        Ledger.open(f"sqlite:///{link}")
    assert [link] == list(tmp_path.iterdir())


def test_a_missing_table_is_named_with_what_to_do(path: Path) -> None:
    """It is what is left where another program took it away."""
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE entries")
    with pytest.raises(LedgerUnavailableError, match=r"no such table.*'ledger db check'"):
        Ledger.open(f"sqlite:///{path}")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A folder in the file's place gives a typed error."""
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(LedgerUnavailableError, match="is a folder or a device"):
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    assert [] == list((tmp_path / "ledger.db").iterdir())


@pytest.mark.parametrize(
    ("file_mode", "folder_mode"),
    [(0o444, 0o777), (0o666, 0o555), (0o444, 0o555), (0o000, 0o777)],
    ids=["read-only file", "read-only folder", "both", "no file access"],
)
def test_a_file_without_rights_is_unavailable(
    file_mode: int, folder_mode: int, open_folder: Path, run_program: Callable[..., str]
) -> None:
    """A user who may not write gets a typed error about it, and nothing is written."""
    path = open_folder / "ledger.db"
    fill(path)
    Path(f"{path}-lock").unlink()
    before = path.read_bytes()
    path.chmod(file_mode)
    open_folder.chmod(folder_mode)
    try:
        said = json.loads(run_program("as-nobody", f"sqlite:///{path}"))
    finally:
        open_folder.chmod(0o777)
    assert LedgerUnavailableError.__name__ == said["error"]
    assert "ledger.db" in said["message"]
    assert any(word in said["message"].lower() for word in ("permission", "read-only"))
    assert said["cause"] not in {None, "NoneType"}
    path.chmod(0o666)
    assert before == path.read_bytes()


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_users_share_a_store_whose_file_they_may_all_write(
    umask: int, open_folder: Path, run_program: Callable[..., str]
) -> None:
    """The lock file of one user does not keep another out."""
    path = open_folder / "ledger.db"
    before = os.umask(umask)
    try:
        with Ledger.open(f"sqlite:///{path}") as book:
            book.pool("pool", SharedPoolBudgetOptions())
    finally:
        os.umask(before)
    path.chmod(0o666)
    said = json.loads(run_program("as-nobody", f"sqlite:///{path}"))
    assert {"error": None, "lease": 2} == said
    with Ledger.open(f"sqlite:///{path}") as book:
        assert 3 == book.pool("pool").reserve(EXTENSIONS, TEN, UNLIMITED).id


def code_of(error: BaseException) -> int | None:
    """Return the result code of the driver's error that is the cause, wrapped or not."""
    cause = error.__cause__
    return getattr(getattr(cause, "orig", cause), "sqlite_errorcode", None)


@contextmanager
def full_disk(book: Ledger) -> Iterator[None]:
    """Let the database grow no further."""

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    engine = book._database.engine
    event.listen(engine, "connect", limit)
    book._database._drop_idle()
    engine.dispose()
    try:
        yield
    finally:
        event.remove(engine, "connect", limit)
        book._database._drop_idle()
        engine.dispose()


def test_a_full_disk_is_unavailable_until_there_is_space(book: Ledger) -> None:
    """SQLITE_FULL writes nothing and breaks nothing: with space again the ledger goes on."""
    budget = book.pool("pool", OPTIONS)
    granted = []
    with full_disk(book):
        with pytest.raises(LedgerUnavailableError, match="free some space") as full:  # noqa: PT012
            while True:
                granted.append(budget.reserve(EXTENSIONS, TEN, UNLIMITED).id)
        code = code_of(full.value)
        assert sqlite3.SQLITE_FULL == code
        with pytest.raises(LedgerUnavailableError):
            budget.reserve(EXTENSIONS, TEN, UNLIMITED)
    assert 1 + len(granted) == len(list(book.entries("pool")))
    assert 2 + len(granted) == budget.reserve(EXTENSIONS, TEN, UNLIMITED).id
    assert [None] == [found.damage for found in book.verify()]


def test_a_file_that_may_not_grow_is_unavailable_until_it_may(
    path: Path, run_program: Callable[..., str]
) -> None:
    """A write that the system itself refuses in the middle of a commit loses nothing."""
    said = json.loads(run_program("fill-the-disk", f"sqlite:///{path}"))
    assert LedgerUnavailableError.__name__ == said["error"]
    with Ledger.open(f"sqlite:///{path}") as book:
        assert 1 + said["granted"] + 1 == len(list(book.entries("pool")))
        assert [None] == [found.damage for found in book.verify()]


def test_a_lock_held_past_the_deadline_is_contention(path: Path) -> None:
    """Another program writes for too long: the call gives up in time, and wrote nothing."""
    with Ledger.open(f"sqlite:///{path}") as book:
        budget = book.pool("pool", OPTIONS)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            with impatient(book, 0.4), pytest.raises(ContentionError) as contention:
                budget.reserve(EXTENSIONS, TEN, UNLIMITED)
            assert 0.3 < time.monotonic() - began < LATE_S
            code = code_of(contention.value)
            assert sqlite3.SQLITE_BUSY == code
            # Readers wait for nobody.
            assert 1_000_000 == budget.remaining(EXTENSIONS).tokens
            other.execute("ROLLBACK")
        assert 2 == budget.reserve(EXTENSIONS, TEN, UNLIMITED).id
        assert 2 == len(list(book.entries("pool")))


def test_a_lock_released_before_the_deadline_is_waited_for(path: Path) -> None:
    """A writer that comes while another program writes is served when that has finished."""
    with Ledger.open(f"sqlite:///{path}", timeout_s=60) as book:
        budget = book.pool("pool", OPTIONS)
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        with closing(other), ThreadPoolExecutor(1) as thread:
            other.execute("BEGIN IMMEDIATE")
            waiting = thread.submit(budget.reserve, EXTENSIONS, TEN, UNLIMITED)
            time.sleep(0.2)
            assert not waiting.done()
            other.execute("ROLLBACK")
            assert 2 == waiting.result().id


def test_connections_are_durable(book: Ledger) -> None:
    """WAL with synchronous=FULL: an acknowledged commit survives a power failure."""
    with book._database.connect() as connection:
        assert "wal" == connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        assert 2 == connection.exec_driver_sql("PRAGMA synchronous").scalar()
        assert 1 == connection.exec_driver_sql("PRAGMA recursive_triggers").scalar()


def test_the_write_lock_is_taken_before_anything_is_read(book: Ledger) -> None:
    """Every write is BEGIN IMMEDIATE, reading, writing, COMMIT, in this order."""
    budget = book.pool("pool", OPTIONS)
    statements: list[str] = []

    def trace(connection: sqlite3.Connection, _record: object) -> None:
        connection.set_trace_callback(statements.append)

    engine = book._database.engine
    event.listen(engine, "connect", trace)
    book._database._drop_idle()
    engine.dispose()

    def verbs() -> list[str]:
        found = [each.split()[0] for each in statements if not each.startswith(("PRAGMA", "--"))]
        statements.clear()
        return found

    lease = budget.reserve(RequestExtensions(Attribution(run_id="r")), TEN, UNLIMITED)
    assert "BEGIN IMMEDIATE" == next(each for each in statements if "PRAGMA" not in each)
    reserving = verbs()
    assert ["BEGIN", "SELECT"] == reserving[:2]
    assert ["INSERT", "COMMIT"] == reserving[-2:]
    assert 1 == reserving.count("BEGIN")
    budget.record_used(lease, Usage(total_tokens=5))
    assert "BEGIN IMMEDIATE" in statements
    assert "BEGIN" == verbs()[0]
    book.pool("another", OPTIONS)
    assert "BEGIN IMMEDIATE" in statements
    assert "INSERT" not in verbs()[: reserving.index("SELECT")]


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite+pysqlite:///:memory:",
        "sqlite:///file::memory:?uri=true",
        "sqlite:///file::memory:?cache=shared&uri=true",
        "sqlite:///file:name?mode=memory&cache=shared&uri=true",
        "sqlite:///file:name?vfs=memdb&uri=true",
        "sqlite:///file:?uri=true",
        "sqlite:///file:%3Amemory%3A?uri=true",
    ],
)
def test_a_database_in_memory_is_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What forgets everything is no ledger, however it is written; the error says what to use."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidUrlError, match="SharedPoolBudgetManager"):
        Ledger.open(url)
    assert [] == list(tmp_path.iterdir())
