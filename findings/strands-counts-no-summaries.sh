#!/usr/bin/env bash
# An agent with SummarizingConversationManager answers six questions, has its conversation summarised,
# and is asked for structured output in both ways there are; each is one request of 1000 + 100 tokens.
# Guessed: each result's metrics are of its question, and the agent's counter has each request.
# Seen:    accumulated_usage of a result is that of all questions so far; the summary and
#          agent.structured_output() (deprecated, still there) count nothing; structured_output_model= counts.
# Library: strands-agents 1.62.0
# Matters: results that are added up charge the first question six times; what is summarised, the
#          longest inputs of all, is not charged.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check strands-agents[openai]==1.62.0 \
    openai==2.54.0 \
    httpx==0.28.1 \
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


from pydantic import BaseModel
from strands import Agent
from strands.agent.conversation_manager import SummarizingConversationManager
from strands.models.openai import OpenAIModel


class Out(BaseModel):
    v: str


def answer(path, body):
    if body.get("stream"):
        names = [tool["function"]["name"] for tool in body.get("tools", [])]
        return chunks(chat(*([("Out", {"v": "1"})] if "Out" in names else [])), body)
    return chat(content='{"v": "1"}')


model = OpenAIModel(client_args={"base_url": serve(answer), "api_key": "none"}, model_id="gpt-4o")
manager = SummarizingConversationManager(preserve_recent_messages=2)
agent = Agent(model=model, callback_handler=None, conversation_manager=manager)


def counted():
    return agent.event_loop_metrics.accumulated_usage["inputTokens"]


print("strands-agents", version("strands-agents"))
results = [agent("x").metrics.accumulated_usage["inputTokens"] for _ in range(6)]
print("six questions, their results:", results)
seen = {}
for name, act in (
    ("summary", lambda: manager.reduce_context(agent)),
    ("structured_output_model=", lambda: agent("x", structured_output_model=Out)),
    ("structured_output()", lambda: agent.structured_output(Out, "x")),
):
    asked.clear()
    before = counted()
    act()
    seen[name] = len(asked), counted() - before
    print(f"{name}: {seen[name][0]} request, counted {seen[name][1]} input tokens")
assert seen == {
    "summary": (1, 0),
    "structured_output_model=": (1, 1000),
    "structured_output()": (1, 0),
}, seen
assert results == [1000, 2000, 3000, 4000, 5000, 6000], results
PROGRAM
