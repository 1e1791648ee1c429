"""The command line as a user has it: in this process where that is enough, else as a program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger import cli as command_line
from tests import programs
from tests.programs import LEDGER

FORCING = ("LEDGER_URL", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "NO_COLOR", "COLUMNS")
"""Variables that would change what is printed, or where it is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the test into an empty folder and an ordinary environment, and return the folder."""
    for name in FORCING:
        monkeypatch.delenv(name, raising=False)
    empty = tmp_path / "folder"
    empty.mkdir()
    monkeypatch.chdir(empty)
    return empty


@pytest.fixture
def ledger(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Return a function that runs a command here, through the scripts' own entry point.

    The exit code is checked, 0 unless another is named, or None for any; an exception that escapes
    fails the test.
    """

    def run(*words: object, code: int | None = 0) -> Ended:
        monkeypatch.setattr(sys, "argv", ["ledger", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            command_line.main()
        found = exit_.value.code
        out, err = capsys.readouterr()
        ended = Ended(code=found if isinstance(found, int) else int(bool(found)), out=out, err=err)
        assert code in {ended.code, None}, ended.err + ended.out
        return ended

    return run


@pytest.fixture(scope="module")
def _kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "folder"


@pytest.fixture
def filled_once(folder: Path, _kept: Path) -> Callable[[Callable[[], object]], Path]:
    """Return a function that fills the folder, and keeps what is in it for the module's others."""

    def fill(make: Callable[[], object]) -> Path:
        if _kept.exists():
            shutil.copytree(_kept, folder, dirs_exist_ok=True)
        else:
            make()
            shutil.copytree(folder, _kept)
        return folder

    return fill


@pytest.fixture
def refused(ledger: Callable[..., Ended]) -> Callable[..., str]:
    """Return a function that runs a command which must fail, and returns the one line it says."""

    def run(*words: object) -> str:
        ended = ledger(*words, code=2)
        assert "" == ended.out
        (line,) = ended.err.splitlines()
        assert line.startswith("Error: ")
        return line.removeprefix("Error: ")

    return run


def _runs(start: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., Ended]:
    def run(*words: object, code: int = 0, **environment: str) -> Ended:
        done = start(
            [LEDGER, *map(str, words)],
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, **environment},
            timeout=120,
            check=False,
        )
        assert code == done.returncode, done.stderr + done.stdout
        return Ended(code=done.returncode, out=done.stdout, err=done.stderr)

    return run


@pytest.fixture
def program() -> Callable[..., Ended]:
    """Return a function that runs a command as a process of its own, and waits for its end."""
    return _runs(programs.run)


@pytest.fixture
def installed() -> Callable[..., Ended]:
    """Return a function that runs a command as `program` does, in an interpreter of its own."""
    return _runs(subprocess.run)


@pytest.fixture
def trace(folder: Path) -> Callable[..., Path]:
    """Return a function that writes a trace: rows of cells, under the plain header or another."""

    def write(
        *rows: str, header: str = "TIMESTAMP,ContextTokens,GeneratedTokens", name: str = "trace.csv"
    ) -> Path:
        path = folder / name
        path.write_text("".join(f"{line}\n" for line in (header, *rows)), encoding="utf-8")
        return path

    return write


@pytest.fixture
def traffic(trace: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that writes a trace of so many calls, one a second from midnight on.

    Call n has 100 + 7 n input tokens and 10 + 3 n output tokens, both modulo 997, and an id: the
    file's name and n.
    """

    def write(count: int, *, name: str = "trace.csv") -> Path:
        return trace(
            *(
                f"2024-02-29 {n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}.5,"
                f"{(100 + 7 * n) % 997},{(10 + 3 * n) % 997},{name}-{n}"
                for n in range(count)
            ),
            header="TIMESTAMP,ContextTokens,GeneratedTokens,request_id",
            name=name,
        )

    return write


@pytest.fixture
def lines() -> Callable[[str], list[str]]:
    """Return a function that gives the lines of a table, with one space between the cells."""
    return lambda text: [" ".join(line.split()) for line in text.splitlines() if line.strip()]
