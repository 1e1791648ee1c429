#!/usr/bin/env bash
# 100,000 tokens written to a cache for an hour, by Claude Sonnet 4.5 of Anthropic, Azure and
# OpenRouter; and sound of gpt-4o-audio-preview.
# Guessed: the same at each provider, twice the price of input; or an error where it has no price.
#          Sound costs more than text.
# Seen:    0.60 USD of Anthropic and Azure, 0.375 of OpenRouter: the price of five minutes. Sound
#          costs what text costs, 2.50 and 10 USD a million (gpt-audio: 32 and 64).
# Library: genai-prices 0.2.3
# Matters: a kind without a price of its own is charged as a cheaper one, without a word.
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

MODELS = {
    "anthropic": "claude-sonnet-4-5",
    "azure": "claude-sonnet-4-5",
    "openrouter": "anthropic/claude-sonnet-4.5",
}
print("genai-prices", version("genai-prices"))
seen = {}
for provider, model in MODELS.items():
    for hour in (0, 100_000):
        used = Usage(
            input_tokens=100_000, cache_write_tokens=100_000, cache_write_1h_tokens=hour
        )
        price = calc_price(used, model, provider_id=provider).total_price
        seen[provider, bool(hour)] = float(price)
        print(provider, "an hour:" if hour else "five minutes:", price, "USD")
for model in ("gpt-4o-audio-preview", "gpt-audio"):
    used = Usage(
        input_tokens=1_000_000,
        input_audio_tokens=1_000_000,
        output_tokens=1_000_000,
        output_audio_tokens=1_000_000,
    )
    found = calc_price(used, model, provider_id="openai")
    seen[model] = (float(found.input_price), float(found.output_price))
    print(model, "a million tokens of sound in and out:", *seen[model], "USD")
assert [seen[provider, True] for provider in MODELS] == [0.6, 0.6, 0.375], seen
assert [seen[provider, False] for provider in MODELS] == [0.375, 0.375, 0.375], seen
assert (seen["gpt-4o-audio-preview"], seen["gpt-audio"]) == ((2.5, 10), (32, 64)), seen
PYTHON
