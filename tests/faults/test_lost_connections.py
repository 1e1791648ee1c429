"""Connections to PostgreSQL that break: idle, in the middle of a transaction, and in COMMIT."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NoReturn

import psycopg
import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ledger import (
    Attribution,
    BudgetLease,
    IdempotencyKey,
    Ledger,
    LedgerBudgetManager,
    LedgerError,
    LedgerUnavailableError,
    OutcomeUnknownError,
    RequestExtensions,
    SharedPoolBudgetOptions,
    Usage,
    UsageReport,
)
from ledger.store import connections
from ledger.store.connections import Loan
from ledger.store.dialects import session
from ledger.store.dialects.session import Session
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests.clocks import LATE_S, impatient, until
from tests.leases import OF_THOUSAND, TEN, numbered

if TYPE_CHECKING:
    from tests.faults.conftest import Proxy, Strike

STRIKES = ["SWALLOW", "CUT", "LATE", "GARBLE"]


@pytest.fixture
def book(url: str, proxy: Proxy) -> Iterator[Ledger]:
    """Return a ledger that reaches its server through the proxy."""
    with Ledger.open(proxy.url_of(url), timeout_s=5) as opened:
        yield opened


@pytest.fixture
def budget(book: Ledger) -> LedgerBudgetManager:
    """Return a pool behind the proxy."""
    return book.pool("pool", OF_THOUSAND)


def strike_named(name: str, proxy: Proxy) -> Strike:
    """Return the proxy's strike of this name."""
    return type(proxy._strike)[name]


def kinds(url: str) -> dict[str, int]:
    """Return how many entries of each kind the pool has, read past the proxy, once verified."""
    with Ledger.open(url, create=False) as book:
        assert {None} == {found.damage for found in book.verify()}
        return dict(Counter(entry.kind for entry in book.entries("pool")))


@pytest.mark.parametrize("name", STRIKES)
def test_a_reservation_lost_in_commit_is_looked_up(
    name: str, url: str, proxy: Proxy, budget: LedgerBudgetManager
) -> None:
    """Whether COMMIT arrived, did not, or comes late: the caller gets the one lease there is."""
    proxy.arm(b"COMMIT", strike_named(name, proxy))
    lease = budget.reserve(EXTENSIONS, TEN, UNLIMITED)
    assert 1 == proxy.struck
    assert {"opening": 1, "reservation": 1} == kinds(url)
    assert (2, TEN) == (lease.id, lease.reserved)
    assert 990 == budget.remaining(EXTENSIONS).tokens


def test_a_batch_answered_by_garbage_is_looked_up_as_one(
    url: str, proxy: Proxy, book: Ledger, budget: LedgerBudgetManager
) -> None:
    """Callers of one transaction learn together what became of it, and none is done twice."""
    number = 8
    budget.reserve(EXTENSIONS, TEN, UNLIMITED)
    committing, dialect = threading.Event(), book._database.dialect
    commit = dialect.commit

    def gather(connection: Connection) -> None:
        committing.set()
        until(lambda: len(book._writer._queue) == number)
        dialect.commit = commit  # type: ignore[method-assign]
        commit(connection)
        proxy.arm(b"COMMIT", strike_named("GARBLE", proxy))

    dialect.commit = gather  # type: ignore[method-assign]
    with ThreadPoolExecutor(number + 1) as pool:
        first = pool.submit(budget.reserve, EXTENSIONS, TEN, UNLIMITED)
        assert committing.wait(LATE_S)
        calls = [pool.submit(budget.reserve, EXTENSIONS, TEN, UNLIMITED) for _ in range(number)]
        leases = {call.result(LATE_S).id for call in (first, *calls)}
    assert (1, number + 1) == (proxy.struck, len(leases))
    assert {"opening": 1, "reservation": number + 2} == kinds(url)


@pytest.mark.parametrize("name", STRIKES)
def test_a_settlement_lost_in_commit_is_looked_up(
    name: str, url: str, proxy: Proxy, budget: LedgerBudgetManager
) -> None:
    """Spend is recorded once, and the caller is not told that the lease is unknown."""
    lease = budget.reserve(EXTENSIONS, TEN, UNLIMITED)
    proxy.arm(b"COMMIT", strike_named(name, proxy))
    budget.record_used(lease, Usage(total_tokens=25))
    assert 1 == proxy.struck
    assert {"opening": 1, "reservation": 1, "settlement": 1} == kinds(url)
    assert 975 == budget.remaining(EXTENSIONS).tokens


