#!/usr/bin/env bash
# A query of two requests: the first answer is a text and two calls of a tool, the second a text. Each
# has 1000 + 100 tokens, of which the stream says 1000 + 1 at its beginning and all at its end.
# Guessed: there are two AssistantMessages, whose usage is that of their answers, 1000 + 100.
# Seen:    there are four, one for each block; all of an answer have its message_id and its usage, but
#          that of the stream's beginning: 1000 + 1. Only the ResultMessage has 2000 + 200.
# Library: claude-agent-sdk 0.2.189
# Matters: a meter on AssistantMessage takes input once for each block, and almost none of the output.
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


from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    ResultMessage,
    create_sdk_mcp_server,
    query,
    tool,
)


@tool("add", "Add one", {"a": int})
async def add(given):
    return {"content": [{"type": "text", "text": "1"}]}


async def main():
    options = ClaudeAgentOptions(
        model="claude-sonnet-4-5",
        env=ENVIRONMENT,
        cwd=HOME,
        setting_sources=[],
        mcp_servers={"sums": create_sdk_mcp_server("sums", tools=[add])},
        allowed_tools=["mcp__sums__add"],
    )
    said, result = [], None
    async for message in query(prompt="x", options=options):
        if isinstance(message, AssistantMessage):
            said.append((message.message_id, message.usage["input_tokens"], message.usage["output_tokens"]))
        if isinstance(message, ResultMessage):
            result = message.usage["input_tokens"], message.usage["output_tokens"]
    return said, result


said, result = asyncio.run(main())
print("claude-agent-sdk", version("claude-agent-sdk"), "requests:", len(asked))
print("AssistantMessages:", said)
print("ResultMessage:", result)
assert len(asked) == 2
assert said == [("msg_1", 1000, 1)] * 3 + [("msg_2", 1000, 1)], said
assert result == (2000, 200), result
PROGRAM
