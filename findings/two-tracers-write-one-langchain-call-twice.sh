#!/usr/bin/env bash
# One call of langchain-openai, 1000 + 100 tokens, in a program that traces both openai and LangChain: by
# openinference's two instrumentors, by OpenLLMetry's two, and by langfuse's callback where another part of the
# program imports langfuse.openai.
# Guessed: one span of kind LLM, or generation, has the tokens; the inner one is left out, or has none.
# Seen:    OpenLLMetry writes one. openinference writes two of kind LLM, each with all tokens, and so
#          does langfuse two of type generation: the import alone puts its wrapper around openai for all.
# Library: openinference-instrumentation-langchain 0.1.80, openinference-instrumentation-openai 0.1.66,
#          opentelemetry-instrumentation-langchain and -openai 0.62.4, langfuse 5.0.4,
#          langchain-openai 1.7.4
# Matters: costs that a tracing backend adds up over a trace are twice what was spent.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check openinference-instrumentation-langchain==0.1.80 \
    openinference-instrumentation-openai==0.1.66 \
    opentelemetry-instrumentation-langchain==0.62.4 \
    opentelemetry-instrumentation-openai==0.62.4 \
    opentelemetry-sdk==1.45.2 \
    langfuse==5.0.4 \
    langchain==1.5.2 \
    langchain-core==1.8.3 \
    langchain-openai==1.7.4 \
    httpx==0.28.1 \
    openai==3.57.0 \
    httpx2==2.16.2 \
    pydantic==2.14.4
cat >try.py <<'PROGRAM'
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


import os

base = serve(lambda path, body: chat()) + "/v1"


def traced(way):
    """Make one call of LangChain's in this process, traced in a way, and return the tokens of each span."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept, provider, callbacks = InMemorySpanExporter(), TracerProvider(), []
    provider.add_span_processor(SimpleSpanProcessor(kept))
    if way == "langfuse":
        from langfuse import Langfuse

        os.environ["LANGFUSE_BASE_URL"] = "http://127.0.0.1:9"
        Langfuse(public_key="pk", secret_key="sk", tracer_provider=provider)
        import langfuse.openai
        from langfuse.langchain import CallbackHandler

        callbacks = [CallbackHandler(public_key="pk")]
    elif way == "openinference":
        from openinference.instrumentation.langchain import LangChainInstrumentor
        from openinference.instrumentation.openai import OpenAIInstrumentor
    else:
        from opentelemetry.instrumentation.langchain import LangchainInstrumentor as LangChainInstrumentor
        from opentelemetry.instrumentation.openai import OpenAIInstrumentor
    if way != "langfuse":
        OpenAIInstrumentor().instrument(tracer_provider=provider)
        LangChainInstrumentor().instrument(tracer_provider=provider)
    from langchain_openai import ChatOpenAI

    ChatOpenAI(model="gpt-4o", base_url=base, api_key="none", callbacks=callbacks).invoke("x")
    return [(span.name, total(span.attributes)) for span in kept.get_finished_spans()]


def total(attributes):
    if attributes.get("langfuse.observation.type") == "generation":
        usage = json.loads(attributes["langfuse.observation.usage_details"])
        return usage.get("total") or usage["total_tokens"]
    return attributes.get("llm.token_count.total") or attributes.get("gen_ai.usage.total_tokens")


WAY = os.environ["WAY"]
found = traced(WAY)
print(WAY, "requests:", len(asked), "spans and tokens:", found, flush=True)
assert len(asked) == 1
assert [tokens for _, tokens in found if tokens] == [1100] * (1 if WAY == "OpenLLMetry" else 2), found
os._exit(0)  # langfuse waits for a server
PROGRAM
for way in OpenLLMetry openinference langfuse; do
    WAY=$way timeout 120 venv/bin/python try.py
done
