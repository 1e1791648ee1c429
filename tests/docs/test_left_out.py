"""A plain run of the tests says what it leaves out, and how to run that."""

from __future__ import annotations

import re
import sys

from tests import programs
from tests.programs import ROOT

MARKED = {
    "browser": "tests/browser/test_page.py::",
    "clients": "all_servers",
    "focus": "validator_passes",
    "long": "many",
    "sweep": "most",
    "tools": "line_of_the_manual",
}
"""Markers, and what stands in the ids of tests that have them, in the files below."""
FILES = (
    "tests/browser",
    "tests/docs/test_web_service.py",
    "tests/reports/test_export_focus.py",
    "tests/reports/test_export_tools.py",
    "tests/stateful",
)


def collected(*words: str) -> tuple[set[str], set[str]]:
    """Return which markers the summary names, and of which ones tests are collected."""
    done = programs.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *words, *FILES],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,  # where all are left out, nothing is collected
    )
    said = set(
        re.findall(
            r"(?m)^LEFT OUT: \d+ of the tests marked (\w+) .* python -m pytest -m \1$", done.stdout
        )
    )
    named = [line for line in done.stdout.splitlines() if "::test_" in line]
    return said, {mark for mark, part in MARKED.items() if any(part in line for line in named)}


def test_what_is_left_out_is_said() -> None:
    """Tests behind a marker do not run where no marker is named; the summary says so."""
    assert (set(MARKED), set()) == collected()


def test_markers_that_are_named_are_run() -> None:
    """With `-m` their tests run, and no others."""
    assert (set(), {"browser", "long"}) == collected("-m", "browser or long")


def test_a_marker_that_is_excluded_is_not_said() -> None:
    """Who leaves something out on purpose knows."""
    assert (set(), set()) == collected("-m", " and ".join(f"not {mark}" for mark in MARKED))
