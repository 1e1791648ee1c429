#!/usr/bin/env bash
# Structured output that ends at max_tokens, billed with 1000 + 100 tokens: whole by chat.completions.parse,
# and as a stream by chat.completions.stream and responses.stream, both of which say the usage.
# Guessed: LengthFinishReasonError.completion has the usage both ways; responses.stream gives the
#          incomplete response, as responses.create does.
# Seen:    whole, the error has it. The stream raises the same error at the chunk before the one with the
#          usage, so that completion.usage is None, although it was asked for. get_final_response raises
#          RuntimeError, though the event response.incomplete that came by has the usage.
# Library: openai 3.57.0
# Matters: what a program retries with a larger limit was billed in full, and its own books have nothing.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check openai==3.57.0 \
    httpx2==2.16.2 \
    pydantic==2.14.4
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


def chunks(whole, body):
    """Return an answer as a stream: its usage comes at the end, to those who asked for it."""
    (choice,) = whole["choices"]
    head = {key: whole[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    parts = [
        {"choices": [{"index": 0, "delta": choice["message"], "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]},
    ]
    if (body.get("stream_options") or {}).get("include_usage"):
        parts.append({"choices": [], "usage": whole["usage"]})
    return ["data: " + json.dumps(head | part) for part in parts] + ["data: [DONE]"]


from openai import LengthFinishReasonError, OpenAI
from pydantic import BaseModel


class Out(BaseModel):
    v: str


CUT = {
    "id": "r",
    "object": "response",
    "created_at": 1,
    "model": "gpt-4o",
    "status": "incomplete",
    "incomplete_details": {"reason": "max_output_tokens"},
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 1000,
        "output_tokens": 100,
        "total_tokens": 1100,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    },
}


def answer(path, body):
    if "responses" in path:
        started = {**CUT, "status": "in_progress", "usage": None, "incomplete_details": None}
        events = [
            {"type": "response.created", "response": started, "sequence_number": 0},
            {"type": "response.incomplete", "response": CUT, "sequence_number": 1},
        ]
        return [f"event: {event['type']}\ndata: {json.dumps(event)}" for event in events]
    whole = chat(content='{"v": "', finish="length")
    return chunks(whole, body) if body.get("stream") else whole


client = OpenAI(base_url=serve(answer), api_key="none", max_retries=0)
ask = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}], "response_format": Out}
print("openai", version("openai"))

try:
    client.chat.completions.parse(**ask)
except LengthFinishReasonError as error:
    whole = error.completion.usage
try:
    with client.chat.completions.stream(**ask, stream_options={"include_usage": True}) as stream:
        stream.get_final_completion()
except LengthFinishReasonError as error:
    streamed = error.completion.usage
print("parse, the error's usage:", whole.total_tokens, "stream, the error's usage:", streamed)
assert asked[-1]["stream_options"] == {"include_usage": True}
assert whole.total_tokens == 1100 and streamed is None

with client.responses.stream(model="gpt-4o", input="x") as stream:
    said = [event.response.usage for event in stream if event.type == "response.incomplete"]
    try:
        final = stream.get_final_response()
    except RuntimeError as error:
        final = f"{type(error).__name__}: {error}"
print("responses, the event's usage:", said[0].total_tokens, "get_final_response:", final)
assert said[0].total_tokens == 1100 and final.startswith("RuntimeError"), final
PROGRAM
