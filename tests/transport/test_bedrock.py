"""boto3 for Amazon Bedrock: each attempt has a lease, also where boto3 repeats it by itself."""

from __future__ import annotations

import binascii
import gc
import json
import struct
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from ledger import InvalidInputError, Ledger, LedgerBudgetManager, ThresholdExceededError
from ledger.transport import budgeted
from tests.transport import wire
from tests.transport.attempts import attempts
from tests.transport.wire import End, Reply

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]

MODEL = "anthropic.claude-sonnet-4-20250514-v1:0"
USAGE = {
    "inputTokens": 100,
    "outputTokens": 200,
    "totalTokens": 7_300,
    "cacheReadInputTokens": 5_000,
    "cacheWriteInputTokens": 2_000,
}
BILLED = (7_300, 12_300)
"""100 at 3 a million, 5,000 at 0.30, 2,000 at 3.75, 200 at 15."""
MESSAGE = {"role": "assistant", "content": [{"text": "Hello there"}]}
WHOLE = wire.whole(
    {
        "output": {"message": MESSAGE},
        "stopReason": "end_turn",
        "usage": USAGE,
        "metrics": {"latencyMs": 1},
    }
)
ASKED: Any = {
    "modelId": MODEL,
    "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
    "inferenceConfig": {"maxTokens": 1_000},
}


def event(kind: str, content: object, *, of: str = "event") -> bytes:
    """Return an event as AWS frames it."""
    named = {":message-type": of, f":{of}-type": kind, ":content-type": "application/json"}
    headers = b"".join(
        struct.pack("!B", len(name))
        + name.encode()
        + struct.pack("!BH", 7, len(value))
        + value.encode()
        for name, value in named.items()
    )
    body = json.dumps(content).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(body), len(headers))
    framed = prelude + struct.pack("!I", binascii.crc32(prelude)) + headers + body
    return framed + struct.pack("!I", binascii.crc32(framed))


STREAM = Reply(
    parts=(
        event("messageStart", {"role": "assistant"}),
        event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello there"}}),
        event("messageStop", {"stopReason": "end_turn"}),
        event("metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}}),
    ),
    content_type="application/vnd.amazon.eventstream",
)


@pytest.fixture
def of_boto3(libraries: None, server: wire.Server) -> Callable[[Any], Any]:  # noqa: ARG001 - makes it importable
    """Return a function that makes clients, which wait a moment before they repeat a request."""
    import boto3
    import botocore.config

    def make(pool: Any) -> Any:
        config = botocore.config.Config(
            retries={"mode": "standard", "total_max_attempts": 3}, read_timeout=0.5
        )
        client = boto3.client(
            "bedrock-runtime",
            region_name="us-east-1",
            endpoint_url=server.url,
            aws_access_key_id="none",
            aws_secret_access_key="none",  # noqa: S106 - nobody asks for it
            config=config,
        )
        return budgeted(client, pool=pool)

    return make


def read(client: Any) -> list[Any]:
    """Return the events of a stream."""
    return list(client.converse_stream(**ASKED)["stream"])


OVERLOADED = wire.whole({"message": "no"}, status=503)
WAYS: dict[str, tuple[list[Reply], list[str]]] = {
    "whole": ([WHOLE], ["billed"]),
    "503, then whole": ([OVERLOADED, WHOLE], ["released", "billed"]),
    "400": ([wire.whole({"message": "no"}, status=400)], ["released"]),
    "no answer": ([WHOLE.cut(0, End.HEADLESS)], ["estimated"] * 3),
    "stream": ([STREAM], ["billed"]),
    "503, then stream": ([OVERLOADED, STREAM], ["released", "billed"]),
    "stream without its end": ([STREAM.cut(3, End.MARKED)], ["estimated"]),
    "stream cut": ([STREAM.cut(2, End.UNMARKED)], ["estimated"]),
    "stream with an error": (
        [
            Reply(
                parts=(
                    *STREAM.parts[:2],
                    event("modelStreamErrorException", {"message": "no"}, of="exception"),
                ),
                content_type=STREAM.content_type,
            )
        ],
        ["estimated"],
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_becomes_of_the_attempts(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    of_boto3: Callable[[Any], Any],
    way: str,
) -> None:
    """Each has one end, and what is billed is what was recorded."""
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    replies, ends = WAYS[way]
    server.answers(*replies)
    client = of_boto3(pool)
    fails = way in {"400", "no answer", "stream cut", "stream with an error"}
    errors = (BotoCoreError, ClientError, HTTPError)
    with pytest.raises(errors) if fails else nullcontext():
        read(client) if "stream" in way else client.converse(**ASKED)
    found = attempts(book, pool)
    assert ends == [one.end for one in found]
    assert {BILLED} >= {one.used for one in found if one.end == "billed"}
    assert len(ends) == len(server.requests)
    assert 1 == len({one.call for one in found})


def test_an_interrupt_ends_the_lease(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    of_boto3: Callable[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Botocore tells it by no event; the next call of the thread has a lease of its own."""
    from botocore.httpsession import URLLib3Session

    server.answers(WHOLE)
    client = of_boto3(pool)
    with monkeypatch.context() as patched:
        patched.setattr(URLLib3Session, "send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.converse(**ASKED)
    client.converse(**ASKED)
    assert ["estimated", "billed"] == [one.end for one in attempts(book, pool)]


def interrupted(*_given: object) -> None:
    """Stand in for what sends."""
    raise KeyboardInterrupt


def test_a_stream_that_is_left(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server, of_boto3: Callable[[Any], Any]
) -> None:
    """Closed, or thrown away: the estimate is charged."""
    server.answers(STREAM.cut(2, End.NEVER))
    client = of_boto3(pool)
    stream = client.converse_stream(**ASKED)["stream"]
    for _ in stream:
        break
    stream.close()
    for _ in client.converse_stream(**ASKED)["stream"]:
        break
    gc.collect()
    assert ["estimated"] * 2 == [one.end for one in attempts(book, pool)]


def test_refusals(
    new_pool: Callable[..., LedgerBudgetManager],
    pool: LedgerBudgetManager,
    server: wire.Server,
    of_boto3: Callable[[Any], Any],
) -> None:
    """The budget's own error, before anything is sent; what cannot be counted is not called."""
    client = of_boto3(new_pool(capacity_cost_micros_usd=1))
    for call in (lambda: client.converse(**ASKED), lambda: read(client)):
        with pytest.raises(ThresholdExceededError):
            call()
    with pytest.raises(InvalidInputError, match="InvokeModel is not counted"):
        client.invoke_model(modelId=MODEL, body=b"{}")
    with pytest.raises(InvalidInputError, match="has a budget already"):
        budgeted(client, pool=pool)
    assert [] == server.requests
