"""`budgeted`: one line around a client; what is asked for, shown, grouped and attributed."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from ledger import (
    AsyncLedger,
    Attribution,
    InvalidInputError,
    LeaseTtl,
    Ledger,
    LedgerBudgetManager,
    LedgerUnavailableError,
    RequestExtensions,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    reports,
    usd,
)
from ledger.integrations.calls import Counted
from ledger.prices import Counts, PriceList
from ledger.transport import attributed, budgeted
from tests.fixtures import MakePool
from tests.transport import wire
from tests.transport.attempts import attempts
from tests.transport.libraries import MESSAGES
from tests.transport.shapes import BY_NAME, CHAT_USAGE

if TYPE_CHECKING:
    import openai

CHAT, MESSAGE = BY_NAME["chat"], BY_NAME["messages"]
OPTIONS = SharedPoolBudgetOptions(capacity_cost_micros_usd=usd("1"))
BODY = {"model": "gpt-4o", "messages": MESSAGES}
MakeClient = Callable[..., "openai.OpenAI"]


def streamed(client: openai.OpenAI, **more: Any) -> list[Any]:
    """Return the chunks of a stream."""
    return list(
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True, **more)
    )


def test_usage_is_asked_for_and_hidden_again(
    pool: LedgerBudgetManager, server: wire.Server, of_openai: MakeClient
) -> None:
    """A caller that did not ask for usage sees the chunks that it would have seen without us."""
    server.answers(CHAT.stream)
    chunks = streamed(of_openai(pool), stream_options={"include_obfuscation": False})
    assert {"include_usage": True, "include_obfuscation": False} == (
        server.requests[0].body["stream_options"]
    )
    assert all(chunk.choices for chunk in chunks)
    assert 3_750 == pool.status().balance.committed.cost_micros_usd


def test_usage_is_shown_to_those_who_ask(
    pool: LedgerBudgetManager, server: wire.Server, of_openai: MakeClient
) -> None:
    """In the call itself, or for all calls: frameworks count by it."""
    server.answers(CHAT.stream)
    asked = streamed(of_openai(pool), stream_options={"include_usage": True})
    shown = streamed(of_openai(pool, show_usage=True))
    assert [1_200, 1_200] == [chunks[-1].usage.total_tokens for chunks in (asked, shown)]
    assert [{"include_usage": True}] * 2 == [one.body["stream_options"] for one in server.requests]


def test_usage_is_not_asked_for_where_a_server_refuses_that(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server, of_openai: MakeClient
) -> None:
    """The request leaves as it is; without usage the estimate is charged."""
    server.answers(CHAT.unsaid_stream)
    streamed(of_openai(pool, ask_for_usage=False))
    assert "stream_options" not in server.requests[0].body
    assert ["estimated"] == [one.end for one in attempts(book, pool)]


def test_a_mocked_answer_is_counted(pool: LedgerBudgetManager) -> None:
    """A transport of one's own, of which the wrapped one is returned, for threads and for tasks."""
    content = CHAT.whole.parts[0]
    mock = budgeted(httpx.MockTransport(lambda _: httpx.Response(200, content=content)), pool=pool)
    url = "http://127.0.0.1/v1/chat/completions"
    with httpx.Client(transport=mock) as client:
        assert CHAT_USAGE == client.post(url, json=BODY).json()["usage"]

    async def call() -> httpx.Response:
        async with httpx.AsyncClient(transport=mock) as tasks:
            return await tasks.post(url, json=BODY)

    assert CHAT_USAGE == asyncio.run(call()).json()["usage"]
    assert 2 * 3_750 == pool.status().balance.committed.cost_micros_usd


def test_other_requests_pass(
    pool: LedgerBudgetManager, server: wire.Server, of_openai: MakeClient
) -> None:
    """What no protocol knows is neither reserved nor changed."""
    server.answers(wire.whole({"object": "list", "data": []}))
    client = of_openai(pool)
    client.models.list()
    client.files.list()
    assert 1 == pool.status().seq  # the opening


