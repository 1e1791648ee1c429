"""`ledger export` and `ledger verify-export`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures import Run

pytestmark = pytest.mark.usefixtures("books")


@pytest.fixture
def books(ledger: Run, traffic: Callable[..., Path]) -> None:
    """Write a ledger of three calls, and a pool without any."""
    ledger("simulate", traffic(3), "--input-price", "3")
    ledger("pool", "open", "other")


def test_a_file_and_what_it_is_of(ledger: Run, folder: Path) -> None:
    """The file is written, and on standard error stands how to make it again."""
    ended = ledger("export", "out.csv")
    assert "" == ended.out
    assert "8 rows; --up-to trace=7 --up-to other=1\n" == ended.err
    first = (folder / "out.csv").read_bytes()
    ledger("pool", "adjust", "trace", "--capacity-usd", "5", "--reason", "more")
    ledger("export", "again.csv", "--up-to", "trace=7", "--up-to", "other=1")
    assert first == (folder / "again.csv").read_bytes()
    assert (
        "ok       trace: 7 rows, the last of entry 7; 1 later one not in the file\n"
        in ledger("verify-export", "out.csv").out
    )


def test_standard_output(ledger: Run) -> None:
    """- streams text, which other programs read."""
    found = ledger("export", "-", "--format", "jsonl", "--pool", "trace", "--as-of", "3").out
    assert [1, 2, 3] == [json.loads(line)["seq"] for line in found.splitlines()]
    found = ledger("export", "-", "--format", "focus", "--focus-version", "1.4").out
    charges = list(csv.DictReader(io.StringIO(found)))
    assert ["3", "5", "7"] == [row["x_EntrySequence"] for row in charges]
    assert "ServiceProviderName" in charges[0]


def test_what_an_installed_program_writes(program: Run, folder: Path) -> None:
    """The bytes of a pipe are those of the file."""
    program("export", "out.csv")
    assert (folder / "out.csv").read_bytes().decode() == program(
        "export", "-", "--format", "csv"
    ).out.replace("\n", "\r\n")


def test_an_export_holds(ledger: Run) -> None:
    """What holds is said pool by pool, with the totals."""
    for name in ("out.jsonl", "out.parquet", "out.xlsx"):
        ledger("export", name, "--pool", "trace")
        assert (
            "ok       trace: 7 rows, the last of entry 7\n"
            "ok       entries: 7 rows, 360 tokens, USD 0.000963\n"
        ) == ledger("verify-export", name, "--pool", "trace").out


def test_what_differs(ledger: Run, folder: Path) -> None:
    """The first row that differs is named, and the exit code says so."""
    ledger("export", "out.csv")
    data = (folder / "out.csv").read_bytes()
    (folder / "out.csv").write_bytes(data.replace(b"0.000300", b"0.000301", 1))
    found = ledger("verify-export", "out.csv", code=1).out
    assert (
        "ok       trace: 1 row, the last of entry 1\n"
        "DIFFERS  trace: row 2, entry 2: estimate_usd is '0.000301' in the file, and '0.000300' "
        "in the journal\n"
    ) == found


REFUSED = (
    (("export", "out.txt"), "say which, or name a file that ends in .csv, .jsonl"),
    (("export", "-"), "say which"),
    (("export", "-", "--format", "parquet"), "only CSV and JSONL can be written to a stream"),
    (("export", "no/out.csv"), "No such file or directory"),
    (("export", "out.csv", "--up-to", "7"), "'7' names no entry; write POOL=ENTRY"),
    (("export", "out.csv", "--up-to", "trace=x"), "'trace=x' names no entry"),
    (("export", "out.csv", "--up-to", "trace=8"), "entries 1 to 7, and no 8"),
    (("export", "out.csv", "--pool", "nobody"), "nobody"),
    (("verify-export", "gone.csv"), "No such file"),
    (("export", "out.txt"), ".beancount, .hledger; charges for FOCUS have no ending"),
    (("verify-export", "e.hledger"), "a file for hledger is checked by hledger itself"),
    (("verify-export", "e.beancount"), "a file for beancount is checked by beancount itself"),
)


def test_what_cannot_be_done(refused: Run, folder: Path) -> None:
    """One line says what is wrong, and nothing is written."""
    for words, reason in REFUSED:
        assert reason in refused(*words)
    assert [] == list(folder.glob("out*"))
