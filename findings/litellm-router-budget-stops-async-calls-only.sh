#!/usr/bin/env bash
# A litellm Router whose deployment has max_budget 1.5 USD a day; each call costs 1 USD.
# Guessed: after two calls the third is refused, by completion() as by acompletion().
# Seen:    acompletion() is refused; completion() is sent all five times. Each way has a
#          process of its own, so that neither disturbs the other's counting.
# Library: litellm 1.110.2
# Matters: a limit that holds in one program holds nothing in the same program without async.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check litellm==1.110.2 \
    openai==3.57.0 \
    httpx==0.28.1 \
    httpx2==2.16.2 \
    pydantic==2.14.4 \
    tiktoken==0.14.0
cat >try.py <<'EOF'
import warnings

warnings.simplefilter("ignore")
from importlib.metadata import version

import json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

calls = []


def serve(answer):
    """Serve answer(path, body) on a free loopback port: a dict as JSON, a list as server-sent events."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            calls.append(body)
            out = answer(self.path, body)
            if isinstance(out, list):
                data = "".join(line + "\n\n" for line in out).encode()
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


import asyncio
import os
import sys

WAY = sys.argv[1]


def answer(path, body):
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
        ],
        "usage": {"prompt_tokens": 400_000, "completion_tokens": 0, "total_tokens": 400_000},
    }


base = serve(answer) + "/v1"

import litellm
from litellm import Router

litellm.suppress_debug_info = True


async def main():
    router = Router(
        model_list=[
            {
                "model_name": "it",
                "litellm_params": {
                    "model": "openai/gpt-4o",
                    "api_base": base,
                    "api_key": "none",
                    "max_budget": 1.5,
                    "budget_duration": "1d",
                },
                "model_info": {"id": "one"},
            }
        ],
        num_retries=0,
    )
    refused = 0
    ask = {"model": "it", "messages": [{"role": "user", "content": "x"}]}
    for _ in range(5):
        try:
            if WAY == "acompletion":
                await router.acompletion(**ask)
            else:
                await asyncio.to_thread(router.completion, **ask)
        except ValueError:
            refused += 1
        await asyncio.sleep(1.5)  # costs are counted after the answer
    return refused


refused = asyncio.run(main())
print("litellm", version("litellm"), WAY, "5 calls:", len(calls), "sent,", refused, "refused", flush=True)
assert (len(calls), refused) == {"acompletion": (2, 3), "completion": (5, 0)}[WAY]
os._exit(0)
EOF
export LITELLM_LOCAL_MODEL_COST_MAP=True
for way in acompletion completion; do
    timeout 120 venv/bin/python try.py "$way"
done
