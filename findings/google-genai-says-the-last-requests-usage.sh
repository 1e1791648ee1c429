#!/usr/bin/env bash
# A question to Gemini with a Python function among its tools, which google-genai calls by itself (automatic
# function calling) twice: three requests of 1000 + 100 tokens; by a chat, by models.generate_content, and
# as a stream.
# Guessed: usage_metadata of the answer is that of the question, or automatic_function_calling_history,
#          which has all that was said, has the rest of it.
# Seen:    usage_metadata is the last request's, 1000 + 100, and the history has contents without usage.
#          Of a stream each of the three requests has its own, at the end of its part.
# Library: google-genai 2.34.0
# Matters: a meter on the answer charges one request of a question, however many its functions took; up to
#          ten are sent by default.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check google-genai==2.34.0
timeout 120 venv/bin/python - <<'PROGRAM'
import warnings

warnings.simplefilter("ignore")
import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

USAGE = {"promptTokenCount": 1000, "candidatesTokenCount": 100, "totalTokenCount": 1100}
asked = []


class Gemini(BaseHTTPRequestHandler):
    """Calls the function look twice, then answers."""

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked.append(self.path)
        looked = sum("functionResponse" in part for at in body["contents"] for part in at["parts"])
        part = {"functionCall": {"name": "look", "args": {}}} if looked < 2 else {"text": "hi"}
        content = {"role": "model", "parts": [part]}
        whole = {"candidates": [{"content": content, "finishReason": "STOP"}], "usageMetadata": USAGE}
        data, kind = json.dumps(whole), "application/json"
        if "stream" in self.path:
            data, kind = f"data: {data}\n\n", "text/event-stream"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())


server = ThreadingHTTPServer(("127.0.0.1", 0), Gemini)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()

from google import genai

logging.disable(logging.CRITICAL)


def look() -> str:
    """Look."""
    return "x"


client = genai.Client(
    api_key="none", http_options={"base_url": f"http://127.0.0.1:{server.server_port}"}
)
ask = {"model": "gemini-2.5-pro", "config": {"tools": [look]}}
seen = {}
for name, answers in (
    ("chat", lambda: [client.chats.create(**ask).send_message("x")]),
    ("generate_content", lambda: [client.models.generate_content(contents="x", **ask)]),
    ("stream", lambda: client.models.generate_content_stream(contents="x", **ask)),
):
    asked.clear()
    parts = list(answers())
    usages = [part.usage_metadata for part in parts]
    seen[name] = len(asked), [(used.prompt_token_count, used.candidates_token_count) for used in usages]
    history = parts[-1].automatic_function_calling_history
    assert not any(hasattr(content, "usage_metadata") for content in history or []), history
    print(name, "requests and usage:", seen[name])
print("google-genai", version("google-genai"))
one = [(1000, 100)]
assert seen == {"chat": (3, one), "generate_content": (3, one), "stream": (3, one * 3)}, seen
PROGRAM
