#!/usr/bin/env bash
# An agent whose ModelCallLimitMiddleware(run_limit=4) ends it, alone and beside a middleware that calls a
# model itself: SummarizationMiddleware, which sums up before each step here, and
# LLMToolSelectorMiddleware, which asks a model which tools to offer.
# Guessed: four requests are sent and billed in each case, whoever sends them.
# Seen:    four, then eight and eight: the limit counts the agent's steps; what other middleware sends
#          is left out. UsageMetadataCallbackHandler has the tokens of all of them.
# Library: langchain 1.5.2, langchain-openai 1.7.4
# Matters: a run that is limited to a number of calls may send twice as many.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check langchain==1.5.2 \
    langchain-core==1.8.3 \
    langchain-openai==1.7.4 \
    langgraph==1.2.24 \
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


from langchain.agents import create_agent
from langchain.agents.middleware import (
    LLMToolSelectorMiddleware,
    ModelCallLimitMiddleware,
    SummarizationMiddleware,
)
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


def answer(path, body):
    if "response_format" in body:  # which tools to offer
        return chat(content=json.dumps({"tools": ["look"]}))
    return chat(*([("look", {"a": 1})] if body.get("tools") else []))


base = serve(answer) + "/v1"


@tool
def look(a: int) -> str:
    """Look at it."""
    return "1"


def model():
    return ChatOpenAI(model="gpt-4o", base_url=base, api_key="none")


BESIDE = {
    "alone": [],
    "summaries": [SummarizationMiddleware(model=model(), trigger=("messages", 3), keep=("messages", 1))],
    "tool selection": [LLMToolSelectorMiddleware(model=model())],
}
print("langchain", version("langchain"), "langchain-openai", version("langchain-openai"))
seen = {}
for name, others in BESIDE.items():
    asked.clear()
    counted = UsageMetadataCallbackHandler()
    agent = create_agent(model(), [look], middleware=[*others, ModelCallLimitMiddleware(run_limit=4)])
    ended = agent.invoke(
        {"messages": [("user", "x")]}, config={"callbacks": [counted], "recursion_limit": 99}
    )
    (usage,) = counted.usage_metadata.values()
    seen[name] = len(asked), usage["input_tokens"]
    print(f"{name}: {seen[name]} requests and tokens; {ended['messages'][-1].content}")
    assert "run limit (4/4)" in ended["messages"][-1].content
assert seen == {"alone": (4, 4000), "summaries": (8, 8000), "tool selection": (8, 8000)}, seen
PROGRAM
