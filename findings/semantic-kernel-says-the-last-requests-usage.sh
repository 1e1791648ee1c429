#!/usr/bin/env bash
# A question whose function is called twice by FunctionChoiceBehavior.Auto(), so that three requests
# of 1000 + 100 tokens are sent; the same with invoke_prompt, and by an agent; and an answer of three
# choices, of one request.
# Guessed: metadata["usage"] is that of the question, 3000 + 300; and of three choices one has it.
# Seen:    it is the last request's, 1000 + 100, all three ways; and each of the three choices has
#          the whole request's, 3000 + 300 added up. Only the service's own counters are right.
# Library: semantic-kernel 1.45.0, openai 3.57.0
# Matters: a meter on what is returned loses most of an agent's bill, and triples that of choices.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check semantic-kernel==1.45.0 \
    openai==3.57.0 \
    httpx==0.28.1 \
    httpx2==2.16.2 \
    pydantic==2.13.5 \
    mcp==1.30.0
timeout 120 venv/bin/python - <<'PROGRAM'
import warnings

warnings.simplefilter("ignore")
from importlib.metadata import version


import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

asked = []


def serve(answer):
    """Serve answer(path, body) on a free loopback port: a dict as JSON, a list as server-sent events."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append(body)
            out = answer(self.path, body)
            if isinstance(out, list):
                data = "".join(part + "\n\n" for part in out).encode()
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


USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


def chat(*tools, usage=USAGE, model="gpt-4o-2024-08-06", content="hi", finish=None):
    """Return an answer of OpenAI's chat completions that says content, or calls tools: (name, arguments)."""
    calls = [
        {
            "id": f"call_{len(asked)}_{n}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(given)},
        }
        for n, (name, given) in enumerate(tools)
    ]
    message = {"role": "assistant", "content": None if calls else content}
    return {
        "id": f"c{len(asked)}",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {
                "index": 0,
                "finish_reason": finish or ("tool_calls" if calls else "stop"),
                "message": {**message, "tool_calls": calls} if calls else message,
            }
        ],
        "usage": usage,
    }


import asyncio

from openai import AsyncOpenAI
from semantic_kernel import Kernel
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion, OpenAIChatPromptExecutionSettings
from semantic_kernel.contents import ChatHistory
from semantic_kernel.functions import KernelArguments, kernel_function


def answer(path, body):
    if body.get("n"):
        whole = chat()
        return {**whole, "choices": [{**whole["choices"][0], "index": n} for n in range(body["n"])]}
    return chat(*([("here-look", {"a": 1})] if len(asked) < 3 else []))


base = serve(answer) + "/v1"


class Here:
    @kernel_function(name="look")
    def look(self, a: int) -> str:
        return "1"


def service():
    return OpenAIChatCompletion(ai_model_id="gpt-4o", async_client=AsyncOpenAI(base_url=base, api_key="none"))


AUTO = OpenAIChatPromptExecutionSettings(function_choice_behavior=FunctionChoiceBehavior.Auto())


def question():
    history = ChatHistory()
    history.add_user_message("x")
    return history


def prepared():
    kernel, model = Kernel(), service()
    kernel.add_service(model)
    kernel.add_plugin(Here(), "here")
    return kernel, model


async def by_service():
    kernel, model = prepared()
    messages = await model.get_chat_message_contents(question(), AUTO, kernel=kernel)
    return messages, model


async def by_prompt():
    kernel, model = prepared()
    result = await kernel.invoke_prompt("x", arguments=KernelArguments(settings=AUTO))
    return result.value, model


async def by_agent():
    model = service()
    agent = ChatCompletionAgent(service=model)
    agent.kernel.add_plugin(Here(), "here")
    return [(await agent.get_response("x")).message], model


async def by_choices():
    model = service()
    settings = OpenAIChatPromptExecutionSettings(number_of_responses=3)
    return await model.get_chat_message_contents(question(), settings), model


print("semantic-kernel", version("semantic-kernel"), "openai", version("openai"))
seen = {}
for way in (by_service, by_prompt, by_agent, by_choices):
    asked.clear()
    messages, model = asyncio.run(way())
    said = [message.metadata["usage"].prompt_tokens for message in messages]
    seen[way.__name__] = len(asked), said, model.prompt_tokens
    print(f"{way.__name__}: {len(asked)} requests, returned {said}, service's counter {model.prompt_tokens}")
looped = (3, [1000], 3000)
assert seen == {
    "by_service": looped,
    "by_prompt": looped,
    "by_agent": looped,
    "by_choices": (1, [1000, 1000, 1000], 1000),
}, seen
PROGRAM
