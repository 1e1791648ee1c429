"""A call whose lease is lost in a restore is booked all the same, by whatever counts it."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from ledger import (
    Attribution,
    Entry,
    EntryKind,
    Ledger,
    LedgerBudgetManager,
    OccurredAt,
    Provenance,
    RequestBudget,
    RequestBudgetExceededError,
    RequestExtensions,
    SettlementPolicy,
    SharedPoolBudgetManager,
    SharedPoolBudgetOptions,
    StoreWentBackWarning,
    Usage,
    UsageEstimate,
    UsageReport,
    usd,
)
from ledger.core.checks import from_micros
from ledger.integrations.calls import Counted
from ledger.testing.calls import EXTENSIONS, UNLIMITED
from ledger.transport import budgeted
from ledger.transport.settings import for_tasks
from tests.clocks import until
from tests.transport.shapes import BY_NAME, Shape

if TYPE_CHECKING:
    from tests.conformance.conftest import Vandal

pytestmark = pytest.mark.filterwarnings(f"ignore::ledger.{StoreWentBackWarning.__name__}")

POLICY = {"capacity_cost_micros_usd": usd("1")}
WHO = Attribution(run_id="nightly", tenant="acme")
CHAT, MESSAGE = BY_NAME["chat"], BY_NAME["messages"]
ESTIMATE = UsageEstimate(total_tokens=50, cost_micros_usd=9_000)
SPENT = Usage(total_tokens=30, cost_micros_usd=4_000)
Restore = Callable[[], None]


@pytest.fixture
def open_pool(book: Ledger) -> Callable[..., LedgerBudgetManager]:
    """Return a function that makes the pool."""
    return lambda **more: book.pool("team", SharedPoolBudgetOptions(**POLICY | more))


@pytest.fixture
def budget(open_pool: Callable[..., LedgerBudgetManager]) -> LedgerBudgetManager:
    """Return a pool."""
    return open_pool()


@pytest.fixture
def restore(book: Ledger, vandal: Vandal) -> Restore:
    """Return a function that puts the store back, and lets another call have the lost number."""

    def put_back() -> None:
        vandal.run("DELETE FROM entries WHERE seq > 1", "DELETE FROM attributions")
        with Ledger.open(book.url) as elsewhere:
            other = elsewhere.pool("team")
            other.release(other.reserve(EXTENSIONS, ESTIMATE, UNLIMITED))

    return put_back


def ended(book: Ledger) -> Entry:
    """Return the end of the only call that was booked since; the books are sound."""
    found = [one for one in book.entries("team") if one.seq > 3]  # behind the other call's
    assert EntryKind.RESERVATION == found[0].kind
    assert 1 == sum(one.kind == EntryKind.RESERVATION for one in found)
    assert "lost" in (found[0].detail or {})
    assert [None] == [one.damage for one in book.verify()]
    assert not list(book.open_leases("team"))
    return found[-1]


def body(shape: Shape, *, stream: bool) -> dict[str, Any]:
    """Return a request."""
    messages = [{"role": "user", "content": "hello"}]
    return {"model": shape.model, "max_tokens": 1_000, "messages": messages, "stream": stream}


class Content(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Events, between two of which something happens."""

    def __init__(self, parts: list[bytes], happens: Callable[[], object], at: int) -> None:
        self._parts, self._happens, self._at = parts, happens, at

    def __iter__(self) -> Iterator[bytes]:
        for number, part in enumerate(self._parts):
            if number == self._at:
                self._happens()
            yield part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part


def answering(shape: Shape, happens: Restore, at: int | None = None) -> httpx.MockTransport:
    """Return a transport that answers after a restore, or with one in the middle of a stream."""

    def handle(_request: httpx.Request) -> httpx.Response:
        if at is not None:
            headers = {"content-type": "text/event-stream"}
            content = Content(list(shape.stream.parts), happens, at)
            return httpx.Response(200, headers=headers, stream=content)
        happens()
        return httpx.Response(200, content=shape.whole.parts[0])

    return httpx.MockTransport(handle)


