#!/usr/bin/env bash
# A sample with token_limit=3000 whose solver asks a model twice, 1000 + 100 tokens each, and then fails
# twice, with retry_on_error=3; and the same solver without failures, asking six times.
# Guessed: the limit is the sample's: its third request ends it, as it does in the second case; the
#          sample's usage has what its tries used.
# Seen:    with failures all six requests are sent, 6600 tokens, and no limit is reached: each try has a
#          limit of its own. The sample's model_usage is that of the last try, 2200; the log's stats
#          have all.
# Library: inspect-ai 0.3.285
# Matters: a limit of tokens is multiplied by the tries that are allowed; costs by sample, added up, are
#          a part of what was spent.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check inspect-ai==0.3.285 \
    openai==3.57.0
HOME="$dir" XDG_DATA_HOME="$dir" timeout 300 venv/bin/python - <<'PROGRAM'
import warnings

warnings.simplefilter("ignore")
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
ANSWER = {
    "id": "c",
    "created": 1,
    "model": "gpt-4o",
    "object": "chat.completion",
    "choices": [CHOICE],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
}
asked = []


class Provider(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        asked.append(self.path)
        data = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import get_model
from inspect_ai.solver import solver

BASE = f"http://127.0.0.1:{server.server_port}/v1"
model = get_model("openai/gpt-4o", base_url=BASE, api_key="none", responses_api=False)


@solver
def ask(times, failures):
    tries = []

    async def solve(state, generate):
        tries.append(times)
        for _ in range(times):
            await get_model().generate("x")
        if len(tries) <= failures:
            raise RuntimeError("try again")
        return state

    return solve


def run(times, failures):
    asked.clear()
    task = Task(dataset=[Sample(input="x")], solver=ask(times, failures), token_limit=3000)
    (log,) = eval(task, model=model, retry_on_error=3, log_dir="logs", display="none")
    (sample,) = log.samples
    used = [sum(one.total_tokens for one in at.model_usage.values()) for at in (sample, log.stats)]
    return len(asked), sample.limit and sample.limit.type, *used


print("inspect-ai", version("inspect-ai"))
seen = {"one try": run(6, 0), "three tries": run(2, 2)}
for name, (requests, limit, sample, stats) in seen.items():
    print(f"{name}: {requests} requests, limit reached: {limit}; sample {sample}, stats {stats} tokens")
assert seen == {"one try": (3, "token", 3300, 3300), "three tries": (6, None, 2200, 6600)}, seen
PROGRAM
