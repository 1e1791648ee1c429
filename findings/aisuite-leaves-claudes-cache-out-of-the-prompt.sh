#!/usr/bin/env bash
# An answer of Claude's with 10 input tokens, 1000 read from the cache and 500 written to it, which
# aisuite puts into OpenAI's form; and a question whose function is called twice, so that three
# requests of 1000 + 100 tokens are sent.
# Guessed: prompt_tokens are 1510, of which 1000 are cached, since OpenAI counts them so; and the
#          question has the usage of its three requests.
# Seen:    prompt_tokens 10, cached_tokens 1000, total_tokens 110; the 500 are nowhere. The question has
#          the usage of its last request.
# Library: aisuite 0.2.0, anthropic 0.125.0, openai 1.109.1
# Matters: what is charged for the uncached part, prompt less cached tokens, is negative; and a meter on
#          the answer misses all requests of a question but one.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check aisuite==0.2.0 \
    anthropic==0.125.0 \
    openai==1.109.1 \
    httpx==0.28.1 \
    pydantic==2.14.4 \
    docstring_parser==0.17.0
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


USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


def chat(*tools, usage=USAGE, model="gpt-4o-2024-08-06", content="hi", finish=None):
    """Return an answer of OpenAI's chat completions that says content, or calls tools: (name, arguments)."""
    calls = [
        {
            "id": f"call_{len(asked)}_{n}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(given)},
        }
        for n, (name, given) in enumerate(tools)
    ]
    message = {"role": "assistant", "content": None if calls else content}
    return {
        "id": f"c{len(asked)}",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {
                "index": 0,
                "finish_reason": finish or ("tool_calls" if calls else "stop"),
                "message": {**message, "tool_calls": calls} if calls else message,
            }
        ],
        "usage": usage,
    }


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


import aisuite

CACHED = {
    "input_tokens": 10,
    "output_tokens": 100,
    "cache_read_input_tokens": 1000,
    "cache_creation_input_tokens": 500,
}
QUESTION = [{"role": "user", "content": "x"}]


def look(a: int):
    """Look at it."""
    return 1


def answer(path, body):
    if "messages" in path:
        return claude([{"type": "text", "text": "hi"}], CACHED, body)
    return chat(*([("look", {"a": 1})] if len(asked) < 3 else []))


base = serve(answer)
hosts = {"openai": {"api_key": "none", "base_url": base}, "anthropic": {"api_key": "none", "base_url": base}}
create = aisuite.Client(hosts).chat.completions.create

print("aisuite", version("aisuite"), "anthropic", version("anthropic"))
cached = create(model="anthropic:claude-sonnet-4-5", messages=QUESTION).usage
print("Claude's cache:", cached)
asked.clear()
looped = create(model="openai:gpt-4o", messages=QUESTION, tools=[look], max_turns=5).usage
print("requests:", len(asked), "usage:", looped)
assert (cached.prompt_tokens, cached.completion_tokens, cached.total_tokens) == (10, 100, 110)
assert cached.prompt_tokens_details.cached_tokens == 1000
assert "500" not in str(cached)
assert len(asked) == 3 and (looped.prompt_tokens, looped.completion_tokens) == (1000, 100)
PROGRAM
