#!/usr/bin/env bash
# An agent with RunConfig(max_llm_calls=4) that calls another agent as its tool (AgentTool) three times,
# which calls a function and answers each time; every answer has 1000 + 100 tokens.
# Guessed: four requests are sent and the run ends, and four events have usage: "the total number of
#          llm calls for a given run", says its docstring.
# Seen:    ten requests are sent and the run succeeds; four events have usage, 4400 of 11,000 tokens.
#          Each call of the tool is a run of its own, with a count of its own, whose events stay inside.
# Library: google-adk 2.13.0, google-genai 2.34.0
# Matters: a limit of calls is multiplied by each level of agents, and a meter on events misses what
#          is below the first one.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check google-adk==2.13.0 \
    google-genai==2.34.0
timeout 300 venv/bin/python - <<'PROGRAM'
import warnings

warnings.simplefilter("ignore")
import asyncio
import json
import logging
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

asked = []


class Gemini(BaseHTTPRequestHandler):
    """The boss asks the expert three times and answers; the expert looks and answers each time."""

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        (name,) = (one["name"] for tool in body["tools"] for one in tool["functionDeclarations"])
        answered = sum("functionResponse" in part for at in body["contents"] for part in at["parts"])
        asked.append(name)
        call = {"functionCall": {"name": name, "args": {"request": "x"} if name == "expert" else {}}}
        part = call if answered < {"expert": 3, "look": 1}[name] else {"text": "hi"}
        answer = {
            "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}],
            "usageMetadata": {
                "promptTokenCount": 1000,
                "candidatesTokenCount": 100,
                "totalTokenCount": 1100,
            },
        }
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


server = ThreadingHTTPServer(("127.0.0.1", 0), Gemini)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {
    "GOOGLE_API_KEY": "none",
    "GOOGLE_GEMINI_BASE_URL": f"http://127.0.0.1:{server.server_port}",
}

from google.adk.agents import Agent, RunConfig
from google.adk.runners import InMemoryRunner
from google.adk.tools.agent_tool import AgentTool
from google.genai import types

logging.disable(logging.CRITICAL)


def look() -> str:
    """Look."""
    return "x"


async def run(agent):
    runner = InMemoryRunner(agent=agent, app_name="app")
    session = await runner.session_service.create_session(app_name="app", user_id="u")
    events, ended = [], "ended"
    try:
        async for event in runner.run_async(
            user_id="u",
            session_id=session.id,
            new_message=types.Content(role="user", parts=[types.Part(text="x")]),
            run_config=RunConfig(max_llm_calls=4),
        ):
            if event.usage_metadata:
                events.append(event.usage_metadata.total_token_count)
    except Exception as error:
        ended = type(error).__name__
    return ended, len(asked), len(events), sum(events)


model = {"model": "gemini-2.5-pro", "instruction": "x"}
expert = Agent(name="expert", tools=[look], description="x", **model)
tool = asyncio.run(run(Agent(name="boss", tools=[AgentTool(agent=expert)], **model)))
print("google-adk", version("google-adk"), "requests", len(asked), asked)
print("how it ended, requests, events with usage, their tokens:", tool)
assert tool == ("ended", 10, 4, 4400), tool
PROGRAM
