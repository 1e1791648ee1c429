"""Bills and traces of any shape are read or refused in bounded time and memory."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.files.lines import Lines
from ledger.reconcile import READY, Repeats, read_bill
from tests import programs

PROGRAM = """
import resource, sys, time
from pathlib import Path
from ledger import LedgerError
from ledger.reconcile import READY, read_bill
from ledger.files.ready import READY
began = time.process_time()
path = Path(sys.argv[2])
try:
    if sys.argv[1] == "bill":
        print("read", len(read_bill(path, READY["generic"]).lines))
    else:
        print("read", len(read_bill(path, READY["trace"]).lines))
except LedgerError as error:
    print("refused", str(error).replace(str(path), "FILE"))
print(int(time.process_time() - began))
status = Path("/proc/self/status")
if status.exists():  # of this program alone: getrusage's figure is inherited by a fork
    print(int(status.read_text().split("VmHWM:")[1].split()[0]) // 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
MOST = 17_000_000
LINE = "longer than 1,048,576"
SHAPES = {
    "200,000 columns": (
        lambda: "\n".join(
            [",".join(f"c{n}" for n in range(200_000)), ",".join(["1"] * 200_000), ""]
        ),
        "",
    ),
    "200,000 short columns": (lambda: "a," * 200_000 + "\n", "columns; at most 1,000 are read"),
    "17 MB of columns": (lambda: "a," * (MOST // 2) + "\n", LINE),
    "17 MB of cells": (lambda: "time,x\n" + "1," * (MOST // 2) + "\n", ""),
    "17 MB in one cell": (lambda: "time,x\n" + "x" * MOST + ",4\n", ""),
    "17 MB without a line end": (lambda: "x" * MOST, LINE),
    "4 MB of empty objects": (lambda: "[" + "{}," * (MOST // 12) + "{}]", "finds too little"),
    "4 MB of empty lists": (lambda: "[" + "[]," * (MOST // 12) + "[]]", "there are no objects"),
    "17 MB of keys": (
        lambda: "{" + ",".join(f'"k{n}":1' for n in range(MOST // 12)) + "}",
        "1,048,576 characters outside of a list of rows",
    ),
    "17 MB of keys behind rows": (
        lambda: '{"data":[],' + ",".join(f'"k{n}":1' for n in range(MOST // 12)) + "}",
        "1,048,576 characters outside of a list of rows",
    ),
    "a megabyte of empty objects": (lambda: "[" + "{}," * 340_000 + "{}]", "request_id"),
    "a megabyte of empty lists": (lambda: "[" + "[]," * 340_000 + "[]]", "there are no objects"),
}
LONG = {"4 MB of empty objects", "4 MB of empty lists"}


@pytest.mark.parametrize("what", ["bill", "trace"])
@pytest.mark.parametrize(
    "shape",
    [pytest.param(name, marks=[pytest.mark.long] if name in LONG else []) for name in SHAPES],
)
def test_a_file_of_any_shape(what: str, shape: str, tmp_path: Path) -> None:
    """At most 60 seconds of the processor and 200 MB, and one line that says what is wrong."""
    make, reason = SHAPES[shape]
    path = tmp_path / "file"
    path.write_text(make(), encoding="utf-8")
    done = programs.run(
        [sys.executable, "-c", PROGRAM, what, path],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    said, seconds, megabytes = done.stdout.splitlines()
    assert said.startswith("refused FILE") or said == reason
    assert what == "trace" or reason in said
    assert 400 > len(said)
    assert 60 >= int(seconds)
    assert 200 >= int(megabytes)


@pytest.mark.parametrize("repeats", [Repeats.LAST, Repeats.ADD])
def test_repeated_requests_in_any_order_are_read_part_by_part(
    repeats: Repeats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log whose requests are said again far from their first line: no part is read for each."""
    path, requests = tmp_path / "log.csv", 4_000
    numbers = [*range(requests)] * 2
    random.Random(17).shuffle(numbers)
    rows = [f"q{number},2024-02-29,{place}" for place, number in enumerate(numbers, 1)]
    path.write_text("\n".join(["request_id,at,input_tokens", *rows]))
    parts: list[int] = []
    read = Lines._part_with

    def counted(lines: Lines, number: int) -> tuple[int, list[tuple[object, ...]]]:
        parts.append(number)
        return read(lines, number)

    monkeypatch.setattr(Lines, "_part_with", counted)
    bill = read_bill(path, [replace(one, repeats=repeats) for one in READY["generic"]])
    if repeats is Repeats.ADD:
        wanted = [(f"q{number}", place) for place, number in enumerate(numbers, 1)]
    else:
        last = {number: place for place, number in enumerate(numbers, 1)}
        wanted = [(f"q{number}", last[number]) for number in dict.fromkeys(numbers)]
    assert wanted == [(line.request_id, line.amounts[0]) for line in bill.lines]
    assert len(parts) <= 2 * 2 * requests / 128


IMPORTED = """
import sys
from pathlib import Path
from ledger import Ledger, SharedPoolBudgetOptions
from ledger.importing import Calls, import_calls
from ledger.reconcile import READY, read_bill
count, folder = int(sys.argv[1]), Path(sys.argv[2])
file = folder / f"{count}.csv"
rows = [f"q{number},2024-02-29,m,10,5,0.000002" for number in range(count)]
file.write_text("\\n".join(["request_id,at,model,input_tokens,output_tokens,cost_usd", *rows]))
del rows
with Ledger.open(f"sqlite:///{folder / f'{count}.db'}") as book:
    book.pool("team", SharedPoolBudgetOptions())
    bill = read_bill(file, READY["generic"], attributed=True)
    assert count == import_calls(book, "team", Calls(bill=bill)).new
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]))
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="it says what memory was used")
def test_an_import_takes_little_memory(tmp_path: Path) -> None:
    """Each further line a few hundred bytes: its key, and not its call. They are 5 MB."""
    words = [sys.executable, "-c", IMPORTED]
    few, many = (
        int(
            programs.run(
                [*words, f"{count}", f"{tmp_path}"], capture_output=True, check=True
            ).stdout
        )
        for count in (4_000, 20_000)
    )
    assert many - few < 10 * 1024
