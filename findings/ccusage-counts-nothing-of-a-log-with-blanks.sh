#!/usr/bin/env bash
# A session log of Claude Code, written compactly and as Python's json.dumps writes it by default.
# Guessed: both are the same JSON, so that both count.
# Seen:    a line with a blank between "usage": and its brace counts as nothing; there is no warning and the
#          exit code is 0. A blank before a number is read.
# Library: ccusage 20.0.24 (npm, Linux x64)
# Matters: a log that a script has redacted or moved is compared with books as a month of nothing.
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

one = line(1, "10:00:00.000")
seen = {}
for name, text in {
    "compact": json.dumps(one, separators=COMPACT),
    "with blanks": json.dumps(one),
    "one blank before the usage": json.dumps(one, separators=COMPACT).replace('"usage":', '"usage": '),
    "one blank before a number": json.dumps(one, separators=COMPACT).replace('tokens":', 'tokens": '),
}.items():
    LOG.write_text(text + "\n")
    seen[name] = ccusage("claude", "daily")["totals"]["totalTokens"]
    print(f"{name}: {seen[name]} tokens")
assert list(seen.values()) == [600, 0, 0, 600]
EOF
