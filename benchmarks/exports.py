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
from typing import NamedTuple

from benchmarks import history
from ledger import Ledger, exports


class Found(NamedTuple):
    """The time and the memory that an export took."""

    rows: int
    cpu_s: float
    seconds: float
    peak_mib: float


def export(url: str, path: Path, kind: exports.Format) -> Found:
    """Export a pool in this process, which does nothing else, and return what it took."""
    began, began_s = time.process_time(), time.perf_counter()
    with Ledger.open(url, create=False) as book:
        done = exports.write(book, history.POOL, path, format=kind)
    took, took_s = time.process_time() - began, time.perf_counter() - began_s
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mib = most / (1024 * 1024 if sys.platform == "darwin" else 1024)
    return Found(rows=done.rows, cpu_s=took, seconds=took_s, peak_mib=peak_mib)


def main(words: Sequence[str] | None = None) -> None:
    """Fill a pool, export it, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--formats", nargs="+", default=list(exports.Format), type=exports.Format)
    parser.add_argument("--url", help="the store; one in a temporary folder without it")
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="ledger-exports-") as folder:
        url = given.url or f"sqlite:///{folder}/long.db"
        history.write(url, given.entries)
        print(f"{'format':8} {'rows':>10} {'CPU s':>8} {'seconds':>8} {'MiB written':>11} peak MiB")
        for kind in given.formats:
            # FOCUS is written as the file's ending says.
            ending = exports.Format.CSV if kind is exports.Format.FOCUS else kind
            path = Path(folder) / f"out.{ending}"
            # Not a fork: a forked process would begin with this one's memory.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                found = alone.submit(export, url, path, kind).result()
            written = path.stat().st_size / 2**20
            print(
                f"{kind:8} {found.rows:10,} {found.cpu_s:8.1f} {found.seconds:8.1f} "
                f"{written:11,.1f} "
                f"{found.peak_mib:8.0f}"
            )
            path.unlink()


if __name__ == "__main__":
    main()
