"""A connection pooler in transaction mode, as small as one can be: what the tests put in between.

A client has a server's session for the length of a transaction and no longer. Its next transaction
always runs on another session, so that what a session remembers between transactions is never
the client's own.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import Self

import psycopg
from sqlalchemy import make_url

_TOLD = (
    *("server_version", "server_encoding", "client_encoding", "DateStyle", "TimeZone"),
    *("integer_datetimes", "standard_conforming_strings"),
)
"""What a server tells every client of itself."""

_ENCRYPT = {80877103, 80877104}
"""What a client asks first that would like TLS or GSS."""


class Pooler:
    """Listens on a port of this machine, and shares two or more sessions among its clients."""

    def __init__(self, url: str, *, sessions: int) -> None:
        self.sessions = [psycopg.connect(url, sslmode="disable") for _ in range(sessions)]
        self._idle: list[socket.socket] = []
        self._returned = threading.Condition()
        for session in self.sessions:
            server = socket.fromfd(session.fileno(), socket.AF_UNSPEC, socket.SOCK_STREAM)
            server.settimeout(None)
            self._idle.append(server)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.moves = 0
        """How many transactions ran on another session than the client's one before."""
        self.url = (
            make_url(url)
            .set(host="127.0.0.1", port=self._listening.getsockname()[1], query={})
            .update_query_dict({"sslmode": "disable"})
            .render_as_string(hide_password=False)
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()
        for session in self.sessions:
            session.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(ConnectionError):
            self._welcome(client)
            last: socket.socket | None = None
            while True:
                first = _message(client)
                if first[:1] == b"X":
                    return
                server = self._take_another_than(last)
                self.moves += last is not None
                last = server
                _transaction(client, server, first)
                with self._returned:
                    self._idle.append(server)
                    self._returned.notify_all()

    def _take_another_than(self, last: socket.socket | None) -> socket.socket:
        with self._returned:
            while True:
                for server in self._idle:
                    if server is not last:
                        self._idle.remove(server)
                        return server
                self._returned.wait()

    def _welcome(self, client: socket.socket) -> None:
        while True:
            (length,) = struct.unpack(">I", _exactly(client, 4))
            body = _exactly(client, length - 4)
            if struct.unpack(">I", body[:4])[0] not in _ENCRYPT:
                break
            client.sendall(b"N")
        client.sendall(_packed(b"R", struct.pack(">I", 0)))
        for name in _TOLD:
            value = self.sessions[0].pgconn.parameter_status(name.encode()) or b""
            client.sendall(_packed(b"S", name.encode() + b"\0" + value + b"\0"))
        client.sendall(_packed(b"K", struct.pack(">II", 1, 1)) + _packed(b"Z", b"I"))


def _transaction(client: socket.socket, server: socket.socket, message: bytes) -> None:
    """Carry messages to and fro until the server's transaction is over."""
    while True:
        server.sendall(message)
        if message[:1] in {b"Q", b"S", b"c", b"f"}:  # a query, a sync, an end of COPY: it answers
            while True:
                answer = _message(server)
                client.sendall(answer)
                if answer[:1] == b"Z" and answer[-1:] == b"I":
                    return
                if answer[:1] in {b"Z", b"G"}:  # inside a transaction, or ready for COPY's rows
                    break
        message = _message(client)


def _message(source: socket.socket) -> bytes:
    head = _exactly(source, 5)
    return head + _exactly(source, struct.unpack(">I", head[1:])[0] - 4)


def _exactly(source: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = source.recv(length - len(data))
        if not more:
            raise ConnectionError("the other side is gone")
        data += more
    return data


def _packed(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">I", len(body) + 4) + body
