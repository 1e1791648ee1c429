#!/usr/bin/env bash
# Four questions by `codex exec --json`, each one request of 1000 + 100 tokens: a new session, resumed
# twice, and then forked.
# Guessed: the usage of each turn.completed is that of its turn, 1000 + 100.
# Seen:    1000, 2000, 3000 and, in the fork, 4000: the usage is of the thread since it began, with
#          what was used before the fork.
# Library: @openai/codex 0.169.0 (npm, Linux x64)
# Matters: a meter that adds up turn.completed charges 11,000 tokens where 4400 were used: take the
#          difference to the turn before, in a fork to the parent's last turn.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
echo '{}' >package.json
npm install --silent --no-audit --no-fund @openai/codex@0.169.0
timeout 120 "${PYTHON:-python3}" - <<'PROGRAM'
import json
import os
import pathlib
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HERE = pathlib.Path.cwd()
ITEM = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
ITEM |= {"content": [{"type": "output_text", "text": "hi", "annotations": []}]}
USAGE = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
asked = []


class Provider(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        asked.append(self.path)
        answer = {"id": f"resp_{len(asked)}", "object": "response", "output": [ITEM]}
        events = [
            {"type": "response.created", "response": answer | {"status": "in_progress", "output": []}},
            {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
            {"type": "response.completed", "response": answer | {"status": "completed", "usage": USAGE}},
        ]
        data = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
home = HERE / "home"
home.mkdir()
(home / "config.toml").write_text(f"""
model = "gpt-5-codex"
model_provider = "own"
check_for_update_on_startup = false
analytics.enabled = false
[model_providers.own]
name = "own"
base_url = "http://127.0.0.1:{server.server_port}/v1"
wire_api = "responses"
""")
env = {"PATH": os.environ["PATH"], "HOME": str(home), "CODEX_HOME": str(home)}


def codex(*words):
    """Ask once; return the thread and the tokens that turn.completed says."""
    command = ["node_modules/.bin/codex", "exec", "--json", "--skip-git-repo-check", *words]
    out = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    ).stdout
    events = [json.loads(line) for line in out.splitlines()]
    (thread,) = (event["thread_id"] for event in events if event["type"] == "thread.started")
    (usage,) = (event["usage"] for event in events if event["type"] == "turn.completed")
    return thread, (usage["input_tokens"], usage["output_tokens"])


thread, *said = codex("one")
said += [codex("resume", thread, "two")[1], codex("resume", thread, "three")[1]]
fork, last = codex("fork", thread, "four")
said.append(last)
print("codex 0.169.0:", asked.count("/v1/responses"), "requests; input and output of the turns:", said)
assert fork != thread and asked.count("/v1/responses") == 4, asked
assert said == [(1000, 100), (2000, 200), (3000, 300), (4000, 400)], said
PROGRAM
