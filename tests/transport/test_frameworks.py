"""Frameworks around clients: each attempt is counted once, for its run, agent and tool."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from ledger import (
    Attribution,
    InvalidInputError,
    Ledger,
    LedgerBudgetManager,
    RequestExtensions,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    usd,
)
from ledger.transport import agent_run, attributed, budgeted, denial_of
from tests.fixtures import MakePool
from tests.transport import wire
from tests.transport.attempts import attempts
from tests.transport.shapes import BY_NAME
from tests.transport.test_agent_runs import attributions

CHAT, MESSAGE = BY_NAME["chat"], BY_NAME["messages"]
pytestmark = [
    pytest.mark.clients,
    pytest.mark.usefixtures("libraries"),
    pytest.mark.filterwarnings("ignore"),  # of the libraries, about themselves
]


def wishes(tool: str, **arguments: str) -> wire.Reply:
    """Return an answer that wants a tool to be called."""
    answer = json.loads(CHAT.whole.parts[0])
    wish = {"name": tool, "arguments": json.dumps(arguments)}
    call = {"id": f"call_{tool}", "type": "function", "function": wish}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {**answer["choices"][0], "message": message, "finish_reason": "tool_calls"}
    return wire.whole({**answer, "choices": [choice]})


def openai_model(server: wire.Server, **more: Any) -> Any:
    """Return a model of pydantic-ai."""
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", **more)
    return OpenAIChatModel("gpt-4o", provider=OpenAIProvider(openai_client=client))


def test_agents_of_pydantic_ai(book: Ledger, new_pool: MakePool, server: wire.Server) -> None:
    """A tool that starts another agent: a run below the first, paid by a pool below the first."""
    from pydantic_ai import Agent

    from ledger.integrations.pydantic_ai import Attributed

    pool = new_pool()
    below = SharedPoolBudgetOptions(capacity_cost_micros_usd=usd("0.1"))
    helpers = book.pool(f"{pool.name} / helper", below, parent=pool.name)
    by_agent = {"lead": pool.name, "helper": helpers.name}

    def payer(call: RequestExtensions) -> str:
        return by_agent[call.get(Attribution).agent]  # type: ignore[union-attr, index]

    helper = Agent(openai_model(server), name="helper", capabilities=[Attributed()])
    lead = Agent(openai_model(server), name="lead", capabilities=[Attributed()])

    @lead.tool_plain
    async def research(topic: str) -> str:
        return (await helper.run(topic)).output

    for agent in (lead, helper):
        budgeted(agent, pool=book.router(payer), run_id="nightly")
    server.answers(wishes("research", topic="ledgers"), CHAT.whole)

    async def run() -> Any:
        return await lead.run("Hi")

    result = asyncio.run(run())
    assert 3 == len(server.requests)
    first, last = attributions(book, pool)
    (within,) = attributions(book, helpers)
    assert first == last
    assert ("lead", "nightly", {}) == (first.agent, first.parent_run_id, first.tags)
    assert ("helper", first.run_id) == (within.agent, within.parent_run_id)
    assert {"tool": "research"} == within.tags
    assert result.run_id == first.run_id
    assert 3 * 3_750 == pool.status().balance.committed.cost_micros_usd
    assert 3_750 == helpers.status().balance.committed.cost_micros_usd


def test_streams_and_refusals_of_pydantic_ai(
    book: Ledger, pool: LedgerBudgetManager, new_pool: MakePool, server: wire.Server
) -> None:
    """A stream is one run, and its usage is the framework's, too; a refusal says why."""
    from pydantic_ai import Agent

    from ledger.integrations.pydantic_ai import Attributed

    server.answers(CHAT.stream)
    agent = Agent(openai_model(server), name="lead", capabilities=[Attributed()])
    budgeted(agent, pool=pool)

    async def run() -> int:
        async with agent.run_stream("Hi") as result:
            assert "Hello there" == await result.get_output()
            return result.usage.total_tokens

    assert 1_200 == asyncio.run(run())
    (found,) = attributions(book, pool)
    assert "lead" == found.agent
    poor = Agent(openai_model(server), name="poor")
    budgeted(poor, pool=new_pool(capacity_cost_micros_usd=1))

    async def refused() -> None:
        await poor.run("Hi")

    with pytest.raises(Exception, match=r"402|cannot grant") as raised:
        asyncio.run(refused())
    assert isinstance(denial_of(raised.value), ThresholdExceededError)
    assert 1 == len(server.requests)


