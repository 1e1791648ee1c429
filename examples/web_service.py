"""A web service with a budget for each tenant: 429 with `Retry-After` once it is spent.

Install: `pip install '.[prices]' openai fastapi uvicorn`

As a program of its own it serves until it is stopped, and calls the provider that openai's client
finds (`OPENAI_API_KEY`, `OPENAI_BASE_URL`). Any number of processes may share the store:

    python web_service.py sqlite:///ledger.db 8000

It opens a pool for a tenant that it has never seen. On PostgreSQL its login therefore needs the
role `ledger_holder`; `ledger_worker` is enough where somebody else opens the pools.

Without arguments it serves itself, with a provider of its own:

Prints:

    acme, a tenant never seen before: 200 Hello.
    acme again: 200 Hello.
    acme again: 429 over budget by the limit 'hour', to be repeated within the hour: True
    globex has a budget of its own: 200 Hello.
    spent: acme 8,060 micro-USD, globex 4,030, the service 12,090
"""

import asyncio
import math
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import httpx2
import uvicorn
from fastapi import Depends, FastAPI, Header, Request
from fastapi.responses import JSONResponse
from openai import APIStatusError, AsyncOpenAI
from pydantic import BaseModel

from ledger import (
    AsyncLedger,
    Attribution,
    ContentionError,
    Ledger,
    LedgerError,
    LedgerUnavailableError,
    Limit,
    NotPermittedError,
    PoolClosedError,
    RequestBudgetExceededError,
    RequestExtensions,
    Rolling,
    SharedPoolBudgetOptions,
    ThresholdExceededError,
    UnknownPoolError,
    UnpricedCallError,
    usd,
)
from ledger.transport import attributed, budgeted, denial_of

SERVICE = SharedPoolBudgetOptions(capacity_cost_micros_usd=usd("100"))
TENANT = SharedPoolBudgetOptions(
    limits=[
        Limit(name="hour", period=Rolling(timedelta(hours=1)), capacity_cost_micros_usd=usd("0.01"))
    ],
    lease_ttl=timedelta(minutes=10),
)


class Question(BaseModel):
    """What a tenant asks."""

    text: str


def pool_of(tenant: str) -> str:
    """Return the name of a tenant's pool."""
    return f"tenant {tenant}"


def payer(call: RequestExtensions) -> str:
    """Choose the pool that pays for a call."""
    who = call.get(Attribution)
    return pool_of(who.tenant) if who and who.tenant else "service"


