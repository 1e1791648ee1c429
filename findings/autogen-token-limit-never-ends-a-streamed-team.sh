#!/usr/bin/env bash
# A team of two agents with TokenUsageTermination(max_total_token=3000) and, to end at all, ten
# messages at most; each answer is billed with 1000 + 100 tokens.
# Guessed: it ends after three answers, also with model_client_stream=True.
# Seen:    after three as whole answers; streamed, only the limit of messages ends it, after nine
#          answers: usage is not asked for, and each message says 0 + 0, without a warning. With
#          stream_options={"include_usage": True} on the client it ends after three.
# Library: autogen-agentchat, autogen-ext 0.7.5
# Matters: a run that is to stop at a number of tokens has no limit as soon as it is streamed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check autogen-agentchat==0.7.5 \
    autogen-ext==0.7.5 \
    autogen-core==0.7.5 \
    tiktoken==0.14.0 \
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


def chunks(whole, body):
    """Return an answer as a stream: its usage comes at the end, to those who asked for it."""
    (choice,) = whole["choices"]
    head = {key: whole[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    parts = [
        {"choices": [{"index": 0, "delta": choice["message"], "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]},
    ]
    if (body.get("stream_options") or {}).get("include_usage"):
        parts.append({"choices": [], "usage": whole["usage"]})
    return ["data: " + json.dumps(head | part) for part in parts] + ["data: [DONE]"]


import asyncio

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination, TokenUsageTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_ext.models.openai import OpenAIChatCompletionClient


def answer(path, body):
    return chunks(chat(), body) if body.get("stream") else chat()


base = serve(answer)


async def run(streams, **options):
    client = OpenAIChatCompletionClient(model="gpt-4o", base_url=base, api_key="none", **options)
    agents = [AssistantAgent(name, client, model_client_stream=streams) for name in ("one", "two")]
    limit = TokenUsageTermination(max_total_token=3000) | MaxMessageTermination(10)
    result = await RoundRobinGroupChat(agents, termination_condition=limit).run(task="x")
    return len(asked), [m.models_usage.prompt_tokens for m in result.messages if m.models_usage]


print("autogen-agentchat", version("autogen-agentchat"), "autogen-ext", version("autogen-ext"))
seen = {}
for name, streams, options in (
    ("whole", False, {}),
    ("streamed", True, {}),
    ("streamed, with stream_options", True, {"stream_options": {"include_usage": True}}),
):
    asked.clear()
    seen[name] = asyncio.run(run(streams, **options))
    print(f"{name}: {seen[name][0]} answers, prompt tokens {seen[name][1]}")
assert seen == {
    "whole": (3, [1000] * 3),
    "streamed": (9, [0] * 9),
    "streamed, with stream_options": (3, [1000] * 3),
}, seen
PROGRAM
