"""What PostgreSQL refuses, and how it says so."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, make_url, text

from ledger import (
    Attribution,
    ContentionError,
    Ledger,
    LedgerBudgetManager,
    LedgerUnavailableError,
    MissingExtraError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownLeaseError,
    Usage,
    UsageEstimate,
    UsageReport,
)
from ledger.store import journal
from ledger.store.dialects import Failure, session
from ledger.store.dialects.locks import POOL_LOCKS, lock_table
from ledger.store.dialects.postgresql import PostgreSQLDialect
from ledger.store.dialects.session import Session
from ledger.store.writing import Transaction
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import LATE_S, impatient
from tests.leases import OF_THOUSAND, TEN
from tests.roles import PASSWORD
from tests.shared import Shared, numbers

TABLES = ("store", "pools", "attributions", "entries")
KEYS = {
    "store": "store_id",
    "pools": "pool_id",
    "attributions": "pool_id, attribution_id",
    "entries": "pool_id, seq",
}
CHANGES = {
    "update": "UPDATE {table} SET {column} = {column}",
    "delete": "DELETE FROM {table}",
    "truncate": "TRUNCATE {table}",
    "truncate all": "TRUNCATE store, pools, attributions, entries CASCADE",
    "upsert": (
        "INSERT INTO {table} SELECT * FROM {table}"
        " ON CONFLICT ({key}) DO UPDATE SET {column} = EXCLUDED.{column}"
    ),
    "merge update": (
        "MERGE INTO {table} USING (SELECT 1) AS one ON true"
        " WHEN MATCHED THEN UPDATE SET {column} = {table}.{column}"
    ),
    "merge delete": ("MERGE INTO {table} USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE"),
}


@pytest.fixture
def book(url: str) -> Iterator[Ledger]:
    """Return an open ledger on PostgreSQL."""
    with Ledger.open(url, timeout_s=5) as opened:
        yield opened


@pytest.fixture(scope="module")
def filled(shared: Shared) -> Iterator[str]:
    """Return a store with rows in every table."""
    made = shared.create_database(template=shared.template)
    with Ledger.open(made) as opened:
        budget = opened.pool("pool", OF_THOUSAND)
        lease = budget.reserve(RequestExtensions(Attribution(run_id="r")), TEN, UNLIMITED)
        budget.record_used(lease, Usage(total_tokens=7))
    yield made
    shared.drop_database(make_url(made).database)


def state_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of the driver's error that is the cause, wrapped or not."""
    cause = error.__cause__
    return getattr(getattr(cause, "orig", cause), "sqlstate", None)


def contents(connection: psycopg.Connection) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of the four tables."""
    return {
        table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
        for table in TABLES
    }


@pytest.mark.parametrize("role", ["origin", "replica"])
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("change", CHANGES)
def test_history_cannot_be_changed(change: str, table: str, role: str, filled: str) -> None:
    """Even the owner, and even on a replica's session, is refused by a trigger."""
    key = KEYS[table]
    statement = CHANGES[change].format(table=table, key=key, column=key.partition(",")[0])
    with psycopg.connect(filled, autocommit=True) as connection:
        before = contents(connection)
        connection.execute(f"SET session_replication_role = {role}")
        with pytest.raises(psycopg.errors.RaiseException, match="is append-only"):
            connection.execute(statement)
        assert before == contents(connection)
        assert all(before.values())


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@pytest.mark.parametrize(
    "part",
    [
        {"database": "no_such_database"},
        {"username": "no_such_role"},
        {"host": "127.0.0.1", "port": "free", "query": {}},
        {"host": "no-such-host.invalid", "query": {}},
        {"host": None, "query": {"host": "/no/such/folder"}},
    ],
    ids=["database", "role", "port", "host", "socket"],
)
def test_a_server_that_does_not_let_us_in_is_unavailable(
    part: dict[str, object], server_url: str
) -> None:
    """Unknown database, role, port, host or socket: named, with the driver's error as cause."""
    if part.get("port") == "free":
        part = {**part, "port": free_port()}
    url = make_url(server_url).set(**part)  # type: ignore[arg-type]
    began = time.monotonic()
    with pytest.raises(LedgerUnavailableError) as unavailable:
        Ledger.open(url.render_as_string(hide_password=False), timeout_s=2)
    assert isinstance(unavailable.value.__cause__, Exception)
    assert isinstance(getattr(unavailable.value.__cause__, "orig", None), psycopg.Error)
    assert time.monotonic() - began < LATE_S


