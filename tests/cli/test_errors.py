"""What cannot be done is said in one line on standard error, with exit code 2."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from sqlalchemy import make_url

from ledger import Ledger
from tests.fixtures import Run

READING = [
    ("pool", "list"),
    ("pool", "show", "team"),
    ("pool", "adjust", "team", "--reason", "x"),
    ("remaining", "team"),
    ("leases", "team"),
    ("verify",),
    ("report", "runs"),
    ("report", "statement", "team"),
    ("report", "leases"),
    ("db", "current"),
    ("db", "check"),
]
WRITING = [
    ("pool", "open", "team"),
    ("pool", "ensure", "team", "--reason", "x"),
    ("db", "upgrade"),
]


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_reading_makes_no_store(refused: Run, folder: Path, command: tuple[str, ...]) -> None:
    """A file that is not there is named, and not made."""
    assert "ledger.db" in refused(*command)
    assert [] == list(folder.iterdir())


@pytest.mark.parametrize("command", [*READING, *WRITING], ids=" ".join)
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "not a database URL"),
        ("", "not a database URL"),
        ("mysql://root@localhost/x", "'mysql' is not supported"),
        ("sqlite://", "in-memory"),
        ("sqlite:///:memory:", "in-memory"),
        ("sqlite:///no/such/folder/ledger.db", "no/such/folder"),
    ],
)
def test_urls_that_are_none(
    refused: Run, folder: Path, command: tuple[str, ...], url: str, said: str
) -> None:
    """Every command says what a URL looks like, or what is wrong with this one."""
    assert said in refused(*command, "--url", url)
    assert [] == list(folder.iterdir())


@pytest.mark.parametrize("command", [READING[0], *WRITING], ids=" ".join)
def test_a_server_that_does_not_answer(refused: Run, command: tuple[str, ...]) -> None:
    """The server's address is in the line; its password is not."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        url = f"postgresql://me:secret@127.0.0.1:{port}/books"
        said = refused(*command, "--url", url)
    assert f"127.0.0.1:{port}" in said
    assert "secret" not in said


def test_a_database_that_is_not_there(refused: Run, server_url: str) -> None:
    """A server without this database says so in one line."""
    url = make_url(server_url).set(database="nowhere")
    said = refused("pool", "list", "--url", url.render_as_string(hide_password=False))
    assert '"nowhere" does not exist' in said


@pytest.mark.parametrize("command", [*READING, *WRITING], ids=" ".join)
def test_a_file_that_is_no_database(refused: Run, folder: Path, command: tuple[str, ...]) -> None:
    """Somebody's notes are named as what they are not, and left alone."""
    notes = folder / "ledger.db"
    notes.write_text("not a database, but long enough to look like one\n" * 100)
    before = notes.read_bytes()
    said = refused(*command)
    assert "ledger.db" in said
    assert "not a database" in said
    assert before == notes.read_bytes()
    assert [notes] == list(folder.iterdir())


def test_a_missing_driver(installed: Run, tmp_path: Path) -> None:
    """Without psycopg the line says which extra to install."""
    hidden = tmp_path / "hidden" / "psycopg"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError('hidden', name='psycopg')\n")
    inherited = os.environ.get("PYTHONPATH", "")
    ended = installed(
        *("pool", "list", "--url", "postgresql://me@localhost/books"),
        code=2,
        PYTHONPATH=f"{hidden.parent}{os.pathsep}{inherited}",
    )
    (line,) = ended.err.splitlines()
    assert line.startswith("Error: ")
    assert "budget-ledger[postgresql]" in line


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("pool",),
        ("pool", "close"),
        ("pool", "show"),
        ("remaining",),
        ("simulate",),
        ("report", "runs", "--format", "xml"),
        ("pool", "open", "team", "--capacity"),
        ("--nonsense",),
    ],
    ids=" ".join,
)
def test_words_that_make_no_command(ledger: Run, folder: Path, words: tuple[str, ...]) -> None:
    """A command that is none, or lacks something, exits with 2 and without a traceback."""
    ended = ledger(*words, code=2)
    assert ended.err + ended.out
    assert "Traceback" not in ended.err
    assert [] == list(folder.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("simulate", "trace.csv", "--workers", "0"), "--workers"),
        (("report", "runs", "--format", "xml"), "--format"),
        (("pool", "adjust", "team"), "--reason"),
        (("remaining",), "pool"),
    ],
    ids=["workers", "format", "reason", "pool"],
)
def test_misused_options_are_one_line(refused: Run, words: tuple[str, ...], said: str) -> None:
    """Errors that the parser of the command line finds look like all others."""
    assert said in refused(*words)


def test_a_conflict_is_one_line_of_figures(ledger: Run, refused: Run) -> None:
    """A policy that contradicts the pool's is refused with the figures of both, for people."""
    ledger("pool", "open", "team", "--capacity-tokens", "1000")
    said = refused("pool", "open", "team", "--capacity-tokens", "2000")
    assert "team" in said
    assert "SharedPoolBudgetOptions" not in said


def test_errors_of_the_program_itself(program: Run) -> None:
    """As a program too: nothing on standard output, one line on standard error, exit code 2."""
    ended = program("remaining", "team", code=2)
    assert "" == ended.out
    (line,) = ended.err.splitlines()
    assert line.startswith("Error: ")


def test_a_long_error_is_not_broken(program: Run) -> None:
    """A narrow terminal's width does not break the line, and colours do not get into it."""
    url = f"sqlite:///{'x' * 200}/ledger.db"
    (line,) = program("pool", "list", "--url", url, code=2, COLUMNS="40").err.splitlines()
    assert "x" * 200 in line
    assert "\x1b" not in line


def test_nothing_is_printed_of_a_failed_report(program: Run) -> None:
    """Where JSON is piped on, a failure leaves the pipe empty rather than half filled."""
    with Ledger.open():
        pass
    ended = program("report", "runs", "--pool", "nope", "--format", "json", code=2)
    assert "" == ended.out
