#!/usr/bin/env bash
# A request that is refused with 429 before any output, and a stream that ends in an error of code
# 429 after output, by three SDKs.
# Guessed: the two can be told apart by the error's class or code, as with openai and anthropic.
# Seen:    openai raises RateLimitError and, in a stream, plain APIError; anthropic raises
#          RateLimitError and, in a stream, an APIStatusError with status_code 200. google-genai
#          raises ClientError with code 429 and the same message both times; only the status of
#          error.response (429, or 200) says whether output had been sent.
# Library: google-genai 3.6.1, openai 3.57.0, anthropic 2.14.0
# Matters: a refused request is not billed, but output that was sent is; a budget that gives back
#          what was held by class and code gives back the second one, too.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check google-genai==3.6.1 google-auth==2.63.0 \
    openai==3.57.0 \
    anthropic==2.14.0 \
    httpx==0.28.1 \
    httpx2==2.16.2 \
    pydantic==2.14.4
timeout 120 venv/bin/python - <<'PROGRAM'
import json
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

warnings.simplefilter("ignore")

ERROR = {"code": 429, "type": "rate_limit_error", "message": "quota", "status": "RESOURCE_EXHAUSTED"}
STREAMS = {
    "chat": [
        'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
        '[{"index":0,"delta":{"content":"some"}}]}',
        "data: " + json.dumps({"error": ERROR}),
    ],
    "messages": [
        'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message",'
        '"role":"assistant","content":[],"model":"m","stop_reason":null,"stop_sequence":null,'
        '"usage":{"input_tokens":1,"output_tokens":1}}}',
        "event: error\ndata: " + json.dumps({"type": "error", "error": ERROR}),
    ],
    "models": [
        'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"some"}]}}]}',
        "data: " + json.dumps({"error": ERROR}),
    ],
}
refuses = True


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        lines = next(lines for part, lines in STREAMS.items() if part in self.path)
        if refuses:
            status, kind, data = 429, "application/json", json.dumps({"error": ERROR}).encode()
        else:
            status, kind = 200, "text/event-stream"
            data = "".join(line + "\n\n" for line in lines).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}"

from anthropic import Anthropic
from google import genai
from openai import OpenAI

MESSAGES = [{"role": "user", "content": "x"}]


def by_openai():
    client = OpenAI(base_url=base, api_key="none", max_retries=0)
    return client.chat.completions.create(model="m", messages=MESSAGES, stream=True)


def by_anthropic():
    client = Anthropic(base_url=base, api_key="none", max_retries=0)
    return client.messages.create(model="m", max_tokens=9, messages=MESSAGES, stream=True)


google = genai.Client(api_key="none", http_options={"base_url": base})


def by_google():
    return google.models.generate_content_stream(model="m", contents="x")


def failure(call):
    """Return how many parts came, and the error's class, code, status and answer's status."""
    parts = 0
    try:
        for _ in call():
            parts += 1
    except Exception as error:
        response = getattr(error, "response", None)
        return (
            parts,
            type(error).__name__,
            getattr(error, "code", None),
            getattr(error, "status_code", None),
            getattr(response, "status_code", None),
        )


found = {}
for name, call in (("openai", by_openai), ("anthropic", by_anthropic), ("google-genai", by_google)):
    refuses = True
    refused = failure(call)
    refuses = False
    found[name] = refused, failure(call)
    print(name, version(name), "refused:", found[name][0], "in a stream:", found[name][1])

assert found["openai"][0][:2] == (0, "RateLimitError"), found
assert found["openai"][1][:2] == (1, "APIError"), found
assert found["anthropic"][0][1] == "RateLimitError" and found["anthropic"][0][3] == 429, found
assert found["anthropic"][1][1] == "APIStatusError" and found["anthropic"][1][3] == 200, found
(refused_parts, *refused, refused_status), (parts, *broken, status) = found["google-genai"]
assert (refused_parts, parts) == (0, 1), found
assert refused == broken == ["ClientError", 429, None], found
assert (refused_status, status) == (429, 200), found
PROGRAM