def of_langchain(server: wire.Server, folder: str = "") -> Any:
    """Return a model of LangChain."""
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="gpt-4o", base_url=f"{server.url}{folder}/v1", api_key="none")


@pytest.mark.parametrize("in_asyncio", [False, True])
def test_tools_of_langchain(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server, *, in_asyncio: bool
) -> None:
    """An invocation is a run; a call within a tool says so, and behind it nothing is left over."""
    from langchain_core.runnables import RunnableLambda
    from langchain_core.tools import tool

    from ledger.integrations.langchain import Attributed

    model = budgeted(of_langchain(server), pool=pool)
    server.answers(CHAT.whole)

    @tool
    def research(topic: str) -> str:
        """Look it up."""
        return str(model.invoke(topic).content)

    @tool("research")
    async def aresearch(topic: str) -> str:
        """Look it up."""
        return str((await model.ainvoke(topic)).content)

    def lead(question: str) -> str:
        return str(model.invoke(str(research.invoke(question))).content)

    async def alead(question: str) -> str:
        return str((await model.ainvoke(str(await aresearch.ainvoke(question)))).content)

    config: Any = {"callbacks": [handler := Attributed()]}
    with attributed(Attribution(run_id="nightly")):
        if in_asyncio:
            asyncio.run(RunnableLambda(alead).ainvoke("Hi", config))
        else:
            RunnableLambda(lead).invoke("Hi", config)
        model.invoke("Hi")
    within, then, after = attributions(book, pool)
    assert ("nightly", {"tool": "research"}) == (within.parent_run_id, within.tags)
    assert (within.run_id, "nightly", {}) == (then.run_id, then.parent_run_id, then.tags)
    assert ("nightly", None) == (after.run_id, after.parent_run_id)
    assert 3 * 3_750 == pool.status().balance.committed.cost_micros_usd
    assert ({}, {}) == (handler._parts, handler._before)


def test_streams_of_langchain(pool: LedgerBudgetManager, server: wire.Server) -> None:
    """Its own usage, which it leaves out with an address of one's own, is there again."""
    from langchain_anthropic import ChatAnthropic

    server.answers(CHAT.stream)
    model = budgeted(of_langchain(server), pool=pool)
    said = [chunk.usage_metadata for chunk in model.stream("Hi")]
    assert 1_200 == sum(one["total_tokens"] for one in said if one)
    assert 3_750 == pool.status().balance.committed.cost_micros_usd

    server.answers(MESSAGE.whole)
    claude = ChatAnthropic(
        model=MESSAGE.model, base_url=server.url, api_key="none", max_tokens=1_000
    )
    budgeted(claude, pool=pool).invoke("Hi")
    assert 3_750 + 12_300 == pool.status().balance.committed.cost_micros_usd


def test_a_refusal_of_langchain(new_pool: MakePool, server: wire.Server) -> None:
    """It is not repeated, and says why; another model, with the same HTTP client, pays nothing."""
    other = of_langchain(server)
    model = budgeted(of_langchain(server), pool=new_pool(capacity_cost_micros_usd=1))
    server.answers(CHAT.whole)
    other.invoke("Hi")
    server.answers()
    with pytest.raises(InvalidInputError, match="has a budget already"):
        budgeted(model, pool=new_pool())
    with pytest.raises(Exception, match=r"402|cannot grant") as raised:
        model.invoke("Hi")
    assert isinstance(denial_of(raised.value), ThresholdExceededError)
    assert [] == server.requests


