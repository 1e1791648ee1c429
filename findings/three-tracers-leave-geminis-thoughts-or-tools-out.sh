#!/usr/bin/env bash
# One answer of Gemini's, whole: 100 tokens of prompt and 900 more that its tools read into it
# (toolUsePromptTokenCount, such as pages of url_context), 50 of answer and 200 of thoughts; 1250 in all.
# Guessed: four tracers of google-genai say 1000 and 250, as it is billed.
# Seen:    openinference does. OpenTelemetry's own says 100 and 250: what tools read is left out.
#          mlflow and langsmith say 100 and 50 beside a total of 1250: the thoughts, too. langsmith
#          names the 200 among its details of output, whose sum they are not part of.
# Library: opentelemetry-instrumentation-google-genai 1.3b0, mlflow-tracing 3.17.2, langsmith 0.15.1,
#          openinference-instrumentation-google-genai 1.4.14, google-genai 2.34.0
# Matters: of gemini-2.5-pro this answer costs 0.00375 USD, and by the counts of two of them 0.000625.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check google-genai==2.34.0 \
    opentelemetry-instrumentation-google-genai==1.3b0 \
    openinference-instrumentation-google-genai==1.4.14 \
    opentelemetry-sdk==1.45.2 \
    mlflow-tracing==3.17.2 \
    langsmith==0.15.1
cat >try.py <<'PROGRAM'
import warnings

warnings.simplefilter("ignore")
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module

PARTS = {"promptTokenCount": 100, "toolUsePromptTokenCount": 900, "candidatesTokenCount": 50}
USAGE = PARTS | {"thoughtsTokenCount": 200, "totalTokenCount": 1250}
CONTENT = {"role": "model", "parts": [{"text": "hi"}]}
ANSWER = {"candidates": [{"content": CONTENT, "finishReason": "STOP"}], "usageMetadata": USAGE}
traced = []


class Server(BaseHTTPRequestHandler):
    """Gemini, and the server that langsmith writes to."""

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.startswith("/runs"):
            traced.append(body)
        data = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_PATCH = do_POST


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
BASE = f"http://127.0.0.1:{server.server_port}"

from google import genai


def ask(wrap=lambda client: client):
    client = genai.Client(api_key="none", http_options={"base_url": BASE})
    wrap(client).models.generate_content(model="gemini-2.5-pro", contents="x")


def otel(module, name, prompt, output):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracer = getattr(import_module(module), name)()
    tracer.instrument(tracer_provider=provider)
    ask()
    tracer.uninstrument()
    (span,) = spans.get_finished_spans()
    return span.attributes[prompt], span.attributes[output]


def langsmith():
    from langsmith import Client
    from langsmith.wrappers import wrap_gemini

    os.environ["LANGSMITH_TRACING"] = "true"
    writer = Client(api_url=BASE, api_key="none", auto_batch_tracing=False)
    ask(lambda client: wrap_gemini(client, tracing_extra={"client": writer}))
    (used,) = (run["outputs"]["usage_metadata"] for run in traced if run.get("outputs"))
    return used["input_tokens"], used["output_tokens"]


def mlflow():
    import mlflow.gemini
    from mlflow.entities.trace_location import MlflowExperimentLocation

    mlflow.set_tracking_uri("http://127.0.0.1:9")
    mlflow.tracing.set_destination(MlflowExperimentLocation(experiment_id="0"))
    used = []
    keep = lambda span: used.append(span.get_attribute("mlflow.chat.tokenUsage"))
    mlflow.tracing.configure(span_processors=[keep])
    mlflow.gemini.autolog()
    ask()
    return used[-1]["input_tokens"], used[-1]["output_tokens"]


seen = {
    "openinference": otel(
        "openinference.instrumentation.google_genai",
        "GoogleGenAIInstrumentor",
        "llm.token_count.prompt",
        "llm.token_count.completion",
    ),
    "opentelemetry": otel(
        "opentelemetry.instrumentation.google_genai",
        "GoogleGenAiSdkInstrumentor",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
    ),
    "langsmith": langsmith(),
    "mlflow": mlflow(),
}
for name, (prompt, output) in seen.items():
    print(f"{name}: {prompt} and {output}", flush=True)
expected = {"openinference": (1000, 250), "opentelemetry": (100, 250), "langsmith": (100, 50)}
assert seen == expected | {"mlflow": (100, 50)}, seen
os._exit(0)  # mlflow would wait for a server of its own
PROGRAM
timeout 300 venv/bin/python try.py
