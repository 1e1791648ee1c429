"""The same for libraries that the extra dev does not bring: more columns of the matrix."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from ledger.transport import budgeted
from tests.transport import wire
from tests.transport.frames import event
from tests.transport.libraries import MESSAGES, Library, _at_once, _chat
from tests.transport.shapes import BY_NAME, Shape
from tests.transport.wire import Reply

_numbers = itertools.count(1)


async def _nothing() -> None:
    """Close nothing."""


async def _no_tasks() -> object:
    """Stand in for a call that the library does not have."""
    raise NotImplementedError


def groq(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Chat completions by groq."""
    import groq

    return _chat(groq.Groq, groq.AsyncGroq, shape, url, read_s, options)


def mistral(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Chat completions by mistralai."""
    from mistralai.client import Mistral

    made = Mistral(api_key="none", server_url=url, timeout_ms=int(read_s * 1_000))
    client = budgeted(made, **options)
    asked: Any = {"model": shape.model, "messages": MESSAGES}
    return Library(
        lambda: client.chat.complete(**asked),
        lambda: _Closing(client.chat.stream(**asked)),
        lambda: client.chat.complete_async(**asked),
        lambda: client.chat.stream_async(**asked),
        lambda: client.__aexit__(None, None, None),
        lambda: client.__exit__(None, None, None),
    )


class _Closing:
    """A stream of mistralai, which is closed by leaving its block."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Any:
        return iter(self._stream)

    def close(self) -> None:
        """Close it."""
        self._stream.__exit__(None, None, None)


def langchain(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Chat completions by langchain-openai."""
    from langchain_openai import ChatOpenAI

    made = ChatOpenAI(
        model=shape.model,
        base_url=f"{url}/{next(_numbers)}/v1",  # models of one address share an HTTP client
        api_key="none",
        timeout=read_s,
        max_retries=2,
    )
    model = budgeted(made, **options)
    for client in (model.root_client, model.root_async_client):
        _at_once(client)

    async def astream() -> Any:
        return model.astream("Hi")

    return Library(
        lambda: model.invoke("Hi"),
        lambda: model.stream("Hi"),
        lambda: model.ainvoke("Hi"),
        astream,
        _nothing,
        lambda: None,
    )


def litellm(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Chat completions by litellm."""
    import litellm

    patch = pytest.MonkeyPatch()
    unbudgeted(litellm, patch)
    budgeted(litellm, **options)
    asked: Any = {
        "model": shape.model,
        "messages": MESSAGES,
        "api_base": f"{url}/v1",
        "api_key": "none",
        "timeout": read_s,
    }
    return Library(
        lambda: litellm.completion(**asked),
        lambda: litellm.completion(**asked, stream=True),
        lambda: litellm.acompletion(**asked),
        lambda: litellm.acompletion(**asked, stream=True),
        _nothing,
        patch.undo,
    )


def unbudgeted(litellm: Any, patch: pytest.MonkeyPatch) -> None:
    """Let litellm make new clients, without a budget; what it has now comes back with the patch."""
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, HTTPHandler

    patch.setattr(litellm, "in_memory_llm_clients_cache", litellm.LLMClientCache())
    for one in (AsyncHTTPHandler, HTTPHandler):
        for name in ("__init__", "create_client"):
            if hasattr(one, name):
                patch.setattr(one, name, getattr(one, name))
    patch.setattr(litellm, "module_level_client", HTTPHandler(), raising=False)
    patch.setattr(litellm, "module_level_aclient", AsyncHTTPHandler(), raising=False)


def boto3(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Converse by boto3, which has no calls for tasks."""
    import boto3
    import botocore.config

    made = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="none",
        aws_secret_access_key="none",  # noqa: S106 - nobody asks for it
        config=botocore.config.Config(read_timeout=read_s),
    )
    client = budgeted(made, **options)
    content = [{"role": "user", "content": [{"text": "Hi"}]}]
    asked: Any = {"modelId": shape.model, "messages": content}
    return Library(
        lambda: client.converse(**asked),
        lambda: client.converse_stream(**asked)["stream"],
        _no_tasks,
        _no_tasks,
        _nothing,
        client.close,
    )


_USAGE = {
    "inputTokens": 100,
    "outputTokens": 200,
    "totalTokens": 7_300,
    "cacheReadInputTokens": 5_000,
    "cacheWriteInputTokens": 2_000,
}


def _converse(usage: object) -> Reply:
    message = {"role": "assistant", "content": [{"text": "Hello there"}]}
    said = {"output": {"message": message}, "stopReason": "end_turn", "metrics": {"latencyMs": 1}}
    return wire.whole(said if usage is None else {**said, "usage": usage})


def _frames(*more: bytes) -> Reply:
    words = (
        event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}})
        for word in ("Hel", "lo ", "there")
    )
    parts = (event("messageStart", {"role": "assistant"}), *words, *more)
    return Reply(parts=parts, content_type="application/vnd.amazon.eventstream")


_STOP = event("messageStop", {"stopReason": "end_turn"})
CONVERSE = Shape(
    name="converse",
    model="anthropic.claude-sonnet-4-20250514-v1:0",
    whole=_converse(_USAGE),
    stream=_frames(_STOP, event("metadata", {"usage": _USAGE, "metrics": {"latencyMs": 1}})),
    unsaid=_converse(None),
    unsaid_stream=_frames(_STOP),
    broken=_frames(event("modelStreamErrorException", {"message": "no"}, of="exception")),
    # 100 at 3 a million, 5,000 at 0.30, 2,000 at 3.75, 200 at 15
    billed=(7_300, 12_300),
)

COLUMNS: dict[str, tuple[Callable[..., Library], Shape]] = {
    "groq": (groq, BY_NAME["chat"]),
    "mistralai": (mistral, BY_NAME["chat"]),
    "langchain-openai": (langchain, BY_NAME["chat"]),
    "litellm": (litellm, BY_NAME["chat"]),
    "boto3, converse": (boto3, CONVERSE),
}
