"""litellm: its functions, for threads and for tasks, whole and as streams, and its router."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ledger import (
    Attribution,
    InvalidInputError,
    Ledger,
    LedgerBudgetManager,
    RequestExtensions,
    ThresholdExceededError,
)
from ledger.transport import agent_run, attributed, budgeted, denial_of
from tests.transport import wire
from tests.transport.attempts import attempts
from tests.transport.fetched import unbudgeted
from tests.transport.libraries import MESSAGES
from tests.transport.shapes import BY_NAME
from tests.transport.test_agent_runs import attributions
from tests.transport.wire import End

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]

MODELS = {
    "chat": "gpt-4o",
    "messages": "anthropic/claude-sonnet-4-6",
    "gemini": "gemini/gemini-2.5-pro",
}
"""A model of each protocol; all are made by another kind of HTTP client in litellm."""


@pytest.fixture
def litellm(libraries: None, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ARG001 - makes it importable
    """Return the module, whose clients are those of this test alone."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    unbudgeted(litellm, monkeypatch)
    return litellm


@pytest.fixture
def asked(server: wire.Server) -> Callable[[str], dict[str, Any]]:
    """Return a function that says what a call of a protocol is given."""

    def make(protocol: str) -> dict[str, Any]:
        url = f"{server.url}/v1" if protocol == "chat" else server.url
        return {
            "model": MODELS[protocol],
            "messages": MESSAGES,
            "api_base": url,
            "api_key": "none",
            "max_tokens": 1_000,
        }

    return make


def called(litellm: Any, asked: dict[str, Any], *, stream: bool, in_asyncio: bool) -> str:
    """Make a call, and return the text of its answer."""

    async def awaited() -> str:
        answer = await litellm.acompletion(**asked, stream=stream)
        if not stream:
            return str(answer.choices[0].message.content)
        return "".join([one.choices[0].delta.content or "" async for one in answer])

    if in_asyncio:
        return asyncio.run(awaited())
    answer = litellm.completion(**asked, stream=stream)
    if not stream:
        return str(answer.choices[0].message.content)
    return "".join(one.choices[0].delta.content or "" for one in answer)


@pytest.mark.parametrize("in_asyncio", [False, True])
@pytest.mark.parametrize("protocol", MODELS)
def test_each_call_is_counted_once(
    litellm: Any,
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    asked: Callable[[str], dict[str, Any]],
    protocol: str,
    *,
    in_asyncio: bool,
) -> None:
    """By what the provider says, for the run that it is in; a stream that is cut, too."""
    budgeted(litellm, pool=pool, run_id="nightly")
    shape = BY_NAME[protocol]
    for stream in (False, True):
        server.answers(shape.stream if stream else shape.whole)
        with agent_run("lead"):
            said = called(litellm, asked(protocol), stream=stream, in_asyncio=in_asyncio)
        assert "Hello there" == said
    server.answers(shape.stream.cut(shape.middle, End.UNMARKED))
    with pytest.raises(Exception, match=r"litellm\."):
        called(litellm, {**asked(protocol), "num_retries": 0}, stream=True, in_asyncio=in_asyncio)
    found = attempts(book, pool)
    assert ["billed", "billed", "estimated"] == [one.end for one in found]
    assert [shape.billed] * 2 == [one.used for one in found[:2]]
    assert shape.known == found[2].observed
    assert [("lead", "nightly")] * 2 == [
        (one.agent, one.parent_run_id) for one in attributions(book, pool)
    ][:2]


@pytest.mark.parametrize("in_asyncio", [False, True])
def test_a_refusal_is_repeated_by_nobody(
    litellm: Any,
    book: Ledger,
    new_pool: Callable[..., LedgerBudgetManager],
    server: wire.Server,
    asked: Callable[[str], dict[str, Any]],
    *,
    in_asyncio: bool,
) -> None:
    """Neither by its functions nor by its router, which repeats other errors; it says why."""
    poor, chosen = new_pool(capacity_cost_micros_usd=1), []

    def choose(call: RequestExtensions) -> str:
        chosen.append(call.get(Attribution))
        return poor.name

    budgeted(litellm, pool=book.router(choose))
    given = {name: asked(name) for name in MODELS}
    for one in given.values():
        del one["messages"]
    router = litellm.Router(
        model_list=[{"model_name": name, "litellm_params": one} for name, one in given.items()]
    )
    for name in MODELS:
        for of, what in ((litellm, asked(name)), (router, {"model": name, "messages": MESSAGES})):
            with pytest.raises(Exception, match=r"cannot grant|402") as raised:
                called(of, what, stream=False, in_asyncio=in_asyncio)
            assert isinstance(denial_of(raised.value), ThresholdExceededError)
    assert 2 * len(MODELS) == len(chosen)
    assert [] == server.requests


def test_attempts_of_a_router(
    litellm: Any,
    book: Ledger,
    pool: LedgerBudgetManager,
    server: wire.Server,
    asked: Callable[[str], dict[str, Any]],
) -> None:
    """Each has a lease, whoever repeats it; clients that were made before are not used."""
    ask = asked("chat")
    server.answers(BY_NAME["chat"].whole)
    litellm.completion(**ask)
    budgeted(litellm, pool=pool)
    server.answers(wire.error(500), wire.error(500), wire.error(500), BY_NAME["chat"].whole)
    given = {name: value for name, value in ask.items() if name != "messages"}
    router = litellm.Router(
        model_list=[{"model_name": "any", "litellm_params": {**given, "max_retries": 0}}],
        num_retries=3,
        retry_after=0,
    )
    with attributed(Attribution(tenant="acme")):
        router.completion("any", MESSAGES)
    found = attempts(book, pool)
    assert ["released"] * 3 + ["billed"] == [one.end for one in found]
    assert len(server.requests) == len(found)
    (entry,) = attributions(book, pool)
    assert ("acme", "openai") == (entry.tenant, entry.provider)


def test_what_is_no_client_of_its_own_is_said(litellm: Any, pool: LedgerBudgetManager) -> None:
    """A router shares the clients of all; a second budget would count twice."""
    router = litellm.Router(model_list=[])
    with pytest.raises(InvalidInputError, match=r"give litellm itself.*routers share its clients"):
        budgeted(router, pool=pool)
    budgeted(litellm, pool=pool)
    with pytest.raises(InvalidInputError, match="has a budget already"):
        budgeted(litellm, pool=pool)


@pytest.mark.parametrize("in_asyncio", [False, True])
def test_what_goes_by_aiohttp_alone_is_refused(
    litellm: Any,
    pool: LedgerBudgetManager,
    server: wire.Server,
    asked: Callable[[str], dict[str, Any]],
    *,
    in_asyncio: bool,
) -> None:
    """It would pass uncounted."""
    server.answers(BY_NAME["chat"].whole)
    budgeted(litellm, pool=pool)
    given = {**asked("chat"), "model": "aiohttp_openai/gpt-4o"}
    with pytest.raises(Exception, match="not counted") as raised:
        called(litellm, given, stream=False, in_asyncio=in_asyncio)
    assert isinstance(denial_of(raised.value), InvalidInputError)
    assert [] == server.requests
