#!/usr/bin/env bash
# usageMetadata and OpenAI's usage, each with one field that is newer than the SDK.
# Guessed: google-genai keeps the unknown field (model_extra), as openai does.
# Seen:    openai keeps it. google-genai drops it without a word: model_extra is None, the field
#          is in no attribute and not in model_dump(); total_token_count still includes it, so
#          that the parts no longer add up to the total.
# Library: google-genai 3.6.1, openai 3.57.0
# Matters: a new kind of tokens is billed and cannot be seen; compare the parts with the total.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check google-genai==3.6.1 google-auth==2.63.0 \
    openai==3.57.0 \
    httpx==0.28.1 \
    httpx2==2.16.2 \
    pydantic==2.14.4
timeout 120 venv/bin/python - <<'EOF'
import warnings

warnings.simplefilter("ignore")
from importlib.metadata import version

import json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

calls = []


def serve(answer):
    """Serve answer(path, body) on a free loopback port: a dict as JSON, a list as server-sent events."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            calls.append(body)
            out = answer(self.path, body)
            if isinstance(out, list):
                data = "".join(line + "\n\n" for line in out).encode()
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


def answer(path, body):
    if "chat" in path:
        return {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o",
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a"}}
            ],
            "usage": {
                "prompt_tokens": 1000,
                "completion_tokens": 30,
                "total_tokens": 1037,
                "brand_new_tokens": 7,
            },
        }
    return {
        "candidates": [
            {"content": {"role": "model", "parts": [{"text": "a"}]}, "index": 0, "finishReason": "STOP"}
        ],
        "modelVersion": "gemini-2.5-pro",
        "usageMetadata": {
            "promptTokenCount": 1000,
            "candidatesTokenCount": 30,
            "brandNewTokenCount": 7,
            "totalTokenCount": 1037,
        },
    }


base = serve(answer)

from google import genai
from openai import OpenAI

google = genai.Client(api_key="none", http_options={"base_url": base})
usage = google.models.generate_content(model="gemini-2.5-pro", contents="x").usage_metadata
other = OpenAI(base_url=base, api_key="none").chat.completions.create(
    model="gpt-4o", messages=[{"role": "user", "content": "x"}]
)
parts = {key: value for key, value in usage.model_dump(exclude_none=True).items()}

print("google-genai", version("google-genai"), parts, "model_extra", usage.model_extra)
print("openai", version("openai"), "model_extra", other.usage.model_extra)
assert parts == {
    "prompt_token_count": 1000,
    "candidates_token_count": 30,
    "total_token_count": 1037,
}, parts
assert usage.model_extra is None
assert other.usage.model_extra == {"brand_new_tokens": 7}
EOF
