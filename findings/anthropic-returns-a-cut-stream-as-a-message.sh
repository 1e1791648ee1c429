#!/usr/bin/env bash
# A stream of Claude's, 1000 + 100 tokens, which a gateway ends without an error before its
# message_delta, that is before the end's usage; and the same of OpenAI's responses.
# Guessed: get_final_message raises, since the message is not whole, as openai's get_final_response does.
# Seen:    it returns a message, with the text so far, stop_reason None, and as usage that of the
#          stream's beginning: 1000 + 1. openai raises RuntimeError.
# Library: anthropic 2.14.0, openai 3.57.0
# Matters: a meter on the final message books one token of output for any length of text that came.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check anthropic==2.14.0 \
    openai==3.57.0 \
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


from anthropic import Anthropic
from openai import OpenAI


def answer(path, body):
    if "responses" in path:
        event = {"type": "response.created", "response": {"id": "r", "object": "response", "output": []}}
        return ["event: response.created\ndata: " + json.dumps(event)]
    whole = claude(
        [{"type": "text", "text": "word " * 90}], {"input_tokens": 1000, "output_tokens": 100}, body
    )
    ends = next(n for n, part in enumerate(whole) if part.startswith("event: message_delta"))
    return whole[:ends] if cut else whole


base = serve(answer)
client = Anthropic(base_url=base, api_key="none", max_retries=0)
ask = {"model": "claude-sonnet-4-5", "max_tokens": 200, "messages": [{"role": "user", "content": "x"}]}
print("anthropic", version("anthropic"), "openai", version("openai"))
seen = {}
for cut in (False, True):
    with client.messages.stream(**ask) as stream:
        message = stream.get_final_message()
    seen[cut] = len(message.content[0].text), message.stop_reason, message.usage.output_tokens
    print("cut:" if cut else "whole:", "letters, stop_reason, output tokens:", seen[cut])
assert seen == {False: (450, "end_turn", 100), True: (450, None, 1)}, seen
try:
    with OpenAI(base_url=base, api_key="none", max_retries=0).responses.stream(
        model="m", input="x"
    ) as stream:
        stream.get_final_response()
except RuntimeError as error:
    print("openai:", type(error).__name__, error)
else:
    raise AssertionError("openai raised nothing")
PROGRAM
