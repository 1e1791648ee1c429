"""A process that does one task: it gets ready, waits for the signal to start, and reports.

    python -m benchmarks.worker benchmarks.processes:share

reads the task's parameters as one line of JSON, prints `ready`, waits for another line, and prints
the report as one line of JSON.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

Report = Mapping[str, Any]
Task = Callable[[Mapping[str, Any], Callable[[], None]], Report]
"""A task: takes its parameters, and a function that it calls to wait for the start."""

_ROOT = Path(__file__).parents[1]


def run_together(task: str, parameters: Sequence[Mapping[str, Any]]) -> list[Report]:
    """Do a task in as many processes as there are parameters; they start when all are ready.

    Args:
        task: `module:function`.
        parameters: The parameters of the task, for each process.

    Raises:
        RuntimeError: A process ended without a report; the reason is on its standard error.
    """
    running = [
        subprocess.Popen(  # noqa: S603 - this module
            [sys.executable, "-m", __name__, task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )
        for _ in parameters
    ]
    try:
        for process, told in zip(running, parameters, strict=True):
            tell(process, json.dumps(told))
        for process in running:
            hear(process)
        for process in running:
            tell(process, "go")
        return [json.loads(hear(process)) for process in running]
    finally:
        for process in running:
            process.communicate()


def run_alone(task: str, **parameters: Any) -> Report:  # noqa: ANN401 - anything that JSON can say
    """Do a task in one process, and return its report."""
    (report,) = run_together(task, [parameters])
    return report


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Send a line to a process."""
    stream = _stream(process.stdin)
    stream.write(f"{line}\n")
    stream.flush()


def hear(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process prints.

    Raises:
        RuntimeError: It has ended; the reason is on its standard error.
    """
    line = _stream(process.stdout).readline()
    if not line:
        raise RuntimeError(f"the process ended with {process.wait()}, without a report")
    return line


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None  # noqa: S101 - both are pipes
    return stream


def _ready() -> None:
    print("ready", flush=True)
    if not sys.stdin.readline():
        raise SystemExit("another process failed; nobody waits for a report")


def main() -> None:
    """Do the task that the command line names."""
    module, _, name = sys.argv[1].partition(":")
    task: Task = getattr(importlib.import_module(module), name)
    report = task(json.loads(sys.stdin.readline()), _ready)
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
