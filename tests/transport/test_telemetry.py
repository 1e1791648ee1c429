"""Spans and metrics of calls, as an OpenTelemetry exporter in memory gets them."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from ledger import (
    Attribution,
    InvalidInputError,
    LedgerBudgetManager,
    ThresholdExceededError,
    usd,
)
from ledger.prices import PriceList
from ledger.telemetry import Telemetry
from ledger.telemetry.calls import PROVIDER_NAMES
from ledger.transport import attempts, budgeted
from ledger.transport.requests import PROVIDERS as KNOWN
from tests.clocks import LATE_S, until
from tests.fixtures import MakePool
from tests.transport import wire
from tests.transport.libraries import MESSAGES
from tests.transport.shapes import BY_NAME, CHAT_USAGE

if TYPE_CHECKING:
    import openai

CHAT = BY_NAME["chat"]
MakeClient = Callable[..., "openai.OpenAI"]


class Exported:
    """What OpenTelemetry exports, in memory."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._reader])
        self.telemetry = Telemetry(tracer_provider=self.tracers, meter_provider=self.meters)

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that ended, the earliest first."""
        return list(self._spans.get_finished_spans())

    def points(self) -> dict[str, list[Any]]:
        """Return the points of each metric."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for of_resource in (data.resource_metrics if data else ())
            for scope in of_resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def exported() -> Iterator[Exported]:
    """Return a new exporter."""
    found = Exported()
    yield found
    found.meters.shutdown()


def test_a_call_is_a_span(
    pool: LedgerBudgetManager, server: wire.Server, of_openai: MakeClient, exported: Exported
) -> None:
    """It has the conventions' attributes, what was reserved and what it cost."""
    server.answers(CHAT.stream)
    whose = Attribution(run_id="nightly", agent="writer", tenant="acme")
    client = of_openai(pool, attribution=whose, telemetry=exported.telemetry)
    for _ in client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True):
        pass
    (span,) = exported.spans
    found = dict(span.attributes or {})
    assert "chat gpt-4o" == span.name
    assert trace.SpanKind.CLIENT is span.kind
    assert trace.StatusCode.UNSET is span.status.status_code
    assert str(found.pop("ledger.attempt")).endswith(".1")
    assert found.pop("ledger.reserved.cost_micros_usd") > 0
    assert found.pop("ledger.reserved.tokens") > 0
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.agent.id": "writer",
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.output_tokens": 200,
        "gen_ai.usage.cache_read.input_tokens": 600,
        "gen_ai.usage.reasoning.output_tokens": 50,
        "gen_ai.usage.cost.amount": 0.00375,
        "gen_ai.usage.cost.currency": "USD",
        "gen_ai.usage.cost.source": "local",
        "http.response.status_code": 200,
        "ledger.content": "complete",
        "ledger.cost_micros_usd": 3_750,
        "ledger.run_id": "nightly",
        "ledger.tenant": "acme",
    }
    assert expected == found


def test_each_attempt_is_a_span(
    pool: LedgerBudgetManager, server: wire.Server, of_openai: MakeClient, exported: Exported
) -> None:
    """A repetition that a client library makes is one of its own, with the error's status."""
    server.answers(wire.error(500), wire.error(429), CHAT.whole)
    client = of_openai(pool, telemetry=exported.telemetry)
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    ends = [(span.attributes or {}).get("error.type") for span in exported.spans]
    assert ["500", "429", None] == ends
    points = exported.points()
    assert 3 == sum(one.count for one in points["gen_ai.client.operation.duration"])
    assert 3_750 == sum(one.value for one in points["ledger.client.operation.cost"])
    tokens = {
        one.attributes["gen_ai.token.type"]: one.sum for one in points["gen_ai.client.token.usage"]
    }
    assert {"input": 1_000, "output": 200} == tokens


def test_a_refusal_is_a_span(
    new_pool: MakePool, server: wire.Server, of_openai: MakeClient, exported: Exported
) -> None:
    """It names the error, and nothing was sent; so does a call without a price."""
    import openai

    small = new_pool(capacity_cost_micros_usd=1)
    client = of_openai(small, telemetry=exported.telemetry)
    for model in ("gpt-4o", "unheard-of"):
        with pytest.raises(openai.APIStatusError):
            client.chat.completions.create(model=model, messages=MESSAGES)
    assert ["ThresholdExceededError", "UnknownPriceError"] == [
        (span.attributes or {})["error.type"] for span in exported.spans
    ]
    assert "cannot grant" in str(exported.spans[0].status.description)
    assert [] == server.requests


