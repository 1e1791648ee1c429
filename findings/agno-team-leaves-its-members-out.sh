#!/usr/bin/env bash
# A team whose leader hands the question to one member and answers then: three requests of 1000 + 100
# tokens, two of the leader's and one of the member's; whole and as a stream.
# Guessed: the metrics of the team's run have all three, as an agent's run has the requests of its
#          memory and its summaries.
# Seen:    the team's run says 2000 + 200; the member's 1000 + 100 stand in member_responses alone, and in
#          the session's metrics, which say 3000 + 300.
# Library: agno 3.1.10
# Matters: a meter on the run charges the leader alone; one on the run and the session charges twice.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check agno==3.1.10 \
    openai==3.57.0 \
    httpx2==2.16.2 \
    pydantic==2.14.4 \
    httpx==0.28.1 \
    sqlalchemy==2.0.54
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


from agno.agent import Agent
from agno.db.in_memory import InMemoryDb
from agno.models.openai import OpenAIChat
from agno.team import Team


def answer(path, body):
    hands_on = [("delegate_task_to_member", {"member_id": "member", "task": "x"})]
    whole = chat(*(hands_on if len(asked) == 1 else []))
    return chunks(whole, body) if body.get("stream") else whole


base = serve(answer) + "/v1"


def model():
    return OpenAIChat(id="gpt-4o", base_url=base, api_key="none")


def run(streams):
    member = Agent(name="member", id="member", model=model(), telemetry=False)
    team = Team(members=[member], model=model(), telemetry=False, db=InMemoryDb(), session_id="s")
    if streams:
        for result in team.run("x", stream=True, yield_run_output=True):
            pass
    else:
        result = team.run("x")
    return (
        len(asked),
        result.metrics.input_tokens,
        [member.metrics.input_tokens for member in result.member_responses],
        team.get_session_metrics(session_id="s").input_tokens,
    )


print("agno", version("agno"))
for streams in (False, True):
    asked.clear()
    seen = run(streams)
    print("streams" if streams else "whole", "requests, run, members, session:", seen)
    assert seen == (3, 2000, [1000], 3000), seen
PROGRAM
