#!/usr/bin/env bash
# LangChain's own cache answers four of five equal calls; one request is sent.
# Guessed: UsageMetadataCallbackHandler counts the tokens of that one request, since
#          a hit costs nothing.
# Seen:    it counts five times the tokens, and gets a new key, total_cost, that is 0.
# Library: langchain-core 1.8.3, langchain-openai 1.7.4
# Matters: a meter on this callback charges for calls that nobody bills.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check openai==3.57.0 \
    httpx2==2.16.2 \
    pydantic==2.14.4 \
    langchain-core==1.8.3 \
    langchain-openai==1.7.4
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
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
        ],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }


base = serve(answer) + "/v1"

from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_openai import ChatOpenAI

handler = UsageMetadataCallbackHandler()
model = ChatOpenAI(
    model="gpt-4o", base_url=base, api_key="none", callbacks=[handler], cache=InMemoryCache()
)
answers = [model.invoke("x") for _ in range(5)]
(counted,) = handler.usage_metadata.values()

print("langchain-core", version("langchain-core"), "langchain-openai", version("langchain-openai"))
print("requests sent:", len(calls))
print("handler:", counted["input_tokens"], "+", counted["output_tokens"], "tokens")
print("second answer:", answers[1].usage_metadata)
assert len(calls) == 1
assert (counted["input_tokens"], counted["output_tokens"]) == (5000, 500)
assert counted["total_cost"] == 0
assert "total_cost" not in answers[0].usage_metadata
assert answers[1].usage_metadata["total_cost"] == 0
EOF
