#!/usr/bin/env bash
# 300,000 input tokens of claude-sonnet-4-5, of Anthropic and on Bedrock (us.), and of three other
# models with or without a step at 200,000 or 272,000, by genai-prices and by litellm's own map.
# Guessed: the two maps agree, on these models at least.
# Seen:    they agree on gpt-4o, gpt-5.5 and gemini-2.5-pro; of claude-sonnet-4-5 genai-prices says
#          1.80 USD and litellm 0.90; on Bedrock genai-prices says 0.99 and litellm 1.98.
# Library: genai-prices 0.2.3, litellm 1.110.2
# Matters: the same call costs twice as much or half as much, depending on the library.
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
    pydantic==2.14.4 \
    tiktoken==0.14.0
LITELLM_LOCAL_MODEL_COST_MAP=True timeout 300 venv/bin/python - <<'PYTHON'
import warnings

warnings.simplefilter("ignore")
from importlib.metadata import version

import litellm
from genai_prices import Usage, calc_price

CALLS = [
    ("gpt-4o", "openai", "openai"),
    ("gpt-5.5", "openai", "openai"),
    ("gemini-2.5-pro", "google", "gemini"),
    ("claude-sonnet-4-5", "anthropic", "anthropic"),
    ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws", "bedrock"),
]
TOKENS = 300_000
for name in ("genai-prices", "litellm"):
    print(name, version(name))
seen = []
for model, one, other in CALLS:
    first = calc_price(Usage(input_tokens=TOKENS), model, provider_id=one).total_price
    second, _ = litellm.cost_per_token(
        model=model, custom_llm_provider=other, prompt_tokens=TOKENS, completion_tokens=0
    )
    seen.append((round(float(first), 6), round(second, 6)))
    print(f"{model}: genai-prices {first} USD, litellm {second:.6f} USD")
assert seen == [(0.75, 0.75), (3.0, 3.0), (0.75, 0.75), (1.8, 0.9), (0.99, 1.98)], seen
PYTHON
