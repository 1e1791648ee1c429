#!/usr/bin/env bash
# An Anthropic answer whose usage.iterations has a compaction of 180,000 input tokens beside
# the message of 23,000; the SDK says that the top level leaves the compaction out.
# Guessed: price libraries price the two iterations, each for itself: 0.6765 USD.
# Seen:    genai-prices' extract_usage sees the 23,000 only: 0.084 USD.
#          pydantic-ai adds both up and prices the sum with genai-prices, so that the higher
#          price above 200,000 tokens applies, which neither request reached: 1.31925 USD.
# Library: genai-prices 0.2.3, pydantic-ai-slim 2.68.0, anthropic 2.14.0
# Matters: the same answer costs an eighth of what it should, or almost twice as much.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check anthropic==2.14.0 \
    httpx2==2.16.2 \
    pydantic==2.14.4 \
    'pydantic-ai-slim[anthropic]==2.68.0' \
    genai-prices==0.2.3
timeout 120 venv/bin/python - <<'EOF'
import warnings

warnings.simplefilter("ignore")
from importlib.metadata import version

import json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

calls = []


def serve(answer):
    """Serve answer(path, body) on a free loopback port: a dict as JSON, a list as server-sent events."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            calls.append(body)
            out = answer(self.path, body)
            if isinstance(out, list):
                data = "".join(line + "\n\n" for line in out).encode()
                kind = "text/event-stream"
            else:
                data, kind = json.dumps(out).encode(), "application/json"
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def iteration(kind, input_tokens, output_tokens):
    return {
        "type": kind,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": None,
    }


usage = {
    "input_tokens": 23_000,
    "output_tokens": 1_000,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "iterations": [iteration("compaction", 180_000, 3_500), iteration("message", 23_000, 1_000)],
}
start = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 23_000, "output_tokens": 1},
}
whole = {
    **start,
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "usage": usage,
}


def answer(path, body):
    if not body.get("stream"):
        return whole
    text = {"type": "text_delta", "text": "hi"}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    events = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": text},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": usage},
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}" for event in events]


base = serve(answer)

from decimal import Decimal

from genai_prices import Usage, calc_price, extract_usage
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

apart = sum(
    calc_price(
        Usage(input_tokens=each["input_tokens"], output_tokens=each["output_tokens"]),
        "claude-sonnet-4-5",
        provider_id="anthropic",
    ).total_price
    for each in usage["iterations"]
)
extracted = extract_usage(whole, provider_id="anthropic")
model = AnthropicModel(
    "claude-sonnet-4-5", provider=AnthropicProvider(base_url=base, api_key="none")
)
run = Agent(model).run_sync("x").usage

for name in ("genai-prices", "pydantic-ai-slim", "anthropic"):
    print(name, version(name))
print("each iteration for itself:", apart, "USD")
price = extracted.calc_price().total_price
print("genai-prices extract_usage:", extracted.usage.input_tokens, "input tokens,", price, "USD")
print("pydantic-ai:", run.input_tokens, "input tokens,", run.cost, "USD")
assert apart == Decimal("0.6765")
assert (extracted.usage.input_tokens, price) == (23_000, Decimal("0.084"))
assert (run.input_tokens, run.output_tokens, run.cost) == (203_000, 4_500, Decimal("1.31925"))
EOF
