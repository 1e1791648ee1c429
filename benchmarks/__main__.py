"""Run every benchmark on SQLite and PostgreSQL, interleaved with the floor of the same run.

    python -m benchmarks                             some minutes
    python -m benchmarks --long                      pools and processes of a million entries
    python -m benchmarks --only processes --rounds 2
    python -m benchmarks --against HEAD~1            ratios to another commit, both measured now
    python -m benchmarks --sql counter=benchmarks/peers/counter.sql --json figures.json

Only ratios inside one run mean anything: the machine's speed changes from one minute to the next.
docs/performance.md says what each section measures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import (
    against,
    callers,
    clients,
    disks,
    growth,
    idle,
    indexes,
    instructions,
    memory,
    peers,
    pools,
    processes,
    report,
    reports,
    start,
    sweep,
    trees,
)
from benchmarks.bench import Bench, Scale
from benchmarks.floor import NAME as FLOOR
from benchmarks.floor import floor, require_a_disk
from benchmarks.measure import Figure, Workload, measure
from benchmarks.peers.plain_sql import read_script
from benchmarks.stores import STORES, named_server, opened, require_durable, server_version
from ledger import Ledger

LONG = (1_000, 10_000, 100_000, 1_000_000)
LONGEST = (*LONG, 10_000_000)

TO_FLOOR = "ratio: rate to the floor's, higher is better"
TO_BASE = "ratio: median latency to the first row's of its kind, lower is better"


class Section(NamedTuple):
    """A part of the run."""

    title: str
    workloads: Callable[[Bench], Sequence[Workload]]
    once: bool = False
    """Whether one round is enough, whatever was asked for."""


SECTIONS = {
    "callers": Section(f"Callers on one pool ({TO_FLOOR})", callers.workloads),
    "idle": Section(f"A caller alone ({TO_BASE})", idle.workloads),
    "processes": Section(f"Processes ({TO_FLOOR})", processes.workloads),
    "memory": Section(f"Memory ({TO_FLOOR})", memory.workloads, once=True),
    "growth": Section(f"Length of the history ({TO_BASE})", growth.workloads),
    "sweep": Section(f"A sweep with nothing due ({TO_BASE})", sweep.workloads),
    "pools": Section(f"A look at many pools ({TO_BASE})", pools.workloads),
    "reports": Section(
        f"Reports of a long pool, against SQL by hand ({TO_BASE})", reports.workloads
    ),
    "indexes": Section(f"Indexes that only reports need ({TO_BASE})", indexes.workloads),
    "start": Section(f"Starting ({TO_BASE})", start.workloads),
    "clients": Section(f"Around a client ({TO_BASE})", clients.workloads),
    "peers": Section(f"Peers, one caller ({TO_FLOOR})", peers.workloads),
}


def run_store(bench: Bench, names: Iterable[str]) -> list[Figure]:
    """Measure sections on one store, and check its books afterwards.

    Raises:
        SystemExit: The books are damaged.
    """
    figures: list[Figure] = []
    for name in names:
        section = SECTIONS[name]
        _tell(f"{bench.store}: {name}")
        with bench.stack:  # closes what the section opens
            rounds = 1 if section.once else bench.scale.rounds
            found = measure(name, bench.store, section.workloads(bench), rounds)
        if name == "callers" and bench.scale.count_instructions:
            _tell(f"{bench.store}: counting instructions")
            found = callers.with_instructions(bench, found)
        figures += found
    _tell(f"{bench.store}: verifying the books")
    with Ledger.open(bench.url) as book:
        damaged = [found for found in book.verify() if not found.ok]
    if damaged:
        raise SystemExit(f"the benchmark damaged the books: {damaged}")
    return figures


def main(words: Sequence[str] | None = None) -> int:
    """Parse, measure, print; write JSON where asked."""
    words = list(sys.argv[1:] if words is None else words)
    chosen = _parsed(words)
    for _, path in chosen.sql:
        read_script(path)  # a mistake in it shows now, and not in half an hour
    notes: list[str] = []
    results: dict[str, Any] = {}
    for disk in _disks(chosen, notes):
        fsync_us = disks.fsync_of(disk)
        if fsync_us == disks.under_way():
            results[disk] = _here(chosen, notes)
        else:
            _tell(f"on a simulated disk: {disk}")
            with tempfile.TemporaryDirectory(prefix="ledger-bench-") as folder:
                file = Path(folder) / "figures.json"
                disks.run_on(fsync_us, [*words, "--json", str(file)])
                results[disk] = json.loads(file.read_text(encoding="utf-8"))
    if chosen.json:
        first, *others = results.values()
        result = first | {"on_other_disks": others}
        chosen.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _disks(chosen: argparse.Namespace, notes: list[str]) -> list[str]:
    """Return the disks to measure on; note why there are fewer than were meant."""
    if disks.under_way():
        return [f"{disks.under_way()}us"]
    asked: list[str] | None = chosen.disk
    lacking = disks.missing()
    if asked is not None:
        if lacking and asked != [disks.REAL]:
            raise SystemExit(f"--disk: {lacking}")
        return list(dict.fromkeys(asked))
    if "callers" not in (chosen.only or SECTIONS):
        return [disks.REAL]
    if lacking:
        notes.append(f"not measured on a simulated disk: {lacking}")
        return [disks.REAL]
    return [disks.REAL, *disks.SIMULATED]


def _here(chosen: argparse.Namespace, notes: list[str]) -> dict[str, Any]:
    """Measure on the disk that this process writes to, print the figures and return them."""
    sections = list(
        dict.fromkeys(chosen.only or (against.SECTIONS if chosen.against else SECTIONS))
    )
    stores = list(dict.fromkeys(chosen.store or STORES))
    if disks.under_way():
        if chosen.disk is None:
            sections = ["callers"]  # of all others the disk is no larger part
        if named_server() and "postgresql" in stores:
            stores.remove("postgresql")
            notes.append("postgresql: not measured, as the server that is named has its own disk")
    lacking = instructions.missing()
    if lacking and "callers" in sections:
        notes.append(lacking)
    first = disks.fsync_of((chosen.disk or [disks.REAL])[0])
    scale = replace(
        Scale(),
        rounds=chosen.rounds,
        # Once is enough: they are the same on every disk.
        count_instructions=not (lacking or chosen.no_instructions) and disks.under_way() == first,
    )
    if chosen.long or chosen.longest:
        scale = scale.longer(LONGEST if chosen.longest else LONG)
    facts = report.machine(scale.rounds)
    figures: Sequence[Figure | against.Compared]
    if chosen.against:
        shown, figures = _compared(chosen.against, stores, sections, scale, facts)
    else:
        shown, figures = _measured(dict(chosen.sql), stores, sections, scale, facts, notes)
    print(shown, "", *notes, report.described(facts), "", sep="\n")
    return {
        "machine": facts,
        "against": chosen.against,
        "notes": list(notes),
        "figures": [one.as_json() for one in figures],
    }


def _measured(
    sql: Mapping[str, Path],
    stores: Sequence[str],
    sections: Sequence[str],
    scale: Scale,
    facts: dict[str, Any],
    notes: list[str],
) -> tuple[str, Sequence[Figure]]:
    """Measure this tree; return the tables and the figures."""
    figures: list[Figure] = []
    for store in stores:
        with opened(store) as url, floor(url, scale.floor_operations) as bare:
            require_durable(url)
            warm = bare.run()
            require_a_disk(warm, disks.under_way())
            facts["floor_per_second"][store] = warm.rate
            bench = Bench(
                store=store,
                url=url,
                scale=scale,
                floor=bare,
                stack=ExitStack(),
                sql=sql,
                notes=notes,
            )
            figures += run_store(bench, sections)
            if store == "postgresql":
                facts["postgresql"] = server_version(url)
    # The floor that most figures are held to, where one of the sections has it.
    facts["floor_per_second"] |= {
        figure.store: figure.rate for figure in reversed(figures) if figure.workload == FLOOR
    }
    titles = {name: section.title for name, section in SECTIONS.items()}
    return report.table(figures, titles), figures


def _compared(
    ref: str, stores: Sequence[str], sections: Sequence[str], scale: Scale, facts: dict[str, Any]
) -> tuple[str, Sequence[against.Compared]]:
    """Compare this tree with another commit; return the table and the figures."""
    left = [name for name in sections if name not in against.SECTIONS]
    if left:
        raise SystemExit(
            f"--against compares {', '.join(against.SECTIONS)}, and not {', '.join(left)}"
        )
    found: list[against.Compared] = []
    with trees.checked_out(ref) as other:
        for store in stores:
            with opened(store) as url:
                require_durable(url)
                figures, facts["floor_per_second"][store] = against.compare(
                    store, url, other, against.less(scale), sections, _tell
                )
                if store == "postgresql":
                    facts["postgresql"] = server_version(url)
            found += figures
    return against.table(found, other), found


def _parsed(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--long", action="store_true", help="up to a million entries")
    parser.add_argument("--longest", action="store_true", help="up to ten million entries")
    parser.add_argument(
        "--disk",
        type=_disk,
        action="append",
        help=f"real, or the time of a simulated fsync such as {' or '.join(disks.SIMULATED)}; "
        f"without it all sections on the real disk, and callers also on those two",
    )
    parser.add_argument(
        "--no-instructions", action="store_true", help="count none, which takes minutes"
    )
    parser.add_argument("--rounds", type=_rounds, default=Scale().rounds, help="of each workload")
    parser.add_argument("--store", choices=STORES, action="append", help="only this database")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="only this section")
    parser.add_argument(
        "--against", metavar="REF", help="compare this tree with another commit of its repository"
    )
    parser.add_argument(
        "--sql",
        type=_named,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="plain SQL to measure beside the peers; benchmarks/peers/plain_sql.py says how",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args(words)


def _rounds(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _disk(text: str) -> str:
    try:
        disks.fsync_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _named(text: str) -> tuple[str, Path]:
    name, found, path = text.partition("=")
    if not (name and found and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, Path(path)


def _tell(text: str) -> None:
    print(f"{text} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