@pytest.mark.parametrize("name", STRIKES)
def test_a_correction_lost_in_commit_is_looked_up(
    name: str, url: str, proxy: Proxy, budget: LedgerBudgetManager
) -> None:
    """It is written once, and the caller is not told that there is nothing to correct."""
    lease = budget.reserve(EXTENSIONS, TEN, UNLIMITED)
    budget.record_used(lease, Usage(total_tokens=25))
    proxy.arm(b"COMMIT", strike_named(name, proxy))
    assert -5 == budget.correct(3, Usage(total_tokens=20), "invoice").total_tokens
    assert 1 == proxy.struck
    assert {"opening": 1, "reservation": 1, "settlement": 1, "correction": 1} == kinds(url)
    assert 980 == budget.remaining(EXTENSIONS).tokens


@pytest.mark.parametrize("name", STRIKES)
def test_an_adjustment_lost_in_commit_is_looked_up(
    name: str, url: str, proxy: Proxy, book: Ledger, budget: LedgerBudgetManager
) -> None:
    """The journal has one adjustment, although the answer to its COMMIT was lost."""
    proxy.arm(b"COMMIT", strike_named(name, proxy))
    book.adjust("pool", SharedPoolBudgetOptions(capacity_tokens=70), reason="less")
    assert 1 == proxy.struck
    assert {"opening": 1, "adjustment": 1} == kinds(url)
    assert 70 == budget.remaining(EXTENSIONS).tokens


@pytest.mark.parametrize("name", STRIKES)
def test_a_pool_lost_in_commit_is_made_once(
    name: str, url: str, proxy: Proxy, book: Ledger
) -> None:
    """The pool that is returned is the one in the store."""
    proxy.arm(b"COMMIT", strike_named(name, proxy))
    budget = book.pool("pool", OF_THOUSAND)
    assert 1 == proxy.struck
    assert {"opening": 1} == kinds(url)
    assert [budget.identity] == [pool.identity for pool in book.pools()]
    assert 2 == budget.reserve(EXTENSIONS, TEN, UNLIMITED).id


@pytest.mark.parametrize("name", ["SWALLOW", "CUT"])
def test_an_outcome_that_cannot_be_looked_up_is_unknown(
    name: str, url: str, proxy: Proxy, book: Ledger, budget: LedgerBudgetManager
) -> None:
    """With the server gone in COMMIT, the error says how to repeat the call safely."""
    book._database.timeout_s = 1.0
    proxy.arm(b"COMMIT", strike_named(name, proxy), then_refuse=True)
    began = time.monotonic()
    with pytest.raises(OutcomeUnknownError) as unknown:
        budget.reserve(EXTENSIONS, TEN, UNLIMITED)
    assert time.monotonic() - began < LATE_S
    assert isinstance(unknown.value.__cause__, Exception)
    with pytest.raises(LedgerUnavailableError):
        budget.remaining(EXTENSIONS)

    proxy.restore()
    key = IdempotencyKey(unknown.value.idempotency_key)
    leases = [budget.reserve(RequestExtensions(key), TEN, UNLIMITED).id for _ in range(2)]
    assert [2, 2] == leases
    assert {"opening": 1, "reservation": 1} == kinds(url)


@pytest.mark.parametrize("name", ["SWALLOW", "CUT"])
def test_an_unknown_settlement_is_repeated_under_its_key(
    name: str, url: str, proxy: Proxy, book: Ledger, budget: LedgerBudgetManager
) -> None:
    """Real spend can be recorded again after an unknown outcome, and counts once."""
    lease = budget.reserve(EXTENSIONS, TEN, UNLIMITED)
    book._database.timeout_s = 1.0
    proxy.arm(b"COMMIT", strike_named(name, proxy), then_refuse=True)
    with pytest.raises(OutcomeUnknownError) as unknown:
        budget.record_used(lease, Usage(total_tokens=25))
    proxy.restore()
    report = UsageReport(idempotency_key=unknown.value.idempotency_key)
    for _ in range(2):
        budget.record_used(lease, Usage(total_tokens=25), report=report)
    assert {"opening": 1, "reservation": 1, "settlement": 1} == kinds(url)
    assert 975 == budget.remaining(EXTENSIONS).tokens


