"""A PostgreSQL server that restarts, asks for passwords, and waits for a standby in vain."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from ledger import (
    ContentionError,
    IdempotencyKey,
    Ledger,
    LedgerUnavailableError,
    OutcomeUnknownError,
    RequestExtensions,
    SharedPoolBudgetOptions,
)
from ledger.store.dialects.postgresql import _MIGRATION_LOCK
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from tests import programs
from tests.clocks import LATE_S, until
from tests.faults.conftest import PROGRAM
from tests.leases import OF_THOUSAND, TEN
from tests.roles import PASSWORD
from tests.shared import numbers


@pytest.fixture
def url(own_server: Any) -> Iterator[str]:  # noqa: ANN401 - the package has no types
    """Return an empty database on a server of our own."""
    name = f"own_{next(numbers)}"
    with psycopg.connect(own_server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    made = make_url(own_server.get_uri()).set(database=name)
    yield made.render_as_string(hide_password=False)
    with psycopg.connect(own_server.get_uri(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def setting(url: str, name: str, value: str) -> Iterator[None]:
    """Run the server with another setting."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("SELECT pg_sleep(0.5)")  # each of its processes takes its time to see
        try:
            yield
        finally:
            connection.execute(f"ALTER SYSTEM RESET {name}")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("SELECT pg_sleep(0.1)")


def test_a_server_may_restart_between_calls(own_server: Any, url: str) -> None:  # noqa: ANN401
    """Away, the server is unavailable; back again, the same ledger goes on with all its books."""
    with Ledger.open(url, timeout_s=2) as book:
        budget = book.pool("pool", OF_THOUSAND)
        assert 2 == budget.reserve(EXTENSIONS, TEN, UNLIMITED).id
        own_server.stop()
        with pytest.raises(LedgerUnavailableError) as unavailable:
            budget.reserve(EXTENSIONS, TEN, UNLIMITED)
        assert unavailable.value.__cause__ is not None
        own_server.ensure_postgres_running()
        assert 3 == budget.reserve(EXTENSIONS, TEN, UNLIMITED).id
        own_server.stop()
        own_server.ensure_postgres_running()
        # This time the dead connections are found out by the call itself.
        assert 980 == budget.remaining(EXTENSIONS).tokens
        assert [None] == [found.damage for found in book.verify()]


def test_a_wrong_password_is_unavailable(own_server: Any, url: str) -> None:  # noqa: ANN401
    """A wrong password is told from other failures, with the driver's error as cause."""
    hba = own_server.pgdata / "pg_hba.conf"
    before = hba.read_text()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
        hba.write_text("local all guest scram-sha-256\n" + before)
        connection.execute("SELECT pg_reload_conf(), pg_sleep(0.1)")
        try:
            guest = make_url(url).set(username="guest", password=PASSWORD[::-1])
            with pytest.raises(
                LedgerUnavailableError, match="password authentication failed"
            ) as wrong:
                Ledger.open(guest.render_as_string(hide_password=False))
        finally:
            hba.write_text(before)
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("DROP ROLE guest")
    assert isinstance(getattr(wrong.value.__cause__, "orig", None), psycopg.Error)
    assert PASSWORD[::-1] not in str(wrong.value)


def cancel_whoever_waits_for_a_standby(url: str) -> None:
    """Do what an administrator does to a COMMIT that hangs."""
    deadline = time.monotonic() + LATE_S
    with psycopg.connect(url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            cancelled = connection.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            ).fetchone()
            if cancelled:
                return
            time.sleep(0.05)


def locks_held(url: str) -> int:
    """Return how many locks of pools are held."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_locks JOIN pg_class ON relation = pg_class.oid"
            " WHERE relname LIKE 'pool_lock_%' AND mode = 'ExclusiveLock'"
        ).fetchone()
    assert found is not None
    count: int = found[0]
    return count


def waits_for_a_standby(url: str, pid: int) -> bool:
    """Tell whether a program's COMMIT does."""
    with psycopg.connect(url, autocommit=True) as connection:
        return bool(
            connection.execute(
                "SELECT 1 FROM pg_stat_activity"
                " WHERE wait_event = 'SyncRep' AND starts_with(application_name, %s)",
                [f"ledger {pid}@"],
            ).fetchone()
        )


