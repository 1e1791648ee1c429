#!/usr/bin/env bash
# An OpenAI answer with 800 of 1000 input tokens cached, 60 of 100 output tokens reasoning.
# Guessed: input_token_details has cache_read, and output_token_details has reasoning,
#          whatever the service tier.
# Seen:    tier "flex" or "priority" renames them (flex_cache_read, flex_reasoning) and
#          adds the rest under the tier's name (flex: 200 and 40). "default" does not.
#          The callback handler adds up all of these keys side by side.
# Library: langchain-openai 1.7.4, langchain-core 1.8.3
# Matters: a meter that reads cache_read prices all cached tokens as full input.
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


tier = "default"


def answer(path, body):
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-5-2025-08-07",
        "service_tier": tier,
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
        ],
        "usage": {
            "prompt_tokens": 1000,
            "completion_tokens": 100,
            "total_tokens": 1100,
            "prompt_tokens_details": {"cached_tokens": 800},
            "completion_tokens_details": {"reasoning_tokens": 60},
        },
    }


base = serve(answer) + "/v1"

from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_openai import ChatOpenAI

handler = UsageMetadataCallbackHandler()
model = ChatOpenAI(model="gpt-5", base_url=base, api_key="none", callbacks=[handler])
print("langchain-openai", version("langchain-openai"), "langchain-core", version("langchain-core"))
seen = {}
for tier in ("default", "flex", "priority"):
    usage = model.invoke("x").usage_metadata
    seen[tier] = (usage["input_token_details"], usage["output_token_details"])
    print(tier, *seen[tier])
(total,) = handler.usage_metadata.values()
print("handler", total["input_tokens"], total["input_token_details"])
assert seen["default"] == ({"cache_read": 800}, {"reasoning": 60})
for tier in ("flex", "priority"):
    assert seen[tier] == (
        {f"{tier}_cache_read": 800, tier: 200},
        {f"{tier}_reasoning": 60, tier: 40},
    ), seen[tier]
assert total["input_tokens"] == 3000
assert total["input_token_details"]["cache_read"] == 800
EOF
