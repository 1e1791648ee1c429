"""The README runs as written, and prints what it says."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Block = Callable[[str], str]
Start = Callable[..., str]


def lines(text: str) -> list[str]:
    """Return lines without the spaces at their ends, which nobody sees."""
    return [line.rstrip() for line in text.splitlines()]


def test_python_runs_as_written(readme: str, run: Start, tmp_path: Path) -> None:
    """What is recorded by hand is a program that can be run twice, and counts what it spent."""
    _around_a_client, text = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    program = tmp_path / "program.py"
    program.write_text(text, encoding="utf-8")
    for left in (49_997_550, 49_995_100):
        assert f"{left} millionths" in run(sys.executable, program, cwd=tmp_path)


def test_the_first_programs_share_a_folder(
    readme: str, run: Start, root: Path, tmp_path: Path
) -> None:
    """The README's program by hand and the contract's first one may be tried one after another."""
    contract = (root / "docs" / "contract.md").read_text(encoding="utf-8")
    program = tmp_path / "program.py"
    for text, which in ((readme, 1), (contract, 0)):
        found = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[which]
        program.write_text(found, encoding="utf-8")
        assert run(sys.executable, program, cwd=tmp_path)


@pytest.fixture(scope="module")
def ran(
    block: Block,
    run: Start,
    root: Path,
    scripts: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, str]:
    """Run the main job of the README, and return its folder and what it printed."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "examples").symlink_to(root / "examples")
    *_before, command = block("command: main").strip().split("&&")
    program, *words = shlex.split(command)
    assert ".venv/bin/ledger" == program
    assert words[:2] == ["simulate", "examples/azure_code_2023.csv"]
    return folder, run(scripts / "ledger", *words, cwd=folder)


def test_the_main_job_prints_what_the_readme_shows(block: Block, ran: tuple[Path, str]) -> None:
    """The block behind the command is what the command prints, line for line."""
    assert lines(block("output: main")) == lines(ran[1])


def test_what_follows_the_main_job_works(
    readme: str, run: Start, scripts: Path, ran: tuple[Path, str]
) -> None:
    """The commands that ask the pool afterwards find it."""
    follow = re.findall(r"(?m)^\.venv/bin/ledger (?!simulate)(.*)$", readme)
    assert follow
    printed = {words: run(scripts / "ledger", *shlex.split(words), cwd=ran[0]) for words in follow}
    assert "azure_code_2023" in printed["pool list"]
    assert printed["report runs --format csv"].startswith("run_id,requests,")
    assert printed["verify"].startswith("ok ")


@pytest.mark.parametrize("mark", ["command: main", "command: test"])
def test_a_command_is_one_line_that_makes_its_own_environment(block: Block, mark: str) -> None:
    """Pasted on a fresh machine it needs nothing but Python and pip."""
    (line,) = block(mark).splitlines()
    assert line.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    for part in line.split("&&")[1:]:
        assert part.strip().startswith(".venv/bin/")


def test_the_test_command_runs_pytest_with_everything(block: Block) -> None:
    """The second command installs `[dev]` and runs the tests."""
    command = block("command: test")
    assert "'.[dev]'" in command
    assert command.strip().endswith("pytest")
