#!/usr/bin/env bash
# An agent that plans before each step answers in one step: a request for the plan and one for the
# step, of 1000 + 100 tokens each; then, with reset=False, a second question, likewise.
# Guessed: agent.monitor and the result's token_usage both say 2000 + 200 after the first run; the
#          second result says 2000 + 200 of its own.
# Seen:    the monitor, which prints the tokens of each step, says 1000 + 100 after the first run, as
#          plans are not counted; the second result's token_usage is that of both runs.
# Library: smolagents 1.26.0
# Matters: a budget held against the monitor misses every plan; results of one conversation that are
#          added up charge its beginning again and again.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check smolagents[openai]==1.26.0 \
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


from smolagents import OpenAIModel, ToolCallingAgent


def answer(path, body):
    return chat(*([("final_answer", {"answer": "1"})] if body.get("tools") else []))


model = OpenAIModel(model_id="gpt-4o", api_base=serve(answer), api_key="none")
agent = ToolCallingAgent(tools=[], model=model, planning_interval=1, verbosity_level=0)
seen = []
print("smolagents", version("smolagents"))
for first in (True, False):
    asked.clear()
    result = agent.run("x", return_full_result=True, reset=first)
    counted = agent.monitor.get_total_token_counts()
    seen.append((len(asked), result.token_usage.input_tokens, counted.input_tokens))
    print(f"{len(asked)} requests: result {result.token_usage}, monitor {counted}")
assert seen == [(2, 2000, 1000), (2, 4000, 2000)], seen
PROGRAM
