"""How each client library makes a call, in one piece and as a stream, with a budget around it.

A library is imported when it is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from ledger.transport import budgeted
from tests.transport.shapes import BY_NAME, Shape

MESSAGES: Any = [{"role": "user", "content": "Say hello."}]


@dataclass(frozen=True)
class Library:
    """One library, speaking one protocol.

    Attributes:
        whole: Makes a call in one piece.
        stream: Makes a call and returns what gives the parts of its answer.
        awhole: The same for tasks.
        astream: Makes such a call for tasks.
        aclose: Closes the client for tasks.
        close: Closes the client for threads.
    """

    whole: Callable[[], object]
    stream: Callable[[], Any]
    awhole: Callable[[], Awaitable[object]]
    astream: Callable[[], Awaitable[Any]]
    aclose: Callable[[], Awaitable[object]]
    close: Callable[[], object]


def _httpx(module: Any, shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    timeout = module.Timeout(30, read=read_s)
    client = cache(lambda: budgeted(module.Client(base_url=url, timeout=timeout), **options))
    tasks = cache(lambda: budgeted(module.AsyncClient(base_url=url, timeout=timeout), **options))
    body = {"model": shape.model, "messages": MESSAGES}

    def request(made: Any, *, stream: bool) -> Any:
        return made.build_request("POST", "/v1/chat/completions", json={**body, "stream": stream})

    def whole() -> object:
        return client().send(request(client(), stream=False)).raise_for_status().json()

    def stream() -> Any:
        return _Bytes(client().send(request(client(), stream=True), stream=True))

    async def awhole() -> object:
        return (await tasks().send(request(tasks(), stream=False))).json()

    async def astream() -> Any:
        return _Bytes(await tasks().send(request(tasks(), stream=True), stream=True))

    return Library(
        whole, stream, awhole, astream, lambda: tasks().aclose(), lambda: client().close()
    )


class _Bytes:
    """The bytes of an answer, which is closed where its iteration ends."""

    def __init__(self, answer: Any) -> None:
        self.close = answer.close
        self.aclose = answer.aclose
        self._answer = answer.raise_for_status()

    def __iter__(self) -> Iterator[bytes]:
        return self._answer.iter_bytes()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._answer.aiter_bytes()


def httpx(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Plain calls by httpx."""
    import httpx

    return _httpx(httpx, shape, url, read_s, options)


def httpx2(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Plain calls by httpx2."""
    import httpx2

    return _httpx(httpx2, shape, url, read_s, options)


def _at_once(client: Any) -> Any:
    """Let a client of openai, or one made like it, repeat a request without a pause."""
    client._calculate_retry_timeout = lambda *_: 0.0
    return client


def openai_chat(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Chat completions by openai."""
    import openai

    return _chat(openai.OpenAI, openai.AsyncOpenAI, shape, f"{url}/v1", read_s, options)


def _chat(
    threads: Any, tasks: Any, shape: Shape, url: str, read_s: float, options: dict[str, Any]
) -> Library:
    given = {"api_key": "none", "base_url": url, "timeout": read_s}
    client = cache(lambda: budgeted(_at_once(threads(**given)), **options))
    aclient = cache(lambda: budgeted(_at_once(tasks(**given)), **options))
    asked: Any = {"model": shape.model, "messages": MESSAGES}
    return Library(
        lambda: client().chat.completions.create(**asked),
        lambda: client().chat.completions.create(**asked, stream=True),
        lambda: aclient().chat.completions.create(**asked),
        lambda: aclient().chat.completions.create(**asked, stream=True),
        lambda: aclient().close(),
        lambda: client().close(),
    )


def openai_responses(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Responses by openai."""
    import openai

    given = {"api_key": "none", "base_url": f"{url}/v1", "timeout": read_s}
    client = cache(lambda: budgeted(_at_once(openai.OpenAI(**given)), **options))
    aclient = cache(lambda: budgeted(_at_once(openai.AsyncOpenAI(**given)), **options))
    asked: Any = {"model": shape.model, "input": "Say hello."}
    return Library(
        lambda: client().responses.create(**asked),
        lambda: client().responses.create(**asked, stream=True),
        lambda: aclient().responses.create(**asked),
        lambda: aclient().responses.create(**asked, stream=True),
        lambda: aclient().close(),
        lambda: client().close(),
    )


def anthropic(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Messages by anthropic."""
    import anthropic

    given: Any = {"api_key": "none", "base_url": url, "timeout": read_s}
    client = cache(lambda: budgeted(_at_once(anthropic.Anthropic(**given)), **options))
    aclient = cache(lambda: budgeted(_at_once(anthropic.AsyncAnthropic(**given)), **options))
    asked: Any = {"model": shape.model, "messages": MESSAGES, "max_tokens": 1_000}
    return Library(
        lambda: client().messages.create(**asked),
        lambda: client().messages.create(**asked, stream=True),
        lambda: aclient().messages.create(**asked),
        lambda: aclient().messages.create(**asked, stream=True),
        lambda: aclient().close(),
        lambda: client().close(),
    )


def google_genai(shape: Shape, url: str, read_s: float, options: dict[str, Any]) -> Library:
    """Content by google-genai."""
    from google import genai

    client = budgeted(
        genai.Client(
            api_key="none", http_options={"base_url": url, "timeout": int(read_s * 1_000)}
        ),
        **options,
    )
    asked: Any = {"model": shape.model, "contents": "Say hello."}
    return Library(
        lambda: client.models.generate_content(**asked),
        lambda: client.models.generate_content_stream(**asked),
        lambda: client.aio.models.generate_content(**asked),
        lambda: client.aio.models.generate_content_stream(**asked),
        client.aio.aclose,
        client.close,
    )


COLUMNS: dict[str, tuple[Callable[..., Library], Shape]] = {
    "httpx": (httpx, BY_NAME["chat"]),
    "httpx2": (httpx2, BY_NAME["chat"]),
    "openai, chat": (openai_chat, BY_NAME["chat"]),
    "openai, responses": (openai_responses, BY_NAME["responses"]),
    "anthropic": (anthropic, BY_NAME["messages"]),
    "google-genai": (google_genai, BY_NAME["gemini"]),
}
"""The columns of the matrix in docs/clients.md: a library, and what it speaks."""
