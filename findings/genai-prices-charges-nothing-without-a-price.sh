#!/usr/bin/env bash
# Tokens of models that are priced by pages, hours or characters, or have no price at all; searches
# of a model without a price for searches.
# Guessed: an error or a warning, as for a model that is not known.
# Seen:    0 USD for a million tokens of mistral-ocr-2505, whisper-large-v3, tts-1, GitHub Copilot's
#          gpt-4o and gemma-3; a thousand searches of deepseek-chat cost nothing.
# Library: genai-prices 0.2.3
# Matters: what is not known looks like what is free; a budget in dollars does not count it.
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

MODELS = [
    ("mistral", "mistral-ocr-2505"),
    ("groq", "whisper-large-v3"),
    ("openai", "tts-1"),
    ("github-copilot", "gpt-4o"),
    ("google", "gemma-3"),
]
print("genai-prices", version("genai-prices"))
seen = []
for provider, model in MODELS:
    found = calc_price(Usage(input_tokens=1_000_000), model, provider_id=provider)
    seen.append(float(found.total_price))
    print(provider, model, found.total_price, "USD; it has:", str(found.model_price) or "no price")
searched, plain = (
    calc_price(
        Usage(input_tokens=1_000, web_searches=searches), "deepseek-chat", provider_id="deepseek"
    ).total_price
    for searches in (1_000, 0)
)
print("deepseek-chat with a thousand searches", searched, "USD, without", plain, "USD")
assert seen == [0, 0, 0, 0, 0], seen
assert searched == plain
try:
    calc_price(Usage(input_tokens=1_000_000), "gpt-4o-unknown", provider_id="openai")
except LookupError as error:
    print("but a model that is not known:", error)
else:
    raise AssertionError("an unknown model has a price")
PYTHON