def test_a_server_that_never_answers_is_unavailable_in_time() -> None:
    """A server that accepts the connection and says nothing is given up after the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(LedgerUnavailableError):
            Ledger.open(f"postgresql://user@127.0.0.1:{port}/database", timeout_s=1)
    assert time.monotonic() - began < LATE_S


def test_an_error_never_shows_the_password(server_url: str) -> None:
    """The address in an error's text has its password hidden."""
    url = make_url(server_url).set(database="no_such_database", password=PASSWORD)
    with pytest.raises(LedgerUnavailableError) as unavailable:
        Ledger.open(url.render_as_string(hide_password=False))
    assert PASSWORD not in str(unavailable.value)
    assert "no_such_database" in str(unavailable.value)


def test_a_missing_driver_names_the_extra(run_program: Callable[..., str]) -> None:
    """Without psycopg the error says what to install."""
    said = json.loads(run_program("without-psycopg", "postgresql://localhost/ledger"))
    assert (MissingExtraError.__name__, "postgresql") == (said["error"], said["extra"])
    assert "pip install 'budget-ledger[postgresql]'" in said["message"]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_text_is_refused(encoding: str, shared: Shared) -> None:
    """A ledger needs UTF8: any other encoding is refused before anything is made."""
    url = shared.create_database(encoding=encoding)
    try:
        with pytest.raises(LedgerUnavailableError, match=f"{encoding}.*ENCODING 'UTF8'"):
            Ledger.open(url)
        with psycopg.connect(url) as inside:
            count = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
            assert (0,) == inside.execute(count).fetchone()
    finally:
        shared.drop_database(make_url(url).database)


