#!/usr/bin/env bash
# The same question is asked twice; the second answer comes from the cache, no request is sent.
# Guessed: the history has usage and cost for the first call, and neither for the second.
# Seen:    the second has no usage, but the whole cost of the first once more.
# Library: dspy 3.4.1, litellm 1.110.2
# Matters: adding up the cost in the history, as one does for the cost of a program, charges for
#          requests that nobody sent; adding up its usage does not.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check dspy==3.4.1 litellm==1.110.2 openai==3.57.0
timeout 300 venv/bin/python - <<'EOF'
import logging
import os

os.environ["DSPY_CACHEDIR"] = os.path.join(os.getcwd(), "cache")
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
logging.disable(logging.WARNING)
import json
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

warnings.simplefilter("ignore")

asked = []
USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 50,
    "total_tokens": 1050,
    "prompt_tokens_details": {"cached_tokens": 400},
}


def chat(message, finish="stop"):
    answer = {
        "id": f"answer-{len(asked)}",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": USAGE,
    }
    return "application/json", json.dumps(answer).encode()



def answer(body):
    return chat({"role": "assistant", "content": "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"})


class Provider(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked.append(body)
        kind, data = answer(body)
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}"

import dspy

model = dspy.LM("openai/gpt-4o", api_base=base + "/v1", api_key="none")
dspy.configure(lm=model)
ask = dspy.Predict("question -> answer")
answers = [ask(question="x").answer for _ in range(2)]
history = [(one["usage"].get("total_tokens"), one["cost"]) for one in model.history]
print("dspy", version("dspy"), "litellm", version("litellm"))
print("answers:", *answers, "requests sent:", len(asked))
for tokens, cost in history:
    print("history: total tokens", tokens, "cost", cost)
# 600 + 400 cached tokens of input, 50 of output: 0.0015 + 0.0005 + 0.0005 dollars.
assert answers == ["Paris", "Paris"] and len(asked) == 1
assert history == [(1050, 0.0025), (None, 0.0025)], history
EOF
