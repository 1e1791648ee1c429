#!/usr/bin/env bash
# An answer of Cohere's, whose usage says that it saw 600 + 60 tokens (tokens), with those that Cohere
# puts around a prompt itself, and bills 100 + 50 (billed_units).
# Guessed: usage and cost are those that are billed, 0.00075 USD of command-a-03-2025.
# Seen:    litellm says 600 + 60 tokens and 0.0021 USD; genai-prices says 0.00075.
# Library: litellm 1.110.2, genai-prices 0.2.3
# Matters: short questions cost three times as much in the program's books as on the bill.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check litellm==1.110.2 \
    genai-prices==0.2.3 \
    openai==3.57.0 \
    httpx==0.28.1 \
    httpx2==2.16.2 \
    pydantic==2.14.4
LITELLM_LOCAL_MODEL_COST_MAP=True timeout 300 venv/bin/python - <<'PROGRAM'
import warnings

warnings.simplefilter("ignore")
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

USAGE = {
    "billed_units": {"input_tokens": 100, "output_tokens": 50},
    "tokens": {"input_tokens": 600, "output_tokens": 60},
}
WHOLE = {
    "id": "c",
    "finish_reason": "COMPLETE",
    "message": {"role": "assistant", "content": [{"type": "text", "text": "hi"}]},
    "usage": USAGE,
}


class Cohere(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        data, kind = json.dumps(WHOLE), "application/json"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())


server = ThreadingHTTPServer(("127.0.0.1", 0), Cohere)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()

import genai_prices
import litellm

ask = {
    "model": "cohere_chat/command-a-03-2025",
    "messages": [{"role": "user", "content": "x"}],
    "api_base": f"http://127.0.0.1:{server.server_port}/v2/chat",
    "api_key": "none",
}
answer = litellm.completion(**ask)
cost = round(litellm.completion_cost(answer, model=ask["model"]), 9)
seen = answer.usage.prompt_tokens, answer.usage.completion_tokens, cost
billed = genai_prices.Usage(input_tokens=100, output_tokens=50)
price = genai_prices.calc_price(billed, "command-a-03-2025", provider_id="cohere").total_price
print("litellm", version("litellm"), seen, "genai-prices, of what is billed:", price)
assert seen == (600, 60, 0.0021) and float(price) == 0.00075, (seen, price)
PROGRAM
