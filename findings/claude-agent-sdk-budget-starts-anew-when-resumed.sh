#!/usr/bin/env bash
# max_budget_usd=0.006, and queries of 0.0045 USD each: four by one client, and four by query() with
# resume= of the session before.
# Guessed: the budget is that of the session either way, since total_cost_usd is: it ends the second query.
# Seen:    the client ends its second query with error_max_budget_usd, once its request was paid, and
#          sends none after it. Resumed, all four are sent and succeed, although the total that the
#          last says is 0.018 USD: the budget counts from the beginning of the process, the total does not.
# Library: claude-agent-sdk 0.2.189
# Matters: a service that resumes a session for each question of a user has no limit for the session.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check claude-agent-sdk==0.2.189 \
    mcp==2.3.0 \
    pydantic==2.14.4 \
    httpx2==2.16.2
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
    if "count_tokens" in path:
        return {"input_tokens": 1000}
    return claude([{"type": "text", "text": "hi"}], {"input_tokens": 1000, "output_tokens": 100}, body)


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


from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, ResultMessage, query

OPTIONS = {
    "model": "claude-sonnet-4-5",
    "env": ENVIRONMENT,
    "cwd": HOME,
    "setting_sources": [],
    "max_budget_usd": 0.006,
}


async def told(messages):
    (result,) = [message async for message in messages if isinstance(message, ResultMessage)]
    return result


async def by_client():
    async with ClaudeSDKClient(ClaudeAgentOptions(**OPTIONS)) as client:
        results = []
        for _ in range(4):
            await client.query("x")
            results.append(await told(client.receive_response()))
        return results


async def by_resuming():
    results, session = [], None
    for _ in range(4):
        results.append(await told(query(prompt="x", options=ClaudeAgentOptions(**OPTIONS, resume=session))))
        session = results[-1].session_id
    return results


print("claude-agent-sdk", version("claude-agent-sdk"), "max_budget_usd", OPTIONS["max_budget_usd"])
seen = {}
for way in (by_client, by_resuming):
    asked.clear()
    results = asyncio.run(way())
    seen[way.__name__] = len(asked), [result.subtype for result in results]
    print(way.__name__, "requests:", len(asked), [f"{r.subtype} {r.total_cost_usd:.4f}" for r in results])
ended = "error_max_budget_usd"
assert seen["by_client"] == (2, ["success", ended, ended, ended]), seen
assert seen["by_resuming"] == (4, ["success"] * 4), seen
assert round(results[-1].total_cost_usd, 6) == 0.018
PROGRAM
