"""The distributions, built once, and an empty environment that has the wheel alone."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.programs import ROOT

PIP = (sys.executable, "-m", "pip", "--python")
"""Pip for the environment of the Python behind it."""


class Built(NamedTuple):
    """What `python -m build` makes: the source archive, and the wheel that is made from it."""

    sdist: Path
    wheel: Path


def call(*words: object, cwd: Path, code: int = 0) -> str:
    """Run a program outside of this environment and checkout, and return what it prints."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
    proxies = tuple(name for name in os.environ if name.lower().endswith("_proxy"))
    indexes = tuple(name for name in os.environ if name.startswith(("PIP_", "SSL_")))
    providers = tuple(name for name in os.environ if name.endswith(("_API_KEY", "_BASE_URL")))
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        env={
            name: os.environ[name]
            for name in (*kept, *proxies, *indexes, *providers)
            if name in os.environ
        },
        timeout=240,
        check=False,
    )
    assert code == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the source archive, and from it, not from the checkout, the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return Built(sdist, wheel)


@pytest.fixture(scope="session")
def environment(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty environment elsewhere, install the wheel, and return its programs' folder."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", with_pip=False)  # the pip that is here installs there, too
    programs = folder / "venv" / "bin"
    call(*PIP, programs / "python", "install", "-q", "--no-compile", built.wheel, cwd=folder)
    return programs


@pytest.fixture
def installed(environment: Path, tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs a program of that environment in an empty folder."""

    def run(program: str, *words: object, code: int = 0) -> str:
        return call(environment / program, *words, cwd=tmp_path, code=code)

    return run