@pytest.mark.parametrize("ended_by", ["an administrator", "the deadline"])
def test_a_standby_that_does_not_answer_leaves_the_outcome_unknown(url: str, ended_by: str) -> None:
    """COMMIT that stops waiting for its standby is not believed; its key tells the outcome.

    The server ends it, and keeps no lock: others go on at once.
    """
    by_deadline = ended_by == "the deadline"
    with Ledger.open(url, timeout_s=1 if by_deadline else LATE_S) as book:
        budget = book.pool("pool", OF_THOUSAND)
        with setting(url, "synchronous_standby_names", "nobody"), ThreadPoolExecutor(1) as thread:
            if not by_deadline:
                thread.submit(cancel_whoever_waits_for_a_standby, url)
            with pytest.raises(OutcomeUnknownError) as unknown:
                budget.reserve(EXTENSIONS, TEN, UNLIMITED)
            assert 0 == locks_held(url)
        assert "synchronous replication" in str(unknown.value.__cause__)
        key = IdempotencyKey(unknown.value.idempotency_key)
        assert 2 == budget.reserve(RequestExtensions(key), TEN, UNLIMITED).id
        assert 2 == len(list(book.entries("pool")))


def test_a_session_whose_client_was_killed_is_named(url: str, environment: dict[str, str]) -> None:
    """Its COMMIT waits for a standby, and keeps the lock of the pool, which no time-out ends."""
    with Ledger.open(url, timeout_s=1) as book:
        budget = book.pool("pool", SharedPoolBudgetOptions())
        with setting(url, "synchronous_standby_names", "nobody"):
            words = [sys.executable, str(PROGRAM), "reserve", url]
            with programs.Popen(words, env=environment, stdout=subprocess.DEVNULL) as client:
                until(lambda: waits_for_a_standby(url, client.pid))
                client.kill()
            with pytest.raises(ContentionError, match=r"active \(SyncRep\) for") as contention:
                budget.reserve(EXTENSIONS, TEN, UNLIMITED)
            assert f"'ledger {client.pid}@" in str(contention.value.holder)
            cancel_whoever_waits_for_a_standby(url)
        assert 3 == budget.reserve(EXTENSIONS, TEN, UNLIMITED).id


def test_a_read_only_server_is_unavailable_for_writes_alone(url: str) -> None:
    """On a read-only server what remains can be asked, and a write is told why it cannot be."""
    with Ledger.open(url, timeout_s=LATE_S) as book:
        budget = book.pool("pool", OF_THOUSAND)
        with psycopg.connect(url, autocommit=True) as connection:
            name = connection.info.dbname
            connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        with Ledger.open(url, timeout_s=LATE_S) as second:
            assert 1_000 == second.pool("pool").remaining(EXTENSIONS).tokens
            with pytest.raises(LedgerUnavailableError, match="read-only"):
                second.pool("pool").reserve(EXTENSIONS, TEN, UNLIMITED)
        assert 2 == budget.reserve(EXTENSIONS, TEN, UNLIMITED).id


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_first_openings_do_not_depend_on_the_servers_isolation(
    level: str, url: str, run_program: Callable[..., str]
) -> None:
    """First openings at once make one schema, whatever isolation a session begins with."""
    with (
        psycopg.connect(url, autocommit=True) as connection,
        ThreadPoolExecutor(2) as threads,
    ):
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")
        # Both begin before either may go on.
        connection.execute("SELECT pg_advisory_lock(%s)", [_MIGRATION_LOCK])
        opening = [threads.submit(run_program, "reserve", url) for _ in range(2)]
        wait_for_waiters(connection, 2)
        connection.execute("SELECT pg_advisory_unlock_all()")
        assert {2, 3} == {json.loads(each.result())["lease"] for each in opening}


def wait_for_waiters(connection: psycopg.Connection, number: int) -> None:
    """Wait until so many sessions wait for an advisory lock."""
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    deadline = time.monotonic() + LATE_S
    while connection.execute(waiting).fetchone() != (number,):
        assert time.monotonic() < deadline
        time.sleep(0.02)
