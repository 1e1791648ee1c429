"""A request whose content has not left costs nothing, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from types import ModuleType
from typing import Any

import httpx
import httpx2
import openai
import pytest

from ledger import Ledger, LedgerBudgetManager
from ledger.transport import budgeted
from tests.transport import shapes, wire
from tests.transport.attempts import attempts
from tests.transport.wire import End

ASKED: dict[str, Any] = {
    "model": "gpt-4o",
    "max_tokens": 400,
    "messages": [{"role": "user", "content": "Hi"}],
}
PATH = "/v1/chat/completions"
CHAT = shapes.BY_NAME["chat"]


class Interrupted(BaseException):
    """What ends a request in the middle: an interrupt of a signal handler's, for example."""


def _in_plain(http: ModuleType, url: str, pool: LedgerBudgetManager, **asked: Any) -> Any:
    client = http.AsyncClient(base_url=url, limits=http.Limits(max_connections=1), timeout=None)
    budgeted(client, pool=pool)
    return client, lambda: client.post(PATH, json={**ASKED, **asked})


def _in_openai(_http: ModuleType, url: str, pool: LedgerBudgetManager, **asked: Any) -> Any:
    client = openai.AsyncOpenAI(
        api_key="none",
        base_url=f"{url}/v1",
        http_client=httpx2.AsyncClient(limits=httpx2.Limits(max_connections=1), timeout=None),
    )
    budgeted(client, pool=pool, provider="openai")
    return client._client, lambda: client.chat.completions.create(**ASKED, **asked)


@pytest.mark.parametrize("asked", [{}, {"stream": True}], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("http", "made"), [(httpx, _in_plain), (httpx2, _in_plain), (httpx2, _in_openai)]
)
def test_a_call_that_waits_for_a_connection_is_cancelled(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    http: ModuleType,
    made: Callable[..., Any],
    asked: dict[str, Any],
) -> None:
    """The one that has the connection is charged its estimate, the one behind it nothing."""
    server.answers(CHAT.whole.cut(0, End.HEADLESS))

    async def run() -> None:
        client, call = made(http, server.url, pool, **asked)
        async with client:
            first = asyncio.ensure_future(call())
            while not server.requests:  # noqa: ASYNC110 - the server is in a thread
                await asyncio.sleep(0.001)
            second = asyncio.ensure_future(call())
            while len(list(book.open_leases(pool.name))) < 2:  # noqa: ASYNC110 - reserved in a thread
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            for task in (second, first):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    asyncio.run(run())
    assert ["estimated", "released"] == [one.end for one in attempts(book, pool)]
    assert 1 == len(server.requests)


@pytest.mark.parametrize(
    ("event", "end"),
    [
        ("connection.connect_tcp.started", "released"),
        ("http11.send_request_headers.started", "released"),
        ("http11.send_request_headers.complete", "released"),
        ("http11.send_request_body.complete", "estimated"),
        ("http11.receive_response_headers.started", "estimated"),
    ],
)
@pytest.mark.parametrize("http", [httpx, httpx2])
def test_a_call_is_interrupted_on_its_way(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    http: ModuleType,
    event: str,
    end: str,
) -> None:
    """A head without its content asks for nothing; once that may have left, it is charged."""
    server.answers(CHAT.whole)

    def trace(name: str, _info: object) -> None:
        if name == event:
            raise Interrupted

    async def atrace(name: str, info: object) -> None:
        trace(name, info)

    with budgeted(http.Client(base_url=server.url), pool=pool) as client:
        request = client.build_request("POST", PATH, json=ASKED, extensions={"trace": trace})
        with pytest.raises(Interrupted):
            client.send(request)

    async def in_asyncio() -> None:
        async with budgeted(http.AsyncClient(base_url=server.url), pool=pool) as client:
            await client.post(PATH, json=ASKED, extensions={"trace": atrace})

    with pytest.raises(Interrupted):
        asyncio.run(in_asyncio())
    assert [end] * 2 == [one.end for one in attempts(book, pool)]


def test_a_transport_that_reads_the_request_itself_may_have_sent_it(
    book: Ledger, pool: LedgerBudgetManager
) -> None:
    """It is not known how others send, so an interrupt of theirs is charged by policy."""

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        raise Interrupted

    with (
        budgeted(httpx.Client(transport=httpx.MockTransport(answer)), pool=pool) as client,
        pytest.raises(Interrupted),
    ):
        client.post(f"https://api.openai.com{PATH}", json=ASKED)
    assert ["estimated"] == [one.end for one in attempts(book, pool)]


