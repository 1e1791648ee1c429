"""docs/prices.md runs as written, and prints what it shows."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import programs

PAGE = (Path(__file__).parents[2] / "docs" / "prices.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"(?m)^```text\n\$ (ledger .*)\n((?:(?!```).*\n)*)```", PAGE)
Start = Callable[..., str]


def lines(text: str) -> list[str]:
    """Return lines without the spaces at their ends, and without empty ones at the end."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


@pytest.fixture(scope="module")
def ran(run: Start, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the page's Python in a folder that has the page's table; return both."""
    folder = tmp_path_factory.mktemp("prices")
    (table,) = re.findall(r"<!-- prices.toml -->\n```toml\n(.*?)```", PAGE, re.DOTALL)
    (folder / "prices.toml").write_text(table, encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (folder / "program.py").write_text(program, encoding="utf-8")
    return folder, run(sys.executable, folder / "program.py", cwd=folder)


def test_python_prints_what_the_page_shows(ran: tuple[Path, str]) -> None:
    """The block behind the Python is what it prints."""
    (shown,) = re.findall(r"```python\n.*?```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert lines(shown) == lines(ran[1])


def test_there_are_commands() -> None:
    """The page shows each of the three: otherwise the next test would have nothing to run."""
    assert ["price", "prices", "reprice"] == [words.split()[1] for words, _ in COMMANDS]


@pytest.mark.parametrize(("words", "shown"), COMMANDS, ids=[words[:20] for words, _ in COMMANDS])
def test_commands_print_what_the_page_shows(
    ran: tuple[Path, str], scripts: Path, words: str, shown: str
) -> None:
    """With the table and the store of the page; a difference is exit code 1."""
    program, *others = shlex.split(words)
    done = programs.run(
        [scripts / program, *others],
        cwd=ran[0],
        capture_output=True,
        encoding="utf-8",
        env={name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")},
        check=False,
    )
    assert ("", int("diff" in words)) == (done.stderr, done.returncode)
    assert lines(shown) == lines(done.stdout)
