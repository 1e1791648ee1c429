"""The report of a run: the facts of the machine, a table for people, JSON for programs."""

from __future__ import annotations

import datetime as dt
import os
import platform
import sqlite3
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from benchmarks.disks import under_way
from benchmarks.measure import Figure
from benchmarks.stores import NAMES

_FSYNCS = 200
_SIMULATED = " (simulated)"
_HEADER = (
    *("store", "workload", "per second", "ratio", "min", "max"),
    *("p50 us", "p99 us", "CPU us", "switches", "1,000 instr"),
)


def machine(rounds: int) -> dict[str, Any]:
    """Return the facts that the figures depend on and that are known before the run."""
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "ledger": version("budget-ledger"),
        "python": platform.python_version(),
        "build": interpreter_build(),
        "sqlite": sqlite3.sqlite_version,
        "sqlalchemy": version("sqlalchemy"),
        "psycopg": version("psycopg"),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "fsync_us": round(fsync_us(), 1),
        "simulated_fsync_us": under_way(),
        "rounds": rounds,
        "postgresql": None,
        "floor_per_second": {},
    }


def interpreter_build() -> str:
    """Return how the interpreter was compiled: profile-guided (PGO), link-time optimized (LTO)."""
    told = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    found = [
        name
        for name, option in (("PGO", "--enable-optimizations"), ("LTO", "--with-lto"))
        if option in told
    ]
    return f"built with {' and '.join(found)}" if found else "built without PGO and LTO"


def fsync_us() -> float:
    """Return the median time of writing a page at a file's end and syncing it, in microseconds."""
    seen = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(_FSYNCS):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            seen.append(time.perf_counter() - began)
    return statistics.median(seen) * 1e6


def described(facts: Mapping[str, Any]) -> str:
    """Return the facts in a line or two, which stand under every table and picture of the run."""
    floors = ", ".join(f"{rate:,.0f}/s ({NAMES[store]})" for store, rate in _floors(facts).items())
    simulated = facts.get("simulated_fsync_us")
    server = f", PostgreSQL {facts['postgresql']}" if facts["postgresql"] else ""
    return (
        f"budget-ledger {facts['ledger']} on {facts['date']}, {facts['rounds']} rounds; "
        f"{facts['cores']} cores, {facts['system']}, Python {facts['python']} ({facts['build']}), "
        f"SQLite {facts['sqlite']}{server};\n"
        f"floor {floors}; fsync {facts['fsync_us']:,.0f} us{_SIMULATED if simulated else ''}"
    )


def _floors(facts: Mapping[str, Any]) -> Mapping[str, float]:
    floors: Mapping[str, float] = facts["floor_per_second"]
    return floors


def table(figures: Sequence[Figure], titles: Mapping[str, str]) -> str:
    """Return figures as one table a section, under its title."""
    parts = []
    for section in dict.fromkeys(one.section for one in figures):
        chosen = [one for one in figures if one.section == section]
        parts.append(f"{titles[section]}\n{_rows(chosen)}")
    return "\n\n".join(parts)


def _rows(figures: Sequence[Figure]) -> str:
    also = list(dict.fromkeys(name for one in figures for name in one.also))
    header = [*_HEADER, *also]
    return aligned([header, *(_cells(one, also) for one in figures)], left=2)


def aligned(cells: Sequence[Sequence[str]], *, left: int) -> str:
    """Return rows as lines, the first columns aligned to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def _cells(one: Figure, also: Sequence[str]) -> list[str]:
    return [
        one.store,
        one.workload,
        f"{one.rate:,.0f}",
        f"{one.ratio:.2f}",
        f"{one.ratio_min:.2f}",
        f"{one.ratio_max:.2f}",
        count(one.p50_us),
        count(one.p99_us),
        count(one.cpu_us),
        "" if one.switches is None else f"{one.switches:.2f}",
        count(one.instructions),
        *(f"{one.also[name]:.2f}" if name in one.also else "" for name in also),
    ]


def count(value: float | None) -> str:
    """Return a figure with two digits at least, nothing for one that was not measured."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"  # noqa: PLR2004 - two digits at least
