"""A stream that breaks off or is left is settled under the id and the model that it named."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from ledger import Entry, EntryKind, Ledger, LedgerBudgetManager, Provenance
from ledger.transport import budgeted
from tests.transport import wire
from tests.transport.attempts import attempts
from tests.transport.frames import chunk, event
from tests.transport.libraries import MESSAGES
from tests.transport.shapes import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    import openai

AMAZON = "application/vnd.amazon.eventstream"
CLAUDE = "anthropic.claude-sonnet-4-20250514-v1:0"
CONVERSED = wire.Reply(
    parts=(
        event("messageStart", {"role": "assistant"}),
        event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello"}}),
    ),
    content_type=AMAZON,
    headers={"x-amzn-RequestId": "amzn-1"},
    end=wire.End.UNMARKED,
)
INVOKED = replace(CONVERSED, parts=(chunk({"outputText": "Hello"}),))
CHAT = {"model": "gpt-4o", "messages": MESSAGES, "stream": True}
CASES: dict[str, tuple[str, dict[str, Any], wire.Reply, str, str]] = {
    "chat": (
        "/v1/chat/completions",
        CHAT,
        BY_NAME["chat"].stream.cut(2, wire.End.UNMARKED),
        "chatcmpl-1",
        "gpt-4o-2024-08-06",
    ),
    "responses": (
        "/v1/responses",
        {"model": "gpt-4o", "input": "hello", "stream": True},
        BY_NAME["responses"].stream.cut(4, wire.End.UNMARKED),
        "resp_1",
        "gpt-4o-2024-08-06",
    ),
    "messages": (
        "/v1/messages",
        {"model": "claude-sonnet-4-5", "max_tokens": 90, "messages": MESSAGES, "stream": True},
        BY_NAME["messages"].stream.cut(4, wire.End.UNMARKED),
        "msg_1",
        "claude-sonnet-4-6",
    ),
    "gemini": (
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        {"contents": [{"parts": [{"text": "hello"}]}]},
        BY_NAME["gemini"].unsaid_stream.cut(1, wire.End.UNMARKED),
        "g1",
        "gemini-2.5-pro",
    ),
    "converse": (
        f"/model/{CLAUDE}/converse-stream",
        {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]},
        CONVERSED,
        "amzn-1",
        CLAUDE,
    ),
    "invoke": (
        f"/model/{CLAUDE}/invoke-with-response-stream",
        {"inputText": "Hi"},
        INVOKED,
        "amzn-1",
        CLAUDE,
    ),
}


def settled(book: Ledger, pool: LedgerBudgetManager) -> Entry:
    """Return the only settlement of a pool, whose journal is sound."""
    assert book.verify(pool.name)[0].damage is None
    (found,) = [one for one in book.entries(pool.name) if one.kind == EntryKind.SETTLEMENT]
    assert Provenance.ESTIMATED == found.provenance
    return found


def named(found: Entry) -> tuple[str | None, str | None]:
    """Return what a settlement says: the provider's id, and the model."""
    assert found.attribution is not None
    return found.request_id, found.attribution.model


@pytest.mark.parametrize("tasks", [False, True], ids=["threads", "tasks"])
@pytest.mark.parametrize("protocol", CASES)
@pytest.mark.parametrize("how", ["cut", "left"])
def test_what_the_chunks_named_is_kept(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    protocol: str,
    how: str,
    *,
    tasks: bool,
) -> None:
    """What is charged is the estimate as before; the provider's bill can be matched to it."""
    path, body, reply, request_id, model = CASES[protocol]
    server.answers(reply)
    url = f"{server.url}{path}"

    def call() -> None:
        with (
            budgeted(httpx.Client(), pool=pool) as client,
            contextlib.suppress(httpx.RemoteProtocolError),
            client.stream("POST", url, json=body) as answer,
        ):
            for _ in answer.iter_bytes():
                if how == "left":
                    break

    async def call_in_task() -> None:
        async with budgeted(httpx.AsyncClient(), pool=pool) as client:
            with contextlib.suppress(httpx.RemoteProtocolError):
                async with client.stream("POST", url, json=body) as answer:
                    async for _ in answer.aiter_bytes():
                        if how == "left":
                            break

    if tasks:
        asyncio.run(call_in_task())
    else:
        call()
    assert (request_id, model) == named(settled(book, pool))


def test_the_first_chunk_may_name_nothing(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """Azure begins with what its filter said of the prompt; the id comes behind it."""
    first = {"id": "", "model": "", "object": "", "choices": [], "prompt_filter_results": []}
    stream = BY_NAME["chat"].stream.cut(2, wire.End.UNMARKED)
    server.answers(
        replace(stream, parts=(f"data: {json.dumps(first)}\n\n".encode(), *stream.parts))
    )
    with (
        budgeted(httpx.Client(), pool=pool) as client,
        contextlib.suppress(httpx.RemoteProtocolError),
    ):
        client.post(f"{server.url}/v1/chat/completions", json=CHAT)
    assert ("chatcmpl-1", "gpt-4o-2024-08-06") == named(settled(book, pool))


def test_a_stream_of_openai_that_is_left(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    of_openai: Callable[..., openai.OpenAI],
) -> None:
    """By the client of openai itself, as a program leaves it."""
    server.answers(BY_NAME["chat"].stream)
    with of_openai(pool).chat.completions.create(**CHAT) as stream:  # type: ignore[call-overload]
        assert "chatcmpl-1" == next(iter(stream)).id
    assert ("chatcmpl-1", "gpt-4o-2024-08-06") == named(settled(book, pool))


@pytest.mark.parametrize("steps", range(8))
def test_a_stream_is_left_while_its_loop_is_shut_down(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server, steps: int
) -> None:
    """`asyncio.run` cancels every task, also the one that ends the lease of a cancelled stream."""
    import httpx2

    shape = BY_NAME["chat"]
    server.answers(shape.stream.cut(2, wire.End.NEVER))

    async def main() -> None:
        client = budgeted(httpx2.AsyncClient(base_url=server.url), pool=pool)
        begun = asyncio.Event()

        async def read() -> None:
            asked = {"model": shape.model, "messages": [], "stream": True}
            async with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
                async for _ in answer.aiter_bytes():
                    begun.set()

        task = asyncio.ensure_future(read())
        await begun.wait()
        task.cancel()
        for _ in range(steps):
            await asyncio.sleep(0)

    asyncio.run(main())
    (found,) = attempts(book, pool)
    assert "estimated" == found.end
