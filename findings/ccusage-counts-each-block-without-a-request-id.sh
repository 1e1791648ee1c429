#!/usr/bin/env bash
# The log that Claude Code writes of two requests of 1000 + 100 tokens, the first of which is answered
# by a text and two calls of a tool, from a server that sends the header request-id and from one that
# does not, as many gateways do not.
# Guessed: ccusage counts 2000 + 200 tokens of both: the log has one line for each block, with the
#          answer's usage, but all of an answer have its message.id.
# Seen:    2000 + 200 with the header; without it the lines have no requestId, and each counts:
#          4000 + 400 tokens, 0.018 USD where 0.009 were spent.
# Library: ccusage 20.0.24 (npm, Linux x64), claude-agent-sdk 0.2.189 (with its Claude Code)
# Matters: books that are held against ccusage behind a gateway seem to have lost half of the calls.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check claude-agent-sdk==0.2.189 \
    mcp==2.3.0 \
    pydantic==2.14.4 \
    httpx2==2.16.2
echo '{}' >package.json
npm install --silent --no-audit --no-fund ccusage@20.0.24 @ccusage/ccusage-linux-x64@20.0.24
timeout 120 venv/bin/python - <<'PROGRAM'
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
            if names_requests:
                self.send_header("request-id", f"req_{len(asked)}")
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


def answer(path, body):
    usage = {"input_tokens": 1000, "output_tokens": 100}
    if "count_tokens" in path:
        return {"input_tokens": 1000}
    if len(asked) > 1:
        return claude([{"type": "text", "text": "hi"}], usage, body)
    calls = [
        {"type": "tool_use", "id": f"toolu_{a}", "name": "mcp__sums__add", "input": {"a": a}} for a in (1, 2)
    ]
    return claude([{"type": "text", "text": "I add"}, *calls], usage, body, "tool_use")


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


import subprocess

from claude_agent_sdk import ClaudeAgentOptions, ResultMessage, create_sdk_mcp_server, query, tool


@tool("add", "Add one", {"a": int})
async def add(given):
    return {"content": [{"type": "text", "text": "1"}]}


async def run(home):
    options = ClaudeAgentOptions(
        model="claude-sonnet-4-5",
        env={**ENVIRONMENT, "HOME": home, "CLAUDE_CONFIG_DIR": f"{home}/.claude"},
        cwd=HOME,
        setting_sources=[],
        mcp_servers={"sums": create_sdk_mcp_server("sums", tools=[add])},
        allowed_tools=["mcp__sums__add"],
    )
    return [message async for message in query(prompt="x", options=options)][-1]


def ccusage(home, *words):
    env = {**os.environ, "HOME": home, "CLAUDE_CONFIG_DIR": f"{home}/.claude", "TZ": "UTC"}
    program = ["node_modules/.bin/ccusage", *words]
    done = subprocess.run(program, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done
    return done.stdout


print("claude-agent-sdk", version("claude-agent-sdk"), ccusage(HOME, "--version").strip())
seen = {}
for names_requests in (True, False):
    asked.clear()
    home = f"{HOME}/{names_requests}"
    os.mkdir(home)
    result = asyncio.run(run(home))
    assert isinstance(result, ResultMessage) and len(asked) == 2
    assert (result.usage["input_tokens"], result.usage["output_tokens"]) == (2000, 200)
    totals = json.loads(ccusage(home, "claude", "daily", "--json", "--offline"))["totals"]
    seen[names_requests] = totals["inputTokens"], totals["outputTokens"], round(totals["totalCost"], 6)
    print("header request-id:", names_requests, "ccusage:", seen[names_requests])
assert seen == {True: (2000, 200, 0.009), False: (4000, 400, 0.018)}, seen
PROGRAM
