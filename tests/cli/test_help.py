"""Every command explains itself, in the program and in the documentation."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ledger.cli import app
from tests.fixtures import Run

MANUAL = Path(__file__).parents[2] / "docs" / "command-line.md"


def commands(group: Any, name: str = "ledger") -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Yield every command below a group, by the words it is called with."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


def options(name: str) -> list[str]:
    """Return the options of a command, as they are written."""
    return [word for part in COMMANDS[name].params for word in part.opts if word.startswith("--")]


def test_the_commands_are_known() -> None:
    """No command is added or lost by accident."""
    assert {
        "ledger simulate",
        "ledger report runs",
        "ledger report spend",
        "ledger report statement",
        "ledger report estimates",
        "ledger report leases",
        "ledger report credits",
        "ledger report denials",
        "ledger report forecast",
        "ledger report page",
        "ledger report chart",
        "ledger pool open",
        "ledger pool list",
        "ledger pool show",
        "ledger pool adjust",
        "ledger pool credit",
        "ledger pool ensure",
        "ledger pool close",
        "ledger remaining",
        "ledger price",
        "ledger prices diff",
        "ledger reprice",
        "ledger correct",
        "ledger record",
        "ledger import",
        "ledger reconcile",
        "ledger leases list",
        "ledger leases settle",
        "ledger leases abandon",
        "ledger leases release",
        "ledger expire",
        "ledger alerts",
        "ledger verify",
        "ledger metrics",
        "ledger top",
        "ledger export",
        "ledger verify-export",
        "ledger db upgrade",
        "ledger db current",
        "ledger db check",
        "ledger db copy",
        "ledger db roles",
    } == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    """docs/command-line.md has a heading for it, and something below the heading."""
    sections = re.split(r"(?m)^#+ ", MANUAL.read_text(encoding="utf-8"))
    (section,) = (text for text in sections if f"`{name}`" in text.partition("\n")[0])
    assert section.partition("\n")[2].strip()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name: str) -> None:
    """docs/command-line.md names each option."""
    manual = MANUAL.read_text(encoding="utf-8")
    assert [] == [option for option in options(name) if f"{option}" not in manual]


def test_the_manual_names_no_command_that_is_none() -> None:
    """No heading is left over from a command that is gone."""
    headings = re.findall(r"(?m)^#+ `(ledger [^`]+)`", MANUAL.read_text(encoding="utf-8"))
    assert sorted(COMMANDS) == sorted(headings)


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", COMMANDS)
def test_help(ledger: Run, name: str, flag: str) -> None:
    """--help says what the command does, names every option, and ends with an example."""
    shown = ledger(*name.split()[1:], flag).out
    for option in options(name):
        assert option[:20] in shown
    assert f"Example: {name}" in " ".join(shown.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_use_options_that_exist(name: str) -> None:
    """The example in --help is a command line that could be typed."""
    (example,) = re.findall(r"Example: (.*)", COMMANDS[name].help)
    words = shlex.split(example)
    assert words[: len(name.split())] == name.split()
    assert set() == {word for word in words if word.startswith("--")} - set(options(name))


@pytest.mark.parametrize("words", [(), ("pool",), ("leases",), ("report",), ("db",)])
def test_groups_list_their_commands(ledger: Run, words: tuple[str, ...]) -> None:
    """--help of a group names what is in it."""
    shown = ledger(*words, "--help").out
    for name in COMMANDS:
        if name.split()[1 : 1 + len(words)] == list(words):
            assert name.split()[1 + len(words)] in shown


def test_the_other_name_of_the_program(program: Run) -> None:
    """`ledger` works as an installed program, and without words it shows the help."""
    assert "simulate" in program("--help").out
    shown = program(code=2)
    assert "simulate" in shown.out + shown.err


def test_exit_codes_are_documented(ledger: Run) -> None:
    """The help and the manual name the same exit codes."""
    shown = " ".join(ledger("--help").out.split())
    line = re.search(r"Exit codes: ([^.]*)\.", shown)
    assert line is not None
    rows = re.findall(r"(?m)^\| (\d+) \| ", MANUAL.read_text(encoding="utf-8"))
    assert ["0", "1", "2", "3", "130", "141"] == rows == re.findall(r"\d+", line[1])
