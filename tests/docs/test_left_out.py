"""A plain run of the tests says what it leaves out, and how to run that."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MARKED = "tests/reports/test_export_focus.py"


@pytest.mark.parametrize(
    ("words", "left_out"), [((), True), (("-m", "focus"), False), (("-m", "not focus"), False)]
)
def test_what_is_left_out_is_said(words: tuple[str, ...], left_out: bool) -> None:  # noqa: FBT001
    """Tests behind a marker run where -m names it; where nobody does, the summary says so."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *words, MARKED],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    said = re.search(
        r"^LEFT OUT: \d+ of the tests marked focus .* python -m pytest -m focus$",
        done.stdout,
        re.MULTILINE,
    )
    assert left_out == (said is not None)
    validated = "test_the_official_validator_passes_it" in done.stdout
    assert (words == ("-m", "focus")) == validated
