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
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks import (
    against,
    callers,
    growth,
    idle,
    indexes,
    memory,
    peers,
    processes,
    report,
    reports,
    sweep,
    trees,
)
from benchmarks.bench import Bench, Scale
from benchmarks.floor import NAME as FLOOR
from benchmarks.floor import floor, require_a_disk
from benchmarks.measure import Figure, Workload, measure
from benchmarks.peers.plain_sql import read_script
from benchmarks.stores import STORES, opened, require_durable, server_version
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
    "reports": Section(
        f"Reports of a long pool, against SQL by hand ({TO_BASE})", reports.workloads
    ),
    "indexes": Section(f"Indexes that only reports need ({TO_BASE})", indexes.workloads),
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
            figures += measure(name, bench.store, section.workloads(bench), rounds)
    _tell(f"{bench.store}: verifying the books")
    with Ledger.open(bench.url) as book:
        damaged = [found for found in book.verify() if not found.ok]
    if damaged:
        raise SystemExit(f"the benchmark damaged the books: {damaged}")
    return figures


def main(words: Sequence[str] | None = None) -> int:
    """Parse, measure, print; write JSON and pictures where asked."""
    chosen = _parsed(words)
    sql = dict(chosen.sql)
    for path in sql.values():
        read_script(path)  # a mistake in it shows now, and not in half an hour
    scale = replace(Scale(), rounds=chosen.rounds)
    stores = list(dict.fromkeys(chosen.store or STORES))
    if chosen.against:
        return _compare(chosen, stores, scale)
    if chosen.long or chosen.longest:
        scale = scale.longer(LONGEST if chosen.longest else LONG)
    facts = report.machine(scale.rounds)
    figures: list[Figure] = []
    notes: list[str] = []
    for store in stores:
        with opened(store) as url, floor(url, scale.floor_operations) as bare:
            require_durable(url)
            warm = bare.run()
            require_a_disk(warm)
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
            figures += run_store(bench, dict.fromkeys(chosen.only or SECTIONS))
            if store == "postgresql":
                facts["postgresql"] = server_version(url)
    # The floor that most figures are held to, where one of the sections has it.
    facts["floor_per_second"] |= {
        figure.store: figure.rate for figure in reversed(figures) if figure.workload == FLOOR
    }
    print(report.table(figures, {name: section.title for name, section in SECTIONS.items()}))
    print("", *notes, report.described(facts), sep="\n")
    result = {
        "machine": facts,
        "notes": notes,
        "figures": [figure.as_json() for figure in figures],
    }
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _compare(chosen: argparse.Namespace, stores: Sequence[str], scale: Scale) -> int:
    """Compare this tree with another commit."""
    sections = list(dict.fromkeys(chosen.only or against.SECTIONS))
    left = [name for name in sections if name not in against.SECTIONS]
    if left:
        raise SystemExit(
            f"--against compares {', '.join(against.SECTIONS)}, and not {', '.join(left)}"
        )
    facts = report.machine(scale.rounds)
    found: list[against.Compared] = []
    with trees.checked_out(chosen.against) as other:
        for store in stores:
            with opened(store) as url:
                require_durable(url)
                figures, facts["floor_per_second"][store] = against.compare(
                    store, url, other, against.less(scale), sections, _tell
                )
            found += figures
    print(against.table(found, other), "", report.described(facts), sep="\n")
    if chosen.json:
        result = {
            "machine": facts,
            "against": other.name,
            "figures": [one.as_json() for one in found],
        }
        chosen.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _parsed(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--long", action="store_true", help="up to a million entries")
    parser.add_argument("--longest", action="store_true", help="up to ten million entries")
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


def _named(text: str) -> tuple[str, Path]:
    name, found, path = text.partition("=")
    if not (name and found and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, Path(path)


def _tell(text: str) -> None:
    print(f"{text} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
