"""The documents, and a way to run what stands in them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import programs
from tests.programs import ROOT


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def readme() -> str:
    """Return the README."""
    return (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def block(readme: str) -> Callable[[str], str]:
    """Return a function that gives the README's block behind a mark such as `output: main`."""

    def find(mark: str) -> str:
        (found,) = re.findall(rf"<!-- {mark} -->\n```[a-z]*\n(.*?)```", readme, re.DOTALL)
        text: str = found
        return text

    return find


@pytest.fixture(scope="session")
def run() -> Callable[..., str]:
    """Return a function that runs a program, and returns what it prints; warnings are errors."""

    def start(*words: object, cwd: Path) -> str:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in {"LEDGER_URL", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "COLUMNS"}
        }
        done = programs.run(
            list(map(str, words)),
            cwd=cwd,
            capture_output=True,
            encoding="utf-8",
            env={**environment, "PYTHONWARNINGS": "error"},
            timeout=120,
            check=False,
        )
        assert ("", 0) == (done.stderr, done.returncode), done.stdout
        return done.stdout

    return start


@pytest.fixture(scope="session")
def scripts() -> Path:
    """Return the folder of the installed programs."""
    return Path(sys.executable).parent
