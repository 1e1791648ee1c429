"""What the budget refuses does not leave, is not repeated, and says why."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from ledger import (
    InvalidInputError,
    Ledger,
    LedgerBudgetManager,
    LedgerUnavailableError,
    RequestBudget,
    RequestExtensions,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownPoolError,
    Unpriced,
    UnpricedCallError,
    reports,
)
from ledger.core.errors import LedgerError
from ledger.reports.render import denials_sheet
from ledger.transport import budgeted, denial_of
from tests.transport import fetched, wire
from tests.transport.attempts import attempts
from tests.transport.libraries import COLUMNS, MESSAGES
from tests.transport.shapes import BY_NAME

if TYPE_CHECKING:
    import openai

CHAT = BY_NAME["chat"]
MakeClient = Callable[..., "openai.OpenAI"]


@pytest.mark.parametrize("library", COLUMNS)
@pytest.mark.filterwarnings("ignore")  # of the libraries, about themselves
def test_a_refused_call_is_made_once_and_says_why(
    library: str, new_pool: Callable[..., LedgerBudgetManager], server: wire.Server
) -> None:
    """In each library, in one piece and as a stream: its error leads to the denial."""
    pool = new_pool(capacity_cost_micros_usd=1)
    make, shape = COLUMNS[library]
    with closing(make(shape, server.url, 30, {"pool": pool})) as calls:
        for call in (calls.whole, lambda: list(calls.stream())):
            with pytest.raises(Exception, match=r"cannot grant|402") as raised:
                call()
            denial = denial_of(raised.value)
            assert isinstance(denial, ThresholdExceededError)
            assert (pool.name, 1) == (denial.pool, denial.remaining_cost_micros_usd)
    assert [] == server.requests


def chat(client: openai.OpenAI, model: str = "gpt-4o", **more: object) -> object:
    """Make a call."""
    return client.chat.completions.create(model=model, **{"messages": MESSAGES, **more})  # type: ignore[call-overload]


def refused(call: Callable[[], object]) -> LedgerError:
    """Return why a call was refused; the client tried once."""
    import openai

    with pytest.raises(openai.APIStatusError) as raised:
        call()
    assert "0" == raised.value.request.headers["x-stainless-retry-count"]
    denial = denial_of(raised.value)
    assert denial is not None
    return denial


def message_of(call: Callable[[], object]) -> str:
    """Return the message of a refused call's error."""
    import openai

    with pytest.raises(openai.APIStatusError) as raised:
        call()
    return str(raised.value)


def test_a_model_without_a_price_is_refused_where_cost_is_limited(
    new_pool: Callable[..., LedgerBudgetManager],
    server: wire.Server,
    of_openai: MakeClient,
    book: Ledger,
) -> None:
    """By the rule of all estimates without a cost: tokens alone may be limited, or it is free."""
    server.answers(CHAT.whole)
    pool = new_pool()
    denial = refused(lambda: chat(of_openai(pool), "house-1"))
    assert isinstance(denial, UnpricedCallError)
    assert "no price for the model 'house-1'" in str(denial)
    assert [] == server.requests == attempts(book, pool)

    tokens_alone = new_pool(capacity_cost_micros_usd=2**64 - 1, capacity_tokens=10_000)
    chat(of_openai(tokens_alone), "house-1")
    free = RequestExtensions(Unpriced.FLAG)
    chat(of_openai(pool, extensions=free), "house-1")
    # The answer names a model that has a price.
    assert [(1_200, 3_750)] == [one.used for one in attempts(book, tokens_alone)]
    assert [(1_200, 3_750)] == [one.used for one in attempts(book, pool)]


def test_an_error_leads_to_its_denial_in_the_books(
    tmp_path: Path, server: wire.Server, of_openai: MakeClient
) -> None:
    """By the number in it, which the report on denials has; also of a call that is made again."""
    import openai

    small = SharedPoolBudgetOptions(capacity_cost_micros_usd=1)
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", record_denials=True) as book:
        client = of_openai(book.pool("small", small))
        errors = []
        for _ in range(2):
            with pytest.raises(openai.APIStatusError) as raised:
                chat(client)
            errors.append(raised.value)
        first, second = reports.denials(book)
        table = denials_sheet([first, second])
    for error, kept in zip(errors, (first, second), strict=True):
        (number,) = re.findall(r"ledger-denial-([^)]+)\)", str(error))
        assert f"call-{number}" == kept.request_id
        assert any(f"call-{number}" in map(str, row) for row in table.rows)
        assert isinstance(denial_of(Exception(str(error))), ThresholdExceededError)
    assert denial_of(errors[0]) is not denial_of(errors[1])
    assert [] == server.requests


