"""Managers of every kind, and a way to damage a store behind the library's back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine, make_url, select, text, update
from sqlalchemy.pool import NullPool

from ledger import AsyncLedger, BudgetManager, Ledger, SharedPoolBudgetManager
from ledger.core import hashing
from ledger.store.rows import row_hash
from ledger.store.schema import attributions, entries, metadata, pools, store
from tests.awaited import Awaited
from tests.clocks import Clock


@pytest.fixture(scope="session")
def shared_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Return a ledger for the whole run, on SQLite."""
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('shared')}/ledger.db") as book:
        yield book


@pytest.fixture(scope="session")
def shared_postgresql(server_url: str, template: str) -> Iterator[Ledger]:
    """Return a ledger for the whole run, on PostgreSQL.

    Making a database takes longer than most tests; a pool of its own is enough for every test
    that does not damage the store.
    """
    name = f"ledger_shared_{os.getpid()}"
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE {template}")
        url = make_url(server_url).set(database=name)
        with Ledger.open(url.render_as_string(hide_password=False)) as book:
            yield book
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    """Return a loop for the whole run."""
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(params=["memory", "sqlite", "postgresql", "async sqlite", "async postgresql"])
def make(request: pytest.FixtureRequest) -> Callable[..., BudgetManager]:
    """Return a function that makes a manager of each kind in turn."""
    if request.param == "memory":
        return lambda options, name="pool": SharedPoolBudgetManager(options)  # noqa: ARG005 - as below
    face, _, kind = request.param.rpartition(" ")
    book, prefix = request.getfixturevalue(f"shared_{kind}"), uuid4().hex
    if face != "async":
        return lambda options, name="pool": book.pool(f"{prefix} {name}", options)
    runner, store = request.getfixturevalue("runner"), AsyncLedger(book)

    def awaited(options: object, name: str = "pool") -> Any:  # noqa: ANN401 - as any manager
        return Awaited(runner.run(store.pool(f"{prefix} {name}", options)), runner)

    return awaited


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


@pytest.fixture
def timed(store_url: str, clock: Clock) -> Iterator[Ledger]:
    """Return a ledger that goes by `clock`, on each database in turn."""
    with Ledger.open(store_url, clock=clock) as book:
        yield book


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
        self._engine: Engine = create_engine(address, poolclass=NullPool)
        with self._engine.begin() as connection:
            self._drop_guards(connection)

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
def vandal(store_url: str, book: Ledger) -> Vandal:  # noqa: ARG001 - the store must exist
    """Return somebody who edits the store of `book` directly."""
    return Vandal(store_url)
