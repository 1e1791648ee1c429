#!/usr/bin/env bash
# agentbudget.init("$1.50"), then six calls of openai's client, of 1 USD each: one after the other, and
# from as many threads.
# Guessed: the third is refused before it is sent, or the second; in threads those on their way go over.
# Seen:    one after the other all six are sent; the answer of the second and of each one after it is
#          thrown away with BudgetExhausted, and spent() stays 1.00 where 6.00 were billed. In
#          threads all six are sent and answered, and spent() is 0: the session is of one thread.
# Library: agentbudget 0.4.0, openai 3.57.0
# Matters: an agent that asks again when it is refused is billed without end, and its budget shows a rest.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check agentbudget==0.4.0 \
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


import agentbudget
from openai import OpenAI

CENTS = {"prompt_tokens": 400_000, "completion_tokens": 0, "total_tokens": 400_000}  # 1 USD of gpt-4o
base = serve(lambda path, body: chat(usage=CENTS)) + "/v1"


def trial(runs_all):
    """Return how many of six calls were sent, how many of these were refused, and what was spent."""
    asked.clear()
    refused = []
    agentbudget.init("$1.50")
    client = OpenAI(base_url=base, api_key="none", max_retries=0)

    def ask():
        try:
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])
        except agentbudget.BudgetExhausted:
            refused.append(1)

    runs_all([ask] * 6)
    spent = agentbudget.spent()
    agentbudget.teardown()
    return len(asked), len(refused), spent


def in_turn(calls):
    for call in calls:
        call()


def in_threads(calls):
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


print("agentbudget", version("agentbudget"), "openai", version("openai"))
seen = {runs_all.__name__: trial(runs_all) for runs_all in (in_turn, in_threads)}
for name, found in seen.items():
    print(f"{name}: sent, refused, spent: {found}")
assert seen == {"in_turn": (6, 5, 1.0), "in_threads": (6, 0, 0.0)}, seen
PROGRAM
