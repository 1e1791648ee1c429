#!/usr/bin/env bash
# An agent calls a function twice and answers: three requests of 1000 + 100 tokens each, traced by
# OpenTelemetry.
# Guessed: gen_ai.usage.input_tokens, added up over the spans of the trace, is 3000; the span of the agent
#          has other names for its sum, as pydantic-ai's has (gen_ai.aggregated_usage).
# Seen:    6000: the span invoke_agent has the usage of its three calls, whose spans have it too, by the
#          same names.
# Library: strands-agents 1.62.0, opentelemetry-sdk 1.45.1
# Matters: a backend or a query that adds up usage over spans shows each agent's cost twice; only spans
#          whose gen_ai.operation.name is chat count.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check strands-agents[openai]==1.62.0 \
    openai==2.54.0 \
    httpx==0.28.1 \
    pydantic==2.14.4 \
    opentelemetry-sdk==1.45.1
timeout 300 venv/bin/python - <<'PROGRAM'
import warnings

warnings.simplefilter("ignore")
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


class Provider(BaseHTTPRequestHandler):
    """Calls the function look twice, then answers."""

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        calls = sum(message["role"] == "tool" for message in body["messages"])
        message, end = {"role": "assistant", "content": "hi"}, "stop"
        if calls < 2:
            call = {"index": 0, "id": f"call_{calls}", "type": "function"}
            call |= {"function": {"name": "look", "arguments": "{}"}}
            message, end = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
        head = {"id": "c", "created": 1, "model": "gpt-4o", "object": "chat.completion.chunk"}
        parts = [{"choices": [{"index": 0, "finish_reason": end, "delta": message}]}]
        parts.append({"choices": [], "usage": USAGE})
        parts = [json.dumps(head | part) for part in parts]
        data = "".join(f"data: {part}\n\n" for part in [*parts, "[DONE]"])
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())


server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
BASE = f"http://127.0.0.1:{server.server_port}/v1"

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)


from strands import Agent, tool
from strands.models.openai import OpenAIModel


@tool
def look() -> str:
    """Look."""
    return "x"


model = OpenAIModel(client_args={"base_url": BASE, "api_key": "none"}, model_id="gpt-4o")
Agent(model=model, tools=[look], callback_handler=None)("x")
used = {}
for span in spans.get_finished_spans():
    if tokens := span.attributes.get("gen_ai.usage.input_tokens"):
        used.setdefault(span.attributes["gen_ai.operation.name"], []).append(tokens)
print("strands-agents", version("strands-agents"), "gen_ai.usage.input_tokens by operation:", used)
assert used == {"chat": [1000] * 3, "invoke_agent": [3000]}, used
PROGRAM