@pytest.mark.parametrize(
    ("event", "end"),
    [("send_request_headers.complete", "released"), ("send_request_body.complete", "estimated")],
)
@pytest.mark.parametrize("way", ["mount", "retries", "proxy", "subclass"])
@pytest.mark.parametrize("http", [httpx, httpx2])
def test_a_call_is_interrupted_on_each_way_of_httpx(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    http: ModuleType,
    way: str,
    event: str,
    end: str,
) -> None:
    """All of httpx's own transports read the content where it is noted."""
    server.answers(CHAT.whole)
    own = type("Own", (http.HTTPTransport,), {})
    options = {
        "mount": lambda: {"mounts": {"http://": http.HTTPTransport()}},
        "retries": lambda: {"transport": http.HTTPTransport(retries=2)},
        "proxy": lambda: {"proxy": server.url},
        "subclass": lambda: {"transport": own()},
    }[way]()

    def trace(name: str, _info: object) -> None:
        if name.endswith(event):
            raise Interrupted

    client = budgeted(http.Client(base_url=server.url, **options), pool=pool)
    with client, pytest.raises(Interrupted):
        client.post(PATH, json=ASKED, extensions={"trace": trace})
    assert [end] == [one.end for one in attempts(book, pool)]


def _sent_anew(http: ModuleType, real: Callable[..., Any]) -> Callable[..., Any]:
    """Return what stands in for a transport's method, and sends a request of its own."""

    @wraps(real)
    def send(*given: Any) -> Any:
        *transport, found = given
        asked = {"headers": found.headers, "content": found.read(), "extensions": found.extensions}
        return real(*transport, http.Request(found.method, found.url, **asked))

    return send


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("where", ["class", "transport", "subclass"])
@pytest.mark.parametrize("http", [httpx, httpx2])
def test_what_stands_in_for_the_transports_method_may_have_sent_it(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    monkeypatch: pytest.MonkeyPatch,
    http: ModuleType,
    where: str,
    *,
    late: bool,
) -> None:
    """A recorder or signer sends the content that it finds, before or after `budgeted` came."""
    server.answers(CHAT.whole)

    def trace(name: str, _info: object) -> None:
        if name == "http11.receive_response_headers.started":
            raise Interrupted

    async def atrace(name: str, info: object) -> None:
        trace(name, info)

    def made(kind: Any, method: str) -> Any:
        """Return a transport whose method is replaced now or later, and what replaces it."""
        of = type("Own", (kind,), {}) if where == "subclass" else kind
        transport = of()
        place = transport if where == "transport" else of
        new = _sent_anew(http, getattr(place, method))
        return transport, lambda: monkeypatch.setattr(place, method, new)

    def in_turn(client: Any, replaced: Callable[[], None]) -> None:
        if not late:
            replaced()
        budgeted(client, pool=pool)
        if late:
            replaced()

    transport, replaced = made(http.HTTPTransport, "handle_request")
    client = http.Client(base_url=server.url, transport=transport)
    in_turn(client, replaced)
    with client, pytest.raises(Interrupted):
        client.post(PATH, json=ASKED, extensions={"trace": trace})

    transport, replaced = made(http.AsyncHTTPTransport, "handle_async_request")
    tasks = http.AsyncClient(base_url=server.url, transport=transport)
    in_turn(tasks, replaced)

    async def in_asyncio() -> None:
        async with tasks:
            await tasks.post(PATH, json=ASKED, extensions={"trace": atrace})

    with pytest.raises(Interrupted):
        asyncio.run(in_asyncio())
    assert ["estimated"] * 2 == [one.end for one in attempts(book, pool)]


def test_a_request_can_be_sent_again(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """The caller's own is left as it was; each attempt is one of its own."""
    server.answers(CHAT.whole)
    with budgeted(httpx.Client(base_url=server.url), pool=pool) as client:
        request = client.build_request("POST", PATH, json=ASKED)
        stream = request.stream
        for _ in range(2):
            client.send(request).raise_for_status()
        assert stream is request.stream
    assert ["billed"] * 2 == [one.end for one in attempts(book, pool)]


@pytest.mark.parametrize("http", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_transport_that_tries_again_by_itself_has_sent_it(
    http: Any, book: Ledger, pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """That its last try made no connection says nothing about the one before."""
    server.answers(CHAT.whole)

    class Trying(http.HTTPTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            super().handle_request(request).read()
            raise http.ConnectError("the second try: no connection")

    client = budgeted(http.Client(base_url=server.url, transport=Trying()), pool=pool)
    with client, pytest.raises(http.ConnectError):
        client.post(PATH, json=ASKED)
    assert ["estimated"] == [one.end for one in attempts(book, pool)]
