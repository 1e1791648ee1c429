"""`examples/web_service.py` as programs of their own: two servers, one store, callers over HTTP."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from ledger import Ledger, RequestBudget, RequestExtensions, ThresholdExceededError, UsageEstimate
from tests.clocks import until
from tests.transport import wire
from tests.transport.shapes import BY_NAME

PROGRAM = Path(__file__).parents[2] / "examples" / "web_service.py"
CHAT = BY_NAME["chat"]
CALLERS, ADMITTED = 16, 2
"""A tenant has a cent; a call is held at 0.4 cents, and billed 0.375."""


@pytest.fixture
def provider() -> Iterator[wire.Server]:
    """Run what the service calls."""
    with wire.served() as server:
        yield server


@contextmanager
def serving(store_url: str, provider: wire.Server, fetched: Path) -> Iterator[Callable[[], str]]:
    """Run the service for the length of a block; what it gives waits for its address."""
    keys = {
        "PYTHONPATH": str(fetched),
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": f"{provider.url}/v1",
    }
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), store_url, "0"],
        env={**os.environ, **keys},
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as service:
        lines: queue.Queue[str] = queue.Queue()
        reading = threading.Thread(target=lambda: [*map(lines.put, service.stderr)])
        reading.start()
        try:
            yield lambda: next(
                found[0]
                for line in iter(lambda: lines.get(timeout=60), "")
                if (found := re.findall(r"http://[\d.:]+", line))
            )
        finally:
            service.terminate()
            reading.join()


def ask(address: str, tenant: str = "acme") -> httpx.Response:
    """Ask the service something."""
    return httpx.post(
        f"{address}/ask", json={"text": "Hi"}, headers={"x-tenant": tenant}, timeout=60
    )


def seconds(answer: httpx.Response, at: datetime, before: datetime, after: datetime) -> bool:
    """Tell whether `Retry-After` is the time until a moment, by one of two clock readings."""
    assert 429 == answer.status_code
    said = timedelta(seconds=int(answer.headers["Retry-After"]))
    return at - before >= said - timedelta(seconds=1) and said >= at - after


@pytest.mark.clients
def test_tenants_share_a_budget_over_all_servers(
    new_store: Callable[..., str], provider: wire.Server, fetched: Path
) -> None:
    """Of many first callers at once two are served; the others are told when to come back."""
    store_url = new_store("postgresql")
    is_open = threading.Event()
    with ExitStack() as stack, Ledger.open(store_url) as book:
        started = [stack.enter_context(serving(store_url, provider, fetched)) for _ in range(2)]
        servers = [address() for address in started]
        callers = stack.enter_context(ThreadPoolExecutor(CALLERS))
        stack.callback(is_open.set)

        def answer(_request: wire.Request) -> wire.Reply:
            is_open.wait()
            return CHAT.whole

        provider.answers(answer)
        calls = [callers.submit(ask, servers[number % 2]) for number in range(CALLERS)]
        until(lambda: sum(call.done() for call in calls) == CALLERS - ADMITTED)
        # What is in the way are calls that are running: they may end at any time.
        assert (429, "5") == (
            (refused := ask(servers[0])).status_code,
            refused.headers["Retry-After"],
        )
        is_open.set()

        answers = [call.result() for call in calls]
        assert [200] * ADMITTED + [429] * (CALLERS - ADMITTED) == sorted(
            answer.status_code for answer in answers
        )
        assert {"hour"} == {answer.json()["limit"] for answer in answers if answer.is_error}
        tenant = book.pool("tenant acme")
        assert 2 * 3_750 == tenant.status().balance.committed.cost_micros_usd
        service = book.pool("service")
        assert 2 * 3_750 == service.status().balance.committed.cost_micros_usd

        # What is in the way is spent: it ceases to count an hour later.
        with pytest.raises(ThresholdExceededError) as denied:
            tenant.reserve(
                RequestExtensions(),
                UsageEstimate(total_tokens=412, cost_micros_usd=4_020),
                RequestBudget.unlimited(),
            )
        before = book.now()
        refused = ask(servers[1])
        assert seconds(refused, denied.value.retry_at, before, book.now())
        assert 600 < int(refused.headers["Retry-After"])
        assert 200 == ask(servers[1], "globex").status_code
        assert all(found.ok for found in book.verify())

        # Who has no budget any more is told so, and that no time helps.
        book.close_pool("tenant acme", reason="test")
        closed = ask(servers[0])
        assert (403, "your budget is closed") == (closed.status_code, closed.json()["error"])
        assert "Retry-After" not in closed.headers

        # A provider that refuses is no budget, and the service's budget is not the tenant's.
        provider.answers(wire.error(400))
        assert 502 == ask(servers[0], "globex").status_code
        service.reserve(
            RequestExtensions(),
            UsageEstimate(
                total_tokens=1, cost_micros_usd=service.status().remaining.cost_micros_usd
            ),
            RequestBudget.unlimited(),
        )
        assert 503 == ask(servers[0], "globex").status_code


@pytest.mark.clients
def test_each_error_of_the_budget_has_its_answer(fetched: Path) -> None:
    """Only a store that is busy is worth another try, and no answer names a pool."""
    program = """
import json
from ledger import *
from ledger.core.errors import NotPermittedError
from web_service import answer_to
given = [
    ContentionError(timeout_s=2, attempts=1, holder="somebody"),
    LedgerUnavailableError("secret"),
    NotPermittedError(role="secret", operation="reserve"),
    UnknownPriceError("secret"),
    PoolClosedError("secret"),
    UnknownPoolError("secret"),
    InvalidInputError("secret", "secret"),
    PoolClosedError("service"),
]
print(json.dumps([answer_to(one) for one in given]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": f"{fetched}{os.pathsep}{PROGRAM.parent}"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    found = json.loads(done.stdout)
    assert [503, 503, 500, 400, 403, 404, 500, 503] == [status for status, _, _ in found]
    assert [1, 1, *[None] * 6] == [wait_s for _, _, wait_s in found]
    assert "secret" not in done.stdout
