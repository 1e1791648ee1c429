"""Instructions an operation, as valgrind's callgrind counts them: whatever else the machine does.

A side (`benchmarks.side`) runs under callgrind, which counts between the two system calls of a
`Meter`. A figure repeats to about one in a hundred for one caller; threads share batches
differently in every run.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import Round
from benchmarks.trees import Process, Tree

FIGURE = "instructions, 1,000s"

_DUMP = "counted"
_SUMMARY = re.compile(r"(?m)^summary: (\d+)$")
_PAIRS_EACH = 2
_AT_LEAST = 16
_CALLERS_AT_MOST = 64
"""More callers would take minutes under valgrind, and their batches are hardly larger."""


def missing() -> str | None:
    """Return why no instructions can be counted here, None if they can."""
    if shutil.which("valgrind") is None:
        return "instructions are not counted: valgrind is not installed"
    return None


def valgrind(folder: Path) -> list[str]:
    """Return the words before a program that runs it under callgrind, which counts into a folder.

    What is counted begins with a call of `getppid` and ends with one of `getpgrp`, as in `Meter`.
    """
    return [
        "valgrind",
        "--quiet",
        "--tool=callgrind",
        "--fair-sched=try",  # else one thread may keep all others waiting
        f"--callgrind-out-file={folder / _DUMP}",
        "--zero-before=getppid",
        "--dump-before=getpgrp",
    ]


def last_count(folder: Path) -> int:
    """Return what callgrind has counted last into a folder.

    Raises:
        SystemExit: It has counted nothing.
    """
    dumps = sorted(folder.glob(f"{_DUMP}.*"), key=lambda path: int(path.suffix.removeprefix(".")))
    found = _SUMMARY.search(dumps[-1].read_text(encoding="utf-8")) if dumps else None
    if found is None:
        raise SystemExit("callgrind has counted nothing: has this version other options?")
    return int(found[1])


def countable(told: Mapping[str, Any]) -> bool:
    """Return whether a slice of work with these parameters is one that is counted."""
    return "calls" in told or 0 < told.get("count", 0) <= _CALLERS_AT_MOST


class Counter:
    """A library on a store, under callgrind."""

    def __init__(self, process: Process, folder: Path) -> None:
        self._process = process
        self._folder = folder

    def count(self, order: str, **told: Any) -> float:  # noqa: ANN401 - anything that JSON can say
        """Return the instructions of an operation of a slice of work.

        Raises:
            SystemExit: Callgrind has counted nothing.
        """
        self._process.slice(order, **_little(told))  # the first time includes what is done once
        done: Round = self._process.slice(order, **_little(told))
        return last_count(self._folder) / done.operations


@contextmanager
def counter(tree: Tree, url: str) -> Iterator[Counter]:
    """Lend a counter of a library on a store."""
    with tempfile.TemporaryDirectory(prefix="ledger-bench-") as name:
        folder = Path(name)
        with Process(tree, url, under=valgrind(folder)) as process:
            yield Counter(process, folder)


def _little(told: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a slice with as little work as counts: valgrind is slow."""
    if "pairs" in told:
        return told | {"pairs": max(_AT_LEAST, _PAIRS_EACH * told["count"])}
    return told | {"calls": _AT_LEAST}
