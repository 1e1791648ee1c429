"""A call as a span, and its pool as metrics, for OpenTelemetry and for Prometheus.

Install: `pip install '.[prices,otel,metrics]' opentelemetry-sdk httpx`

Prints:

    chat gpt-4o: 1000 + 200 tokens, 4500 micro-USD, complete
    chat gpt-4o: refused by ThresholdExceededError
    ledger_pool_remaining_cost_micros_usd{pool="team"} 5500.0
    ledger_pool_admitted_total{pool="team"} 1.0
"""

import tempfile
from pathlib import Path

import httpx
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import generate_latest

from ledger import Ledger, SharedPoolBudgetOptions, usd
from ledger.telemetry import PoolCollector, Telemetry
from ledger.transport import budgeted

ANSWER = {
    "id": "chatcmpl-1",
    "model": "gpt-4o",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "Hello."}}],
    "usage": {"prompt_tokens": 1_000, "completion_tokens": 200, "total_tokens": 1_200},
}
QUESTION = {"model": "gpt-4o", "max_tokens": 500, "messages": [{"role": "user", "content": "Hi"}]}


class Printed(SpanExporter):
    """Prints spans; a real program has an exporter of OTLP in its place."""

    def export(self, spans: "list[ReadableSpan]") -> SpanExportResult:
        """Print what matters of each span."""
        for span in spans:
            said = span.attributes
            if "ledger.content" in said:
                print(
                    f"{span.name}: {said['gen_ai.usage.input_tokens']} + "
                    f"{said['gen_ai.usage.output_tokens']} tokens, "
                    f"{said['ledger.cost_micros_usd']} micro-USD, {said['ledger.content']}"
                )
            else:
                print(f"{span.name}: refused by {said['error.type']}")
        return SpanExportResult.SUCCESS


def main() -> None:
    """Make a call that fits and one that does not, and look at the page."""
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(Printed()))
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(f"sqlite:///{Path(folder) / 'ledger.db'}") as book,
    ):
        team = book.pool("team", SharedPoolBudgetOptions(capacity_cost_micros_usd=usd("0.01")))
        model = httpx.MockTransport(lambda _: httpx.Response(200, json=ANSWER))
        client = httpx.Client(base_url="https://api.openai.com/v1", transport=model)
        budgeted(client, pool=team, telemetry=Telemetry(tracer_provider=tracers))
        client.post("/chat/completions", json=QUESTION)
        client.post("/chat/completions", json=QUESTION | {"max_tokens": 900})
        client.close()
        page = generate_latest(PoolCollector(book).registry()).decode()
    for line in page.splitlines():
        if line.startswith(("ledger_pool_remaining_cost", "ledger_pool_admitted_total")):
            print(line)


if __name__ == "__main__":
    main()
