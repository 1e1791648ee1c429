#!/usr/bin/env bash
# completion_cost(answer, model="gpt-4o"), where the answer names gpt-4o-mini.
# Guessed: the model that the caller names decides: 2.50 USD for a million input tokens.
# Seen:    the model inside the answer decides: 0.15 USD. The argument counts only if the
#          answer's name is unknown; base_model= decides over both.
# Library: litellm 1.110.2
# Matters: whoever names a model to put a price right changes nothing and is not told.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check litellm==1.110.2 \
    openai==3.57.0 \
    httpx==0.28.1 \
    httpx2==2.16.2 \
    pydantic==2.14.4 \
    tiktoken==0.14.0
LITELLM_LOCAL_MODEL_COST_MAP=True timeout 120 venv/bin/python - <<'EOF'
import warnings

warnings.simplefilter("ignore")
from importlib.metadata import version

import litellm
from litellm import ModelResponse, Usage, completion_cost

litellm.suppress_debug_info = True


def answer(model):
    made = ModelResponse(model=model)
    made.usage = Usage(prompt_tokens=1_000_000, completion_tokens=0, total_tokens=1_000_000)
    return made


seen = {
    "answer gpt-4o-mini, no argument": completion_cost(answer("gpt-4o-mini")),
    "answer gpt-4o-mini, model gpt-4o": completion_cost(answer("gpt-4o-mini"), model="gpt-4o"),
    "answer unknown-name, model gpt-4o": completion_cost(answer("unknown-name"), model="gpt-4o"),
    "answer gpt-4o-mini, model and base_model gpt-4o": completion_cost(
        answer("gpt-4o-mini"), model="gpt-4o", base_model="gpt-4o"
    ),
}
print("litellm", version("litellm"))
for case, cost in seen.items():
    print(case, "->", cost, "USD")
assert list(seen.values()) == [0.15, 0.15, 2.5, 2.5], seen
EOF
