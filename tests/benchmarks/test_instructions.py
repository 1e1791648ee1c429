"""Instructions are counted by callgrind where it is installed; else that is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks.instructions import countable, counter, last_count, missing, valgrind
from benchmarks.trees import ROOT, Tree
from benchmarks.worker import hear, tell

CAN = pytest.mark.skipif(missing() is not None, reason=str(missing()))
LOOP = """
import sys
from benchmarks.measure import Meter
for times in (10_000, 20_000):
    meter = Meter()
    for _ in range(times):
        pass
    meter.round([1.0])
    print(times, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.long
@CAN
def test_what_a_meter_measures_is_counted(tmp_path: Path) -> None:
    """Twice the work takes about twice the instructions, and the start is not among them."""
    seen = []
    with subprocess.Popen(
        [*valgrind(tmp_path), sys.executable, "-c", LOOP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        for _ in range(2):
            hear(process)
            seen.append(last_count(tmp_path))
            tell(process, "on")
    assert 100_000 < seen[0] < 5_000_000
    assert pytest.approx(2 * seen[0], rel=0.3) == seen[1]


def test_a_version_that_counts_nothing_is_said(tmp_path: Path) -> None:
    """Its options may have changed."""
    with pytest.raises(SystemExit, match="counted nothing"):
        last_count(tmp_path)


@pytest.mark.sweep
@CAN
def test_a_count_repeats(tmp_path: Path) -> None:
    """One caller's operation takes as many instructions again, and more than reading does."""
    with counter(Tree(name="here", folder=ROOT), f"sqlite:///{tmp_path / 'ledger.db'}") as under:
        first, second = (under.count("threads", count=1, pairs=400) for _ in range(2))
        read = under.count("remaining", calls=400)
    assert pytest.approx(first, rel=0.05) == second
    assert 10_000 < read < first / 2


def test_valgrind_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the program."""
    monkeypatch.setenv("PATH", os.devnull)
    assert "valgrind is not installed" in str(instructions.missing())


def test_what_is_counted() -> None:
    """A slice that would take minutes under valgrind is not."""
    told = [{"calls": 3}, {"count": 64, "pairs": 1}, {"count": 256, "pairs": 1}, {"seconds": 1}]
    assert [True, True, False, False] == [countable(one) for one in told]
