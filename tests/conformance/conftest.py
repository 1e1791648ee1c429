"""Managers of every kind, and a way to damage a store behind the library's back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, bindparam, create_engine, make_url, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from ledger import (
    AsyncLedger,
    BudgetManager,
    Ledger,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    Usage,
)
from ledger.core import hashing
from ledger.store.rows import row_hash
from ledger.store.schema import attributions, entries, metadata, pools, store
from ledger.testing import Awaited
from ledger.testing.calls import EXTENSIONS, UNLIMITED, tokens
from tests.clocks import Clock
from tests.roles import role_logins, worker_budgets
from tests.shared import Shared


@pytest.fixture(scope="session")
def shared_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Return a ledger for the whole run, on SQLite."""
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('shared')}/ledger.db") as book:
        yield book


@pytest.fixture(scope="session")
def shared_postgresql(shared: Shared) -> Iterator[Ledger]:
    """Return a ledger for the whole run, on PostgreSQL.

    Making a database takes longer than most tests; a pool of its own is enough for every test
    that does not damage the store.
    """
    url = shared.create_database(template=shared.template)
    with Ledger.open(url) as book:
        yield book
    shared.drop_database(make_url(url).database)


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    """Return a loop for the whole run."""
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="session")
def role_urls(shared: Shared) -> Iterator[Mapping[str, str]]:
    """Return the addresses of a store for the whole run, by the role that uses it."""
    with role_logins(shared, f"c{os.getpid()}_") as urls:
        yield urls


@pytest.fixture(scope="session")
def worker(role_urls: Mapping[str, str]) -> Iterator[Callable[..., BudgetManager]]:
    """Return a function that makes a pool as a budget holder, and opens it as a worker."""
    with worker_budgets(role_urls) as make:
        yield lambda options, name="pool": make(options, f"{uuid4().hex} {name}")


@pytest.fixture(
    params=["memory", "sqlite", "postgresql", "async sqlite", "async postgresql", "worker"]
)
def make(request: pytest.FixtureRequest) -> Callable[..., BudgetManager]:
    """Return a function that makes a manager of each kind in turn."""
    if request.param == "memory":
        return lambda options, name="pool": SharedPoolBudgetManager(options)  # noqa: ARG005 - as below
    if request.param == "worker":
        made: Callable[..., BudgetManager] = request.getfixturevalue("worker")
        return made
    face, _, kind = request.param.rpartition(" ")
    book, prefix = request.getfixturevalue(f"shared_{kind}"), uuid4().hex
    if face != "async":
        return lambda options, name="pool": book.pool(f"{prefix} {name}", options)
    runner, store = request.getfixturevalue("runner"), AsyncLedger(book)

    def awaited(options: object, name: str = "pool") -> Any:  # noqa: ANN401 - as any manager
        return Awaited(runner.run(store.pool(f"{prefix} {name}", options)), runner.run)

    return awaited


@pytest.fixture(params=["memory", "sqlite", "postgresql", "async sqlite", "worker"])
def timed_budgets(
    request: pytest.FixtureRequest, clock: Clock, new_store: Callable[[str], str]
) -> Iterator[Callable[[SharedPoolBudgetOptions], Any]]:
    """Return a function that makes a manager that goes by `clock`."""
    if request.param == "memory":
        yield lambda options: SharedPoolBudgetManager(options, clock=clock)
        return
    if request.param == "worker":
        with worker_budgets(request.getfixturevalue("role_urls"), clock=clock) as make:
            yield make
        return
    face, _, kind = request.param.rpartition(" ")
    with Ledger.open(new_store(kind), clock=clock) as book:
        if face != "async":
            yield lambda options: book.pool("pool", options)
        else:
            run = request.getfixturevalue("runner").run
            yield lambda options: Awaited(run(AsyncLedger(book).pool("pool", options)), run)
        assert all(found.ok for found in book.verify())


def spend(budget: Any, amount: int) -> None:  # noqa: ANN401 - any manager
    """Reserve and settle an amount."""
    budget.record_used(
        budget.reserve(EXTENSIONS, tokens(amount), UNLIMITED), Usage(total_tokens=amount)
    )