@pytest.mark.parametrize("name", STRIKES)
def test_rows_by_copy_lost_in_commit_are_looked_up(
    name: str,
    url: str,
    proxy: Proxy,
    budget: LedgerBudgetManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So it is when the rows went ahead, and COMMIT comes alone."""
    monkeypatch.setattr(session, "_LITERAL_ROWS", 0)
    proxy.arm(b"COMMIT", strike_named(name, proxy))
    assert 2 == budget.reserve(EXTENSIONS, TEN, UNLIMITED).id
    assert 1 == proxy.struck
    assert {"opening": 1, "reservation": 1} == kinds(url)


@pytest.mark.parametrize("name", ["SWALLOW", "CUT"])
@pytest.mark.parametrize(
    ("needle", "rows"),
    [(b"LOCK TABLE", 2), (b"FROM attributions", 2), (b"COPY entries", 0), (b"\treservation\t", 0)],
    ids=["the first message", "a later read", "COPY", "the rows"],
)
def test_a_connection_lost_before_commit_is_made_anew(
    needle: bytes,
    rows: int,
    name: str,
    url: str,
    proxy: Proxy,
    book: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing was committed, so the work is done again, once."""
    monkeypatch.setattr(session, "_LITERAL_ROWS", rows)
    extensions = RequestExtensions(Attribution(run_id="run"))
    budget = book.pool("pool", OF_THOUSAND)
    proxy.arm(needle, strike_named(name, proxy))
    lease = budget.reserve(extensions, TEN, UNLIMITED)
    assert 1 == proxy.struck
    assert 2 == lease.id
    assert {"opening": 1, "reservation": 1} == kinds(url)


READS: dict[str, Callable[[Ledger, LedgerBudgetManager], object]] = {
    "remaining": lambda _, budget: budget.remaining(EXTENSIONS),
    "lease": lambda _, budget: budget.lease(numbered(budget, 2).token),
    "pools": lambda book, _: book.pools(),
    "pool": lambda book, _: book.pool("pool").identity,
    "entries": lambda book, _: list(book.entries("pool")),
    "open leases": lambda book, _: list(book.open_leases("pool")),
    "verify": lambda book, _: book.verify(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_read_is_repeated_when_its_connection_is_lost(
    read: Callable[[Ledger, LedgerBudgetManager], object],
    proxy: Proxy,
    book: Ledger,
    budget: LedgerBudgetManager,
) -> None:
    """Every question is asked again on a new connection."""
    budget.reserve(EXTENSIONS, TEN, UNLIMITED)
    expected = read(book, budget)
    proxy.arm(b"SELECT", strike_named("CUT", proxy))
    assert expected == read(book, budget)
    assert 1 == proxy.struck


@pytest.mark.parametrize("needle", [b"SELECT", b"pools_write", b"entries_write"])
def test_a_pool_is_made_though_the_connection_is_lost(
    needle: bytes, url: str, proxy: Proxy, book: Ledger
) -> None:
    """Nothing was committed, so making the pool is tried again, once."""
    proxy.arm(needle, strike_named("CUT", proxy))
    budget = book.pool("pool", OF_THOUSAND)
    assert 1 == proxy.struck
    assert [budget.identity] == [pool.identity for pool in book.pools()]
    assert {"opening": 1} == kinds(url)


def test_idle_connections_that_were_terminated_are_replaced(
    url: str, server_url: str, budget: LedgerBudgetManager, book: Ledger
) -> None:
    """After the server ended every session, each next call just works."""
    lease = budget.reserve(EXTENSIONS, TEN, UNLIMITED)
    calls: list[Callable[[], object]] = [
        lambda: budget.remaining(EXTENSIONS),
        lambda: budget.record_used(lease, Usage(total_tokens=5)),
        lambda: budget.reserve(EXTENSIONS, TEN, UNLIMITED),
        lambda: book.adjust("pool", OF_THOUSAND),
        lambda: list(book.entries("pool")),
        lambda: book.pool("another", OF_THOUSAND),
    ]
    for call in calls:
        # Several, so that a second try must not be given another dead one.
        with book._database.connect(), book._database.connect(), book._database.connect():
            pass
        terminate_sessions(server_url, url)
        call()
    assert {"opening": 1, "reservation": 2, "settlement": 1, "adjustment": 1} == kinds(url)


def terminate_sessions(server_url: str, url: str) -> None:
    """End every session of a database, and wait until they are gone."""
    name = url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(server_url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
            " WHERE datname = %s",
            [name],
        ).fetchone()
    assert ended is not None
    assert ended[0] >= 1


def test_a_server_that_is_gone_is_unavailable_and_nothing_is_written(
    url: str, proxy: Proxy, budget: LedgerBudgetManager
) -> None:
    """With the server away every call says so, with the driver's error; then all works again."""
    proxy.refuse()
    for call in (
        lambda: budget.reserve(EXTENSIONS, TEN, UNLIMITED),
        lambda: budget.remaining(EXTENSIONS),
    ):
        with pytest.raises(LedgerUnavailableError) as unavailable:
            call()
        assert unavailable.value.__cause__ is not None
    proxy.restore()
    assert 2 == budget.reserve(EXTENSIONS, TEN, UNLIMITED).id
    assert {"opening": 1, "reservation": 1} == kinds(url)


@pytest.mark.parametrize("needle", [b"BEGIN", b"SELECT", b"COMMIT"])
def test_a_server_that_falls_silent_is_given_up(
    needle: bytes, proxy: Proxy, book: Ledger, budget: LedgerBudgetManager
) -> None:
    """No answer and no end of the connection: the call ends all the same, and tells."""
    book._database.timeout_s = 1.0
    proxy.arm(needle, strike_named("STALL", proxy))
    ended: list[object] = []

    def call() -> None:
        try:
            ended.append(budget.reserve(EXTENSIONS, TEN, UNLIMITED))
        except Exception as error:  # noqa: BLE001 - judged below
            ended.append(error)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    caller.join(LATE_S)
    assert ended, "the call still waits"
    assert isinstance(ended[0], BudgetLease | LedgerError)


def test_a_report_ends_when_its_answer_was_lost(
    proxy: Proxy, book: Ledger, budget: LedgerBudgetManager
) -> None:
    """The proxy keeps its connection and passes nothing on; the server has nothing to do."""
    with impatient(book, 2.0), ThreadPoolExecutor() as pool:
        book._database._drop_idle()
        assert 1 == len(list(book.entries(budget.name)))
        proxy.arm(b"FROM entries", strike_named("STALL", proxy))
        reading = pool.submit(lambda: list(book.entries(budget.name)))
        with pytest.raises(LedgerUnavailableError, match="does not answer"):
            reading.result(LATE_S)
    assert 1 == proxy.struck


def test_a_report_takes_as_long_as_the_server_works_on_it(book: Ledger) -> None:
    """Its deadline is long over, and it is asked about more than once."""
    with impatient(book, 2.5):
        book._database._drop_idle()
        slowly = "SELECT 7 FROM pg_sleep(6)"
        assert 7 == book.read(lambda read: read.exec_driver_sql(slowly).scalar_one())


def test_a_read_has_what_is_left_once_a_connection_was_free(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for one and the read end together at the deadline; and an error waits no longer."""
    database = book._database
    book.pool("pool", OF_THOUSAND)
    monkeypatch.setattr(connections, "_LENT_MAX", 1)

    waits = threading.Event()

    def notice(low: float, high: float) -> float:
        waits.set()
        return low + high

    monkeypatch.setattr(connections.random, "uniform", notice)

    def left_ms(connection: Connection) -> int:
        asked = "SELECT setting FROM pg_settings WHERE name = 'statement_timeout'"
        return int(connection.exec_driver_sql(asked).scalar_one())

    with ThreadPoolExecutor() as pool:
        with database.connect():
            reading = pool.submit(database.read, left_ms)
            assert waits.wait(LATE_S)
            time.sleep(0.02)
        assert reading.result(LATE_S) <= 1_000 * database.timeout_s - 20


def test_a_connection_is_made_in_the_time_that_is_left(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late in a call the old one was lost."""
    asked: list[int] = []

    def refuse(*_given: object, connect_timeout: int, **_options: object) -> NoReturn:
        asked.append(connect_timeout)
        raise psycopg.OperationalError("refused")

    monkeypatch.setattr(Session, "connect", refuse)
    book._database._drop_idle()
    book._database.timeout_s = book._database.dialect.timeout_s = 60.0
    loan = Loan()
    for left_s in (1_000, 10, 0):
        loan.until_s = time.monotonic() + left_s
        with pytest.raises(DBAPIError):
            book._database.take(loan)
        book._database.give_back(loan)
    assert [60, 10, 2] == asked