def test_one_attempt_has_a_limit_of_its_own(
    pool: LedgerBudgetManager, server: wire.Server, of_openai: MakeClient
) -> None:
    """`request_budget` refuses before the call; after it what was spent is recorded."""
    limited = RequestBudget.from_tokens(500)
    client = of_openai(pool, request_budget=limited)
    server.answers(CHAT.whole)
    assert "over the request's own budget" in str(refused(lambda: chat(client)))
    chat(client, max_completion_tokens=400)
    assert 3_750 == pool.status().balance.committed.cost_micros_usd


def test_a_store_that_cannot_be_asked_refuses(server: wire.Server, of_openai: MakeClient) -> None:
    """Nothing leaves without a reservation: the answer is 503, and it is not repeated."""

    class Lost(SharedPoolBudgetManager):
        def reserve(self, *_arguments: object, **_words: object) -> object:  # type: ignore[override]
            raise LedgerUnavailableError("the store is away")

    server.answers(CHAT.whole)
    client = of_openai(Lost(SharedPoolBudgetOptions()))
    denial = refused(lambda: chat(client))
    assert isinstance(denial, LedgerUnavailableError)
    assert [] == server.requests


@pytest.mark.parametrize(
    ("more", "limit"),
    [({}, {"capacity_tokens": 500}), ({"request_budget": RequestBudget(tokens=500)}, {})],
)
def test_an_output_that_is_too_large_names_the_remedy(
    more: dict[str, object],
    limit: dict[str, int],
    new_pool: Callable[..., LedgerBudgetManager],
    of_openai: MakeClient,
) -> None:
    """A call that says how much it wants is told to lower that, if it is the larger part."""
    client = of_openai(new_pool(**limit), **more)
    said = (
        "The request has no limit of its output, so 4,096 tokens were assumed: set "
        "max_completion_tokens or max_tokens in it, or max_output_tokens= of budgeted() (ledger-"
    )
    assert said in message_of(lambda: chat(client))
    told = message_of(lambda: chat(client, max_completion_tokens=4_096))
    assert (
        "The request allows 4,096 tokens of output (max_completion_tokens): lower that (ledger-"
        in told
    )
    told = message_of(lambda: chat(client, max_tokens=4_096, n=2))
    assert "4,096 tokens of output in each of 2 answers (max_tokens): lower that (" in told
    long = [{"role": "user", "content": "Hello " * 5_000}]
    told = message_of(lambda: chat(client, messages=long, max_tokens=400))
    assert re.search(r"(?<!lower that) \(ledger-denial-", told)


def test_no_smaller_output_is_asked_for_where_nothing_is_left(
    new_pool: Callable[..., LedgerBudgetManager], of_openai: MakeClient
) -> None:
    """It would be refused, too."""
    client = of_openai(new_pool(capacity_requests=0))
    told = message_of(lambda: chat(client, max_tokens=4_096))
    assert "cannot grant" in told
    assert "lower that" not in told


def test_refusals_of_providers_are_not_the_budgets(
    pool: LedgerBudgetManager, server: wire.Server, of_openai: MakeClient
) -> None:
    """A provider's own 402 has no denial."""
    import openai

    server.answers(wire.error(402))
    with pytest.raises(openai.APIStatusError) as raised:
        chat(of_openai(pool))
    assert denial_of(raised.value) is None


class Gate:
    """Keeps all answers back until as many calls were refused as should be."""

    def __init__(self, refusals: int) -> None:
        self._left = refusals
        self._lock = threading.Lock()
        self._open = threading.Event()

    def refused(self) -> None:
        """Note a refusal."""
        with self._lock:
            self._left -= 1
            if not self._left:
                self._open.set()

    def answer(self, _request: wire.Request) -> wire.Reply:
        """Answer when the gate is open."""
        self._open.wait()
        return CHAT.whole


CALLERS, ADMITTED = 32, 10
RESERVED = 40_998
"""What one of these calls is held at."""


def body() -> dict[str, object]:
    """Return the request of a call."""
    return {"model": "gpt-4o", "messages": MESSAGES}


