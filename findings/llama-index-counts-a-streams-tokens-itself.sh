#!/usr/bin/env bash
# A chat of three words, once as a whole and once as a stream, with a TokenCountingHandler.
# Guessed: both are counted as the provider bills them, 1000 + 50 tokens.
# Seen:    the whole answer is. For the stream, usage is not asked for, and the handler counts the
#          text by its own tokenizer (here words: 7 and 2), without a word. With
#          stream_options={"include_usage": True} it takes the usage that comes.
# Library: llama-index-core 0.14.25, llama-index-llms-openai-like 0.8.1
# Matters: the same handler mixes billed tokens with its own count, which knows nothing of tools,
#          pictures, cached or reasoning tokens.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check llama-index-core==0.14.25 \
    llama-index-llms-openai-like==0.8.1 llama-index-llms-openai==0.8.3 openai==2.54.0
timeout 300 venv/bin/python - <<'EOF'
import json
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

warnings.simplefilter("ignore")

asked = []
USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 50,
    "total_tokens": 1050,
    "prompt_tokens_details": {"cached_tokens": 400},
}


def chat(message, finish="stop"):
    answer = {
        "id": f"answer-{len(asked)}",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": USAGE,
    }
    return "application/json", json.dumps(answer).encode()



def answer(body):
    if not body.get("stream"):
        return chat({"role": "assistant", "content": "Paris"})

    def chunk(delta, finish=None, **more):
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "gpt-4o-2024-08-06",
            "choices": choices,
            **more,
        }

    chunks = [chunk({"role": "assistant", "content": "Paris"}), chunk({}, "stop")]
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**chunk({}), "choices": [], "usage": USAGE})
    lines = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks)
    return "text/event-stream", (lines + "data: [DONE]\n\n").encode()


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

from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

handler = TokenCountingHandler(tokenizer=str.split)
model = OpenAILike(
    model="gpt-4o",
    api_base=base + "/v1",
    api_key="none",
    is_chat_model=True,
    callback_manager=CallbackManager([handler]),
)
question = [ChatMessage(role="user", content="one two three")]


def counted(ask):
    handler.reset_counts()
    ask()
    return handler.prompt_llm_token_count, handler.completion_llm_token_count


seen = {
    "whole": counted(lambda: model.chat(question)),
    "stream": counted(lambda: list(model.stream_chat(question))),
    "stream with include_usage": counted(
        lambda: list(model.stream_chat(question, stream_options={"include_usage": True}))
    ),
}
print("llama-index-core", version("llama-index-core"))
for name, tokens in seen.items():
    print(f"{name}: input and output tokens", *tokens)
assert seen == {
    "whole": (1000, 50),
    "stream": (7, 2),
    "stream with include_usage": (1000, 50),
}, seen
EOF
