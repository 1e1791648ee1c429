"""No call waits longer than its deadline and one round trip, whatever holds it up.

All kinds of calls are made at once, each on a ledger of its own: so a fault takes one time-out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import make_url

from ledger import (
    AsyncLedger,
    BudgetLease,
    IdempotencyKey,
    Ledger,
    LedgerBudgetManager,
    LedgerError,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetOptions,
    Usage,
    reports,
)
from ledger.store.dialects.base import ROUND_TRIP_S
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import until

if TYPE_CHECKING:
    from tests.faults.conftest import Proxy

TIMEOUT_S = 3.0
NOISE_S = 1.9
"""What a busy machine adds; two time-outs would take longer than all three together."""
WAIT_S = 1.0
OPTIONS = SharedPoolBudgetOptions(capacity_tokens=1_000, settlement=SettlementPolicy.RELEASE)
"""A status asks for the ends of holds, too, which a policy gives back."""
OTHER = SharedPoolBudgetOptions(capacity_tokens=2_000)
TOGETHER = 12
"""How many calls share a batch, or the six threads that reads of tasks have on two processors."""

Call = Callable[[Ledger, LedgerBudgetManager, BudgetLease], object]
Took = tuple[float, Exception | None]

CALLS: dict[str, Call] = {
    "reserve": lambda _book, budget, _lease: budget.reserve(EXTENSIONS, tokens(1), UNLIMITED),
    "record": lambda _book, budget, lease: budget.record_used(lease, Usage(total_tokens=1)),
    "remaining": lambda _book, budget, _lease: budget.remaining(EXTENSIONS),
    "status": lambda _book, budget, _lease: budget.status(),
    "lease": lambda _book, budget, lease: budget.lease(lease.token),
    "find": lambda book, _budget, _lease: book.pool("pool"),
    "make": lambda book, _budget, _lease: book.pool("new", OPTIONS, parent="pool"),
    "adjust": lambda book, _budget, _lease: book.adjust("pool", OTHER),
    "ensure": lambda book, _budget, _lease: book.ensure("pool", OTHER, reason="more"),
    "report": lambda book, _budget, _lease: reports.spend(book, "pool"),
    "entries": lambda book, _budget, _lease: list(book.entries("pool")),
    "verify": lambda book, _budget, _lease: book.verify("pool"),
}
BEFORE_IT_WAITS: dict[str, Call] = {
    "reserve for capacity": lambda _book, budget, _lease: budget.reserve(
        RequestExtensions(IdempotencyKey("key")), tokens(5_000), UNLIMITED, wait_s=WAIT_S
    ),
}


def timed(call: Callable[[], object]) -> Took:
    """Return how long a call took, and what it raised."""
    began_s = time.monotonic()
    try:
        call()
    except LedgerError as error:
        return time.monotonic() - began_s, error
    return time.monotonic() - began_s, None


async def timed_async(awaited: Any) -> Took:  # noqa: ANN401 - any coroutine
    """Return the same of what is awaited."""
    began_s = time.monotonic()
    try:
        await awaited
    except LedgerError as error:
        return time.monotonic() - began_s, error
    return time.monotonic() - began_s, None


class Prepared:
    """Every kind of call, ready to be made."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._calls: dict[str, Callable[[], object]] = {}
        self._books: list[Ledger] = []
        for name, call in (CALLS | BEFORE_IT_WAITS).items():
            book = Ledger.open(url, timeout_s=TIMEOUT_S)
            budget = book.pool("pool", OPTIONS)
            lease = budget.reserve(EXTENSIONS, tokens(1), UNLIMITED)
            self._books.append(book)
            self._calls[name] = lambda call=call, book=book, budget=budget, lease=lease: call(  # type: ignore[misc]
                book, budget, lease
            )
        self._calls["open"] = lambda: Ledger.open(url, timeout_s=TIMEOUT_S).close()
        self._calls["read"] = lambda: Ledger.open(url, timeout_s=TIMEOUT_S, read_only=True).close()
        together = Ledger.open(url, timeout_s=TIMEOUT_S)
        self._books.append(together)
        in_batch = together.pool("pool")
        for number in range(TOGETHER):
            self._calls[f"batch {number}"] = lambda: in_batch.reserve(
                EXTENSIONS, tokens(1), UNLIMITED
            )

    def took(self, hold_up: Callable[[], AbstractContextManager[object]]) -> dict[str, Took]:
        """Make all calls at once while something holds them up."""
        ready, go, done = threading.Barrier(2), threading.Event(), threading.Event()
        tasks: dict[str, Took] = {}

        async def as_tasks() -> None:
            async with AsyncLedger.open(self._url, timeout_s=TIMEOUT_S) as book:
                self._books.append(book.sync)
                budget = await book.pool("pool")
                ready.wait()
                await asyncio.to_thread(go.wait)
                made: dict[str, Any] = {
                    "task open": AsyncLedger.open(self._url, timeout_s=TIMEOUT_S)
                }
                for number in range(TOGETHER):
                    made[f"task remaining {number}"] = budget.remaining(EXTENSIONS)
                    made[f"task reserve {number}"] = budget.reserve(
                        EXTENSIONS, tokens(1), UNLIMITED
                    )
                tasks.update(
                    zip(made, await asyncio.gather(*map(timed_async, made.values())), strict=True)
                )
                await asyncio.to_thread(done.wait)

        with ThreadPoolExecutor(len(self._calls) + 1) as threads:
            loop = threads.submit(asyncio.run, as_tasks())
            ready.wait()
            with hold_up():
                go.set()
                made = {name: threads.submit(timed, call) for name, call in self._calls.items()}
                found = {name: call.result() for name, call in made.items()}
                until(lambda: tasks or loop.done())
            done.set()
            loop.result()
        return found | tasks

    def forget(self) -> None:
        """Close idle connections."""
        for book in self._books:
            book._database._drop_idle()

    def close(self) -> None:
        """Close the ledgers."""
        for book in self._books:
            book.close()


