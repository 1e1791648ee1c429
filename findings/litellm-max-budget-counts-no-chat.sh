#!/usr/bin/env bash
# litellm.max_budget = 1.5, and six calls of 1 USD each, by completion(), acompletion() and a Router.
# Guessed: the third raises BudgetExceededError, or the fourth where costs are counted late.
# Seen:    all are sent, and litellm._current_cost, which the limit is held against, stays 0: it only
#          grows by answers that are dicts, and those of chat are none. success_callback has the cost.
# Library: litellm 1.110.2
# Matters: the limit that is set with one line stops nothing, and says nothing.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check litellm==1.110.2 \
    httpx==0.28.1 \
    tiktoken==0.14.0 \
    openai==3.57.0 \
    httpx2==2.16.2 \
    pydantic==2.14.4
LITELLM_LOCAL_MODEL_COST_MAP=True timeout 120 venv/bin/python - <<'PROGRAM'
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


import asyncio
import time

import litellm

litellm.suppress_debug_info = True
CENTS = {"prompt_tokens": 400_000, "completion_tokens": 0, "total_tokens": 400_000}  # 1 USD of gpt-4o
base = serve(lambda path, body: chat(usage=CENTS, model="gpt-4o")) + "/v1"
costs = []
litellm.success_callback = [lambda call, *_: costs.append(call["response_cost"])]
litellm.max_budget = 1.5
loop = asyncio.Runner()
MESSAGES = [{"role": "user", "content": "x"}]
HOW = {"model": "openai/gpt-4o", "api_base": base, "api_key": "none"}


def by_completion():
    litellm.completion(messages=MESSAGES, **HOW)


def by_acompletion():
    loop.run(litellm.acompletion(messages=MESSAGES, **HOW))


def by_router():
    router = litellm.Router(model_list=[{"model_name": "it", "litellm_params": HOW}], num_retries=0)
    router.completion("it", MESSAGES)


print("litellm", version("litellm"), "max_budget", litellm.max_budget)
for way in (by_completion, by_acompletion, by_router):
    asked.clear()
    refused = 0
    for _ in range(6):
        try:
            way()
        except litellm.BudgetExceededError:
            refused += 1
        time.sleep(0.5)  # costs are counted after the answer
    print(f"{way.__name__}: {len(asked)} sent, {refused} refused, counted {litellm._current_cost} USD")
    assert (len(asked), refused, litellm._current_cost) == (6, 0, 0)
print("costs that success_callback saw:", costs)
assert costs and set(costs) == {1.0}
PROGRAM
