"""A transport for httpx and httpx2 that puts a lease around each request to a model.

Neither module is imported: the classes are made from the module of the transport that is wrapped.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

from ledger.contract import AsyncBudget, Budget
from ledger.core.errors import UnknownPriceError
from ledger.lease import AsyncLeaseBlock, LeaseBlock
from ledger.lease.blocks import AnyBlock
from ledger.transport.attempts import Attempt
from ledger.transport.counting import is_counted
from ledger.transport.protocols import FREE, Protocol
from ledger.transport.refusals import advice_on, refusal
from ledger.transport.repetition import call_of
from ledger.transport.requests import protocol_of, provider_of, read_request, served_by
from ledger.transport.sending import Body, is_of
from ledger.transport.settings import Settings, for_tasks, for_threads
from ledger.transport.streams import AsyncStream, Stream

_log = logging.getLogger(__name__)

_DECODED = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd"})
"""Encodings that httpx decodes, if it has asked for them."""
_KINDS = 100
"""How many kinds of uncounted requests are logged. It is bounded, since paths may end in an id."""
_REWRITTEN = frozenset({b"content-length", b"transfer-encoding"})


class Transport:
    """The part of the transport that knows budgets; `transport_of` adds the module's classes."""

    http: Any
    """The module, httpx or httpx2."""
    stream: Any
    """The class of an answer's stream for threads."""
    async_stream: Any
    """The class of an answer's stream for tasks."""
    body: Any
    """The class of a request's content."""

    def __init__(self, inner: Any, settings: Settings) -> None:  # noqa: ANN401 - any transport
        self._inner = inner
        self._settings = settings
        self._uncounted: set[tuple[str, str]] = set()
        """The hosts and ends of paths of uncounted requests that were logged."""

    @cached_property
    def _budget(self) -> Budget[LeaseBlock]:
        return for_threads(self._settings.budget)

    @cached_property
    def _async_budget(self) -> AsyncBudget[AsyncLeaseBlock]:
        return for_tasks(self._settings.budget)

    def handle_request(self, request: Any) -> Any:  # noqa: ANN401 - of the module
        """Reserve, send, and read the answer while it passes."""
        protocol = None if is_counted() else protocol_of(request.method, request.url.path)
        if protocol is None:
            refused = self._unknown(request)
            return self._inner.handle_request(request) if refused is None else refused
        attempt = self._attempt(protocol, request, request.read())
        try:
            with attempt.reserving():
                block = attempt.lease(self._budget)
                block.__enter__()
        except Exception as error:  # noqa: BLE001 - the program's function that chooses the pool may raise any
            return self._refused(request, error, attempt)
        sent, send = self._sent(request, attempt), self._inner.handle_request
        try:
            with attempt.sending():
                answer = send(sent)
        except BaseException as error:
            attempt.tell(error=error)
            self._say_sent(block, sent.stream, send, error)
            block.__exit__(type(error), error, error.__traceback__)
            raise
        if not attempt.answered(answer.status_code, answer.headers):
            self.stream(answer.stream, attempt, block).end("refused")
            return answer
        return self._passing(answer, self.stream, attempt, block)

    async def handle_async_request(self, request: Any) -> Any:  # noqa: ANN401 - of the module
        """Reserve, send, and read the answer while it passes."""
        protocol = None if is_counted() else protocol_of(request.method, request.url.path)
        if protocol is None:
            refused = self._unknown(request)
            return await self._inner.handle_async_request(request) if refused is None else refused
        attempt = self._attempt(protocol, request, await request.aread())
        try:
            with attempt.reserving():
                block = attempt.lease(self._async_budget)
                await block.__aenter__()
        except Exception as error:  # noqa: BLE001 - the program's function that chooses the pool may raise any
            return self._refused(request, error, attempt)
        sent, send = self._sent(request, attempt), self._inner.handle_async_request
        try:
            with attempt.sending():
                answer = await send(sent)
        except BaseException as error:
            attempt.tell(error=error)
            self._say_sent(block, sent.stream, send, error)
            await block.__aexit__(type(error), error, error.__traceback__)
            raise
        if not attempt.answered(answer.status_code, answer.headers):
            await self.async_stream(answer.stream, attempt, block).end("refused")
            return answer
        return self._passing(answer, self.async_stream, attempt, block)

    def _say_sent(
        self, block: AnyBlock[Any], body: Body, send: object, error: BaseException
    ) -> None:
        """Tell a block what left of its call, where the error that ends it does not know."""
        http: Any = self.http
        if not body.has_left:
            if is_of(http, send):
                block.say_sent(False)
        elif isinstance(error, http.ConnectError | http.ConnectTimeout | http.PoolTimeout):
            # The transport has tried again by itself: an earlier try of this request was sent.
            block.say_sent(True)

    def _unknown(self, request: Any) -> Any:  # noqa: ANN401 - of the module; None if it may pass
        """Handle a request that is not counted: refuse it, or log the first one of its kind."""
        url, path = request.url, request.url.path
        if request.method != "POST" or path.endswith(FREE) or is_counted():
            return None
        if self._settings.refuses_uncounted:
            return refusal(
                self.http,
                request,
                UnknownPriceError(
                    f"a request to {url.host}{path} is of no kind that is counted here, so what it "
                    "costs is not known: count it by ledger.integrations.calls.Counted, or send it "
                    "by a client without a budget"
                ),
            )
        kind, known = (url.host, path.rpartition("/")[2]), self._uncounted
        if kind not in known and len(known) < _KINDS:
            known.add(kind)
            _log.warning(
                "a request to %s%s passes uncounted: its protocol is not known here. If it costs "
                "something, count it by ledger.integrations.calls.Counted",
                url.host,
                path,
            )
        return None

    def close(self) -> None:
        """Close the transport that is wrapped."""
        self._inner.close()

    async def aclose(self) -> None:
        """Close the transport that is wrapped."""
        await self._inner.aclose()

    def __enter__(self) -> Any:  # noqa: ANN401 - itself, of a class that is made later
        self._inner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._inner.__exit__(*error)

    async def __aenter__(self) -> Any:  # noqa: ANN401 - likewise
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._inner.__aexit__(*error)

    def _attempt(self, protocol: Protocol, request: Any, content: bytes) -> Attempt:  # noqa: ANN401 - of the module
        url = request.url
        known = self._settings.provider or provider_of(url.host)
        asked = read_request(protocol, url.path, content, provider=known)
        provider = served_by(asked, self._settings.prices, self._settings.said_provider)
        if provider != asked.provider:
            asked = replace(asked, provider=provider)
        same = self._settings.caller, url, len(content), hash(content)
        call = call_of(same, request.headers)
        return Attempt(self._settings, asked, call)

    def _sent(self, request: Any, attempt: Attempt) -> Any:  # noqa: ANN401 - of the module
        """Return the request to send, whose content notes that it leaves.

        It asks for the usage of a stream.
        """
        if attempt.asks_for_usage:
            headers = [one for one in request.headers.raw if one[0].lower() not in _REWRITTEN]
            sent = self.http.Request(
                request.method,
                request.url,
                headers=headers,
                content=attempt.asked.with_usage(),
                extensions=request.extensions,
            )
        else:
            # `copy` leaves the content out. The caller's own may be sent by others meanwhile.
            sent = object.__new__(type(request))
            sent.__dict__.update(request.__dict__)
        sent.stream = self.body(sent.stream)
        return sent

    def _refused(self, request: Any, error: Exception, attempt: Attempt) -> Any:  # noqa: ANN401 - of the module
        assumed = self._settings.max_output_tokens
        advice = advice_on(error, attempt.asked, attempt.estimate, assumed)
        return refusal(self.http, request, error, attempt.call, advice)

    def _passing(self, answer: Any, stream: Any, attempt: Attempt, block: Any) -> Any:  # noqa: ANN401 - of the module
        """Return the answer with a stream that is read while it passes, and ends the attempt."""
        headers, source = answer.headers, answer.stream
        encoding = headers.get("content-encoding", "")
        if answer.is_closed:  # it was read already, as from httpx.MockTransport
            source = self.http.ByteStream(answer.content)
            answer = self.http.Response(
                answer.status_code, headers=headers, stream=source, extensions=answer.extensions
            )
            headers = answer.headers
        elif not _DECODED.isdisjoint(encoding.replace(" ", "").lower().split(",")):
            source = self.http.Response(200, headers=headers, stream=source)
        if source is not answer.stream or encoding:
            headers.pop("content-encoding", None)
        if source is not answer.stream or attempt.asks_for_usage:
            headers.pop("content-length", None)  # of what was sent, not of what is passed on
        answer.stream = stream(source, attempt, block)
        return answer