@contextmanager
def prepared(url: str) -> Iterator[Prepared]:
    """Return every kind of call, ready to be made."""
    made = Prepared(url)
    try:
        yield made
    finally:
        made.close()


def check(found: dict[str, Took], *, go_on: set[str]) -> None:
    """Make sure that no call took longer than it may, and that those end well that should."""
    allowed_s = TIMEOUT_S + ROUND_TRIP_S + NOISE_S
    for_capacity_s = dict.fromkeys(BEFORE_IT_WAITS, WAIT_S)
    late = {
        name: took
        for name, took in found.items()
        if took[0] > allowed_s + for_capacity_s.get(name, 0)
    }
    assert not late
    ended_well = {name.rstrip(" 0123456789") for name, (_, error) in found.items() if error is None}
    assert go_on == ended_well


READS = {"remaining", "status", "lease", "find", "report", "entries", "verify", "open", "read"}
TASKS_READ = {"task remaining", "task open"}


@pytest.fixture
def url(own_server: Any) -> Iterator[str]:  # noqa: ANN401 - the package has no types
    """Return an empty database on a server of our own."""
    with psycopg.connect(own_server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE deadlines")
    made = make_url(own_server.get_uri()).set(database="deadlines")
    yield made.render_as_string(hide_password=False)
    with psycopg.connect(own_server.get_uri(), autocommit=True) as connection:
        connection.execute("DROP DATABASE deadlines WITH (FORCE)")


def test_behind_a_server_that_hangs(own_server: Any, url: str) -> None:  # noqa: ANN401
    """Every process of it is stopped: nothing answers, and nothing is refused."""

    @contextmanager
    def stopped() -> Iterator[None]:
        postmaster = own_server.get_pid()
        processes = [postmaster, *children(postmaster)]
        for one in processes:
            os.kill(one, signal.SIGSTOP)
        try:
            yield
        finally:
            for one in processes:
                os.kill(one, signal.SIGCONT)

    with prepared(url) as calls:
        check(calls.took(stopped), go_on=set())


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that run."""
    found = []
    for one in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = one.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(one.parent.name))
    return found


def test_behind_a_standby_that_hangs(url: str) -> None:
    """Each COMMIT that writes waits for it; whoever reads goes on."""

    @contextmanager
    def waited_for() -> Iterator[None]:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            connection.execute("SELECT pg_reload_conf(), pg_sleep(0.5)")
            try:
                yield
            finally:
                connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
                connection.execute("SELECT pg_reload_conf(), pg_sleep(0.1)")

    with prepared(url) as calls:
        check(calls.took(waited_for), go_on=READS | TASKS_READ)


def test_behind_whoever_holds_all_locks(new_store: Callable[..., str]) -> None:
    """An administrator's transaction keeps everybody out of the tables, readers too."""
    url = new_store("postgresql")

    @contextmanager
    def locked() -> Iterator[None]:
        with psycopg.connect(url) as connection:
            connection.execute(
                "LOCK TABLE store, pools, attributions, entries, ledger_version"
                " IN ACCESS EXCLUSIVE MODE"
            )
            yield

    with prepared(url) as calls:
        check(calls.took(locked), go_on=set())


def test_behind_a_proxy_that_is_silent(new_store: Callable[..., str], proxy: Proxy) -> None:
    """What is sent arrives nowhere, and nothing is answered, on new connections too."""

    @contextmanager
    def silence() -> Iterator[None]:
        proxy.fall_silent()
        yield

    with prepared(proxy.url_of(new_store("postgresql"))) as calls:
        check(calls.took(silence), go_on=set())
        proxy.refuse()


def test_behind_whoever_writes_to_a_file(new_store: Callable[..., str]) -> None:
    """Another program holds SQLite's own lock; whoever reads goes on."""
    url = new_store("sqlite")

    @contextmanager
    def locked() -> Iterator[None]:
        other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        with contextlib.closing(other):
            other.execute("BEGIN IMMEDIATE")
            yield

    with prepared(url) as calls:
        check(calls.took(locked), go_on=READS | TASKS_READ)


def test_behind_whoever_keeps_the_writer_lock(new_store: Callable[..., str]) -> None:
    """A process that is stopped in the middle of a batch keeps it."""
    import fcntl  # noqa: PLC0415 - not on Windows

    url = new_store("sqlite")

    @contextmanager
    def locked() -> Iterator[None]:
        with Path(f"{url.removeprefix('sqlite:///')}-lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    with prepared(url) as calls:
        check(calls.took(locked), go_on=READS | TASKS_READ)


def test_behind_whoever_keeps_readers_out_of_a_file(new_store: Callable[..., str]) -> None:
    """A file that is no longer in WAL mode, and that another program holds for itself.

    Who opens it to read alone looks at the file as it is.
    """
    url = new_store("sqlite")

    @contextmanager
    def locked() -> Iterator[None]:
        calls.forget()
        other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        with contextlib.closing(other):
            assert ("delete",) == other.execute("PRAGMA journal_mode = delete").fetchone()
            other.execute("BEGIN EXCLUSIVE")
            yield

    with prepared(url) as calls:
        check(calls.took(locked), go_on={"read"})