@pytest.fixture(scope="module")
def writer_url(filled: str) -> Iterator[str]:
    """Return the store's URL for a role that may read, append and lock, and nothing else."""
    role = f"ledger_writer_{os.getpid()}"
    locks = ", ".join(map(lock_table, range(POOL_LOCKS)))
    with psycopg.connect(filled, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        connection.execute(f"GRANT SELECT, INSERT ON {', '.join(TABLES)} TO {role}")
        connection.execute(f"GRANT SELECT ON ledger_version TO {role}")
        connection.execute(f"GRANT UPDATE ON {locks} TO {role}")
        url = make_url(filled).set(username=role, password=PASSWORD)
        yield url.render_as_string(hide_password=False)
        connection.execute(f"DROP OWNED BY {role}")
        connection.execute(f"DROP ROLE {role}")


def test_a_writer_needs_no_more_than_to_read_and_append(writer_url: str) -> None:
    """Every operation works for a role with SELECT and INSERT, and UPDATE on the lock tables."""
    with Ledger.open(writer_url, create=False, record_denials=True) as book:
        budget = book.pool("the writer's", OF_THOUSAND)
        extensions = RequestExtensions(Attribution(run_id="run", tags={"a": "b"}))
        lease = budget.reserve(extensions, TEN, UNLIMITED)
        budget.record_used(budget.lease(lease.token), Usage(total_tokens=20))
        budget.reserve(extensions, TEN, UNLIMITED)
        book.adjust("the writer's", SharedPoolBudgetOptions(capacity_tokens=40), reason="less")
        with pytest.raises(ThresholdExceededError):
            budget.reserve(extensions, UsageEstimate(total_tokens=11), UNLIMITED)
        assert 10 == budget.remaining(EXTENSIONS).tokens
        assert 6 == len(list(book.entries("the writer's")))
        assert 1 == len(list(book.open_leases("the writer's")))
        assert {None} == {found.damage for found in book.verify()}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "change",
    [
        *CHANGES.values(),
        "ALTER TABLE {table} DISABLE TRIGGER ALL",
        "DROP TABLE {table} CASCADE",
        "SET session_replication_role = replica",
    ],
)
def test_a_writer_cannot_change_history(change: str, table: str, writer_url: str) -> None:
    """The writer's role lacks the privilege for whatever is not reading or appending."""
    key = KEYS[table]
    statement = change.format(table=table, key=key, column=key.partition(",")[0])
    with (
        psycopg.connect(writer_url, autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


def test_a_reader_without_a_privilege_is_told_so(url: str) -> None:
    """A role without any privilege gets a typed error that names what it lacks."""
    role = f"ledger_stranger_{os.getpid()}_{next(numbers)}"
    stranger = make_url(url).set(username=role, password=PASSWORD)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        try:
            with pytest.raises(LedgerUnavailableError, match="'ledger db roles' shows") as refused:
                Ledger.open(stranger.render_as_string(hide_password=False))
        finally:
            connection.execute(f"DROP ROLE {role}")
    assert "42501" == state_of(refused.value)


def test_a_lock_held_past_the_deadline_is_contention(url: str) -> None:
    """Another session keeps the pool's lock: the call gives up in time, and wrote nothing."""
    with Ledger.open(url) as book:
        budget = book.pool("pool", OF_THOUSAND)
        locks = sql.SQL(", ").join(sql.Identifier(lock_table(n)) for n in range(POOL_LOCKS))
        with psycopg.connect(url) as other:
            other.execute(sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(locks))
            began = time.monotonic()
            with impatient(book, 0.5), pytest.raises(ContentionError) as contention:
                budget.reserve(EXTENSIONS, TEN, UNLIMITED)
            assert 0.4 < time.monotonic() - began < LATE_S
            assert 0.5 == contention.value.timeout_s
            assert state_of(contention.value) in {"55P03", "57014"}
            # Readers wait for nobody.
            assert 1_000 == budget.remaining(EXTENSIONS).tokens
        assert 1 == len(list(book.entries("pool")))
        assert 2 == budget.reserve(EXTENSIONS, TEN, UNLIMITED).id


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("begin", lambda budget: budget.reserve(EXTENSIONS, TEN, UNLIMITED)),
        ("read_alone", lambda budget: budget.remaining(EXTENSIONS)),
    ],
    ids=["a write", "a read"],
)
def test_a_deadline_while_connecting_again_is_still_contention(
    url: str,
    method: str,
    call: Callable[[LedgerBudgetManager], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A try was sent back; a slow server has no time left for the connection of the next one."""

    def too_late(until_s: float, *_args: object, **_options: object) -> Session:
        time.sleep(max(0.0, until_s - time.monotonic()) + 0.01)
        raise psycopg.errors.ConnectionTimeout("connection timeout expired")

    with Ledger.open(url) as book:
        budget = book.pool("pool", OF_THOUSAND)
        dialect = book._database.dialect

        def sent_back(*_args: object, **_options: object) -> None:
            monkeypatch.setattr(Session, "connect_until", too_late)
            raise psycopg.errors.SerializationFailure("sent back")

        with monkeypatch.context() as patched, impatient(book, 0.5):
            patched.setattr(dialect, method, sent_back)
            with pytest.raises(ContentionError):
                call(budget)


def test_every_write_is_serializable(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL itself says, in each transaction that commits, that it is serializable."""
    dialect = book._database.dialect
    commit, levels = dialect.commit, []

    def spy(connection: Connection) -> None:
        raw = connection.connection.driver_connection
        assert raw is not None
        levels.append(raw.execute("SHOW transaction_isolation").fetchone()[0])
        commit(connection)

    monkeypatch.setattr(dialect, "commit", spy)
    budget = book.pool("pool", OF_THOUSAND)
    budget.record_used(budget.reserve(EXTENSIONS, TEN, UNLIMITED), Usage(total_tokens=1))
    book.adjust("pool", OF_THOUSAND)
    assert ["serializable"] * 4 == levels


AWKWARD = "'; DROP TABLE entries; -- \\' \\\\ %s %(seq)s \u65e5\u672c \U0001f4b0"


@pytest.mark.parametrize("rows", [0, 2], ids=["by COPY", "as literals"])
@pytest.mark.parametrize("conforming", ["on", "off"])
def test_whatever_a_caller_writes_is_stored_as_it_is(
    url: str, conforming: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No text breaks out of its quotes, whatever the database makes of a backslash in them."""
    monkeypatch.setattr(session, "_LITERAL_ROWS", rows)
    change = f"ALTER DATABASE {make_url(url).database} SET standard_conforming_strings"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"{change} = {conforming}")
    who = Attribution(run_id=AWKWARD, request_id=AWKWARD, tags={AWKWARD: AWKWARD})
    report = UsageReport(request_id=f"2 {AWKWARD}", detail={AWKWARD: [AWKWARD]})
    with Ledger.open(url) as book:
        budget = book.pool(AWKWARD, OF_THOUSAND)
        lease = budget.reserve(RequestExtensions(who), TEN, UNLIMITED)
    with Ledger.open(url) as book:  # which remembers nothing
        budget = book.pool(AWKWARD)
        budget.record_used(lease, Usage(total_tokens=1), report=report)
        reserved, settled = book.entries(AWKWARD, after=1)
        assert (AWKWARD, f"2 {AWKWARD}") == (reserved.request_id, settled.request_id)
        assert [(AWKWARD, {AWKWARD: AWKWARD})] * 2 == [
            (one.attribution.run_id, one.attribution.tags) for one in (reserved, settled)
        ]
        assert {"report": {AWKWARD: [AWKWARD]}} == settled.detail
        assert [None] == [found.damage for found in book.verify()]


def test_a_report_may_read_through_a_server_s_cursor(book: Ledger) -> None:
    """`Ledger.read` has its transaction open for a query that streams its rows."""
    book.pool("pool", OF_THOUSAND).reserve(EXTENSIONS, TEN, UNLIMITED)

    def stream(connection: Connection) -> list[int]:
        streaming = text("SELECT seq FROM entries").execution_options(stream_results=True)
        return list(connection.execute(streaming).scalars())

    assert [1, 2] == book.read(stream)


@contextmanager
def trigger(url: str, body: str) -> Iterator[None]:
    """Let a trigger run before every INSERT of entries; `tries` counts, whatever is undone."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SEQUENCE tries")
        connection.execute(
            "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$BEGIN {body}; RETURN NULL; END$$"
        )
        connection.execute(
            "CREATE TRIGGER meddle BEFORE INSERT ON entries EXECUTE FUNCTION meddle()"
        )
        yield
        connection.execute("DROP FUNCTION meddle CASCADE")
        connection.execute("DROP SEQUENCE tries")


ROWS = pytest.mark.parametrize("rows", [0, 2], ids=["by COPY", "in COMMIT's message"])


@ROWS
@pytest.mark.parametrize("state", ["40001", "40P01", "23505", "57P01"])
def test_rows_that_are_refused_once_are_written_once(
    book: Ledger, url: str, state: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clash, or a lost connection, while the rows are written: all is done again, once."""
    budget = book.pool("pool", OF_THOUSAND)
    monkeypatch.setattr(session, "_LITERAL_ROWS", rows)
    once = f"IF nextval('tries') = 1 THEN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END IF"
    with trigger(url, once):
        lease = budget.reserve(EXTENSIONS, TEN, UNLIMITED)
    assert 2 == lease.id
    with trigger(url, once):
        budget.record_used(lease, Usage(total_tokens=7))
    assert ["opening", "reservation", "settlement"] == [one.kind for one in book.entries("pool")]
    assert 993 == budget.remaining(EXTENSIONS).tokens
    assert 2 == book._database.retries
    assert [None] == [found.damage for found in book.verify()]


@ROWS
@pytest.mark.parametrize("state", ["53100", "23514", "42501", "P0001"])
def test_rows_that_are_refused_are_not_written(
    book: Ledger, url: str, state: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, a constraint, a privilege: the store is unavailable, and nothing is in doubt."""
    budget = book.pool("pool", OF_THOUSAND)
    lease = budget.reserve(EXTENSIONS, TEN, UNLIMITED)
    monkeypatch.setattr(session, "_LITERAL_ROWS", rows)
    with trigger(url, f"RAISE EXCEPTION 'no' USING ERRCODE = '{state}'"):
        for call in (
            lambda: budget.reserve(EXTENSIONS, TEN, UNLIMITED),
            lambda: budget.record_used(lease, Usage(total_tokens=7)),
        ):
            with pytest.raises(LedgerUnavailableError) as refused:
                call()
            assert state == state_of(refused.value)
    assert 990 == budget.remaining(EXTENSIONS).tokens
    budget.record_used(lease, Usage(total_tokens=7))
    assert 993 == budget.remaining(EXTENSIONS).tokens
    assert 0 == book._database.retries


@ROWS
def test_a_warning_about_the_rows_is_no_doubt_about_the_commit(
    book: Ledger, url: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's trigger warns: the commit stands all the same, and the caller gets its lease."""
    budget = book.pool("pool", OF_THOUSAND)
    monkeypatch.setattr(session, "_LITERAL_ROWS", rows)
    with trigger(url, "RAISE WARNING 'look out'"):
        assert 2 == budget.reserve(EXTENSIONS, TEN, UNLIMITED).id


@ROWS
def test_who_takes_no_lock_takes_no_number_twice(
    book: Ledger, url: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer, which ignores the lock, is first: its entry stands, and ours comes behind.

    So it is for leases that are remembered: what the other settled is not settled again.
    """
    budget = book.pool("pool", OF_THOUSAND)
    lease = budget.reserve(EXTENSIONS, TEN, UNLIMITED)
    monkeypatch.setattr(session, "_LITERAL_ROWS", rows)
    append, meanwhile = journal.append, []

    def append_second(connection: Connection, staged: Sequence[Mapping[str, Any]]) -> None:
        while meanwhile:
            with ThreadPoolExecutor(1) as another:  # a call inside this one would be refused
                another.submit(meanwhile.pop()).result(20)
        append(connection, staged)

    with Ledger.open(url) as elsewhere:
        theirs, begin = elsewhere.pool("pool"), elsewhere._database.dialect.begin

        def begin_without_lock(
            connection: Connection, *, pool_ids: object, timeout_s: float
        ) -> None:
            del pool_ids
            begin(connection, pool_ids=(), timeout_s=timeout_s)

        monkeypatch.setattr(elsewhere._database.dialect, "begin", begin_without_lock)
        monkeypatch.setattr(journal, "append", append_second)
        meanwhile.append(lambda: theirs.record_used(lease, Usage(total_tokens=3)))
        with pytest.raises(UnknownLeaseError):
            budget.record_used(lease, Usage(total_tokens=7))
        meanwhile.append(lambda: theirs.reserve(EXTENSIONS, TEN, UNLIMITED))
        assert 5 == budget.reserve(EXTENSIONS, TEN, UNLIMITED).id
    assert ["opening", "reservation", "settlement", "reservation", "reservation"] == [
        one.kind for one in book.entries("pool")
    ]
    assert 977 == budget.remaining(EXTENSIONS).tokens
    assert 2 == book._database.retries
    assert [None] == [found.damage for found in book.verify()]


def test_pools_that_share_a_lock_wait_for_each_other_and_no_more(url: str) -> None:
    """Two pools of one lock table, in batches of both and of each: no clash, and all is done."""

    def work(number: int) -> int:
        # A ledger for two threads each: some of their batches are over both pools.
        with ledgers[number // 2] as book:
            budget = book.pool(f"pool {number % 2 * POOL_LOCKS}")
            gate.wait()
            for _ in range(10):
                lease = budget.reserve(EXTENSIONS, TEN, UNLIMITED)
                budget.record_used(lease, Usage(total_tokens=1))
            gate.wait()
            return book._database.retries

    with Ledger.open(url) as book:
        pools = [book.pool(f"pool {number}", OF_THOUSAND) for number in range(POOL_LOCKS + 1)]
        shared = {pools[n]._journal.info.pool_id % POOL_LOCKS for n in (0, POOL_LOCKS)}
        assert 1 == len(shared)
        gate = threading.Barrier(4, timeout=30)
        ledgers = [Ledger.open(url, timeout_s=30) for _ in range(2)]
        with ThreadPoolExecutor(4) as threads:
            assert [0] * 4 == list(threads.map(work, range(4)))
        assert [20, 20] == [pools[n].status().balance.committed.tokens for n in (0, POOL_LOCKS)]
        assert {None} == {found.damage for found in book.verify()}


@pytest.mark.parametrize(
    ("pool_ids", "expected"),
    [
        ([], []),
        ([3], [3]),
        ([POOL_LOCKS + 3], [3]),
        ([5, 3], [3, 5]),
        ([1, 2, 3, 4, 5], list(range(POOL_LOCKS))),
    ],
)
def test_a_transaction_over_many_pools_takes_every_lock(
    book: Ledger, pool_ids: list[int], expected: list[int]
) -> None:
    """It reads more than the server remembers singly, so nobody may write beside it."""
    query = (
        "SELECT CAST(relation AS regclass) FROM pg_locks WHERE locktype = 'relation'"
        " AND mode = 'ExclusiveLock' AND pid = pg_backend_pid() ORDER BY 1"
    )
    transaction = Transaction(book._database, key="key")
    found = sorted(transaction.begin(pool_ids).exec_driver_sql(query).scalars())
    book._database.give_back(transaction)
    assert list(map(lock_table, expected)) == found


def test_without_its_locks_a_pool_is_slow_and_right(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is for speed alone: without it transactions clash, are repeated, and add up."""
    begin, failure, clashes = PostgreSQLDialect.begin, PostgreSQLDialect.failure, []

    def begin_without_lock(
        self: PostgreSQLDialect,
        connection: Connection,
        *,
        pool_ids: object,
        timeout_s: float,
    ) -> None:
        del pool_ids
        begin(self, connection, pool_ids=(), timeout_s=timeout_s)

    def note_failure(self: PostgreSQLDialect, error: BaseException) -> Failure:
        clashes.append(error)
        return failure(self, error)

    monkeypatch.setattr(PostgreSQLDialect, "begin", begin_without_lock)
    monkeypatch.setattr(PostgreSQLDialect, "failure", note_failure)
    gate = threading.Barrier(8, timeout=30)
    options = SharedPoolBudgetOptions(capacity_tokens=25)

    def work(_thread: int) -> int:
        # A ledger each: the threads of one would share their transactions.
        with Ledger.open(url, timeout_s=60) as book:
            budget = book.pool("pool", options)
            gate.wait()
            granted = 0
            for _ in range(4):
                try:
                    budget.reserve(EXTENSIONS, UsageEstimate(total_tokens=1), UNLIMITED)
                except ThresholdExceededError:
                    continue
                granted += 1
            return granted

    with ThreadPoolExecutor(8) as threads:
        assert 25 == sum(threads.map(work, range(8)))
    assert clashes, "nothing clashed, so nothing is shown"
    with Ledger.open(url) as book:
        assert 0 == book.pool("pool").remaining(EXTENSIONS).tokens
        assert [None] == [found.damage for found in book.verify()]
