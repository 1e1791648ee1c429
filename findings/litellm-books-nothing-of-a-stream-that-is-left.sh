#!/usr/bin/env bash
# Streams of gpt-4o by litellm, billed with a million input tokens (2.50 USD) and left after their first
# part by `break`, as a web service does whose reader has gone: by completion() and acompletion(), and
# read to their end for comparison.
# Guessed: the callbacks that keep the cost are told of a left stream, too, with an estimate at least.
# Seen:    read to its end, success_callback has the cost. Left, neither success_callback nor
#          failure_callback is ever called with a cost: not when the stream is closed, nor when it is
#          collected as garbage.
# Library: litellm 1.110.2
# Matters: costs that are kept by callbacks, as litellm's own loggers and budgets of the router keep them,
#          miss each answer that a reader stops, which the provider bills.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check litellm==1.110.2 \
    openai==3.57.0 \
    httpx==0.28.1 \
    httpx2==2.16.2 \
    pydantic==2.14.4
LITELLM_LOCAL_MODEL_COST_MAP=True timeout 300 venv/bin/python - <<'PROGRAM'
import warnings

warnings.simplefilter("ignore")
import asyncio
import gc
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

USAGE = {"prompt_tokens": 1_000_000, "completion_tokens": 5, "total_tokens": 1_000_005}
HEAD = {"id": "c", "created": 1, "model": "gpt-4o", "object": "chat.completion.chunk"}
WORD = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi "}}]}
END = [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": USAGE}]
PARTS = [json.dumps(HEAD | part) for part in [*[WORD] * 5, *END]] + ["[DONE]"]
asked = []


class Provider(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        asked.append(self.path)
        data = "".join(f"data: {part}\n\n" for part in PARTS).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()

import litellm

costs = []


def note(kwargs, *_):
    if kwargs.get("response_cost") is not None:
        costs.append(kwargs["response_cost"])


async def note_async(*given):
    note(*given)


litellm.success_callback = [note, note_async]
litellm.failure_callback = [note, note_async]
ask = {
    "model": "openai/gpt-4o",
    "messages": [{"role": "user", "content": "x"}],
    "api_base": f"http://127.0.0.1:{server.server_port}/v1",
    "api_key": "none",
    "stream": True,
    "stream_options": {"include_usage": True},
}


def threads(leaves):
    stream = litellm.completion(**ask)
    for _ in stream:
        if leaves:
            break
    del stream
    gc.collect()
    time.sleep(3)
    for _ in range(0 if leaves else 300):  # the callback has a thread of its own
        time.sleep(0 if costs else 0.1)


def tasks(leaves):
    async def run():
        stream = await litellm.acompletion(**ask)
        async for _ in stream:
            if leaves:
                break
        if leaves:
            await stream.aclose()
        await asyncio.sleep(3)
        for _ in range(0 if leaves else 300):
            await asyncio.sleep(0 if costs else 0.1)

    asyncio.run(run())
    gc.collect()


print("litellm", version("litellm"))
for way in (threads, tasks):
    seen = []
    for leaves in (False, True):
        way(leaves)
        seen.append([round(cost, 2) for cost in costs])
        costs.clear()
    print(f"{way.__name__}: costs of a stream read to its end {seen[0]}, of a left one {seen[1]}")
    assert set(seen[0]) == {2.5} and seen[1] == [], seen
assert len(asked) == 4, asked
PROGRAM