@pytest.mark.parametrize("of_tasks", [False, True], ids=["threads", "tasks"])
@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_callers_at_once_do_not_overspend(
    store: str,
    new_pool: Callable[..., LedgerBudgetManager],
    server: wire.Server,
    *,
    of_tasks: bool,
) -> None:
    """32 callers share a budget for ten calls, while none of them has ended: ten are made."""
    capacity = ADMITTED * RESERVED
    pool: LedgerBudgetManager | SharedPoolBudgetManager = new_pool(
        capacity_cost_micros_usd=capacity
    )
    if store == "memory":
        pool = SharedPoolBudgetManager(SharedPoolBudgetOptions(capacity_cost_micros_usd=capacity))
    gate = Gate(CALLERS - ADMITTED)
    server.answers(gate.answer)
    url = f"{server.url}/v1/chat/completions"
    statuses: list[int] = []

    def note(answer: httpx.Response) -> None:
        statuses.append(answer.status_code)
        if answer.status_code == 402:
            gate.refused()

    async def tasks() -> None:
        limits = httpx.Limits(max_connections=CALLERS)
        async with budgeted(httpx.AsyncClient(limits=limits, timeout=60), pool=pool) as client:

            async def one() -> None:
                note(await client.post(url, json=body()))

            await asyncio.gather(*(one() for _ in range(CALLERS)))

    if of_tasks:
        asyncio.run(tasks())
    else:
        with budgeted(httpx.Client(timeout=60), pool=pool) as client:
            threads = [
                threading.Thread(target=lambda: note(client.post(url, json=body())))
                for _ in range(CALLERS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert [200] * ADMITTED + [402] * (CALLERS - ADMITTED) == sorted(statuses)
    assert ADMITTED == len(server.requests)
    left = pool.remaining(RequestExtensions())
    assert capacity - ADMITTED * 3_750 == left.cost_micros_usd


@pytest.mark.parametrize(
    "library",
    [*COLUMNS, *(pytest.param(one, marks=pytest.mark.clients) for one in fetched.COLUMNS)],
)
@pytest.mark.filterwarnings("ignore")  # of the libraries, about themselves
def test_callers_of_each_library_do_not_overspend(
    request: pytest.FixtureRequest,
    library: str,
    book: Ledger,
    new_pool: Callable[..., LedgerBudgetManager],
    server: wire.Server,
) -> None:
    """The same by real clients: 32 callers, and ten of their calls leave."""
    if library in fetched.COLUMNS:
        request.getfixturevalue("libraries")
    make, shape = (COLUMNS | fetched.COLUMNS)[library]
    probe = new_pool()
    server.answers(shape.whole)
    with closing(make(shape, server.url, 60, {"pool": probe})) as calls:
        calls.whole()
    (one,) = attempts(book, probe)
    pool = new_pool(capacity_cost_micros_usd=ADMITTED * one.reserved[1])
    gate = Gate(CALLERS - ADMITTED)

    def answer(_request: wire.Request) -> wire.Reply:
        gate.answer(_request)
        return shape.whole

    server.answers(answer)
    said: list[object] = []

    def call() -> None:
        try:
            calls.whole()
            said.append(None)
        except Exception as error:  # noqa: BLE001 - each library has its own
            said.append(denial_of(error))
            gate.refused()

    with closing(make(shape, server.url, 60, {"pool": pool})) as calls:
        threads = [threading.Thread(target=call) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ADMITTED == said.count(None) == len(server.requests)
    assert CALLERS - ADMITTED == sum(isinstance(one, ThresholdExceededError) for one in said)
    assert ADMITTED * shape.billed[1] == sum(one.used[1] for one in attempts(book, pool))


@pytest.mark.parametrize(
    ("chosen", "kind"), [("nobody's", UnknownPoolError), (None, InvalidInputError)]
)
def test_a_call_that_no_pool_pays_for_is_not_to_be_tried_later(
    book: Ledger,
    server: wire.Server,
    of_openai: MakeClient,
    chosen: str | None,
    kind: type[LedgerError],
) -> None:
    """The router's function chose no pool that there is: that is no outage of the store."""
    import openai

    server.answers(CHAT.whole)
    client = of_openai(book.router(lambda _: chosen))  # type: ignore[arg-type,return-value]
    with pytest.raises(openai.PermissionDeniedError) as raised:
        chat(client)
    assert (403, "budget_not_found") == (raised.value.status_code, raised.value.type)
    assert "0" == raised.value.request.headers["x-stainless-retry-count"]
    assert isinstance(denial_of(raised.value), kind)
    assert [] == server.requests


@pytest.mark.parametrize("in_asyncio", [False, True])
@pytest.mark.parametrize("library", ["openai, chat", "anthropic", "google-genai"])
@pytest.mark.filterwarnings("ignore")  # of the libraries, about themselves
def test_an_error_of_the_routers_function_is_not_repeated(
    book: Ledger,
    server: wire.Server,
    caplog: pytest.LogCaptureFixture,
    library: str,
    *,
    in_asyncio: bool,
) -> None:
    """A library takes an exception for a broken connection: it gets an answer in its place."""
    asked = []

    def choose(call: RequestExtensions) -> str:
        asked.append(call)
        raise KeyError("acme")

    make, shape = COLUMNS[library]
    with closing(make(shape, server.url, 30, {"pool": book.router(choose)})) as calls:

        async def awaited() -> None:
            try:
                await calls.awhole()
            finally:
                await calls.aclose()

        with pytest.raises(Exception, match="403") as raised:
            asyncio.run(awaited()) if in_asyncio else calls.whole()
    denial = denial_of(raised.value)
    assert isinstance(denial, InvalidInputError)
    assert isinstance(denial.__cause__, KeyError)
    assert "could not be chosen: KeyError('acme')" in str(denial)
    assert 1 == len(asked)
    assert ["the pool of a call could not be chosen"] == [
        one.message for one in caplog.records if one.name.startswith("ledger")
    ]
    assert [] == server.requests