class Shared:
    """The transport of an HTTP client that others use, too; it is closed with the last of them."""

    def __init__(self, client: object, inner: Any) -> None:  # noqa: ANN401 - any transport
        self._client = client  # a collected client closes its transport
        self.inner = inner
        self.handle_request = getattr(inner, "handle_request", None)
        self.handle_async_request = getattr(inner, "handle_async_request", None)

    def close(self) -> None:
        """Leave it open."""

    async def aclose(self) -> None:
        """Leave it open."""


def transport_of(inner: Any, settings: Settings) -> Any:  # noqa: ANN401 - of httpx or httpx2
    """Return a transport of the same module that puts a lease around requests to models."""
    return _classes(module_of(inner))(inner, settings)


def module_of(part: object) -> str:
    """Return the name of the module, httpx or httpx2, whose class an object is of, directly or not.

    Raises:
        StopIteration: It is of neither.
    """
    part = part.inner if isinstance(part, Shared) else part
    names = (one.__module__.partition(".")[0] for one in type(part).__mro__)
    return next(name for name in names if name in {"httpx", "httpx2"})


@cache
def _classes(name: str) -> Any:  # noqa: ANN401 - a class
    http: Any = sys.modules[name]
    return type(
        "BudgetTransport",
        (Transport, http.BaseTransport, http.AsyncBaseTransport),
        {
            "http": http,
            "stream": type("BudgetStream", (Stream, http.SyncByteStream), {}),
            "async_stream": type("AsyncBudgetStream", (AsyncStream, http.AsyncByteStream), {}),
            "body": type("BudgetBody", (Body, http.SyncByteStream, http.AsyncByteStream), {}),
        },
    )
