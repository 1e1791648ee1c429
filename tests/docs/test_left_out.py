"""A plain run of the tests says what it leaves out, and how to run that."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MARKED = {"focus": "tests/reports/test_export_focus.py", "browser": "tests/browser"}


@pytest.mark.parametrize("mark", MARKED)
@pytest.mark.parametrize(
    ("words", "left_out"), [((), True), (("-m", "{mark}"), False), (("-m", "not {mark}"), False)]
)
def test_what_is_left_out_is_said(mark: str, words: tuple[str, ...], left_out: bool) -> None:  # noqa: FBT001
    """Tests behind a marker run where -m names it; where nobody does, the summary says so."""
    asked = [word.format(mark=mark) for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *asked, MARKED[mark]],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,  # where all are left out, nothing is collected
    )
    said = re.search(
        rf"^LEFT OUT: \d+ of the tests marked {mark} .* python -m pytest -m {mark}$",
        done.stdout,
        re.MULTILINE,
    )
    assert left_out == (said is not None)
    named = [line for line in done.stdout.splitlines() if "::test_" in line]
    marked = [line for line in named if mark == "browser" or "validator_passes" in line]
    assert (asked == ["-m", mark]) == bool(marked)
