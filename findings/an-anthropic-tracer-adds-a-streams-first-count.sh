#!/usr/bin/env bash
# One answer of Anthropic's API, whole and as a stream: 10 tokens of input, 100 read from a cache,
# 50 written to it, 7 of output. A stream says "1 so far" when it begins and "7 so far" at its end. And
# a stream with a search of the web, which says 160 of input when it begins, and 8160 at its end.
# Guessed: two tracers say 160 and 7 of both, and 8160 and 7 of the search.
# Seen:    openinference does. opentelemetry-instrumentation-anthropic says 160 and 7 of the whole
#          answer, and 160 and 8 of the stream, by stream=True and by messages.stream alike; of the
#          search, too: what was found and read is left out.
# Library: opentelemetry-instrumentation-anthropic 0.62.4, openinference-instrumentation-anthropic
#          3.1.0, anthropic 2.14.0
# Matters: spans of streams say a little more output than the bill, and with searches, which read
#          thousands of tokens, a small part of the input.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check anthropic==2.14.0 \
    opentelemetry-instrumentation-anthropic==0.62.4 \
    openinference-instrumentation-anthropic==3.1.0 \
    opentelemetry-sdk==1.45.2
cat > traced.py <<'EOF'
import json
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module

warnings.simplefilter("ignore")

USAGE = {
    "input_tokens": 10,
    "cache_read_input_tokens": 100,
    "cache_creation_input_tokens": 50,
}
MESSAGE = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "stop_reason": "end_turn",
    "stop_sequence": None,
}
TEXT = {"type": "text", "text": "hi"}
EVENTS = [
    {
        "type": "message_start",
        "message": MESSAGE
        | {"content": [], "stop_reason": None, "usage": USAGE | {"output_tokens": 1}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 7},
    },
    {"type": "message_stop"},
]

SEARCH = {"input_tokens": 8010, "server_tool_use": {"web_search_requests": 1}}


class Provider(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if asked.get("stream"):
            events = json.loads(json.dumps(EVENTS))
            if asked.get("tools"):
                events[-2]["usage"] |= USAGE | SEARCH
            lines = (f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events)
            kind, text = "text/event-stream", "".join(lines)
        else:
            whole = MESSAGE | {"content": [TEXT], "usage": USAGE | {"output_tokens": 7}}
            kind, text = "application/json", json.dumps(whole)
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
module, names = sys.argv[1], sys.argv[2:]
import_module(module).AnthropicInstrumentor().instrument(tracer_provider=provider)

import anthropic

client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.server_port}", api_key="none")
call = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "hi"}],
}
client.messages.create(**call)
for _ in client.messages.create(stream=True, **call):
    pass
with client.messages.stream(**call) as stream:
    stream.get_final_message()
search = {"type": "web_search_20250305", "name": "web_search"}
for _ in client.messages.create(stream=True, tools=[search], **call):
    pass
print([[span.attributes[name] for name in names] for span in spans.get_finished_spans()])
EOF
one=$(timeout 120 venv/bin/python traced.py opentelemetry.instrumentation.anthropic \
    gen_ai.usage.input_tokens gen_ai.usage.output_tokens)
other=$(timeout 120 venv/bin/python traced.py openinference.instrumentation.anthropic \
    llm.token_count.prompt llm.token_count.completion)
echo "input and output of a whole answer, a stream, one with its helper, and one with a search:"
echo "opentelemetry-instrumentation-anthropic 0.62.4: $one"
echo "openinference-instrumentation-anthropic 3.1.0:  $other"
test "$one" = "[[160, 7], [160, 8], [160, 8], [160, 8]]"
test "$other" = "[[160, 7], [160, 7], [160, 7], [8160, 7]]"