def ask(transport: httpx.MockTransport, pool: object, shape: Shape, way: str) -> None:
    """Make the call by a budgeted transport, in threads or in tasks."""
    path = "messages" if shape is MESSAGE else "chat/completions"
    url = f"http://127.0.0.1/v1/{path}"
    mock = budgeted(transport, pool=pool, attribution=WHO)  # type: ignore[type-var]
    sent = body(shape, stream="stream" in way)

    async def in_task() -> None:
        async with httpx.AsyncClient(transport=mock) as client:
            assert 200 == (await client.post(url, json=sent)).status_code

    if "tasks" in way:
        asyncio.run(in_task())
    else:
        with httpx.Client(transport=mock) as client:
            assert 200 == client.post(url, json=sent).status_code


WAYS = {
    "threads": (CHAT, None),
    "tasks": (CHAT, None),
    "router, threads": (CHAT, None),
    "router, tasks": (CHAT, None),
    "stream, threads": (CHAT, 3),
    "stream, tasks": (CHAT, 3),
    "stream, threads, before what it begins with": (MESSAGE, 0),
    "stream, threads, behind what it begins with": (MESSAGE, 3),
    "stream, tasks, before what it begins with": (MESSAGE, 0),
    "stream, tasks, behind what it begins with": (MESSAGE, 3),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_budgeted_client_books_what_it_used(
    book: Ledger,
    budget: LedgerBudgetManager,
    restore: Restore,
    caplog: pytest.LogCaptureFixture,
    way: str,
) -> None:
    """Once, in full, for whom the call was; the client gets its answer, and the log says so."""
    shape, at = WAYS[way]
    pool = book.router(lambda _: "team") if "router" in way else budget
    with caplog.at_level(logging.WARNING, "ledger"):
        ask(answering(shape, restore, at), pool, shape, way)
    end = ended(book)
    assert shape.billed == (end.usage.total_tokens, end.usage.cost_micros_usd)
    assert shape.billed[1] == budget.status().balance.committed.cost_micros_usd
    assert Provenance.REPORTED == end.provenance
    assert json.loads(b"".join(shape.whole.parts))["id"] == end.request_id
    assert ("nightly", "acme") == (end.attribution.run_id, end.attribution.tenant)
    (line,) = [one.getMessage() for one in caplog.records if "is lost" in one.getMessage()]
    assert "of pool 'team'" in line
    assert "for run_id 'nightly', tenant 'acme'" in line
    assert not [one for one in caplog.records if "could not be recorded" in one.getMessage()]


@pytest.mark.parametrize("way", ["block", "decorator", "tasks"])
def test_what_counts_calls_by_itself_books_them(
    book: Ledger, budget: LedgerBudgetManager, restore: Restore, way: str
) -> None:
    """The decorator, and the block of a call."""
    counted = Counted(budget, model="gpt-4o", attribution=WHO)
    answer = json.loads(CHAT.whole.parts[0])

    def ask(_question: str) -> object:
        restore()
        return answer

    async def aask(question: str) -> object:
        return ask(question)

    if way == "tasks":
        asyncio.run(counted(aask)("hello"))
    elif way == "decorator":
        counted(ask)("hello")
    else:
        with counted.call("hello") as call:
            call.record(ask("hello"))
    end = ended(book)
    assert (3_750, "nightly") == (end.usage.cost_micros_usd, end.attribution.run_id)


@pytest.mark.parametrize("in_task", [False, True], ids=["threads", "tasks"])
@pytest.mark.parametrize("observed", ["nothing", "before", "behind", "around"])
def test_a_lease_block_books_what_it_used(
    book: Ledger, budget: LedgerBudgetManager, restore: Restore, observed: str, *, in_task: bool
) -> None:
    """All parts of it once, whether they were observed before the restore or behind it."""
    part = Usage(total_tokens=8, cost_micros_usd=500)
    parts = {"nothing": 0, "before": 1, "behind": 1, "around": 2}[observed]

    async def task() -> None:
        async with for_tasks(budget).lease(ESTIMATE, attribution=WHO) as lease:
            if observed in {"before", "around"}:
                await lease.observe(part)
            restore()
            if observed in {"behind", "around"}:
                await lease.observe(part)
            await lease.record(SPENT)

    if in_task:
        asyncio.run(task())
    else:
        with budget.lease(ESTIMATE, attribution=WHO) as lease:
            if observed in {"before", "around"}:
                lease.observe(part)
            restore()
            if observed in {"behind", "around"}:
                lease.observe(part)
            lease.record(SPENT)
    end = ended(book)
    assert 4_000 + 500 * parts == end.usage.cost_micros_usd
    assert "nightly" == end.attribution.run_id


CHARGED = {
    SettlementPolicy.ESTIMATED: (9_000, 9_000, 9_000),
    SettlementPolicy.OBSERVED: (0, 500, 500),
    SettlementPolicy.RELEASE: (0, 500, 500),
}


@pytest.mark.parametrize("policy", CHARGED)
@pytest.mark.parametrize("in_task", [False, True], ids=["threads", "tasks"])
def test_a_block_without_a_record_is_charged_by_the_policy(
    open_pool: Callable[..., LedgerBudgetManager],
    book: Ledger,
    restore: Restore,
    policy: SettlementPolicy,
    *,
    in_task: bool,
) -> None:
    """As it would have been without the restore; what was observed before it is in it."""
    budget = open_pool(settlement=policy)
    part = Usage(cost_micros_usd=500)

    def threads(observes: int) -> None:
        with budget.lease(ESTIMATE) as lease:
            if observes == 1:
                lease.observe(part)
            restore()
            if observes == 2:
                lease.observe(part)

    async def tasks(observes: int) -> None:
        async with for_tasks(budget).lease(ESTIMATE) as lease:
            if observes == 1:
                await lease.observe(part)
            restore()
            if observes == 2:
                await lease.observe(part)

    found = []
    for observes in (0, 1, 2):
        asyncio.run(tasks(observes)) if in_task else threads(observes)
        ended(book)
        found.append(budget.status().balance.committed.cost_micros_usd)
    assert CHARGED[policy] == tuple(found)


def test_a_cut_answer_is_charged_by_what_is_known(
    book: Ledger, budget: LedgerBudgetManager, restore: Restore
) -> None:
    """The input that the stream began with, and all output that was reserved."""
    cut = MESSAGE.stream.parts[:4]

    def breaks() -> None:
        raise httpx.ReadError("cut")

    def handle(_request: httpx.Request) -> httpx.Response:
        restore()
        content = Content([*cut, b""], breaks, len(cut))
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=content)

    with suppress(httpx.ReadError):
        ask(httpx.MockTransport(handle), budget, MESSAGE, "stream, threads")
    ended(book)
    assert MESSAGE.at_most[1] == budget.status().balance.committed.cost_micros_usd


