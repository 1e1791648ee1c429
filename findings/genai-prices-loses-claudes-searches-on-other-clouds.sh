#!/usr/bin/env bash
# One answer of Claude with two web searches, read as Anthropic's, and as Claude's of Google and of
# Azure (api_flavor anthropic).
# Guessed: the same usage and the same price.
# Seen:    Anthropic 2 searches and 0.02105 USD; Google and Azure none and 0.00105 USD.
# Library: genai-prices 0.2.3
# Matters: searches cost 0.01 USD each, here twenty times what the tokens cost.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check genai-prices==0.2.3 \
    httpx2==2.16.2 \
    pydantic==2.14.4
timeout 120 venv/bin/python - <<'PYTHON'
import warnings

warnings.simplefilter("error")
from importlib.metadata import version

from genai_prices import extract_usage

answer = {
    "model": "claude-sonnet-4-5",
    "usage": {
        "input_tokens": 100,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
        "output_tokens": 50,
        "server_tool_use": {"web_search_requests": 2},
    },
}
print("genai-prices", version("genai-prices"))
seen = []
for provider, flavor in (("anthropic", "default"), ("google", "anthropic"), ("azure", "anthropic")):
    found = extract_usage(answer, provider_id=provider, api_flavor=flavor)
    seen.append((found.usage.reported_value("web_searches"), float(found.calc_price().total_price)))
    print(provider, flavor, found.usage, found.calc_price().total_price, "USD")
assert seen == [(2, 0.02105), (0, 0.00105), (0, 0.00105)], seen
PYTHON
