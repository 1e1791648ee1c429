"""What it takes to read a bill, to check and to run a trace, and to export what that wrote.

python -m benchmarks.files                        500,000 lines of a bill, 1.4 million of a trace
python -m benchmarks.files --lines 50000 --rows 100000 --calls 5000
python -m benchmarks.files --against HEAD~1       another commit beside this tree
python -m benchmarks.files --disk 1ms             on a simulated disk, in memory
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks import disks
from benchmarks.against import HERE
from benchmarks.trees import ROOT, Tree, checked_out

_MEASURED = """
import json, resource, sys, time
from decimal import Decimal
from pathlib import Path
{imports}
path, store = Path(sys.argv[1]), sys.argv[2]
began, began_s = time.process_time(), time.perf_counter()
{work}
took, took_s = time.process_time() - began, time.perf_counter() - began_s
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([took, took_s, most / (1 << 20 if sys.platform == "darwin" else 1 << 10)]))
"""
_BILL = _MEASURED.format(
    imports="from ledger.reconcile import READY, read_bill",
    work="read_bill(path, READY['generic'])",
)
# Traces had a reader of their own before they were read as bills are.
_READ_TRACE = """
from ledger import Ledger, SharedPoolBudgetOptions, exports
from ledger.simulate import Backtest, Prices, RunRule, run
given = {"runs": RunRule(every_s=600), "prices": Prices(input_usd=Decimal(3)), "workers": 4}
try:
    from ledger.simulate import Trace
except ImportError:
    from ledger.reconcile import READY, read_bill
    def check(path):
        return Backtest(trace=read_bill(path, READY["trace"], attributed=True), **given)
else:
    def check(path):
        made = Backtest(trace=Trace(path), **given)
        made.check()
        return made
"""
_TRACE = _MEASURED.format(imports=_READ_TRACE, work="check(path)")
_RUN = _MEASURED.format(
    imports=_READ_TRACE
    + """
made = check(Path(sys.argv[1]))
book = Ledger.open(sys.argv[2], record_denials=True)
""",
    work="run(book, 'trace', SharedPoolBudgetOptions(), made, resume=RESUME)",
)
_EXPORT = _MEASURED.format(
    imports="""
from ledger import Ledger, exports
book = Ledger.open(sys.argv[2])
""",
    work="exports.write(book, 'trace', path.with_suffix(ENDING), format=exports.Format(KIND))",
)
_FORMATS = {"csv": ".out.csv", "jsonl": ".jsonl", "focus": ".focus.csv", "parquet": ".parquet"}


class Found(NamedTuple):
    """What a program took."""

    cpu_s: float
    seconds: float
    peak_mib: float


def measured(tree: Tree, program: str, path: Path, environment: Mapping[str, str]) -> Found:
    """Let a library do something with a file in a process of its own, which does nothing else."""
    store = f"sqlite:///{path.with_suffix(f'.{tree.name.split()[0]}.db')}"
    done = subprocess.run(  # noqa: S603 - one of the programs above
        [sys.executable, "-c", program, str(path), store],
        cwd=tree.folder,
        env={**environment, "PYTHONPATH": str(tree.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{tree.name} cannot read {path.name}: {done.stderr}")
    return Found(*json.loads(done.stdout))


def bill(lines: int) -> Iterator[str]:
    """Yield the lines of a bill."""
    yield "request_id,at,model,input_tokens,output_tokens,cost_usd\n"
    for number in range(lines):
        day, second = number % 28 + 1, number % 60
        yield (
            f"req_{number:012},2024-02-{day:02}T10:00:{second:02}Z,gpt-5,"
            f"{number % 9_000},{number % 700},0.{number % 10**6:06}\n"
        )


def trace(rows: int) -> Iterator[str]:
    """Yield the lines of a trace, as those of Azure are."""
    yield "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    for number in range(rows):
        minute, second = number // 60 % 60, number % 60
        at = f"2023-11-16 {number // 3_600 % 24:02}:{minute:02}:{second:02}.{number % 10**6:06}"
        yield f"{at},{number % 9_000},{number % 700}\n"


def main(words: Sequence[str] | None = None) -> None:
    """Write the files, read them, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lines", type=int, default=500_000, help="of the bill")
    parser.add_argument("--rows", type=int, default=1_400_000, help="of the trace")
    parser.add_argument("--calls", type=int, default=20_000, help="of a trace that is run")
    parser.add_argument("--against", help="a commit to measure beside this tree")
    parser.add_argument("--disk", default=disks.REAL, help="real, or a time such as 130us or 1ms")
    given = parser.parse_args(words)
    fsync_us = disks.fsync_of(given.disk)
    with ExitStack() as stack:
        environment: Mapping[str, str] = os.environ
        if fsync_us:
            environment = stack.enter_context(disks.simulated(fsync_us))
        memory = environment["TMPDIR"] if fsync_us else None
        made = tempfile.TemporaryDirectory(prefix="ledger-files-", dir=memory)
        folder = Path(stack.enter_context(made))
        trees = [Tree(name=HERE, folder=ROOT)]
        if given.against:
            trees.append(stack.enter_context(checked_out(given.against)))
        print(f"{'what':30} {'library':>12} {'CPU s':>8} {'seconds':>8} {'peak MiB':>9}")
        run, again = (_RUN.replace("RESUME", str(resume)) for resume in (False, True))
        calls = f"{given.calls:,} calls"
        for file, content, programs in (
            ("bill.csv", bill(given.lines), {f"read {given.lines:,} lines": _BILL}),
            ("trace.csv", trace(given.rows), {f"check {given.rows:,} rows": _TRACE}),
            (
                "run.csv",
                trace(given.calls),
                {
                    f"run {calls}, 4 workers": run,
                    f"resume {calls}": again,
                    **{f"export {calls}, {kind}": _exporting(kind) for kind in _FORMATS},
                },
            ),
        ):
            path = folder / file
            with path.open("w", encoding="utf-8") as out:
                out.writelines(content)
            for what, program in programs.items():
                for tree in trees:
                    found = measured(tree, program, path, environment)
                    print(
                        f"{what:30} {tree.name:>12} {found.cpu_s:8.1f} {found.seconds:8.1f} "
                        f"{found.peak_mib:9.0f}",
                        flush=True,
                    )


def _exporting(kind: str) -> str:
    return _EXPORT.replace("ENDING", repr(_FORMATS[kind])).replace("KIND", repr(kind))


if __name__ == "__main__":
    main()