def test_a_run_of_openai_agents(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """Its stream has its usage with any address, and the run is attributed by a block around it."""
    import agents
    from openai import AsyncOpenAI

    agents.set_tracing_disabled(disabled=True)
    client = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none")
    model = agents.OpenAIChatCompletionsModel(model="gpt-4o", openai_client=client)
    agent = agents.Agent(name="triage", model=budgeted(model, pool=pool))
    server.answers(CHAT.stream)

    async def run() -> int:
        with agent_run("triage"):
            result = agents.Runner.run_streamed(agent, "Hi")
            async for _ in result.stream_events():
                pass
            return result.context_wrapper.usage.total_tokens

    assert 1_200 == asyncio.run(run())
    (found,) = attributions(book, pool)
    assert "triage" == found.agent
    assert 3_750 == pool.status().balance.committed.cost_micros_usd


def agent_of(server: wire.Server, name: str, budget: Any, **more: Any) -> Any:
    """Return an agent of openai-agents."""
    import agents
    from openai import AsyncOpenAI

    agents.set_tracing_disabled(disabled=True)
    client = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    model = agents.OpenAIChatCompletionsModel(model="gpt-4o", openai_client=client)
    return agents.Agent(name=name, model=budgeted(model, pool=budget, run_id="nightly"), **more)


@pytest.fixture
def runs(libraries: None) -> Iterator[None]:  # noqa: ARG001 - makes it importable
    """Attribute runs of openai-agents in this test alone."""
    from agents.run import get_default_agent_runner, set_default_agent_runner

    from ledger.integrations.openai_agents import attribute_runs

    before = get_default_agent_runner()
    attribute_runs()
    attribute_runs()  # once more changes nothing
    yield
    set_default_agent_runner(before)


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("way", ["run", "run_sync", "run_streamed"])
def test_agents_below_agents_of_openai_agents(
    book: Ledger, new_pool: MakePool, server: wire.Server, way: str
) -> None:
    """A tool that runs another agent, and a handoff: each is said, and pays by a pool below."""
    import agents

    pool = new_pool()
    below = SharedPoolBudgetOptions(capacity_cost_micros_usd=usd("0.1"))
    helpers = book.pool(f"{pool.name} / helper", below, parent=pool.name)
    by_agent = {"lead": pool.name, "helper": helpers.name, "writer": pool.name}

    def payer(call: RequestExtensions) -> str:
        return by_agent[call.get(Attribution).agent]  # type: ignore[union-attr, index]

    budget = book.router(payer)
    helper = agent_of(server, "helper", budget)
    writer = agent_of(server, "writer", budget)
    lead = agent_of(
        server, "lead", budget, tools=[helper.as_tool("research", "Looks up.")], handoffs=[writer]
    )
    seen: list[str] = []

    class Hooks(agents.RunHooks[Any]):
        async def on_agent_start(self, _context: Any, agent: Any) -> None:
            seen.append(agent.name)

    wish = wishes("research", input="ledgers"), CHAT.whole, wishes("transfer_to_writer")
    server.answers(
        *(
            as_stream(one) if way == "run_streamed" and number != 1 else one
            for number, one in enumerate((*wish, CHAT.whole))
        )
    )

    async def in_asyncio() -> None:
        if way == "run":
            await agents.Runner.run(lead, "Hi", hooks=Hooks())
            return
        result = agents.Runner.run_streamed(lead, "Hi", hooks=Hooks())
        async for _ in result.stream_events():
            pass

    if way == "run_sync":
        agents.Runner.run_sync(lead, "Hi", hooks=Hooks())
    else:
        asyncio.run(in_asyncio())
    assert ["lead", "writer"] == seen
    first, second, third = attributions(book, pool)
    (within,) = attributions(book, helpers)
    assert ["lead", "lead", "writer"] == [one.agent for one in (first, second, third)]
    assert {first.run_id} == {second.run_id, third.run_id}
    assert ("nightly", first.run_id) == (first.parent_run_id, within.parent_run_id)
    assert "helper" == within.agent
    assert 4 * 3_750 == pool.status().balance.committed.cost_micros_usd
    assert 3_750 == helpers.status().balance.committed.cost_micros_usd


@pytest.mark.usefixtures("runs")
def test_a_run_of_openai_agents_that_fails(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """No hook is called then; what is called afterwards is for no run of it."""
    import agents

    agent = agent_of(server, "triage", pool)

    async def run() -> None:
        server.answers(wire.error(400))
        with pytest.raises(Exception, match="400"):
            await agents.Runner.run(agent, "Hi")
        server.answers(CHAT.whole)
        await agent.model.get_response(
            system_instructions=None,
            input="Hi",
            model_settings=agents.ModelSettings(),
            tools=[],
            output_schema=None,
            handoffs=[],
            tracing=agents.ModelTracing.DISABLED,
            previous_response_id=None,
            conversation_id=None,
            prompt=None,
        )

    asyncio.run(run())
    (found,) = attributions(book, pool)
    assert ("nightly", None, None) == (found.run_id, found.parent_run_id, found.agent)


@pytest.mark.usefixtures("runs")
def test_a_run_of_openai_agents_that_is_left_spends_no_more(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """Without it the run goes on behind the loop: tools are called, and models again."""
    import agents

    called: list[str] = []

    @agents.function_tool
    def research(topic: str) -> str:
        """Look it up."""
        called.append(topic)
        return "all about it"

    agent = agent_of(server, "triage", pool, tools=[research])
    server.answers(as_stream(wishes("research", topic="ledgers")))

    async def run() -> None:
        result = agents.Runner.run_streamed(agent, "Hi", max_turns=50)
        async for event in result.stream_events():
            if event.type == "run_item_stream_event":
                break
        await asyncio.sleep(0.3)
        requests = len(server.requests)
        await asyncio.sleep(0.3)
        assert requests == len(server.requests) < 5

    asyncio.run(run())
    assert [] == list(book.open_leases(pool.name))


def as_stream(whole: wire.Reply) -> wire.Reply:
    """Return the same answer as a stream of chat."""
    answer = json.loads(whole.parts[0])
    (choice,) = answer["choices"]
    message = choice["message"]
    for number, call in enumerate(message.get("tool_calls") or ()):
        call["index"] = number
    base = {**answer, "object": "chat.completion.chunk", "usage": None}
    chunks = [
        {"index": 0, "delta": message, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]},
    ]
    made = [{**base, "choices": [one]} for one in chunks]
    return wire.events([*made, {**base, "choices": [], "usage": answer["usage"]}, "[DONE]"])


def test_clients_of_groq_and_mistral(pool: LedgerBudgetManager, server: wire.Server) -> None:
    """Their clients have httpx of their own inside."""
    import groq
    from mistralai.client import Mistral

    asked: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
    server.answers(CHAT.whole)
    client = budgeted(groq.Groq(base_url=server.url, api_key="none"), pool=pool)
    client.chat.completions.create(**asked)
    mistral = budgeted(Mistral(server_url=server.url, api_key="none"), pool=pool)
    mistral.chat.complete(**asked)
    assert 2 * 3_750 == pool.status().balance.committed.cost_micros_usd


@pytest.mark.parametrize("way", ["whole", "stream", "stream, cut"])
def test_clients_of_cohere(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server, way: str
) -> None:
    """What is billed counts, not what the model saw; both are said as fractions."""
    import cohere

    usage = {
        "billed_units": {"input_tokens": 900.0, "output_tokens": 200.0},
        "tokens": {"input_tokens": 1000.0, "output_tokens": 210.0},
    }
    text = {"type": "text", "text": "Hello there"}
    message = {"role": "assistant", "content": [text]}
    end = {"finish_reason": "COMPLETE", "usage": usage}
    stream = wire.events(
        [
            {"type": "message-start", "id": "c1", "delta": {"message": {"role": "assistant"}}},
            {
                "type": "content-delta",
                "index": 0,
                "delta": {"message": {"content": {"text": "Hello there"}}},
            },
            {"type": "message-end", "delta": end},
        ]
    )
    server.answers(
        wire.whole({"id": "c1", "message": message, **end})
        if way == "whole"
        else stream.cut(2 if "cut" in way else 3, wire.End.MARKED)
    )
    client = budgeted(cohere.ClientV2(base_url=server.url, api_key="none"), pool=pool)
    asked: Any = {
        "model": "command-r-08-2024",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 500,
    }
    if way == "whole":
        client.chat(**asked)
    else:
        list(client.chat_stream(**asked))
    (found,) = attempts(book, pool)
    if "cut" in way:
        assert ("estimated", found.reserved) == (found.end, found.used)
        return
    # 900 at 0.15 a million, 200 at 0.60
    assert ("billed", (1_100, 255)) == (found.end, found.used)
    (who,) = attributions(book, pool)
    assert "cohere" == who.provider


@pytest.mark.parametrize("way", ["whole", "lines", "events", "lines, cut"])
def test_clients_of_cohere_that_speak_version_1(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server, way: str
) -> None:
    """Its streams are lines of JSON, or events where they are asked for."""
    import cohere

    units = {"input_tokens": 900.0, "output_tokens": 200.0}
    answer = {
        "response_id": "r1",
        "generation_id": "g1",
        "text": "Hello there",
        "finish_reason": "COMPLETE",
        "meta": {"billed_units": units, "tokens": {"input_tokens": 1000.0}},
    }
    events: list[object] = [
        {"event_type": "stream-start", "generation_id": "g1", "is_finished": False},
        {"event_type": "text-generation", "text": "Hello there", "is_finished": False},
        {"event_type": "stream-end", "is_finished": True, "response": answer},
    ]
    lines = wire.Reply(
        parts=tuple(json.dumps(one).encode() + b"\n" for one in events),
        content_type="application/stream+json",
    )
    server.answers(
        {
            "whole": wire.whole(answer),
            "lines": lines,
            "events": wire.events(events),
            "lines, cut": lines.cut(2, wire.End.MARKED),
        }[way]
    )
    client = budgeted(cohere.Client(base_url=server.url, api_key="none"), pool=pool)
    asked: Any = {"model": "command-r-08-2024", "message": "Hi", "max_tokens": 500}
    if way == "whole":
        client.chat(**asked)
    elif way == "events":
        list(client.chat_stream(**asked, accepts="text/event-stream"))
    else:
        list(client.chat_stream(**asked))
    (found,) = attempts(book, pool)
    if "cut" in way:
        assert ("estimated", found.reserved) == (found.end, found.used)
        return
    # 900 at 0.15 a million, 200 at 0.60
    assert ("billed", (1_100, 255)) == (found.end, found.used)


@pytest.mark.parametrize("way", ["whole", "stream", "whole, asyncio", "stream, asyncio", "left"])
def test_a_handler_of_langchain_counts_and_stops(
    book: Ledger, new_pool: MakePool, server: wire.Server, way: str
) -> None:
    """Of a model without a budget; nothing is sent for a call that the budget refuses."""
    from ledger.integrations.langchain import Budgeted

    def call(pool: LedgerBudgetManager) -> None:
        model = of_langchain(server, f"/{len(way)}")  # models of one address share their clients
        given: Any = {"config": {"callbacks": [Budgeted(pool)]}}

        async def awaited() -> None:
            if "whole" in way:
                await model.ainvoke("Hi", **given)
            else:
                assert [one async for one in model.astream("Hi", stream_usage=True, **given)]

        if "asyncio" in way:
            asyncio.run(awaited())
        elif way == "whole":
            model.invoke("Hi", **given)
        else:
            for _ in model.stream("Hi", stream_usage=True, **given):
                if way == "left":
                    break

    pool = new_pool()
    server.answers(CHAT.whole if "whole" in way else CHAT.stream)
    call(pool)
    (found,) = attempts(book, pool)
    ends = ("estimated", found.reserved) if way == "left" else ("billed", CHAT.billed)
    assert ends == (found.end, found.used)
    server.answers()
    with pytest.raises(ThresholdExceededError):
        call(new_pool(capacity_cost_micros_usd=1))
    assert [] == server.requests


def test_a_handler_and_a_transport_of_langchain_count_once(
    book: Ledger, pool: LedgerBudgetManager, server: wire.Server
) -> None:
    """What the handler counts passes the transport uncounted."""
    from ledger.integrations.langchain import Budgeted

    server.answers(CHAT.whole)
    model = budgeted(of_langchain(server), pool=pool)
    model.invoke("Hi", config={"callbacks": [Budgeted(pool)]})
    (found,) = attempts(book, pool)
    assert ("billed", CHAT.billed) == (found.end, found.used)
    model.invoke("Hi")
    assert 2 == len(attempts(book, pool))
