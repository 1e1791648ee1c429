#!/usr/bin/env bash
# A hook of openai-agents that sets a context variable in on_llm_start, "called just before invoking
# the LLM", which the model reads when it is called, as tracing and logging do with request ids.
# Guessed: the model sees what the hook has set; the hook is awaited in the task of the call.
# Seen:    the model sees the value from before the run, in each of three ways to run: every hook
#          runs in a task of its own, with a copy of the context.
# Library: openai-agents 0.24.0
# Matters: whatever a hook says of a call by a context variable (its agent, its tenant, who pays) is
#          lost without an error.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check openai-agents==0.24.0 \
    openai==3.57.0 \
    httpx2==2.16.2 \
    pydantic==2.14.4
cat >try.py <<'EOF'
import asyncio, json, threading
from contextvars import ContextVar
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

from agents import Agent, OpenAIChatCompletionsModel, RunHooks, Runner, set_tracing_disabled
from openai import AsyncOpenAI

set_tracing_disabled(True)
who = ContextVar("who", default="nobody")
seen, said = [], []

MESSAGE = {"role": "assistant", "content": "hi"}
BASE = {"id": "c", "created": 1, "model": "gpt-4o"}
WHOLE = {
    **BASE,
    "object": "chat.completion",
    "choices": [{"index": 0, "finish_reason": "stop", "message": MESSAGE}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
CHUNK = {
    **BASE,
    "object": "chat.completion.chunk",
    "choices": [{"index": 0, "finish_reason": "stop", "delta": MESSAGE}],
}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body.get("stream"):
            data, kind = f"data: {json.dumps(CHUNK)}\n\ndata: [DONE]\n\n", "text/event-stream"
        else:
            data, kind = json.dumps(WHOLE), "application/json"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()


class Model(OpenAIChatCompletionsModel):
    async def get_response(self, *args, **kwargs):
        seen.append(who.get())
        return await super().get_response(*args, **kwargs)

    async def stream_response(self, *args, **kwargs):
        seen.append(who.get())
        async for event in super().stream_response(*args, **kwargs):
            yield event


class Hooks(RunHooks):
    async def on_llm_start(self, context, agent, system_prompt, input_items):
        who.set(agent.name)
        said.append(agent.name)


def agent():
    client = AsyncOpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none")
    return Agent(name="triage", model=Model(model="gpt-4o", openai_client=client))


async def streamed():
    result = Runner.run_streamed(agent(), "x", hooks=Hooks())
    async for _ in result.stream_events():
        pass


asyncio.run(Runner.run(agent(), "x", hooks=Hooks()))
Runner.run_sync(agent(), "x", hooks=Hooks())
asyncio.run(streamed())
print("openai-agents", version("openai-agents"), "hooks said", said, "models saw", seen, flush=True)
assert said == ["triage"] * 3
assert seen == ["nobody"] * 3
EOF
timeout 120 venv/bin/python try.py
