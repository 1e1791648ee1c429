"""A plain run of the tests says what it left out, and how to run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mark", ["browser"])
def test_what_has_a_run_of_its_own_is_named(mark: str) -> None:
    """Without `-m` marked tests are left out and named; with it they are there."""
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    shown = [
        subprocess.run(
            [*words, f"tests/{mark}", *asked],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            check=False,
        ).stdout
        for asked in ((), ("-m", mark))
    ]
    assert f"tests marked {mark}. python -m pytest -m {mark}" in shown[0]
    assert "::test_" not in shown[0]
    assert "left out" not in shown[1]
    assert "::test_" in shown[1]
