#!/usr/bin/env bash
# Runs with UsageLimits(cost_limit=3) whose agent has its tool called five times; each answer has a
# million input tokens: of gpt-4o (2.50 USD), of a model without a price, or the first of gpt-4o and
# five without a price.
# Guessed: a call without a price ends the run, or there is a warning at least.
# Seen:    gpt-4o ends after two answers. Without a price all six are sent, with CostNotFoundWarning.
#          After one that has a price: all six are sent, without a warning, and the run's usage.cost
#          says 2.50, which is the cost of the first.
# Library: pydantic-ai-slim 2.68.0, genai-prices 0.2.3
# Matters: one priced call makes the cost of a run look whole; what else it did is without limit.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check pydantic-ai-slim[openai]==2.68.0 \
    genai-prices==0.2.3 \
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


import re
from decimal import Decimal

from pydantic_ai import Agent, UsageLimitExceeded, UsageLimits
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

MILLION = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000}
models = []


def answer(path, body):
    tools = [("look", {"a": 1})] if len(asked) < 6 else []
    return chat(*tools, usage=MILLION, model=models[len(asked) - 1])


base = serve(answer) + "/v1"


def run():
    """Return how the run ended, what it says it cost, and the names of its warnings."""
    model = OpenAIChatModel("ours", provider=OpenAIProvider(base_url=base, api_key="none"))
    agent = Agent(model)

    @agent.tool_plain
    def look(a: int) -> str:
        return "1"

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            ended, cost = (
                "whole",
                agent.run_sync("x", usage_limits=UsageLimits(cost_limit=Decimal(3))).usage.cost,
            )
        except UsageLimitExceeded as error:
            ended, cost = "refused", re.search(r"'([0-9.]+)'", str(error)).group(1)
    warned = any(warning.category.__name__ == "CostNotFoundWarning" for warning in caught)
    return len(asked), ended, str(cost), warned


print("pydantic-ai-slim", version("pydantic-ai-slim"), "genai-prices", version("genai-prices"))
seen = []
for models in (["gpt-4o"] * 6, ["ours"] * 6, ["gpt-4o"] + ["ours"] * 5):
    asked.clear()
    seen.append(run())
    print(models[0], models[1], "answers, end, cost, warned:", seen[-1])
assert seen == [
    (2, "refused", "5.00", False),
    (6, "whole", "None", True),
    (6, "whole", "2.50", False),
], seen
PROGRAM
