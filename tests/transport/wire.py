"""A server on the loopback that speaks the protocols of model providers, and fails as they do.

It is of plain sockets: frameworks cannot end an answer without its end. It says what it has billed.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

JSON, EVENTS = "application/json", "text/event-stream"


class End(Enum):
    """How an answer ends."""

    MARKED = auto()
    """Chunked, with the last chunk of length 0."""
    UNMARKED = auto()
    """Chunked, and the connection is closed without a last chunk."""
    SHORT = auto()
    """With a length, and the connection is closed before that."""
    CLOSED = auto()
    """Without a length: it ends when the connection is closed, as HTTP allows."""
    NEVER = auto()
    """The server sends no more, until the client closes the connection."""
    HEADLESS = auto()
    """The server does not even send the head."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer, in parts that are sent one by one."""

    parts: tuple[bytes, ...]
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    end: End = End.MARKED

    def gzipped(self) -> Reply:
        """Return the same answer, compressed, in as many parts."""
        packed = gzip.compress(b"".join(self.parts))
        size = max(1, len(packed) // len(self.parts))
        parts = tuple(packed[place : place + size] for place in range(0, len(packed), size))
        return replace(self, parts=parts, headers={**self.headers, "content-encoding": "gzip"})

    def dripping(self) -> Reply:
        """Return the same answer, byte by byte."""
        whole = b"".join(self.parts)
        return replace(self, parts=tuple(whole[i : i + 1] for i in range(len(whole))))

    def cut(self, parts: int, end: End) -> Reply:
        """Return the first parts of the answer, ended in some way."""
        return replace(self, parts=self.parts[:parts], end=end)


def whole(content: object, **more: Any) -> Reply:
    """Return an answer in one piece of JSON."""
    return Reply(parts=(json.dumps(content).encode(),), **more)


def events(contents: Iterable[object], **more: Any) -> Reply:
    """Return an answer as events; those with a type are named by it, as providers do."""
    return Reply(parts=tuple(map(_event, contents)), content_type=EVENTS, **more)


def _event(content: object) -> bytes:
    if isinstance(content, str):
        return f"data: {content}\n\n".encode()
    kind = content.get("type") if isinstance(content, Mapping) else None
    name = f"event: {kind}\n" if kind else ""
    return f"{name}data: {json.dumps(content)}\n\n".encode()


def error(status: int, **headers: str) -> Reply:
    """Return an answer that is an error; a client that repeats the request does so at once."""
    content = {"type": "error", "error": {"type": "error", "message": "no", "code": str(status)}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return whole(content, status=status, headers={"retry-after-ms": "1", **named})


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]
    body: Any


class Server:
    """Answers each request by the next of its replies, and by the last one from then on.

    Attributes:
        replies: What comes next; may be set at any time.
        requests: What came.
        left: How often a client closed the connection before the end of an answer.
    """

    def __init__(self) -> None:
        self.replies: list[Reply | Callable[[Request], Reply]] = []
        self.requests: list[Request] = []
        self.left = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def answers(self, *replies: Reply | Callable[[Request], Reply]) -> None:
        """Forget what came, and answer by these from now on."""
        with self._lock:
            self.replies, self.requests = list(replies), []

    def close(self) -> None:
        """Accept no more connections."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), closing(connection), connection.makefile("rb") as came:
            while (request := _read(came)) is not None:
                with self._lock:
                    self.requests.append(request)
                    reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                if callable(reply):
                    reply = reply(request)
                try:
                    ended = self._send(connection, came, reply)
                except OSError:
                    ended = False
                    self.left.release()
                if not ended:
                    return

    def _send(self, connection: socket.socket, came: Any, reply: Reply) -> bool:
        """Send an answer, and tell whether the connection can be used again."""
        if reply.end is End.HEADLESS:
            came.read(1)
            self.left.release()
            return False
        chunked = reply.end in {End.MARKED, End.UNMARKED, End.NEVER}
        headers = {"content-type": reply.content_type, **reply.headers}
        if chunked:
            headers["transfer-encoding"] = "chunked"
        elif reply.end is End.SHORT:
            headers["content-length"] = str(sum(map(len, reply.parts)) + 1_000)
        else:
            headers["connection"] = "close"
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.sendall(f"HTTP/1.1 {reply.status} Said\r\n{head}\r\n".encode())
        for part in reply.parts:
            connection.sendall(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
        if reply.end is End.MARKED:
            connection.sendall(b"0\r\n\r\n")
        elif reply.end is End.NEVER:
            came.read(1)
            self.left.release()
        return reply.end is End.MARKED


def _read(came: Any) -> Request | None:
    words = came.readline().split()
    if not words:
        return None
    headers = {}
    while (line := came.readline().strip()) != b"":
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    if "content-length" in headers:
        content = came.read(int(headers["content-length"]))
    else:
        content = b"".join(_chunks(came)) if "transfer-encoding" in headers else b""
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    return Request(path=words[1].decode(), headers=headers, body=body)


def _chunks(came: Any) -> Iterator[bytes]:
    while size := int(came.readline(), 16):
        yield came.read(size)
        came.readline()
    came.readline()


@contextmanager
def served() -> Iterator[Server]:
    """Run a server for the length of a block."""
    server = Server()
    try:
        yield server
    finally:
        server.close()
