#!/usr/bin/env bash
# One chat of 1000 + 100 tokens, streamed, through a gateway: base_url is another than OpenAI's.
# Guessed: each framework asks for the stream's usage (stream_options.include_usage), as langchain-openai
#          and openai-agents do at OpenAI's own address, and as openai's clients know it of any server.
# Seen:    none of three asks: langchain-openai's callback has counted nothing at all, openai-agents says
#          one request of 0 + 0 tokens, and haystack usage None; no warning. Whole answers count, and so
#          do streams with stream_usage=True, ModelSettings(include_usage=True) or stream_options.
# Library: langchain-openai 1.7.4, openai-agents 0.24.0, haystack-ai 3.4.1
# Matters: a program that moves behind a gateway, where budgets are kept, stops counting its own streams.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check langchain-openai==1.7.4 \
    langchain-core==1.8.3 \
    openai-agents==0.24.0 \
    haystack-ai==3.4.1 \
    openai==3.57.0 \
    httpx2==2.16.2 \
    pydantic==2.14.4
HAYSTACK_TELEMETRY_ENABLED=False timeout 300 venv/bin/python - <<'PROGRAM'
import warnings

warnings.simplefilter("ignore")
import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
MESSAGE = {"role": "assistant", "content": "hi"}


class Gateway(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        head = {"id": "c", "created": 1, "model": "gpt-4o", "object": "chat.completion"}
        if not body.get("stream"):
            choice = {"index": 0, "finish_reason": "stop", "message": MESSAGE}
            data, kind = json.dumps(head | {"choices": [choice], "usage": USAGE}), "application/json"
        else:
            choice = {"index": 0, "finish_reason": "stop", "delta": MESSAGE}
            parts = [{"choices": [choice]}]
            if (body.get("stream_options") or {}).get("include_usage"):
                parts.append({"choices": [], "usage": USAGE})
            parts = [json.dumps(head | {"object": "chat.completion.chunk"} | part) for part in parts]
            data, kind = "".join(f"data: {part}\n\n" for part in [*parts, "[DONE]"]), "text/event-stream"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())


server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
BASE = f"http://127.0.0.1:{server.server_port}/v1"

import agents
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI

agents.set_tracing_disabled(True)


def langchain(streams, **options):
    model = ChatOpenAI(model="gpt-4o", base_url=BASE, api_key="none", **options)
    with get_usage_metadata_callback() as counted:
        list(model.stream("x")) if streams else model.invoke("x")
    return [(one["input_tokens"], one["output_tokens"]) for one in counted.usage_metadata.values()]


def openai_agents(streams, **options):
    client = AsyncOpenAI(base_url=BASE, api_key="none")
    model = agents.OpenAIChatCompletionsModel(model="gpt-4o", openai_client=client)
    agent = agents.Agent(name="a", model=model, model_settings=agents.ModelSettings(**options))

    async def run():
        if not streams:
            return await agents.Runner.run(agent, "x")
        result = agents.Runner.run_streamed(agent, "x")
        async for _ in result.stream_events():
            pass
        return result

    usage = asyncio.run(run()).context_wrapper.usage
    return [(usage.input_tokens, usage.output_tokens)] * usage.requests


def haystack(streams, **options):
    given = {"streaming_callback": lambda chunk: None} if streams else {}
    key = Secret.from_token("none")
    model = OpenAIChatGenerator(key, "gpt-4o", api_base_url=BASE, generation_kwargs=options, **given)
    usage = model.run([ChatMessage.from_user("x")])["replies"][0].meta["usage"]
    return [usage and (usage["prompt_tokens"], usage["completion_tokens"])]


ALL = [(1000, 100)]
for ask, nothing, option in (
    (langchain, [], {"stream_usage": True}),
    (openai_agents, [(0, 0)], {"include_usage": True}),
    (haystack, [None], {"stream_options": {"include_usage": True}}),
):
    seen = ask(False), ask(True), ask(True, **option)
    print(f"{ask.__name__}: whole {seen[0]}, streamed {seen[1]}, streamed and asked for {seen[2]}")
    assert seen == (ALL, nothing, ALL), seen
PROGRAM
