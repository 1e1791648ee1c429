"""The budget around a client of boto3 for Amazon Bedrock, by the events of botocore.

One lease for each attempt, as with httpx. `converse` and `converse_stream` are counted. What is
not is refused: a call that nobody counts is no call of a budgeted client.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlsplit

from ledger.errors import InvalidInputError
from ledger.lease import LeaseBlock
from ledger.transport.answers import Reader
from ledger.transport.attempts import Attempt, call_of
from ledger.transport.counting import is_counted
from ledger.transport.protocols import CONVERSE
from ledger.transport.requests import read_request
from ledger.transport.settings import TWICE, Settings, for_threads
from ledger.transport.streams import Stream

_SERVICE = "bedrock-runtime"
_MARK = "_ledger_budget"
_OPERATIONS = ("Converse", "ConverseStream")
_UNCOUNTED = (
    "InvokeModel",
    "InvokeModelWithResponseStream",
    "InvokeModelWithBidirectionalStream",
    "StartAsyncInvoke",
)


def is_bedrock(client: object) -> bool:
    """Tell whether an object is a client of boto3 for Bedrock's models."""
    model = getattr(getattr(client, "meta", None), "service_model", None)
    return getattr(model, "service_name", None) == _SERVICE


def wrap_bedrock(client: Any, settings: Settings) -> None:  # noqa: ANN401 - a client of boto3
    """Put a lease around each attempt that a client makes.

    Raises:
        InvalidInputError: It has a budget already, the budget is for tasks alone, or the client is.
    """
    if hasattr(client, _MARK):
        raise InvalidInputError("client", TWICE)
    make = client._make_api_call  # noqa: SLF001 - an interrupt of it is told by no event
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
        f"{model.name} is not counted: call converse or converse_stream, or another client",
    )


class _Leases:
    """Begins and ends the lease of each attempt; both happen in the thread that sends it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = replace(settings, provider=settings.provider or "aws")
        self._budget = for_threads(settings.budget)
        self._open = _Current()

    def begin(self, request: Any, **_more: object) -> None:  # noqa: ANN401 - of botocore
        """Reserve; an error is the caller's at once, and nothing is sent."""
        self._open.found = None
        if is_counted():
            return
        path = urlsplit(request.url).path
        body = request.body if isinstance(request.body, bytes) else b""
        asked = read_request(CONVERSE, path, body, provider=self._settings.provider)
        model = unquote(path.partition("/model/")[2].rpartition("/")[0])
        call = call_of((id(self._settings), request.url, hash(body)), None)
        attempt = Attempt(self._settings, replace(asked, model=model), call)
        block = attempt.lease(self._budget)
        with attempt.reserving():
            block.__enter__()
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
        """End the lease, or put its end around the stream."""
        found, self._open.found = self._open.found, None
        if found is None:  # refused, or counted by a block
            return
        attempt, block = found
        if exception is not None:
            attempt.tell(error=exception)
            block.__exit__(type(exception), exception, exception.__traceback__)
            return
        status = response_dict["status_code"]
        if not attempt.answered(status, ""):
            _Events((), attempt, block).end("refused")
            return
        attempt.reader = reader = _ObjectReader(CONVERSE, 1, hides_usage=False)
        reader.said.answer["id"] = parsed_response.get("ResponseMetadata", {}).get("RequestId")
        if "stream" in parsed_response:
            parsed_response["stream"] = _Events(parsed_response["stream"], attempt, block)
            return
        for _ in (whole := _Events([parsed_response], attempt, block)):
            pass
        whole.end("complete")


class _Current(threading.local):
    """The attempt that a thread makes, and its lease."""

    found: tuple[Attempt, LeaseBlock] | None = None


class _ObjectReader(Reader):
    """Reads answers that botocore has parsed already."""

    def feed(self, chunk: Any) -> Any:  # noqa: ANN401 - a mapping in place of bytes
        """Read an answer, or an event."""
        if isinstance(chunk, Mapping):
            self._understand(self._protocol.event, chunk)
        return chunk

    def end(self) -> bytes:
        """Return nothing: all was passed on."""
        return b""


class _Events(Stream):
    """The events of an answer; in all else the stream of botocore."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of botocore
        return getattr(self._source, name)

    def __iter__(self) -> Iterator[Any]:
        return super().__iter__()
