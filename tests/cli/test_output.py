"""What is printed where: figures whole, colours and progress for terminals only."""

from __future__ import annotations

import csv
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests import programs
from tests.fixtures import Lines, Run
from tests.programs import LEDGER

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens,run,cost_micros_usd"
LARGE = 1_234_567_890


class Terminal:
    """A pseudo terminal of so many columns, and what was written to it."""

    def __init__(self, columns: int) -> None:
        self._ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self._parts: list[bytes] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # the other end is closed
            while part := os.read(self._ours, 4_096):
                self._parts.append(part)

    def close(self) -> str:
        """Close it, and return its text."""
        os.close(self.theirs)
        self._reader.join(30)
        os.close(self._ours)
        return b"".join(self._parts).decode()


def in_terminal(*words: object, streams: str, columns: int = 80) -> dict[str, str]:
    """Run the program with standard output or error, or both, on a terminal."""
    terminal = Terminal(columns)
    piped = subprocess.PIPE
    done = programs.run(
        [LEDGER, *map(str, words)],
        stdout=terminal.theirs if "out" in streams else piped,
        stderr=terminal.theirs if "err" in streams else piped,
        env={**os.environ, "TERM": "xterm-256color"},
        timeout=120,
        check=False,
    )
    shown = terminal.close()
    return {
        "terminal": shown,
        "out": (done.stdout or b"").decode(),
        "err": (done.stderr or b"").decode(),
        "code": str(done.returncode),
    }


@pytest.fixture
def large(trace: Callable[..., Path]) -> Path:
    """Return a trace with a long run name and large figures."""
    rows = (f"2024-02-29 10:00:00,{LARGE},{LARGE},{name},{LARGE}" for name in ("r" * 30, "b"))
    return trace(*rows, header=HEADER)


@pytest.mark.parametrize("columns", ["20", "80", "500"])
def test_piped_figures_are_whole(program: Run, large: Path, lines: Lines, columns: str) -> None:
    """When piped, every figure stands on one line whatever COLUMNS says."""
    ended = program("simulate", large, COLUMNS=columns)
    tokens, cost = f"{2 * LARGE:,}", f"{LARGE // 10**6:,}.{LARGE % 10**6:06}"
    row = f"1 0 {LARGE:,} {LARGE:,} {tokens} {tokens} {cost} {cost}"
    times = "2024-02-29T10:00:00Z 2024-02-29T10:00:00Z"
    shown = lines(ended.out)
    assert f"{'r' * 30} {row} {times}" in shown
    assert f"b {row} {times}" in shown
    assert "…" not in ended.out


def test_the_largest_figures_are_whole_when_piped(
    program: Run, trace: Callable[..., Path], lines: Lines
) -> None:
    """The largest amounts and the longest name that books can hold are not cut up either."""
    largest = 2**63 - 1
    path = trace(f"2024-02-29,{largest},0,{'r' * 255},{largest}", header=HEADER)
    ended = program("simulate", path)
    cost = f"{largest // 10**6:,}.{largest % 10**6:06}"
    times = "2024-02-29T00:00:00Z 2024-02-29T00:00:00Z"
    row = f"1 0 {largest:,} 0 {largest:,} {largest:,} {cost} {cost} {times}"
    assert f"{'r' * 255} {row}" in lines(ended.out)


def test_pipes_carry_text_alone(program: Run, traffic: Callable[..., Path]) -> None:
    """No colours, no progress, no control characters and no blanks at the end of lines."""
    path = traffic(30)
    for words in (
        ("simulate", path, "--capacity-tokens", 900),
        ("pool", "list"),
        ("pool", "show", "trace"),
        ("report", "runs"),
        ("leases", "trace"),
        ("remaining", "trace"),
        ("verify",),
        ("db", "check"),
    ):
        ended = program(*words, TERM="xterm-256color")
        assert "" == ended.err
        assert ended.out
        assert set() == {char for char in ended.out if ord(char) < 32} - {"\n"}
        assert " \n" not in ended.out


def test_progress_is_shown_on_a_terminal(traffic: Callable[..., Path]) -> None:
    """Standard error on a terminal has a bar that counts; standard output stays text."""
    shown = in_terminal("simulate", traffic(200), streams="err")
    assert "0" == shown["code"]
    assert "Simulating" in shown["terminal"]
    assert re.search(r"[1-9][0-9]*/200", shown["terminal"])
    assert "Simulating" not in shown["out"]
    assert "200 rows: 200 admitted" in shown["out"]
    assert "\x1b" not in shown["out"]
    verified = in_terminal("verify", streams="err")
    assert "Verifying" in verified["terminal"]
    assert verified["out"].startswith("ok       trace: 401 entries")


def test_progress_is_not_shown_in_a_pipe(program: Run, traffic: Callable[..., Path]) -> None:
    """A log file or a cron mail gets no bar."""
    assert "" == program("simulate", traffic(5)).err
    assert "" == program("verify").err


def test_no_color_is_respected(traffic: Callable[..., Path], program: Run) -> None:
    """NO_COLOR turns colours off on a terminal as well."""
    program("simulate", traffic(5))
    os.environ["NO_COLOR"] = "1"
    try:
        shown = in_terminal("pool", "list", streams="out")["terminal"]
    finally:
        del os.environ["NO_COLOR"]
    assert "\x1b[3" not in shown


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_figures_whole(
    traffic: Callable[..., Path], program: Run, columns: int
) -> None:
    """On an ordinary terminal ordinary figures are neither cut nor broken over lines."""
    program("simulate", traffic(300))
    (row,) = csv.DictReader(program("report", "runs", "--format", "csv").out.splitlines())
    shown = in_terminal("report", "runs", streams="out", columns=columns)["terminal"]
    for name in ("input_tokens", "output_tokens", "total_tokens"):
        assert f"{int(row[name]):,}" in shown
    assert "…" not in shown


def test_a_closed_pipe_is_no_crash(program: Run, traffic: Callable[..., Path]) -> None:
    """`ledger ... | head` ends quietly."""
    program("simulate", traffic(300), "--runs", "1")
    process = programs.Popen(
        [LEDGER, "report", "runs", "--format", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    process.wait(30)
    assert b"Traceback" not in err
    assert b"Exception" not in err


def test_other_alphabets_in_any_locale(installed: Run) -> None:
    """A name that the locale cannot write does not stop a command."""
    for _ in range(2):
        ended = installed("pool", "open", "実行", LC_ALL="C", PYTHONIOENCODING="ascii:replace")
        assert "unlimited" in ended.out


def test_a_narrow_terminal_says_what_it_leaves_out(
    traffic: Callable[..., Path], program: Run
) -> None:
    """Columns that do not fit are named, lines are no longer than the terminal, --wide has all."""
    program("simulate", traffic(30))
    words = ("report", "spend", "--by", "run")
    shown = in_terminal(*words, streams="out", columns=80)["terminal"]
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "No room for: " in text
    assert "Estimated USD" in text.partition("No room for: ")[2]
    table = [line for line in text.splitlines() if line.startswith(("2024", "Run"))]
    assert table
    assert max(map(len, table)) <= 80
    wide = in_terminal(*words, "--wide", streams="out", columns=80)["terminal"]
    assert "No room for" not in wide
    assert "Reasoning" in wide
