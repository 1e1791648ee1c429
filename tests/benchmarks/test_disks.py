"""Simulated disks: an fsync takes the time that was asked for, and what is missing is said."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import disks
from benchmarks.disks import REAL, SIMULATED, fsync_of, missing, simulated
from benchmarks.floor import require_a_disk
from benchmarks.measure import Round
from tests.benchmarks.conftest import ROOT

CAN = pytest.mark.skipif(missing() is not None, reason=str(missing()))
SYNC = """
import os, tempfile, time
with tempfile.TemporaryFile() as file:
    for sync in (os.fsync, os.fdatasync):
        began = time.perf_counter()
        sync(file.fileno())
        assert time.perf_counter() - began >= 0.02, sync
print(tempfile.gettempdir())
"""


def test_a_time_is_read_with_its_unit() -> None:
    """The real disk has no time of its own."""
    assert [0, 130, 1_000, 25_000] == [fsync_of(disk) for disk in (REAL, *SIMULATED, "25ms")]


@pytest.mark.parametrize("disk", ["", "130", "0us", "1s", "-1ms", "1.5ms", "9999999us"])
def test_a_time_without_sense_is_refused(disk: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is measured, and with what it should be."""
    with pytest.raises(SystemExit):
        command.main([f"--disk={disk}"])
    assert "a time such as 130us or 1ms" in capsys.readouterr().err


@CAN
def test_an_fsync_takes_the_time_that_was_asked_for() -> None:
    """Both calls sleep, and temporary files are where the stores will be."""
    with simulated(20_000) as environment:
        done = subprocess.run(
            [sys.executable, "-c", SYNC],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        assert environment["TMPDIR"] == done.stdout.strip()


@CAN
def test_a_run_on_a_simulated_disk_says_so(tmp_path: Path) -> None:
    """The table, its floor and the JSON are those of the simulated disk."""
    file = tmp_path / "figures.json"
    words = ["--disk", "2ms", "--store", "sqlite", "--only", "idle", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words, "--json", str(file)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "(simulated)" in done.stdout
    result = json.loads(file.read_text())
    assert 2_000 == result["machine"]["simulated_fsync_us"]
    assert 0 < result["machine"]["floor_per_second"]["sqlite"] < 500
    assert [] == result["on_other_disks"]


def test_a_floor_that_is_quicker_than_the_simulated_disk_is_refused() -> None:
    """The library that sleeps was not loaded, say."""
    require_a_disk(Round(operations=10, seconds=0.011), 1_000)
    with pytest.raises(SystemExit, match="quicker than the simulated fsync of 1000 us"):
        require_a_disk(Round(operations=10, seconds=0.009), 1_000)


def chosen(*, disk: list[str] | None = None, only: list[str] | None = None) -> argparse.Namespace:
    """Return a command line with these words."""
    return argparse.Namespace(disk=disk, only=only)


def test_the_disks_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default callers run on all; named disks are taken; a process that was started has one."""
    monkeypatch.setattr(disks, "missing", lambda: None)
    notes: list[str] = []
    assert [REAL, *SIMULATED] == command._disks(chosen(), notes)
    assert [REAL] == command._disks(chosen(only=["idle"]), notes)
    assert ["2ms", REAL] == command._disks(chosen(disk=["2ms", REAL, "2ms"]), notes)
    monkeypatch.setenv("LEDGER_BENCH_FSYNC_US", "130")
    assert ["130us"] == command._disks(chosen(disk=["2ms"]), notes)
    assert [] == notes


def test_a_missing_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a note where disks were not named, and as an error where one was."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "platform", "linux")
    notes: list[str] = []
    assert [REAL] == command._disks(chosen(), notes)
    assert "C compiler" in notes[0]
    with pytest.raises(SystemExit, match="C compiler"):
        command._disks(chosen(disk=["1ms"]), notes)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SystemExit, match="needs Linux"):
        command._disks(chosen(disk=["1ms"]), notes)
