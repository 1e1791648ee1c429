#!/usr/bin/env bash
# An answer of OpenAI's that is made in the background, 1000 + 100 tokens: responses.create(background=True)
# returns it as queued, without usage, and responses.retrieve is asked for it four times: in progress, and
# then three times completed, as a web page does that shows it again.
# Guessed: three tracers of openai have its tokens once.
# Seen:    openinference and logfire write a span with all tokens each time that it is fetched, three in
#          all, logfire with its cost; OpenLLMetry writes none with usage.
# Library: openinference-instrumentation-openai 0.1.66, logfire 5.4.0 with genai-prices 0.2.3,
#          opentelemetry-instrumentation-openai 0.62.4, openai 3.57.0
# Matters: who looks at a stored answer is charged for it again, or nobody is; OpenAI bills it once.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check openai==3.57.0 \
    httpx2==2.16.2 \
    pydantic==2.14.4 \
    logfire==5.4.0 \
    genai-prices==0.2.3 \
    opentelemetry-instrumentation-openai==0.62.4 \
    openinference-instrumentation-openai==0.1.66
cat >try.py <<'PROGRAM'
import warnings

warnings.simplefilter("ignore")
import json
import logging
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module

CONTENT = {"type": "output_text", "text": "hi", "annotations": []}
MESSAGE = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [CONTENT]}
USAGE = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
USAGE |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
ANSWER = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-4o", "background": True}
ANSWER |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "output": [], "usage": None}
WHOLE = ANSWER | {"status": "completed", "output": [MESSAGE], "usage": USAGE}
STATES = [ANSWER | {"status": "queued"}, ANSWER | {"status": "in_progress"}, WHOLE, WHOLE, WHOLE]


class Provider(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        data = json.dumps(STATES.pop(0)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET


server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()

from openai import OpenAI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

logging.disable(logging.CRITICAL)
module, *wanted = sys.argv[1:]
spans = InMemorySpanExporter()
client = OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none")
if module == "logfire":
    import logfire

    keep = [SimpleSpanProcessor(spans)]
    logfire.configure(send_to_logfire=False, console=False, additional_span_processors=keep)
    logfire.instrument_openai(client)
else:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    import_module(module).OpenAIInstrumentor().instrument(tracer_provider=provider)

client.responses.create(model="gpt-4o", input="x", background=True)
statuses = [client.responses.retrieve("resp_1").status for _ in range(4)]
assert statuses == ["in_progress"] + ["completed"] * 3, statuses
used = [span.attributes for span in spans.get_finished_spans() if wanted[0] in span.attributes]
print([[span[name] for name in wanted] for span in used])
PROGRAM
usage=gen_ai.usage
logfire=$(timeout 120 venv/bin/python try.py logfire $usage.input_tokens $usage.output_tokens operation.cost)
openinference=$(timeout 120 venv/bin/python try.py openinference.instrumentation.openai \
    llm.token_count.prompt llm.token_count.completion)
openllmetry=$(timeout 120 venv/bin/python try.py opentelemetry.instrumentation.openai \
    $usage.input_tokens $usage.output_tokens)
echo "spans with usage:"
echo "logfire 5.4.0, and cost: $logfire"
echo "openinference-instrumentation-openai 0.1.66: $openinference"
echo "opentelemetry-instrumentation-openai 0.62.4: $openllmetry"
test "$logfire" = "[[1000, 100, 0.0035], [1000, 100, 0.0035], [1000, 100, 0.0035]]"
test "$openinference" = "[[1000, 100], [1000, 100], [1000, 100]]"
test "$openllmetry" = "[]"
