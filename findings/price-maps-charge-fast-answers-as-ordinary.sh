#!/usr/bin/env bash
# An answer of claude-opus-4-6 with a million input tokens, asked for with speed="fast", whose usage
# says "speed": "fast": by litellm, by genai-prices, and by Claude Code through claude-agent-sdk.
# Guessed: all three charge the price of fast mode.
# Seen:    Claude Code says 30.00 USD, litellm 5.00 and genai-prices 5.00, which is the ordinary price;
#          litellm also keeps the speed in the usage that it returns. Neither warns.
# Library: litellm 1.110.2, genai-prices 0.2.3, anthropic 2.14.0, claude-agent-sdk 0.2.189
# Matters: fast answers are booked at a sixth of what Anthropic's own program says that they cost.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check litellm==1.110.2 \
    genai-prices==0.2.3 \
    claude-agent-sdk==0.2.189 \
    mcp==2.3.0 \
    openai==3.57.0 \
    httpx==0.28.1 \
    httpx2==2.16.2 \
    pydantic==2.14.4 \
    tiktoken==0.14.0
LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS=True LITELLM_LOCAL_MODEL_COST_MAP=True timeout 120 venv/bin/python - <<'PROGRAM'
import warnings

warnings.simplefilter("ignore")
from importlib.metadata import version


import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

asked = []


def serve(answer):
    """Serve answer(path, body) on a free loopback port: a dict as JSON, a list as server-sent events."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append(body)
            out = answer(self.path, body)
            if isinstance(out, list):
                data = "".join(part + "\n\n" for part in out).encode()
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


def claude(content, usage, body, stop="end_turn"):
    """Return an answer of Anthropic's messages, as a stream where it is asked for."""
    message = {
        "id": f"msg_{len(asked)}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage,
    }
    if not body.get("stream"):
        return message
    start = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    events = [{"type": "message_start", "message": start}]
    for index, block in enumerate(content):
        if block["type"] == "text":
            empty, delta = {"text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            empty, delta = (
                {"input": {}},
                {"type": "input_json_delta", "partial_json": json.dumps(block["input"])},
            )
        events.append({"type": "content_block_start", "index": index, "content_block": {**block, **empty}})
        events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": stop, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": end, "usage": usage})
    events.append({"type": "message_stop"})
    return [f"event: {event['type']}\ndata: {json.dumps(event)}" for event in events]


USED = {"input_tokens": 1_000_000, "output_tokens": 0, "speed": "fast"}


def answer(path, body):
    if "count_tokens" in path:
        return {"input_tokens": 1000}
    return claude([{"type": "text", "text": "hi"}], USED, body)


import asyncio
import os
import tempfile

HOME = tempfile.mkdtemp(dir=".")
HOME = os.path.abspath(HOME)
for name in list(os.environ):  # only what is said below
    if name.startswith(("ANTHROPIC_", "CLAUDE", "AWS_", "GOOGLE_")):
        del os.environ[name]
ENVIRONMENT = {
    "ANTHROPIC_BASE_URL": serve(answer),
    "ANTHROPIC_API_KEY": "none",
    "HOME": HOME,
    "CLAUDE_CONFIG_DIR": f"{HOME}/.claude",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
}


import litellm
from claude_agent_sdk import ClaudeAgentOptions, ResultMessage, query
from genai_prices import Usage, calc_price, extract_usage

litellm.suppress_debug_info = True
MODEL = "claude-opus-4-6"


async def by_claude_code():
    options = ClaudeAgentOptions(model=MODEL, env=ENVIRONMENT, cwd=HOME, setting_sources=[])
    (result,) = [m async for m in query(prompt="x", options=options) if isinstance(m, ResultMessage)]
    return result.total_cost_usd


def by_litellm():
    whole = litellm.completion(
        f"anthropic/{MODEL}",
        [{"role": "user", "content": "x"}],
        api_base=ENVIRONMENT["ANTHROPIC_BASE_URL"],
        api_key="none",
        max_tokens=9,
        speed="fast",
    )
    assert asked[-1]["speed"] == whole.usage.speed == "fast"
    return whole._hidden_params["response_cost"]


def by_genai_prices():
    said = extract_usage({"model": MODEL, "usage": USED}, provider_id="anthropic")
    asked_for = calc_price(
        Usage(input_tokens=1_000_000), MODEL, provider_id="anthropic", price_context={"speed": "fast"}
    )
    return float(said.calc_price().total_price), float(asked_for.total_price)


for name in ("claude-agent-sdk", "litellm", "genai-prices"):
    print(name, version(name))
code, other, maps = asyncio.run(by_claude_code()), by_litellm(), by_genai_prices()
print(f"Claude Code {code} USD, litellm {other} USD, genai-prices {maps} USD")
assert (code, other, maps) == (30, 5.0, (5.0, 5.0)), (code, other, maps)
PROGRAM
