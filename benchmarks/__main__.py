"""Run every benchmark on SQLite and PostgreSQL, interleaved with the floor of the same run.

    python -m benchmarks            a few minutes
    python -m benchmarks --long     pools of a million entries as well

Only ratios inside one run mean anything: the machine's speed changes from one minute to the next.
"""

from __future__ import annotations

import argparse
import json
import platform
import sqlite3
import sys
from pathlib import Path

from benchmarks import growth, writes
from benchmarks.measure import Figure, table
from benchmarks.stores import STORES, opened


def main() -> int:
    """Parse, measure, print; write JSON where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--long", action="store_true", help="pools of a million entries as well")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each workload")
    parser.add_argument("--store", choices=STORES, action="append", help="only this database")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    figures: list[Figure] = []
    for store in chosen.store or STORES:
        with opened(store) as url:
            figures += writes.measure(store, url, rounds=chosen.rounds)
            sizes = (1_000, 1_000_000) if chosen.long else (1_000, 50_000)
            figures += growth.measure(store, url, sizes=sizes, rounds=chosen.rounds)
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    print(table(figures))
    if chosen.json:
        chosen.json.write_text(json.dumps([figure.as_json() for figure in figures], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