@pytest.mark.parametrize("in_task", [False, True], ids=["threads", "tasks"])
def test_a_call_that_was_refused_is_not_booked(
    book: Ledger,
    budget: LedgerBudgetManager,
    restore: Restore,
    caplog: pytest.LogCaptureFixture,
    *,
    in_task: bool,
) -> None:
    """By an error of the provider, or without a connection: nothing was used, nothing is said."""

    def handle(request: httpx.Request) -> httpx.Response:
        restore()
        if b"refuse" in request.content:
            return httpx.Response(400, json={"error": {"message": "no"}})
        raise httpx.ConnectError("refused")

    mock = budgeted(httpx.MockTransport(handle), pool=budget)
    url, sent = "http://127.0.0.1/v1/chat/completions", body(CHAT, stream=False)

    async def tasks(**more: str) -> None:
        async with httpx.AsyncClient(transport=mock) as client:
            await client.post(url, json=sent | more)

    for more in ({"user": "refuse"}, {}):
        with suppress(httpx.ConnectError), httpx.Client(transport=mock) as client:
            asyncio.run(tasks(**more)) if in_task else client.post(url, json=sent | more)
    assert 3 == budget.status().seq
    assert not [one for one in caplog.records if one.name.startswith(("ledger.t", "ledger.le"))]
    assert [None] == [one.damage for one in book.verify()]


