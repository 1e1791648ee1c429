#!/usr/bin/env bash
# A log of Claude Code with a million tokens of input each for a model that nobody has heard of,
# for Sonnet 4.5 and for a model of another provider; and a million written to an hour's cache.
# Guessed: what has no price costs nothing or is named; the hour's cache costs 2 times the input.
# Seen:    the unknown Claude costs 3 dollars, as Sonnet does, and nothing says so. The other
#          provider's model costs 0. The hour's cache costs 3.75, which is the price of five minutes.
# Library: claude-monitor 4.0.0
# Matters: its totals of a log with a new model, or with caches of an hour, are no figures to hold a
#          budget or an import against.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --no-compile --disable-pip-version-check claude-monitor==4.0.0
export HOME="$dir"
timeout 120 venv/bin/python - <<'EOF'
import json
from pathlib import Path

from claude_monitor.data.reader import load_usage_entries

HOUR = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 1_000_000}
CALLS = [
    ("claude-unheard-of-9", {"input_tokens": 1_000_000, "output_tokens": 0}),
    ("claude-sonnet-4-5-20250929", {"input_tokens": 1_000_000, "output_tokens": 0}),
    ("gpt-5-codex", {"input_tokens": 1_000_000, "output_tokens": 0}),
    (
        "claude-sonnet-4-5-20250929",
        {
            "input_tokens": 1,
            "output_tokens": 0,
            "cache_creation_input_tokens": 1_000_000,
            "cache_creation": HOUR,
        },
    ),
]
lines = [
    {
        "type": "assistant",
        "sessionId": "s",
        "requestId": f"request-{number}",
        "uuid": f"line-{number}",
        "timestamp": f"2026-11-29T10:0{number}:00.000Z",
        "message": {
            "id": f"message-{number}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "usage": usage,
        },
    }
    for number, (model, usage) in enumerate(CALLS)
]
folder = Path(".claude/projects/project")
folder.mkdir(parents=True)
(folder / "session.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
entries, _ = load_usage_entries(data_path=str(folder.parent))
costs = [(one.model, round(one.cost_usd, 2)) for one in entries]
for model, cost in costs:
    print(f"{model:28} ${cost}")
assert [cost for _, cost in costs] == [3.0, 3.0, 0.0, 3.75]
EOF