def test_proxies_are_behind_the_budget_too(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """A client has a transport for each proxy."""
    with budgeted(httpx.Client(proxy=server.url), pool=pool) as client:
        server.answers(CHAT.whole)
        client.post("http://api.openai.com/v1/chat/completions", json=BODY).raise_for_status()
    assert "http://api.openai.com/v1/chat/completions" == server.requests[0].path
    assert "openai" == list(book.entries(pool.name))[1].attribution.provider


def test_attempts_of_a_call_are_grouped(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server, of_openai: MakeClient
) -> None:
    """By the client's own count, or because the same request failed before; a new call is new."""
    client = of_openai(pool)
    server.answers(wire.error(500), wire.error(429), CHAT.whole)
    for _ in range(2):
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    with budgeted(httpx.Client(), pool=pool) as plain:
        server.answers(wire.error(500), CHAT.whole)
        for _ in range(3):
            plain.post(f"{server.url}/v1/chat/completions", json=BODY)
    found = attempts(book, pool)
    assert [(1, "released"), (2, "released"), (3, "billed"), (1, "billed")] == [
        (one.number, one.end) for one in found[:4]
    ]
    assert [(1, "released"), (2, "billed"), (1, "billed")] == [
        (one.number, one.end) for one in found[4:]
    ]
    grouped = [len(list(same)) for _, same in itertools.groupby(one.call for one in found)]
    assert [3, 1, 2, 1] == grouped


def test_calls_are_attributed(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server, of_openai: MakeClient
) -> None:
    """By the client, by the block that they are in, and by the request itself; tags add up."""
    server.answers(CHAT.whole)
    client = of_openai(
        pool, attribution=Attribution(run_id="nightly", tenant="acme", tags={"a": "1"})
    )
    with attributed(Attribution(run_id="run 7", tags={"b": "2"})):
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    settled = [one for one in book.entries(pool.name) if one.kind == "settlement"]
    first, second = (one.attribution for one in settled)
    assert ("run 7", "acme", "chat", "gpt-4o-2024-08-06") == (
        first.run_id,
        first.tenant,
        first.operation,
        first.model,
    )
    assert ({"a": "1", "b": "2"}, {"a": "1"}) == (first.tags, second.tags)
    assert "nightly" == second.run_id
    assert {"chatcmpl-1"} == {one.request_id for one in settled}
    kept = settled[0].detail["report"]
    assert "0.00375" == kept["price"]["cost_usd"]
    assert (1, "complete") == (kept["attempt"]["number"], kept["attempt"]["content"])


def test_a_router_chooses_the_pool_of_each_call(
    book: Ledger, new_pool: MakePool, server: wire.Server, of_openai: MakeClient
) -> None:
    """By what `attributed` says of the call."""
    pools = [new_pool(), new_pool()]
    router = book.router(lambda extensions: extensions.get(Attribution).tenant)
    client = of_openai(router)
    server.answers(CHAT.whole)
    for pool in pools:
        with attributed(Attribution(tenant=pool.name)):
            client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert [3_750, 3_750] == [pool.status().balance.committed.cost_micros_usd for pool in pools]


def test_the_input_is_recorded_while_the_answer_comes(
    pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """Anthropic says it at once: a program that dies within the stream has paid for it."""
    server.answers(MESSAGE.stream.cut(1, wire.End.NEVER))
    body = {"model": MESSAGE.model, "messages": MESSAGES, "max_tokens": 100, "stream": True}
    with (
        budgeted(httpx.Client(), pool=pool) as client,
        client.stream("POST", f"{server.url}/v1/messages", json=body) as answer,
    ):
        content = answer.iter_bytes()  # kept: a stream that is thrown away ends its lease
        next(content)
        committed = pool.status().balance.committed
        assert MESSAGE.known == (committed.tokens, committed.cost_micros_usd)


def test_a_stream_that_is_never_closed_ends_by_its_ttl(tmp_path: Path, server: wire.Server) -> None:
    """It is lost, so nothing renews its lease; the estimate is charged when that expires."""
    now = [1_800_000_000_000_000]
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", clock=lambda: now[0]) as book:
        pool = book.pool("team", OPTIONS)
        server.answers(CHAT.stream.cut(2, wire.End.NEVER))
        client = budgeted(
            httpx.Client(),
            pool=pool,
            extensions=RequestExtensions(LeaseTtl(timedelta(hours=1))),
        )
        request = client.build_request(
            "POST", f"{server.url}/v1/chat/completions", json={**BODY, "stream": True}
        )
        answer = client.send(request, stream=True)
        assert 1 == len(list(book.open_leases("team")))
        connection = answer.extensions["network_stream"]
        del answer
        gc.collect()
        now[0] += 3_600_000_001
        assert 1 == book.expire_due()
        assert ["estimated"] == [one.end for one in attempts(book, pool)]
        connection.close()
        client.close()


def test_an_answer_arrives_whatever_becomes_of_its_record(
    server: wire.Server, of_openai: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """It is paid for: an error would have it asked for again. The lease ends by the policy."""

    class Failing(SharedPoolBudgetManager):
        def record_used(self, *_arguments: object, **_words: object) -> None:
            raise LedgerUnavailableError("the store is away")

    budget = Failing(OPTIONS)
    server.answers(CHAT.whole)
    with caplog.at_level(logging.ERROR, "ledger.transport"):
        answer = of_openai(budget).chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert 1_200 == answer.usage.total_tokens
    assert 1 == len(server.requests)
    assert "could not be recorded: the store is away" in caplog.text
    for said in ("total_tokens 1200, cost_micros_usd 3750", "request 'chatcmpl-1'"):
        assert said in caplog.text
    assert usd("1") - 40_998 == budget.remaining(RequestExtensions()).cost_micros_usd


@pytest.mark.parametrize("way", ["pool", "router", "tasks"])
def test_the_log_says_whose_usage_was_not_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    """The pool by its name, and whom the call was for: its lease says neither."""
    who = Attribution(run_id="nightly", tenant="acme")
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as book:
        team = book.pool("team", OPTIONS)

        def answer(_request: httpx.Request) -> httpx.Response:
            book.close()
            return httpx.Response(200, content=CHAT.whole.parts[0])

        pool = team if way == "pool" else book.router(lambda _: "team")
        mock = budgeted(httpx.MockTransport(answer), pool=pool, attribution=who)
        url = "http://127.0.0.1/v1/chat/completions"

        async def call() -> httpx.Response:
            async with httpx.AsyncClient(transport=mock) as tasks:
                return await tasks.post(url, json=BODY)

        with httpx.Client(transport=mock) as client:
            found = asyncio.run(call()) if way == "tasks" else client.post(url, json=BODY)
        assert 200 == found.status_code
    line = next(one.getMessage() for one in caplog.records if "not be rec" in one.getMessage())
    assert "of pool 'team': input_tokens 1000" in line
    assert "for run_id 'nightly', tenant 'acme', operation 'chat'" in line


def test_tasks_pay_by_any_budget(tmp_path: Path, server: wire.Server) -> None:
    """In memory, of a store for threads, of one for tasks, and by a router."""
    server.answers(CHAT.whole)

    async def main() -> list[int]:
        left = []
        async with AsyncLedger.open(f"sqlite:///{tmp_path}/ledger.db") as book:
            for name in "abcd":
                await book.pool(name, OPTIONS)
            budgets = [
                SharedPoolBudgetManager(OPTIONS),
                book.sync.pool("a"),
                await book.pool("b"),
                book.sync.router(lambda _: "c"),
                book.router(lambda _: "d"),
            ]
            for budget in budgets:
                async with budgeted(httpx.AsyncClient(), pool=budget) as client:
                    await client.post(f"{server.url}/v1/chat/completions", json=BODY)
                found = budget.remaining(RequestExtensions())
                found = await found if asyncio.iscoroutine(found) else found
                left.append(usd("1") - found.cost_micros_usd)
        return left

    assert [3_750] * 5 == asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pool": "team"}, "must be a budget, such as Ledger.open"),
        ({"run_id": "r", "attribution": Attribution()}, "give one of them"),
        ({"run_id": ""}, "run_id"),
        ({"wait_s": -1}, "wait_s"),
        ({"max_output_tokens": 1.5}, "max_output_tokens"),
        ({"prices": {}}, "must be a PriceList"),
        ({"show_usage": 1}, "shows_usage"),
        ({"provider": ""}, "provider"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], says: str) -> None:
    """At once, and the client stays as it was."""
    with httpx.Client() as client:
        before = client._transport
        with pytest.raises(InvalidInputError, match=says):
            budgeted(client, **{"pool": SharedPoolBudgetManager(OPTIONS), **options})
        assert before is client._transport


def test_clients_without_httpx_are_refused(tmp_path: Path) -> None:
    """And those that have a budget, and those for threads where the budget is for tasks."""
    import openai

    budget = SharedPoolBudgetManager(OPTIONS)
    with pytest.raises(InvalidInputError, match=r"an? object has no HTTP client of httpx"):
        budgeted(object(), pool=budget)
    with pytest.raises(InvalidInputError, match=r"is the class OpenAI; make a client.*OpenAI\(\)"):
        budgeted(openai.OpenAI, pool=budget)
    with openai.OpenAI(api_key="none") as client:
        budgeted(client, pool=budget)
        with pytest.raises(InvalidInputError, match="has a budget already"):
            budgeted(client, pool=budget)

    async def of_tasks() -> None:
        async with AsyncLedger.open(f"sqlite:///{tmp_path}/ledger.db") as book:
            with httpx.Client() as client:
                budgeted(client, pool=await book.pool("team", OPTIONS))

    with pytest.raises(InvalidInputError, match="is for asyncio, and the client is not"):
        asyncio.run(of_tasks())


def test_a_table_of_ones_own_prices_all_calls(
    pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """A deployment's name that no list knows; the answer's own name is the model's."""
    prices = PriceList(
        {"price": [{"model": "our-gpt", "input": "1", "output": "1"}]}, library=False
    )
    server.answers(CHAT.whole)
    with budgeted(httpx.Client(), pool=pool, prices=prices) as client:
        url = f"{server.url}/openai/deployments/our-gpt/chat/completions?api-version=1"
        client.post(url, json={"messages": MESSAGES}).raise_for_status()
    assert 1_200 == pool.status().balance.committed.cost_micros_usd


def test_google_genai_keeps_to_httpx(
    pool: LedgerBudgetManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where aiohttp is installed, too, which google-genai would call by in asyncio."""
    from google import genai

    monkeypatch.setattr("google.genai._api_client.has_aiohttp", True)
    with genai.Client(api_key="none") as client:
        assert client._api_client._use_aiohttp()
        budgeted(client, pool=pool)
        assert not client._api_client._use_aiohttp()


EMBEDDED = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.0]}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 1_000, "total_tokens": 1_000},
}
OF_OPENAI = Attribution(provider="openai")


@pytest.mark.parametrize(
    ("options", "inside", "provider"),
    [
        ({}, None, "openai"),
        ({"provider": "openai"}, None, "openai"),
        ({"attribution": OF_OPENAI}, None, "openai"),
        ({"provider": "azure"}, OF_OPENAI, "openai"),
        ({"attribution": Attribution(provider="our gateway")}, None, "our gateway"),
    ],
)
def test_a_model_behind_an_unknown_address_has_a_provider(
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    of_openai: MakeClient,
    options: dict[str, Any],
    inside: Attribution | None,
    provider: str,
) -> None:
    """The one that was said, to `budgeted` or of the call; else whose protocol is spoken."""
    server.answers(wire.whole(EMBEDDED))
    with attributed(inside or Attribution()):
        of_openai(pool, **options).embeddings.create(model="text-embedding-3-small", input="a")
    _, *found = book.entries(pool.name)
    assert [provider] * 2 == [one.attribution.provider for one in found]
    assert 20 == pool.status().balance.committed.cost_micros_usd
    server.answers(CHAT.whole)
    with attributed(inside or Attribution()):
        chat = of_openai(pool, **(options | {"provider": None})).chat
        chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert provider == list(book.entries(pool.name))[-1].attribution.provider


CUT_USAGE = {
    "input_tokens": 40,
    "cache_read_input_tokens": 1_000,
    "cache_creation_input_tokens": 200,
    "output_tokens": 1,
}


@pytest.mark.parametrize("kind", ["ledger", "memory"])
def test_a_cut_stream_is_charged_its_known_input_and_all_output(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server, kind: str
) -> None:
    """Though less input was estimated; the total follows, and no figure is missing."""
    budget = pool if kind == "ledger" else SharedPoolBudgetManager(OPTIONS)
    started = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    begun = {"type": "message_start", "message": {**started, "usage": CUT_USAGE}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}}
    server.answers(wire.events([begun, delta], end=wire.End.UNMARKED))
    body = {
        "model": "claude-sonnet-4-5",
        "messages": MESSAGES,
        "max_tokens": 1_000,
        "stream": True,
    }
    with budgeted(httpx.Client(), pool=budget) as client, suppress(httpx.HTTPError):
        client.post(f"{server.url}/v1/messages", json=body)
    left = budget.remaining(RequestExtensions())
    # 40 at 3 a million, 1,000 at 0.30, 200 at 3.75, 1,000 at 15
    assert usd("1") - 16_170 == left.cost_micros_usd
    if kind == "ledger":
        assert ["estimated"] == [one.end for one in attempts(book, pool)]
        spent = reports.spend(book, pool.name).total
        assert (1_240, 1_000, 2_240) == (
            spent.input_tokens,
            spent.output_tokens,
            spent.total_tokens,
        )
        assert 0 == spent.unpriced


@pytest.mark.parametrize("in_asyncio", [False, True])
@pytest.mark.parametrize("protocol", ["chat", "responses", "messages"])
def test_a_stream_ends_where_its_protocol_does(
    pool: LedgerBudgetManager, server: wire.Server, protocol: str, *, in_asyncio: bool
) -> None:
    """Many clients read no further, and some never close it: the lease does not wait for that."""
    shape = BY_NAME[protocol]
    path = {
        "chat": "/v1/chat/completions",
        "responses": "/v1/responses",
        "messages": "/v1/messages",
    }
    server.answers(shape.stream.cut(len(shape.stream.parts), wire.End.NEVER))
    body = {"model": shape.model, "messages": MESSAGES, "input": "Hi", "stream": True}
    body |= {"stream_options": {"include_usage": True}} if protocol == "chat" else {}
    request = {"method": "POST", "url": f"{server.url}{path[protocol]}", "json": body}
    size = sum(map(len, shape.stream.parts))

    def settled() -> None:
        balance = pool.status().balance
        assert (0, shape.billed[1]) == (
            balance.reserved.requests,
            balance.committed.cost_micros_usd,
        )

    async def awaited() -> None:
        async with (
            budgeted(httpx.AsyncClient(), pool=pool) as client,
            client.stream(**request) as it,
        ):
            read = 0
            async for chunk in it.aiter_raw():
                read += len(chunk)
                if read == size:
                    settled()
                    return

    if in_asyncio:
        asyncio.run(awaited())
        return
    with budgeted(httpx.Client(), pool=pool) as client, client.stream(**request) as answer:
        read = 0
        for chunk in answer.iter_raw():
            read += len(chunk)
            if read == size:
                settled()
                break


@pytest.mark.usefixtures("few_objects")
def test_another_client_makes_another_call(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """Asking for the same after a failure, also where the first client is gone and forgotten."""
    for _ in range(20):  # a new object soon lies where an old one did
        server.answers(wire.error(400))
        with budgeted(httpx.Client(), pool=pool) as client:
            client.post(f"{server.url}/v1/chat/completions", json=BODY)
        del client
        gc.collect()
    found = attempts(book, pool)
    assert {1} == {one.number for one in found}
    assert len(found) == len({one.call for one in found})


def test_a_request_that_passes_uncounted_is_said_once(
    pool: LedgerBudgetManager, server: wire.Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Of each kind: a video costs something, and is no protocol that is known here."""
    server.answers(wire.whole({}))
    with budgeted(httpx.Client(base_url=server.url), pool=pool) as client:
        for path in ("/v1/videos", "/v1/videos", "/v1/files"):
            client.post(path, json={"model": "gpt-4o-mini-tts"})
        client.get("/v1/models")
        with Counted(pool, model="gpt-4o").call("Hi") as call:
            client.post("/v1/other", json={})
            call.record(Counts(input_tokens=1))
    said = [one.getMessage() for one in caplog.records if "uncounted" in one.getMessage()]
    assert ["/v1/videos", "/v1/files"] == [one.split()[3][9:] for one in said]
    assert 5 == len(server.requests)
