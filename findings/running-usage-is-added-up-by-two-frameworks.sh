#!/usr/bin/env bash
# A chat stream whose every chunk has the usage so far (some servers send it so).
# Guessed: each client takes the last chunk's usage, 1000 + 3 tokens.
# Seen:    openai and openai-agents do. langchain-openai and pydantic-ai add up all
#          five chunks: 5000 + 12 tokens. pydantic-ai has a setting against it.
# Library: openai 3.57.0, openai-agents 0.24.0, langchain-openai 1.7.4, pydantic-ai-slim 2.68.0
# Matters: a meter that reads the framework charges input once for each chunk.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check openai==3.57.0 \
    httpx2==2.16.2 \
    pydantic==2.14.4 \
    openai-agents==0.24.0 \
    langchain-core==1.8.3 \
    langchain-openai==1.7.4 \
    'pydantic-ai-slim[openai]==2.68.0' \
    genai-prices==0.2.3
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


def chunk(delta, finish, tokens, choice=True):
    return "data: " + json.dumps(
        {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "gpt-4o-2024-08-06",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}] if choice else [],
            "usage": {"prompt_tokens": 1000, "completion_tokens": tokens, "total_tokens": 1000 + tokens},
        }
    )


def answer(path, body):
    return [
        chunk({"role": "assistant", "content": "a"}, None, 1),
        chunk({"content": "b"}, None, 2),
        chunk({"content": "c"}, None, 3),
        chunk({}, "stop", 3),
        chunk({}, None, 3, choice=False),
        "data: [DONE]",
    ]


base = serve(answer) + "/v1"
seen = {}

import asyncio

from openai import AsyncOpenAI, OpenAI

client = OpenAI(base_url=base, api_key="none")
with client.chat.completions.stream(
    model="gpt-4o",
    messages=[{"role": "user", "content": "x"}],
    stream_options={"include_usage": True},
) as stream:
    usage = stream.get_final_completion().usage
seen["openai"] = (usage.prompt_tokens, usage.completion_tokens)

from agents import Agent as OpenAIAgent
from agents import ModelSettings, OpenAIChatCompletionsModel, Runner, set_tracing_disabled

set_tracing_disabled(True)


async def with_agents():
    model = OpenAIChatCompletionsModel("gpt-4o", AsyncOpenAI(base_url=base, api_key="none"))
    agent = OpenAIAgent(name="a", model=model, model_settings=ModelSettings(include_usage=True))
    run = Runner.run_streamed(agent, "x")
    async for _ in run.stream_events():
        pass
    return run.context_wrapper.usage


usage = asyncio.run(with_agents())
seen["openai-agents"] = (usage.input_tokens, usage.output_tokens)

from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_openai import ChatOpenAI

handler = UsageMetadataCallbackHandler()
for _ in ChatOpenAI(
    model="gpt-4o", base_url=base, api_key="none", stream_usage=True, callbacks=[handler]
).stream("x"):
    pass
(usage,) = handler.usage_metadata.values()
seen["langchain-openai"] = (usage["input_tokens"], usage["output_tokens"])

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


async def with_pydantic_ai(**settings):
    model = OpenAIChatModel("gpt-4o", provider=OpenAIProvider(base_url=base, api_key="none"))
    async with Agent(model, model_settings=settings).run_stream("x") as run:
        await run.get_output()
        return run.usage


usage = asyncio.run(with_pydantic_ai())
seen["pydantic-ai-slim"] = (usage.input_tokens, usage.output_tokens)
usage = asyncio.run(with_pydantic_ai(openai_continuous_usage_stats=True))
cured = (usage.input_tokens, usage.output_tokens)

for name, tokens in seen.items():
    print(name, version(name), "input and output tokens", tokens)
print("pydantic-ai-slim with openai_continuous_usage_stats", cured)
assert seen == {
    "openai": (1000, 3),
    "openai-agents": (1000, 3),
    "langchain-openai": (5000, 12),
    "pydantic-ai-slim": (5000, 12),
}, seen
assert cured == (1000, 3), cured
EOF
