#!/usr/bin/env bash
# gpt-5 at service_tier flex and priority, and as a batch, of provider openai and of azure, whose
# OpenAI models genai-prices takes from openai's list.
# Guessed: azure costs what openai costs, at each tier; or there is an error.
# Seen:    openai 0.625, 2.50 and 0.625 USD for a million input tokens; azure 1.25 for all of
#          them, the ordinary price: no error, no warning.
# Library: genai-prices 0.2.3
# Matters: a priority call on Azure is booked at half its price, a batch at twice its price.
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

from genai_prices import Usage, calc_price

CONTEXTS = {
    "ordinary": None,
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "batch": {"processing": "batch"},
}
print("genai-prices", version("genai-prices"))
seen = {}
for provider in ("openai", "azure"):
    for name, context in CONTEXTS.items():
        price = calc_price(
            Usage(input_tokens=1_000_000), "gpt-5", provider_id=provider, price_context=context
        ).total_price
        seen[provider, name] = float(price)
        print(provider, name, price, "USD")
assert [seen["openai", name] for name in CONTEXTS] == [1.25, 0.625, 2.5, 0.625], seen
assert [seen["azure", name] for name in CONTEXTS] == [1.25, 1.25, 1.25, 1.25], seen
PYTHON
