"""The program in docs/clients.md runs as it is written there, around a real client."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from tests.transport import wire
from tests.transport.matrix import PAGE
from tests.transport.shapes import BY_NAME, CHAT_USAGE

WHOLE = json.loads(BY_NAME["chat"].whole.parts[0])
USAGE = {**CHAT_USAGE, "completion_tokens": 1_000, "total_tokens": 2_000}
BILLED = 11_750
"""Micro-USD: 400 tokens at 2.50 a million, 600 at 1.25, 1,000 at 10."""


def test_the_program_prints_what_the_page_says(
    server: wire.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three lines around the client: one call is made, the next one is refused with a reason."""
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert found is not None
    program, printed = found.groups()
    server.answers(wire.whole({**WHOLE, "usage": USAGE}))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.chdir(tmp_path)
    Path("program.py").write_text(program, encoding="utf-8")
    names = runpy.run_path("program.py")
    with names["client"], names["book"]:
        assert printed == capsys.readouterr().out
        assert BILLED == names["team"].status().balance.committed.cost_micros_usd
    assert 1 == len(server.requests)
