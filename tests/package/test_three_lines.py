"""The README's example around a client, as a new user tries it: an empty folder and the wheel."""

from __future__ import annotations

import re
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.package.conftest import PIP, ROOT, Built, call
from tests.transport import wire
from tests.transport.shapes import BY_NAME

ASK = 'messages=[{"role": "user", "content": "What is a ledger?"}]'
CLIENTS = {
    "openai": (
        "from openai import OpenAI",
        "OpenAI()",
        f'client.chat.completions.create(model="gpt-4o", {ASK})',
        "chat",
    ),
    "anthropic": (
        "from anthropic import Anthropic",
        "Anthropic()",
        f'client.messages.create(model="claude-sonnet-4-6", max_tokens=500, {ASK})',
        "messages",
    ),
    "google-genai": (
        "from google import genai",
        "genai.Client()",
        'client.models.generate_content(model="gemini-2.5-pro", contents="What is a ledger?")',
        "gemini",
    ),
}
"""How each client is imported and made, what it is asked, and the protocol that it speaks."""


@pytest.fixture(scope="module")
def programs(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment with the wheel and the newest clients; return its programs' folder."""
    folder = tmp_path_factory.mktemp("clients")
    venv.create(folder / "venv", with_pip=False)
    found = folder / "venv" / "bin"
    wanted = (f"{built.wheel}[prices]", *CLIENTS)
    call(*PIP, found / "python", "install", "-q", *wanted, cwd=folder)
    return found


@pytest.fixture
def server() -> Iterator[wire.Server]:
    """Run a provider on the loopback."""
    with wire.served() as server:
        yield server


@pytest.mark.clients
@pytest.mark.parametrize("name", CLIENTS)
def test_three_lines_around_a_client(
    name: str,
    programs: Path,
    server: wire.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One call is made, and the books say what it cost."""
    imported, made, asked, protocol = CLIENTS[name]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    programs_in_it = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (example,) = (one for one in programs_in_it if "budgeted(" in one)
    lines = example.replace(CLIENTS["openai"][0], imported).replace("OpenAI()", made)
    assert made in lines
    (tmp_path / "program.py").write_text(f"{lines}\nanswer = {asked}\nprint(answer)\n")
    for provider, url in (
        ("OPENAI", f"{server.url}/v1"),
        ("ANTHROPIC", server.url),
        ("GOOGLE_GEMINI", server.url),
    ):
        monkeypatch.setenv(f"{provider}_BASE_URL", url)
    server.answers(BY_NAME[protocol].whole)
    keys = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
    for key in keys:
        monkeypatch.setenv(key, "none")
    assert "Hello there" in call(programs / "python", "program.py", cwd=tmp_path)
    assert 1 == len(server.requests)
    spent = call(programs / "ledger", "report", "runs", "--format", "csv", cwd=tmp_path)
    tokens, cost = BY_NAME[protocol].billed
    row = spent.splitlines()[1].split(",")
    assert ['"nightly-1"', "1", str(tokens), str(cost)] == [row[0], row[1], row[6], row[7]]
    assert "ok" in call(programs / "ledger", "verify", cwd=tmp_path)