def test_a_call_without_a_price_says_so(
    new_pool: MakePool, server: wire.Server, of_openai: MakeClient, exported: Exported
) -> None:
    """A pool that limits tokens alone admits it: there is no cost, and the reason."""
    server.answers(CHAT.whole)
    pool = new_pool(capacity_cost_micros_usd=2**64 - 1, capacity_tokens=100_000)
    own = PriceList({"price": []}, library=False)
    client = of_openai(pool, telemetry=exported.telemetry, prices=own)
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    (span,) = exported.spans
    assert "gen_ai.usage.cost.amount" not in (span.attributes or {})
    assert "gpt-4o" in str((span.attributes or {})["ledger.unpriced"])
    assert "ledger.client.operation.cost" not in exported.points()


def test_the_span_is_current_while_the_request_is_sent(
    pool: LedgerBudgetManager, exported: Exported
) -> None:
    """Instruments of HTTP clients, and the headers that they send, are of it; threads and tasks."""
    seen = []

    def answer(_: httpx.Request) -> httpx.Response:
        seen.append(trace.get_current_span().get_span_context().span_id)
        return httpx.Response(200, content=CHAT.whole.parts[0])

    mock = budgeted(httpx.MockTransport(answer), pool=pool, telemetry=exported.telemetry)
    url, body = "http://127.0.0.1/v1/chat/completions", {"model": "gpt-4o", "messages": MESSAGES}
    with httpx.Client(transport=mock) as client:
        client.post(url, json=body)

    async def call() -> None:
        async with httpx.AsyncClient(transport=mock) as tasks:
            await tasks.post(url, json=body)

    asyncio.run(call())
    assert [one.context.span_id for one in exported.spans] == seen
    assert not trace.get_current_span().get_span_context().is_valid


def test_whatever_happens_a_span_ends(
    pool: LedgerBudgetManager, exported: Exported, server: wire.Server, of_openai: MakeClient
) -> None:
    """No connection, a cut stream, a stream that is left."""
    import openai

    client = of_openai(pool, telemetry=exported.telemetry).with_options(max_retries=0)
    server.answers(CHAT.stream.cut(1, wire.End.UNMARKED), CHAT.stream)
    with pytest.raises(openai.APIConnectionError):
        list(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True))
    with client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True) as left:
        next(iter(left))
    with pytest.raises(openai.APIConnectionError):
        client.with_options(base_url="http://127.0.0.1:1/v1").chat.completions.create(
            model="gpt-4o", messages=MESSAGES
        )
    assert not any("gen_ai.usage.cost.amount" in (one.attributes or {}) for one in exported.spans)
    assert [("cut", "cut"), (None, "left"), ("ConnectError", None)] == [
        ((span.attributes or {}).get("error.type"), (span.attributes or {}).get("ledger.content"))
        for span in exported.spans
    ]


