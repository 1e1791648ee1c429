#!/usr/bin/env bash
# Answers that say under which tier they were served: OpenAI's flex and priority, Anthropic's batch
# and fast; read by extract_usage() and priced by its calc_price().
# Guessed: the answer's own tier decides the price.
# Seen:    the ordinary price for all of them. Handing the tier over helps for flex and priority;
#          service_tier='batch', as Anthropic's answers say it, is ignored: the library calls it
#          {'processing': 'batch'}. An unknown tier is the ordinary price, too.
# Library: genai-prices 0.2.3
# Matters: a batch is booked at twice its price, a priority or fast call at half, and nothing warns.
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

from genai_prices import Usage, calc_price, extract_usage


def openai(tier):
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000}
    answer = {"model": "gpt-5", "service_tier": tier, "usage": usage}
    return extract_usage(answer, provider_id="openai", api_flavor="chat").calc_price().total_price


def anthropic(model, **more):
    usage = {"input_tokens": 100_000, "output_tokens": 0, **more}
    return extract_usage({"model": model, "usage": usage}, provider_id="anthropic").calc_price()


def with_context(model, **context):
    return calc_price(
        Usage(input_tokens=100_000), model, provider_id="anthropic", price_context=context
    )


seen = {
    "gpt-5 default, flex, priority": [openai(tier) for tier in ("default", "flex", "priority")],
    "claude-haiku-4-5 standard, batch": [
        anthropic("claude-haiku-4-5", service_tier=tier).total_price
        for tier in ("standard", "batch")
    ],
    "the same by context: service_tier batch, processing batch, service_tier nonsense": [
        with_context("claude-haiku-4-5", **context).total_price
        for context in (
            {"service_tier": "batch"},
            {"processing": "batch"},
            {"service_tier": "nonsense"},
        )
    ],
    "claude-opus-5 standard, fast": [
        anthropic("claude-opus-5", speed=speed).total_price for speed in ("standard", "fast")
    ],
    "the same by context: speed fast": [with_context("claude-opus-5", speed="fast").total_price],
}
print("genai-prices", version("genai-prices"))
for case, prices in seen.items():
    print(case, "->", *prices, "USD")
found = [[float(price) for price in prices] for prices in seen.values()]
assert found == [[1.25, 1.25, 1.25], [0.1, 0.1], [0.1, 0.05, 0.1], [0.5, 0.5], [1.0]], found
PYTHON
