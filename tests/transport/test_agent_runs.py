"""Whom calls are for: agents and the agents that they start, each with a pool of its own."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import httpx
import pytest

from ledger import (
    Attribution,
    EntryKind,
    InvalidInputError,
    Ledger,
    LedgerBudgetManager,
    RequestExtensions,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownPriceError,
    usd,
)
from ledger.transport import agent_run, attributed, budgeted
from ledger.transport.settings import Settings, acting_now
from tests.transport import wire
from tests.transport.libraries import MESSAGES
from tests.transport.shapes import BY_NAME, CHAT_USAGE, GEMINI_USAGE

if TYPE_CHECKING:
    import openai

CHAT, MESSAGE, GEMINI = BY_NAME["chat"], BY_NAME["messages"], BY_NAME["gemini"]


def attributions(book: Ledger, pool: LedgerBudgetManager) -> Iterator[Attribution]:
    """Yield whom the calls that a pool paid for were for."""
    for entry in book.entries(pool.name):
        if entry.kind == EntryKind.SETTLEMENT and entry.origin is None:
            assert entry.attribution is not None
            yield entry.attribution


def test_an_agent_that_is_named_for_a_part_of_a_run_stays() -> None:
    """Hooks say who acts in a run; a tool inside it may say that it acts for somebody else."""
    settings = Settings.of(SharedPoolBudgetManager(SharedPoolBudgetOptions()), run_id="job")
    with agent_run("triage"):
        acting_now().agent = "billing"
        assert "billing" == settings.attribution_of(model="m").agent
        with attributed(Attribution(agent="researcher")):
            assert "researcher" == settings.attribution_of(model="m").agent
        assert "billing" == settings.attribution_of(model="m").agent


def test_an_agent_that_starts_another(
    book: Ledger,
    new_pool: Callable[..., LedgerBudgetManager],
    server: wire.Server,
    of_openai: Callable[..., openai.OpenAI],
) -> None:
    """Runs are below the run that started them; a router lets each agent pay by its own pool."""
    lead = new_pool()
    small = SharedPoolBudgetOptions(capacity_cost_micros_usd=usd("0.1"))
    helper = book.pool(f"{lead.name} / helper", small, parent=lead.name)
    by_agent = {"lead": lead.name, "helper": helper.name}

    def payer(call: RequestExtensions) -> str:
        who = call.get(Attribution)
        assert who is not None
        assert who.agent is not None
        return by_agent[who.agent]

    client = of_openai(book.router(payer), run_id="nightly")
    server.answers(CHAT.whole)

    def ask() -> None:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)

    with agent_run("lead", tags={"a": "1"}) as outer:
        ask()
        with attributed(Attribution(tags={"tool": "research"})), agent_run("helper") as inner:
            ask()
        ask()
    with agent_run("helper", run_id="alone"):
        ask()
    of_lead = [(one.run_id, one.parent_run_id) for one in attributions(book, lead)]
    assert [(outer, "nightly")] * 2 == of_lead
    first, second = attributions(book, helper)
    assert (inner, outer, "helper") == (first.run_id, first.parent_run_id, first.agent)
    assert {"a": "1", "tool": "research"} == first.tags
    assert ("alone", "nightly") == (second.run_id, second.parent_run_id)
    assert 4 * 3_750 == lead.status().balance.committed.cost_micros_usd
    assert 2 * 3_750 == helper.status().balance.committed.cost_micros_usd
    with pytest.raises(InvalidInputError, match="agent"), agent_run(""):
        pass


def test_the_budgets_own_error_out_of_anthropic(
    new_pool: Callable[..., LedgerBudgetManager], pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """By a middleware, for threads and for tasks; what is not refused passes."""
    import anthropic

    from ledger.integrations.anthropic import Denials

    asked = {"model": MESSAGE.model, "messages": MESSAGES, "max_tokens": 1_000}
    given = {"api_key": "none", "base_url": server.url, "middleware": [Denials()]}
    server.answers(MESSAGE.whole)
    with budgeted(anthropic.Anthropic(**given), pool=pool) as client:
        client.messages.create(**asked)
    assert 12_300 == pool.status().balance.committed.cost_micros_usd

    poor = new_pool(capacity_cost_micros_usd=1)
    with (
        budgeted(anthropic.Anthropic(**given), pool=poor) as client,
        pytest.raises(ThresholdExceededError),
    ):
        client.messages.create(**asked)

    async def in_asyncio() -> None:
        async with budgeted(anthropic.AsyncAnthropic(**given), pool=poor) as client:
            await client.messages.create(**asked)

    with pytest.raises(ThresholdExceededError):
        asyncio.run(in_asyncio())
    assert 1 == len(server.requests)


def test_each_request_of_a_call_with_tools_is_counted(
    pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """google-genai calls functions by itself: four requests, of which it reports the last one."""
    from google import genai

    def look_up(what: str) -> str:
        """Look something up."""
        return f"all about {what}"

    wish = {"functionCall": {"name": "look_up", "args": {"what": "ledgers"}}}
    content = {"role": "model", "parts": [wish]}
    asks = wire.whole(
        {
            "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
            "modelVersion": GEMINI.model,
            "usageMetadata": GEMINI_USAGE,
        }
    )
    server.answers(asks, asks, asks, GEMINI.whole)
    with budgeted(
        genai.Client(api_key="none", http_options={"base_url": server.url}), pool=pool
    ) as client:
        answer = client.models.generate_content(
            model=GEMINI.model, contents="Hi", config={"tools": [look_up]}
        )
    assert 1_200 == answer.usage_metadata.total_token_count
    assert 4 == len(server.requests)
    committed = pool.status().balance.committed
    assert (4 * 1_200, 4 * 2_575) == (committed.tokens, committed.cost_micros_usd)


def test_a_block_counts_what_is_below_it_once(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """`Counted` around calls of a budgeted client: a decorator and a block, threads and tasks."""
    from ledger.integrations.calls import Counted

    counted = Counted(pool, model="gpt-4o", max_output_tokens=400)
    server.answers(CHAT.whole)
    url, body = f"{server.url}/v1/chat/completions", {"model": "gpt-4o", "messages": MESSAGES}

    @counted
    def ask(question: str) -> object:
        """Ask."""
        assert question
        return client.post(url, json=body).json()

    with budgeted(httpx.Client(), pool=pool) as client, agent_run("lead", run_id="r"):
        assert "chatcmpl-1" == ask("Hi")["id"]
        with counted.call("Hi") as call:
            call.record(client.post(url, json=body).json())
        client.post(url, json=body)

    @counted
    async def aask(question: str) -> object:
        assert question
        async with budgeted(httpx.AsyncClient(), pool=pool) as tasks:
            return (await tasks.post(url, json=body)).json()

    async def in_asyncio() -> None:
        await aask("Hi")
        async with counted.call("Hi") as call:
            await call.arecord({"usage": CHAT_USAGE})

    asyncio.run(in_asyncio())
    assert "Ask." == ask.__doc__
    assert 5 * 3_750 == pool.status().balance.committed.cost_micros_usd
    assert ["r", "r", "r", None, None] == [one.run_id for one in attributions(book, pool)]


def test_a_counted_call_says_what_a_budgeted_one_does(
    book: Ledger, new_pool: Callable[..., LedgerBudgetManager], pool: LedgerBudgetManager
) -> None:
    """Its provider, its number, and why a model without a price is refused; tokens alone pass."""
    from ledger.integrations.calls import Counted

    Counted(pool, model="gpt-4o")(lambda _: {"usage": CHAT_USAGE})("Hi")
    (found,) = attributions(book, pool)
    assert ("openai", "gpt-4o", "chat") == (found.provider, found.model, found.operation)
    (entry,) = (one for one in book.entries(pool.name) if one.kind == EntryKind.SETTLEMENT)
    assert f"call-{entry.detail['report']['attempt']['call']}.1" == entry.request_id
    with pytest.raises(UnknownPriceError, match="no price for the model 'house-1'"):
        Counted(pool, model="house-1")(lambda _: {"usage": CHAT_USAGE})("Hi")
    tokens = new_pool(capacity_cost_micros_usd=2**64 - 1, capacity_tokens=10_000)
    Counted(tokens, model="house-1")(lambda _: {"usage": CHAT_USAGE})("Hi")
    assert 1_200 == tokens.status().balance.committed.tokens
    with pytest.raises(InvalidInputError, match="stands in the attribution"):
        Counted(pool, model="gpt-4o", provider="azure", attribution=Attribution(provider="azure"))


def test_what_goes_on_after_a_block_is_counted(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """A task that was made inside, also where the block is left in another context."""
    from ledger.integrations.calls import Counted

    counted = Counted(pool, model="gpt-4o", max_output_tokens=400)
    server.answers(CHAT.whole)
    url, body = f"{server.url}/v1/chat/completions", {"model": "gpt-4o", "messages": MESSAGES}

    async def in_asyncio() -> None:
        ended = asyncio.Event()

        async def later() -> None:
            await ended.wait()
            async with budgeted(httpx.AsyncClient(), pool=pool) as client:
                await client.post(url, json=body)

        async with counted.call("Hi") as call:
            task = asyncio.create_task(later())
            await asyncio.sleep(0)
            await call.arecord({"usage": CHAT_USAGE})
        ended.set()
        await task

    asyncio.run(in_asyncio())
    assert 2 * 3_750 == pool.status().balance.committed.cost_micros_usd
    block = counted.call("Hi")
    contextvars.copy_context().run(block.__enter__)
    contextvars.copy_context().run(block.__exit__, None, None, None)
    assert [] == list(book.open_leases(pool.name))

    def several(_question: str) -> Iterator[str]:
        yield "a part"

    with pytest.raises(InvalidInputError, match="is a generator"):
        counted(several)


def test_a_counted_call_ends_as_any_other(
    new_pool: Callable[..., LedgerBudgetManager], server: wire.Server
) -> None:
    """Refused: it is not made. Without usage: the estimate. Not billed: nothing."""
    from ledger.integrations.calls import Counted

    made = []
    refused = Counted(new_pool(capacity_cost_micros_usd=1), model="gpt-4o")(made.append)
    with pytest.raises(ThresholdExceededError):
        refused("Hi")
    assert [] == made

    pool = new_pool()
    counted = Counted(pool, model="gpt-4o", max_output_tokens=400)
    assert {"no": "usage"} == counted(lambda _question: {"no": "usage"})("Hi")
    estimated = pool.status().balance.committed.cost_micros_usd
    assert 4_000 < estimated < 4_100
    server.answers(wire.error(400))
    with pytest.raises(httpx.HTTPStatusError):
        counted(lambda _question: httpx.get(server.url).raise_for_status())("Hi")
    balance = pool.status().balance
    assert (estimated, 0) == (
        balance.committed.cost_micros_usd,
        balance.reserved.cost_micros_usd,
    )


def test_runs_below_an_agent_that_makes_no_call(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """They are below the nearest run around them that has made one, or below the client's run."""
    server.answers(CHAT.whole)
    url, body = f"{server.url}/v1/chat/completions", {"model": "gpt-4o", "messages": MESSAGES}
    found = {}

    async def in_asyncio(client: httpx.AsyncClient) -> None:
        async def ask(agent: str) -> None:
            with agent_run(agent, run_id=agent):
                await client.post(url, json=body)
                await client.post(url, json=body)

        async def lead(name: str, *, calls: bool) -> None:
            with agent_run(name, run_id=name):
                if calls:
                    await client.post(url, json=body)
                with agent_run("middle", run_id=f"{name} middle"):
                    await asyncio.gather(ask(f"{name} 1"), ask(f"{name} 2"))
                await client.post(url, json=body)
                await ask(f"{name} 3")

        await asyncio.gather(lead("quiet", calls=False), lead("busy", calls=True))

    async def with_run() -> None:
        async with budgeted(httpx.AsyncClient(), pool=pool, run_id="job-9") as client:
            await in_asyncio(client)

    asyncio.run(with_run())
    for one in attributions(book, pool):
        assert found.setdefault(one.run_id, one.parent_run_id) == one.parent_run_id
    quiet = {"quiet": "job-9", "quiet 1": "job-9", "quiet 2": "job-9", "quiet 3": "quiet"}
    busy = {"busy": "job-9", "busy 1": "busy", "busy 2": "busy", "busy 3": "busy"}
    assert quiet | busy == found


def test_runs_below_an_agent_that_makes_no_call_of_a_client_without_a_run(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """They stay together, below the outermost; a refused call is none, and a named run counts."""
    server.answers(CHAT.whole)
    url, body = f"{server.url}/v1/chat/completions", {"model": "gpt-4o", "messages": MESSAGES}
    poor = SharedPoolBudgetOptions(capacity_cost_micros_usd=1)
    with (
        budgeted(httpx.Client(), pool=pool) as client,
        budgeted(httpx.Client(), pool=book.pool(f"{pool.name} / poor", poor)) as refused,
    ):
        with agent_run("lead", run_id="lead"), agent_run("middle", run_id="middle"):
            assert 402 == refused.post(url, json=body).status_code
            for name in "ab":
                with agent_run(name, run_id=name):
                    client.post(url, json=body)
        with attributed(Attribution(run_id="job")), agent_run(run_id="c"), agent_run(run_id="d"):
            client.post(url, json=body)
        with agent_run(run_id="e"):
            client.post(url, json=body)
    assert [("a", "lead"), ("b", "lead"), ("d", "job"), ("e", None)] == [
        (one.run_id, one.parent_run_id) for one in attributions(book, pool)
    ]
