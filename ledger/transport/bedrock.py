"""The budget around a client of boto3 for Amazon Bedrock, by the events of botocore.

One lease for each attempt, as with httpx. `converse` and `invoke_model` are counted, whole and as
streams. Other calls are refused, since a budgeted client must not make uncounted calls.
"""

from __future__ import annotations

import inspect
import io
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import override

from ledger.core.errors import InvalidInputError, LedgerError
from ledger.lease import LeaseBlock
from ledger.transport.answers import Reader
from ledger.transport.attempts import Attempt
from ledger.transport.counting import is_counted
from ledger.transport.refusals import advice_on
from ledger.transport.repetition import call_of
from ledger.transport.requests import protocol_of, read_request
from ledger.transport.settings import TWICE, Settings, for_threads
from ledger.transport.streams import Stream

_SERVICE = "bedrock-runtime"
_MARK = "_ledger_budget"
_OPERATIONS = ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream")
_UNCOUNTED = ("InvokeModelWithBidirectionalStream", "StartAsyncInvoke")


def is_bedrock(client: object) -> bool:
    """Tell whether an object is a client of boto3 for Bedrock's models."""
    model = getattr(getattr(client, "meta", None), "service_model", None)
    return getattr(model, "service_name", None) == _SERVICE


def wrap_bedrock(client: Any, settings: Settings) -> None:  # noqa: ANN401 - a client of boto3
    """Put a lease around each attempt that a client makes.

    Raises:
        InvalidInputError: It has a budget already, or the budget or the client is only for asyncio.
    """
    if hasattr(client, _MARK):
        raise InvalidInputError("client", TWICE)
    make = client._make_api_call  # noqa: SLF001 - no event reports an interrupt
    if inspect.iscoroutinefunction(make):
        raise InvalidInputError("client", "is one for tasks; call a client of boto3 in threads")
    leases = _Leases(settings)
    events = client.meta.events
    for name in _OPERATIONS:
        events.register_last(f"before-send.{_SERVICE}.{name}", leases.begin)
        events.register_first(f"response-received.{_SERVICE}.{name}", leases.received)
    for name in _UNCOUNTED:
        events.register_first(f"before-call.{_SERVICE}.{name}", _refuse)

    def made(operation: str, parameters: Mapping[str, Any]) -> Any:  # noqa: ANN401 - of botocore
        try:
            return make(operation, parameters)
        except BaseException as error:
            leases.leave(error)
            raise

    client._make_api_call = made  # noqa: SLF001 - as above
    setattr(client, _MARK, leases)


def _refuse(model: Any, **_more: object) -> None:  # noqa: ANN401 - of botocore
    raise InvalidInputError(
        "client",
        f"{model.name} is not counted: call converse or invoke_model, whole or as streams, "
        "or another client",
    )


class _Leases:
    """Begins and ends the lease of each attempt; both happen in the thread that sends it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = replace(settings, provider=settings.provider or "aws")
        self._budget = for_threads(settings.budget)
        self._open = _Current()

    def begin(self, request: Any, **_more: object) -> None:  # noqa: ANN401 - of botocore
        """Reserve. An error is raised to the caller, and nothing is sent."""
        self._open.found = None
        if is_counted():
            return
        path = urlsplit(request.url).path
        body = request.body if isinstance(request.body, bytes | bytearray) else b""
        protocol = protocol_of("POST", path)
        assert protocol is not None  # noqa: S101 - the events are of such requests alone
        asked = read_request(protocol, path, bytes(body), provider=self._settings.provider)
        call = call_of((self._settings.caller, request.url, hash(bytes(body))), {})
        attempt = Attempt(self._settings, asked, call)
        block = attempt.lease(self._budget)
        try:
            with attempt.reserving():
                block.__enter__()
        except LedgerError as error:
            assumed = self._settings.max_output_tokens
            if advice := advice_on(error, asked, attempt.estimate, assumed):
                error.add_note(advice)
            raise
        self._open.found = attempt, block

    def leave(self, error: BaseException) -> None:
        """End the lease of an attempt that was interrupted."""
        found, self._open.found = self._open.found, None
        if found is not None:
            attempt, block = found
            attempt.tell(error=error)
            block.__exit__(type(error), error, error.__traceback__)

    def received(
        self,
        response_dict: Any,  # noqa: ANN401 - of botocore
        parsed_response: Any,  # noqa: ANN401 - likewise
        exception: BaseException | None,
        **_more: object,
    ) -> None:
        """End the lease, or let the stream end it."""
        found, self._open.found = self._open.found, None
        if found is None:  # refused, or counted by a block
            return
        attempt, block = found
        if exception is not None:
            attempt.tell(error=exception)
            block.__exit__(type(exception), exception, exception.__traceback__)
            return
        headers = response_dict["headers"]
        if not attempt.answered(response_dict["status_code"], headers):
            _Events((), attempt, block).end("refused")
            return
        body = parsed_response.get("body")
        if not hasattr(body, "iter_chunks"):  # an answer that is parsed, or whose events will be
            attempt.read_by(_ObjectReader, headers)
        assert attempt.reader is not None  # noqa: S101 - the answer is no error
        said = attempt.reader.said
        said.answer["id"] = parsed_response.get("ResponseMetadata", {}).get("RequestId")
        if hasattr(body, "iter_chunks"):
            parsed_response["body"] = _read(body, attempt, block)
            return
        for name in ("stream", "body"):
            if name in parsed_response:
                parsed_response[name] = _Events(parsed_response[name], attempt, block)
                return
        for _ in (whole := _Events([parsed_response], attempt, block)):
            pass
        whole.end("complete")


def _read(body: Any, attempt: Attempt, block: LeaseBlock) -> Any:  # noqa: ANN401 - of botocore
    """Read the content of an answer, and return it as a stream that can be read again."""
    parts: list[bytes] = []
    broken: Exception | None = None
    try:
        parts.extend(_Events(body.iter_chunks(), attempt, block))
    except Exception as error:  # noqa: BLE001 - it is raised when the caller reads
        broken = error
    body.close()
    return type(body)(io.BufferedReader(_Replayed(b"".join(parts), broken)), None)


class _Replayed(io.RawIOBase):
    """Content that was read, with the error that ended it, if any."""

    def __init__(self, content: bytes, broken: Exception | None) -> None:
        self._content = io.BytesIO(content)
        self._broken = broken

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any, /) -> int:
        size = self._content.readinto(buffer)
        if not size and self._broken is not None:
            raise self._broken
        return size


class _Current(threading.local):
    """The attempt that a thread makes, and its lease."""

    found: tuple[Attempt, LeaseBlock] | None = None


class _ObjectReader(Reader):
    """Reads answers that botocore has parsed."""

    def feed(self, chunk: Any) -> Any:  # noqa: ANN401 - a mapping in place of bytes
        """Read an answer or an event, which may hold one in the format of the model's maker."""
        event = chunk
        if isinstance(chunk, Mapping) and isinstance(chunk.get("chunk"), Mapping):
            with suppress(ValueError, RecursionError):
                event = json.loads(chunk["chunk"].get("bytes", b""))
        if isinstance(event, Mapping):
            self._understand(self._protocol.event, event)
        return chunk

    def end(self) -> bytes:
        """Return nothing: all was passed on."""
        return b""


class _Events(Stream):
    """The events of an answer; in everything else it is botocore's stream."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of botocore
        return getattr(self._source, name)

    def __iter__(self) -> Iterator[Any]:
        return super().__iter__()
