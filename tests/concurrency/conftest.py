"""Programs that run at the same time, what they were told, and what the journal says of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

import ledger
from ledger import Entry, EntryKind, Ledger
from tests import programs

WORKER = Path(__file__).parent / "worker.py"
POOL = "pool"


class Told(NamedTuple):
    """One line of a program's log: what it was told by the store."""

    what: str
    request: str
    lease: int
    tokens: int
    cost_micros_usd: int


class Program:
    """A running worker, its log, and how it ended."""

    def __init__(self, log: Path, mode: str, url: str, *words: object) -> None:
        self.log = log
        self.process = programs.Popen(
            [sys.executable, str(WORKER), mode, url, str(log), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(ledger.__file__).parents[1])},
        )

    def wait_until_ready(self) -> None:
        """Wait until it stands at the start."""
        assert self.process.stdout is not None
        assert "ready\n" == self.process.stdout.readline()

    def go(self) -> None:
        """Let it begin."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def lines(self) -> list[list[str]]:
        """Return its log so far."""
        text = self.log.read_text() if self.log.exists() else ""
        return [line.split() for line in text.splitlines()]

    def told(self) -> list[Told]:
        """Return what the store has told it so far."""
        return [
            Told(what, request, *map(int, figures))
            for what, request, *figures in self.lines()
            if what in {"reserved", "settled", "denied"}
        ]

    def wait_for_lines(self, number: int) -> None:
        """Wait until its log has at least so many lines."""
        deadline = time.monotonic() + 60
        while len(self.lines()) < number:
            assert self.process.poll() is None, "it ended early"
            assert time.monotonic() < deadline, "it stands still"
            time.sleep(0.005)

    def wait(self) -> int:
        """Wait until it has ended, and return its exit code."""
        return self.process.wait(timeout=40)

    def close(self) -> None:
        """End it, its children, and its pipes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Return a function that starts a worker; none outlives the test."""
    programs: list[Program] = []

    def run(mode: str, url: str, *words: object) -> Program:
        program = Program(tmp_path / f"log{len(programs)}", mode, url, *words)
        programs.append(program)
        return program

    yield run
    for program in programs:
        program.close()


def begin_together(programs: list[Program]) -> None:
    """Let all of them begin when the last is ready."""
    for program in programs:
        program.wait_until_ready()
    for program in programs:
        program.go()


@pytest.fixture
def together() -> Callable[[list[Program]], None]:
    """Return the function that lets programs begin at the same time."""
    return begin_together


def read_books(url: str) -> tuple[list[Entry], bool]:
    """Return a pool's entries, and whether the whole store verifies."""
    with Ledger.open(url, create=False) as book:
        return list(book.entries(POOL)), [True] == [found.ok for found in book.verify()]


def check_books(url: str, told: list[Told], *, lost: int = 0) -> list[Entry]:
    """Hold the journal against what the programs were told, and return the journal.

    Whatever was acknowledged is there exactly once, with its figures; there is nothing more than
    that, but for the `lost` calls at most whose callers did not live to be told.
    """
    entries, verified = read_books(url)
    assert verified, "the store does not verify"
    assert list(range(1, len(entries) + 1)) == [entry.seq for entry in entries]
    written = Counter(
        Told(
            "reserved",
            str(entry.request_id),
            entry.seq,
            entry.estimate.total_tokens,
            entry.estimate.cost_micros_usd,
        )
        if entry.kind == EntryKind.RESERVATION
        else Told(
            "settled",
            str(entry.request_id),
            entry.lease.lease,
            entry.usage.total_tokens,
            entry.usage.cost_micros_usd,
        )
        for entry in entries
        if entry.kind in {EntryKind.RESERVATION, EntryKind.SETTLEMENT}
    )
    acknowledged = Counter(line for line in told if line.what != "denied")
    assert Counter() == acknowledged - written, "acknowledged, and not in the journal"
    assert {1} >= set(written.values()), "written twice"
    assert lost >= (written - acknowledged).total(), "written, and nobody asked for it"
    check_totals(entries)
    return entries


def check_totals(entries: list[Entry]) -> None:
    """Check that the newest balance is what the entries add up to."""
    settled = [entry for entry in entries if entry.kind == EntryKind.SETTLEMENT]
    reserved = {entry.seq: entry for entry in entries if entry.kind == EntryKind.RESERVATION}
    for entry in settled:
        del reserved[entry.lease.lease]
    committed, held = entries[-1].balance
    assert committed == (
        sum(entry.usage.total_tokens for entry in settled),
        sum(entry.usage.cost_micros_usd for entry in settled),
        len(settled),
    )
    assert held == (
        sum(entry.estimate.total_tokens for entry in reserved.values()),
        sum(entry.estimate.cost_micros_usd for entry in reserved.values()),
        len(reserved),
    )


@pytest.fixture
def check() -> Callable[..., list[Entry]]:
    """Return the function that holds a journal against what programs were told."""
    return check_books