def test_usage_over_the_request_s_budget_is_booked_and_said(
    book: Ledger, budget: LedgerBudgetManager, restore: Restore
) -> None:
    """As it is of any lease, once."""
    least = RequestBudget.from_cost_micros_usd(9_000)
    with budget.lease(ESTIMATE, request_budget=least) as lease:
        restore()
        with pytest.raises(RequestBudgetExceededError):
            lease.record(Usage(cost_micros_usd=9_001))
    assert 9_001 == ended(book).usage.cost_micros_usd


@pytest.mark.parametrize("policy", CHARGED)
def test_memory_and_store_charge_the_same(
    open_pool: Callable[..., LedgerBudgetManager], restore: Restore, policy: SettlementPolicy
) -> None:
    """Of a lost lease whose usage is known in part, or not at all."""
    options = SharedPoolBudgetOptions(**POLICY, settlement=policy)
    store = open_pool(settlement=policy)
    for observed in (Usage(), Usage(cost_micros_usd=500), Usage(cost_micros_usd=12_000)):
        before, now = (SharedPoolBudgetManager(options) for _ in range(2))
        stored = store.reserve(EXTENSIONS, ESTIMATE, RequestBudget.from_cost_micros_usd(9_500))
        mine = before.reserve(EXTENSIONS, ESTIMATE, RequestBudget.from_cost_micros_usd(9_500))
        restore()
        for _ in range(2):
            store.record_lost(stored, observed, estimate=ESTIMATE)
            now.record_lost(mine, observed, estimate=ESTIMATE)
        assert now.remaining(EXTENSIONS) == store.remaining(EXTENSIONS)


PART = Usage(total_tokens=8, cost_micros_usd=500)
ONCE = UsageReport(idempotency_key="part-1")


def test_a_part_that_is_observed_again_under_its_key_counts_once(
    book: Ledger, budget: LedgerBudgetManager, restore: Restore
) -> None:
    """As it does in a store that has the lease: before the restore, around it, and behind it."""
    for before in (2, 1, 0):
        committed = budget.status().balance.committed.cost_micros_usd
        with budget.lease(ESTIMATE) as lease:
            for _ in range(before):
                lease.observe(PART, report=ONCE)
            restore()
            for _ in range(2 - before):
                lease.observe(PART, report=ONCE)
            lease.record(SPENT)
        assert 4_500 == ended(book).usage.cost_micros_usd, committed


