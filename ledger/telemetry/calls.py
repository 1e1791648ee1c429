"""Spans and metrics of calls, by OpenTelemetry's semantic conventions for generative AI.

Names are those of opentelemetry-semantic-conventions 0.66b2, module `gen_ai`. The cost of a call
has no name there yet; the names used are those proposed in
https://github.com/open-telemetry/semantic-conventions-genai/pull/443 (open in November 2026).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from typing_extensions import override

from ledger.core.errors import MissingExtraError
from ledger.core.extensions import Attribution
from ledger.core.values import UsageEstimate
from ledger.ledger import Ledger
from ledger.prices import Recording
from ledger.reports.filters import EVERYTHING, Where
from ledger.reports.meter import Reading
from ledger.telemetry.pools import METRICS, Metric, Pools
from ledger.transport.listening import AttemptListener, CallListener
from ledger.transport.requests import Asked

_SCOPE = "ledger"
_MICROS = 1_000_000

PROVIDER_NAMES = {
    "aws": "aws.bedrock",
    "azure": "azure.ai.openai",
    "google": "gcp.gemini",
    "mistral": "mistral_ai",
    "x-ai": "x_ai",
}
"""The conventions' names of providers that have other names in price lists."""
_SPOKEN_BY = {"messages": "anthropic", "gemini": "gcp.gemini"}
"""The provider that stands for an unknown host, by protocol; for all other protocols it is
OpenAI."""

_USED = {
    "gen_ai.usage.input_tokens": "input_tokens",
    "gen_ai.usage.output_tokens": "output_tokens",
    "gen_ai.usage.cache_read.input_tokens": "cache_read_tokens",
    "gen_ai.usage.cache_creation.input_tokens": "cache_creation_tokens",
    "gen_ai.usage.reasoning.output_tokens": "reasoning_tokens",
}
"""The fields of a usage and the attributes that report them."""
_ALWAYS = {"input_tokens": "input", "output_tokens": "output"}
"""The fields that are reported even if they are 0, with the types of tokens that metrics know."""

_DURATIONS_S = [0.01 * 2**power for power in range(14)]
_TOKENS = [4**power for power in range(14)]
"""Bounds of the histograms, as the conventions advise."""


class Telemetry(CallListener):
    """A span and metrics for each attempt: `budgeted(client, pool=team, telemetry=Telemetry())`.

    An attempt that the budget refuses has a span, too, whose `error.type` is the refusal. Without
    an SDK, OpenTelemetry drops everything.
    """

    def __init__(self, *, tracer_provider: Any = None, meter_provider: Any = None) -> None:  # noqa: ANN401 - of an extra
        """Make the instruments.

        Args:
            tracer_provider: Makes the spans; without it, the one that is set for the process.
            meter_provider: Takes the metrics; without it, the one that is set for the process.

        Raises:
            MissingExtraError: OpenTelemetry is not installed.
        """
        try:
            from opentelemetry import metrics, trace  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingExtraError(what="opentelemetry-api", extra="otel") from error
        self.trace = trace
        self._metrics = metrics
        self.tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._meter = meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self.duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="How long an attempt took, from its reservation to its end.",
            explicit_bucket_boundaries_advisory=_DURATIONS_S,
        )
        self.tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens of an attempt, by type.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self.cost = meter.create_counter(
            "ledger.client.operation.cost",
            unit="{micro_USD}",
            description="What attempts cost, in millionths of a US dollar.",
        )

    @override
    def begin(
        self, asked: Asked, attribution: Attribution, estimate: UsageEstimate
    ) -> AttemptListener:
        return _Span(self, asked, attribution, estimate)

    def watch(self, book: Ledger, where: Where = EVERYTHING) -> None:
        """Report the state of pools and what happened in them, whenever metrics are collected.

        One reading of the store serves all metrics of a collection. If the store cannot be read,
        that is logged and there are no pools.

        Args:
            book: The store, which is read for as long as metrics are collected.
            where: Which pools, or the name of one.
        """
        shared = _Shared(Pools(book, where))
        for metric in METRICS:
            make = (
                self._meter.create_observable_counter
                if metric.grows
                else self._meter.create_observable_gauge
            )
            make(
                metric.name,
                [functools.partial(self._observed, shared, metric)],
                unit=metric.unit,
                description=metric.says,
            )

    def _observed(self, shared: _Shared, metric: Metric, _options: object) -> Iterator[Any]:
        for one in shared.read(metric):
            value = metric.value(one)
            if value is not None:
                attributes = {"ledger.pool": one.status.pool.name}
                yield self._metrics.Observation(value, attributes)


