#!/usr/bin/env bash
# Three calls of a session: at 10:47, 15:30 and 15:46. The second is within five hours of the first.
# Guessed: a five-hour block begins with its first call: two calls until 15:47, and one behind it.
# Seen:    it begins at the full hour before that call, 10:00, and ends at 15:00. So the first call is
#          alone, and the second, 4 h 43 min later, begins another block.
# Library: ccusage 20.0.24 (npm, Linux x64)
# Matters: what is left of a session's budget differs, by up to an hour's calls, from a window that begins with
#          the first call.
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

times = ("10:47:00.000", "15:30:00.000", "15:46:00.000")
lines = [json.dumps(line(number, at), separators=COMPACT) for number, at in enumerate(times)]
LOG.write_text("\n".join(lines) + "\n")
blocks = [
    (one["startTime"][11:16], one["endTime"][11:16], one["entries"])
    for one in ccusage("blocks")["blocks"]
    if not one["isGap"]
]
for start, end, calls in blocks:
    print(f"block from {start} to {end}: {calls} of the calls")
assert blocks == [("10:00", "15:00", 1), ("15:00", "20:00", 2)]
EOF