def test_parts_that_threads_observe_at_once_are_all_booked(
    book: Ledger, budget: LedgerBudgetManager, restore: Restore
) -> None:
    """Threads that share a block lose none of them."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with budget.lease(ESTIMATE) as lease:

            def observe() -> None:
                for _ in range(30):
                    lease.observe(Usage(cost_micros_usd=1))

            with ThreadPoolExecutor(8) as threads:
                for _ in range(8):
                    threads.submit(observe)
            restore()
            lease.record(Usage())
    finally:
        sys.setswitchinterval(interval_s)
    assert 240 == ended(book).usage.cost_micros_usd


def test_parts_over_the_request_s_budget_are_said(
    book: Ledger, budget: LedgerBudgetManager, restore: Restore
) -> None:
    """So that a stream is stopped; each part is booked, and none twice."""
    least = RequestBudget.from_cost_micros_usd(9_100)
    with budget.lease(ESTIMATE, request_budget=least) as lease:
        lease.observe(Usage(cost_micros_usd=9_000), report=ONCE)
        restore()
        lease.observe(Usage(cost_micros_usd=9_000), report=ONCE)
        with pytest.raises(RequestBudgetExceededError):
            lease.observe(Usage(cost_micros_usd=101))
    assert 9_101 == budget.status().balance.committed.cost_micros_usd
    assert 9_101 == sum(one.usage.cost_micros_usd for one in book.entries("team") if one.usage)


def test_parts_that_no_store_can_hold_together_are_booked_as_the_most(
    book: Ledger, budget: LedgerBudgetManager, restore: Restore
) -> None:
    """Three parts of 2^62 are booked as 2^63 - 1, the largest number that a store can hold."""
    huge = Usage(cost_micros_usd=2**62)
    with budget.lease(ESTIMATE) as lease:
        restore()
        lease.observe(huge)
        lease.observe(huge)
        lease.record(huge)
    assert 2**63 - 1 == ended(book).usage.cost_micros_usd


@pytest.mark.parametrize("recorded", [False, True], ids=["left", "recorded"])
def test_a_lost_call_is_of_its_own_day(
    book: Ledger, budget: LedgerBudgetManager, restore: Restore, *, recorded: bool
) -> None:
    """When it happened was said in the request."""
    at = datetime(2024, 2, 29, tzinfo=UTC)
    with budget.lease(ESTIMATE, extensions=RequestExtensions(OccurredAt(at))) as lease:
        restore()
        if recorded:
            lease.record(SPENT)
    assert at == from_micros(ended(book).occurred_at or 0)


def test_an_interrupt_behind_the_booking_is_not_called_a_failure(
    book: Ledger,
    budget: LedgerBudgetManager,
    restore: Restore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end of the block finds the call booked, and changes nothing."""
    book_it = budget.record_lost

    def interrupted(*call: Any, **more: Any) -> None:  # noqa: ANN401 - as it takes them
        book_it(*call, **more)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(budget, "record_lost", interrupted)

    def call() -> None:
        with budget.lease(ESTIMATE) as lease:
            restore()
            lease.record(SPENT)

    with pytest.raises(KeyboardInterrupt) as found:
        call()
    assert not hasattr(found.value, "__notes__")
    assert SPENT.cost_micros_usd == ended(book).usage.cost_micros_usd


@pytest.mark.parametrize("way", ["generator", "coroutine", "stream"])
def test_what_nobody_waits_for_is_booked(
    book: Ledger, budget: LedgerBudgetManager, restore: Restore, way: str
) -> None:
    """A block or a stream that the garbage collector ends, and a coroutine that is thrown away."""

    def block() -> Iterator[None]:
        with budget.lease(ESTIMATE) as lease:
            lease.observe(PART)
            restore()
            yield

    def collected(held: object) -> None:
        next(held)  # type: ignore[call-overload]
        around = [held]
        around.append(around)  # type: ignore[arg-type]

    def stream() -> Iterator[None]:
        mock = budgeted(answering(MESSAGE, restore, 3), pool=budget, attribution=WHO)
        url = "http://127.0.0.1/v1/messages"
        request = httpx.Request("POST", url, json=body(MESSAGE, stream=True))
        for _ in mock.handle_request(request).iter_raw():
            yield

    if way == "coroutine":
        asyncio.run(thrown_away(budget, restore))
    else:
        gc.collect()
        gc.disable()
        try:
            held = block() if way == "generator" else stream()
            for _ in range(0 if way == "generator" else 4):
                next(held)
            collected(held)
            del held
            gc.collect()
        finally:
            gc.enable()
    until(lambda: 3 < budget.status().seq and 0 < budget.status().balance.committed.cost_micros_usd)
    ended(book)
    charged = MESSAGE.at_most[1] if way == "stream" else ESTIMATE.cost_micros_usd
    assert charged == budget.status().balance.committed.cost_micros_usd


class Never:
    """What is never done."""

    def __await__(self) -> Iterator[str]:
        yield "never"


async def thrown_away(budget: LedgerBudgetManager, restore: Restore) -> None:
    """Close a coroutine inside its block, by hand, so that it can await nothing."""

    async def child() -> None:
        async with for_tasks(budget).lease(ESTIMATE) as lease:
            await lease.observe(PART)
            restore()
            await Never()

    running: Any = child()
    waits_for = running.send(None)
    while waits_for != "never":
        await asyncio.wait([waits_for])
        waits_for = running.send(None)
    running.close()
