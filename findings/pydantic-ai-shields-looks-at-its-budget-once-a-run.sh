#!/usr/bin/env bash
# An agent calls a tool 20 times, which takes 21 requests of 0.0025 dollars; its budget is 0.006.
# Guessed: the third request is the last one, or the one after it is not sent.
# Seen:    all 21 are sent; the error comes when the run is over, and says 0.063 dollars: cached
#          input is priced as other input. The next run is refused before it sends anything.
# Library: pydantic-ai-shields 0.3.4, pydantic-ai-slim 2.68.0, genai-prices 0.2.3
# Matters: a loop of tools, which a budget is there to stop, spends what it likes.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check pydantic-ai-shields==0.3.4 \
    'pydantic-ai-slim[openai]==2.68.0' genai-prices==0.2.3 openai==3.57.0 pydantic==2.14.4
timeout 300 venv/bin/python - <<'EOF'
import asyncio
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
    if sum(one["role"] == "assistant" for one in body["messages"]) == 20:
        return chat({"role": "assistant", "content": "found"})
    call = {"id": "t", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    return chat({"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls")


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

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai_shields import BudgetExceededError, CostTracking

budget = CostTracking(budget_usd=0.006)
provider = OpenAIProvider(base_url=base + "/v1", api_key="none")
agent = Agent(OpenAIChatModel("gpt-4o", provider=provider), capabilities=[budget])


@agent.tool_plain
def look() -> str:
    return "more"


def run():
    before = len(asked)
    try:
        asyncio.run(agent.run("x"))
        ended = "answered"
    except BudgetExceededError:
        ended = "refused"
    return ended, len(asked) - before, round(budget.total_cost, 6)


seen = [run(), run()]
print("pydantic-ai-shields", version("pydantic-ai-shields"))
print("pydantic-ai-slim", version("pydantic-ai-slim"))
for one in seen:
    print("run: how it ended, requests sent, cost so far:", *one)
assert seen == [("refused", 21, 0.063), ("refused", 0, 0.063)], seen
EOF
