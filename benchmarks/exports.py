"""How long an export of a long pool takes, and how much memory: each in a process of its own.

python -m benchmarks.exports                        a million entries in every format
python -m benchmarks.exports --entries 100000 --formats csv parquet
python -m benchmarks.exports --url sqlite:///long.db   keep the pool for the next time
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, insert, null, select

from benchmarks.growth import fill
from benchmarks.work import TIMEOUT_S
from ledger import Ledger, exports, schema
from ledger.database import Database

POOL = "long"
ORIGINALS = 10_001


class Found(NamedTuple):
    """What an export took."""

    rows: int
    seconds: float
    peak_mib: float


def export(url: str, path: Path, kind: exports.Format) -> Found:
    """Export a pool in this process, which does nothing else."""
    began = time.perf_counter()
    with Ledger.open(url, create=False) as book:
        done = exports.write(book, POOL, path, format=kind)
    took = time.perf_counter() - began
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mib = most / (1024 * 1024 if sys.platform == "darwin" else 1024)
    return Found(rows=done.rows, seconds=took, peak_mib=peak_mib)


def lengthen(url: str, size: int) -> None:
    """Make a pool of so many entries: some real ones, and those copied again and again.

    The copies have the hashes of their originals. Nobody is to verify them; to write a million
    real ones takes longer than all that is measured here.
    """
    e = schema.entries
    with Ledger.open(url, timeout_s=TIMEOUT_S) as book:
        found: int = fill(book, POOL, min(size, ORIGINALS)).status().seq
    database = Database(url, timeout_s=TIMEOUT_S, create=False)
    with database.engine.begin() as connection:
        while found < size:
            # The opening is not copied, and no number is left out for it.
            changed: dict[str, ColumnElement[Any]] = {
                "seq": e.c.seq + (found - 1),
                "lease": e.c.lease + (found - 1),
                "idempotency_key": null(),
            }
            copies = select(*(changed.get(column.name, column) for column in e.columns)).where(
                e.c.seq > 1, e.c.seq <= size - found + 1
            )
            connection.execute(insert(e).from_select(e.columns.keys(), copies))
            found = min(size, 2 * found - 1)
    database.close()


def main(words: Sequence[str] | None = None) -> None:
    """Fill a pool, export it, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--formats", nargs="+", default=list(exports.Format), type=exports.Format)
    parser.add_argument("--url", help="the store; one in a temporary folder without it")
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="ledger-exports-") as folder:
        url = given.url or f"sqlite:///{folder}/long.db"
        lengthen(url, given.entries)
        print(
            f"{'format':8} {'rows':>10} {'seconds':>8} {'rows/s':>8} {'MiB written':>11} peak MiB"
        )
        for kind in given.formats:
            path = Path(folder) / f"out.{kind}"
            # A process that was forked would begin with this one's memory.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                found = alone.submit(export, url, path, kind).result()
            written = path.stat().st_size / 2**20
            rate = found.rows / found.seconds
            print(
                f"{kind:8} {found.rows:10,} {found.seconds:8.1f} {rate:8,.0f} {written:11,.1f} "
                f"{found.peak_mib:8.0f}"
            )
            path.unlink()


if __name__ == "__main__":
    main()
