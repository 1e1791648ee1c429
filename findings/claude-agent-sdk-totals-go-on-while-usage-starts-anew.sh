#!/usr/bin/env bash
# Three queries of one ClaudeSDKClient, the session resumed once, and forked twice; each is one
# request, of 1000 + 100 tokens of claude-sonnet-4-5, which cost 0.0045 USD.
# Guessed: total_cost_usd and usage of each ResultMessage are of the same thing, the query.
# Seen:    usage is of the query, 1000 + 100 each time; total_cost_usd and model_usage are of all that
#          the session has done, also before it was resumed or forked: 0.0045, 0.0090, 0.0135,
#          then 0.0180 from each of the three others. Added up they are 0.081 USD, and 0.027 were spent.
# Library: claude-agent-sdk 0.2.189
# Matters: a meter that adds up the results of a session charges a multiple of it: take the difference
#          to the result before, and to the parent's in a fork.
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

OPTIONS = {"model": "claude-sonnet-4-5", "env": ENVIRONMENT, "cwd": HOME, "setting_sources": []}
results = []


async def told(messages):
    async for message in messages:
        if isinstance(message, ResultMessage):
            results.append(message)


async def main():
    async with ClaudeSDKClient(ClaudeAgentOptions(**OPTIONS)) as client:
        for _ in range(3):
            await client.query("x")
            await told(client.receive_response())
    session = results[-1].session_id
    for forks in (True, True, False):
        options = ClaudeAgentOptions(**OPTIONS, resume=session, fork_session=forks)
        await told(query(prompt="x", options=options))


asyncio.run(main())
print("claude-agent-sdk", version("claude-agent-sdk"), "requests:", len(asked))
for result in results:
    (by_model,) = result.model_usage.values()
    print(
        f"usage {result.usage['input_tokens']} + {result.usage['output_tokens']},",
        f"total_cost_usd {result.total_cost_usd:.4f}, model_usage {by_model['inputTokens']}",
    )
assert len(asked) == 6 and not any(result.is_error for result in results)
assert [result.usage["input_tokens"] for result in results] == [1000] * 6
assert [round(result.total_cost_usd, 6) for result in results] == [0.0045, 0.009, 0.0135, 0.018, 0.018, 0.018]
assert len({result.session_id for result in results}) == 3
print(f"added up {sum(result.total_cost_usd for result in results):.4f}, spent {0.0045 * len(asked):.4f} USD")
PROGRAM