def test_a_counted_call_is_a_span(
    pool: LedgerBudgetManager, exported: Exported, new_pool: Callable[..., LedgerBudgetManager]
) -> None:
    """One that is recorded, one that fails, and one that is refused: each has one."""
    from ledger.integrations.calls import Counted

    counted = Counted(pool, model="gpt-4o", telemetry=exported.telemetry)
    counted(lambda _: {"usage": CHAT_USAGE})("Hi")
    with pytest.raises(ZeroDivisionError):
        counted(lambda _: 1 // 0)("Hi")
    poor = new_pool(capacity_cost_micros_usd=1)
    with pytest.raises(ThresholdExceededError):
        Counted(poor, model="gpt-4o", telemetry=exported.telemetry)(str)("Hi")
    said = [span.attributes or {} for span in exported.spans]
    assert [(3_750, None), (None, "ZeroDivisionError"), (None, "ThresholdExceededError")] == [
        (one.get("ledger.cost_micros_usd"), one.get("error.type")) for one in said
    ]


def test_an_error_of_telemetry_fails_no_call(
    pool: LedgerBudgetManager,
    server: wire.Server,
    of_openai: MakeClient,
    exported: Exported,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A span processor raises: the answer is passed on, nothing stays held, and it is logged."""

    class Broken(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise RuntimeError(span.name)

    exported.tracers.add_span_processor(Broken())
    server.answers(CHAT.whole)
    client = of_openai(pool, telemetry=exported.telemetry)
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert (3_750, 0) == (
        pool.status().balance.committed.cost_micros_usd,
        pool.status().balance.reserved.requests,
    )
    assert "telemetry of call" in caplog.text


def test_a_stream_that_is_collected_inside_telemetry_waits_for_no_lock_of_it(
    pool: LedgerBudgetManager, exported: Exported
) -> None:
    """The thread may be in the middle of an exporter, whose locks let no thread in twice."""
    lock, entered = threading.Lock(), []

    class Locking(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            with suppress(RuntimeError):
                entered.append((span.name, lock.acquire(timeout=LATE_S)))
                lock.release()

    exported.tracers.add_span_processor(Locking())
    leave_a_stream(pool, exported)
    with lock:
        gc.collect()
    until(lambda: entered)
    assert [("chat gpt-4o", True)] == entered
    until(lambda: not pool.status().balance.reserved.requests)


def test_a_stream_that_is_collected_as_the_interpreter_shuts_down_is_told_of(
    pool: LedgerBudgetManager, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread can be started then: the finaliser ends the span itself, and the lease."""

    def refuse(*_given: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    leave_a_stream(pool, exported)
    with monkeypatch.context() as patched:
        patched.setattr(attempts._thread, "start_new_thread", refuse)
        gc.collect()
    assert ["chat gpt-4o"] == [span.name for span in exported.spans]
    until(lambda: not pool.status().balance.reserved.requests)


def leave_a_stream(pool: LedgerBudgetManager, exported: Exported) -> None:
    """Leave a stream, which was begun, to the garbage collector."""
    with warnings.catch_warnings():  # what earlier tests have left is not collected behind it
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    stream = httpx.Response(
        200, headers={"content-type": "text/event-stream"}, content=b"".join(CHAT.stream.parts)
    )
    mock = budgeted(httpx.MockTransport(lambda _: stream), pool=pool, telemetry=exported.telemetry)
    body = {"model": "gpt-4o", "messages": MESSAGES, "stream": True}
    request = httpx.Request("POST", "http://127.0.0.1/v1/chat/completions", json=body)
    parts = iter(mock.handle_request(request).stream)
    next(parts)
    cycle: list[object] = [parts]
    cycle.append(cycle)


def test_a_call_that_is_cancelled_while_it_waits_is_a_span(
    new_pool: MakePool, exported: Exported
) -> None:
    """It was not sent; the span says by what it ended."""
    full = new_pool(capacity_cost_micros_usd=1)
    begun = asyncio.Event()

    class Told(SpanProcessor):
        def on_start(self, *_: object, **_given: object) -> None:
            begun.set()

    exported.tracers.add_span_processor(Told())

    async def call() -> None:
        mock = httpx.MockTransport(lambda _: httpx.Response(200))
        async with httpx.AsyncClient(transport=mock) as client:
            budgeted(client, pool=full, telemetry=exported.telemetry, wait_s=60)
            url = "http://127.0.0.1/v1/chat/completions"
            body = {"model": "gpt-4o", "messages": MESSAGES}
            task = asyncio.ensure_future(client.post(url, json=body))
            await begun.wait()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(call())
    assert ["CancelledError"] == [(one.attributes or {})["error.type"] for one in exported.spans]


def test_names_are_those_of_the_conventions(
    pool: LedgerBudgetManager, server: wire.Server, of_openai: MakeClient, exported: Exported
) -> None:
    """All under `gen_ai` are in the package of the conventions, but for the proposed cost."""
    server.answers(CHAT.whole)
    client = of_openai(pool, telemetry=exported.telemetry)
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    known = [*vars(gen_ai_attributes).values(), *vars(gen_ai_metrics).values()]
    names = {*(exported.spans[0].attributes or {}), *exported.points()}
    proposed = {f"gen_ai.usage.cost.{part}" for part in ("amount", "currency", "source")}
    assert proposed == {name for name in names if name.startswith("gen_ai.")} - {
        name for name in known if isinstance(name, str)
    }
    providers = {one.value for one in gen_ai_attributes.GenAiProviderNameValues}
    assert set(PROVIDER_NAMES.values()) <= providers
    unknown = {PROVIDER_NAMES.get(name, name) for name in KNOWN.values()} - providers
    assert {"openrouter", "together"} == unknown


def test_anything_else_is_refused(pool: LedgerBudgetManager) -> None:
    """At once, when the client is given its budget."""
    with pytest.raises(InvalidInputError, match="telemetry"):
        budgeted(httpx.Client(), pool=pool, telemetry=object())


def test_nothing_is_imported_without_it() -> None:
    """Neither by the library nor by its transport."""
    code = (
        "import sys, ledger, ledger.transport; "
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'prometheus'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == found.stdout.strip()


def test_prices_are_in_dollars(
    pool: LedgerBudgetManager, server: wire.Server, of_openai: MakeClient, exported: Exported
) -> None:
    """What the spans say adds up to what the pool has committed."""
    server.answers(CHAT.whole)
    client = of_openai(pool, telemetry=exported.telemetry)
    for _ in range(3):
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    said = sum((span.attributes or {})["ledger.cost_micros_usd"] for span in exported.spans)
    assert pool.status().balance.committed.cost_micros_usd == said
    assert usd("0.01125") == said
