#!/usr/bin/env bash
# One edit by aider with gpt-5, which also writes a message for its commit: two requests of 1000 + 5000
# tokens each, of which 4900 are reasoning; whole, and as a stream, which is aider's default.
# Guessed: the session's tokens and cost are those of both requests.
# Seen:    whole: 1000 + 5000, one request: messages of commits, which git gets by the weak model, are not
#          counted (nor are summaries of long chats, which go the same way). Streamed: aider asks for no
#          usage and counts the texts itself, which is fewer than 100 tokens of output.
# Library: aider-chat 0.86.2
# Matters: the cost that stands under each answer is half of the bill, and with a model that reasons a
#          small part of it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check aider-chat==0.86.2
mkdir repo && cd repo
git init -q .
git config user.name someone
git config user.email someone@example.com
export HOME="$dir" LITELLM_LOCAL_MODEL_COST_MAP=True
timeout 600 ../venv/bin/python - <<'PROGRAM'
import warnings

warnings.simplefilter("ignore")
import itertools
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

USAGE = {"prompt_tokens": 1000, "completion_tokens": 5000, "total_tokens": 6000}
USAGE |= {"completion_tokens_details": {"reasoning_tokens": 4900}}
asked, numbers = [], itertools.count()


class Provider(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked.append(body)
        message = {"role": "assistant", "content": f"hello.txt\n```\nhi {next(numbers)}\n```\n"}
        head = {"id": "c", "created": 1, "model": "gpt-5", "object": "chat.completion"}
        if not body.get("stream"):
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            data, kind = json.dumps(head | {"choices": [choice], "usage": USAGE}), "application/json"
        else:
            choice = {"index": 0, "finish_reason": "stop", "delta": message}
            parts = [{"choices": [choice]}]
            if (body.get("stream_options") or {}).get("include_usage"):
                parts.append({"choices": [], "usage": USAGE})
            parts = [json.dumps(head | {"object": "chat.completion.chunk"} | part) for part in parts]
            data, kind = "".join(f"data: {part}\n\n" for part in [*parts, "[DONE]"]), "text/event-stream"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())


server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {
    "OPENAI_API_BASE": f"http://127.0.0.1:{server.server_port}/v1",
    "OPENAI_API_KEY": "none",
}

from aider.coders import Coder
from aider.io import InputOutput
from aider.models import Model


def edit(name, streams):
    asked.clear()
    Path(name).write_text("")
    coder = Coder.create(
        main_model=Model("openai/gpt-5", weak_model="openai/gpt-5"),
        edit_format="whole",
        io=InputOutput(yes=True, pretty=False),
        fnames=[name],
        stream=streams,
        use_git=True,
        dirty_commits=False,
    )
    coder.run("say hi")
    return len(asked), coder.total_tokens_sent, coder.total_tokens_received, coder.total_cost


print("aider-chat", version("aider-chat"))
whole, streamed = edit("hello.txt", False), edit("hello.txt", True)
for name, (requests, sent, received, cost) in (("whole", whole), ("streamed", streamed)):
    print(f"{name}: {requests} requests; aider says {sent} + {received} tokens, {cost:.6f} USD")
assert whole[:3] == (2, 1000, 5000) and round(whole[3], 6) == 0.05125, whole
assert streamed[0] == 2 and streamed[2] < 100 and streamed[3] < 0.0025, streamed
PROGRAM