class _Shared:
    """A reading that all metrics of one collection share."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._found: list[Reading] = []
        self._served = set(METRICS)

    def read(self, metric: Metric) -> list[Reading]:
        """Return the pools. A metric that asks again begins another collection."""
        if metric in self._served:
            self._served.clear()
            self._found = self._pools.read()
        self._served.add(metric)
        return self._found


class _Span(AttemptListener):
    """One attempt."""

    def __init__(
        self,
        telemetry: Telemetry,
        asked: Asked,
        attribution: Attribution,
        estimate: UsageEstimate,
    ) -> None:
        self._telemetry = telemetry
        self._began = time.perf_counter()
        provider = asked.provider
        self._common = _present(
            {
                "gen_ai.operation.name": asked.protocol.operation,
                "gen_ai.provider.name": (
                    _SPOKEN_BY.get(asked.protocol.name, "openai")
                    if provider is None
                    else PROVIDER_NAMES.get(provider, provider)
                ),
                "gen_ai.request.model": asked.model,
            }
        )
        name = asked.protocol.operation
        self._span = telemetry.tracer.start_span(
            name if asked.model is None else f"{name} {asked.model}",
            kind=telemetry.trace.SpanKind.CLIENT,
            attributes=self._common
            | _present(
                {
                    "gen_ai.request.max_tokens": asked.max_output_tokens,
                    "gen_ai.agent.id": attribution.agent,
                    "ledger.run_id": attribution.run_id,
                    "ledger.tenant": attribution.tenant,
                    "ledger.attempt": attribution.request_id,
                    "ledger.reserved.tokens": estimate.total_tokens,
                    "ledger.reserved.cost_micros_usd": estimate.cost_micros_usd,
                }
            ),
        )

    @override
    def sending(self) -> AbstractContextManager[object]:
        manager: AbstractContextManager[object] = self._telemetry.trace.use_span(
            self._span, record_exception=False, set_status_on_exception=False
        )
        return manager

    @override
    def end(
        self,
        *,
        status: int | None = None,
        content: str | None = None,
        error: BaseException | None = None,
        recording: Recording | None = None,
        final: bool = False,
    ) -> None:
        span, telemetry = self._span, self._telemetry
        failure = _failure(status, content, error)
        if failure is not None:
            span.set_attribute("error.type", failure)
            span.set_status(telemetry.trace.StatusCode.ERROR, None if error is None else str(error))
        common = dict(self._common)
        if recording is not None:
            self._used(recording, common, final=final)
        span.set_attributes(
            _present({"ledger.content": content, "http.response.status_code": status})
        )
        span.end()
        telemetry.duration.record(
            time.perf_counter() - self._began, common | _present({"error.type": failure})
        )

    def _used(self, recording: Recording, common: dict[str, Any], *, final: bool) -> None:
        """Report what was used, and add the model that answered to the attributes of metrics."""
        usage, report, telemetry = recording.usage, recording.report, self._telemetry
        common |= _present({"gen_ai.response.model": report.model})
        self._span.set_attributes(
            {
                name: amount
                for name, field in _USED.items()
                if (amount := getattr(usage, field)) or field in _ALWAYS
            }
            | _present(
                {
                    "gen_ai.response.model": report.model,
                    "gen_ai.response.id": report.request_id,
                    "ledger.unpriced": recording.unpriced,
                }
            )
        )
        for field, kind in _ALWAYS.items():
            telemetry.tokens.record(getattr(usage, field), common | {"gen_ai.token.type": kind})
        if final and recording.unpriced is None:
            micros = usage.cost_micros_usd
            telemetry.cost.add(micros, common)
            self._span.set_attributes(
                {
                    "gen_ai.usage.cost.amount": micros / _MICROS,  # a double, as proposed
                    "gen_ai.usage.cost.currency": "USD",
                    "gen_ai.usage.cost.source": "local",
                    "ledger.cost_micros_usd": micros,
                }
            )


def _failure(status: int | None, content: str | None, error: BaseException | None) -> str | None:
    """Return the kind of failure of an attempt, one of a few; None if it did not fail."""
    if error is not None:
        return type(error).__name__
    if status is not None and content is None:
        return str(status)
    return "cut" if content == "cut" else None


def _present(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
