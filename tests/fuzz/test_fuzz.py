"""The fuzzer runs, and finds nothing in as many inputs as a test has time for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import ROOT

from .corpus import corpus
from .readers import Readers

RUNS = 3_000


@pytest.mark.long
def test_the_first_inputs(tmp_path: Path) -> None:
    """Each reader takes those that are for it, and again those that are there already."""
    readers, first = Readers(tmp_path), [*corpus()]
    assert {*range(len(readers.all))} == {data[0] for data in first}
    for data in (*first, *first):
        readers.read(data[0], data[1], data[2:])


@pytest.mark.long
def test_the_fuzzer_finds_nothing(tmp_path: Path) -> None:
    """From the same seed, so that the same inputs are tried; it says how many it tried."""
    pytest.importorskip("atheris", reason="it has no wheel for this Python")
    # No fork of tests/programs.py: the fuzzer instruments the library when it is imported.
    words = [sys.executable, "-m", "tests.fuzz", f"-runs={RUNS}", "-seed=1"]
    done = subprocess.run(
        [*words, f"-artifact_prefix={tmp_path}/"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr[-4_000:]
    assert f"Done {RUNS} runs" in done.stderr
