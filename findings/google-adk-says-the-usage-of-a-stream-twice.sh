#!/usr/bin/env bash
# A Gemini stream of two parts, whose last part has the usage: 1050 tokens in all.
# Guessed: one event of the run has the usage, that of the whole answer.
# Seen:    every part that had usage is an event with it (1020 and 1050), and the whole answer is
#          one more event that has the last usage again: three, 3120 tokens. Without streaming one.
# Library: google-adk 2.13.0, google-genai 2.34.0
# Matters: a meter that adds up the usage of events charges a stream two or three times; only
#          events that are not partial count.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check google-adk==2.13.0 google-genai==2.34.0
timeout 300 venv/bin/python - <<'EOF'
import asyncio
import logging
import os

logging.disable(logging.WARNING)
import json
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

warnings.simplefilter("ignore")

asked = []

def usage(output):
    total = 1000 + output
    return {"promptTokenCount": 1000, "candidatesTokenCount": output, "totalTokenCount": total}


def part(text, output, finish=None):
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate],
        "modelVersion": "gemini-2.0-flash",
        "usageMetadata": usage(output),
    }


def answer(body):
    if streams:
        parts = [part("Pa", 20), part("ris", 50, "STOP")]
        lines = "".join(f"data: {json.dumps(one)}\r\n\r\n" for one in parts)
        return "text/event-stream", lines.encode()
    return "application/json", json.dumps(part("Paris", 50, "STOP")).encode()


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

os.environ.update(GOOGLE_API_KEY="none", GOOGLE_GEMINI_BASE_URL=base)
from google.adk.agents import Agent
from google.adk.agents.run_config import RunConfig, StreamingMode
from google.adk.runners import InMemoryRunner
from google.genai import types


async def run(mode):
    runner = InMemoryRunner(agent=Agent(name="a", model="gemini-2.0-flash"), app_name="app")
    session = await runner.session_service.create_session(app_name="app", user_id="u")
    events = runner.run_async(
        user_id="u",
        session_id=session.id,
        new_message=types.Content(role="user", parts=[types.Part(text="x")]),
        run_config=RunConfig(streaming_mode=mode),
    )
    return [
        (bool(event.partial), event.usage_metadata.total_token_count)
        async for event in events
        if event.usage_metadata
    ]


print("google-adk", version("google-adk"), "google-genai", version("google-genai"))
streams = False
plain = asyncio.run(run(StreamingMode.NONE))
print("not streamed: partial, total tokens:", *plain)
streams = True
streamed = asyncio.run(run(StreamingMode.SSE))
print("streamed:     partial, total tokens:", *streamed)
assert len(asked) == 2
assert plain == [(False, 1050)], plain
assert streamed == [(True, 1020), (True, 1050), (False, 1050)], streamed
EOF
