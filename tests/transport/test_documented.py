"""The program in docs/clients.md runs as it is written there, around a real client."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from tests.transport import wire
from tests.transport.libraries import MESSAGES
from tests.transport.matrix import PAGE
from tests.transport.shapes import BY_NAME, CHAT_USAGE

WHOLE = json.loads(BY_NAME["chat"].whole.parts[0])
USAGE = {**CHAT_USAGE, "completion_tokens": 1_000, "total_tokens": 2_000}
BILLED = 11_750
"""Micro-USD: 400 tokens at 2.50 a million, 600 at 1.25, 1,000 at 10."""


@pytest.fixture(autouse=True)
def provider(server: wire.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let programs in an empty folder call the server, which answers once."""
    server.answers(wire.whole({**WHOLE, "usage": USAGE}))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.chdir(tmp_path)


def test_the_program_prints_what_the_page_says(
    server: wire.Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three lines around the client: one call is made, the next one is refused with a reason."""
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert found is not None
    program, printed = found.groups()
    Path("program.py").write_text(program, encoding="utf-8")
    names = runpy.run_path("program.py")
    with names["client"], names["book"]:
        assert printed == capsys.readouterr().out
        assert BILLED == names["team"].status().balance.committed.cost_micros_usd
    assert 1 == len(server.requests)


def test_the_readme_puts_a_budget_around_a_client() -> None:
    """Its three lines are all that a call needs."""
    page = (PAGE.parent.parent / "README.md").read_text(encoding="utf-8")
    program, _by_hand = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    Path("program.py").write_text(program, encoding="utf-8")
    names = runpy.run_path("program.py")
    with names["client"] as client, names["book"]:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        assert BILLED == names["team"].status().balance.committed.cost_micros_usd
