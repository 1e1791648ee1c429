"""What the log says: expiries, long waits, lost connections, interrupted leaders."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn

import psycopg
import pytest
from sqlalchemy import Connection, make_url

from ledger import LeaseTtl, Ledger, LedgerUnavailableError, RequestExtensions, Usage
from ledger.core.kept_calls import Keeping
from ledger.engine import transaction
from ledger.engine.callers import Caller, Executor
from ledger.engine.operations import Release
from ledger.lease import renewal
from ledger.store import database
from ledger.store.dialects import Failure
from ledger.store.writing import Transaction
from ledger.telemetry.pools import Pools
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import LATE_S, Clock
from tests.leases import OF_HUNDRED


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return what gives the lines of the log so far, with their levels."""
    caplog.set_level(logging.DEBUG, "ledger")
    return lambda: [f"{one.levelname} {one.getMessage()}" for one in caplog.records]


def test_expiries_are_logged(store_url: str, clock: Clock, lines: Callable[[], list[str]]) -> None:
    """With how many leases, and of which pool."""
    with Ledger.open(store_url, clock=clock) as book:
        budget = book.pool("pool", OF_HUNDRED)
        budget.reserve(RequestExtensions(LeaseTtl(timedelta(minutes=1))), tokens(1), UNLIMITED)
        clock.minutes(2)
        assert 1 == book.expire_due()
    assert "INFO 1 leases of pool 'pool' expired" in lines()


def test_a_long_wait_for_a_lock_is_logged(
    store_url: str, monkeypatch: pytest.MonkeyPatch, lines: Callable[[], list[str]]
) -> None:
    """With how long it was, and for which pools."""
    monkeypatch.setattr(transaction, "_LONG_WAIT_S", 0.05)
    with Ledger.open(store_url) as book, Ledger.open(store_url) as other:
        budget = book.pool("pool", OF_HUNDRED)
        begun = threading.Event()

        def hold() -> None:
            held = Transaction(other._database, key="key")
            held.begin([1]).exec_driver_sql("SELECT 1")  # BEGIN goes with the first statement
            begun.set()
            time.sleep(0.5)
            other._database.give_back(held)

        holder = threading.Thread(target=hold)
        holder.start()
        assert begun.wait(20)
        budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        holder.join()
    (line,) = (one for one in lines() if "waited" in one)
    assert line.startswith("WARNING waited 0.")
    assert line.endswith("s for other writers of pools ['pool']")


def test_a_lost_connection_is_logged(
    new_store: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    lines: Callable[[], list[str]],
) -> None:
    """By the class of its error alone, and the call goes on."""
    with Ledger.open(new_store("postgresql")) as book:
        budget = book.pool("pool", OF_HUNDRED)
        begin, errors = book._database.dialect.begin, [psycopg.OperationalError("secret")]

        def fail_once(*given: object, **named: object) -> None:
            if errors:
                raise errors.pop()
            begin(*given, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(book._database.dialect, "begin", fail_once)
        budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    expected = "WARNING connection lost (OperationalError): repeating a transaction, attempt 1"
    assert expected in lines()
    assert not any("secret" in one for one in lines())


def test_a_server_that_stays_away_is_logged_sparsely(
    new_store: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    lines: Callable[[], list[str]],
) -> None:
    """A lost COMMIT is looked up by many tries, after growing pauses that end by the deadline."""
    number, pauses, lost = 40, list[float](), list[int]()

    def longest(least: float, most: float) -> float:
        pauses.append(most)
        return least

    monkeypatch.setattr(database.random, "uniform", longest)
    with Ledger.open(new_store("postgresql"), timeout_s=3 * LATE_S) as book:
        budget = book.pool("pool", OF_HUNDRED)
        commit = book._database.dialect.commit

        def lose(connection: Connection) -> None:
            if len(lost) < number:
                lost.append(1)
                raise psycopg.OperationalError("secret")
            commit(connection)

        monkeypatch.setattr(book._database.dialect, "commit", lose)
        budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
    assert [
        f"WARNING connection lost (OperationalError): repeating a transaction, attempt {attempt}"
        for attempt in (1, 2, 4, 8, 16, 32)
    ] == [one for one in lines() if "lost" in one]
    assert number == len(pauses)
    assert sorted(pauses) == pauses
    assert [0.002, 0.004, 0.5] == [*pauses[:2], pauses[-1]]
    tries = database.Tries(time.monotonic() + 0.1, number=20)
    assert book._database.is_repeated("read", tries, OSError(), Failure.LOST, surely=True)
    assert pauses[-1] <= 0.1


def test_no_error_in_the_log_has_a_password(
    new_store: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    lines: Callable[[], list[str]],
) -> None:
    """Whatever the driver says: of renewals, usage that is kept and metrics, lines have errors."""
    hidden = "s3cret/word"
    error = psycopg.OperationalError(f"none by {hidden} at postgresql://me:{hidden}@host/it")
    url = make_url(new_store("postgresql")).set(password=hidden)

    def fail(*_given: object, **_named: object) -> NoReturn:
        raise error

    with Ledger.open(url.render_as_string(hide_password=False)) as book:
        budget = book.pool("pool", OF_HUNDRED)
        lease = budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
        with monkeypatch.context() as broken:
            for name in ("begin", "begin_read", "read_alone"):
                broken.setattr(book._database.dialect, name, fail)
            assert [] == Pools(book).read()
            with pytest.raises(LedgerUnavailableError) as refused:
                budget.renew(lease, timedelta(minutes=1))
            renewal._report(lease.id, refused.value)
            with Keeping():
                budget.record_used(lease, Usage(total_tokens=1))
    said = [one for one in lines() if "none by *** at" in one]
    of = ("pools cannot be read", "could not be renewed", "is kept")
    assert [True] * len(of) == [what in one for what, one in zip(of, said, strict=True)]
    assert not any(hidden in one for one in lines())


def test_a_batch_that_is_taken_over_is_logged(
    store_url: str, lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever leads next finishes what an interrupted leader left, and says how much that was.

    No lock is held meanwhile: a handler of the log has locks of its own.
    """
    logger = logging.getLogger("ledger.engine.call_queue")
    handle, held = logger.handle, []
    with Ledger.open(store_url) as book:
        budget = book.pool("pool", OF_HUNDRED)
        lease = budget.reserve(EXTENSIONS, tokens(60), UNLIMITED)
        interrupted = Executor()
        interrupted.alive = False
        book._writer._leader = interrupted
        book._writer._batch = [Caller(budget._journal, Release(lease=lease.id))]

        def handled(record: logging.LogRecord) -> None:
            held.append(book._writer._mutex._is_owned())
            handle(record)

        monkeypatch.setattr(logger, "handle", handled)
        budget.reserve(EXTENSIONS, tokens(90), UNLIMITED)
    expected = "INFO taking over 1 operations that an interrupted leader left"
    assert expected in lines()
    assert [False] == held