def make_app(store_url: str, client: AsyncOpenAI) -> FastAPI:
    """Return the service on a store, around a client of the provider."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncLedger.open(store_url) as book, client:
            await book.pool("service", SERVICE)
            app.state.book, app.state.known = book, set()
            budgeted(client, pool=book.router(payer))
            yield

    app = FastAPI(lifespan=running)

    async def tenant_of(tenant: Annotated[str, Header(alias="x-tenant", max_length=100)]) -> str:
        """Return who calls; a real service reads it from a token that it has checked."""
        if tenant not in app.state.known:  # made on first sight, by one of all processes
            await app.state.book.pool(pool_of(tenant), TENANT, parent="service")
            app.state.known.add(tenant)
        return tenant

    @app.post("/ask")
    async def ask(question: Question, tenant: Annotated[str, Depends(tenant_of)]) -> str:
        with attributed(Attribution(tenant=tenant)):
            answer = await client.chat.completions.create(
                model="gpt-4o",
                max_completion_tokens=400,
                messages=[{"role": "user", "content": question.text}],
            )
        return answer.choices[0].message.content

    @app.exception_handler(APIStatusError)
    async def refused(_request: Request, error: APIStatusError) -> JSONResponse:
        """Say why there is no answer: the tenant's budget, the service's, or the provider."""
        denied = denial_of(error)
        if denied is None:
            return JSONResponse({"error": "no answer from the model"}, 502)
        return await not_paid(_request, denied)

    @app.exception_handler(LedgerError)
    async def not_paid(_request: Request, denied: LedgerError) -> JSONResponse:
        """Say in words for a tenant what the budget says, of a call or of its pool."""
        if not isinstance(denied, ThresholdExceededError) or denied.pool == "service":
            status, said, wait_s = answer_to(denied)
            content = {"error": said}
        else:
            status, content = 429, {"error": "over budget", "limit": denied.limit}
            wait_s = retry_after_s(denied, await asyncio.to_thread(app.state.book.sync.now))
        headers = {} if wait_s is None else {"Retry-After": str(wait_s)}
        return JSONResponse(content, status, headers=headers)

    return app


CALL_S = 5
"""How many seconds a call takes, about."""
BUSY_S = 1
"""After how many seconds to ask a store again that is busy, or gone."""
ANSWERS: dict[type[LedgerError], tuple[int, str, int | None]] = {
    PoolClosedError: (403, "your budget is closed", None),
    UnknownPoolError: (404, "you have no budget", None),
    UnpricedCallError: (400, "the model has no price", None),
    RequestBudgetExceededError: (413, "the question is too long", None),
    # What the login may not do is no state of the store, and will not pass.
    NotPermittedError: (500, "the service is not set up for this", None),
    LedgerUnavailableError: (503, "the service is busy", BUSY_S),
    ContentionError: (503, "the service is busy", BUSY_S),
    LedgerError: (500, "the service is not set up for this", None),
}
"""Status, words and seconds to wait for each error of the budget; the first class that fits."""


def answer_to(denied: LedgerError) -> tuple[int, str, int | None]:
    """Return the status, the words, and after how many seconds to ask again, None for never.

    The error's own message is for operators: it names pools and limits. Log it, if anything.
    """
    if isinstance(denied, ThresholdExceededError | PoolClosedError) and denied.pool == "service":
        return 503, "the service is over its budget", None
    return next(answer for of, answer in ANSWERS.items() if isinstance(denied, of))


def retry_after_s(denied: ThresholdExceededError, now: datetime) -> int | None:
    """Return after how many seconds to ask again, None if no time would help.

    The pool says when it has enough again. Where open leases are in the way it cannot know: they
    are calls that are running, which mostly use less than they hold.

    Args:
        denied: The refusal.
        now: The time by the store's clock: this machine's may be another one.
    """
    if denied.retry_at is not None:
        return max(1, math.ceil((denied.retry_at - now).total_seconds()))
    return CALL_S if denied.held_by_leases else None


def main() -> None:
    """Serve a store for ever, or show how it works."""
    if len(sys.argv) == 1:
        with tempfile.TemporaryDirectory() as folder:
            show(f"sqlite:///{Path(folder) / 'ledger.db'}")
        return
    store_url, port = sys.argv[1:]
    uvicorn.run(make_app(store_url, AsyncOpenAI()), port=int(port))


ANSWER = {
    "id": "chatcmpl-1",
    "model": "gpt-4o",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "Hello."}}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 400, "total_tokens": 412},
}


def show(store_url: str) -> None:
    """Serve on a port of this machine, and ask over HTTP as two tenants."""
    provider = httpx2.MockTransport(lambda _: httpx2.Response(200, json=ANSWER))
    client = AsyncOpenAI(api_key="none", http_client=httpx2.AsyncClient(transport=provider))
    server = uvicorn.Server(uvicorn.Config(make_app(store_url, client), log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=server.run, args=([listening],))
        serving.start()
        try:
            ask_as_tenants(f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            server.should_exit = True
            serving.join()
    with Ledger.open(store_url) as book:
        spent = [
            f"{book.pool(name).status().balance.committed.cost_micros_usd:,}"
            for name in (pool_of("acme"), pool_of("globex"), "service")
        ]
    print(f"spent: acme {spent[0]} micro-USD, globex {spent[1]}, the service {spent[2]}")


def ask_as_tenants(service_url: str) -> None:
    """Ask as two tenants, and print what they are told."""
    with httpx2.Client(base_url=service_url, timeout=60) as caller:
        for who, tenant in (
            ("acme, a tenant never seen before", "acme"),
            ("acme again", "acme"),
            ("acme again", "acme"),
            ("globex has a budget of its own", "globex"),
        ):
            answer = caller.post("/ask", json={"text": "Hi"}, headers={"x-tenant": tenant})
            said = answer.json()
            if "Retry-After" in answer.headers:
                wait = timedelta(seconds=int(answer.headers["Retry-After"]))
                said = (
                    f"{said['error']} by the limit {said['limit']!r}, "
                    f"to be repeated within the hour: {wait <= timedelta(hours=1)}"
                )
            print(f"{who}: {answer.status_code} {said}")


if __name__ == "__main__":
    main()
