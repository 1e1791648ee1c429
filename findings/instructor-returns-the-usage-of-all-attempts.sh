#!/usr/bin/env bash
# instructor asks again twice, since two answers do not fit the model; three requests are sent.
# Guessed: the completion that comes back has the usage of the answer that it is, 110 tokens.
# Seen:    it has the id of the third answer and the usage of all three, 330 tokens, in each part.
#          The hook completion:response is given each answer with its own usage.
# Library: instructor 1.17.0, openai 3.3.0
# Matters: the usage is not that of the request whose id stands beside it, so a bill does not match;
#          and a meter that counts each request as well counts the first two twice.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check instructor==1.17.0 openai==3.3.0
timeout 300 venv/bin/python - <<'EOF'
import json
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

warnings.simplefilter("ignore")

import instructor
import openai
from pydantic import BaseModel

asked = 0


class Provider(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        global asked
        self.rfile.read(int(self.headers["content-length"]))
        asked += 1
        arguments = {"name": "Ann", "age": 30 if asked == 3 else "unknown"}
        call = {"name": "User", "arguments": json.dumps(arguments)}
        answer = {
            "id": f"answer-{asked}",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o-2024-08-06",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "tool_calls",
                    "message": {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [{"id": "t", "type": "function", "function": call}],
                    },
                }
            ],
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "total_tokens": 110,
                "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0},
            },
        }
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()


class User(BaseModel):
    name: str
    age: int


plain = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none")
client = instructor.from_openai(plain)
heard = []
client.on("completion:response", lambda one: heard.append((one.id, one.usage.total_tokens)))
_, completion = client.chat.completions.create_with_completion(
    model="gpt-4o",
    response_model=User,
    max_retries=3,
    messages=[{"role": "user", "content": "Who?"}],
)
usage = completion.usage
came = (
    completion.id,
    usage.prompt_tokens,
    usage.prompt_tokens_details.cached_tokens,
    usage.completion_tokens,
    usage.completion_tokens_details.reasoning_tokens,
    usage.total_tokens,
)
print("instructor", version("instructor"), "openai", version("openai"))
print("requests:", asked)
print("returned: id, input, cached, output, reasoning, total:", *came)
print("hook:", heard)
assert asked == 3
assert came == ("answer-3", 300, 120, 30, 15, 330)
assert heard == [("answer-1", 110), ("answer-2", 110), ("answer-3", 110)]
EOF
