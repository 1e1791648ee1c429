"""The section on starting: what it takes to import the library, and to explain the command line."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from functools import partial

from benchmarks.bench import Bench
from benchmarks.measure import Round, Workload

BARE = "python, nothing imported"

_COMMAND = "import sys; sys.argv = ['ledger', {!r}]; from ledger.cli import main; main()"

PROGRAMS = {
    BARE: "pass",
    "import ledger": "import ledger",
    "the budget in memory": "from ledger import SharedPoolBudgetManager",
    "a store": "from ledger import Ledger",
    "ledger --version": _COMMAND.format("--version"),
    "ledger --help": _COMMAND.format("--help"),
}
"""What is started, by name."""


def started(program: str, times: int) -> Round:
    """Start a program again and again; the processor time is the least of them, times their number.

    So what other programs of the machine add to some of them is not in it.
    """
    latencies, least_s, switches = [], float("inf"), 0
    for _ in range(times):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(  # noqa: S603 - one of the programs above
            [sys.executable, "-c", PROGRAMS[program]], stdout=subprocess.DEVNULL, check=True
        )
        latencies.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        least_s = min(least_s, cpu_s)
        switches += after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw
    return Round(
        operations=times,
        seconds=sum(latencies),
        latencies_s=latencies,
        cpu_s=least_s * times,
        switches=switches,
    )


def workloads(bench: Bench) -> list[Workload]:
    """Return each program, compared with an interpreter that imports nothing."""
    times = bench.scale.starts
    base, *others = (
        Workload(name=name, run=partial(started, name, times), compare="latency")
        for name in PROGRAMS
    )
    return [Workload(name=one.name, run=one.run, base=base, compare="latency") for one in others]
