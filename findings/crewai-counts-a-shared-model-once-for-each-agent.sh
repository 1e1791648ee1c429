#!/usr/bin/env bash
# Two agents of a crew are given the same LLM object; each sends one request of 1050 tokens.
# Guessed: the crew reports what was sent: 2 requests, 2100 tokens.
# Seen:    4 requests, 4200 tokens. With an LLM object each, it reports 2 and 2100. A second
#          kickoff of a crew reports the first one's tokens once more with its own.
# Library: crewai 1.15.30
# Matters: a bill by the crew's usage charges a shared model as often as agents share it, and
#          adding up the results of several kickoffs counts the early ones again.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check crewai==1.15.30 openai==2.54.0
timeout 300 venv/bin/python - <<'EOF'
import os

os.environ.update(
    HOME=os.getcwd(),
    CREWAI_DISABLE_TELEMETRY="true",
    CREWAI_TRACING_ENABLED="false",
    OTEL_SDK_DISABLED="true",
)
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
    return chat({"role": "assistant", "content": "Thought: known.\nFinal Answer: Paris"})


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

from crewai import LLM, Agent, Crew, Task


def model():
    return LLM(model="openai/gpt-4o", base_url=base + "/v1", api_key="none")


def crew(models):
    agents = [Agent(role="a", goal="g", backstory="b", llm=one) for one in models]
    tasks = [Task(description="d", expected_output="o", agent=one) for one in agents]
    return Crew(agents=agents, tasks=tasks, verbose=False)


def kickoff(one):
    before = len(asked)
    usage = one.kickoff().token_usage
    return len(asked) - before, usage.successful_requests, usage.total_tokens


shared = model()
twice = crew([model()])
seen = {
    "an LLM each": kickoff(crew([model(), model()])),
    "one LLM shared": kickoff(crew([shared, shared])),
    "first kickoff": kickoff(twice),
    "second kickoff": kickoff(twice),
}
print("crewai", version("crewai"))
for name, counts in seen.items():
    print(f"{name}: requests sent, requests and tokens reported:", *counts)
assert seen == {
    "an LLM each": (2, 2, 2100),
    "one LLM shared": (2, 4, 4200),
    "first kickoff": (1, 1, 1050),
    "second kickoff": (1, 2, 2100),
}, seen
EOF
