"""The same for libraries that the extra dev does not bring: more columns of the matrix."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from functools import cache
from typing import Any

import pytest

from ledger.transport import budgeted
from tests.shared import numbers
from tests.transport import wire
from tests.transport.frames import event
from tests.transport.libraries import MESSAGES, Library, _at_once, _chat
from tests.transport.shapes import BY_NAME, Shape
from tests.transport.wire import Reply


async def _nothing() -> None:
    """Close nothing."""


def _in_a_loop(stream: Callable[[], AsyncIterator[object]]) -> Iterator[object]:
    """Read a stream that is for tasks alone in a loop of this thread."""
    with asyncio.Runner() as runner:

        async def begin() -> AsyncIterator[object]:
            return stream()

        async def next_part() -> object:
            return await anext(parts, _END)

        parts: Any = runner.run(begin())
        try:
            while (part := runner.run(next_part())) is not _END:
                yield part
        finally:
            runner.run(parts.aclose())


_END = object()


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


def _langchain(model: Any, *clients: Any) -> Library:
    """Return the calls of a model of LangChain, whose clients repeat a call at once."""
    for client in clients:
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


def langchain(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Chat completions by langchain-openai."""
    from langchain_openai import ChatOpenAI

    made = ChatOpenAI(
        model=shape.model,
        base_url=f"{url}/{next(numbers)}/v1",  # models of one address share an HTTP client
        api_key="none",
        timeout=read_s,
        max_retries=2,
    )
    model = budgeted(made, **options)
    return _langchain(model, model.root_client, model.root_async_client)


def langchain_anthropic(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Messages by langchain-anthropic."""
    from langchain_anthropic import ChatAnthropic

    made = ChatAnthropic(
        model=shape.model,
        base_url=f"{url}/{next(numbers)}",  # models of one address share an HTTP client
        api_key="none",
        max_tokens=1_000,
        timeout=read_s,
        max_retries=2,
    )
    model = budgeted(made, **options)
    return _langchain(model, model._client, model._async_client)


def pydantic_ai(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Chat completions by an agent of pydantic-ai, and streams of its model."""
    from openai import AsyncOpenAI
    from pydantic_ai import Agent, ModelRequest
    from pydantic_ai.direct import model_request_stream, model_request_stream_sync
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = _at_once(AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=read_s))
    model = OpenAIChatModel(shape.model, provider=OpenAIProvider(openai_client=client))
    agent = budgeted(Agent(model), **options)

    def stream() -> Iterator[object]:
        with model_request_stream_sync(model, [ModelRequest.user_text_prompt("Hi")]) as events:
            yield from events

    async def parts() -> AsyncIterator[object]:
        async with model_request_stream(model, [ModelRequest.user_text_prompt("Hi")]) as events:
            async for event in events:
                yield event

    async def astream() -> Any:
        return parts()

    return Library(
        lambda: agent.run_sync("Hi"),
        stream,
        lambda: agent.run("Hi"),
        astream,
        client.close,
        lambda: None,
    )


def openai_agents(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Chat completions by an agent of openai-agents, whose streams are for tasks alone."""
    import agents
    from agents.run import get_default_agent_runner, set_default_agent_runner
    from openai import AsyncOpenAI

    from ledger.integrations.openai_agents import attribute_runs

    agents.set_tracing_disabled(disabled=True)
    before = get_default_agent_runner()
    attribute_runs()
    client = _at_once(AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=read_s))
    model = agents.OpenAIChatCompletionsModel(model=shape.model, openai_client=client)
    agent = agents.Agent(name="triage", model=budgeted(model, **options))

    async def parts() -> AsyncIterator[object]:
        events = agents.Runner.run_streamed(agent, "Hi").stream_events()
        async with aclosing(events):
            async for event in events:
                if event.type == "raw_response_event":  # others come before anything is sent
                    yield event

    async def astream() -> Any:
        return parts()

    return Library(
        lambda: agents.Runner.run_sync(agent, "Hi"),
        lambda: _in_a_loop(parts),
        lambda: agents.Runner.run(agent, "Hi"),
        astream,
        client.close,
        lambda: set_default_agent_runner(before),
    )


def cohere(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Chat by cohere."""
    import cohere

    given: Any = {"api_key": "none", "base_url": url, "timeout": read_s}
    client = cache(lambda: budgeted(cohere.ClientV2(**given), **options))
    aclient = cache(lambda: budgeted(cohere.AsyncClientV2(**given), **options))
    asked: Any = {"model": shape.model, "messages": MESSAGES}

    async def astream() -> Any:
        return aclient().chat_stream(**asked)

    return Library(
        lambda: client().chat(**asked),
        lambda: client().chat_stream(**asked),
        lambda: aclient().chat(**asked),
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
    from litellm.llms.custom_httpx.aiohttp_handler import BaseLLMAIOHTTPHandler

    for name in ("completion", "image_variations"):
        patch.setattr(BaseLLMAIOHTTPHandler, name, getattr(BaseLLMAIOHTTPHandler, name))
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

_COHERE_END = {
    "finish_reason": "COMPLETE",
    "usage": {
        "billed_units": {"input_tokens": 900.0, "output_tokens": 200.0},
        "tokens": {"input_tokens": 1000.0, "output_tokens": 210.0},
    },
}


def _cohere(end: Mapping[str, object]) -> Reply:
    message = {"role": "assistant", "content": [{"type": "text", "text": "Hello there"}]}
    return wire.whole({"id": "c1", "message": message, **end})


def _cohere_stream(*more: object) -> Reply:
    words = (
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": word}}}}
        for word in ("Hel", "lo ", "there")
    )
    begin = {"type": "message-start", "id": "c1", "delta": {"message": {"role": "assistant"}}}
    return wire.events([begin, *words, *more])


_UNSAID = {"finish_reason": "COMPLETE"}
COHERE = Shape(
    name="cohere",
    model="command-r-08-2024",
    whole=_cohere(_COHERE_END),
    stream=_cohere_stream({"type": "message-end", "delta": _COHERE_END}),
    unsaid=_cohere(_UNSAID),
    unsaid_stream=_cohere_stream({"type": "message-end", "delta": _UNSAID}),
    broken=_cohere_stream({"message": "no"}),
    # 900 at 0.15 a million, 200 at 0.60
    billed=(1_100, 255),
)

COLUMNS: dict[str, tuple[Callable[..., Library], Shape]] = {
    "groq": (groq, BY_NAME["chat"]),
    "mistralai": (mistral, BY_NAME["chat"]),
    "langchain-openai": (langchain, BY_NAME["chat"]),
    "litellm": (litellm, BY_NAME["chat"]),
    "boto3, converse": (boto3, CONVERSE),
    "langchain-anthropic": (langchain_anthropic, BY_NAME["messages"]),
    "pydantic-ai": (pydantic_ai, BY_NAME["chat"]),
    "openai-agents": (openai_agents, BY_NAME["chat"]),
    "cohere": (cohere, COHERE),
}
