"""Disks of a fixed speed: a preloaded library that sleeps in place of fsync, on memory.

A ratio to the floor measures the disk as much as the library. A simulated disk takes the same time
whatever the machine and its neighbours do. It needs Linux and a C compiler. Nothing that is written
there would survive: it is for figures alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

REAL = "real"
SIMULATED = ("130us", "1ms")
"""A quick disk and a slow one, by the time that they take for an fsync."""

_ROOT = Path(__file__).parents[1]
_SOURCE = Path(__file__).with_name("nap.c")
_COMPILERS = ("cc", "gcc", "clang")
_MEMORY = "/dev/shm"  # noqa: S108 - what is made in it gets a name that no one can guess
_ENOUGH_BYTES = 2 << 30
_TOLD = "LEDGER_BENCH_FSYNC_US"
_UNITS = {"us": 1, "ms": 1_000}


def fsync_of(disk: str) -> int:
    """Return the microseconds that an fsync takes on a simulated disk, 0 for the real one.

    Raises:
        ValueError: It is neither `real` nor a time such as `130us` or `1ms`.
    """
    if disk == REAL:
        return 0
    found = re.fullmatch(r"([1-9]\d{0,5})(us|ms)", disk)
    if found is None:
        raise ValueError(f"{disk!r} is neither {REAL!r} nor a time such as 130us or 1ms")
    return int(found[1]) * _UNITS[found[2]]


def under_way() -> int:
    """Return the microseconds that an fsync takes on this process's disk, 0 on the real one."""
    return int(os.environ.get(_TOLD, "0"))


def missing() -> str | None:
    """Return why no disk can be simulated here, None if it can."""
    if sys.platform != "linux":
        return "a simulated disk needs Linux"
    if _compiler() is None:
        return f"a simulated disk needs a C compiler, and there is none ({', '.join(_COMPILERS)})"
    return None


@contextmanager
def simulated(fsync_us: int) -> Iterator[Mapping[str, str]]:
    """Lend the environment of a program whose fsync takes so many microseconds.

    Its temporary files are in memory, if the system has a file system for that.

    Raises:
        SystemExit: The compiler refuses the source.
    """
    roomy = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ENOUGH_BYTES
    memory = _MEMORY if roomy else None
    with tempfile.TemporaryDirectory(prefix="ledger-bench-", dir=memory) as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 - a server of another user loads it
        library = Path(folder) / "nap.so"
        compiled = subprocess.run(  # noqa: S603 - no shell reads the words
            [str(_compiler()), "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)],
            capture_output=True,
            text=True,
            check=False,
        )
        if compiled.returncode:
            raise SystemExit(f"{_SOURCE.name} does not compile: {compiled.stderr.strip()}")
        preloaded = [str(library), *os.environ.get("LD_PRELOAD", "").split()]
        yield {
            **os.environ,
            "LD_PRELOAD": " ".join(preloaded),
            _TOLD: str(fsync_us),
            "TMPDIR": memory or tempfile.gettempdir(),
            "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
        }


def run_on(fsync_us: int, words: Sequence[str]) -> None:
    """Run these benchmarks again on a simulated disk, in a process of its own.

    Raises:
        SystemExit: That process failed, with its exit code.
    """
    with simulated(fsync_us) as environment:
        code = subprocess.run(  # noqa: S603 - a module of this package
            [sys.executable, "-m", "benchmarks", *words], env=environment, check=False
        ).returncode
    if code:
        raise SystemExit(code)


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, _COMPILERS)), None)
