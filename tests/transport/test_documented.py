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


CALLS = {
    "openai": (
        ("from openai import OpenAI", "OpenAI()"),
        "client.chat.completions.create(model=MODEL, messages=MESSAGES)",
        "client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)",
        BY_NAME["chat"],
    ),
    "anthropic": (
        ("from anthropic import Anthropic", "Anthropic()"),
        "client.messages.create(model=MODEL, max_tokens=400, messages=MESSAGES)",
        "client.messages.create(model=MODEL, max_tokens=9, messages=MESSAGES, stream=True)",
        BY_NAME["messages"],
    ),
    "google-genai": (
        ("from google import genai", "genai.Client()"),
        "client.models.generate_content(model=MODEL, contents='Hi')",
        "client.models.generate_content_stream(model=MODEL, contents='Hi')",
        BY_NAME["gemini"],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_readmes_lines_fit_each_client(
    server: wire.Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """As a new user writes them, in an empty folder: a call, a stream, and then a refusal."""
    (imported, made), call, stream, shape = CALLS[name]
    page = (PAGE.parent.parent / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    lines = lines.replace("from openai import OpenAI", imported).replace("OpenAI()", made)
    for variable in ("ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(variable, "none")
    for variable in ("ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.setenv(variable, server.url)
    program = f"""
{lines}
from ledger.transport import denial_of

MODEL, MESSAGES = {shape.model!r}, {MESSAGES!r}
{call}
for part in {stream}:
    pass
spent = team.status().balance
book.adjust("team", SharedPoolBudgetOptions(capacity_cost_micros_usd=usd("0.001")))
try:
    {call}
except Exception as error:
    print(denial_of(error))
assert 0 == spent.reserved.cost_micros_usd
print(spent.committed.cost_micros_usd, len(list(book.entries("team"))), book.verify()[0].ok)
"""
    server.answers(shape.whole, shape.stream)
    Path("program.py").write_text(program, encoding="utf-8")
    names = runpy.run_path("program.py")
    with names["book"]:
        refused, counted = capsys.readouterr().out.splitlines()
    assert refused.startswith("pool 'team' cannot grant")
    assert [str(2 * shape.billed[1]), "True"] == counted.split()[::2]
    assert 2 == len(server.requests)
