#!/usr/bin/env bash
# A streamed run of openai-agents whose loop over stream_events() is left by `break` after the first
# tool call, in a program that goes on with other work; nothing is kept of the run.
# Guessed: the run stops, as a generator does that is left: nobody reads what it makes.
# Seen:    it goes on in a task of its own, calls the tool and the model again, up to max_turns.
# Library: openai-agents 0.24.0
# Matters: each further request is billed for a caller that has left; only result.cancel() stops it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check openai-agents==0.24.0 \
    openai==3.57.0 \
    httpx2==2.16.2 \
    pydantic==2.14.4
cat >try.py <<'EOF'
import asyncio, gc, json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

set_tracing_disabled(True)
requests, looked_up = [], []
TURNS = 5


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        requests.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        wish = {"name": "look_up", "arguments": json.dumps({"what": f"thing {len(requests)}"})}
        call = {"index": 0, "id": f"call_{len(requests)}", "type": "function", "function": wish}
        chunk = {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "gpt-4o",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "tool_calls",
                    "delta": {"role": "assistant", "tool_calls": [call]},
                }
            ],
        }
        data = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()


@function_tool
def look_up(what: str) -> str:
    """Look something up."""
    looked_up.append(what)
    return "found"


async def left(way):
    client = AsyncOpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none")
    model = OpenAIChatCompletionsModel(model="gpt-4o", openai_client=client)
    result = Runner.run_streamed(
        Agent(name="a", model=model, tools=[look_up]), "x", max_turns=TURNS
    )
    async for event in result.stream_events():
        if event.type == "run_item_stream_event":
            break
    if way == "cancel":
        result.cancel()
    del result, event
    gc.collect()
    before = len(requests)
    for _ in range(100):
        await asyncio.sleep(0.05)
        if len(requests) == TURNS:
            break
    return before


for way, expected in (("break", TURNS), ("cancel", 1)):
    requests.clear()
    looked_up.clear()
    before = asyncio.run(left(way))
    print(
        "openai-agents", version("openai-agents"), f"{way}: {before} requests when it was left,",
        len(requests), "in the end, tool called", len(looked_up), "times", flush=True,
    )
    assert before == 1
    assert len(requests) == expected
EOF
timeout 300 venv/bin/python try.py
