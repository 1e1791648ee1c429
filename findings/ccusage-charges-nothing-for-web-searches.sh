#!/usr/bin/env bash
# Answers of Claude Code that searched the web, which the provider bills by the search (10 USD a thousand).
# Guessed: `server_tool_use.web_search_requests` of a session log is part of the cost.
# Seen:    ten searches cost nothing; the cost is that of the tokens, and nothing says what was left out.
# Library: ccusage 20.0.24 (npm, Linux x64), with the prices that it ships
# Matters: a bill with searches is higher than these figures, here 0.1078 USD against 0.0078.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
echo '{}' >package.json
npm install --silent --no-audit --no-fund ccusage@20.0.24 @ccusage/ccusage-linux-x64@20.0.24
timeout 120 "${PYTHON:-python3}" - <<'EOF'
import json
import os
import pathlib
import subprocess

LOG = pathlib.Path("home/.claude/projects/project/session.jsonl")
LOG.parent.mkdir(parents=True)
HERE = os.getcwd()


def line(number, at, **more):
    usage = {"input_tokens": 100, "output_tokens": 500, **more}
    message = {"id": f"msg_{number}", "role": "assistant", "model": MODEL, "usage": usage}
    return {
        "type": "assistant",
        "timestamp": f"2026-11-01T{at}Z",
        "sessionId": "session",
        "requestId": f"req_{number}",
        "message": message,
    }


def ccusage(*words):
    env = {**os.environ, "HOME": f"{HERE}/home", "CLAUDE_CONFIG_DIR": f"{HERE}/home/.claude", "TZ": "UTC"}
    program = ["node_modules/.bin/ccusage", *words, "--json", "--offline"]
    done = subprocess.run(program, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done
    assert not done.stderr, done.stderr
    return json.loads(done.stdout)


MODEL = "claude-sonnet-4-20250514"
COMPACT = (",", ":")
print(subprocess.run(["node_modules/.bin/ccusage", "--version"], capture_output=True, text=True).stdout.strip())

costs = []
for searches in (0, 10):
    found = line(1, "10:00:00.000", server_tool_use={"web_search_requests": searches})
    LOG.write_text(json.dumps(found, separators=COMPACT) + "\n")
    totals = ccusage("claude", "daily")["totals"]
    costs.append(round(totals["totalCost"] * 1_000_000))
    print(f"{searches} searches: {costs[-1]} micro-USD; fields {', '.join(sorted(totals))}")
assert costs == [7_800, 7_800]
EOF