def refused(budget: Any, amount: int) -> ThresholdExceededError:  # noqa: ANN401 - any manager
    """Return the refusal of an amount."""
    with pytest.raises(ThresholdExceededError) as found:
        budget.reserve(EXTENSIONS, tokens(amount), UNLIMITED)
    return found.value


@pytest.fixture(params=["sqlite", "postgresql"])
def shared_book(request: pytest.FixtureRequest) -> Ledger:
    """Return the run's ledger on each database in turn; `fresh_name` names a pool of one's own."""
    book: Ledger = request.getfixturevalue(f"shared_{request.param}")
    return book


@pytest.fixture
def fresh_name() -> str:
    """Return a name that no pool has."""
    return f"pool {uuid4().hex}"


class Vandal:
    """Somebody with the owner's rights on the database, who drops the guards first."""

    def __init__(self, url: str) -> None:
        address = make_url(url)
        if address.get_backend_name() == "postgresql":
            address = address.set(drivername="postgresql+psycopg")
        # One connection, and no wait for the disk: some of these tests write thousands of times.
        self._engine: Engine = create_engine(address, poolclass=StaticPool)
        fast = "PRAGMA synchronous = OFF"
        if address.get_backend_name() == "postgresql":
            fast = "SET synchronous_commit = off"
        self.run(fast)
        with self._engine.begin() as connection:
            self._drop_guards(connection)

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    def run(self, *statements: str) -> None:
        """Run SQL."""
        with self._engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def row(self, seq: int) -> dict[str, Any]:
        """Return an entry's columns as they are stored."""
        with self._engine.begin() as connection:
            return dict(
                connection.execute(select(entries).where(entries.c.seq == seq)).mappings().one()
            )

    def edit(self, seq: int, **changes: object) -> None:
        """Change columns of an entry and leave its hash alone."""
        with self._engine.begin() as connection:
            connection.execute(update(entries).where(entries.c.seq == seq).values(**changes))

    def forge(self, seq: int, **changes: object) -> None:
        """Change columns of an entry, and make the whole chain fit again."""
        self.edit(seq, **changes)
        self.rechain()

    def add(self, seq: int, *, like: int, **changes: object) -> None:
        """Append a copy of an entry with changes, rightly chained."""
        row = self.row(like) | {"seq": seq} | changes
        with self._engine.begin() as connection:
            connection.execute(entries.insert(), row)
        self.rechain()

    def rechain(self) -> None:
        """Compute every hash of the one pool anew."""
        with self._engine.begin() as connection:
            previous = self._genesis(connection)
            for row in connection.execute(select(entries).order_by(entries.c.seq)).mappings():
                fresh = row_hash(previous, row, self._digest(connection, row["attribution_id"]))
                connection.execute(
                    update(entries).where(entries.c.seq == row["seq"]).values(hash=fresh)
                )
                previous = fresh

    def rechain_all(self) -> None:
        """Compute every hash of every pool anew."""
        with self._engine.begin() as connection:
            identity = connection.execute(select(store.c.identity)).scalar_one()
            for pool in connection.execute(select(pools)).all():
                previous = hashing.genesis(
                    store=identity, pool=bytes(pool.identity), name=pool.name
                )
                chosen = select(entries).where(entries.c.pool_id == pool.pool_id)
                for row in connection.execute(chosen.order_by(entries.c.seq)).mappings():
                    digest = self._digest(connection, row["attribution_id"])
                    previous = row_hash(previous, row, digest)
                    connection.execute(
                        update(entries)
                        .where(entries.c.pool_id == pool.pool_id, entries.c.seq == row["seq"])
                        .values(hash=previous)
                    )

    def loosen(self) -> None:
        """Drop what would refuse a forgery: unique indexes, and on SQLite the CHECKs."""
        names = ("idempotency_key", "origin", "lease_end", "lease_expiry")
        self.run(*(f"DROP INDEX uq_entries_{name}" for name in names))

    def rows(self) -> list[dict[str, Any]]:
        """Return every entry, pool by pool, as it is stored."""
        with self._engine.begin() as connection:
            ordered = select(entries).order_by(entries.c.pool_id, entries.c.seq)
            return [dict(row) for row in connection.execute(ordered).mappings()]

    def forge_in(self, own: list[dict[str, Any]], at: int, column: str, value: object) -> bool:
        """Change one column of an entry, and make the rest of its pool's chain fit again.

        False if the database refuses the value. `restore` takes it back.

        Args:
            own: The pool's entries.
            at: The place of one among them.
            column: What is changed in it.
            value: The new value.
        """
        try:
            with self._engine.begin() as connection:
                changed = {"value": value, "pool": own[at]["pool_id"], "seq": own[at]["seq"]}
                connection.execute(
                    text(
                        f"UPDATE entries SET {column} = :value WHERE pool_id = :pool AND seq = :seq"
                    ).bindparams(bindparam("value", type_=entries.c[column].type)),
                    changed,
                )
                previous = own[at - 1]["hash"] if at else self._genesis_of(connection, own[0])
                digests = self._digests(connection)
                hashes = []
                for one in (own[at] | {column: value}, *own[at + 1 :]):
                    digest = digests.get((one["pool_id"], one["attribution_id"]))
                    previous = row_hash(previous, one, digest)
                    hashes.append(previous)
                self._set(connection, own[at:], hashes)
        except DBAPIError:
            return False
        moved = {"pool_id": own[at]["pool_id"], "seq": own[at]["seq"]} | {column: value}
        self._undo = own[at:], moved["pool_id"], moved["seq"], column
        return True

    def restore(self) -> None:
        """Take the last forgery back."""
        rightly, pool_id, seq, column = self._undo
        with self._engine.begin() as connection:
            connection.execute(
                update(entries)
                .where(entries.c.pool_id == pool_id, entries.c.seq == seq)
                .values({column: rightly[0][column]})
            )
            self._set(connection, rightly, [one["hash"] for one in rightly])

    @staticmethod
    def _set(connection: Connection, rows: list[dict[str, Any]], hashes: list[bytes]) -> None:
        connection.execute(
            text("UPDATE entries SET hash = :hash WHERE pool_id = :pool AND seq = :seq"),
            [
                {"hash": one, "pool": row["pool_id"], "seq": row["seq"]}
                for one, row in zip(hashes, rows, strict=True)
            ],
        )

    @staticmethod
    def _genesis_of(connection: Connection, row: dict[str, Any]) -> bytes:
        identity = connection.execute(select(store.c.identity)).scalar_one()
        pool = connection.execute(select(pools).where(pools.c.pool_id == row["pool_id"])).one()
        return hashing.genesis(store=identity, pool=bytes(pool.identity), name=pool.name)

    @staticmethod
    def _digests(connection: Connection) -> dict[tuple[int, int], bytes]:
        chosen = select(
            attributions.c.pool_id, attributions.c.attribution_id, attributions.c.digest
        )
        return {(one.pool_id, one.attribution_id): one.digest for one in connection.execute(chosen)}

    def _drop_guards(self, connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            for table in metadata.tables:
                connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER ALL"))
            return
        found = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))
        for name in found.scalars().all():
            connection.execute(text(f"DROP TRIGGER {name}"))

    @staticmethod
    def _genesis(connection: Connection) -> bytes:
        pool = connection.execute(select(pools)).one()
        identity = connection.execute(select(store.c.identity)).scalar_one()
        return hashing.genesis(store=identity, pool=pool.identity, name=pool.name)

    @staticmethod
    def _digest(connection: Connection, attribution_id: int | None) -> bytes | None:
        chosen = select(attributions.c.digest).where(
            attributions.c.attribution_id == attribution_id
        )
        found: bytes | None = connection.execute(chosen).scalar()
        return found


@pytest.fixture
def vandal(store_url: str, book: Ledger) -> Iterator[Vandal]:  # noqa: ARG001 - the store must exist
    """Return somebody who edits the store of `book` directly."""
    made = Vandal(store_url)
    yield made
    made.close()
